import assert from "node:assert/strict";
import { execFile } from "node:child_process";
import { once } from "node:events";
import { readdirSync } from "node:fs";
import { connect, type Socket } from "node:net";
import { after, before, describe, test } from "node:test";
import { connect as connectTls } from "node:tls";
import { promisify } from "node:util";
import { Worker } from "node:worker_threads";
import { makeCertificate } from "../../test/helpers/certificates.ts";
import { LIMITS } from "../limits.ts";
import { buildNative } from "../native/build.ts";
import { bytesOf, closeAll, Events, listen, listenAdopting, newTransport, relay, send, until, wirePairs } from "./rig.ts";
import { transportName } from "./transport.ts";

const run = promisify(execFile);
const turn = (): Promise<void> => new Promise((resolve) => setImmediate(resolve));
/** A module of this project, quoted for a program that is made here. */
const here = (path: string): string => JSON.stringify(new URL(path, import.meta.url).href);
const rest = (millis: number): Promise<void> => new Promise((resolve) => setTimeout(resolve, millis));

before(() => buildNative({ quiet: true }));
after(closeAll);

/** Let bytes of all peers arrive while this thread looks elsewhere, so that they make one batch. */
async function inOneBatch(write: () => void): Promise<void> {
  write();
  await turn();
  const end = performance.now() + 20;
  while (performance.now() < end);
}

