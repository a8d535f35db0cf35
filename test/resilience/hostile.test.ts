import assert from "node:assert/strict";
import { connect, type Socket } from "node:net";
import { after, before, describe, it } from "node:test";
import { setTimeout as sleep } from "node:timers/promises";
import { LIMITS } from "../../core/limits.ts";
import { PROTOCOL_3_0, passwordMessage, query, startupMessage, terminate } from "../../protocols/postgres/messages.ts";
import { openSocket, RawClient as Raw, type RawClient } from "../clients/raw.ts";
import { conversation } from "../fuzz/recordings.ts";
import { waitFor } from "../helpers/processes.ts";
import { assertHealthy, backends, descriptors, health, liveSessions, type Rig, residentMiB, sqlStateOf, startRig } from "./rig.ts";

let rig: Rig;

before(async () => {
  rig = await startRig({ config: { limits: { idle: "2s" } } });
  await rig.server.execute("create table notes (id int, text text)");
});
after(() => rig.stop());

const int32 = (value: number): Buffer => {
  const bytes = Buffer.alloc(4);
  bytes.writeInt32BE(value | 0);
  return bytes;
};

/** Send bytes on a fresh connection and take everything until the gateway closes it. */
async function shout(bytes: Uint8Array): Promise<Buffer> {
  const socket = await openSocket({ port: rig.gateway.port });
  const chunks: Buffer[] = [];
  socket.on("data", (chunk: Buffer) => chunks.push(chunk));
  socket.on("error", () => undefined);
  const closed = new Promise<void>((resolve) => socket.once("close", () => resolve()));
  socket.write(bytes);
  await Promise.race([closed, sleep(5_000).then(() => assert.fail("the gateway keeps the connection"))]);
  return Buffer.concat(chunks);
}

describe("wrong lengths", () => {
  for (const [name, length] of [
    ["negative", -1],
    ["zero", 0],
    ["below the shortest", 7],
    ["above the limit", LIMITS.startupPacketBytes + 1],
    ["2^31 − 1", 0x7fff_ffff],
    ["2^31", 0x8000_0000],
  ] as const) {
    it(`startup packet: ${name}`, async () => {
      const answer = await shout(Buffer.concat([int32(length), int32(PROTOCOL_3_0), Buffer.alloc(64, 0x41)]));
      assert.match(answer.toString("latin1"), /08P01/);
    });
  }

  for (const [name, length, state] of [
    ["negative", -5, "08P01"],
    ["below 4", 3, "08P01"],
    ["above the limit", LIMITS.frontendMessageBytes + 1, "54000"],
    ["2^31 − 1", 0x7fff_ffff, "54000"],
    ["2^31", 0x8000_0000, "08P01"],
  ] as const) {
    for (const type of ["Q", "P", "B", "d"]) {
      // COPY data pass in pieces up to PostgreSQL's own limit.
      if (type === "d" && length === LIMITS.frontendMessageBytes + 1) continue;
      it(`message ${type}: ${name}`, async () => {
        const client = await rig.connect();
        const before = residentMiB(rig.gateway.pid);
        client.send(Buffer.concat([Buffer.from(type), int32(length), Buffer.alloc(128, 0x20)]));
        assert.equal(sqlStateOf(await client.closed()), state);
        assert.ok(residentMiB(rig.gateway.pid) < before + 60, "memory was taken for an announced length");
      });
    }
  }

  it("password message of 2^31 bytes", async () => {
    const socket = await openSocket({ port: rig.gateway.port });
    const client = new Raw(socket);
    client.send(
      startupMessage(PROTOCOL_3_0, [
        ["user", "a"],
        ["database", "db"],
      ]),
    );
    await client.until("R");
    client.send(Buffer.concat([Buffer.from("p"), int32(0x7fff_ffff), Buffer.alloc(64)]));
    assert.equal(sqlStateOf(await client.closed()), "08P01");
  });

  it("nothing is left of any of it", async () => {
    await assertHealthy(rig);
  });
});

