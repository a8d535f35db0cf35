import assert from "node:assert/strict";
import { createHash } from "node:crypto";
import fs from "node:fs";
import path from "node:path";
import { test } from "node:test";
import { shardFolder } from "./folder.ts";
import { listSessions, readFrames, showSession } from "./read.ts";
import { openRecorder } from "./recorder.ts";
import { allow, deny, done, events, openSession, openTestRecorder, query, statement, temporaryFolder } from "./testing.ts";

test("what was recorded reads back as events, sessions and frames", async () => {
  using folder = temporaryFolder();
  const recorder = openTestRecorder(folder.path);
  const session = openSession(recorder, "s-1", "full");
  const decision = allow();
  const prepared = statement("select * from customers where id = $1 and name = $2 and raw = $3");
  const parameters = Buffer.from(
    "0003" + "0000" + "0000" + "0001" + "0003" + "00000002" + "3432" + "ffffffff" + "00000002" + "beef" + "0000",
    "hex",
  );
  const message = Buffer.from("..bind and execute..");
  session.fromClient(message, 2, 18);
  const first = session.intent(decision, prepared, parameters, 0, parameters.length);
  const second = query(session, deny(), "drop table customers -- ü");
  recorder.commit();
  session.toClient(first, Buffer.from("row one"), 0, 7, 0, 7);
  session.toClient(first, Buffer.from("row two"), 0, 7, 0, 7);
  session.outcome(first, "done", 2, 14, undefined, new Map([["customer-pii", 3]]));
  session.outcome(second, "denied", 0, 0, { code: "SLUICE_DENIED", message: "no-drop" }, undefined);
  recorder.event({ type: "lock", detail: { subject: "user:corp:eve" } });
  session.close("client left");
  await recorder.close();

  const all = await events(folder.path);
  assert.deepEqual(all.map((event) => event.type).sort(), ["lock", "operation", "operation", "session.close", "session.open"]);
  assert.equal(new Set(all.map((event) => event.id)).size, all.length, "ids are unique");
  const [select, drop] = all.filter((event) => event.type === "operation");
  assert.equal(select?.session, "s-1");
  assert.equal(select?.request, "1");
  assert.equal(select?.statement, prepared.text);
  assert.deepEqual(select?.parameters, ["42", null, "\\xbeef"]);
  assert.deepEqual(select?.decision, { effect: "allow", rule: "analysts-read", policyVersion: "p1" });
  assert.deepEqual(select?.response, { rows: 2, bytes: 14, sha256: createHash("sha256").update("row onerow two").digest("hex") });
  assert.deepEqual(select?.masked, { "customer-pii": 3 });
  assert.equal(select?.outcome, "done");
  assert.match(select?.time ?? "", /^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z$/);
  assert.match(select?.hash ?? "", /^[0-9a-f]{64}$/);
  assert.equal(drop?.statement, "drop table customers -- ü");
  assert.equal(drop?.outcome, "denied");
  assert.deepEqual(drop?.error, { code: "SLUICE_DENIED", message: "no-drop" });
  assert.deepEqual(all.find((event) => event.type === "lock")?.detail, { subject: "user:corp:eve" });
  assert.deepEqual(all.at(-1)?.detail, { reason: "client left", operations: 2 });

  const [summary] = listSessions(folder.path);
  assert.equal(summary?.id, "s-1");
  assert.equal(summary?.live, false);
  assert.equal(summary?.operations, 2);
  assert.deepEqual(listSessions(folder.path, { user: "corp:bob" }), []);
  const shown = showSession(folder.path, "s-1");
  assert.deepEqual(
    shown?.events.map((event) => event.type),
    ["session.open", "operation", "operation", "session.close"],
  );
  assert.equal(showSession(folder.path, "s-2"), undefined);

  const frames = [];
  for await (const frame of readFrames(folder.path, "s-1"))
    frames.push(`${frame.direction} ${frame.request} ${Buffer.from(frame.bytes).toString()}`);
  assert.deepEqual(frames, ["fromClient 0 bind and execute", "toClient 1 row one", "toClient 1 row two"]);
});