describe("pump", () => {
  test("a peer that writes single bytes is relayed in order", { timeout: 10_000 }, async () => {
    const transport = newTransport("pump");
    const echo = await listen((socket) => {
      socket.setNoDelay(true);
      socket.on("data", (chunk: Buffer) => {
        for (let i = 0; i < chunk.length; i++) socket.write(chunk.subarray(i, i + 1));
      });
    });
    const client = connect(await relay(transport, echo), "127.0.0.1");
    client.setNoDelay(true);
    const got: Buffer[] = [];
    client.on("data", (chunk: Buffer) => got.push(chunk));
    const sent = Buffer.from(Array.from({ length: 1_500 }, (_, i) => (i * 7) & 255));
    for (let i = 0; i < sent.length; i++) {
      client.write(sent.subarray(i, i + 1));
      if (i % 100 === 0) await rest(1);
    }
    await until(() => Buffer.concat(got).length === sent.length, "the echo");
    assert.ok(Buffer.concat(got).equals(sent));
    client.destroy();
  });

  test("many small writes to different wires by turns: each peer gets its own, in order", { timeout: 10_000 }, async () => {
    const transport = newTransport("pump");
    const pairs = await wirePairs(transport, 3);
    const got = pairs.map(() => "");
    pairs.forEach(({ peer }, k) => peer.on("data", (chunk: Buffer) => (got[k] += chunk.toString())));
    const expected = pairs.map(() => "");
    // More runs than the table of one call holds, and more parts than one system call takes.
    for (let i = 0; i < 12_000; i++) {
      const k = i % 3;
      const text = `${i};`;
      expected[k] += text;
      send(pairs[k]!.wire, text);
    }
    await until(() => got.every((text, k) => text.length === expected[k]!.length), "all bytes");
    assert.deepEqual(got, expected);
    for (const { wire } of pairs) wire.destroy();
  });

  test("a client that never reads holds a bounded backlog, and other sessions go on", { timeout: 15_000 }, async () => {
    const transport = newTransport("pump");
    let flooded = 0;
    const flood = Buffer.alloc(64 * 1024, 1);
    const source = await listen((socket) => {
      socket.on("error", () => {});
      const pour = (): void => {
        while (socket.writable && socket.write(flood)) flooded += flood.length;
      };
      socket.on("drain", pour).once("data", pour);
    });
    const port = await relay(transport, source);
    const deaf = connect(port, "127.0.0.1");
    deaf.on("error", () => {}).pause();
    deaf.write("go");
    const lively = connect(await relay(transport, await listen((socket) => socket.pipe(socket))), "127.0.0.1");
    const before = process.memoryUsage().rss;
    for (let i = 0; i < 50; i++) {
      lively.write(`ping ${i}`);
      assert.equal(String((await once(lively, "data"))[0]), `ping ${i}`);
    }
    await until(() => flooded > 0, "the flood");
    const stopped = async (): Promise<boolean> => {
      const at = flooded;
      await rest(100);
      return flooded === at;
    };
    while (!(await stopped())) assert.ok(flooded < 64 * 1024 * 1024, `${flooded} bytes were taken from the source`);
    assert.ok(process.memoryUsage().rss - before < 64 * 1024 * 1024);
    deaf.destroy();
    lively.destroy();
  });

  test("wires paused within a batch get what was already read after resume(), then their end", { timeout: 10_000 }, async () => {
    const transport = newTransport("pump");
    const pairs = await wirePairs(transport, 2);
    // Whichever comes first pauses the other.
    const order: number[] = [];
    pairs.forEach(({ events }, k) => {
      events.onBytes = () => {
        order.push(k);
        if (order.length === 1) pairs[1 - k]!.wire.pause();
      };
    });
    await inOneBatch(() => {
      for (const { peer } of pairs) peer.end("first");
    });
    await until(() => order.length === 1, "the first");
    await rest(30);
    assert.equal(order.length, 1, "a paused wire was told of bytes");
    const other = pairs[1 - order[0]!]!;
    assert.equal(other.events.ends, 0);
    other.wire.resume();
    await until(() => other.events.ends === 1, "the end");
    assert.equal(other.events.text, "first");
    for (const { wire } of pairs) wire.destroy();
  });

  test("an event of a slot's earlier owner does not reach its next one", { timeout: 10_000 }, async () => {
    const transport = newTransport("pump");
    const pairs = await wirePairs(transport, 2);
    const late = new Events();
    const waiting: Socket[] = [];
    const port = await listen((socket) => waiting.push(socket), { pauseOnConnect: true });
    const third = connect(port, "127.0.0.1");
    await until(() => waiting.length === 1, "a connection in reserve");
    let calls = 0;
    pairs.forEach(({ events }, k) => {
      events.onBytes = () => {
        calls += 1;
        pairs[1 - k]!.wire.destroy();
        transport.adopt((waiting[0] as unknown as { _handle: { fd: number } })._handle.fd).handler = late;
      };
    });
    await inOneBatch(() => {
      for (const { peer } of pairs) peer.write("x");
    });
    await until(() => calls === 1, "the first");
    await rest(20);
    assert.equal(calls, 1);
    assert.equal(late.text, "");
    third.write("y");
    await until(() => late.text === "y", "its own bytes");
    third.destroy();
  });

  test("a connection whose peer has reset it before it is adopted closes, and adopting it does not fail", { timeout: 10_000 }, async () => {
    const transport = newTransport("pump");
    const waiting: Socket[] = [];
    const port = await listen((socket) => waiting.push(socket), { pauseOnConnect: true });
    const peer = connect(port, "127.0.0.1").on("error", () => {});
    await until(() => waiting.length === 1, "the connection");
    peer.resetAndDestroy();
    await rest(50);
    const wire = transport.adopt((waiting[0] as unknown as { _handle: { fd: number } })._handle.fd);
    const events = new Events();
    wire.handler = events;
    assert.equal(wire.remoteAddress, "");
    assert.equal(wire.isLoopback, false);
    await until(() => events.closes === 1, "its close");
  });

  test("paused wires whose peers reset cost no time, and learn of it on resume()", { timeout: 10_000 }, async () => {
    const transport = newTransport("pump");
    const pairs = await wirePairs(transport, 10);
    for (const { wire, peer } of pairs) {
      wire.pause();
      peer.write("unread");
    }
    await rest(20);
    for (const { peer } of pairs) peer.resetAndDestroy();
    await rest(20);
    const began = process.cpuUsage();
    await rest(300);
    const { user, system } = process.cpuUsage(began);
    assert.ok((user + system) / 1_000 < 100, `${(user + system) / 1_000} ms of processor time in 300 ms of waiting`);
    for (const { wire, events } of pairs) {
      assert.equal(events.closes, 0);
      wire.resume();
    }
    await until(() => pairs.every(({ events }) => events.closes === 1), "every wire closed");
    assert.match(String(pairs[0]!.events.error), /ECONNRESET/);
  });

  test("resets amid traffic both ways: each wire closes once, the others' bytes are whole", { timeout: 15_000 }, async () => {
    const transport = newTransport("pump");
    const pairs = await wirePairs(transport, 20);
    const chunk = Buffer.alloc(30_000, 5);
    let good = 0;
    pairs.forEach(({ wire, events, peer }, k) => {
      events.onBytes = (bytes) => wire.write(bytes, 0, bytes.length);
      peer.on("data", (part: Buffer) => {
        if (k % 2 === 0) good += part.length;
        else peer.resetAndDestroy();
      });
      for (let i = 0; i < 10; i++) peer.write(chunk);
    });
    await until(() => good === 10 * 10 * chunk.length, "the whole echo of the others");
    await until(() => pairs.every(({ events }, k) => events.closes === k % 2), "the reset ones closed");
    for (const { wire } of pairs) wire.destroy();
    await until(() => pairs.every(({ events }) => events.closes === 1), "all closed");
  });

  test("500 connections echo at once", { timeout: 20_000 }, async () => {
    const transport = newTransport("pump");
    const port = await listenAdopting(transport, (wire) => {
      const events = new Events();
      events.onBytes = (bytes) => wire.write(bytes, 0, bytes.length);
      events.onEnded = () => wire.end();
      wire.handler = events;
    });
    await Promise.all(
      Array.from({ length: 500 }, async (_, k) => {
        const client = connect(port, "127.0.0.1");
        let got = "";
        client.on("data", (part: Buffer) => (got += part.toString()));
        for (let i = 0; i < 10; i++) {
          client.write(`${k}/${i};`);
          await until(() => got.endsWith(`${k}/${i};`), "the echo", 15_000);
        }
        client.end();
        await once(client, "close");
        assert.equal(got, Array.from({ length: 10 }, (_, i) => `${k}/${i};`).join(""));
      }),
    );
  });

  test("at the descriptor limit connect says so, and works again afterwards", { timeout: 20_000 }, async () => {
    const program = `
      import { closeSync, openSync } from "node:fs";
      import { createServer } from "node:net";
      import { createPumpTransport } from ${here("./pump.ts")};
      const transport = createPumpTransport();
      const server = createServer((socket) => socket.resume()).listen(0, "127.0.0.1", async () => {
        const address = { host: "127.0.0.1", port: server.address().port };
        const fds = [];
        const fill = () => { try { for (;;) fds.push(openSync("/dev/null")); } catch (error) { return error.code; } };
        fill();
        // What Node.js itself still has open from its start it closes now.
        await new Promise((resolve) => setTimeout(resolve, 100));
        console.log(fill());
        await transport.connect(address, 1000).then(() => console.log("connected"), (error) => console.log(error.code, error.message));
        for (const fd of fds) closeSync(fd);
        const wire = await transport.connect(address, 1000);
        console.log(wire.isLoopback);
        process.exit();
      });`;
    const argv = ["-c", 'ulimit -n 64; exec "$@"', "sh", process.execPath, "--input-type=module-typescript", "-e", program];
    const { stdout } = await run("sh", argv, { timeout: 15_000 });
    assert.match(stdout, /^EMFILE\nSLUICE_TARGET_UNREACHABLE cannot connect to 127\.0\.0\.1:\d+: EMFILE\ntrue\n$/);
  });

  test("a worker that is terminated under load closes its connections and leaves the process alone", { timeout: 20_000 }, async () => {
    const program = `
      import { parentPort, workerData } from "node:worker_threads";
      import { accept, listen } from ${here("../native/acceptor.ts")};
      import { createPumpTransport } from ${here("./pump.ts")};
      const transport = createPumpTransport();
      let count = 0;
      const { fd, port } = listen("127.0.0.1", 0);
      accept(fd, (fds) => {
        for (const accepted of fds) {
          const wire = transport.adopt(accepted);
          if (++count % 2 === 0) wire.acceptTls({ ...workerData, alpn: [], requireAlpn: false }).catch(() => {});
          wire.handler = {
            onData: (bytes, start, end) => wire.write(bytes, start, end),
            onDrain() {}, onEnd() {}, onClose() {}, onUnrecorded() {},
          };
        }
      });
      parentPort.postMessage(port);`;
    const openFds = (): number => readdirSync("/proc/self/fd").length;
    const certificate = makeCertificate("DNS:localhost");
    let before = 0;
    for (let round = 0; round < 3; round++) {
      const worker = new Worker(new URL(`data:text/javascript,${encodeURIComponent(program)}`), { workerData: certificate });
      const [port] = (await once(worker, "message")) as [number];
      let echoed = 0;
      let closed = 0;
      const clients: Socket[] = [];
      for (let i = 0; i < 20; i++) {
        const raw = connect(port, "127.0.0.1");
        await once(raw, "connect");
        raw.on("error", () => {});
        // Every second connection has TLS on the worker's side.
        const client = i % 2 === 0 ? raw : connectTls({ socket: raw, ca: certificate.cert, servername: "localhost" });
        const chunk = Buffer.alloc(10_000);
        client.on("error", () => {}).once("close", () => (closed += 1));
        client.on("data", (part: Buffer) => {
          echoed += part.length;
          client.write(chunk);
        });
        client.write(chunk);
        clients.push(client);
      }
      await until(() => echoed > 5_000_000, "traffic");
      await worker.terminate();
      await until(() => closed === clients.length, "every client sees its connection close");
      // The first round opens what stays open: the thread pool's and the loader's descriptors.
      if (round === 0) before = openFds();
    }
    await until(() => openFds() <= before, "no descriptor is left over");
  });

  test("SLUICE_TRANSPORT decides", () => {
    assert.equal(transportName("sockets"), "sockets");
    assert.equal(transportName("pump"), "pump");
    assert.equal(transportName(""), "pump");
    assert.throws(() => transportName("carrier-pigeon"), { code: "SLUICE_CONFIG_INVALID" });
  });

  test("a long backlog leaves in order after the peer reads again", { timeout: 15_000 }, async () => {
    const transport = newTransport("pump");
    const [pair] = await wirePairs(transport, 1);
    const { wire, events, peer } = pair!;
    peer.pause();
    const parts: Buffer[] = [];
    for (let i = 0; wire.backlogBytes < 8 * LIMITS.backlogHighBytes; i++) {
      const part = Buffer.alloc(1 + ((i * 977) % 40_000), i & 255);
      parts.push(part);
      wire.write(part, 0, part.length);
      if (i % 5 === 0) await turn();
    }
    wire.write(bytesOf("end"), 0, 3);
    wire.end();
    const got: Buffer[] = [];
    peer.on("data", (chunk: Buffer) => got.push(chunk));
    peer.resume();
    await once(peer, "end");
    assert.ok(Buffer.concat(got).equals(Buffer.concat([...parts, bytesOf("end")])));
    peer.end();
    await events.closed;
    assert.equal(events.error, undefined);
  });
});
