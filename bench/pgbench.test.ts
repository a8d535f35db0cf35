import assert from "node:assert/strict";
import { test } from "node:test";
import { collectLatencies } from "./pgbench.ts";

test("latencies are the third column of pgbench's log", () => {
  const latencies: number[] = [];
  collectLatencies(Buffer.from("0 199 2241 0 1175850568 995598\n15 200 9 0 1175850568 998079\n"), latencies);
  assert.deepEqual(latencies, [2241, 9]);
  assert.throws(() => collectLatencies(Buffer.from("0 199 skipped 0 1175850568 995598\n"), latencies));
});
