import assert from "node:assert/strict";
import { test } from "node:test";
import { plotOf } from "./plot.ts";
import { spread } from "./statistics.ts";
import type { BenchResult } from "./suite.ts";

const result = {
  machine: { date: "2026-01-01T00:00:00Z", cpu: "A & B <fast>", cores: 2, postgres: "15", commit: "abc", loadBefore: 0 },
  options: { rounds: 3, tiny: false, modes: [{ id: "pgbouncer" }, { id: "sluice" }, { id: "relay" }] },
  workloads: [
    {
      name: "COPY",
      kind: "transfer",
      modes: { pgbouncer: { megabytesPerSecond: spread([100, 200, 50]) }, sluice: { megabytesPerSecond: spread([80]) } },
      ratios: {},
    },
  ],
} as unknown as BenchResult;

test("a plot has a bar for each figure that was measured, a whisker where there is a spread, and no markup from outside", () => {
  const svg = plotOf(result);
  assert.equal(svg.match(/<rect [^>]*fill="#(8fa3b8|3b7dd8)"/g)?.length, 2);
  assert.equal(svg.match(/stroke="#111"/g)?.length, 3, "one whisker of three lines");
  assert.ok(svg.includes("A &amp; B &lt;fast&gt;"));
  assert.ok(!/<script|href|url\(|NaN|Infinity|undefined/.test(svg), svg);
});

test("the longest bar's end is the median's share of the largest value", () => {
  const widths = [...plotOf(result).matchAll(/<rect x="[\d.]+" y="[\d.]+" width="([\d.]+)"/g)].map((match) => Number(match[1]));
  const [first, second] = widths;
  assert.ok(first !== undefined && second !== undefined && Math.abs(first / second - 100 / 80) < 0.01, widths.join(" "));
});
