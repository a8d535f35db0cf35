import { Bench } from "tinybench";
import { machineFacts } from "./machine.ts";
import { policyCases, sqlCases } from "./micro-decide.ts";
import { framerCases } from "./micro-framer.ts";
import { maskCases } from "./micro-masks.ts";
import { recorderCases } from "./micro-recorder.ts";
import { relayCases } from "./micro-relay.ts";
import type { BenchOptions } from "./options.ts";
import { machineTable, table } from "./report.ts";

/** One thing that is done for every message, row or statement. */
export interface MicroCase {
  readonly name: string;
  /** What one call of `run` does that often, so that the clock's own cost does not count. */
  readonly operations: number;
  readonly unit: string;
  /** Bytes one operation looks at, where throughput says more than time. */
  readonly bytes?: number;
  readonly run: () => void | Promise<void>;
}

export interface MicroCases {
  readonly cases: readonly MicroCase[];
  readonly close?: () => Promise<void> | void;
}

/** Run each piece of the data path alone, in this thread. */
export async function runMicro(options: BenchOptions, say: (line: string) => void): Promise<{ report: string; json: unknown }> {
  const machine = machineFacts(new Date());
  const results = [];
  for (const make of [framerCases, sqlCases, policyCases, maskCases, recorderCases, relayCases]) {
    const { cases, close } = await make();
    try {
      for (const one of cases) {
        say(one.name);
        results.push(await measure(one, options.tiny));
      }
    } finally {
      await close?.();
    }
  }
  const rows = results.map(({ name, unit, medianNanos, p99Nanos, megabytesPerSecond }) => [
    name,
    `ns/${unit}`,
    medianNanos.toFixed(0),
    p99Nanos.toFixed(0),
    megabytesPerSecond === undefined ? "" : megabytesPerSecond.toFixed(0),
  ]);
  const report = `${machineTable(machine)}\n\n${table(["piece", "unit", "median", "p99", "MB/s"], rows)}\n`;
  return { report, json: { version: 1, machine, results } };
}

async function measure(one: MicroCase, tiny: boolean) {
  const bench = new Bench({ time: tiny ? 10 : 1_000, warmupTime: tiny ? 5 : 300, iterations: 10, throws: true });
  bench.add(one.name, one.run);
  await bench.run();
  const result = bench.tasks[0]?.result;
  if (result === undefined || result.state !== "completed") throw new Error(`${one.name} was not measured: ${result?.state}`);
  const nanos = (millis: number): number => (millis * 1e6) / one.operations;
  const medianNanos = nanos(result.latency.p50);
  const throughput = one.bytes === undefined ? {} : { megabytesPerSecond: (one.bytes / medianNanos) * 1e3 };
  return { name: one.name, unit: one.unit, medianNanos, p99Nanos: nanos(result.latency.p99), ...throughput } as {
    name: string;
    unit: string;
    medianNanos: number;
    p99Nanos: number;
    megabytesPerSecond?: number;
  };
}
