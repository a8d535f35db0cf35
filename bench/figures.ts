/** A figure as tables, plots and comparisons show it. */
export interface FigureInfo {
  readonly heading: string;
  readonly digits: number;
  /** Shown value = measured value × this. */
  readonly factor: number;
  readonly better: "more" | "less";
}

const more = (heading: string, digits: number, factor = 1): FigureInfo => ({ heading, digits, factor, better: "more" });
const less = (heading: string, digits: number, factor = 1): FigureInfo => ({ heading, digits, factor, better: "less" });

export const FIGURES = {
  tps: more("queries/s", 0),
  p50Micros: less("p50 ms", 3, 1e-3),
  p99Micros: less("p99 ms", 3, 1e-3),
  p999Micros: less("p99.9 ms", 3, 1e-3),
  cpuMicrosPerQuery: less("proxy CPU µs/query", 1),
  userMicrosPerQuery: less("of it in user space", 1),
  megabytesPerSecond: more("MB/s", 0),
  cpuSecondsPerGigabyte: less("proxy CPU s/GB", 2),
  achievedPercent: more("rate kept %", 1),
  connectionsPerSecond: more("connections/s", 0),
  connectMillis: less("mean to connect ms", 2),
  cpuMicrosPerConnection: less("proxy CPU µs/connection", 0),
  kilobytesPerSession: less("kB/session", 1),
  megabytesAtBase: less("MB before", 0),
  opensPerSecond: more("sessions opened/s", 0),
} as const satisfies Readonly<Record<string, FigureInfo>>;

export type Figure = keyof typeof FIGURES;
export type Figures = Partial<Record<Figure, number>>;

export type WorkloadKind = "queries" | "transfer" | "rate" | "connections" | "idle";

/** In the order of the tables' columns. A mode without a proxy has some of them only. */
export const FIGURES_OF: Readonly<Record<WorkloadKind, readonly Figure[]>> = {
  queries: ["tps", "p50Micros", "p99Micros", "cpuMicrosPerQuery", "userMicrosPerQuery"],
  transfer: ["megabytesPerSecond", "cpuSecondsPerGigabyte"],
  rate: ["achievedPercent", "p50Micros", "p99Micros", "p999Micros", "cpuMicrosPerQuery"],
  connections: ["connectionsPerSecond", "connectMillis", "cpuMicrosPerConnection"],
  idle: ["kilobytesPerSession", "megabytesAtBase", "opensPerSecond"],
};

/** Those that a plot has room for. */
export const PLOTTED: Readonly<Record<WorkloadKind, readonly Figure[]>> = {
  queries: ["tps", "p99Micros", "cpuMicrosPerQuery"],
  transfer: ["megabytesPerSecond", "cpuSecondsPerGigabyte"],
  rate: ["p50Micros", "p99Micros", "p999Micros"],
  connections: ["connectionsPerSecond", "connectMillis", "cpuMicrosPerConnection"],
  idle: ["kilobytesPerSession", "opensPerSecond"],
};

/** @param value as measured */
export function shown(figure: Figure, value: number): string {
  const { digits, factor } = FIGURES[figure];
  return (value * factor).toFixed(digits);
}
