import assert from "node:assert/strict";
import { test } from "node:test";
import fc from "fast-check";
import type { Decision } from "./decide.ts";
import { LIMITED_CAREFULLY, Pending, PendingQueue } from "./pending.ts";
import type { Classified } from "./sql/types.ts";
import type { Portal, PreparedStatement } from "./statements.ts";

test("entries come out in the order they went in, however far the ring has turned, grown and emptied", () => {
  const step = fc.oneof(fc.record({ push: fc.integer({ min: 1, max: 9 }) }), fc.record({ shift: fc.integer({ min: 1, max: 12 }) }));
  fc.assert(
    fc.property(fc.array(step, { maxLength: 80 }), (steps) => {
      const queue = new PendingQueue();
      const model: number[] = [];
      let next = 1;
      const check = (): void => {
        assert.equal(queue.size, model.length);
        assert.equal(queue.head()?.request, model[0]);
        assert.deepEqual(
          model.map((_, index) => queue.at(index).request),
          model,
        );
        if (model.length > 0) assert.equal(queue.head(), queue.at(0));
      };
      for (const each of steps) {
        if ("push" in each) {
          for (let count = 0; count < each.push; count += 1) {
            const entry = queue.push("execute");
            assert.deepEqual(stateOf(entry), { ...CLEAN, kind: "execute" });
            soil(entry, next);
            model.push(next++);
          }
        } else
          for (let count = 0; count < each.shift && model.length > 0; count += 1) {
            const left = queue.head();
            queue.shift();
            model.shift();
            assert.ok(left !== undefined);
            // What is large goes at once, not when the entry is used again.
            for (const field of LARGE) assert.equal(left[field], undefined);
          }
        check();
      }
    }),
  );
});

/** Every field of an entry. */
function stateOf(entry: Pending) {
  const { kind, request, decision, classified, statement, portal, change, rows, parameterBytes, masks, own } = entry;
  const { refusal, failed, masked, moves, leaves, copies, limited } = entry;
  return {
    ...{ kind, request, decision, classified, statement, portal, change, rows, parameterBytes, masks, own },
    ...{ refusal, failed, masked, moves, leaves, copies, limited },
  };
}

const CLEAN = stateOf(new Pending());
const LARGE = ["decision", "classified", "statement", "portal", "change", "refusal", "failed", "masked"] as const;

function soil(entry: Pending, request: number): void {
  entry.request = request;
  entry.decision = {} as Decision;
  entry.classified = {} as Classified;
  entry.statement = {} as PreparedStatement;
  entry.portal = {} as Portal;
  entry.change = { confirm() {}, undo() {} };
  entry.rows = 3;
  entry.parameterBytes = 4;
  entry.masks = true;
  entry.own = true;
  entry.refusal = new Uint8Array(1);
  entry.failed = { code: "42501", message: "no" };
  entry.masked = new Map();
  entry.moves = 2;
  entry.leaves = true;
  entry.copies += 1;
  entry.limited = LIMITED_CAREFULLY;
}

test("what is set can be taken back", () => {
  const entry = new PendingQueue().push("query");
  soil(entry, 1);
  assert.notDeepEqual(stateOf(entry), { ...CLEAN, kind: "query" });
  Object.assign(entry, { ...CLEAN, kind: "query" });
  assert.deepEqual(stateOf(entry), { ...CLEAN, kind: "query" });
});
