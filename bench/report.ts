import type { MachineFacts } from "./machine.ts";
import type { Spread } from "./statistics.ts";
import type { BenchResult, Figure, WorkloadResult } from "./suite.ts";

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
      ["Sluice", machine.commit],
    ],
  );
}

interface Column {
  readonly heading: string;
  readonly figure: Figure;
  readonly show: (value: number) => string;
}

const fixed =
  (digits: number, factor = 1) =>
  (value: number): string =>
    (value * factor).toFixed(digits);

const COLUMNS: Readonly<Record<WorkloadResult["kind"], readonly Column[]>> = {
  queries: [
    { heading: "queries/s", figure: "tps", show: fixed(0) },
    { heading: "p50 ms", figure: "p50Micros", show: fixed(3, 1e-3) },
    { heading: "p99 ms", figure: "p99Micros", show: fixed(3, 1e-3) },
    { heading: "proxy CPU µs/query", figure: "cpuMicrosPerQuery", show: fixed(1) },
    { heading: "of it in user space", figure: "userMicrosPerQuery", show: fixed(1) },
  ],
  transfer: [
    { heading: "MB/s", figure: "megabytesPerSecond", show: fixed(0) },
    { heading: "proxy CPU s/GB", figure: "cpuSecondsPerGigabyte", show: fixed(2) },
  ],
};

const LABELS = { direct: "direct", pgbouncer: "PgBouncer", sluice: "Sluice" } as const;

/** `median (min–max)`; an en dash where there is no figure. */
function cell(value: Spread | undefined, show: (value: number) => string): string {
  if (value === undefined) return "–";
  return value.rounds.length === 1 ? show(value.median) : `${show(value.median)} (${show(value.min)}–${show(value.max)})`;
}

function workloadTable(result: BenchResult, workload: WorkloadResult): string {
  const columns = COLUMNS[workload.kind];
  const rows = result.options.modes.map((mode) => {
    const figures = workload.modes[mode];
    return [LABELS[mode], ...columns.map((column) => (figures === undefined ? "FAILED" : cell(figures[column.figure], column.show)))];
  });
  if (Object.keys(workload.ratios).length > 0) {
    rows.push(["Sluice ÷ PgBouncer", ...columns.map((column) => cell(workload.ratios[column.figure], fixed(2)))]);
  }
  return table([workload.name, ...columns.map((column) => column.heading)], rows);
}

export function reportOf(result: BenchResult): string {
  const { options } = result;
  const parts = [
    machineTable(result.machine),
    `${options.rounds} rounds, ${options.seconds} s a run after ${options.warmupSeconds} s of warm-up; ${options.clients} clients in ${options.jobs} threads; ` +
      `scale ${options.scale}; ${options.bulkMegabytes} MB a transfer; Sluice with ${options.workers} worker${options.workers === 1 ? "" : "s"}; ` +
      `client side ${options.tls ? "TLS (direct: plaintext)" : "plaintext"}. Median (min–max); the last line: median of the rounds' ratios.`,
    ...result.workloads.map((workload) => workloadTable(result, workload)),
  ];
  const memory = Object.entries(result.residentMegabytes).map(
    ([mode, megabytes]) => `${LABELS[mode as keyof typeof LABELS]} ${megabytes.toFixed(0)} MB`,
  );
  if (memory.length > 0) parts.push(`Resident memory of the proxy's main process at the end: ${memory.join(", ")}.`);
  const { loadBefore, cores } = result.machine;
  if (loadBefore > cores / 2) {
    parts.push(
      `WARNING: other work was going on when the run began (load ${loadBefore.toFixed(1)} on ${cores} cores); repeat it on a quiet machine.`,
    );
  }
  if (options.tiny) parts.push("This was --tiny: it shows that the suite works, and measures nothing.");
  if (options.profileFolder !== undefined) parts.push("The gateway was being profiled: its figures are not comparable.");
  for (const failure of result.failures) parts.push(`FAILED: ${failure.mode}, ${failure.during}: ${failure.message}`);
  return `${parts.join("\n\n")}\n`;
}