describe("startup", () => {
  it("bombs are refused: too many parameters, the same one twice, bytes behind the end, unknown versions", async () => {
    const many = Array.from({ length: LIMITS.startupParameters + 5 }, (_, index): [string, string] => [`p${index}`, "v"]);
    const options = Array.from({ length: LIMITS.startupParameters + 5 }, (_, index): [string, string] => [`_pq_.p${index}`, "v"]);
    const packets: Uint8Array[] = [
      startupMessage(PROTOCOL_3_0, many),
      startupMessage(PROTOCOL_3_0, options),
      startupMessage(PROTOCOL_3_0, [
        ["user", "a"],
        ["user", "b"],
      ]),
      startupMessage(0x0002_0000, [["user", "a"]]),
      startupMessage(0x0004_0000, [["user", "a"]]),
      Buffer.concat([int32(20), int32(PROTOCOL_3_0), Buffer.from("user\0a\0\0zzzz")]),
      Buffer.concat([int32(LIMITS.startupPacketBytes), int32(PROTOCOL_3_0), Buffer.alloc(LIMITS.startupPacketBytes - 8, 0x61)]),
    ];
    for (const packet of packets) assert.match((await shout(packet)).toString("latin1"), /08P01/);
    await assertHealthy(rig);
  });

  it("a thousand connections that are closed at once leave nothing behind", { timeout: 60_000 }, async () => {
    const baseline = { descriptors: descriptors(rig.gateway.pid), slack: 10 };
    for (let round = 0; round < 20; round += 1) {
      const sockets = await Promise.all(Array.from({ length: 50 }, () => openSocket({ port: rig.gateway.port })));
      sockets.forEach((socket, index) => {
        socket.on("error", () => undefined);
        if (index % 3 === 0) socket.resetAndDestroy();
        else if (index % 3 === 1) socket.write(Buffer.from([0, 0, 0]), () => socket.destroy());
        else socket.destroy();
      });
    }
    await assertHealthy(rig, baseline);
  });

  it("a client that says nothing, and one that says a byte a second, are cut off at the deadline", { timeout: 40_000 }, async () => {
    const silent = await openSocket({ port: rig.gateway.port });
    const slow = await openSocket({ port: rig.gateway.port });
    const started = performance.now();
    const packet = startupMessage(PROTOCOL_3_0, [
      ["user", "anyone"],
      ["database", "db"],
    ]);
    let at = 0;
    const drip = setInterval(() => slow.write(packet.subarray(at, ++at)), 1_000);
    const closed = (socket: Socket) =>
      new Promise<void>((resolve) => {
        socket.on("error", () => undefined);
        socket.once("close", () => resolve());
        socket.resume();
      });
    await Promise.all([closed(silent), closed(slow)]);
    clearInterval(drip);
    const took = performance.now() - started;
    assert.ok(took > LIMITS.handshakeMillis - 1_000 && took < LIMITS.handshakeMillis + 5_000, `after ${Math.round(took)} ms`);
    await assertHealthy(rig);
  });
});

describe("a client that vanishes", () => {
  for (const how of ["closes", "resets"] as const) {
    it(`after any number of bytes (${how}) leaves nothing behind`, { timeout: 90_000 }, async () => {
      await assertHealthy(rig);
      const baseline = { descriptors: descriptors(rig.gateway.pid), slack: 6 };
      const recorded = Buffer.concat(conversation(await rig.issuer.token()));
      // Every byte of the first messages' borders, then in steps: each cut is one connection.
      const step = Math.ceil(recorded.length / 90);
      for (let cut = 1; cut < recorded.length; cut += 6 * step) {
        await Promise.all(
          Array.from({ length: 6 }, (_, index) => cut + index * step)
            .filter((at) => at < recorded.length)
            .map((at) => vanish(recorded.subarray(0, at), how)),
        );
      }
      await assertHealthy(rig, baseline);
      assert.equal((await health(rig.gateway)).workers, 2);
    });
  }

  async function vanish(bytes: Uint8Array, how: "closes" | "resets"): Promise<void> {
    const socket = await openSocket({ port: rig.gateway.port });
    socket.on("error", () => undefined);
    socket.resume();
    await new Promise<void>((resolve) => socket.write(bytes, () => resolve()));
    await sleep(20);
    if (how === "closes") socket.destroy();
    else socket.resetAndDestroy();
  }

  it("with a statement under way has it cancelled at the server", async () => {
    const client = await rig.connect();
    client.send(query("select pg_sleep(60)"));
    await waitFor(
      "it runs",
      async () => (await rig.server.query("select from pg_stat_activity where query = 'select pg_sleep(60)'")).length === 1,
    );
    client.destroy();
    await waitFor("it is gone", async () => (await backends(rig.server)) === 0, 3_000);
  });

  it("says goodbye in the same breath as its last statement: that runs all the same", async () => {
    const client = await rig.connect();
    await client.query("select from notes");
    client.send(query("insert into notes values (2, 'last words')"), terminate());
    await client.closed();
    await waitFor("it is done", async () => (await rig.server.query("select from notes where text = 'last words'")).length === 1, 2_000);
  });

  it("between the password and the welcome leaves nothing behind", async () => {
    const baseline = { descriptors: descriptors(rig.gateway.pid), slack: 6 };
    const token = await rig.issuer.token();
    for (let millis = 0; millis < 30; millis += 3) {
      const socket = connect({ host: "127.0.0.1", port: rig.gateway.port });
      socket.on("error", () => undefined);
      socket.resume();
      socket.write(
        startupMessage(PROTOCOL_3_0, [
          ["user", "a"],
          ["database", "db"],
        ]),
      );
      socket.write(passwordMessage(token));
      await sleep(millis);
      socket.resetAndDestroy();
    }
    await assertHealthy(rig, baseline);
  });
});

