import assert from "node:assert/strict";
import type { Socket } from "node:net";
import { after, before, describe, test } from "node:test";
import { makeCertificate } from "../../test/helpers/certificates.ts";
import { buildNative } from "../native/build.ts";
import { closeAll, type Events, type Kind, newTransport, secured, until, type WirePair, wirePairs } from "./rig.ts";
import type { Transport } from "./types.ts";

const rest = (millis: number): Promise<void> => new Promise((resolve) => setTimeout(resolve, millis));
const PIECE = 8_192;
const certificate = makeCertificate("DNS:localhost");

before(() => buildNative({ quiet: true }));
after(closeAll);

/** Bytes that tell where in the stream they stand. */
function stream(pieces: number, seed: number): Buffer {
  const bytes = Buffer.alloc(pieces * PIECE);
  for (let at = 0; at + 4 <= bytes.length; at += 4) bytes.writeUInt32LE((at * 2_654_435_761 + seed) >>> 0, at);
  return bytes;
}

async function pairs(count: number, transport: Transport = newTransport("pump"), secure = false): Promise<WirePair[]> {
  const made = await wirePairs(transport, count);
  if (!secure) return made;
  return Promise.all(made.map(async ({ wire, events, peer }) => ({ wire, events, peer: await secured(wire, peer, certificate) })));
}

/** One wire pauses at each read for up to 2 ms, the other answers each with a byte. @returns how many answers its peer has got */
function disturb(paused: WirePair, answered: WirePair): () => number {
  let answers = 0;
  answered.peer.on("data", (chunk: Buffer) => {
    answers += chunk.length;
  });
  answered.events.onBytes = () => answered.wire.write(Buffer.from("."), 0, 1);
  let pauses = 0;
  paused.events.onBytes = () => {
    pauses += 1;
    paused.wire.pause();
    setTimeout(() => paused.wire.resume(), pauses % 3);
  };
  return () => answers;
}

/** Write piece by piece with a turn of the loop between, as a sender that is slower than its reader. */
async function trickle(peer: Socket, bytes: Buffer): Promise<void> {
  for (let at = 0; at < bytes.length; at += PIECE) {
    peer.write(bytes.subarray(at, at + PIECE));
    await new Promise((resolve) => setImmediate(resolve));
  }
}

const received = (events: Events): number => events.received.reduce((sum, bytes) => sum + bytes.length, 0);

describe("bulk transfers through the pump", () => {
  test("bytes of a slow sender are read together, in order, and so is the end", { timeout: 20_000 }, async () => {
    const [pair] = (await pairs(1)) as [WirePair];
    const bytes = stream(400, 1);
    await trickle(pair.peer, bytes);
    pair.peer.end();
    await until(() => pair.events.ends === 1, "the end");
    assert.ok(Buffer.concat(pair.events.received).equals(bytes));
    // Without it there is a read for nearly each of the 400 pieces.
    assert.ok(pair.events.received.length < 300, `${pair.events.received.length} reads`);
  });

  test("what comes behind a long transfer, after a rest and in single bytes, arrives", { timeout: 20_000 }, async () => {
    const [pair] = (await pairs(1)) as [WirePair];
    const bytes = stream(60, 2);
    await trickle(pair.peer, bytes);
    await until(() => received(pair.events) === bytes.length, "the transfer");
    for (let i = 0; i < 5; i++) {
      await rest(3);
      const before = received(pair.events);
      pair.peer.write("x");
      await until(() => received(pair.events) === before + 1, `byte ${i}`);
    }
    await trickle(pair.peer, bytes);
    await until(() => received(pair.events) === 2 * bytes.length + 5, "the second transfer");
    pair.peer.destroy();
  });

  test("paused and resumed, answered, reset or destroyed in the middle of it", { timeout: 30_000 }, async () => {
    const made = await pairs(5);
    const [paused, answered, reset, destroyed, whole] = made as [WirePair, WirePair, WirePair, WirePair, WirePair];
    const bytes = stream(150, 3);
    const answers = disturb(paused, answered);
    reset.events.onBytes = () => {
      if (received(reset.events) > 80 * PIECE) reset.peer.resetAndDestroy();
    };
    destroyed.events.onBytes = () => {
      if (received(destroyed.events) > 80 * PIECE) destroyed.wire.destroy();
    };
    await Promise.all(made.map(({ peer }) => trickle(peer, bytes)));
    for (const { peer } of [paused, answered, whole]) peer.end();
    await until(() => [paused, answered, whole].every(({ events }) => events.ends === 1), "the ends", 20_000);
    for (const { events } of [paused, answered, whole]) assert.ok(Buffer.concat(events.received).equals(bytes));
    assert.equal(answers(), answered.events.received.length);
    await until(() => reset.events.closes === 1 && destroyed.events.closes === 1, "the closes");
    const more = received(destroyed.events);
    await rest(20);
    assert.equal(received(destroyed.events), more);
    assert.equal(reset.events.closes, 1);
  });

  test("more of them at once than one round can read", { timeout: 30_000 }, async () => {
    const made = await pairs(40);
    const bytes = stream(60, 4);
    await Promise.all(made.map(({ peer }) => trickle(peer, bytes)));
    for (const { peer } of made) peer.end();
    await until(() => made.every(({ events }) => events.ends === 1), "the ends", 20_000);
    for (const { events } of made) assert.ok(Buffer.concat(events.received).equals(bytes));
  });
});

