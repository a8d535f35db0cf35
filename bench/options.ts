import { join } from "node:path";
import { parseArgs } from "node:util";
import { rootFolder } from "../test/helpers/processes.ts";

export const MODES = ["direct", "pgbouncer", "sluice"] as const;
export type ModeName = (typeof MODES)[number];

export interface BenchOptions {
  readonly modes: readonly ModeName[];
  /** Only workloads whose name contains this text; undefined: all. */
  readonly only: string | undefined;
  readonly rounds: number;
  /** Length of one pgbench run. */
  readonly seconds: number;
  /** pgbench runs before the first round, per mode and protocol; not counted. 0: none. */
  readonly warmupSeconds: number;
  readonly clients: number;
  /** pgbench's own threads. */
  readonly jobs: number;
  /** pgbench's scale: 100,000 accounts each. */
  readonly scale: number;
  /** Size of the table that COPY and SELECT read, 10^6 bytes of COPY text. */
  readonly bulkMegabytes: number;
  readonly workers: number;
  /** TLS between client and proxy. */
  readonly tls: boolean;
  readonly jsonFile: string;
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
  --jobs N        pgbench threads                                       (2)
  --scale N       pgbench scale                                         (10)
  --bulk-mb N     size of the table that COPY and SELECT read, MB       (300)
  --workers N     the gateway's workers                                 (1)
  --modes LIST    of ${MODES.join(",")}                           (all)
  --only TEXT     only workloads whose name contains TEXT
  --tls           TLS between client and proxy
  --json FILE     where the result goes              (bench/results/<date>.json)
  --profile DIR   V8 CPU profiles of the gateway; its figures are then not comparable
  --tiny          everything once and small, in seconds: a test of the suite, no measurement
  --micro         the micro benchmarks instead
  --help
`;

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
      jobs: text,
      scale: text,
      "bulk-mb": text,
      workers: text,
      modes: text,
      only: text,
      tls: flag,
      json: text,
      profile: text,
      tiny: flag,
      micro: flag,
      help: flag,
    },
  });
  if (values.help) return "help";
  const number = (
    name: "rounds" | "seconds" | "warmup" | "clients" | "jobs" | "scale" | "bulk-mb" | "workers",
    usual: number,
    tiny: number,
    least = 1,
  ): number => {
    const given = values[name];
    const value = given === undefined ? (values.tiny ? tiny : usual) : Number(given);
    if (!Number.isInteger(value) || value < least || value > 100_000)
      throw new Error(`--${name} takes a whole number from ${least}, not ${given}`);
    return value;
  };
  const clients = number("clients", 16, 4);
  return {
    modes: readModes(values.modes),
    only: values.only,
    rounds: number("rounds", 5, 1),
    seconds: number("seconds", 10, 1),
    warmupSeconds: number("warmup", 5, 0, 0),
    clients,
    jobs: Math.min(clients, number("jobs", 2, 1)),
    scale: number("scale", 10, 1),
    bulkMegabytes: number("bulk-mb", 300, 32),
    workers: number("workers", 1, 1),
    tls: values.tls,
    jsonFile: values.json ?? join(rootFolder, "bench/results", `${now.toISOString().replaceAll(/[:.]/g, "-")}.json`),
    micro: values.micro,
    tiny: values.tiny,
    profileFolder: values.profile,
  };
}

function readModes(list: string | undefined): readonly ModeName[] {
  if (list === undefined) return MODES;
  const names = list.split(",").map((name) => name.trim());
  for (const name of names) if (!MODES.some((mode) => mode === name)) throw new Error(`--modes: "${name}" is none of ${MODES.join(", ")}`);
  return MODES.filter((mode) => names.includes(mode));
}
