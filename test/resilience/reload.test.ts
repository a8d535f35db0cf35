import assert from "node:assert/strict";
import { writeFileSync } from "node:fs";
import { join } from "node:path";
import { after, before, describe, it } from "node:test";
import { setTimeout as sleep } from "node:timers/promises";
import { connect as connectTls } from "node:tls";
import { PROTOCOL_3_0, sslRequest, startupMessage } from "../../protocols/postgres/messages.ts";
import { answerByte, errors, openSocket, type RawClient } from "../clients/raw.ts";
import { createAuthority, type TestAuthority } from "../helpers/certificates.ts";
import { pgbench } from "../helpers/clients.ts";
import { postgresTarget } from "../helpers/gateway.ts";
import { removeFolder, temporaryFolder, waitFor } from "../helpers/processes.ts";
import { ALLOW_ALL, auditEvents, control, health, liveSessions, metric, type Rig, sqlStateOf, startRig } from "./rig.ts";

const NO_WRITES = `version: 1
rules:
  - { name: all, effect: allow }
  - { name: no-writes, actions: [write], effect: deny, message: nothing is written today }
`;
let rig: Rig;
let folder: string;
let authority: TestAuthority;

before(async () => {
  folder = temporaryFolder("certificates");
  authority = await createAuthority(folder);
  rig = await startRig({ tls: await authority.issue("first") });
  await rig.server.execute("create table notes (text text)");
});
after(async () => {
  await rig.stop();
  removeFolder(folder);
});

const reloads = (result: string): Promise<number> => metric(rig.gateway, `sluice_reload_total{result="${result}"}`);

/** Change files and wait until the gateway has looked at them. */
async function reloaded(result: "ok" | "refused", change: () => void): Promise<void> {
  const before = await reloads(result);
  change();
  await waitFor(`a reload that is ${result}`, async () => (await reloads(result)) > before);
}

const works = async (client: RawClient): Promise<boolean> => (await client.query("select 1")).some((frame) => frame.type === "D");

