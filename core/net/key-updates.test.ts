import assert from "node:assert/strict";
import { createCipheriv, createHmac } from "node:crypto";
import { once } from "node:events";
import { connect, type Socket } from "node:net";
import { Duplex } from "node:stream";
import { after, before, describe, test } from "node:test";
import { connect as connectTls } from "node:tls";
import { makeCertificate } from "../../test/helpers/certificates.ts";
import { buildNative } from "../native/build.ts";
import { closeAll, Events, listenAdopting, newTransport, until } from "./rig.ts";
import type { Transport, Wire } from "./types.ts";

before(() => buildNative({ quiet: true }));
after(() => {
  for (const socket of sockets) socket.destroy();
  closeAll();
});

const sockets: Socket[] = [];
const certificate = makeCertificate("DNS:localhost");
const CIPHER = "TLS_AES_128_GCM_SHA256";
const DATA = 23;
const HANDSHAKE = 22;
/** RFC 8446 §4.6.3: a KeyUpdate that asks for one in return. */
const KEY_UPDATE = Buffer.from([24, 0, 0, 1, 1]);

/** RFC 8446 §7.1 for SHA-256 and an empty context; one block of HKDF is enough for `length` up to 32. */
function expandLabel(secret: Buffer, label: string, length: number): Buffer {
  const name = `tls13 ${label}`;
  const info = Buffer.concat([Buffer.from([0, length, name.length]), Buffer.from(name), Buffer.from([0, 1])]);
  return createHmac("sha256", secret).update(info).digest().subarray(0, length);
}

/** A TLS 1.3 client whose records are made here once the handshake is over: node:tls sends no key updates on request. */
class RecordClient {
  readonly raw: Socket;
  #secret: Buffer;
  #sequence = 0;

  private constructor(raw: Socket, secret: Buffer) {
    this.raw = raw;
    this.#secret = secret;
  }

  static async connect(port: number): Promise<RecordClient> {
    const raw = connect(port, "127.0.0.1");
    sockets.push(raw.setNoDelay(true).on("error", () => {}));
    const between = new Duplex({ read: () => {}, write: (chunk: Buffer, _encoding, done) => void raw.write(chunk, done) });
    raw.on("data", (chunk: Buffer) => between.push(chunk));
    const tls = connectTls({ socket: between, ca: certificate.cert, servername: "localhost", ciphers: CIPHER, minVersion: "TLSv1.3" });
    let secret: Buffer | undefined;
    tls
      .on("error", () => {})
      .on("keylog", (line: Buffer) => {
        const found = /^CLIENT_TRAFFIC_SECRET_0 \w+ (\w+)/.exec(line.toString());
        if (found !== null) secret = Buffer.from(found[1]!, "hex");
      });
    await once(tls, "secureConnect");
    assert.equal(tls.getCipher().standardName, CIPHER);
    raw.removeAllListeners("data").pause();
    return new RecordClient(raw, secret!);
  }

