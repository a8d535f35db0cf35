import { mkdirSync, writeFileSync } from "node:fs";
import { dirname } from "node:path";
import { type Baseline, compare, ratesOf, readBaseline } from "./baseline.ts";
import { runMicro } from "./micro.ts";
import { type BenchOptions, readOptions, USAGE } from "./options.ts";
import { plotOf } from "./plot.ts";
import { reportOf } from "./report.ts";
import { runSuite } from "./suite.ts";

// `npm run bench`: tables on stdout, progress on stderr, the result as JSON and as a plot in files; status 1 when a mode or a figure is missing.
const say = (line: string): void => console.error(`bench: ${line}`);

/** Status 2 and a sentence when what was asked for makes no sense: before anything is started. */
function parse(): { options: BenchOptions; baseline: Baseline | undefined } | "help" {
  try {
    const options = readOptions(process.argv.slice(2), new Date());
    if (options === "help") return "help";
    return { options, baseline: options.baselineFile === undefined ? undefined : readBaseline(options.baselineFile) };
  } catch (error) {
    console.error(`bench: ${error instanceof Error ? error.message : String(error)}\n\n${USAGE}`);
    process.exit(2);
  }
}

function save(file: string, text: string): void {
  mkdirSync(dirname(file), { recursive: true });
  writeFileSync(file, text);
}

function saveJson(options: BenchOptions, result: unknown): void {
  save(options.jsonFile, `${JSON.stringify(result, null, 2)}\n`);
  say(`result in ${options.jsonFile}`);
}

async function main(): Promise<number> {
  const parsed = parse();
  if (parsed === "help") {
    console.log(USAGE);
    return 0;
  }
  const { options, baseline } = parsed;
  if (options.micro) {
    const result = await runMicro(options, say);
    console.log(result.report);
    saveJson(options, result.json);
    return 0;
  }
  for (const note of options.notes) say(note);
  const result = await runSuite(options, ratesOf(baseline), say);
  console.log(reportOf(result));
  saveJson(options, result);
  save(options.svgFile, plotOf(result));
  say(`plot in ${options.svgFile}`);
  let regressions = 0;
  if (baseline !== undefined) {
    const comparison = compare(baseline, result);
    console.log(comparison.report);
    regressions = comparison.regressions;
  }
  for (const failure of result.failures) say(`FAILED  ${failure.mode}, ${failure.during}`);
  return result.failures.length > 0 || (options.failOnRegression && regressions > 0) ? 1 : 0;
}

process.exitCode = await main().catch((error: unknown) => {
  say(`FAILED  ${error instanceof Error ? (error.stack ?? error.message) : String(error)}`);
  return 1;
});
