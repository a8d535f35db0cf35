import assert from "node:assert/strict";
import { once } from "node:events";
import { connect, createServer, type Socket } from "node:net";
import { join } from "node:path";
import { after, before, describe, test } from "node:test";
import { makeCertificate } from "../../test/helpers/certificates.ts";
import { removeFolder, temporaryFolder } from "../../test/helpers/processes.ts";
import { buildNative } from "../native/build.ts";
import { closeAll, Events, type Kind, listenAdopting, newTransport, secured, servers, until } from "./rig.ts";
import type { Transport, Wire } from "./types.ts";

// Bytes for many connections that leave together: each gets its own, all of them and in order, whatever becomes of the others.

before(() => buildNative({ quiet: true }));
after(closeAll);

const certificate = makeCertificate("DNS:localhost");

interface Pair {
  readonly wire: Wire;
  readonly events: Events;
  readonly raw: Socket;
  /** What the peer got. */
  readonly got: Buffer[];
  readonly expected: Buffer[];
  secure: boolean;
}

/** @param secureEvery one in so many has TLS */
async function pairs(transport: Transport, count: number, secureEvery: number): Promise<Pair[]> {
  const adopted: Wire[] = [];
  const port = await listenAdopting(transport, (wire) => adopted.push(wire));
  const made: Pair[] = [];
  for (let i = 0; i < count; i++) {
    const raw = connect(port, "127.0.0.1");
    raw.on("error", () => {});
    await once(raw, "connect");
    await until(() => adopted.length === i + 1, "the connection");
    const wire = adopted[i] as Wire;
    const events = new Events();
    wire.handler = events;
    const secure = i % secureEvery === 0;
    const got: Buffer[] = [];
    let peer: Socket = raw;
    if (secure) {
      peer = await secured(wire, raw, certificate);
    }
    peer.on("data", (chunk: Buffer) => got.push(chunk));
    made.push({ wire, events, raw, got, expected: [], secure });
  }
  return made;
}

function put(pair: Pair, length: number, seed: number): void {
  const bytes = Buffer.alloc(length);
  for (let at = 0; at < length; at++) bytes[at] = (at * 31 + seed) & 255;
  pair.expected.push(bytes);
  pair.wire.write(bytes, 0, length);
}

const arrived = (pair: Pair): number => pair.got.reduce((sum, chunk) => sum + chunk.length, 0);
const promised = (pair: Pair): number => pair.expected.reduce((sum, chunk) => sum + chunk.length, 0);

for (const kind of ["pump", "sockets"] as const satisfies readonly Kind[]) {
  describe(`many at once through ${kind}`, () => {
    test("writes of every size, some interleaved; peers that rest, and some that break off", { timeout: 30_000 }, async () => {
      const made = await pairs(newTransport(kind), 90, 3);
      const broken = made.filter((_pair, index) => index % 10 === 7);
      const resting = made.filter((_pair, index) => index % 10 === 4);
      const sound = made.filter((pair) => !broken.includes(pair));
      for (const { raw } of resting) raw.pause();
      for (let round = 0; round < 25; round++) {
        for (const [index, pair] of made.entries()) {
          if (pair.events.closes > 0) continue;
          const length = resting.includes(pair) ? 120_000 : 1 + ((index * 977 + round * 131) % (index % 9 === 0 ? 60_000 : 900));
          put(pair, length, index + round);
        }
        // A second run, and more than one system call takes in one piece, for some of those that have one.
        for (const pair of sound) for (let i = 0; i < round % 6; i++) put(pair, 1 + i * 7, round);
        if (round === 8) for (const { raw } of broken) raw.resetAndDestroy();
        await new Promise((resolve) => setImmediate(resolve));
      }
      for (const { raw } of resting) raw.resume();
      await until(() => sound.every((pair) => arrived(pair) === promised(pair)), "all bytes", 15_000);
      for (const [index, pair] of sound.entries()) {
        assert.ok(Buffer.concat(pair.got).equals(Buffer.concat(pair.expected)), `connection ${index}`);
        assert.equal(pair.events.closes, 0);
      }
      await until(() => broken.every(({ events }) => events.closes === 1), "the broken ones' ends");
      for (const { events } of broken) assert.ok(events.error !== undefined);
      for (const { wire } of sound) wire.destroy();
    });

    test("last words and ends in the same turn as others' writes", { timeout: 20_000 }, async () => {
      const made = await pairs(newTransport(kind), 40, 2);
      for (const [index, pair] of made.entries()) {
        put(pair, 2_000 + index, index);
        put(pair, 10, index);
        if (index % 4 === 1) pair.wire.end();
        if (index % 4 === 2) {
          pair.expected.push(Buffer.from("farewell"));
          pair.wire.lastWords(Buffer.from("farewell"));
        }
        if (index % 4 === 3) pair.wire.destroy();
      }
      const sound = made.filter((_pair, index) => index % 4 !== 3);
      await until(() => sound.every((pair) => arrived(pair) === promised(pair)), "all bytes");
      for (const pair of sound) assert.ok(Buffer.concat(pair.got).equals(Buffer.concat(pair.expected)));
      for (const { wire, raw } of made) {
        wire.destroy();
        raw.destroy();
      }
    });

    test("over Unix sockets that are not read, nobody waits", { timeout: 20_000 }, async () => {
      const folder = temporaryFolder("batch");
      try {
        const transport = newTransport(kind);
        const path = join(folder, "s");
        const accepted: Socket[] = [];
        const server = createServer((socket) => accepted.push(socket.pause().on("error", () => {})));
        servers.push(server);
        await once(server.listen(path), "listening");
        const wires: Wire[] = [];
        for (let i = 0; i < 5; i++) wires.push(await transport.connect({ path }, 1_000));
        const [other] = (await pairs(transport, 1, 2)) as [Pair];
        const chunk = Buffer.alloc(100_000, 7);
        const start = performance.now();
        for (let round = 0; round < 20; round++) {
          for (const wire of wires) wire.write(chunk, 0, chunk.length);
          put(other, 100, round);
          await new Promise((resolve) => setImmediate(resolve));
        }
        await until(() => arrived(other) === promised(other), "the other's bytes");
        assert.ok(performance.now() - start < 5_000);
        assert.ok(wires.every((wire) => wire.backlogBytes > 0));
        let drained = 0;
        for (const socket of accepted) socket.on("data", (bytes: Buffer) => (drained += bytes.length)).resume();
        await until(() => drained === wires.length * 20 * chunk.length, "the backlogs");
        for (const wire of wires) wire.destroy();
        other.wire.destroy();
      } finally {
        removeFolder(folder);
      }
    });
  });
}
