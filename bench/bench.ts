import { mkdirSync, writeFileSync } from "node:fs";
import { dirname } from "node:path";
import { runMicro } from "./micro.ts";
import { type BenchOptions, readOptions, USAGE } from "./options.ts";
import { reportOf } from "./report.ts";
import { runSuite } from "./suite.ts";

// `npm run bench`: tables on stdout, progress on stderr, the result as JSON in a file; status 1 when a mode or a figure is missing.
const say = (line: string): void => console.error(`bench: ${line}`);

function parse(): BenchOptions | "help" {
  try {
    return readOptions(process.argv.slice(2), new Date());
  } catch (error) {
    console.error(`bench: ${error instanceof Error ? error.message : String(error)}\n\n${USAGE}`);
    process.exit(2);
  }
}

function save(options: BenchOptions, result: unknown): void {
  mkdirSync(dirname(options.jsonFile), { recursive: true });
  writeFileSync(options.jsonFile, `${JSON.stringify(result, null, 2)}\n`);
  say(`result in ${options.jsonFile}`);
}

async function main(): Promise<number> {
  const options = parse();
  if (options === "help") {
    console.log(USAGE);
    return 0;
  }
  if (options.micro) {
    const result = await runMicro(options, say);
    console.log(result.report);
    save(options, result.json);
    return 0;
  }
  const result = await runSuite(options, say);
  console.log(reportOf(result));
  save(options, result);
  for (const failure of result.failures) say(`FAILED  ${failure.mode}, ${failure.during}`);
  return result.failures.length === 0 ? 0 : 1;
}

process.exitCode = await main().catch((error: unknown) => {
  say(`FAILED  ${error instanceof Error ? (error.stack ?? error.message) : String(error)}`);
  return 1;
});
