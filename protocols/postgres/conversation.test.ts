import assert from "node:assert/strict";
import { once } from "node:events";
import { type AddressInfo, createServer, type Server, type Socket } from "node:net";
import { after, test } from "node:test";
import { createSocketTransport } from "../../core/net/sockets.ts";
import { Conversation, type ConversationOptions } from "./conversation.ts";

const transport = createSocketTransport();
const servers: Server[] = [];
after(() => {
  transport.close();
  for (const server of servers) server.close();
});

/** A conversation and the socket that is its peer. */
async function pair(options: Partial<ConversationOptions> = {}): Promise<{ conversation: Conversation; peer: Socket }> {
  const server = createServer({ allowHalfOpen: true });
  servers.push(server);
  await once(server.listen(0, "127.0.0.1"), "listening");
  const accepted = once(server, "connection");
  const wire = await transport.connect({ host: "127.0.0.1", port: (server.address() as AddressInfo).port }, 1_000);
  const conversation = new Conversation(wire, { deadlineMillis: 5_000, ...options });
  const [peer] = (await accepted) as [Socket];
  peer.on("error", () => {});
  return { conversation, peer };
}

const message = (type: string, body: string): Buffer => {
  const bytes = Buffer.from(`${type}____${body}`);
  bytes.writeInt32BE(bytes.length - 1, 1);
  return bytes;
};
const violation = { code: "SLUICE_PROTOCOL_VIOLATION" };

test("a prologue is read as its reader says, and what follows stays", { timeout: 20_000 }, async () => {
  const seen: number[] = [];
  const read = (bytes: Uint8Array) => {
    seen.push(bytes.length);
    if (bytes[0] !== undefined && bytes[0] !== 0x2a) throw new Error("no star");
    return bytes.length < 3 ? undefined : { bytes: 3, last: bytes[2] };
  };
  const { conversation, peer } = await pair();
  peer.write("**");
  setTimeout(() => peer.write("+Q"), 50);
  assert.deepEqual(await conversation.prologue(read), { bytes: 3, last: 0x2b });
  assert.equal(await conversation.byte(), 0x51);
  assert.deepEqual(seen, [0, 2, 4]);

  const other = await pair();
  other.peer.write("x");
  await assert.rejects(other.conversation.prologue(read), /no star/);
  const late = await pair({ deadlineMillis: 50 });
  late.peer.write("*");
  await assert.rejects(late.conversation.prologue(read), { code: "SLUICE_DEADLINE" });
  const closed = await pair();
  closed.peer.end("**");
  await assert.rejects(closed.conversation.prologue(read), violation);
});

test("messages are whole, however the bytes are cut", { timeout: 20_000 }, async () => {
  const startup = Buffer.concat([Buffer.from([0, 0, 0, 12, 0, 3, 0, 0]), Buffer.from("abcd")]);
  const stream = Buffer.concat([startup, message("p", "secret"), message("Q", ""), message("X", "y".repeat(5_000))]);
  for (const size of [1, 7, 64, stream.length]) {
    const { conversation, peer } = await pair();
    peer.setNoDelay(true);
    void (async () => {
      for (let at = 0; at < stream.length; at += size) {
        peer.write(stream.subarray(at, at + size));
        if (size < 64 && at < 100) await new Promise((resolve) => setImmediate(resolve));
      }
    })();
    assert.equal(await conversation.firstByte(), 0);
    assert.equal(Buffer.from(await conversation.startupPacket()).toString("latin1"), "\0\x03\0\0abcd");
    assert.deepEqual(await conversation.message(), { type: 0x70, body: Uint8Array.from(Buffer.from("secret")) });
    assert.equal((await conversation.message()).body.length, 0);
    assert.equal((await conversation.message()).body.length, 5_000);
    conversation.wire.destroy();
  }
});

test("startup packets with impossible lengths, messages beyond the limit", { timeout: 20_000 }, async () => {
  for (const length of [-1, 0, 7, 10_001, 0x7fff_ffff, -0x8000_0000]) {
    const { conversation, peer } = await pair();
    const bytes = Buffer.alloc(8);
    bytes.writeInt32BE(length);
    peer.write(bytes);
    await assert.rejects(conversation.startupPacket(), violation);
    await assert.rejects(conversation.message(), violation, "nothing is read after a violation");
    conversation.wire.destroy();
  }
  for (const length of [-1, 3, 1_001]) {
    const { conversation, peer } = await pair({ maxMessageBytes: 1_000 });
    const bytes = Buffer.from("Q____");
    bytes.writeInt32BE(length, 1);
    peer.write(bytes);
    await assert.rejects(conversation.message(), violation);
    conversation.wire.destroy();
  }
});