test("outcomes out of order, twice, or of nothing: each operation has its own, and the close has the rest", async () => {
  using folder = temporaryFolder();
  const recorder = openTestRecorder(folder.path);
  const session = openSession(recorder, "s-1");
  const requests = Array.from({ length: 6 }, (_, index) => query(session, allow(), `select ${index + 1}`));
  const end = (index: number): void => session.outcome(requests[index] ?? 0, "done", index, 0, undefined, undefined);
  for (const index of [1, 0, 4, 1]) end(index);
  session.outcome(99, "done", 9, 0, undefined, undefined);
  session.outcome(0, "done", 9, 0, undefined, undefined);
  end(5);
  requests.push(query(session, allow(), "select 7"));
  end(6);
  end(2);
  recorder.commit();
  session.close("client left");
  await recorder.close();
  const operations = (await events(folder.path)).filter((event) => event.type === "operation");
  assert.deepEqual(
    operations.map((event) => [event.statement, event.outcome, event.response?.rows]).sort(),
    [0, 1, 2, 3, 4, 5, 6].map((index) => [`select ${index + 1}`, index === 3 ? "unknown" : "done", index === 3 ? 0 : index]),
  );
});

test("record modes: head keeps the first bytes, digest none, a rule's own mode goes before the session's", async () => {
  using folder = temporaryFolder();
  const recorder = openTestRecorder(folder.path);
  const head = openSession(recorder, "head", "head", 10);
  const digest = openSession(recorder, "digest", "digest");
  const large = Buffer.alloc(9_000, "x");
  for (const session of [head, digest]) {
    const request = query(session, allow(), "select");
    session.toClient(request, large, 0, 6, 0, 6);
    session.toClient(request, large, 6, 9_000, 6, 9_000);
    done(session, request, 1, 9_000);
  }
  const overridden = query(head, allow(), "select");
  head.override(overridden, { results: "full", headBytes: 0 });
  head.toClient(overridden, large, 0, 9_000, 0, 9_000);
  done(head, overridden, 1, 9_000);
  await recorder.close();

  const kept = async (id: string): Promise<number[]> => {
    const sizes = [0, 0, 0];
    for await (const frame of readFrames(folder.path, id)) sizes[frame.request] = (sizes[frame.request] ?? 0) + frame.bytes.length;
    return sizes;
  };
  assert.deepEqual(await kept("head"), [0, 10, 9_000]);
  assert.deepEqual(await kept("digest"), [0, 0, 0]);
  const sha256 = createHash("sha256").update(large).digest("hex");
  const digests = (await events(folder.path))
    .filter((event) => event.type === "operation")
    .map((event) => [event.session, event.response?.sha256]);
  assert.deepEqual(digests, [
    ["head", undefined],
    ["digest", sha256],
    ["head", sha256],
  ]);
});

test("segments rotate; each reads alone; an outcome finds its intent in an earlier one", async () => {
  using folder = temporaryFolder();
  const recorder = openTestRecorder(folder.path, 1, { segmentBytes: 4_096 });
  const session = openSession(recorder, "s-1");
  const quiet = openSession(recorder, "quiet");
  const decision = allow();
  const slow = query(quiet, decision, "select pg_sleep(3600)");
  recorder.commit();
  for (let number = 0; number < 200; number += 1) {
    const request = query(session, decision, `select ${number}`);
    recorder.commit();
    done(session, request);
  }
  done(quiet, slow, 7);
  await recorder.close();

  const segments = fs.readdirSync(shardFolder(folder.path, 1)).filter((name) => name.endsWith(".journal"));
  assert.ok(segments.length > 4, `${segments.length} segments`);
  const all = await events(folder.path);
  const operations = all.filter((event) => event.type === "operation");
  assert.deepEqual(
    operations.map((event) => event.statement),
    [...Array.from({ length: 200 }, (_, number) => `select ${number}`), "select pg_sleep(3600)"],
  );
  for (const event of operations) assert.equal(event.decision?.rule, "analysts-read");
  // From a cursor in the last segment on, the slow query's intent stands in a segment that is not read from its start.
  const late = await events(folder.path, operations.at(-2)?.cursor);
  assert.equal(late[0]?.statement, "select pg_sleep(3600)");
  assert.equal(late[0]?.session, "quiet");
  assert.equal(late[0]?.action, "sql:select");
  assert.deepEqual(late[0]?.hash, operations.at(-1)?.hash);
});

