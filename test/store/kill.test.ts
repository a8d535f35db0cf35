import assert from "node:assert/strict";
import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import path from "node:path";
import { test } from "node:test";
import { setTimeout as sleep } from "node:timers/promises";
import { currentCursor, listSessions, tailEvents } from "../../store/read.ts";
import { openRecorder } from "../../store/recorder.ts";
import { allow, done, events, openSession, openTestRecorder, query, temporaryFolder } from "../../store/testing.ts";
import type { AuditEvent } from "../../store/types.ts";
import { killed } from "../helpers/processes.ts";

const WRITER = path.join(import.meta.dirname, "writer.ts");

function startWriter(folder: string, shard: number, prefix: string): { readonly child: ChildProcess; readonly forwarded: () => string[] } {
  const child = spawn(process.execPath, [WRITER, folder, String(shard), prefix], { stdio: ["ignore", "pipe", "inherit"] });
  let text = "";
  child.stdout?.setEncoding("utf8").on("data", (chunk: string) => {
    text += chunk;
  });
  // What stands before the last newline was written whole.
  return { child, forwarded: () => text.split("\n").slice(0, -1) };
}

test("kill -9 at any instant loses no forwarded operation", { timeout: 120_000 }, async () => {
  using folder = temporaryFolder();
  const forwarded: string[] = [];
  const kills = 20;
  for (let round = 0; round < kills; round += 1) {
    const writer = startWriter(folder.path, 1, `r${round}`);
    await once(writer.child.stdout ?? writer.child, "data");
    await sleep(Math.random() * 60);
    await killed(writer.child);
    forwarded.push(...writer.forwarded());
  }
  await openTestRecorder(folder.path).close();

  const outcomes = new Map<string, string>();
  const ids = new Set<string>();
  let closes = 0;
  for (const event of await events(folder.path)) {
    assert.ok(!ids.has(event.id), "ids are unique");
    ids.add(event.id);
    if (event.type === "session.close") closes += 1;
    if (event.type !== "operation") continue;
    assert.ok(!outcomes.has(event.statement ?? ""), `${event.statement} has one event`);
    assert.equal(event.identity?.user, "corp:alice");
    assert.equal(event.decision?.rule, "r");
    outcomes.set(event.statement ?? "", event.outcome ?? "");
  }
  const missing = forwarded.filter((text) => !outcomes.has(text));
  assert.deepEqual(missing, []);
  assert.ok(forwarded.length > kills * 5, `${forwarded.length} operations`);
  assert.ok([...outcomes.values()].includes("unknown") && [...outcomes.values()].includes("done"));
  assert.equal(closes, kills);
  const sessions = listSessions(folder.path);
  assert.equal(sessions.length, kills);
  for (const session of sessions) assert.equal(session.reason, "gateway stopped");
});

test("follow shows events of several running writers soon; a cursor resumes without a gap; new shards are taken in", {
  timeout: 60_000,
}, async () => {
  using folder = temporaryFolder();
  const writers = [startWriter(folder.path, 1, "a"), startWriter(folder.path, 2, "b")];
  try {
    const seen: AuditEvent[] = [];
    const stop = new AbortController();
    for await (const event of tailEvents(folder.path, { follow: true, signal: stop.signal })) {
      if (event.type === "operation") seen.push(event);
      if (seen.length >= 300 && writers.length === 2) writers.push(startWriter(folder.path, 3, "c"));
      if (seen.length >= 600 && new Set(seen.map((one) => one.statement?.[0])).size === 3) break;
    }
    const cursor = seen.at(-1)?.cursor;
    for (const writer of writers) await killed(writer.child);
    for (const shard of [1, 2, 3]) await openTestRecorder(folder.path, shard).close();
    const rest = (await events(folder.path, cursor)).filter((event) => event.type === "operation");
    const found = new Set([...seen, ...rest].map((event) => event.statement));
    assert.equal(found.size, seen.length + rest.length, "none twice within one run");
    const everything = (await events(folder.path)).filter((event) => event.type === "operation").map((event) => event.statement);
    assert.deepEqual(
      everything.filter((text) => !found.has(text)),
      [],
    );
    for (const writer of writers) for (const text of writer.forwarded()) assert.ok(found.has(text), text);
  } finally {
    for (const writer of writers) writer.child.kill("SIGKILL");
  }
});

test("a reader that never catches up takes in new shards as well", { timeout: 30_000 }, async () => {
  using folder = temporaryFolder();
  const busy = openTestRecorder(folder.path, 1);
  const session = openSession(busy, "busy");
  const decision = allow();
  const operation = (text: string): void => {
    const request = query(session, decision, text);
    busy.commit();
    done(session, request);
  };
  for (let count = 0; count < 500; count += 1) operation("backlog");
  const late: ReturnType<typeof openTestRecorder>[] = [];
  const stop = new AbortController();
  const until = performance.now() + 15_000;
  let found = false;
  for await (const event of tailEvents(folder.path, { follow: true, signal: stop.signal })) {
    operation("more");
    if (late.length === 0) {
      const recorder = openTestRecorder(folder.path, 2);
      openSession(recorder, "late");
      late.push(recorder);
    }
    found = event.session === "late";
    if (found || performance.now() > until) break;
  }
  assert.ok(found, "the session of the later shard");
  for (const recorder of [busy, ...late]) await recorder.close();
});

test("an event is seen by a follower in another process's folder within 200 ms", { timeout: 30_000 }, async () => {
  using folder = temporaryFolder();
  const recorder = openTestRecorder(folder.path);
  const stop = new AbortController();
  const tail = tailEvents(folder.path, { follow: true, since: currentCursor(folder.path), signal: stop.signal });
  const delays: number[] = [];
  for (let count = 0; count < 5; count += 1) {
    const next = tail.next();
    await sleep(60);
    const started = performance.now();
    recorder.event({ type: "control", detail: { count } });
    const { value } = await next;
    delays.push(performance.now() - started);
    assert.deepEqual(value?.detail, { count });
  }
  stop.abort();
  assert.equal((await tail.next()).done, true);
  await recorder.close();
  assert.ok(Math.min(...delays) < 200, `${delays.join(", ")} ms`);
});

test("a data folder that another process writes is refused; its sessions read as live", { timeout: 30_000 }, async () => {
  using folder = temporaryFolder();
  const writer = startWriter(folder.path, 1, "w");
  try {
    await once(writer.child.stdout ?? writer.child, "data");
    assert.throws(() => openRecorder(folder.path, 1), {
      code: "SLUICE_STORE_UNUSABLE",
      message: new RegExp(`in use by process ${writer.child.pid}`),
    });
    await sleep(100);
    assert.equal(listSessions(folder.path)[0]?.live, true);
  } finally {
    await killed(writer.child);
  }
  assert.equal(listSessions(folder.path)[0]?.live, false);
});
