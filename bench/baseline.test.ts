import assert from "node:assert/strict";
import { test } from "node:test";
import { changeOf } from "./baseline.ts";
import { spread } from "./statistics.ts";

test("a change counts when it is larger than the spread, in the figure's own direction", () => {
  const old = spread([10, 11, 12]);
  assert.equal(changeOf("tps", old, spread([11.9, 13, 14])), "same", "the ranges touch");
  assert.equal(changeOf("tps", old, spread([12.1, 13, 14])), "better");
  assert.equal(changeOf("tps", old, spread([8, 9, 9.9])), "worse");
  assert.equal(changeOf("cpuMicrosPerQuery", old, spread([12.1, 13, 14])), "worse");
  assert.equal(changeOf("cpuMicrosPerQuery", old, spread([8, 9, 9.9])), "better");
});

test("a figure that was measured once is taken to vary by a tenth", () => {
  assert.equal(changeOf("tps", spread([100]), spread([85])), "same");
  assert.equal(changeOf("tps", spread([100]), spread([80])), "worse");
});
