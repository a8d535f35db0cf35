import assert from "node:assert/strict";
import { after, before, describe, it } from "node:test";
import type { LiveSession, Lock } from "../../control/types.ts";
import { query } from "../../protocols/postgres/messages.ts";
import { fields, type RawClient } from "../clients/raw.ts";
import { waitFor } from "../helpers/processes.ts";
import { auditEvents, backends, control, liveSessions, type Rig, sqlStateOf, startRig } from "./rig.ts";

/** From the order to the last client cut off and the last statement gone from the server. */
const CUT_MILLIS = 1_000;
let rig: Rig;

before(async () => {
  rig = await startRig();
});
after(() => rig.stop());

const sleeping = async (): Promise<number> => {
  const [row] = await rig.server.query<{ count: number }>(
    "select count(*)::int from pg_stat_activity where query like 'select pg_sleep(%' and state = 'active'",
  );
  return row?.count ?? 0;
};

/** Four sessions of this user over both workers, two of them with a statement that runs for a minute. */
async function occupy(user: string): Promise<RawClient[]> {
  const clients = [];
  for (let count = 0; count < 4; count += 1) clients.push(await rig.connect({ sub: user, groups: [`${user}s`] }));
  const workers = new Set((await liveSessions(rig.gateway)).map((session) => session.worker));
  assert.equal(workers.size, 2, "the sessions lie in one worker");
  for (const client of clients.slice(0, 3)) client.send(query("select pg_sleep(60)"));
  await waitFor("the statements run", async () => (await sleeping()) === 3);
  return clients;
}

async function assertCut(clients: readonly RawClient[], started: number): Promise<void> {
  for (const client of clients) {
    const frames = await client.closed();
    assert.equal(sqlStateOf(frames), "57P01");
    assert.equal(fields(frames.find((frame) => frame.type === "E")!)["S"], "FATAL");
  }
  await waitFor("the statements are gone", async () => (await sleeping()) === 0, CUT_MILLIS);
  const took = performance.now() - started;
  assert.ok(took < CUT_MILLIS, `it took ${Math.round(took)} ms`);
  await waitFor("no backend is left", async () => (await backends(rig.server)) === 0);
  assert.deepEqual(await liveSessions(rig.gateway), []);
}

const addLock = async (subject: string, more: object = {}): Promise<{ lock: Lock; killed: number }> => {
  const { status, body } = await control<{ lock: Lock; killed: number }>(rig.gateway, "POST", "/v1/locks", { subject, ...more });
  assert.equal(status, 201, JSON.stringify(body));
  return body;
};
const removeLock = (lock: Lock) => control(rig.gateway, "DELETE", `/v1/locks/${lock.id}`);

describe("locks and kills", () => {
  for (const subject of ["user:mallory", "group:mallorys", "target:db", "issuer:corp"]) {
    it(`a lock on ${subject} cuts sessions of both workers, and what they run at the server`, async () => {
      const clients = await occupy("mallory");
      const started = performance.now();
      const { lock, killed } = await addLock(subject, { reason: "incident" });
      assert.equal(killed, 4);
      await assertCut(clients, started);
      const refused = await rig.connect({ sub: "mallory", groups: ["mallorys"] });
      assert.equal(sqlStateOf(refused.startup), "57P01");
      assert.match(fields(refused.startup.find((frame) => frame.type === "E")!)["M"] ?? "", /incident/);
      await removeLock(lock);
      const again = await rig.connect({ sub: "mallory", groups: ["mallorys"] });
      assert.equal(again.startup.at(-1)?.type, "Z");
      again.close();
      await waitFor("the session is gone", async () => (await liveSessions(rig.gateway)).length === 0);
    });
  }

  it("a lock on one session, or a kill, cuts that one alone", async () => {
    const clients = await occupy("mallory");
    const bystander = await rig.connect({ sub: "bob" });
    const sessions = await liveSessions(rig.gateway);
    const ofMallory = sessions.filter((session) => session.user === "corp:mallory");
    assert.equal(ofMallory.length, 4);
    const { lock, killed } = await addLock(`session:${(ofMallory[0] as LiveSession).id}`);
    assert.equal(killed, 1);
    const { code } = await rig.gateway.cli(["sessions", "kill", (ofMallory[1] as LiveSession).id, "--reason", "enough"]);
    assert.equal(code, 0);
    await waitFor("two sessions are cut", () => clients.filter((client) => client.ended).length === 2);
    assert.equal((await liveSessions(rig.gateway)).length, 3);
    assert.equal((await bystander.query("select 1")).at(-1)?.type, "Z");
    const started = performance.now();
    await addLock("user:mallory").then(({ lock: second }) => removeLock(second));
    for (const client of clients) await client.closed();
    assert.ok(performance.now() - started < CUT_MILLIS);
    bystander.close();
    await removeLock(lock);
    await waitFor("no session is left", async () => (await liveSessions(rig.gateway)).length === 0);
    const events = await auditEvents(rig.gateway);
    const killedOperations = events.filter((event) => event.type === "operation" && event.outcome === "killed");
    assert.ok(killedOperations.length >= 3, "the statements that were cut off are not on record as killed");
    assert.ok(events.some((event) => event.type === "control" && event.detail?.["reason"] === "enough"));
  });

  it("a lock survives kill -9 and a restart; its time over, it ends by itself", async () => {
    const { lock } = await addLock("user:mallory");
    await rig.gateway.kill9();
    await rig.gateway.restart();
    assert.equal(sqlStateOf((await rig.connect({ sub: "mallory" })).startup), "57P01");
    await removeLock(lock);
    const { code } = await rig.gateway.cli(["lock", "add", "user:mallory", "--ttl", "2s"]);
    assert.equal(code, 0);
    assert.equal(sqlStateOf((await rig.connect({ sub: "mallory" })).startup), "57P01");
    await waitFor("the lock has run out", async () => {
      const client = await rig.connect({ sub: "mallory" });
      client.close();
      return client.startup.at(-1)?.type === "Z";
    });
    assert.deepEqual((await control<{ locks: readonly Lock[] }>(rig.gateway, "GET", "/v1/locks")).body.locks, []);
  });
});
