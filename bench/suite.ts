import type { PostgresServer } from "../test/helpers/postgres.ts";
import { type BulkTable, bulkRows, DIGESTS, PROSE, startDatabase } from "./database.ts";
import { type MachineFacts, machineFacts } from "./machine.ts";
import { type Mode, makeCertificate, residentMegabytes, Servers, startMode } from "./modes.ts";
import type { BenchOptions, ModeName } from "./options.ts";
import { type Protocol, runPgbench } from "./pgbench.ts";
import { type Spread, spread } from "./statistics.ts";
import { runTransfer } from "./transfer.ts";

export type Figure =
  | "tps"
  | "p50Micros"
  | "p99Micros"
  | "cpuMicrosPerQuery"
  | "userMicrosPerQuery"
  | "megabytesPerSecond"
  | "cpuSecondsPerGigabyte";

interface Workload {
  readonly name: string;
  readonly kind: "queries" | "transfer";
  /** One uncounted run before the first round. */
  readonly warmUp: (mode: Mode, options: BenchOptions) => Promise<unknown>;
  readonly run: (mode: Mode, options: BenchOptions) => Promise<Partial<Record<Figure, number>>>;
}

export interface WorkloadResult {
  readonly name: string;
  readonly kind: "queries" | "transfer";
  readonly modes: Partial<Record<ModeName, Partial<Record<Figure, Spread>>>>;
  /** Sluice's figure divided by PgBouncer's of the same round. */
  readonly ratios: Partial<Record<Figure, Spread>>;
}

export interface Failure {
  readonly mode: ModeName;
  readonly during: string;
  readonly message: string;
}

export interface BenchResult {
  readonly version: 1;
  readonly machine: MachineFacts;
  readonly options: BenchOptions;
  readonly workloads: readonly WorkloadResult[];
  /** Resident memory of the proxy at the end, 10^6 bytes. */
  readonly residentMegabytes: Partial<Record<ModeName, number>>;
  readonly failures: readonly Failure[];
  readonly tookSeconds: number;
}

const queries = (protocol: Protocol): Workload => ({
  name: `pgbench -S -M ${protocol}`,
  kind: "queries",
  warmUp: (mode, options) => runPgbench(mode, protocol, options.warmupSeconds, options),
  run: async (mode, options) => {
    const { queries: _, ...figures } = await runPgbench(mode, protocol, options.seconds, options);
    return figures;
  },
});

const transfer = (name: string, table: BulkTable, sql: string, masks: boolean): Workload => {
  const run = async (mode: Mode, options: BenchOptions): Promise<Partial<Record<Figure, number>>> => {
    const { bytes: _, ...figures } = await runTransfer(mode, masks ? mode.to : mode.unmasked, sql, bulkRows(table, options));
    return figures;
  };
  return { name, kind: "transfer", warmUp: run, run };
};

const WORKLOADS: readonly Workload[] = [
  queries("prepared"),
  queries("simple"),
  queries("extended"),
  transfer("COPY TO STDOUT (without masks)", PROSE, `copy ${PROSE.name} to stdout`, false),
  transfer("SELECT (without masks)", PROSE, `select * from ${PROSE.name}`, false),
  transfer("SELECT (with masks)", PROSE, `select * from ${PROSE.name}`, true),
  transfer("SELECT digests (with masks)", DIGESTS, `select * from ${DIGESTS.name}`, true),
];

export async function runSuite(options: BenchOptions, say: (line: string) => void): Promise<BenchResult> {
  const started = performance.now();
  const machine = machineFacts(new Date());
  const workloads = WORKLOADS.filter((workload) => workload.name.includes(options.only ?? ""));
  if (workloads.length === 0) throw new Error(`no workload has "${options.only}" in its name`);
  const failures: Failure[] = [];
  const servers = new Servers();
  const fail = (mode: ModeName, during: string, error: unknown): void => {
    const message = error instanceof Error ? error.message : String(error);
    failures.push({ mode, during, message });
    say(`FAILED  ${mode}, ${during}: ${message}`);
  };
  try {
    say(`starting PostgreSQL; pgbench scale ${options.scale}, table of ${options.bulkMegabytes} MB`);
    const database = servers.add(await startDatabase(options));
    const modes = await startModes(options, database, servers, fail, say);
    const alive = (mode: Mode): boolean => !failures.some((failure) => failure.mode === mode.name);
    if (options.warmupSeconds > 0) await warmUp(workloads, modes.filter(alive), options, fail, say);
    const measured = await measure(workloads, modes, alive, options, fail, say);
    const resident: Partial<Record<ModeName, number>> = {};
    for (const mode of modes.filter(alive)) {
      const megabytes = residentMegabytes(mode);
      if (megabytes !== undefined) resident[mode.name] = megabytes;
    }
    return {
      version: 1,
      machine,
      options,
      workloads: workloads.map((workload) => summarise(workload, measured)),
      residentMegabytes: resident,
      failures,
      tookSeconds: (performance.now() - started) / 1_000,
    };
  } finally {
    await servers.stop();
  }
}

