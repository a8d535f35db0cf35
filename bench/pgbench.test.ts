import assert from "node:assert/strict";
import { test } from "node:test";
import { collect, latenciesFrom, type Transactions } from "./pgbench.ts";

test("a line of pgbench's log has the latency third and the time of the end fifth and sixth", () => {
  const transactions: Transactions = { latencies: [], starts: [] };
  collect(Buffer.from("0 199 2241 0 1175850568 995598\n15 200 9 0 1175850569 8079 3\n"), transactions);
  assert.deepEqual(transactions, { latencies: [2241, 9], starts: [1175850568_993357, 1175850569_008070] });
  assert.throws(() => collect(Buffer.from("0 199 skipped 0 1175850568 995598\n"), transactions));
});

test("the first and the last seconds can be left out, by when a transaction was due and not by when it ended", () => {
  const transactions: Transactions = { latencies: [30, 9_000_000, 10, 20], starts: [5_000_000, 1_000_000, 3_000_000, 2_999_999] };
  assert.deepEqual([...latenciesFrom(transactions, 0)], [10, 20, 30, 9_000_000]);
  assert.deepEqual([...latenciesFrom(transactions, 2)], [10, 30]);
  assert.deepEqual([...latenciesFrom(transactions, 0, 2)], [10, 20, 9_000_000]);
});