describe("reload", () => {
  it("refuses a bad policy: the old one stays in force, log, metric, health and record say so", async () => {
    const client = await rig.connect();
    const good = (await health(rig.gateway)).configGeneration;
    await reloaded("refused", () => rig.gateway.writePolicy("version: 1\nrules:\n  - { name: all, effect: perhaps }\n"));
    const after = await health(rig.gateway);
    assert.match(after.reloadError ?? "", /policy\.yaml:3:\d+: .*effect/);
    assert.equal(after.configGeneration, good);
    assert.ok(await works(client));
    assert.ok(await works(await rig.connect()));
    assert.match(rig.gateway.logs(), /reload refused, the old configuration stays in force: .*policy\.yaml:3/);
    const events = await auditEvents(rig.gateway);
    assert.ok(events.some((event) => event.type === "config" && event.detail?.["change"] === "refused"));
    await reloaded("ok", () => rig.gateway.writePolicy(ALLOW_ALL));
    assert.equal((await health(rig.gateway)).reloadError, undefined);
    for (const session of await liveSessions(rig.gateway)) await control(rig.gateway, "POST", `/v1/sessions/${session.id}/kill`, {});
  });

  it("refuses what a running gateway cannot change", async () => {
    await reloaded("refused", () => rig.gateway.writeConfig({ data: "./elsewhere" }));
    assert.match((await health(rig.gateway)).reloadError ?? "", /data: cannot be changed while the gateway runs/);
    await reloaded("ok", () => rig.gateway.writeConfig({ data: "./data" }));
  });

  it("tightens live sessions, in the middle of a transaction too", async () => {
    const client = await rig.connect();
    await client.query("begin");
    assert.equal(errors(await client.query("insert into notes values ('before')")).length, 0);
    await reloaded("ok", () => rig.gateway.writePolicy(NO_WRITES));
    assert.equal(errors(await client.query("insert into notes values ('after')"))[0]?.["C"], "42501");
    await client.query("rollback");
    assert.ok(await works(client));
    await reloaded("ok", () => rig.gateway.writePolicy(ALLOW_ALL));
    assert.equal(errors(await client.query("insert into notes values ('again')")).length, 0);
    client.close();
  });

  it("decides a prepared statement anew at its next execution", async () => {
    const client = await rig.connect();
    assert.equal(errors(await client.query("prepare p as insert into notes values ('p')")).length, 0);
    assert.equal(errors(await client.query("execute p")).length, 0);
    await reloaded("ok", () => rig.gateway.writePolicy(NO_WRITES));
    assert.equal(errors(await client.query("execute p"))[0]?.["C"], "42501");
    await reloaded("ok", () => rig.gateway.writePolicy(ALLOW_ALL));
    client.close();
  });

  it("ends sessions whose user may no longer connect, or whose target is gone", async () => {
    const alice = await rig.connect({ groups: ["a"] });
    const bob = await rig.connect({ groups: ["b"] });
    await reloaded("ok", () =>
      rig.gateway.writePolicy('version: 1\nrules:\n  - { name: only-b, who: { groups: ["b"] }, effect: allow }\n'),
    );
    assert.equal(sqlStateOf(await alice.closed()), "57P01");
    assert.ok(await works(bob));
    await reloaded("ok", () => rig.gateway.writeConfig({ targets: [postgresTarget("other", rig.server)] }));
    assert.equal(sqlStateOf(await bob.closed()), "57P01");
    assert.equal(sqlStateOf((await rig.connect({ groups: ["b"] })).startup), "3D000");
    await reloaded("ok", () => {
      rig.gateway.writePolicy(ALLOW_ALL);
      rig.gateway.writeConfig({ targets: [postgresTarget("db", rig.server)] });
    });
    assert.ok(await works(await rig.connect()));
    for (const session of await liveSessions(rig.gateway)) await control(rig.gateway, "POST", `/v1/sessions/${session.id}/kill`, {});
  });

  it("reaches a connection that was let in by the old configuration and still waits for its target", async () => {
    const one = postgresTarget("narrow", rig.server, { connections: { max: 1 } });
    const db = postgresTarget("db", rig.server);
    await reloaded("ok", () => rig.gateway.writeConfig({ targets: [db, one] }));
    const holder = await rig.connect({ groups: ["b"] }, { database: "narrow" });
    const waiting = [rig.connect({ groups: ["a"] }, { database: "narrow" }), rig.connect({ groups: ["a"] }, { database: "narrow" })];
    await sleep(300);
    // Both still wait for a place when their right to it ends.
    await reloaded("ok", () =>
      rig.gateway.writePolicy('version: 1\nrules:\n  - { name: only-b, who: { groups: ["b"] }, effect: allow }\n'),
    );
    holder.close();
    for (const client of await Promise.all(waiting)) {
      const frames = client.startup.at(-1)?.type === "Z" ? await client.query("select 1") : client.startup;
      assert.ok(["42501", "57P01"].includes(sqlStateOf(frames) ?? ""), `got ${frames.map((frame) => frame.type).join("")}`);
      assert.ok(client.ended || (await client.next(2_000).catch(() => undefined)) === undefined);
      assert.ok(client.ended, "a session without the right to connect stays open");
    }
    await reloaded("ok", () => {
      rig.gateway.writePolicy(ALLOW_ALL);
      rig.gateway.writeConfig({ targets: [db] });
    });
  });

  it("takes another worker count into use, 2 to 1 to 2, while sessions live on", { timeout: 60_000 }, async () => {
    const clients = [await rig.connect(), await rig.connect()];
    const counts = [1, 2];
    for (const workers of counts) {
      await reloaded("ok", () => rig.gateway.writeConfig({ workers }));
      clients.push(await rig.connect(), await rig.connect());
      for (const client of clients) assert.ok(await works(client));
    }
    assert.equal(new Set((await liveSessions(rig.gateway)).map((session) => session.worker)).size, 5);
    const { body } = await control<{ killed: number }>(rig.gateway, "POST", "/v1/locks", { subject: "target:db", ttlSeconds: 1 });
    assert.equal(body.killed, 6, "a lock does not reach sessions of workers that are on their way out");
    for (const client of clients) await client.closed();
    await waitFor("the old workers have ended", async () => (await health(rig.gateway)).workers === 2);
    await waitFor("the lock has run out", async () => (await rig.connect()).startup.at(-1)?.type === "Z");
    assert.equal(await metric(rig.gateway, "sluice_worker_restarts_total"), 0);
    for (const session of await liveSessions(rig.gateway)) await control(rig.gateway, "POST", `/v1/sessions/${session.id}/kill`, {});
  });

  it("serves a new certificate to new connections, and keeps the old one where the new does not fit", async () => {
    const serial = async (): Promise<string> => {
      const socket = await openSocket({ port: rig.gateway.port });
      assert.equal(await answerByte(socket, sslRequest()), "S");
      const tls = connectTls({ socket, ca: authority.ca, servername: "localhost", ALPNProtocols: ["postgresql"] });
      await new Promise((resolve, reject) => tls.once("secureConnect", resolve).once("error", reject));
      const { serialNumber } = tls.getPeerCertificate();
      tls.destroy();
      return serialNumber;
    };
    const held = await rig.connect({}, { tls: "request", ca: authority.ca });
    const first = await serial();
    const renewed = await authority.issue("second");
    await reloaded("ok", () => {
      writeFileSync(join(folder, "first.key"), renewed.key);
      writeFileSync(join(folder, "first.crt"), renewed.cert);
    });
    const second = await serial();
    assert.notEqual(second, first);
    assert.ok(await works(held));
    await reloaded("refused", () => writeFileSync(join(folder, "first.crt"), "not a certificate"));
    assert.equal(await serial(), second);
    await reloaded("ok", () => writeFileSync(join(folder, "first.crt"), renewed.cert));
    held.close();
  });

  it("30 times in a row under load costs no client an error", { timeout: 60_000 }, async () => {
    const script = join(folder, "load.sql");
    writeFileSync(script, "select 1;\ninsert into notes values ('load');\nselect count(*) from pg_class;\n");
    const password = await rig.issuer.token();
    const load = pgbench({ port: rig.gateway.port, database: "db", password }, ["-n", "-c", "6", "-T", "6", "-f", script]);
    const storm = pgbench({ port: rig.gateway.port, database: "db", password }, ["-n", "-C", "-c", "2", "-T", "6", "-f", script]);
    await waitFor("the load has begun", async () => (await liveSessions(rig.gateway)).length >= 6);
    const { configGeneration } = await health(rig.gateway);
    for (let count = 0; count < 30; count += 1) {
      rig.gateway.writePolicy(`${ALLOW_ALL}# ${count}\n`);
      const { status } = await control(rig.gateway, "POST", "/v1/reload");
      assert.equal(status, 200);
      await sleep(20);
    }
    assert.ok((await health(rig.gateway)).configGeneration >= configGeneration + 30);
    for (const { code, stderr } of await Promise.all([load, storm])) assert.equal(code, 0, stderr);
  });
});

it("a startup packet in two halves with a reload between them is one connection", async () => {
  const socket = await openSocket({ port: rig.gateway.port });
  const packet = startupMessage(PROTOCOL_3_0, [
    ["user", "anyone"],
    ["database", "db"],
  ]);
  socket.write(packet.subarray(0, 9));
  await reloaded("ok", () => rig.gateway.writePolicy(`${ALLOW_ALL}# halves\n`));
  assert.equal(await answerByte(socket, packet.subarray(9)), "R");
  socket.destroy();
});
