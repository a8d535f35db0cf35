import assert from "node:assert/strict";
import { test } from "node:test";
import { labelOf } from "./modes-list.ts";
import { type BenchOptions, readOptions } from "./options.ts";
import { workloadsOf } from "./workloads.ts";

const read = (...args: string[]): BenchOptions => {
  const options = readOptions(args, new Date(0));
  assert.ok(options !== "help");
  return options;
};
const ids = (...args: string[]): readonly string[] => read(...args).modes.map(({ id }) => id);

test("modes are run once each, the gateway with everything on once for each number of workers", () => {
  assert.deepEqual(ids(), ["direct", "haproxy", "pgbouncer", "sluice"]);
  assert.equal(ids("--modes", "all").length, 11);
  assert.deepEqual(ids("--modes", "sluice,sluice-bare,direct", "--workers", "2,1"), ["direct", "sluice-bare", "sluice", "sluice/2"]);
  assert.equal(labelOf("sluice/2"), "Sluice, 2 workers");
  assert.throws(() => ids("--modes", "nginx"), /"nginx" is none of/);
  assert.throws(() => ids("--workers", "0"), /--workers takes a whole number from 1/);
});

test("a thousand clients are there when asked for", () => {
  const names = (...args: string[]): readonly string[] => workloadsOf(read(...args)).map(({ name }) => name);
  assert.ok(!names().includes("latency at half load, 1000 clients"));
  assert.deepEqual(names("--only", "1000 clients"), ["latency at half load, 1000 clients"]);
  assert.deepEqual(names("--clients-active", "300", "--only", "300"), ["latency at half load, 300 clients"]);
  assert.throws(() => names("--only", "no such thing"), /there are: pgbench -S -M prepared;/);
});

test("a plot goes beside its result", () => {
  assert.equal(read("--json", "some/result.json").svgFile, "some/result.svg");
  assert.throws(() => read("--fail-on-regression"), /needs --baseline/);
});
