import { execFile } from "node:child_process";
import { createHash } from "node:crypto";
import { existsSync, readFileSync } from "node:fs";
import { mkdir, rm, stat, writeFile } from "node:fs/promises";
import { createRequire } from "node:module";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { promisify } from "node:util";

/** Outcome of buildNative. */
export interface NativeBuild {
  readonly acceptor: "built" | "present";
  readonly matcher: "built" | "present";
  readonly pump: "built" | "present";
}

const HERE = import.meta.dirname;
const OUTPUT = join(HERE, "build", "Release");
const STAMP = join(HERE, "build", "sluice.stamp");
const SOURCES = [
  ...["binding.gyp", "build.ts", "napi_util.h", "acceptor.cc", "sources.h"],
  ...["matcher.cc", "digits.h", "literals.h"],
  ...["pump.cc", "pump.h", "pump_addon.h", "pump_backlog.h", "pump_secure.cc", "pump_socket.cc", "pump_tls.cc", "pump_tls.h"],
];
const ADDONS = ["sluice_acceptor", "sluice_matcher", "sluice_pump"];

const run = promisify(execFile);
const require = createRequire(import.meta.url);

/** The folder whose include/node holds the headers of the running Node.js: node-gyp's nodedir. */
function headersFolder(): string {
  const candidates = [dirname(dirname(process.execPath))];
  try {
    // The npm package `node` keeps binary and headers in a package named after the platform.
    const fromNode = createRequire(require.resolve("node/package.json"));
    candidates.unshift(dirname(fromNode.resolve(`node-${process.platform}-${process.arch}/package.json`)));
  } catch {
    // Not installed: the running binary's own folder may still have headers.
  }
  const found = candidates.find((folder) => existsSync(join(folder, "include", "node", "node_api.h")));
  if (found === undefined) throw new Error(`no Node.js headers under ${candidates.join(" or ")}; run npm ci`);
  return found;
}

/** Everything the result depends on: sources, Node.js version, architecture. */
function currentStamp(): string {
  const hash = createHash("sha256").update(`${process.version} ${process.platform} ${process.arch}`);
  for (const name of SOURCES) hash.update(readFileSync(join(HERE, name)));
  return hash.digest("hex");
}

const isBuilt = (name: string): boolean => existsSync(join(OUTPUT, `${name}.node`));

/** A build takes seconds; a lock this old was left by one that was killed. */
const LOCK_STALE_MILLIS = 180_000;
const LOCK_RETRY_MILLIS = 100;

/** Builds share one folder, so only one runs at a time on this machine. */
async function locked<Result>(work: () => Promise<Result>): Promise<Result> {
  const lock = join(tmpdir(), `sluice-build-${createHash("sha256").update(HERE).digest("hex").slice(0, 16)}`);
  for (;;) {
    try {
      await mkdir(lock);
      break;
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code !== "EEXIST") throw error;
      const held = await stat(lock).catch(() => undefined);
      if (held !== undefined && Date.now() - held.mtimeMs > LOCK_STALE_MILLIS) await rm(lock, { recursive: true, force: true });
      else await sleep(LOCK_RETRY_MILLIS);
    }
  }
  try {
    return await work();
  } finally {
    await rm(lock, { recursive: true, force: true });
  }
}

function isCurrent(stamp: string): boolean {
  return existsSync(STAMP) && readFileSync(STAMP, "utf8") === stamp && ADDONS.every(isBuilt);
}

/**
 * Build the addons unless what is there is current. Uses the installed node-gyp and headers; no network.
 * Needs python3, make and a C++17 compiler.
 * @throws Error with the compiler's output
 */
export async function buildNative(options: { quiet: boolean }): Promise<NativeBuild> {
  const stamp = currentStamp();
  if (isCurrent(stamp)) return { acceptor: "present", matcher: "present", pump: "present" };
  return locked(async () => {
    // Another process may have built meanwhile.
    if (!isCurrent(stamp)) await build(stamp, options.quiet);
    return { acceptor: "built", matcher: "built", pump: "built" };
  });
}

async function build(stamp: string, quiet: boolean): Promise<void> {
  await rm(STAMP, { force: true });
  const nodeGyp = join(dirname(require.resolve("node-gyp/package.json")), "bin", "node-gyp.js");
  const argv = [nodeGyp, "rebuild", `--nodedir=${headersFolder()}`, "--silent"];
  const failure = await run(process.execPath, argv, { cwd: HERE, maxBuffer: 16 * 1024 * 1024 }).then(
    ({ stderr }) => {
      if (!quiet) process.stderr.write(stderr);
      return undefined;
    },
    (error: Error & { stderr?: string }) => error.stderr || error.message,
  );
  if (failure !== undefined) throw new Error(`the native addons could not be built (python3, make and g++ are needed)\n${failure}`);
  await mkdir(dirname(STAMP), { recursive: true });
  await writeFile(STAMP, stamp);
}

if (import.meta.main) console.log(JSON.stringify(await buildNative({ quiet: false })));
