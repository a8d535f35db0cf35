import assert from "node:assert/strict";
import { after, before, it } from "node:test";
import type { RawClient } from "../clients/raw.ts";
import { openSocket } from "../clients/raw.ts";
import { waitFor } from "../helpers/processes.ts";
import { assertHealthy, descriptors, health, liveSessions, metric, type Rig, startRig } from "./rig.ts";

/** Enough for the gateway itself and some twenty sessions of two descriptors each. */
const LIMIT = 128;
let rig: Rig;

before(async () => {
  rig = await startRig({ wrap: ["bash", "-c", `ulimit -n ${LIMIT}; exec "$0" "$@"`] });
});
after(() => rig.stop());

it("out of descriptors: sessions go on, others are turned away, and there is room again once they leave", { timeout: 60_000 }, async () => {
  await assertHealthy(rig);
  const baseline = { descriptors: descriptors(rig.gateway.pid), slack: 10 };
  const token = await rig.issuer.token();
  const inside: RawClient[] = [];
  let turnedAway = 0;
  for (let count = 0; count < LIMIT && turnedAway < 20; count += 1) {
    const client = await rig.connect({}, { password: token }).catch(() => undefined);
    if (client?.startup.at(-1)?.type === "Z") inside.push(client);
    else turnedAway += 1;
  }
  assert.ok(inside.length > 10, `only ${inside.length} sessions got in`);
  assert.ok(turnedAway >= 20, "nobody was turned away");
  for (const client of inside) assert.equal((await client.query("select 1")).at(-1)?.type, "Z");
  for (const client of inside) client.close();
  await assertHealthy(rig, baseline);
  assert.equal((await health(rig.gateway)).workers, 2);
  assert.equal(await metric(rig.gateway, "sluice_worker_restarts_total"), 0);
});

it("a crowd that connects and says nothing does not keep the gateway from serving again", { timeout: 60_000 }, async () => {
  const baseline = { descriptors: descriptors(rig.gateway.pid), slack: 10 };
  const logged = rig.gateway.logs().length;
  const crowd = await Promise.all(Array.from({ length: 300 }, () => openSocket({ port: rig.gateway.port }).catch(() => undefined)));
  for (const socket of crowd) socket?.on("error", () => undefined).resume();
  await waitFor("the gateway turns clients away", () => rig.gateway.logs().slice(logged).includes("out of file descriptors"));
  // The operator must be able to look and to act while it lasts.
  assert.equal((await health(rig.gateway)).ready, true);
  assert.deepEqual(await liveSessions(rig.gateway), []);
  assert.equal((await rig.gateway.cli(["lock", "add", "user:mallory", "--ttl", "1s"])).code, 0);
  for (const socket of crowd) socket?.destroy();
  await waitFor("there is room", () => descriptors(rig.gateway.pid) < LIMIT - 40);
  await assertHealthy(rig, baseline);
});

it("SIGTERM still ends it in order", async () => {
  const { pid } = rig.gateway;
  process.kill(pid, "SIGTERM");
  await waitFor("it has stopped", () => !rig.gateway.isRunning());
  assert.equal(rig.gateway.exitCode, 0);
});
