import assert from "node:assert/strict";
import { test } from "node:test";
import fc from "fast-check";
import { PendingQueue } from "./pending.ts";

test("entries come out in the order they went in, however far the ring has turned", () => {
  fc.assert(
    fc.property(fc.array(fc.constantFrom("push", "shift"), { maxLength: 200 }), (steps) => {
      const queue = new PendingQueue();
      const model: number[] = [];
      let next = 1;
      for (const step of steps) {
        if (step === "push") {
          queue.push("execute").request = next;
          model.push(next++);
        } else if (step === "shift" && model.length > 0) {
          queue.shift();
          model.shift();
        }
        assert.equal(queue.size, model.length);
        assert.deepEqual(
          model.map((_, index) => queue.at(index).request),
          model,
        );
      }
    }),
  );
});

test("a reused entry carries nothing over", () => {
  const queue = new PendingQueue();
  const entry = queue.push("query");
  entry.request = 7;
  entry.masks = true;
  entry.own = true;
  entry.failed = { code: "42501", message: "no" };
  entry.refusal = new Uint8Array(1);
  queue.shift();
  for (let index = 0; index < 8; index += 1) {
    const { request, masks, own, failed, refusal, rows } = queue.push("sync");
    assert.deepEqual(
      { request, masks, own, failed, refusal, rows },
      { request: 0, masks: false, own: false, failed: undefined, refusal: undefined, rows: 0 },
    );
  }
});
