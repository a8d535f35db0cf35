import assert from "node:assert/strict";
import { once } from "node:events";
import { mkdtempSync, rmSync } from "node:fs";
import type { AddressInfo, Socket } from "node:net";
import { connect, createServer } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, describe, test } from "node:test";
import { LIMITS } from "../limits.ts";
import { buildNative } from "../native/build.ts";
import {
  bytesOf,
  closeAll,
  Events,
  type Kind,
  listen,
  listenAdopting,
  listenPouring,
  newTransport,
  relay,
  send,
  servers,
  until,
} from "./rig.ts";
import type { Wire } from "./types.ts";

before(() => buildNative({ quiet: true }));
after(closeAll);

for (const kind of ["sockets", "pump"] as const) describe(`transport over ${kind}`, () => plaintext(kind));

function plaintext(kind: Kind): void {
  test("relays through two wires, byte by byte and in bulk, and keeps half-close", { timeout: 20_000 }, async () => {
    const transport = newTransport(kind);
    const echo = await listen((socket) => socket.pipe(socket));
    const client = connect({ port: await relay(transport, echo), host: "127.0.0.1", allowHalfOpen: true });
    const got: Buffer[] = [];
    client.on("data", (chunk: Buffer) => got.push(chunk));
    const sent: Buffer[] = [];
    for (let i = 0; i < 300; i++) {
      const byte = Buffer.from([i & 255]);
      sent.push(byte);
      client.write(byte);
      if (i % 50 === 0) await new Promise((resolve) => setTimeout(resolve, 2));
    }
    const bulk = Buffer.alloc(3_000_000, "0123456789abcdef-");
    sent.push(bulk);
    client.end(bulk);
    await once(client, "end");
    assert.ok(Buffer.concat(got).equals(Buffer.concat(sent)));
  });

  test("a peer that never reads stops the opposite side; memory stays bounded, and onDrain starts it again", {
    timeout: 20_000,
  }, async () => {
    const transport = newTransport(kind);
    let sink: Socket | undefined;
    const port = await listen((socket) => {
      sink = socket;
      socket.pause();
    });
    const wire = await transport.connect({ host: "127.0.0.1", port }, 1_000);
    const events = new Events();
    wire.handler = events;
    const chunk = Buffer.alloc(64 * 1024, 7);
    let written = 0;
    let most = 0;
    const fill = (): void => {
      while (wire.backlogBytes < LIMITS.backlogHighBytes && written < 64 * 1024 * 1024) {
        wire.write(chunk, 0, chunk.length);
        written += chunk.length;
        most = Math.max(most, wire.backlogBytes);
      }
    };
    fill();
    await new Promise((resolve) => setTimeout(resolve, 50));
    for (let i = 0; i < 200; i++) {
      fill();
      await new Promise((resolve) => setImmediate(resolve));
    }
    assert.ok(written < 32 * 1024 * 1024, `wrote ${written} bytes to a peer that does not read`);
    assert.ok(most <= LIMITS.backlogHighBytes + chunk.length);
    const before = written;
    let read = 0;
    events.onDrained = fill;
    sink!.on("data", (part: Buffer) => {
      read += part.length;
      assert.equal(part[0], 7);
    });
    sink!.resume();
    await until(() => written > before + 8 * 1024 * 1024 && read > 8 * 1024 * 1024, "the wire drains");
    assert.ok(events.drains > 0);
    wire.destroy();
    await events.closed;
  });

  test("bulk through a relay with backpressure does not stall", { timeout: 20_000 }, async () => {
    const transport = newTransport(kind);
    const total = 128 * 1024 * 1024;
    const client = connect(await relay(transport, await listenPouring(total)), "127.0.0.1");
    let got = 0;
    client.on("data", (chunk: Buffer) => (got += chunk.length));
    await once(client, "end");
    assert.equal(got, total);
  });

  test("small writes to a blocked peer arrive unchanged although the page is used again", { timeout: 20_000 }, async () => {
    const transport = newTransport(kind);
    let sink: Socket | undefined;
    const port = await listen((socket) => {
      sink = socket;
      socket.pause();
    });
    const wire = await transport.connect({ host: "127.0.0.1", port }, 1_000);
    const other = await transport.connect({ host: "127.0.0.1", port: await listen((socket) => socket.resume()) }, 1_000);
    wire.handler = new Events();
    other.handler = new Events();
    const expected: Buffer[] = [];
    const noise = Buffer.alloc(50_000, 0xee);
    for (let i = 0; i < 400; i++) {
      const part = Buffer.alloc(20_000, i & 127);
      expected.push(part);
      wire.write(part, 0, part.length);
      other.write(noise, 0, noise.length);
      wire.write(part, 0, 10);
      expected.push(part.subarray(0, 10));
      await new Promise((resolve) => setImmediate(resolve));
    }
    const got: Buffer[] = [];
    sink!.on("data", (chunk: Buffer) => got.push(chunk));
    wire.end();
    sink!.resume();
    await once(sink!, "end");
    assert.ok(Buffer.concat(got).equals(Buffer.concat(expected)));
  });

  test("a slow reader of small writes holds their bytes, not a page for each", { timeout: 20_000 }, async () => {
    const transport = newTransport(kind);
    const port = await listen((socket) => socket.pause());
    const wire = await transport.connect({ host: "127.0.0.1", port }, 1_000);
    wire.handler = new Events();
    const chunk = Buffer.alloc(64 * 1024);
    while (wire.backlogBytes < LIMITS.backlogLowBytes) {
      wire.write(chunk, 0, chunk.length);
      await new Promise((resolve) => setImmediate(resolve));
    }
    const before = process.memoryUsage().arrayBuffers;
    for (let i = 0; i < 1_000; i++) {
      wire.write(chunk, 0, 10);
      await new Promise((resolve) => setImmediate(resolve));
    }
    const grown = process.memoryUsage().arrayBuffers - before;
    assert.ok(grown < 20 * 1024 * 1024, `${grown} bytes held for 10,000`);
    wire.destroy();
  });

  test("last words on a paused wire: it still notices that the peer has gone", { timeout: 10_000 }, async () => {
    const transport = newTransport(kind);
    const events = new Events();
    let wire: Wire | undefined;
    const port = await listenAdopting(transport, (adopted) => {
      wire = adopted;
      wire.handler = events;
      wire.pause();
    });
    const client = connect(port, "127.0.0.1");
    client.write("unread");
    await until(() => wire !== undefined, "the connection");
    const began = Date.now();
    wire!.lastWords(bytesOf("goodbye"));
    assert.equal(String((await once(client, "data"))[0]), "goodbye");
    await events.closed;
    assert.ok(Date.now() - began < 500, "closed by the peer's end, not by the linger");
    assert.equal(events.text, "");
  });

  test("what is staged leaves only after beforeSend, once a batch; one write is larger than the page", { timeout: 20_000 }, async () => {
    const transport = newTransport(kind);
    let batches = 0;
    transport.beforeSend = () => {
      batches += 1;
    };
    let got = 0;
    const port = await listen((socket) => socket.on("data", (chunk: Buffer) => (got += chunk.length)));
    const wire = await transport.connect({ host: "127.0.0.1", port }, 1_000);
    wire.handler = new Events();
    for (let i = 0; i < 10; i++) send(wire, "abc");
    assert.equal(batches, 0);
    await until(() => got === 30, "the batch arrives");
    assert.equal(batches, 1);
    const large = Buffer.alloc(1_000_000, 1);
    wire.write(large, 0, large.length);
    await until(() => got === 1_000_030, "the large write arrives");
    assert.ok(batches >= 4);
    wire.destroy();
  });

  test("a range outside the bytes throws, and no other connection's bytes leave", { timeout: 10_000 }, async () => {
    const transport = newTransport(kind);
    const faults: unknown[] = [];
    transport.onFault = (error) => faults.push(error);
    const got: string[] = ["", ""];
    const wires: Wire[] = [];
    for (const k of [0, 1]) {
      const port = await listen((socket) => socket.on("data", (chunk: Buffer) => (got[k] += chunk.toString())));
      wires.push(await transport.connect({ host: "127.0.0.1", port }, 1_000));
      wires[k]!.handler = new Events();
    }
    // What a batch before this one left in the memory that the next one uses.
    send(wires[1]!, "secret;".repeat(1_000));
    await until(() => got[1]!.length === 7_000, "the other connection's bytes");
    const bytes = bytesOf("abc");
    for (const [start, end] of [
      [0, 4],
      [-1, 3],
      [-7_000, 0],
      [0, 7_000],
      [3, 2 ** 31],
      [3, 2 ** 53],
      [-(2 ** 53), 3],
    ] as const) {
      send(wires[1]!, "more;");
      assert.throws(() => wires[0]!.write(bytes, start, end), RangeError, `${start} ${end}`);
    }
    for (const [start, end] of [
      [2, 1],
      [3, 3],
      [0, 0],
      [0, Number.NaN],
      [Number.NaN, 3],
    ] as const) {
      wires[0]!.write(bytes, start, end);
    }
    await until(() => got[1]!.length === 7_000 + 7 * 5, "the rest of them");
    wires[0]!.write(bytes, 0, 3);
    await until(() => got[0] !== "", "what is within");
    assert.equal(got[0], "abc");
    assert.deepEqual(faults, []);
    for (const wire of wires) wire.destroy();
  });

  test("a peer that takes single bytes gets them all, in order", { timeout: 20_000 }, async () => {
    const transport = newTransport(kind);
    let wire: Wire | undefined;
    const port = await listenAdopting(transport, (adopted) => {
      wire = adopted;
      adopted.handler = new Events();
    });
    const got: number[] = [];
    const callback = (count: number, buffer: Uint8Array): boolean => got.push(...buffer.subarray(0, count)) > 0;
    const client = connect({ port, host: "127.0.0.1", onread: { buffer: Buffer.alloc(1), callback } });
    await until(() => wire !== undefined, "the connection");
    const sent = Buffer.from(Array.from({ length: 30_000 }, (_, i) => (i * 7) & 255));
    for (let i = 0; i < sent.length; i += 300) {
      wire!.write(sent, i, i + 300);
      if (i % 3_000 === 0) await new Promise((resolve) => setImmediate(resolve));
    }
    await until(() => got.length === sent.length, "all of them", 15_000);
    assert.ok(Buffer.from(got).equals(sent));
    client.destroy();
  });

  test("a failing beforeSend sends nothing, tells each wire once and shuts it, other batches go on", { timeout: 10_000 }, async () => {
    const transport = newTransport(kind);
    const got: string[] = [];
    const port = await listen((socket) => socket.on("data", (chunk: Buffer) => got.push(chunk.toString())));
    const wires = await Promise.all([1, 2, 3].map(() => transport.connect({ host: "127.0.0.1", port }, 1_000)));
    const events = wires.map((wire) => (wire.handler = new Events()));
    let fails = true;
    transport.beforeSend = () => {
      if (fails) throw new Error("disk full");
    };
    send(wires[0]!, "secret-0");
    send(wires[1]!, "secret-1");
    send(wires[0]!, "more-0");
    await until(() => events[0]!.unrecorded === 1 && events[1]!.unrecorded === 1, "onUnrecorded");
    assert.equal(events[2]!.unrecorded, 0);
    fails = false;
    send(wires[0]!, "after the gap");
    send(wires[2]!, "fine");
    wires[1]!.lastWords(bytesOf("fatal: not recorded"));
    await until(() => got.length === 2, "the other batch and the last words");
    await new Promise((resolve) => setTimeout(resolve, 20));
    assert.deepEqual(got.sort(), ["fatal: not recorded", "fine"]);
    assert.equal(events[0]!.unrecorded, 1);
  });

  test("an exception in a handler ends its wire only", { timeout: 10_000 }, async () => {
    const transport = newTransport(kind);
    const faults: unknown[] = [];
    transport.onFault = (error) => faults.push(error);
    const port = await listen((socket) => socket.pipe(socket));
    const [bad, good] = await Promise.all([1, 2].map(() => transport.connect({ host: "127.0.0.1", port }, 1_000)));
    const badEvents = new Events();
    const goodEvents = new Events();
    badEvents.onBytes = () => {
      throw new Error("a defect");
    };
    bad!.handler = badEvents;
    good!.handler = goodEvents;
    send(bad!, "x");
    send(good!, "y");
    await badEvents.closed;
    await until(() => goodEvents.text === "y", "the other wire's echo");
    assert.equal(faults.length, 1);
    assert.equal(badEvents.error?.message, "a defect");
    assert.equal(goodEvents.closes, 0);
    good!.destroy();
    await goodEvents.closed;
    assert.equal(goodEvents.error, undefined);
  });

  test("a reset closes once, with its error; destroy twice is one close", { timeout: 10_000 }, async () => {
    const transport = newTransport(kind);
    const events = new Events();
    const port = await listenAdopting(transport, (wire) => {
      wire.handler = events;
    });
    const client = connect(port, "127.0.0.1");
    await once(client, "connect");
    client.write("hello");
    await until(() => events.text === "hello", "the first bytes");
    client.resetAndDestroy();
    await events.closed;
    assert.match(String(events.error), /ECONNRESET/);
    const second = new Events();
    const wire = await transport.connect({ host: "127.0.0.1", port: await listen((socket) => socket.resume()) }, 1_000);
    wire.handler = second;
    wire.destroy();
    wire.destroy();
    send(wire, "into the void");
    wire.end();
    wire.lastWords(bytesOf("x"));
    await second.closed;
    await new Promise((resolve) => setImmediate(resolve));
    assert.equal(events.closes, 1);
    assert.equal(second.closes, 1);
  });

  test("last words arrive although the peer keeps sending, and the wire closes within its linger", { timeout: 10_000 }, async () => {
    const transport = newTransport(kind);
    const events = new Events();
    const port = await listenAdopting(transport, (wire) => {
      wire.handler = events;
      events.onBytes = () => {
        send(wire, "answer;");
        wire.lastWords(bytesOf("goodbye"));
      };
    });
    const client = connect({ port, host: "127.0.0.1", allowHalfOpen: true });
    let got = "";
    client.on("data", (chunk: Buffer) => (got += chunk.toString())).on("error", () => {});
    client.write("x");
    await once(client, "data");
    const chatter = setInterval(() => client.write("y"), 5);
    await until(() => got === "answer;goodbye", "the last words");
    const before = Date.now();
    await events.closed;
    assert.ok(Date.now() - before < 2_000);
    clearInterval(chatter);
    client.destroy();
    assert.equal(events.text, "x");
  });

  test("addresses, refused connections, deadlines and Unix sockets", { timeout: 10_000 }, async () => {
    const transport = newTransport(kind);
    const folder = mkdtempSync(join(tmpdir(), "sluice-net-"));
    const path = join(folder, "s");
    const server = createServer((socket) => socket.pipe(socket));
    servers.push(server);
    await once(server.listen(path), "listening");
    const local = await transport.connect({ path }, 1_000);
    const events = new Events();
    local.handler = events;
    assert.equal(local.remoteAddress, "");
    assert.equal(local.isLoopback, true);
    send(local, "hi");
    await until(() => events.text === "hi", "echo over the Unix socket");
    local.destroy();
    await assert.rejects(transport.connect({ path: join(folder, "none") }, 1_000), { code: "SLUICE_TARGET_UNREACHABLE" });
    rmSync(folder, { recursive: true });

    const port = await listen((socket) => socket.resume());
    const wire = await transport.connect({ host: "localhost", port }, 1_000);
    assert.equal(wire.remoteAddress, `127.0.0.1:${port}`);
    assert.equal(wire.isLoopback, true);
    assert.equal(wire.encrypted, false);
    wire.destroy();
    const closing = createServer();
    await once(closing.listen(0, "127.0.0.1"), "listening");
    const free = (closing.address() as AddressInfo).port;
    await new Promise((resolve) => closing.close(resolve));
    await assert.rejects(transport.connect({ host: "127.0.0.1", port: free }, 1_000), { code: "SLUICE_TARGET_UNREACHABLE" });
  });

  test("thousands of wires close, each once", { timeout: 30_000 }, async () => {
    const transport = newTransport(kind);
    const all: Events[] = [];
    const port = await listenAdopting(transport, (wire) => {
      const events = new Events();
      events.onBytes = () => send(wire, "ok");
      events.onEnded = () => wire.end();
      wire.handler = events;
      all.push(events);
    });
    const total = 2_000;
    for (let i = 0; i < total; i += 200) {
      await Promise.all(
        Array.from({ length: 200 }, async (_, k) => {
          const client = connect(port, "127.0.0.1");
          client.on("error", () => {});
          client.write("x");
          await once(client, "data");
          if (k % 3 === 0) client.resetAndDestroy();
          else client.end();
        }),
      );
    }
    await until(() => all.length === total && all.every((events) => events.closes === 1), "every wire closed once", 10_000);
  });
}
