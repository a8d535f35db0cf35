import { readFileSync } from "node:fs";
import { FIGURES, FIGURES_OF, type Figure, shown, type WorkloadKind } from "./figures.ts";
import { labelOf } from "./modes-list.ts";
import { table } from "./report.ts";
import type { Spread } from "./statistics.ts";
import type { BenchResult, Spreads, WorkloadResult } from "./suite.ts";

/** What a comparison needs of an earlier result, of this version of the file or the one before. */
export interface Baseline {
  readonly file: string;
  readonly machine: { readonly date: string; readonly cpu: string; readonly cores: number; readonly commit: string };
  readonly options: Readonly<Record<string, unknown>>;
  readonly workloads: readonly Pick<WorkloadResult, "name" | "kind" | "rate" | "modes">[];
}

/** @throws Error with a sentence for the user when the file is no result of this suite */
export function readBaseline(file: string): Baseline {
  const { version, machine, options, workloads } = JSON.parse(readFileSync(file, "utf8")) as Partial<Baseline> & { version?: number };
  if ((version !== 1 && version !== 2) || machine === undefined || options === undefined || !Array.isArray(workloads))
    throw new Error(`${file} is not a result of this suite (a file that --json wrote)`);
  return { file, machine, options, workloads };
}

export const ratesOf = (baseline: Baseline | undefined): ReadonlyMap<string, number> =>
  new Map((baseline?.workloads ?? []).flatMap(({ name, rate }) => (rate === undefined ? [] : [[name, rate]])));

/** Where a figure was measured once, on one side or both, it has no spread: a change below this says nothing. */
const SINGLE_TOLERANCE = 0.1;

export type Change = "same" | "better" | "worse";

/**
 * A difference counts when it is larger than the spread: when all rounds of one run lie on one side of all rounds of the other.
 * A figure measured once is taken to vary by a tenth in both directions.
 */
export function changeOf(figure: Figure, old: Spread, now: Spread): Change {
  const [oldLow, oldHigh] = rangeOf(old);
  const [low, high] = rangeOf(now);
  if (low <= oldHigh && high >= oldLow) return "same";
  return low > oldHigh === (FIGURES[figure].better === "more") ? "better" : "worse";
}

const rangeOf = ({ median, min, max, rounds }: Spread): readonly [number, number] =>
  rounds.length > 1 ? [min, max] : [median * (1 - SINGLE_TOLERANCE), median * (1 + SINGLE_TOLERANCE)];

export interface Comparison {
  readonly report: string;
  readonly regressions: number;
}

export function compare(baseline: Baseline, result: BenchResult): Comparison {
  const rows: string[][] = [];
  let regressions = 0;
  for (const workload of result.workloads) {
    const old = baseline.workloads.find(({ name }) => name === workload.name);
    for (const [id, spreads] of Object.entries(workload.modes)) {
      for (const [figure, before, now] of pairs(workload.kind, old?.modes[id], spreads)) {
        const change = changeOf(figure, before, now);
        if (change === "worse") regressions++;
        const ratio = before.median === 0 ? "–" : (now.median / before.median).toFixed(2);
        const cells = [shown(figure, before.median), shown(figure, now.median), ratio, change === "same" ? "" : change.toUpperCase()];
        rows.push([`${workload.name}, ${labelOf(id)}, ${FIGURES[figure].heading}`, ...cells]);
      }
    }
  }
  const { date, commit } = baseline.machine;
  const parts = [
    `Against the baseline of ${date}, commit ${commit}. BETTER and WORSE: the difference is larger than the spread over the rounds of both runs.`,
    rows.length === 0 ? "The two runs have no figure in common." : table(["figure", "baseline", "now", "ratio", "change"], rows),
    ...differences(baseline, result).map((difference) => `WARNING: the runs differ in ${difference}.`),
    `${regressions} of ${rows.length} figures are worse.`,
  ];
  return { report: `${parts.join("\n\n")}\n`, regressions };
}

function* pairs(kind: WorkloadKind, old: Spreads | undefined, now: Spreads): Generator<readonly [Figure, Spread, Spread]> {
  for (const figure of FIGURES_OF[kind]) {
    const [before, after] = [old?.[figure], now[figure]];
    if (before !== undefined && after !== undefined) yield [figure, before, after];
  }
}

/** Options that change what figures mean. */
const MEANINGFUL = ["seconds", "clients", "jobs", "scale", "bulkMegabytes", "tls"] as const;

function differences(baseline: Baseline, result: BenchResult): readonly string[] {
  const found: string[] = MEANINGFUL.filter((name) => baseline.options[name] !== result.options[name]).map(
    (name) => `${name}: ${String(baseline.options[name])} then, ${String(result.options[name])} now`,
  );
  const { cpu, cores } = result.machine;
  if (baseline.machine.cpu !== cpu || baseline.machine.cores !== cores)
    found.push(`the machine: ${baseline.machine.cpu}, ${baseline.machine.cores} cores then`);
  for (const { name, rate } of result.workloads) {
    const before = baseline.workloads.find((workload) => workload.name === name)?.rate;
    if (before !== undefined && before !== rate) found.push(`the rate of "${name}": ${before}/s then, ${String(rate)}/s now`);
  }
  return found;
}
