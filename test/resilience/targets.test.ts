import assert from "node:assert/strict";
import { connect, createServer, type Server, type Socket } from "node:net";
import { after, before, beforeEach, describe, it } from "node:test";
import { query } from "../../protocols/postgres/messages.ts";
import { fields, type RawClient } from "../clients/raw.ts";
import { postgresTarget } from "../helpers/gateway.ts";
import { waitFor } from "../helpers/processes.ts";
import { assertHealthy, auditEvents, backends, descriptors, liveSessions, metric, type Rig, sqlStateOf, startRig } from "./rig.ts";

/** A relay in front of the server that can be told to misbehave. */
class Wall {
  readonly server: Server;
  readonly pairs = new Set<readonly [Socket, Socket]>();
  mode: "pass" | "silent" | "close" | "garbage" = "pass";

  constructor(port: () => number) {
    this.server = createServer((near) => {
      near.on("error", () => undefined);
      if (this.mode === "close") {
        near.destroy();
        return;
      }
      if (this.mode === "silent") return;
      if (this.mode === "garbage") {
        near.end("HTTP/1.1 400 Bad Request\r\n\r\n");
        return;
      }
      const far = connect({ host: "127.0.0.1", port: port() });
      far.on("error", () => near.destroy());
      near.pipe(far);
      far.pipe(near);
      const pair = [near, far] as const;
      this.pairs.add(pair);
      near.once("close", () => {
        far.destroy();
        this.pairs.delete(pair);
      });
      far.once("close", () => near.destroy());
    });
  }

  get port(): number {
    return (this.server.address() as { port: number }).port;
  }

  cut(reset = false): void {
    for (const [near] of this.pairs)
      if (reset) near.resetAndDestroy();
      else near.destroy();
  }
}

let rig: Rig;
let wall: Wall;

before(async () => {
  wall = new Wall(() => rig.server.port);
  await new Promise<void>((resolve) => wall.server.listen(0, "127.0.0.1", resolve));
  rig = await startRig();
  rig.gateway.writeConfig({
    targets: [
      postgresTarget("db", rig.server),
      postgresTarget("dead", rig.server, { address: "127.0.0.1:1" }),
      postgresTarget("wrong", rig.server, { password: "not it" }),
      postgresTarget("absent", rig.server, { database: "no_such_database" }),
      postgresTarget("walled", rig.server, { address: `127.0.0.1:${wall.port}` }),
      postgresTarget("narrow", rig.server, { connections: { max: 2 } }),
      postgresTarget("socket", rig.server, { address: "/nowhere/.s.PGSQL.1" }),
    ],
  });
  await waitFor("the targets are known", async () => (await metric(rig.gateway, 'sluice_reload_total{result="ok"}')) > 0);
});
after(async () => {
  await rig.stop();
  wall.cut();
  await new Promise((resolve) => wall.server.close(resolve));
});
beforeEach(() => {
  wall.mode = "pass";
});

const refusal = async (database: string): Promise<Record<string, string>> => {
  const client = await rig.connect({}, { database });
  await client.closed();
  const error = client.startup.find((frame) => frame.type === "E");
  assert.ok(error !== undefined, `${database} let somebody in`);
  return fields(error);
};

describe("a target that is not there", () => {
  for (const [database, state, text] of [
    ["nobody", "3D000", /target "nobody" is not configured/],
    ["dead", "08001", /ECONNREFUSED/],
    ["socket", "08001", /ENOENT/],
    ["wrong", "08004", /28P01/],
    ["absent", "08004", /3D000/],
  ] as const) {
    it(`${database}: a clear error, nothing left open`, async () => {
      const baseline = { descriptors: descriptors(rig.gateway.pid), slack: 10 };
      for (let count = 0; count < 5; count += 1) {
        const error = await refusal(database);
        assert.equal(error["C"], state);
        assert.equal(error["S"], "FATAL");
        assert.match(error["M"] ?? "", text);
        assert.doesNotMatch(JSON.stringify(error), /not it/);
      }
      await assertHealthy(rig, baseline);
    });
  }

  it("is in the log and counted, and not taken for a failed authentication", async () => {
    assert.match(rig.gateway.logs(), /"target":"dead".*cannot connect/);
    const events = (await auditEvents(rig.gateway)).filter((event) => event.type === "auth.failed");
    assert.ok(!events.some((event) => event.target === "dead"));
    assert.ok((await metric(rig.gateway, 'sluice_dial_errors_total{target="dead"}')) >= 5);
  });

  it("closes at once, or answers in another protocol", async () => {
    wall.mode = "close";
    assert.match((await refusal("walled"))["C"] ?? "", /^080/);
    wall.mode = "garbage";
    assert.match((await refusal("walled"))["C"] ?? "", /^080/);
  });

  it("never answers: the client is told after the dial's deadline, others are served meanwhile", { timeout: 30_000 }, async () => {
    wall.mode = "silent";
    const started = performance.now();
    const refused = refusal("walled");
    await assertHealthyOthers();
    assert.equal((await refused)["C"], "08001");
    const took = performance.now() - started;
    assert.ok(took > 8_000 && took < 14_000, `after ${Math.round(took)} ms`);
  });
});