test("the deadline rejects what waits and what is asked afterwards, and does not count late bytes", { timeout: 5_000 }, async () => {
  const { conversation, peer } = await pair({ deadlineMillis: 50 });
  peer.write("Q");
  await assert.rejects(conversation.message(), { code: "SLUICE_DEADLINE" });
  peer.write(message("Q", ""));
  await new Promise((resolve) => setTimeout(resolve, 20));
  await assert.rejects(conversation.message(), { code: "SLUICE_DEADLINE" });
  assert.throws(() => conversation.release(), { code: "SLUICE_DEADLINE" });
  conversation.wire.destroy();
});

test("a message that arrived in time and is asked for too late is not read", { timeout: 5_000 }, async () => {
  const { conversation, peer } = await pair({ deadlineMillis: 50 });
  peer.write(message("Q", ""));
  await new Promise((resolve) => setTimeout(resolve, 80));
  await assert.rejects(conversation.message(), { code: "SLUICE_DEADLINE" });
  conversation.wire.destroy();
});

test("a closed connection rejects, after what arrived was read", { timeout: 5_000 }, async () => {
  const { conversation, peer } = await pair();
  peer.end(message("Q", "last"));
  await new Promise((resolve) => setTimeout(resolve, 30));
  assert.equal((await conversation.message()).body.length, 4);
  await assert.rejects(conversation.message(), violation);
  conversation.wire.destroy();
});

test("a peer that sends before it is asked is paused, and loses nothing", { timeout: 10_000 }, async () => {
  const { conversation, peer } = await pair({ maxMessageBytes: 10_000 });
  const total = 2_000;
  for (let i = 0; i < total; i++) peer.write(message("d", String(i).padStart(9_000, "0")));
  await new Promise((resolve) => setTimeout(resolve, 100));
  assert.ok(conversation.bufferedBytes <= 10_000 + 64 * 1024 * 2, `${conversation.bufferedBytes} bytes kept`);
  for (let i = 0; i < total; i++) assert.equal(Number(Buffer.from((await conversation.message()).body).toString()), i);
  conversation.wire.destroy();
});

test("release hands over what was not read; then the wire is the caller's", { timeout: 5_000 }, async () => {
  const { conversation, peer } = await pair();
  peer.write(Buffer.concat([message("Q", "a"), Buffer.from("rest")]));
  await conversation.message();
  assert.equal(Buffer.from(conversation.release()).toString(), "rest");
  const got = new Promise((resolve) => {
    conversation.wire.handler = {
      onData: (bytes, start, end) => resolve(Buffer.from(bytes.subarray(start, end)).toString()),
      onDrain: () => {},
      onEnd: () => {},
      onClose: () => {},
      onUnrecorded: () => {},
    };
  });
  peer.write("more");
  assert.equal(await got, "more");
  conversation.wire.destroy();
});

test("bytes before the TLS handshake are fatal, whoever is the server", { timeout: 5_000 }, async () => {
  const server = { cert: "", key: "", alpn: [], requireAlpn: false };
  const client = { ca: undefined, serverName: "x", verify: false, alpn: [] };
  for (const start of [(c: Conversation) => c.acceptTls(server, false), (c: Conversation) => c.startTls(client)]) {
    const { conversation, peer } = await pair();
    peer.write("Sinjected");
    assert.equal(await conversation.byte(), 0x53);
    await assert.rejects(start(conversation), /before the TLS handshake/);
    conversation.wire.destroy();
  }
});

test("a TLS handshake that stalls ends at the deadline", { timeout: 5_000 }, async () => {
  const { conversation, peer } = await pair({ deadlineMillis: 100 });
  const ended = once(peer.resume(), "end");
  await assert.rejects(conversation.startTls({ ca: undefined, serverName: "x", verify: false, alpn: [] }), { code: "SLUICE_DEADLINE" });
  await ended;
});
