import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { test } from "node:test";
import { type CommandResult, nodeBinary, removeFolder, rootFolder, run, temporaryFolder } from "./helpers/processes.ts";

interface Spread {
  readonly median: number;
  readonly min: number;
  readonly max: number;
}

interface Result {
  readonly failures: readonly unknown[];
  readonly workloads: readonly {
    readonly name: string;
    readonly kind: string;
    readonly rate?: number;
    readonly modes: Readonly<Record<string, Readonly<Record<string, Spread>>>>;
    readonly ratios: Readonly<Record<string, Readonly<Record<string, Spread>>>>;
  }[];
}

/** By the workload's kind: figures of every mode, and those of a proxy only. */
const FIGURES: Readonly<Record<string, readonly [readonly string[], readonly string[]]>> = {
  queries: [["tps", "p50Micros", "p99Micros"], ["cpuMicrosPerQuery"]],
  rate: [["achievedPercent", "p50Micros", "p99Micros", "p999Micros"], ["cpuMicrosPerQuery"]],
  connections: [["connectionsPerSecond", "connectMillis"], ["cpuMicrosPerConnection"]],
  transfer: [["megabytesPerSecond"], ["cpuSecondsPerGigabyte"]],
  idle: [["kilobytesPerSession", "megabytesAtBase", "opensPerSecond"], []],
};

/** Processor time comes in units of 10 ms: a quick proxy's part of a small run may be none. */
const MAY_BE_ZERO = /^cpu/;
/** Memory may have been given back in between. */
const MAY_BE_NEGATIVE = /^kilobytes/;

function assertMeasured(value: unknown, figure: string, what: string): void {
  const least = MAY_BE_ZERO.test(figure) ? 0 : MAY_BE_NEGATIVE.test(figure) ? -1_000 : Number.MIN_VALUE;
  assert.ok(typeof value === "number" && Number.isFinite(value) && value >= least, `${what}: ${figure} is ${String(value)}`);
}

const bench = (args: readonly string[], timeoutMillis: number): Promise<CommandResult> =>
  run(nodeBinary, [join(rootFolder, "bench/bench.ts"), "--tiny", ...args], { timeoutMillis });

const read = (file: string): Result => JSON.parse(readFileSync(file, "utf8")) as Result;

test("the benchmark suite measures every figure of every mode, and compares with what it measured", {
  timeout: 480_000,
}, async (context) => {
  const folder = temporaryFolder("bench");
  context.after(() => removeFolder(folder));
  const file = join(folder, "result.json");
  const first = await bench(["--json", file], 240_000);
  assert.equal(first.code, 0, first.stderr);
  const result = read(file);
  assert.deepEqual(result.failures, []);
  assert.deepEqual(
    result.workloads.map(({ kind }) => kind),
    ["queries", "queries", "queries", "rate", "connections", ...Array.from({ length: 7 }, () => "transfer"), "idle"],
  );
  for (const { name, kind, rate, modes, ratios } of result.workloads) {
    const idle = kind === "idle";
    assert.deepEqual(Object.keys(modes), idle ? ["haproxy", "pgbouncer", "sluice"] : ["direct", "haproxy", "pgbouncer", "sluice"], name);
    const [always, ofProxies] = FIGURES[kind] ?? [[], []];
    for (const [mode, figures] of Object.entries(modes)) {
      for (const figure of mode === "direct" ? always : [...always, ...ofProxies]) {
        const { median, min, max } = figures[figure] ?? {};
        for (const value of [median, min, max]) assertMeasured(value, figure, `${name}, ${mode}`);
      }
    }
    for (const figure of always) assertMeasured(ratios.sluice?.[figure]?.median, figure, `${name}: ratio`);
    assert.equal(rate !== undefined, kind === "rate", name);
    assert.ok(first.stdout.includes(`| ${name} `), `the table of ${name} is missing`);
  }
  const svg = readFileSync(join(folder, "result.svg"), "utf8");
  for (const { name } of result.workloads) assert.ok(svg.includes(`>${name}`), `the plot of ${name} is missing`);
  assert.doesNotMatch(svg, /NaN|undefined|Infinity/);

  await context.test("every way to the database, with one worker and with two", async () => {
    // Every mode proves what it has on, and what it has not, before it is measured.
    const second = join(folder, "second.json");
    const args = [
      "--modes",
      "all",
      "--workers",
      "1,2",
      "--only",
      "prepared",
      "--baseline",
      file,
      "--json",
      second,
      "--svg",
      join(folder, "p.svg"),
    ];
    const compared = await bench(args, 200_000);
    assert.equal(compared.code, 0, compared.stderr);
    const all = [
      "direct",
      "haproxy",
      "relay",
      "pgbouncer",
      "sluice-bare",
      "sluice-policy",
      "sluice",
      "sluice/2",
      "sluice-digest",
      "sluice-full",
      "sluice-sockets",
      "sluice-small-pages",
    ];
    assert.deepEqual(Object.keys(read(second).workloads[0]?.modes ?? {}), all);
    assert.match(compared.stdout, /^\| pgbench -S -M prepared, Sluice, p99 ms +\| +[\d.]+ \| +[\d.]+ \| +[\d.]+ \|/m);
    assert.match(compared.stdout, /^\d+ of \d+ figures are worse\.$/m);
    assert.ok(readFileSync(join(folder, "p.svg"), "utf8").includes("Sluice, 2 workers"));
  });
});

test("a mode that cannot start makes the benchmark suite fail, loudly", { timeout: 120_000 }, async (context) => {
  const folder = temporaryFolder("bench-fail");
  context.after(() => removeFolder(folder));
  // More workers than a configuration may ask for: the gateway refuses to start.
  const args = ["--modes", "direct,sluice", "--only", "prepared", "--workers", "300", "--json", join(folder, "result.json")];
  const failing = await bench(args, 100_000);
  assert.equal(failing.code, 1, failing.stdout);
  assert.match(failing.stderr, /FAILED {2}sluice\/300, start: .*workers: expected auto or a whole number/);
  assert.match(failing.stdout, /^\| Sluice, 300 workers +\| +FAILED \|/m);
  assert.match(failing.stdout, /^\| direct +\| +\d+ \|/m);
});

test("the micro benchmarks run", { timeout: 120_000 }, async (context) => {
  const folder = temporaryFolder("micro");
  context.after(() => removeFolder(folder));
  const file = join(folder, "result.json");
  const micro = await bench(["--micro", "--json", file], 100_000);
  assert.equal(micro.code, 0, micro.stderr);
  const { results } = JSON.parse(readFileSync(file, "utf8")) as { results: { name: string; medianNanos: number; p99Nanos: number }[] };
  assert.equal(results.length, 21);
  for (const { name, medianNanos, p99Nanos } of results)
    for (const value of [medianNanos, p99Nanos]) assertMeasured(value, "nanoseconds", name);
});
