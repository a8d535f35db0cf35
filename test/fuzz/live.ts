import assert from "node:assert/strict";
import { connect, createServer, type Socket } from "node:net";
import { setTimeout as sleep } from "node:timers/promises";
import { PROTOCOL_3_0, passwordMessage, startupMessage } from "../../protocols/postgres/messages.ts";
import { postgresTarget } from "../helpers/gateway.ts";
import { waitFor } from "../helpers/processes.ts";
import { assertHealthy, descriptors, health, metric, type Rig, residentMiB, startRig } from "../resilience/rig.ts";
import { cuts, mutate, shuffle } from "./mutate.ts";
import { Random } from "./random.ts";
import { conversation, statements } from "./recordings.ts";

const CLIENTS = 6;
/** A session that neither side ends within this is cut by its client. */
const SESSION_MILLIS = 150;
/** To be let in may take longer on a busy machine. */
const DOOR_MILLIS = 1_000;
const MEMORY_MIB = 600;

/** Reading is all that is allowed, whatever the bytes say. */
const READ_ONLY = `version: 1
rules:
  - { name: reading, actions: [read], resources: ["public.notes", "pg_catalog.*"], effect: allow }
`;

export interface LiveResult {
  conversations: number;
  answers: number;
}

/**
 * Mutated conversations against a running gateway, from clients and from a target that changes its own answers. The
 * gateway must stay up, must meet no internal error, must let nothing through that the policy refuses, and must be as it was
 * afterwards.
 */
export async function fuzzLive(seed: number, seconds: number, report: (line: string) => void = () => {}): Promise<LiveResult> {
  const mangler = await startMangler(seed);
  const rig = await startRig({ policy: READ_ONLY, postgres: { logStatements: true } });
  mangler.port = rig.server.port;
  try {
    await rig.server.execute(
      "create table notes (id int, text text); insert into notes values (1, 'one'); create table secrets (text text)",
    );
    const target = postgresTarget("db", rig.server);
    rig.gateway.writeConfig({ targets: [target, postgresTarget("mangled", rig.server, { address: `127.0.0.1:${mangler.address}` })] });
    await waitFor("the targets are known", async () => (await metric(rig.gateway, 'sluice_reload_total{result="ok"}')) > 0);
    await assertHealthy(rig);
    return await storm(rig, seed, seconds, report, mangler.cut);
  } finally {
    await rig.stop();
    await mangler.stop();
  }
}

async function storm(rig: Rig, seed: number, seconds: number, report: (line: string) => void, cutTarget: () => void): Promise<LiveResult> {
  const { gateway, server } = rig;
  const baseline = { descriptors: descriptors(gateway.pid), slack: 12 };
  const residentBefore = residentMiB(gateway.pid);
  const token = await rig.issuer.token({ expiresInSeconds: Math.ceil(seconds) + 120 });
  const result: LiveResult = { conversations: 0, answers: 0 };
  const until = Date.now() + seconds * 1_000;
  let reported = Date.now();
  await Promise.all(
    Array.from({ length: CLIENTS }, async (_, client) => {
      const random = new Random(seed + client * 7_919);
      while (Date.now() < until) {
        // Not in one expression, which would forget what the others have added while this one waits.
        const received = await converse(rig, random, token, random.oneIn(3) ? "mangled" : "db");
        result.answers += received;
        result.conversations += 1;
        if (client === 0 && Date.now() - reported > 10_000) {
          reported = Date.now();
          report(
            `live fuzz: ${result.conversations} conversations, ${result.answers} bytes of answers, ${Math.round(residentMiB(gateway.pid))} MiB`,
          );
        }
      }
    }),
  );
  assert.ok(gateway.isRunning(), "the gateway is gone");
  // A changed length can leave the gateway waiting for a catalogue that never ends, until the deadline for it.
  cutTarget();
  await assertHealthy(rig, baseline);
  assert.equal((await health(gateway)).workers, 2);
  assert.equal(await metric(gateway, "sluice_worker_restarts_total"), 0, "a worker ended");
  const faults = gateway
    .logs()
    .split("\n")
    .filter((line) => line.includes('"level":50') || line.includes('"level":60'));
  assert.deepEqual(faults.slice(0, 3), [], "internal errors");
  const grown = residentMiB(gateway.pid) - residentBefore;
  assert.ok(grown < MEMORY_MIB, `resident memory grew by ${Math.round(grown)} MiB`);
  // Only reading was allowed.
  const [count] = await server.query<{ notes: number; secrets: number }>(
    "select (select count(*) from notes)::int as notes, (select count(*) from secrets)::int as secrets",
  );
  assert.deepEqual(count, { notes: 1, secrets: 0 }, "something was written");
  return result;
}

/** One mutated conversation. @returns bytes that came back */
async function converse(rig: Rig, random: Random, token: string, database: string): Promise<number> {
  const socket = connect({ host: "127.0.0.1", port: rig.gateway.port });
  let received = 0;
  let wake = () => {};
  const closed = new Promise<void>((resolve) => socket.once("close", () => resolve()));
  socket.on("error", () => undefined);
  socket.on("data", (chunk: Buffer) => {
    received += chunk.length;
    wake();
  });
  const [, password, ...rest] = conversation(token);
  const startup = startupMessage(PROTOCOL_3_0, [
    ["user", "anyone"],
    ["database", database],
  ]);
  const isGood = !random.oneIn(6);
  // Mostly past the door, so that what lies behind it is met.
  socket.write(isGood ? startup : mutate(random, startup));
  socket.write(isGood ? (password ?? passwordMessage(token)) : mutate(random, passwordMessage(token)));
  if (isGood) await Promise.race([new Promise<void>((resolve) => (wake = () => received > 100 && resolve())), closed, sleep(DOOR_MILLIS)]);
  const bytes = Buffer.concat(shuffle(random, random.oneIn(2) ? rest : statements()));
  let start = 0;
  // Whole, or in pieces of which each is a read of its own.
  for (const at of [...(random.oneIn(3) ? cuts(random, bytes.length).slice(0, 12) : []), bytes.length]) {
    socket.write(bytes.subarray(start, at));
    if (at < bytes.length) await sleep(1);
    start = at;
  }
  await Promise.race([closed, sleep(random.below(SESSION_MILLIS))]);
  if (random.oneIn(2)) socket.destroy();
  else socket.resetAndDestroy();
  return received;
}

/** A target whose answers are changed on their way, once its session is well under way. */
async function startMangler(seed: number): Promise<{ port: number; readonly address: number; cut(): void; stop(): Promise<void> }> {
  const random = new Random(seed ^ 0x5f5f);
  const sockets = new Set<Socket>();
  const mangler = {
    port: 0,
    address: 0,
    cut: () => {
      for (const socket of sockets) socket.destroy();
      sockets.clear();
    },
    stop: async () => {},
  };
  const server = createServer((near) => {
    const far = connect({ host: "127.0.0.1", port: mangler.port });
    for (const socket of [near, far]) {
      sockets.add(socket);
      socket.on("error", () => undefined);
    }
    near.once("close", () => far.destroy());
    far.once("close", () => near.destroy());
    near.pipe(far);
    let chunks = 0;
    const from = random.below(30);
    far.on("data", (chunk: Buffer) => {
      chunks += 1;
      near.write(chunks > from && random.oneIn(3) ? mutate(random, chunk) : chunk);
    });
  });
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  mangler.address = (server.address() as { port: number }).port;
  mangler.stop = () =>
    new Promise((resolve) => {
      mangler.cut();
      server.close(() => resolve());
    });
  return mangler;
}
