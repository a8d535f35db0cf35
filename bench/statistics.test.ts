import assert from "node:assert/strict";
import { test } from "node:test";
import { percentile, spread } from "./statistics.ts";

test("the median is the middle value, or the mean of the middle two", () => {
  assert.deepEqual(spread([3, 1, 2]), { median: 2, min: 1, max: 3, rounds: [3, 1, 2] });
  assert.equal(spread([4, 1, 3, 2]).median, 2.5);
  assert.throws(() => spread([]), RangeError);
});

test("percentiles go by nearest rank", () => {
  const hundred = Float64Array.from({ length: 100 }, (_, index) => index + 1);
  assert.equal(percentile(hundred, 50), 50);
  assert.equal(percentile(hundred, 99), 99);
  assert.equal(percentile(hundred, 100), 100);
  assert.equal(percentile(Float64Array.of(7), 50), 7);
  assert.throws(() => percentile(new Float64Array(), 50), RangeError);
});
