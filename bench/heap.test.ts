import assert from "node:assert/strict";
import { join } from "node:path";
import { test } from "node:test";
import { nodeBinary, run } from "../test/helpers/processes.ts";

// What a query allocates is what the garbage collector has to take away again, on the thread that serves all the others.
const MOST_BYTES = new Map([
  // A portal, what undoes it, and the fields of its Bind.
  ["relay, one prepared query, 16 a commit", 450],
  ["relay, one simple query, 16 a commit", 250],
  ["relay, a row of a result", 10],
  // Points in time that are handed on.
  ["relay, a row of a result under limits of rows and bytes", 60],
  ["relay, one simple query under limits, 16 a commit", 450],
]);

test("bytes of heap per forwarded query", { timeout: 60_000 }, async (context) => {
  const flags = ["--expose-gc", "--min-semi-space-size=128", "--max-semi-space-size=256"];
  const { code, stdout, stderr } = await run(nodeBinary, [...flags, join(import.meta.dirname, "heap.ts")], { timeoutMillis: 50_000 });
  assert.equal(code, 0, stderr);
  const measured = JSON.parse(stdout) as Record<string, number>;
  assert.deepEqual(Object.keys(measured), [...MOST_BYTES.keys()]);
  for (const [name, bytes] of Object.entries(measured)) {
    context.diagnostic(`${name}: ${bytes * 1_000} bytes of heap per 1,000`);
    assert.ok(bytes >= 0 && bytes <= (MOST_BYTES.get(name) ?? 0), `${name}: ${bytes} bytes`);
  }
});
