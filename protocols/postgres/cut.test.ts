import assert from "node:assert/strict";
import { test } from "node:test";
import { Cutter } from "./cut.ts";
import { REPLACE } from "./frame.ts";
import { query } from "./messages.ts";
import { PendingQueue } from "./pending.ts";
import type { Relay } from "./relay.ts";

// The CancelRequest goes over a connection of its own; only by hand can it be made slow enough to be overtaken.

const message = (type: string, body = ""): Uint8Array => {
  const bytes = Buffer.alloc(5 + body.length);
  bytes.write(type, 0, "latin1");
  bytes.writeInt32BE(4 + body.length, 1);
  bytes.write(body, 5, "latin1");
  return bytes;
};
const REASON = { response: message("E", "limit\0"), failed: { code: "53400", message: "limit" } };

function rig() {
  const sent: string[] = [];
  const queue = new PendingQueue();
  let delivered = (): void => {};
  const cancelled = new Promise<void>((resolve) => {
    delivered = resolve;
  });
  const relay = {
    queue,
    ended: false,
    quotas: undefined,
    cancelRunning: () => cancelled,
    copyAnswer: () => {},
    sendToServer: (bytes: Uint8Array) => sent.push(Buffer.from(bytes).toString("latin1")),
  };
  const cutter = new Cutter(relay as unknown as Relay);
  const failed: string[] = [];
  const reader = { addToResponse: () => {}, answerWith: () => REPLACE, fail: () => failed.push("failed") && REPLACE };
  const from = (bytes: Uint8Array) => {
    const head = queue.head();
    assert.ok(head !== undefined);
    return cutter.message(reader, head, bytes, 0, bytes.length);
  };
  return { queue, cutter, sent, failed, from, delivered: () => (delivered(), new Promise((resolve) => setImmediate(resolve))) };
}

test("nothing is sent that a CancelRequest on its way could strike", async () => {
  const { queue, cutter, sent, from, delivered } = rig();
  const head = queue.push("query");
  cutter.start(head, REASON);
  assert.equal(from(message("D", "row")), REPLACE);
  assert.equal(from(message("C", "SELECT 1\0")), REPLACE);
  // In a block, and done: it must be failed by something else.
  assert.equal(from(message("Z", "T")), REPLACE);
  assert.deepEqual(sent, []);
  assert.ok(cutter.isBusy);
  await delivered();
  assert.equal(sent.length, 1);
  assert.match(sent[0] ?? "", /^Q.*refused/s);
});

test("an error that comes before the CancelRequest was delivered: the client's next message still waits", async () => {
  const { queue, cutter, from, delivered } = rig();
  const head = queue.push("query");
  cutter.start(head, REASON);
  assert.equal(from(message("E", "C57014\0\0")), undefined);
  head.failed = REASON.failed;
  assert.equal(from(message("Z", "I")), undefined);
  assert.ok(cutter.atRest);
  assert.ok(cutter.isBusy);
  await delivered();
  assert.ok(!cutter.isBusy);
});

test("the gateway's own transaction ends with ROLLBACK where the result was cut", async () => {
  const { queue, cutter, sent, failed, from, delivered } = rig();
  const head = queue.push("query");
  cutter.wrap();
  assert.equal(from(message("C", "BEGIN\0")), REPLACE);
  assert.equal(from(message("Z", "T")), REPLACE);
  cutter.start(head, REASON);
  assert.equal(from(message("C", "INSERT 0 20\0")), REPLACE);
  assert.equal(from(message("Z", "T")), REPLACE);
  await delivered();
  assert.deepEqual(sent, [Buffer.from(query("ROLLBACK")).toString("latin1")]);
  assert.equal(from(message("C", "ROLLBACK\0")), REPLACE);
  assert.deepEqual(failed, []);
  assert.equal(from(message("Z", "I")), REPLACE);
  assert.deepEqual(failed, ["failed"]);
  assert.ok(!cutter.isBusy);
});

test("a COMMIT of the gateway's own that fails inside the block is followed by ROLLBACK", () => {
  const { queue, cutter, sent, from } = rig();
  queue.push("query");
  cutter.wrap();
  assert.equal(from(message("Z", "T")), REPLACE);
  assert.equal(from(message("Z", "T")), REPLACE);
  assert.equal(from(message("E", "C57014\0\0")), undefined);
  assert.equal(from(message("Z", "E")), REPLACE);
  assert.deepEqual(
    sent.map((each) => each.slice(5, -1)),
    ["COMMIT", "ROLLBACK"],
  );
  assert.equal(from(message("C", "ROLLBACK\0")), REPLACE);
  assert.equal(from(message("Z", "I")), undefined);
  assert.ok(cutter.atRest);
});

test("what could already have happened behind the result ends the session", () => {
  const { queue, cutter } = rig();
  const head = queue.push("execute");
  queue.push("execute");
  assert.throws(() => cutter.start(head, REASON), { code: "SLUICE_QUOTA_EXCEEDED" });
  const other = rig();
  const only = other.queue.push("query");
  other.cutter.wrap();
  // Not even a row of BEGIN's.
  assert.throws(() => other.cutter.start(only, REASON), { code: "SLUICE_QUOTA_EXCEEDED" });
});
