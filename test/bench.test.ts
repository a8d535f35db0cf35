import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { test } from "node:test";
import { nodeBinary, removeFolder, rootFolder, run, temporaryFolder } from "./helpers/processes.ts";

interface Spread {
  readonly median: number;
  readonly min: number;
  readonly max: number;
}

const QUERY_FIGURES = ["tps", "p50Micros", "p99Micros"];
const TRANSFER_FIGURES = ["megabytesPerSecond"];

function assertPositive(value: unknown, what: string): void {
  assert.ok(typeof value === "number" && Number.isFinite(value) && value > 0, `${what} is ${String(value)}`);
}

test("the benchmark suite measures every figure of every mode", { timeout: 300_000 }, async (context) => {
  const folder = temporaryFolder("bench");
  context.after(() => removeFolder(folder));
  const file = join(folder, "result.json");
  const bench = await run(nodeBinary, [join(rootFolder, "bench/bench.ts"), "--tiny", "--json", file], { timeoutMillis: 280_000 });
  assert.equal(bench.code, 0, bench.stderr);
  const result = JSON.parse(readFileSync(file, "utf8")) as {
    failures: unknown[];
    workloads: { name: string; kind: string; modes: Record<string, Record<string, Spread>>; ratios: Record<string, Spread> }[];
  };
  assert.deepEqual(result.failures, []);
  assert.equal(result.workloads.length, 7);
  for (const { name, kind, modes, ratios } of result.workloads) {
    assert.deepEqual(Object.keys(modes), ["direct", "pgbouncer", "sluice"], name);
    const always = kind === "queries" ? QUERY_FIGURES : TRANSFER_FIGURES;
    const ofProxies = kind === "queries" ? ["cpuMicrosPerQuery", "userMicrosPerQuery"] : ["cpuSecondsPerGigabyte"];
    for (const [mode, figures] of Object.entries(modes)) {
      for (const figure of mode === "direct" ? always : [...always, ...ofProxies]) {
        const spread = figures[figure];
        for (const value of [spread?.median, spread?.min, spread?.max]) assertPositive(value, `${name}, ${mode}: ${figure}`);
      }
    }
    for (const figure of [...always, ...ofProxies]) assertPositive(ratios[figure]?.median, `${name}: ratio of ${figure}`);
    assert.ok(bench.stdout.includes(`| ${name} `), `the table of ${name} is missing`);
  }
});

test("a mode that cannot start makes the benchmark suite fail, loudly", { timeout: 120_000 }, async (context) => {
  const folder = temporaryFolder("bench-fail");
  context.after(() => removeFolder(folder));
  // More workers than a configuration may ask for: the gateway refuses to start.
  const file = join(folder, "result.json");
  const args = ["--tiny", "--modes", "direct,sluice", "--only", "prepared", "--workers", "300", "--json", file];
  const bench = await run(nodeBinary, [join(rootFolder, "bench/bench.ts"), ...args], { timeoutMillis: 100_000 });
  assert.equal(bench.code, 1, bench.stdout);
  assert.match(bench.stderr, /FAILED {2}sluice, start: .*workers: expected auto or a whole number/);
  assert.match(bench.stdout, /^\| Sluice +\| +FAILED \|/m);
  assert.match(bench.stdout, /^\| direct +\| +\d+ \|/m);
});

test("the micro benchmarks run", { timeout: 120_000 }, async (context) => {
  const folder = temporaryFolder("micro");
  context.after(() => removeFolder(folder));
  const file = join(folder, "result.json");
  const bench = await run(nodeBinary, [join(rootFolder, "bench/bench.ts"), "--micro", "--tiny", "--json", file], {
    timeoutMillis: 100_000,
  });
  assert.equal(bench.code, 0, bench.stderr);
  const { results } = JSON.parse(readFileSync(file, "utf8")) as { results: { name: string; medianNanos: number; p99Nanos: number }[] };
  assert.equal(results.length, 14);
  for (const { name, medianNanos, p99Nanos } of results) for (const value of [medianNanos, p99Nanos]) assertPositive(value, name);
});