async function assertHealthyOthers(): Promise<void> {
  const client = await rig.connect();
  assert.equal((await client.query("select 1")).at(-1)?.type, "Z");
  client.close();
}

describe("a target that dies in the middle of a statement", () => {
  for (const how of ["closes", "resets", "terminates"] as const) {
    it(`${how}: the client learns of it, the record says failed`, async () => {
      const client: RawClient = await rig.connect({}, { database: "walled" });
      await client.query("select 1");
      client.send(query(`select pg_sleep(30), '${how}'`));
      await waitFor(
        "it runs",
        async () => (await rig.server.query("select from pg_stat_activity where query like 'select pg_sleep(30)%'")).length === 1,
      );
      if (how === "terminates")
        await rig.server.query("select pg_terminate_backend(pid) from pg_stat_activity where query like 'select pg_sleep(30)%'");
      else wall.cut(how === "resets");
      const frames = await client.closed();
      assert.equal(sqlStateOf(frames), how === "terminates" ? "57P01" : "08001");
      await rig.server.query("select pg_terminate_backend(pid) from pg_stat_activity where query like 'select pg_sleep(30)%'");
      await assertHealthy(rig);
      const operation = (await auditEvents(rig.gateway)).findLast(
        (event) => event.type === "operation" && event.statement?.includes(`'${how}'`),
      );
      assert.equal(operation?.outcome, "failed");
    });
  }
});

describe("connections.max", () => {
  it("makes further sessions wait, lets them in as places become free, and refuses after ten seconds", { timeout: 40_000 }, async () => {
    const holders = [await rig.connect({}, { database: "narrow" }), await rig.connect({}, { database: "narrow" })];
    for (const holder of holders) assert.equal(holder.startup.at(-1)?.type, "Z");
    const order: number[] = [];
    const waiting = [0, 1, 2].map(async (index) => {
      const client = await rig.connect({}, { database: "narrow" });
      order.push(index);
      return client;
    });
    await waitFor("they wait", async () => (await backends(rig.server)) >= 2);
    assert.equal((await liveSessions(rig.gateway)).length, 2);
    holders[0]?.close();
    await waitFor("one is let in", () => order.length === 1);
    const busy = await rig.server.query(
      "select from pg_stat_activity where application_name <> 'sluice catalogue' and backend_type = 'client backend' and pid <> pg_backend_pid()",
    );
    assert.ok(busy.length <= 2, `${busy.length} connections, 2 allowed`);
    const started = performance.now();
    const clients = await Promise.all(waiting);
    assert.ok(performance.now() - started < 14_000);
    const outcomes = clients.map((client) => sqlStateOf(client.startup) ?? "in");
    assert.deepEqual(outcomes.sort(), ["53300", "53300", "in"]);
    for (const client of [...clients, ...holders]) client.destroy();
    await assertHealthy(rig);
    for (let count = 0; count < 2; count += 1) assert.equal((await rig.connect({}, { database: "narrow" })).startup.at(-1)?.type, "Z");
  });

  it("holds for a storm of short sessions, and a client that leaves while it waits takes no place", { timeout: 40_000 }, async () => {
    for (const session of await liveSessions(rig.gateway)) assert.ok(session.target === "narrow");
    await rig.server.query(
      "select pg_terminate_backend(pid) from pg_stat_activity where pid <> pg_backend_pid() and backend_type = 'client backend'",
    );
    await waitFor("no session is left", async () => (await liveSessions(rig.gateway)).length === 0);
    const token = await rig.issuer.token();
    let done = 0;
    let most = 0;
    const storm = Array.from({ length: 12 }, async (_, index) => {
      for (let count = 0; count < 5; count += 1) {
        const client = await rig.connect({}, { database: "narrow", password: token });
        assert.equal(client.startup.at(-1)?.type, "Z", JSON.stringify(client.startup.map((frame) => frame.body.toString())));
        most = Math.max(most, (await liveSessions(rig.gateway)).length);
        assert.equal((await client.query("select 1")).at(-1)?.type, "Z");
        if (index % 2 === 0) client.close();
        else client.destroy();
        done += 1;
      }
    });
    await Promise.all(storm);
    assert.equal(done, 60);
    assert.ok(most <= 2, `${most} sessions at once`);
    await assertHealthy(rig);
  });
});