  /** RFC 8446 §5.2: one protected record. */
  seal(type: number, content: Buffer): Buffer {
    const nonce = expandLabel(this.#secret, "iv", 12);
    nonce.writeUInt32BE((nonce.readUInt32BE(8) ^ this.#sequence++) >>> 0, 8);
    const head = Buffer.from([DATA, 3, 3, 0, 0]);
    head.writeUInt16BE(content.length + 1 + 16, 3);
    const cipher = createCipheriv("aes-128-gcm", expandLabel(this.#secret, "key", 16), nonce).setAAD(head);
    return Buffer.concat([head, cipher.update(Buffer.concat([content, Buffer.from([type])])), cipher.final(), cipher.getAuthTag()]);
  }

  /** Records that each ask for a new key, and use one. */
  keyUpdates(count: number): Buffer {
    const records: Buffer[] = [];
    for (let i = 0; i < count; i++) {
      records.push(this.seal(HANDSHAKE, KEY_UPDATE));
      this.#secret = expandLabel(this.#secret, "traffic upd", 32);
      this.#sequence = 0;
    }
    return Buffer.concat(records);
  }
}

interface Accepted {
  readonly wire: Wire;
  readonly events: Events;
  readonly client: RecordClient;
}

async function accept(transport: Transport): Promise<Accepted> {
  const events = new Events();
  let wire: Wire | undefined;
  const port = await listenAdopting(transport, (adopted) => {
    adopted.handler = events;
    void adopted.acceptTls({ ...certificate, alpn: [], requireAlpn: false }).then(() => {
      wire = adopted;
    });
  });
  const client = await RecordClient.connect(port);
  await until(() => wire !== undefined, "the handshake");
  return { wire: wire!, events, client };
}

describe("key updates of TLS 1.3", () => {
  test("a few are answered, and data under the new keys arrives", { timeout: 10_000 }, async () => {
    const { wire, events, client } = await accept(newTransport("pump"));
    const answer = once(client.raw.resume(), "data");
    client.raw.write(Buffer.concat([client.keyUpdates(3), client.seal(DATA, Buffer.from("under the fourth key"))]));
    await until(() => events.text !== "", "the data");
    assert.equal(events.text, "under the fourth key");
    assert.equal(((await answer)[0] as Buffer)[0], DATA, "an answer looks like data");
    assert.equal(events.closes, 0);
    wire.destroy();
  });

  test("a peer that floods them and never reads is cut off; others go on", { timeout: 20_000 }, async () => {
    const transport = newTransport("pump");
    const { wire, events, client } = await accept(transport);
    const other = await accept(transport);
    const flood = client.keyUpdates(2_000);
    other.events.onBytes = (bytes) => other.wire.write(bytes, 0, bytes.length);
    let most = 0;
    const watch = setInterval(() => (most = Math.max(most, wire.backlogBytes)), 1);
    client.raw.write(flood);
    other.client.raw.write(other.client.seal(DATA, Buffer.from("still here")));
    await until(() => events.closes === 1, "the flood's end");
    clearInterval(watch);
    assert.match(String(events.error), /too many records without data/);
    assert.ok(most < 64 * 1024, `${most} bytes held for the flood`);
    await until(() => other.events.text === "still here", "the other connection");
    assert.equal(other.events.closes, 0);
    other.wire.destroy();
  });

  test("a peer that does not read its answers is not read from either, above 4 MiB", { timeout: 20_000 }, async () => {
    const { wire, events, client } = await accept(newTransport("pump"));
    const chunk = Buffer.alloc(64 * 1024, 1);
    while (wire.backlogBytes < 5 * 1024 * 1024) {
      wire.write(chunk, 0, chunk.length);
      await new Promise((resolve) => setImmediate(resolve));
    }
    // The last that is read: the backlog is looked at behind it.
    client.raw.write(client.seal(DATA, Buffer.from("x")));
    await until(() => events.text === "x", "the last data");
    const before = wire.backlogBytes;
    for (let i = 0; i < 100; i++) {
      client.raw.write(client.keyUpdates(4));
      await new Promise((resolve) => setImmediate(resolve));
    }
    await new Promise((resolve) => setTimeout(resolve, 50));
    assert.equal(wire.backlogBytes, before, "answers were made for a peer that reads nothing");
    assert.equal(events.closes, 0);
    // What waits for the gateway is a flood by now.
    client.raw.resume();
    await until(() => events.closes === 1, "the flood's end");
    assert.match(String(events.error), /too many records without data/);
  });

  test("nor in the middle of a long transfer", { timeout: 30_000 }, async () => {
    const most = 4 * 1024 * 1024;
    // Whether the limit is met between two looks at the clock is a matter of luck.
    for (let round = 0; round < 4; round++) {
      const { wire, events, client } = await accept(newTransport("pump"));
      const fill = Buffer.alloc(64 * 1024, 1);
      // Just under the limit: the answers go over it while the connection is read by the clock.
      for (let size = fill.length; size >= 512; size /= 2) {
        while (wire.backlogBytes < most - size - 1_024) {
          wire.write(fill, 0, size);
          await new Promise((resolve) => setImmediate(resolve));
        }
      }
      assert.ok(wire.backlogBytes < most);
      let received = 0;
      events.onBytes = (bytes) => (received += bytes.length);
      const piece = Buffer.alloc(5_000, 2);
      const pieces = 1_000;
      for (let i = 0; i < pieces; i++) {
        client.raw.write(Buffer.concat([client.seal(DATA, piece), client.keyUpdates(i % 4 === 3 ? 1 : 0)]));
        await new Promise((resolve) => setImmediate(resolve));
      }
      await new Promise((resolve) => setTimeout(resolve, 100));
      assert.equal(events.closes, 0, String(events.error));
      assert.ok(received > 200_000, `${received} bytes arrived: not a long transfer yet`);
      assert.ok(wire.backlogBytes > most && wire.backlogBytes < most + 1_024, `${wire.backlogBytes - most} bytes above the limit`);
      assert.ok(received < pieces * piece.length, "it was read to its end");
      client.raw.resume();
      await until(() => received === pieces * piece.length || events.closes > 0, "the rest, once the answers are read");
      assert.equal(events.closes, 0, String(events.error));
      wire.destroy();
    }
  });
});