const KINDS: readonly (readonly [Kind, boolean])[] = [
  ["pump", false],
  ["pump", true],
  ["pump with node:tls", true],
  ["sockets", false],
  ["sockets", true],
];
for (const [kind, secure] of KINDS) {
  describe(`long transfers through ${kind}${secure ? " with TLS" : ""}`, () => {
    test("whole, paused and answered; then rests, single bytes and the end", { timeout: 10_000 }, async () => {
      const made = await pairs(3, newTransport(kind), secure);
      // The third goes on undisturbed.
      const [paused, answered] = made as [WirePair, WirePair, WirePair];
      const bytes = stream(150, 5);
      const answers = disturb(paused, answered);
      for (let round = 1; round <= 2; round++) {
        await Promise.all(made.map(({ peer }) => trickle(peer, bytes)));
        await until(() => made.every(({ events }) => received(events) >= round * bytes.length + round - 1), "the transfers");
        await rest(2);
        for (const { peer } of made) peer.write("x");
        await until(() => made.every(({ events }) => received(events) === round * (bytes.length + 1)), "a byte behind them");
      }
      for (const { peer } of made) peer.end();
      await until(() => made.every(({ events }) => events.ends === 1), "the ends");
      const expected = Buffer.concat([bytes, Buffer.from("x"), bytes, Buffer.from("x")]);
      for (const { events } of made) assert.ok(Buffer.concat(events.received).equals(expected));
      await until(() => answers() === answered.events.received.length, "the answers");
    });

    test("a backlog that the other way round comes in the middle of one leaves, too", { timeout: 10_000 }, async () => {
      const [pair] = (await pairs(1, newTransport(kind), secure)) as [WirePair];
      const bytes = stream(200, 6);
      const back = stream(800, 7);
      let written = false;
      pair.peer.pause();
      pair.events.onBytes = () => {
        if (written || received(pair.events) < 50 * PIECE) return;
        written = true;
        pair.wire.write(back, 0, back.length);
      };
      await trickle(pair.peer, bytes);
      const got: Buffer[] = [];
      pair.peer.on("data", (chunk: Buffer) => got.push(chunk));
      pair.peer.resume();
      await until(() => received(pair.events) === bytes.length, "the transfer");
      await until(() => got.reduce((sum, chunk) => sum + chunk.length, 0) === back.length, "what went back");
      assert.ok(Buffer.concat(got).equals(back));
      assert.ok(Buffer.concat(pair.events.received).equals(bytes));
      pair.events.onEnded = () => pair.wire.end();
      pair.peer.destroy();
      await pair.events.closed;
    });

    test("connections that take the place of others that were closed in the middle of one", { timeout: 10_000 }, async () => {
      const transport = newTransport(kind);
      const bytes = stream(40, 8);
      for (let round = 0; round < 4; round++) {
        const made = await pairs(6, transport, secure);
        for (const [index, { wire, events, peer }] of made.entries()) {
          events.onEnded = () => wire.end();
          if (index % 3 === 2) continue;
          events.onBytes = () => {
            if (received(events) < 25 * PIECE) return;
            if (index % 3 === 0) wire.destroy();
            else peer.destroy();
          };
        }
        await Promise.all(made.map(({ peer }) => trickle(peer, bytes)));
        for (const [index, { events, peer }] of made.entries()) {
          if (index % 3 === 2) {
            await until(() => received(events) === bytes.length, "the transfer");
            assert.ok(Buffer.concat(events.received).equals(bytes));
            peer.destroy();
          }
          await events.closed;
          assert.equal(events.closes, 1);
        }
      }
    });

    test("the transport closes in the middle of them", { timeout: 20_000 }, async () => {
      const transport = newTransport(kind);
      const made = await pairs(4, transport, secure);
      const moving = made.map(({ peer }) => trickle(peer, stream(100, 9)));
      await until(() => made.every(({ events }) => received(events) > 40 * PIECE), "some of the bytes");
      transport.close();
      await until(() => made.every(({ events }) => events.closes === 1), "the closes");
      const before = made.map(({ events }) => received(events));
      await Promise.all(moving);
      await rest(10);
      assert.deepEqual(
        made.map(({ events }) => received(events)),
        before,
      );
    });
  });
}
