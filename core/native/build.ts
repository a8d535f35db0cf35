import { execFile } from "node:child_process";
import { createHash } from "node:crypto";
import { existsSync, readFileSync } from "node:fs";
import { mkdir, rm, writeFile } from "node:fs/promises";
import { createRequire } from "node:module";
import { dirname, join } from "node:path";
import { promisify } from "node:util";

/** Outcome of buildNative. */
export interface NativeBuild {
  readonly acceptor: "built" | "present";
  readonly matcher: "built" | "present";
}

const HERE = import.meta.dirname;
const OUTPUT = join(HERE, "build", "Release");
const STAMP = join(HERE, "build", "sluice.stamp");
const SOURCES = ["binding.gyp", "napi_util.h", "digits.h", "literals.h", "acceptor.cc", "matcher.cc", "build.ts"];

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

/**
 * Build the addons unless what is there is current. Uses the installed node-gyp and headers; no network.
 * Needs python3, make and a C++17 compiler.
 * @throws Error with the compiler's output
 */
export async function buildNative(options: { quiet: boolean }): Promise<NativeBuild> {
  const stamp = currentStamp();
  const current = existsSync(STAMP) && readFileSync(STAMP, "utf8") === stamp;
  if (current && isBuilt("sluice_acceptor") && isBuilt("sluice_matcher")) return { acceptor: "present", matcher: "present" };
  await rm(STAMP, { force: true });
  const nodeGyp = join(dirname(require.resolve("node-gyp/package.json")), "bin", "node-gyp.js");
  const argv = [nodeGyp, "rebuild", `--nodedir=${headersFolder()}`, "--silent"];
  const failure = await run(process.execPath, argv, { cwd: HERE, maxBuffer: 16 * 1024 * 1024 }).then(
    ({ stderr }) => {
      if (!options.quiet) process.stderr.write(stderr);
      return undefined;
    },
    (error: Error & { stderr?: string }) => error.stderr || error.message,
  );
  if (failure !== undefined) throw new Error(`the native addons could not be built (python3, make and g++ are needed)\n${failure}`);
  await mkdir(dirname(STAMP), { recursive: true });
  await writeFile(STAMP, stamp);
  return { acceptor: "built", matcher: "built" };
}

if (import.meta.main) console.log(JSON.stringify(await buildNative({ quiet: false })));
