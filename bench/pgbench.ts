import { readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { pgbench } from "../test/helpers/clients.ts";
import { removeFolder, temporaryFolder } from "../test/helpers/processes.ts";
import type { CpuSeconds } from "./cpu.ts";
import type { Figures } from "./figures.ts";
import type { Mode } from "./modes.ts";
import { percentile } from "./statistics.ts";
import { withCpu } from "./window.ts";

export type Protocol = "prepared" | "simple" | "extended";

/** One run of the read-only script built into pgbench (`-S`). */
export interface Run {
  readonly protocol: Protocol;
  readonly clients: number;
  readonly jobs: number;
  readonly seconds: number;
  /** Instead of seconds. */
  readonly transactionsPerClient?: number;
  /** It is a test of the suite. */
  readonly tiny: boolean;
  /** Further arguments of pgbench. */
  readonly args?: readonly string[];
}

interface Outcome {
  readonly stdout: string;
  readonly queries: number;
  readonly cpu: CpuSeconds | undefined;
  readonly transactions: Transactions;
}

/** @throws Error when a client fails, or a transaction of it, or when the log of the run is not complete */
async function runPgbench(mode: Mode, run: Run): Promise<Outcome> {
  const folder = temporaryFolder("pgbench");
  try {
    const until = run.transactionsPerClient === undefined ? ["-T", String(run.seconds)] : ["-t", String(run.transactionsPerClient)];
    const args = ["-n", "-S", "-M", run.protocol, "-c", String(run.clients), "-j", String(run.jobs), ...until, ...(run.args ?? [])];
    const log = ["-l", `--log-prefix=${join(folder, "log")}`];
    // A thousand sessions take their time to open on a slow machine.
    const timeoutMillis = (run.seconds * 6 + 60) * 1_000 + run.clients * 100;
    const { result, cpu } = await withCpu(mode, () => pgbench(mode.to, [...args, ...log], { timeoutMillis, cwd: folder }), run.tiny);
    if (result.code !== 0) throw new Error(`pgbench ended with ${result.code}: ${result.stderr.slice(-1_000).trim()}`);
    const queries = numberIn(result.stdout, /^number of transactions actually processed: (\d+)/m);
    const failed = numberIn(result.stdout, /^number of failed transactions: (\d+)/m);
    if (failed > 0) throw new Error(`${failed} of ${queries} transactions failed`);
    const transactions = readLog(folder);
    const logged = transactions.latencies.length;
    if (logged !== queries) throw new Error(`pgbench logged ${logged} of ${queries} transactions`);
    if (queries === 0) throw new Error("pgbench did not get one transaction done");
    return { stdout: result.stdout, queries, cpu, transactions };
  } finally {
    removeFolder(folder);
  }
}

const perQuery = (seconds: number, queries: number): number => (seconds * 1e6) / queries;

/** As fast as the clients can: each asks again as soon as it has its answer. */
export async function runSaturated(mode: Mode, run: Run): Promise<Figures & { readonly tps: number }> {
  const { stdout, queries, cpu, transactions } = await runPgbench(mode, run);
  const latencies = latenciesFrom(transactions, 0);
  return {
    tps: numberIn(stdout, /^tps = ([\d.]+) \(without initial connection time\)/m),
    p50Micros: percentile(latencies, 50),
    p99Micros: percentile(latencies, 99),
    ...(cpu && {
      cpuMicrosPerQuery: perQuery(cpu.user + cpu.system, queries),
      userMicrosPerQuery: perQuery(cpu.user, queries),
    }),
  };
}

/** Beyond this, opening the sessions takes so long and so much CPU that it would hide the queries. */
const FEW_CLIENTS = 100;
const SKIPPED_SECONDS = 20;
/** Sessions that are done end while others still run, and their server connections with them. */
const ENDING_SECONDS = 3;

/**
 * At a fixed rate. Transactions have a schedule of their own (Poisson), whatever the answers do, and a latency counts from the scheduled
 * start: a transaction that waits for a slow one before it is slow too. pgbench's log has it so: with --rate its third column includes
 * the schedule lag, which is logged a second time, alone, as the last column (PostgreSQL documentation, pgbench, `--rate` and
 * "Per-Transaction Logging"). That this pgbench does so is checked against the mean that it prints, which is documented to include it.
 * With many clients the first seconds, in which every session asks its first query, do not count, and PgBouncer has opened its server
 * connections in a run before; nor do the last seconds, in which sessions end. The run has a number of transactions, not of seconds: pgbench's `-T` counts the opening of the sessions too, and cuts off what is
 * scheduled and not yet done at its end.
 * @param rate transactions a second of all clients together
 */
export async function runAtRate(mode: Mode, run: Run, rate: number): Promise<Figures> {
  const few = run.clients <= FEW_CLIENTS;
  if (!few && mode.pools === true) await runPgbench(mode, { ...run, transactionsPerClient: 1 });
  const skippedSeconds = few ? 0 : SKIPPED_SECONDS;
  const endingSeconds = few ? 0 : ENDING_SECONDS;
  const transactionsPerClient = Math.max(1, Math.round((rate * (run.seconds + skippedSeconds + endingSeconds)) / run.clients));
  const { stdout, queries, cpu, transactions } = await runPgbench(mode, { ...run, transactionsPerClient, args: [`--rate=${rate}`] });
  const printedMillis = numberIn(stdout, /^latency average = ([\d.]+) ms/m);
  const loggedMillis = transactions.latencies.reduce((sum, value) => sum + value, 0) / queries / 1_000;
  if (Math.abs(printedMillis - loggedMillis) > 0.002 + printedMillis * 0.01) {
    throw new Error(
      `pgbench prints a mean latency of ${printedMillis} ms and logs ${loggedMillis.toFixed(3)} ms: its log has no schedule lag in it`,
    );
  }
  const latencies = latenciesFrom(transactions, skippedSeconds, endingSeconds);
  return {
    achievedPercent: (numberIn(stdout, /^tps = ([\d.]+) \(without initial connection time\)/m) / rate) * 100,
    p50Micros: percentile(latencies, 50),
    p99Micros: percentile(latencies, 99),
    p999Micros: percentile(latencies, 99.9),
    ...(cpu && few && { cpuMicrosPerQuery: perQuery(cpu.user + cpu.system, queries) }),
  };
}

/** A connection for each transaction (`-C`). */
export async function runConnections(mode: Mode, run: Run): Promise<Figures> {
  const { stdout, queries, cpu } = await runPgbench(mode, { ...run, args: ["-C"] });
  return {
    connectionsPerSecond: numberIn(stdout, /^tps = ([\d.]+) \(including reconnection times\)/m),
    connectMillis: numberIn(stdout, /^average connection time = ([\d.]+) ms/m),
    ...(cpu && { cpuMicrosPerConnection: perQuery(cpu.user + cpu.system, queries) }),
  };
}

function numberIn(text: string, pattern: RegExp): number {
  const found = pattern.exec(text);
  if (found === null) throw new Error(`pgbench printed no ${pattern.source}: ${text.slice(0, 500)}`);
  return Number(found[1]);
}

/** Each transaction of pgbench's per-transaction logs, one file a thread. */
function readLog(folder: string): Transactions {
  const transactions: Transactions = { latencies: [], starts: [] };
  for (const name of readdirSync(folder)) collect(readFileSync(join(folder, name)), transactions);
  return transactions;
}

/** In microseconds; `starts` since 1970. With --rate a start is the scheduled one. */
export interface Transactions {
  readonly latencies: number[];
  readonly starts: number[];
}

/** Append lines `client transaction latency script seconds micros [lag]`; the time is that of the end. */
export function collect(log: Uint8Array, into: Transactions): void {
  const fields = [0, 0, 0, 0, 0, 0, 0];
  let column = 0;
  for (const byte of log) {
    if (byte === 0x0a) {
      const latency = fields[2] ?? 0;
      into.latencies.push(latency);
      into.starts.push((fields[4] ?? 0) * 1e6 + (fields[5] ?? 0) - latency);
      column = 0;
      fields.fill(0);
    } else if (byte === 0x20) column++;
    else {
      if (byte < 0x30 || byte > 0x39) throw new Error("pgbench logged something that is not a number");
      fields[column] = (fields[column] ?? 0) * 10 + (byte - 0x30);
    }
  }
}

/** Latencies, ascending, of what was due to start this long or longer after the first, and before the last by as much as is said. */
export function latenciesFrom({ latencies, starts }: Transactions, skippedSeconds: number, endingSeconds = 0): Float64Array {
  const from = starts.reduce((least, start) => Math.min(least, start), Number.POSITIVE_INFINITY) + skippedSeconds * 1e6;
  const upTo = starts.reduce((most, start) => Math.max(most, start), 0) - endingSeconds * 1e6;
  return Float64Array.from(latencies.filter((_, index) => (starts[index] ?? 0) >= from && (starts[index] ?? 0) <= upTo)).sort();
}
