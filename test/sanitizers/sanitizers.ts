import { execFileSync } from "node:child_process";
import { existsSync, readdirSync, readFileSync, rmSync } from "node:fs";
import { dirname, join } from "node:path";
import { pathToFileURL } from "node:url";
import { addonFolder, buildNative, type Sanitizer } from "../../core/native/build.ts";
import { type CommandResult, nodeBinary, removeFolder, rootFolder, run, temporaryFolder } from "../helpers/processes.ts";

export const SANITIZERS = ["address", "undefined"] as const satisfies readonly Sanitizer[];

/** All tests in these load the addons into their own process. */
const UNIT_TEST_FOLDERS = ["core/native", "core/net", "core/mask"];
const FURTHER_UNIT_TESTS = ["protocols/postgres/rows.test.ts"];
/** What is preloaded is not built with a sanitizer, which is preloaded itself and has an mmap of its own. */
const WITHOUT_SANITIZER = ["core/native/heap.test.ts"];
/** These start a gateway, which gets them: every kind of message, TLS on both legs, the matcher, broken messages. */
const GATEWAY_TESTS = ["test/clients/wire.test.ts", "test/clients/legs.test.ts", "test/clients/masks.test.ts", "test/fuzz/live.test.ts"];

/** AddressSanitizer's exit status; nothing else here ends with it. */
const FAULT_STATUS = 86;
const TESTS_MILLIS = 900_000;

/**
 * What makes a process use the addons of that build. Faults end it, and are reported in files of `reports`.
 * Leaks are not looked for: Node.js leaves its heap to the kernel when it exits, on purpose.
 */
export function sanitizedEnvironment(sanitizer: Sanitizer, reports: string): Record<string, string> {
  const common = `log_path=${join(reports, "fault")}:exitcode=${FAULT_STATUS}:print_stacktrace=1`;
  return {
    NODE_OPTIONS: `--import="${pathToFileURL(join(import.meta.dirname, "preload.mjs")).href}"`,
    SLUICE_TEST_ADDONS: addonFolder(sanitizer),
    // The sanitizer has an mmap of its own; V8's heap is not what is looked at here.
    SLUICE_LARGE_PAGES: "off",
    // The process must have it from its start; an addon is loaded too late.
    ...(sanitizer === "address" && { LD_PRELOAD: execFileSync("gcc", ["-print-file-name=libasan.so"]).toString().trim() }),
    // A test ends a process with SIGBUS, to see that the journal's addon lets others' through.
    // Freed memory is kept from being used again, but not so much that tests which measure memory fail.
    ASAN_OPTIONS: `${common}:detect_leaks=0:detect_stack_use_after_return=1:quarantine_size_mb=16:handle_sigbus=0`,
    UBSAN_OPTIONS: common,
  };
}

/** Run the tests of native code with the addons of a sanitizer. @throws Error with what was found */
export async function runSanitized(sanitizer: Sanitizer, say: (line: string) => void): Promise<void> {
  await buildNative({ quiet: true, sanitizer });
  const reports = temporaryFolder("sanitizer");
  try {
    const environment = sanitizedEnvironment(sanitizer, reports);
    await seesFaults(sanitizer, environment, reports);
    say(`${sanitizer}: a fault on purpose was seen`);
    const testsIn = (folder: string): string[] => readdirSync(join(rootFolder, folder)).filter((name) => name.endsWith(".test.ts"));
    const all = [...UNIT_TEST_FOLDERS.flatMap((folder) => testsIn(folder).map((name) => `${folder}/${name}`)), ...FURTHER_UNIT_TESTS];
    const unitTests = all.filter((name) => !WITHOUT_SANITIZER.includes(name));
    await passes(unitTests, environment, reports);
    say(`${sanitizer}: ${unitTests.join(" ")}`);
    await passes(GATEWAY_TESTS, { SLUICE_TEST_GATEWAY_ENV: JSON.stringify({ ...environment, SLUICE_TRANSPORT: "pump" }) }, reports);
    say(`${sanitizer}: ${GATEWAY_TESTS.join(" ")}`);
  } finally {
    removeFolder(reports);
  }
}

const SEEN: Readonly<Record<Sanitizer, readonly [call: string, report: RegExp]>> = {
  address: ["overflow(8)", /heap-buffer-overflow/],
  undefined: ["shift(40)", /shift exponent 40 is too large/],
};

/** A run that could not fail would prove nothing: the addons have to be those of this build, and a fault in them has to end in a report. */
async function seesFaults(sanitizer: Sanitizer, environment: Record<string, string>, reports: string): Promise<void> {
  const [call, report] = SEEN[sanitizer];
  const addons = JSON.stringify(pathToFileURL(join(rootFolder, "core", "native", "addons.ts")).href);
  const faults = JSON.stringify(join(rootFolder, "core", "native", "build", "Release", "sluice_faults.node"));
  const program = `
    const { loadAcceptor, loadJournal, loadMatcher, loadPump } = await import(${addons});
    for (const load of [loadAcceptor, loadJournal, loadMatcher, loadPump]) load();
    console.log(process.report.getReport().sharedObjects.filter((file) => file.includes("/sluice_")).join());
    console.error((await import("node:module")).createRequire(import.meta.url)(${faults}).${call});`;
  const { code, stdout, stderr } = await run(nodeBinary, ["--input-type=module", "-e", program], { env: environment });
  const loaded = stdout.trim().split(",");
  if (loaded.length !== 4 || !loaded.every((file) => dirname(file) === addonFolder(sanitizer))) {
    throw new Error(`these addons were loaded: ${stdout}${stderr}`);
  }
  const found = takeReports(reports);
  if (code !== FAULT_STATUS || !report.test(found)) throw new Error(`${call} ended with ${code} and no report: ${found}${stderr}`);
}

async function passes(files: readonly string[], environment: Record<string, string>, reports: string): Promise<void> {
  const argv = ["--test", "--test-concurrency=1", "--test-timeout=300000", ...files];
  const env = { ...environment, PATH: `${join(rootFolder, "node_modules/.bin")}:${process.env["PATH"]}` };
  const { code, stdout, stderr }: CommandResult = await run(nodeBinary, argv, { cwd: rootFolder, env, timeoutMillis: TESTS_MILLIS });
  // Also of processes whose end a test takes for granted.
  const found = takeReports(reports);
  if (code === 0 && found === "") return;
  throw new Error(`node ${argv.join(" ")} ended with ${code}:\n${found || (stdout + stderr).slice(-20_000)}`);
}

/** What the sanitizers have written since the last time. */
function takeReports(folder: string): string {
  const files = existsSync(folder) ? readdirSync(folder).map((name) => join(folder, name)) : [];
  const text = files.map((file) => readFileSync(file, "utf8")).join("\n");
  for (const file of files) rmSync(file);
  return text;
}
