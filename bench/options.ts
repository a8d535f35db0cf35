import { readFileSync } from "node:fs";
import { join } from "node:path";
import { parseArgs } from "node:util";
import { rootFolder } from "../test/helpers/processes.ts";
import { MODES, type ModeName, type ModePlan, planModes, USUAL_MODES } from "./modes-list.ts";

export interface BenchOptions {
  readonly modes: readonly ModePlan[];
  /** Only workloads whose name contains this text; undefined: all. */
  readonly only: string | undefined;
  readonly rounds: number;
  /** Length of one pgbench run. */
  readonly seconds: number;
  /** pgbench runs before the first round, per mode and protocol; not counted. 0: none. */
  readonly warmupSeconds: number;
  readonly clients: number;
  /** Clients of the additional latency workload; 0: there is none. */
  readonly activeClients: number;
  /** Transactions a second of the latency workloads; undefined: half of what PgBouncer reaches. */
  readonly rate: number | undefined;
  /** pgbench's own threads. */
  readonly jobs: number;
  /** pgbench's scale: 100,000 accounts each. */
  readonly scale: number;
  /** Size of the table that COPY and SELECT read, 10^6 bytes of COPY text. */
  readonly bulkMegabytes: number;
  /** Numbers of idle sessions whose memory is measured, ascending. */
  readonly idle: readonly number[];
  /** What had to be changed of what was asked for, and why. */
  readonly notes: readonly string[];
  /** TLS between client and proxy. */
  readonly tls: boolean;
  readonly jsonFile: string;
  readonly svgFile: string;
  /** Result of an earlier run to compare with. */
  readonly baselineFile: string | undefined;
  readonly failOnRegression: boolean;
  readonly micro: boolean;
  readonly tiny: boolean;
  /** Folder for V8's CPU profiles of the gateway, written when it ends. */
  readonly profileFolder: string | undefined;
}

export const USAGE = `Usage: npm run bench -- [options]

  --rounds N      measured rounds; each runs every mode once, in turn   (5)
  --seconds N     length of one pgbench run                             (10)
  --warmup N      seconds of unmeasured pgbench per mode and protocol   (5)
  --clients N     pgbench clients                                       (16)
  --clients-active N  latency with so many clients as well; --only 1000 implies it
  --rate N        transactions/s of the latency workloads (half of PgBouncer's best, or the baseline's)
  --jobs N        pgbench threads                                       (2)
  --scale N       pgbench scale                                         (10)
  --bulk-mb N     size of the table that COPY and SELECT read, MB       (300)
  --idle LIST     idle sessions whose memory is measured; 0: none       (2000,10000)
  --workers LIST  the gateway's workers; "sluice" runs once for each    (1)
  --modes LIST    of ${MODES.join(",")}, or all
                                   (${USUAL_MODES.join(",")})
  --only TEXT     only workloads whose name contains TEXT
  --tls           TLS between client and proxy, where the proxy ends it
  --json FILE     where the result goes              (bench/results/<date>.json)
  --svg FILE      where the plot goes                (beside the JSON)
  --baseline FILE a result to compare with
  --fail-on-regression  status 1 when a figure is worse than the baseline's by more than the spread
  --profile DIR   V8 CPU profiles of the gateway; its figures are then not comparable
  --tiny          everything once and small, within a minute: a test of the suite, no measurement
  --micro         the micro benchmarks instead
  --help
`;

type Numeric = "rounds" | "seconds" | "warmup" | "clients" | "clients-active" | "rate" | "jobs" | "scale" | "bulk-mb";

