import { execFile } from "node:child_process";
import { createHash } from "node:crypto";
import { existsSync, readdirSync, readFileSync } from "node:fs";
import { copyFile, mkdir, rm, stat, writeFile } from "node:fs/promises";
import { createRequire } from "node:module";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { parseArgs, promisify } from "node:util";

/** Outcome of buildNative. */
export interface NativeBuild {
  readonly acceptor: "built" | "present";
  readonly heap: "built" | "present";
  readonly journal: "built" | "present";
  readonly matcher: "built" | "present";
  readonly pump: "built" | "present";
}

/** What the compiler is to build in: AddressSanitizer, UndefinedBehaviorSanitizer. For tests; nothing in the product loads such a build. */
export type Sanitizer = "address" | "undefined";

const HERE = import.meta.dirname;
/** All of them by what they are called: a file that a list forgets would be missing from a sanitizer's build, and no change of it would be built. */
const SOURCES = readdirSync(HERE)
  .filter((name) => /\.(?:cc|h|gyp)$/.test(name) || name === "build.ts")
  .sort();
const ADDONS = ["sluice_acceptor", "sluice_journal", "sluice_matcher", "sluice_pump"];
/** Loaded by the dynamic linker, not by Node.js; node-gyp's ending all the same. Not built with a sanitizer. */
const HEAP = "sluice_heap";

/** node-gyp builds in the folder that it runs in, so a build with a sanitizer has a folder of its own, with copies of the sources. */
const baseFolder = (sanitizer: Sanitizer | undefined): string => (sanitizer === undefined ? HERE : join(HERE, `build-${sanitizer}`));
/** Where the addons are, once built. */
export const addonFolder = (sanitizer?: Sanitizer): string => join(baseFolder(sanitizer), "build", "Release");
const stampOf = (sanitizer: Sanitizer | undefined): string => join(baseFolder(sanitizer), "build", "sluice.stamp");

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

function isCurrent(stamp: string, sanitizer: Sanitizer | undefined): boolean {
  const file = stampOf(sanitizer);
  if (!existsSync(file) || readFileSync(file, "utf8") !== stamp) return false;
  return [...ADDONS, ...(sanitizer === undefined ? [HEAP] : [])].every((name) => existsSync(join(addonFolder(sanitizer), `${name}.node`)));
}

/**
 * Build the addons unless what is there is current. Uses the installed node-gyp and headers; no network.
 * Needs python3, make and a C++17 compiler; with a sanitizer, GCC.
 * @throws Error with the compiler's output
 */
export async function buildNative(options: { quiet: boolean; sanitizer?: Sanitizer }): Promise<NativeBuild> {
  const { quiet, sanitizer } = options;
  const stamp = currentStamp();
  if (isCurrent(stamp, sanitizer)) return { acceptor: "present", heap: "present", journal: "present", matcher: "present", pump: "present" };
  return locked(async () => {
    // Another process may have built meanwhile.
    if (!isCurrent(stamp, sanitizer)) await build(stamp, quiet, sanitizer);
    return { acceptor: "built", heap: "built", journal: "built", matcher: "built", pump: "built" };
  });
}

async function build(stamp: string, quiet: boolean, sanitizer: Sanitizer | undefined): Promise<void> {
  const folder = baseFolder(sanitizer);
  const stampFile = stampOf(sanitizer);
  await rm(stampFile, { force: true });
  if (sanitizer !== undefined) {
    await mkdir(folder, { recursive: true });
    for (const name of SOURCES) await copyFile(join(HERE, name), join(folder, name));
  }
  const nodeGyp = join(dirname(require.resolve("node-gyp/package.json")), "bin", "node-gyp.js");
  const toGyp = sanitizer === undefined ? [] : ["--", `-Dsanitizer=${sanitizer}`];
  const argv = [nodeGyp, "rebuild", `--nodedir=${headersFolder()}`, "--silent", ...toGyp];
  const failure = await run(process.execPath, argv, { cwd: folder, maxBuffer: 16 * 1024 * 1024 }).then(
    ({ stderr }) => {
      if (!quiet) process.stderr.write(stderr);
      return undefined;
    },
    (error: Error & { stderr?: string }) => error.stderr || error.message,
  );
  if (failure !== undefined) throw new Error(`the native addons could not be built (python3, make and g++ are needed)\n${failure}`);
  await mkdir(dirname(stampFile), { recursive: true });
  await writeFile(stampFile, stamp);
}

if (import.meta.main) {
  const { sanitize: sanitizer } = parseArgs({ options: { sanitize: { type: "string" } } }).values;
  if (sanitizer !== undefined && sanitizer !== "address" && sanitizer !== "undefined") {
    throw new Error(`--sanitize takes address or undefined, not ${sanitizer}`);
  }
  console.log(JSON.stringify(await buildNative({ quiet: false, ...(sanitizer !== undefined && { sanitizer }) })));
}
