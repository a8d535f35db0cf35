import assert from "node:assert/strict";
import { connect, type Socket } from "node:net";
import { after, before, it } from "node:test";
import { setTimeout as sleep } from "node:timers/promises";
import { PROTOCOL_3_0, startupMessage } from "../../protocols/postgres/messages.ts";
import { RawClient } from "../clients/raw.ts";
import { waitFor } from "../helpers/processes.ts";
import { assertHealthy, metric, type Rig, startRig } from "./rig.ts";

// limits.connectionsPerAddress for clients that connect straight to the gateway.

const MOST = 3;
let rig: Rig;
before(async () => {
  rig = await startRig({ config: { limits: { connectionsPerAddress: MOST } } });
});
after(() => rig.stop());

const refusals = (): Promise<number> => metric(rig.gateway, 'sluice_connections_refused_total{reason="address"}');

const dial = (from: string): Promise<Socket> =>
  new Promise((resolve, reject) => {
    const socket = connect({ host: "127.0.0.1", port: rig.gateway.port, localAddress: from });
    socket.once("error", reject);
    socket.once("connect", () => resolve(socket));
  });

/** The gateway asks this connection for a credential. */
async function isServed(socket: Socket): Promise<boolean> {
  const client = new RawClient(socket);
  socket.write(startupMessage(PROTOCOL_3_0, [["database", "db"]]));
  return (await client.next().catch(() => undefined))?.type === "R";
}

async function servedOf(from: string, count: number): Promise<{ inside: Socket[]; refused: number }> {
  const inside: Socket[] = [];
  let refused = 0;
  for (let index = 0; index < count; index += 1) {
    const socket = await dial(from);
    if (await isServed(socket)) inside.push(socket);
    else refused += 1;
  }
  return { inside, refused };
}

it("an address gets so many connections, others are not affected, and there is room again once they leave", {
  timeout: 60_000,
}, async () => {
  await assertHealthy(rig);
  const before = await refusals();
  const first = await servedOf("127.0.0.2", MOST + 4);
  assert.deepEqual([first.inside.length, first.refused], [MOST, 4]);
  assert.equal(await refusals(), before + 4);
  const second = await servedOf("127.0.0.3", MOST);
  assert.deepEqual([second.inside.length, second.refused], [MOST, 0]);
  first.inside[0]?.destroy();
  await waitFor("there is room for one", async () => {
    const socket = await dial("127.0.0.2");
    if (await isServed(socket)) return first.inside.push(socket);
    return false;
  });
  assert.deepEqual((await servedOf("127.0.0.2", 1)).refused, 1);
  for (const socket of [...first.inside, ...second.inside]) socket.destroy();
  await assertHealthy(rig);
});

it("a crowd of one address is logged once a second and leaves room for others", { timeout: 60_000 }, async () => {
  await sleep(1_100);
  const logged = rig.gateway.logs().length;
  const before = await refusals();
  const crowd = await Promise.all(Array.from({ length: 300 }, () => dial("127.0.0.4")));
  for (const socket of crowd) socket.on("error", () => undefined).resume();
  await waitFor("the rest is turned away", async () => (await refusals()) === before + 300 - MOST);
  assert.equal((await servedOf("127.0.0.5", 1)).inside.length, 1);
  const lines = () =>
    rig.gateway
      .logs()
      .slice(logged)
      .match(/"count":\d+,"address":"127\.0\.0\.4:\d+".*connectionsPerAddress is reached/g)?.length ?? 0;
  await waitFor("a line", () => lines() > 0);
  assert.ok(lines() <= 2, `${lines()} lines`);
  for (const socket of crowd) socket.destroy();
});

it("a reload changes the limit; those who are in stay, and still count", { timeout: 60_000 }, async () => {
  const reloads = () => metric(rig.gateway, 'sluice_reload_total{result="ok"}');
  const set = async (limits: object) => {
    const before = await reloads();
    rig.gateway.writeConfig({ limits });
    await waitFor("a reload", async () => (await reloads()) > before);
  };
  await set({});
  const many = await servedOf("127.0.0.6", 3 * MOST);
  assert.equal(many.refused, 0, "without the key there is no limit");
  await set({ connectionsPerAddress: MOST });
  assert.equal((await servedOf("127.0.0.6", 1)).refused, 1);
  assert.ok(many.inside.every((socket) => !socket.destroyed));
  for (const socket of many.inside.slice(2)) socket.destroy();
  await waitFor("there is room", async () => (await servedOf("127.0.0.6", 1)).inside.length === 1);
});