/** @throws Error with a sentence for the user when an option is unknown or out of range */
export function readOptions(args: readonly string[], now: Date): BenchOptions | "help" {
  const text = { type: "string" } as const;
  const flag = { type: "boolean", default: false } as const;
  const { values } = parseArgs({
    args: [...args],
    options: {
      rounds: text,
      seconds: text,
      warmup: text,
      clients: text,
      "clients-active": text,
      rate: text,
      jobs: text,
      scale: text,
      "bulk-mb": text,
      idle: text,
      workers: text,
      modes: text,
      only: text,
      tls: flag,
      json: text,
      svg: text,
      baseline: text,
      "fail-on-regression": flag,
      profile: text,
      tiny: flag,
      micro: flag,
      help: flag,
    },
  });
  if (values.help) return "help";
  const number = (name: Numeric, usual: number, tiny: number, least = 1): number => {
    const given = values[name];
    return given === undefined ? (values.tiny ? tiny : usual) : whole(name, given, least);
  };
  const clients = number("clients", 16, 4);
  const notes: string[] = [];
  const jsonFile = values.json ?? join(rootFolder, "bench/results", `${now.toISOString().replaceAll(/[:.]/g, "-")}.json`);
  if (values["fail-on-regression"] && values.baseline === undefined) throw new Error("--fail-on-regression needs --baseline");
  const manyWanted = values.only?.includes("1000") === true ? 1_000 : 0;
  return {
    modes: planModes(readModes(values.modes), list("workers", values.workers ?? "1", 1)),
    only: values.only,
    rounds: number("rounds", 5, 1),
    seconds: number("seconds", 10, 1),
    warmupSeconds: number("warmup", 5, 0, 0),
    clients,
    activeClients: number("clients-active", manyWanted, manyWanted),
    rate: values.rate === undefined ? undefined : whole("rate", values.rate, 1),
    jobs: Math.min(clients, number("jobs", 2, 1)),
    scale: number("scale", 10, 1),
    bulkMegabytes: number("bulk-mb", 300, 32),
    idle: fitting(list("idle", values.idle ?? (values.tiny ? "120" : "2000,10000"), 0), notes),
    notes,
    tls: values.tls,
    jsonFile,
    svgFile: values.svg ?? `${jsonFile.replace(/\.json$/, "")}.svg`,
    baselineFile: values.baseline,
    failOnRegression: values["fail-on-regression"],
    micro: values.micro,
    tiny: values.tiny,
    profileFolder: values.profile,
  };
}

function whole(name: string, given: string, least: number): number {
  const value = Number(given);
  if (!/^\d+$/.test(given) || value < least || value > 1_000_000)
    throw new Error(`--${name} takes a whole number from ${least}, not ${given}`);
  return value;
}

/** Ascending, each once. */
const list = (name: string, given: string, least: number): readonly number[] =>
  [...new Set(given.split(",").map((each) => whole(name, each.trim(), least)))].sort((a, b) => a - b);

/** Descriptors that a process of the suite may need besides those of its sessions. */
const SPARE_DESCRIPTORS = 1_000;

/** A proxy has two connections a session; their number is limited by RLIMIT_NOFILE, which only root may raise. */
function fitting(counts: readonly number[], notes: string[]): readonly number[] {
  const limit = /^Max open files\s+\d+\s+(\d+)/m.exec(readFileSync("/proc/self/limits", "utf8"))?.[1];
  const most = limit === undefined ? Number.POSITIVE_INFINITY : Math.floor((Number(limit) - SPARE_DESCRIPTORS) / 2);
  const fit = counts.map((count) => {
    if (count <= most) return count;
    notes.push(`${count} idle sessions were asked for; the limit of ${limit} open files a process (ulimit -Hn) leaves room for ${most}.`);
    return most;
  });
  return [...new Set(fit)].filter((count) => count > 0);
}

function readModes(given: string | undefined): readonly ModeName[] {
  if (given === undefined) return USUAL_MODES;
  if (given === "all") return MODES;
  const names = given.split(",").map((name) => name.trim());
  for (const name of names) if (!MODES.some((mode) => mode === name)) throw new Error(`--modes: "${name}" is none of ${MODES.join(", ")}`);
  return MODES.filter((mode) => names.includes(mode));
}
