import assert from "node:assert/strict";
import { once } from "node:events";
import { connect, type Socket } from "node:net";
import { after, before, describe, test } from "node:test";
import { connect as connectTls } from "node:tls";
import { makeCertificate } from "../../test/helpers/certificates.ts";
import { below, seeded } from "../mask/samples.ts";
import { buildNative } from "../native/build.ts";
import { closeAll, Events, type Kind, listenAdopting, newTransport, until } from "./rig.ts";
import type { Transport, Wire } from "./types.ts";

before(() => buildNative({ quiet: true }));
const sockets: Socket[] = [];
after(() => {
  for (const socket of sockets) socket.destroy();
  closeAll();
});

const certificate = makeCertificate("DNS:localhost");
const CONNECTIONS = 60;
const STEPS = 4_000;

/** What one side of one connection sends: known from its number and the place alone, unlike what any other sends. */
class Stream {
  sent = 0;
  got = 0;
  readonly #number: number;
  constructor(number: number) {
    this.#number = number;
  }
  at(place: number): number {
    return (this.#number * 101 + place * 7 + (place >> 8) * 13) & 255;
  }
  next(count: number): Buffer {
    const bytes = Buffer.allocUnsafeSlow(count);
    for (let i = 0; i < count; i++) bytes[i] = this.at(this.sent + i);
    this.sent += count;
    return bytes;
  }
  check(bytes: Uint8Array): void {
    for (const byte of bytes) {
      assert.equal(byte, this.at(this.got), `stream ${this.#number}, byte ${this.got}`);
      this.got += 1;
    }
    assert.ok(this.got <= this.sent, `stream ${this.#number} has ${this.got} bytes of ${this.sent}`);
  }
}

interface Pair {
  readonly wire: Wire;
  readonly events: Events;
  readonly raw: Socket;
  /** The peer as its program sees it: `raw`, or TLS over it. */
  readonly peer: Socket;
  readonly toPeer: Stream;
  readonly toWire: Stream;
  /** Nobody has cut it short: what was sent has to arrive. */
  isWhole: boolean;
  isWritable: boolean;
}

for (const kind of ["sockets", "pump", "pump with node:tls"] as const) describe(`chaos over ${kind}`, () => chaos(kind));

function chaos(kind: Kind): void {
  for (const seed of [1]) {
    test(`whatever both sides do, nobody gets another's bytes, and every wire closes once (seed ${seed})`, {
      timeout: 60_000,
    }, async () => {
      const random = seeded(seed);
      const transport = newTransport(kind);
      const faults: unknown[] = [];
      transport.onFault = (error) => faults.push(error);
      const pairs = await connectPairs(transport);
      for (let step = 0; step < STEPS; step++) {
        const pair = pairs[below(random, pairs.length)]!;
        act(pair, below(random, 1_000), below(random, 3) === 0 ? below(random, 60_000) : below(random, 200));
        if (step % 20 === 0) await new Promise((resolve) => setImmediate(resolve));
        if (step % 400 === 0) await new Promise((resolve) => setTimeout(resolve, 5));
      }
      assert.ok(pairs.some(({ isWhole }) => isWhole) && pairs.some(({ isWhole }) => !isWhole));
      for (const pair of pairs) {
        pair.wire.resume();
        pair.peer.resume();
        pair.wire.end();
        pair.peer.end();
      }
      await until(() => pairs.every(({ events }) => events.closes > 0) || faults.length > 0, "every wire closed", 20_000);
      assert.deepEqual(faults, []);
      await until(
        () => pairs.every(({ isWhole, toPeer, toWire }) => !isWhole || (toPeer.got === toPeer.sent && toWire.got === toWire.sent)),
        "all bytes of those that nobody cut short",
      );
      for (const { events, toPeer, toWire } of pairs) {
        assert.equal(events.closes, 1);
        assert.equal(events.unrecorded, 0);
        assert.ok(toPeer.sent > 0 && toWire.sent > 0);
      }
    });
  }
}

async function connectPairs(transport: Transport): Promise<Pair[]> {
  const adopted: Wire[] = [];
  const port = await listenAdopting(transport, (wire) => adopted.push(wire));
  const pairs: Pair[] = [];
  for (let number = 0; number < CONNECTIONS; number++) {
    const raw = connect({ port, host: "127.0.0.1", allowHalfOpen: true });
    sockets.push(raw);
    raw.on("error", () => {});
    await once(raw, "connect");
    await until(() => adopted.length === number + 1, "the connection");
    const wire = adopted[number]!;
    const events = new Events();
    wire.handler = events;
    let peer = raw;
    if (number % 3 === 0) {
      const secured = wire.acceptTls({ ...certificate, alpn: [], requireAlpn: false });
      const tls = connectTls({ socket: raw, ca: certificate.cert, servername: "localhost" });
      await Promise.all([
        secured,
        once(
          tls.on("error", () => {}),
          "secureConnect",
        ),
      ]);
      peer = tls;
    }
    const pair: Pair = {
      ...{ wire, events, raw, peer },
      ...{ toPeer: new Stream(2 * number), toWire: new Stream(2 * number + 1) },
      ...{ isWhole: true, isWritable: true },
    };
    events.onBytes = (bytes) => {
      events.received.length = 0;
      pair.toWire.check(bytes);
    };
    peer.on("data", (bytes: Buffer) => pair.toPeer.check(bytes));
    pair.peer.write(pair.toWire.next(10));
    wire.write(pair.toPeer.next(10), 0, 10);
    pairs.push(pair);
  }
  return pairs;
}

/** @param what 0..999: mostly traffic, now and then an end of some kind */
function act(pair: Pair, what: number, size: number): void {
  const { wire, peer, raw, toPeer, toWire } = pair;
  if (what < 400) {
    // Only what is certain to be staged counts as sent.
    if (pair.isWritable && wire.backlogBytes < 4_000_000) wire.write(toPeer.next(size), 0, size);
  } else if (what < 700) {
    if (peer.writable && peer.writableLength < 4_000_000) peer.write(toWire.next(size));
  } else if (what < 780) wire.pause();
  else if (what < 880) wire.resume();
  else if (what < 930) peer.pause();
  else if (what < 980) peer.resume();
  else if (what < 984) {
    pair.isWritable = false;
    wire.end();
  } else if (what < 986) peer.end();
  else {
    pair.isWhole = false;
    if (what < 990 && pair.isWritable) wire.lastWords(toPeer.next(size));
    else if (what < 994) wire.destroy();
    else if (what < 997) raw.resetAndDestroy();
    else peer.destroy();
    pair.isWritable = false;
  }
}
