import assert from "node:assert/strict";
import { after, before, beforeEach, describe, it } from "node:test";
import { setTimeout as sleep } from "node:timers/promises";
import { query } from "../../protocols/postgres/messages.ts";
import { tags } from "../clients/raw.ts";
import { waitFor } from "../helpers/processes.ts";
import { auditEvents, backends, type Rig, sqlStateOf, startRig } from "./rig.ts";

let rig: Rig;

before(async () => {
  rig = await startRig();
  await rig.server.execute("create table notes (text text)");
});
after(() => rig.stop());
beforeEach(async () => {
  if (!rig.gateway.isRunning()) await rig.gateway.restart();
});

const signal = (name: NodeJS.Signals) => process.kill(rig.gateway.pid, name);
const sleeping = async (): Promise<number> =>
  (await rig.server.query("select from pg_stat_activity where state = 'active' and query like '%pg_sleep(%' and pid <> pg_backend_pid()"))
    .length;
const stopped = (millis: number) => waitFor("the gateway has stopped", () => !rig.gateway.isRunning(), millis);

describe("SIGTERM", () => {
  it("ends idle sessions with 57P01, lets transactions finish, and exits 0", async () => {
    const idle = await rig.connect();
    const inBlock = await rig.connect();
    const running = await rig.connect();
    await inBlock.query("begin");
    await inBlock.query("insert into notes values ('kept')");
    running.send(query("insert into notes select 'slow' from pg_sleep(1)"));
    await waitFor("the statement runs", async () => (await sleeping()) === 1);
    signal("SIGTERM");

    assert.equal(sqlStateOf(await idle.closed()), "57P01");
    await assert.rejects(rig.connect(), /ECONNREFUSED/, "connections are still accepted");
    assert.equal(inBlock.ended, false);
    assert.deepEqual(tags(await running.until("Z")), ["INSERT 0 1"]);
    assert.equal(sqlStateOf(await running.closed()), "57P01");
    assert.deepEqual(tags(await inBlock.query("insert into notes values ('also')")), ["INSERT 0 1"]);
    assert.deepEqual(tags(await inBlock.query("commit")), ["COMMIT"]);
    assert.equal(sqlStateOf(await inBlock.closed()), "57P01");
    await stopped(5_000);
    assert.equal(rig.gateway.exitCode, 0);
    assert.equal((await rig.server.query("select from notes")).length, 3);
    const events = await auditEvents(rig.gateway);
    const open = new Set(events.filter((event) => event.type === "session.open").map((event) => event.session));
    for (const event of events) if (event.type === "session.close") open.delete(event.session);
    assert.deepEqual([...open], []);
    assert.ok(events.some((event) => event.type === "config" && event.detail?.["change"] === "stopped"));
    assert.equal(events.filter((event) => event.outcome === "unknown").length, 0);
  });

  it("also lets a statement finish that waits for the catalogue to be read", async () => {
    // A new gateway has not read the catalogue yet, and reading it takes as long as the lock on it lasts.
    const { promise, resolve } = Promise.withResolvers<void>();
    const locked = rig.server
      .execute("begin; lock table pg_catalog.pg_class in access exclusive mode; select pg_sleep(0.8); commit")
      .then(resolve);
    await waitFor("the lock is held", async () => (await sleeping()) === 1).catch(() => undefined);
    const client = await rig.connect();
    client.send(query("insert into notes values ('held')"));
    await sleep(150);
    signal("SIGTERM");
    assert.deepEqual(tags(await client.until("Z")), ["INSERT 0 1"]);
    assert.equal(sqlStateOf(await client.closed()), "57P01");
    await Promise.all([promise, locked]);
    await stopped(5_000);
  });

  it("a second time ends at once, and nothing is left at the server", async () => {
    const running = await rig.connect();
    running.send(query("select pg_sleep(60)"));
    await waitFor("the statement runs", async () => (await sleeping()) === 1);
    signal("SIGTERM");
    await sleep(300);
    assert.ok(rig.gateway.isRunning());
    const started = performance.now();
    signal("SIGTERM");
    assert.equal(sqlStateOf(await running.closed()), "57P01");
    await stopped(3_000);
    assert.ok(performance.now() - started < 3_000);
    assert.equal(rig.gateway.exitCode, 0);
    await waitFor("the statement is cancelled", async () => (await backends(rig.server)) === 0, 2_000);
    const events = await auditEvents(rig.gateway);
    const last = events.filter((event) => event.type === "operation").at(-1);
    assert.equal(last?.statement, "select pg_sleep(60)");
    assert.equal(last?.outcome, "killed");
  });
});
