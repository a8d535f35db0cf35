import { FIGURES, FIGURES_OF, type Figure, shown } from "./figures.ts";
import type { MachineFacts } from "./machine.ts";
import { labelOf } from "./modes-list.ts";
import type { Spread } from "./statistics.ts";
import type { BenchResult, WorkloadResult } from "./suite.ts";

/** A Markdown table with its columns aligned, the first one to the left. */
export function table(headings: readonly string[], rows: readonly (readonly string[])[]): string {
  const widths = headings.map((heading, column) => Math.max(heading.length, 3, ...rows.map((row) => row[column]?.length ?? 0)));
  const line = (cells: readonly string[]): string =>
    `| ${widths.map((width, column) => (column === 0 ? (cells[column] ?? "").padEnd(width) : (cells[column] ?? "").padStart(width))).join(" | ")} |`;
  const rule = `|${widths.map((width, column) => (column === 0 ? `${"-".repeat(width + 2)}` : `${"-".repeat(width + 1)}:`)).join("|")}|`;
  return [line(headings), rule, ...rows.map(line)].join("\n");
}

export function machineTable(machine: MachineFacts): string {
  return table(
    ["machine", ""],
    [
      ["date", machine.date],
      ["processor", `${machine.cpu}, ${machine.cores} cores, ${machine.architecture}`],
      ["memory", `${machine.memoryGib} GiB`],
      ["system", `${machine.system}, Linux ${machine.kernel}`],
      ["load before", machine.loadBefore.toFixed(2)],
      ["Node.js", machine.node],
      ["database", machine.postgres],
      ["client", machine.pgbench],
      ["PgBouncer", machine.pgbouncer],
      ["HAProxy", machine.haproxy],
      ["Sluice", machine.commit],
    ],
  );
}

/** `median (min–max)`; an en dash where there is no figure. */
function cell(value: Spread | undefined, show: (value: number) => string): string {
  if (value === undefined) return "–";
  return value.rounds.length === 1 ? show(value.median) : `${show(value.median)} (${show(value.min)}–${show(value.max)})`;
}

const twoDigits = (value: number): string => value.toFixed(2);

function workloadTable(result: BenchResult, workload: WorkloadResult): string {
  const columns: readonly Figure[] = FIGURES_OF[workload.kind];
  const rows = result.options.modes.flatMap(({ id, name }) => {
    const figures = workload.modes[id];
    if (figures === undefined && workload.kind === "idle" && name === "direct") return [];
    return [
      [
        labelOf(id),
        ...columns.map((figure) => (figures === undefined ? "FAILED" : cell(figures[figure], (value) => shown(figure, value)))),
      ],
    ];
  });
  for (const [id, figures] of Object.entries(workload.ratios)) {
    rows.push([`${labelOf(id)} ÷ PgBouncer`, ...columns.map((figure) => cell(figures[figure], twoDigits))]);
  }
  const title = workload.rate === undefined ? workload.name : `${workload.name} (${workload.rate}/s)`;
  return table([title, ...columns.map((figure) => FIGURES[figure].heading)], rows);
}

export function reportOf(result: BenchResult): string {
  const { options } = result;
  const parts = [
    machineTable(result.machine),
    `${options.rounds} rounds, ${options.seconds} s a run after ${options.warmupSeconds} s of warm-up; ${options.clients} clients in ${options.jobs} threads; ` +
      `scale ${options.scale}; ${options.bulkMegabytes} MB a transfer; Sluice with 1 worker where no other number is named; ` +
      `client side ${options.tls ? "TLS (direct, HAProxy and relay: plaintext)" : "plaintext"}. ` +
      "Median (min–max); the last lines: median of the rounds' ratios.",
    ...result.workloads.map((workload) => workloadTable(result, workload)),
  ];
  const memory = Object.entries(result.residentMegabytes).map(([id, megabytes]) => `${labelOf(id)} ${megabytes.toFixed(0)} MB`);
  if (memory.length > 0) parts.push(`Resident memory of the proxy's main process at the end: ${memory.join(", ")}.`);
  const { loadBefore, cores } = result.machine;
  if (loadBefore > cores / 2) {
    parts.push(
      `WARNING: other work was going on when the run began (load ${loadBefore.toFixed(1)} on ${cores} cores); repeat it on a quiet machine.`,
    );
  }
  for (const note of options.notes) parts.push(`NOTE: ${note}`);
  for (const { name, modes } of result.workloads) {
    for (const [id, figures] of Object.entries(modes)) {
      const kept = figures.achievedPercent?.median;
      if (kept !== undefined && kept < KEPT_PERCENT) {
        parts.push(
          `WARNING: ${labelOf(id)} kept ${kept.toFixed(0)} % of the rate of "${name}": its queue grew, and its latencies grow with the run's length.`,
        );
      }
    }
  }
  if (options.tiny) parts.push("This was --tiny: it shows that the suite works, and measures nothing.");
  if (options.profileFolder !== undefined) parts.push("The gateway was being profiled: its figures are not comparable.");
  for (const failure of result.failures) parts.push(`FAILED: ${failure.mode}, ${failure.during}: ${failure.message}`);
  return `${parts.join("\n\n")}\n`;
}

/** A Poisson schedule differs from its mean by a few per cent in a short run. */
const KEPT_PERCENT = 95;