/** Resident memory once it has stayed the same for two seconds. */
async function settledMiB(pid: number): Promise<number> {
  let last = 0;
  for (let same = 0; same < 20; same += 1) {
    const now = residentMiB(pid);
    if (Math.abs(now - last) > 5) {
      last = now;
      same = 0;
    }
    await sleep(100);
  }
  return last;
}

describe("slow and idle clients", () => {
  it("one that does not read a result of 200 MB costs the gateway no memory", { timeout: 60_000 }, async () => {
    // The first statements make V8 optimise the SQL parser, which takes some hundred MiB for a second.
    const warming = await rig.connect();
    for (let count = 0; count < 300; count += 1) await warming.query(`select ${"(".repeat(count)}1${")".repeat(count)}`);
    warming.close();
    const before = await settledMiB(rig.gateway.pid);
    const clients: RawClient[] = [];
    const sockets: Socket[] = [];
    for (let count = 0; count < 2; count += 1) {
      const socket = await openSocket({ port: rig.gateway.port });
      const client = new Raw(socket);
      client.send(
        startupMessage(PROTOCOL_3_0, [
          ["user", "a"],
          ["database", "db"],
        ]),
      );
      await client.until("R");
      client.send(passwordMessage(await rig.issuer.token()));
      await client.until("Z");
      client.send(query("select repeat('x', 10000) from generate_series(1, 20000)"));
      await waitFor("the result has begun", () => socket.bytesRead > 10_000);
      socket.pause();
      clients.push(client);
      sockets.push(socket);
    }
    const now = await settledMiB(rig.gateway.pid);
    assert.ok(now < before + 60, `${Math.round(before)} MiB before, ${Math.round(now)} MiB with two stalled readers`);
    assert.equal((await (await rig.connect()).query("select 1")).at(-1)?.type, "Z", "others are served meanwhile");
    // The idle timeout does not count while a statement runs.
    assert.equal((await liveSessions(rig.gateway)).length >= 2, true);
    sockets[0]?.resume();
    const [, finishing] = [clients[1], clients[0]];
    const frames = await (finishing as RawClient).until("Z");
    assert.equal(frames.filter((frame) => frame.type === "D").length, 20_000);
    sockets[1]?.destroy();
    clients[0]?.close();
    await assertHealthy(rig);
  });

  it("limits.idle ends a session that is silent, also within a transaction, and rolls that back", async () => {
    const idle = await rig.connect();
    const inBlock = await rig.connect();
    await inBlock.query("begin");
    await inBlock.query("insert into notes values (1, 'never')");
    const started = performance.now();
    for (const client of [idle, inBlock]) assert.equal(sqlStateOf(await client.closed()), "08006");
    assert.ok(performance.now() - started < 6_000);
    await assertHealthy(rig);
    assert.equal((await rig.server.query("select from notes where text = 'never'")).length, 0);
  });
});

it("limits.idle that is longer than a timer can be ends nobody early", async () => {
  const patient = await startRig({ config: { limits: { idle: "100d" } } });
  try {
    const client = await patient.connect();
    await sleep(1_000);
    assert.equal((await client.query("select 1")).filter(({ type }) => type === "D").length, 1);
    client.close();
  } finally {
    await patient.stop();
  }
});