test("an intent larger than the buffer is recorded whole", async () => {
  using folder = temporaryFolder();
  const recorder = openTestRecorder(folder.path);
  const session = openSession(recorder, "s-1");
  const small = query(session, allow(), "select 1");
  const text = `select '${"x".repeat(3_000_000)}'`;
  const request = query(session, allow(), text);
  recorder.commit();
  for (const each of [small, request]) done(session, each);
  await recorder.close();
  const operations = (await events(folder.path)).filter((event) => event.type === "operation");
  assert.deepEqual(
    operations.map((event) => event.statement?.length),
    [8, text.length],
  );
});

test("a folder that cannot be used is refused with its name", () => {
  using folder = temporaryFolder();
  const file = path.join(folder.path, "file");
  fs.writeFileSync(file, "");
  assert.throws(() => openRecorder(file, 1), { code: "SLUICE_STORE_UNUSABLE", message: /data folder .*file cannot be used/ });
});

test("files are for their owner only", async () => {
  using folder = temporaryFolder();
  const recorder = openTestRecorder(folder.path);
  const session = openSession(recorder, "s-1");
  session.fromClient(Buffer.from("x"), 0, 1);
  await recorder.close();
  for (const entry of fs.readdirSync(path.join(folder.path, "shards"), { recursive: true, withFileTypes: true })) {
    const { mode } = fs.statSync(path.join(entry.parentPath, entry.name));
    assert.equal(mode & 0o777, entry.isDirectory() ? 0o700 : 0o600, entry.name);
  }
});

test("a session that writes while it is read: live, then ended; the writer's own process reads too", async () => {
  using folder = temporaryFolder();
  const recorder = openTestRecorder(folder.path);
  const session = openSession(recorder, "s-1");
  await recorder.flush();
  assert.equal(listSessions(folder.path)[0]?.live, true);
  done(session, query(session, allow(), "select 1"));
  session.close("client left");
  await recorder.flush();
  assert.equal(listSessions(folder.path, { live: true }).length, 0);
  assert.equal(listSessions(folder.path)[0]?.reason, "client left");
  await recorder.close();
});

test("without free space a session is refused, and events are still recorded", async () => {
  using folder = temporaryFolder();
  const errors: Error[] = [];
  const recorder = openTestRecorder(folder.path, 1, { minFreeBytes: Number.MAX_SAFE_INTEGER, onError: (error) => errors.push(error) });
  assert.throws(() => openSession(recorder, "s-1"), { code: "SLUICE_RECORD_FAILED" });
  assert.equal(errors.length, 1);
  recorder.event({ type: "auth.failed", detail: {} });
  await recorder.close().catch(() => {});
  assert.equal((await events(folder.path)).at(-1)?.type, "auth.failed");
});

test("congestion shows and is relieved; beyond the bound nothing is taken, and what was not taken is not sent", async () => {
  using folder = temporaryFolder();
  const recorder = openTestRecorder(folder.path, 1, { congestedBytes: 1 });
  const session = openSession(recorder, "s-1", "full");
  const request = query(session, allow(), "select");
  recorder.commit();
  await recorder.flush();
  assert.equal(recorder.congested, false);
  const relieved = new Promise<void>((resolve) => {
    recorder.onRelieved = resolve;
  });
  const chunk = Buffer.alloc(65_536);
  session.toClient(request, chunk, 0, chunk.length, 0, chunk.length);
  assert.equal(recorder.congested, true);
  recorder.commit();
  session.toClient(request, chunk, 0, chunk.length, 0, chunk.length);
  assert.throws(() => recorder.commit(), { code: "SLUICE_RECORD_FAILED", message: /faster/ });
  await relieved;
  assert.equal(recorder.congested, false);
  session.toClient(request, chunk, 0, 10, 0, 10);
  recorder.commit();
  await recorder.close();
});
