import assert from "node:assert/strict";
import { test } from "node:test";
import { Answers } from "./doubt.ts";
import { errorResponse } from "./messages.ts";
import { PendingQueue } from "./pending.ts";
import type { Relay } from "./relay.ts";
import { SearchPath } from "./search-path.ts";

const IDLE = 0x49;
const FAILED = 0x45;

// A cancel that strikes the gateway's own question cannot be timed, so the answers are made here.
test("a question that is struck is asked again, and in the end the session is over", () => {
  const searchPath = new SearchPath(["public"]);
  const queue = new PendingQueue();
  const parts: Pick<Relay, "searchPath" | "queue" | "transactionStatus" | "answered"> = {
    searchPath,
    queue,
    transactionStatus: IDLE,
    answered: () => {},
  };
  const relay = parts as Relay;
  Object.assign(relay, { catalogue: { role: "none" } });
  const answers = new Answers();
  const struck = errorResponse({ severity: "ERROR", sqlState: "57014", message: "canceling statement due to user request" });
  const fail = (status: number): void => {
    queue.push("ask");
    assert.equal(answers.take(relay, 0x45, struck, 0, struck.length), true);
    answers.take(relay, 0x5a, new Uint8Array([0x5a, 0, 0, 0, 5, status]), 0, 6);
  };
  searchPath.doubt(false);
  fail(IDLE);
  assert.equal(searchPath.askable, false, "what an ordinary function did is not worth more");
  searchPath.doubt(true);
  fail(FAILED);
  assert.equal(searchPath.urgent, false, "nothing runs in a failed block");
  searchPath.doubt(true);
  fail(IDLE);
  fail(IDLE);
  assert.deepEqual([searchPath.urgent, searchPath.askable], [true, true]);
  assert.throws(() => fail(IDLE), /did not say which role/);
});
