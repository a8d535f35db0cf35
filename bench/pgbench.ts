import { readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { pgbench } from "../test/helpers/clients.ts";
import { removeFolder, temporaryFolder } from "../test/helpers/processes.ts";
import type { Mode } from "./modes.ts";
import type { BenchOptions } from "./options.ts";
import { percentile } from "./statistics.ts";
import { withCpu } from "./window.ts";

export type Protocol = "prepared" | "simple" | "extended";

export interface QueryFigures {
  /** Transactions a second without connection time, as pgbench prints it; a transaction of -S is one query. */
  readonly tps: number;
  readonly p50Micros: number;
  readonly p99Micros: number;
  /** Of the proxy's process tree, including the opening of the sessions; absent without a proxy. */
  readonly cpuMicrosPerQuery?: number;
  /** The part of it outside the kernel. */
  readonly userMicrosPerQuery?: number;
  readonly queries: number;
}

/**
 * One run of the read-only script built into pgbench (`-S`).
 * @throws Error when a client fails, or fewer clients finish than started
 */
export async function runPgbench(mode: Mode, protocol: Protocol, seconds: number, options: BenchOptions): Promise<QueryFigures> {
  const folder = temporaryFolder("pgbench");
  try {
    const args = ["-n", "-S", "-M", protocol, "-c", String(options.clients), "-j", String(options.jobs), "-T", String(seconds)];
    const log = ["-l", `--log-prefix=${join(folder, "log")}`];
    const timeoutMillis = (seconds + 60) * 1_000;
    const { result, cpu } = await withCpu(mode, () => pgbench(mode.to, [...args, ...log], { timeoutMillis, cwd: folder }));
    if (result.code !== 0) throw new Error(`pgbench ended with ${result.code}: ${result.stderr.slice(-1_000).trim()}`);
    const queries = numberIn(result.stdout, /^number of transactions actually processed: (\d+)/m);
    const failed = numberIn(result.stdout, /^number of failed transactions: (\d+)/m);
    if (failed > 0) throw new Error(`${failed} of ${queries} transactions failed`);
    const latencies = readLatencies(folder);
    if (latencies.length !== queries) throw new Error(`pgbench logged ${latencies.length} of ${queries} transactions`);
    return {
      tps: numberIn(result.stdout, /^tps = ([\d.]+) \(without initial connection time\)/m),
      p50Micros: percentile(latencies, 50),
      p99Micros: percentile(latencies, 99),
      queries,
      ...(cpu && { cpuMicrosPerQuery: ((cpu.user + cpu.system) * 1e6) / queries, userMicrosPerQuery: (cpu.user * 1e6) / queries }),
    };
  } finally {
    removeFolder(folder);
  }
}

function numberIn(text: string, pattern: RegExp): number {
  const found = pattern.exec(text);
  if (found === null) throw new Error(`pgbench printed no ${pattern.source}: ${text.slice(0, 500)}`);
  return Number(found[1]);
}

/** Latencies in microseconds, ascending: the third column of pgbench's per-transaction logs, one file a thread. */
function readLatencies(folder: string): Float64Array {
  const values: number[] = [];
  for (const name of readdirSync(folder)) collectLatencies(readFileSync(join(folder, name)), values);
  return Float64Array.from(values).sort();
}

/** Append the third column of lines `client transaction latency script seconds micros`. */
export function collectLatencies(log: Uint8Array, into: number[]): void {
  let column = 0;
  let value = 0;
  for (const byte of log) {
    if (byte === 0x0a) {
      into.push(value);
      column = 0;
      value = 0;
    } else if (byte === 0x20) column++;
    else if (column === 2) {
      if (byte < 0x30 || byte > 0x39) throw new Error("pgbench logged a latency that is not a number");
      value = value * 10 + (byte - 0x30);
    }
  }
}