type Fail = (mode: ModeName, during: string, error: unknown) => void;

async function startModes(
  options: BenchOptions,
  database: PostgresServer,
  servers: Servers,
  fail: Fail,
  say: (line: string) => void,
): Promise<readonly Mode[]> {
  const tls = await makeCertificate(options, servers);
  const modes: Mode[] = [];
  for (const name of options.modes) {
    say(`starting ${name}`);
    try {
      modes.push(servers.add(await startMode(name, database, tls, options)));
    } catch (error) {
      fail(name, "start", error);
    }
  }
  return modes;
}

async function warmUp(
  workloads: readonly Workload[],
  modes: readonly Mode[],
  options: BenchOptions,
  fail: Fail,
  say: (line: string) => void,
): Promise<void> {
  for (const mode of modes) {
    say(`warming up ${mode.name}`);
    try {
      for (const workload of workloads) await workload.warmUp(mode, options);
    } catch (error) {
      fail(mode.name, "warm-up", error);
    }
  }
}

/** Figures of one mode in one workload, one entry a round. */
type Measured = Map<Workload, Map<ModeName, Partial<Record<Figure, number>>[]>>;

async function measure(
  workloads: readonly Workload[],
  modes: readonly Mode[],
  alive: (mode: Mode) => boolean,
  options: BenchOptions,
  fail: Fail,
  say: (line: string) => void,
): Promise<Measured> {
  const measured: Measured = new Map(workloads.map((workload) => [workload, new Map(modes.map((mode) => [mode.name, []]))]));
  for (let round = 1; round <= options.rounds; round++) {
    for (const workload of workloads) {
      for (const mode of modes.filter(alive)) {
        try {
          const figures = await workload.run(mode, options);
          measured.get(workload)?.get(mode.name)?.push(figures);
          say(`round ${round}/${options.rounds}  ${workload.name.padEnd(31)} ${mode.name.padEnd(10)} ${brief(figures)}`);
        } catch (error) {
          fail(mode.name, `round ${round}, ${workload.name}`, error);
        }
      }
    }
  }
  return measured;
}

const brief = (figures: Partial<Record<Figure, number>>): string =>
  Object.entries(figures)
    .map(([name, value]) => `${name} ${value.toPrecision(4)}`)
    .join("  ");

function summarise(workload: Workload, measured: Measured): WorkloadResult {
  const byMode = measured.get(workload) ?? new Map<ModeName, Partial<Record<Figure, number>>[]>();
  const modes: WorkloadResult["modes"] = {};
  for (const [name, rounds] of byMode) if (rounds.length > 0) modes[name] = overRounds(rounds);
  const bouncer = byMode.get("pgbouncer") ?? [];
  // A mode that failed has no further rounds, so what is there belongs to the same rounds.
  const ratios = (byMode.get("sluice") ?? []).flatMap((figures, round) => {
    const base = bouncer[round];
    if (base === undefined) return [];
    return [Object.fromEntries(Object.entries(figures).map(([name, value]) => [name, value / (base[name as Figure] ?? Number.NaN)]))];
  });
  return { name: workload.name, kind: workload.kind, modes, ratios: ratios.length > 0 ? overRounds(ratios) : {} };
}

function overRounds(rounds: readonly Partial<Record<Figure, number>>[]): Partial<Record<Figure, Spread>> {
  const names = Object.keys(rounds[0] ?? {}) as Figure[];
  return Object.fromEntries(names.map((name) => [name, spread(rounds.map((figures) => figures[name] ?? Number.NaN))]));
}
