import type { PostgresServer } from "../test/helpers/postgres.ts";
import { type BulkTable, bulkRows, CLEAN, DIGESTS, PROSE } from "./database.ts";
import type { Figures, WorkloadKind } from "./figures.ts";
import { runIdle } from "./idle.ts";
import type { Mode } from "./modes.ts";
import type { ModePlan } from "./modes-list.ts";
import type { BenchOptions } from "./options.ts";
import { type Protocol, type Run, runAtRate, runConnections, runSaturated } from "./pgbench.ts";
import { runTransfer } from "./transfer.ts";

/** What a workload runs against: one mode, and what all modes have in common. */
export interface Subject {
  readonly plan: ModePlan;
  readonly mode: Mode;
  readonly options: BenchOptions;
  /** Transactions a second of a latency workload. */
  readonly rate: number;

  readonly database: PostgresServer;
}

export interface Workload {
  readonly name: string;
  readonly kind: WorkloadKind;
  /** One uncounted run before the first round; absent: it starts what it measures itself. */
  readonly warmUp?: (subject: Subject) => Promise<unknown>;
  readonly run: (subject: Subject) => Promise<Figures>;
  /** Rounds at most; default all. */
  readonly rounds?: number;
  /** Modes that have nothing to show here. */
  readonly without?: (plan: ModePlan) => boolean;
  /** Best rate of a mode, by which the rate of a latency workload is chosen. */
  readonly saturate?: (mode: Mode, options: BenchOptions) => Promise<number>;
}

/** Transactions of each client in a run that is a test of the suite. */
const TINY_TRANSACTIONS = 500;

const timed = (protocol: Protocol, clients: number, seconds: number, options: BenchOptions): Run => {
  return { protocol, clients, jobs: Math.min(options.jobs, clients), seconds, tiny: options.tiny };
};

const runOf = (protocol: Protocol, clients: number, seconds: number, options: BenchOptions): Run => {
  const run = timed(protocol, clients, seconds, options);
  return options.tiny ? { ...run, transactionsPerClient: TINY_TRANSACTIONS } : run;
};

const queries = (protocol: Protocol): Workload => ({
  name: `pgbench -S -M ${protocol}`,
  kind: "queries",
  warmUp: ({ mode, options }) => runSaturated(mode, runOf(protocol, options.clients, options.warmupSeconds, options)),
  run: ({ mode, options }) => runSaturated(mode, runOf(protocol, options.clients, options.seconds, options)),
});

const transfer = (name: string, table: BulkTable, sql: string, masks: boolean): Workload => {
  const run = async ({ mode, options }: Subject): Promise<Figures> => {
    const { bytes: _, ...figures } = await runTransfer(mode, masks ? mode.to : mode.unmasked, sql, bulkRows(table, options), options.tiny);
    return figures;
  };
  return { name, kind: "transfer", warmUp: run, run };
};

/** Sessions that even a slow proxy opens in a second: pgbench counts the opening as part of the run. */
const OPENED_PER_SECOND = 40;

const latency = (clients: number): Workload => {
  const opening = Math.floor(clients / OPENED_PER_SECOND);
  return {
    name: `latency at half load, ${clients} clients`,
    kind: "rate",
    warmUp: ({ mode, options }) => runSaturated(mode, runOf("prepared", clients, options.warmupSeconds + opening, options)),
    run: ({ mode, options, rate }) => runAtRate(mode, timed("prepared", clients, options.seconds, options), rate),
    saturate: async (mode, options) => (await runSaturated(mode, runOf("prepared", clients, options.seconds + opening, options))).tps,
  };
};

const TINY_CONNECTIONS = 25;

/** A thread of pgbench waits for a connection that it opens: only with as many threads as clients are as many opened at a time. */
const connecting = (seconds: number, options: BenchOptions): Run => {
  const run = { ...timed("simple", options.clients, seconds, options), jobs: options.clients };
  return options.tiny ? { ...run, transactionsPerClient: TINY_CONNECTIONS } : run;
};

const connections: Workload = {
  name: "new connections (pgbench -C -S)",
  kind: "connections",
  warmUp: ({ mode, options }) => runConnections(mode, connecting(1, options)),
  run: ({ mode, options }) => runConnections(mode, connecting(Math.max(1, Math.ceil(options.seconds / 2)), options)),
};

/** Memory varies less from run to run than time does, and takes longer to measure. */
const IDLE_ROUNDS = 2;

const idle = (sessions: number): Workload => ({
  name: `${sessions} idle sessions`,
  kind: "idle",
  rounds: IDLE_ROUNDS,
  without: ({ name }) => name === "direct",
  run: ({ plan, options, database }) => runIdle(plan, sessions, options, database),
});

/** @throws Error when `--only` leaves none */
export function workloadsOf(options: BenchOptions): readonly Workload[] {
  const all = [
    queries("prepared"),
    queries("simple"),
    queries("extended"),
    latency(options.clients),
    ...(options.activeClients > 0 && options.activeClients !== options.clients ? [latency(options.activeClients)] : []),
    connections,
    transfer("COPY TO STDOUT (without masks)", PROSE, `copy ${PROSE.name} to stdout`, false),
    transfer("COPY TO STDOUT (with masks)", PROSE, `copy ${PROSE.name} to stdout`, true),
    transfer("SELECT (without masks)", PROSE, `select * from ${PROSE.name}`, false),
    transfer("SELECT (with masks)", PROSE, `select * from ${PROSE.name}`, true),
    transfer("SELECT clean rows (without masks)", CLEAN, `select * from ${CLEAN.name}`, false),
    transfer("SELECT clean rows (with masks)", CLEAN, `select * from ${CLEAN.name}`, true),
    transfer("SELECT digests (with masks)", DIGESTS, `select * from ${DIGESTS.name}`, true),
    ...options.idle.map(idle),
  ];
  const wanted = all.filter((workload) => workload.name.includes(options.only ?? ""));
  if (wanted.length === 0)
    throw new Error(`no workload has "${options.only}" in its name; there are: ${all.map(({ name }) => name).join("; ")}`);
  return wanted;
}
