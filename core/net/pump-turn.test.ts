import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { once } from "node:events";
import { readFile } from "node:fs/promises";
import { type AddressInfo, connect, createServer } from "node:net";
import { after, before, describe, test } from "node:test";
import { setImmediate as immediate, setTimeout as sleep } from "node:timers/promises";
import { MessageChannel, Worker } from "node:worker_threads";
import { closeAll, Events, newTransport } from "./rig.ts";
import type { Transport, Wire } from "./types.ts";

// The pump waits in libuv's place. Whatever else the event loop does must go on: beside endless traffic, beside none, and with more than one
// pump in a thread. The peer is a thread of its own, so that this one has nothing to do but what is tested.

const ECHO = `
  const { connect, createServer } = require("node:net");
  const { parentPort } = require("node:worker_threads");
  const server = createServer((socket) => socket.setNoDelay(true).on("error", () => {}).pipe(socket));
  server.listen(0, "127.0.0.1", () => parentPort.postMessage(server.address().port));
  parentPort.on("message", (port) => connect(port, "127.0.0.1").on("error", () => {}).end());
`;
const LATE_MILLIS = 5_000;
let echo: Worker;
let port: number;

before(async () => {
  echo = new Worker(ECHO, { eval: true });
  [port] = (await once(echo, "message")) as [number];
});
after(async () => {
  closeAll();
  await echo.terminate();
});

class PingPong extends Events {
  rounds = 0;
  on = true;
  wire: Wire | undefined;
  onRound: () => void = () => {};
  override onData(bytes: Uint8Array, start: number, end: number): void {
    this.rounds += 1;
    this.onRound();
    if (this.on) this.wire?.write(bytes, start, end);
  }
}

async function pingPong(transport: Transport): Promise<PingPong> {
  const wire = await transport.connect({ host: "127.0.0.1", port }, LATE_MILLIS);
  const events = new PingPong();
  events.wire = wire;
  wire.handler = events;
  wire.write(Buffer.from("ball"), 0, 4);
  return events;
}

async function inTime<T>(what: string, action: Promise<T>): Promise<T> {
  const late = new AbortController();
  const timeout = sleep(LATE_MILLIS, undefined, { signal: late.signal }).then(() => assert.fail(`${what}: not within ${LATE_MILLIS} ms`));
  timeout.catch(() => {});
  try {
    return await Promise.race([action, timeout]);
  } finally {
    late.abort();
  }
}

/** Listen from within a timer, without another reason for the event loop to turn, and have the other thread connect. */
const accepts = (): Promise<void> =>
  new Promise((resolve) => {
    setTimeout(() => {
      const server = createServer((socket) => {
        socket.destroy();
        server.close();
        resolve();
      }).listen(0, () => echo.postMessage((server.address() as AddressInfo).port));
    }, 20);
  });

/** Ask libuv and Node.js for one of everything that they wait for. */
async function everything(): Promise<void> {
  await inTime("a timer", sleep(30));
  await inTime("a descriptor that libuv has not polled yet", accepts());
  const socket = connect({ host: "127.0.0.1", port });
  socket.write("a socket of Node's");
  await inTime("a descriptor of libuv's", once(socket, "data"));
  socket.destroy();
  await inTime("a handle's end", once(socket, "close"));
  await inTime("an immediate", immediate());
  await inTime("the thread pool", readFile(new URL(import.meta.url)));
  const { port1, port2 } = new MessageChannel();
  port1.postMessage("hello");
  await inTime("a message port", once(port2, "message"));
  port1.close();
  const child = spawn("true", { stdio: ["ignore", "pipe", "ignore"] });
  await inTime("a child process", once(child, "exit"));
}

describe("the event loop beside one pump", () => {
  let events: PingPong;

  test("under traffic that never rests", async () => {
    events = await pingPong(newTransport("pump"));
    for (let round = 0; round < 3; round += 1) {
      const before = events.rounds;
      await everything();
      assert.ok(events.rounds > before + 10, `${events.rounds - before} rounds of traffic meanwhile`);
    }
  });

  test("what a handler begins", async () => {
    const done: string[] = [];
    const begin = (): void => {
      events.onRound = () => {};
      queueMicrotask(() => done.push("microtask"));
      process.nextTick(() => done.push("tick"));
      setImmediate(() => done.push("immediate"));
      setTimeout(() => done.push("timer"), 5);
      void readFile(new URL(import.meta.url)).then(() => done.push("file"));
      const socket = connect({ host: "127.0.0.1", port }, () => {
        done.push("socket");
        socket.destroy();
      });
    };
    events.onRound = begin;
    const until = Date.now() + LATE_MILLIS;
    while (done.length < 6 && Date.now() < until) await sleep(5);
    assert.deepEqual(done.toSorted(), ["file", "immediate", "microtask", "socket", "tick", "timer"]);
    assert.deepEqual(new Set(done.slice(0, 2)), new Set(["tick", "microtask"]), "before anything else of the loop");
  });

  test("without traffic", async () => {
    events.on = false;
    await sleep(50);
    const before = events.rounds;
    await everything();
    await everything();
    assert.equal(events.rounds, before);
    events.on = true;
    events.wire?.write(Buffer.from("ball"), 0, 4);
    await sleep(50);
    assert.ok(events.rounds > before + 10, "the traffic goes on");
  });

  test("it sleeps while nothing happens", async () => {
    events.on = false;
    await sleep(50);
    const { user, system } = process.cpuUsage();
    await sleep(1_000);
    const used = process.cpuUsage({ user, system });
    assert.ok(used.user + used.system < 200_000, `${used.user + used.system} µs of CPU in a second`);
  });
});

test("with more pumps in a thread all have traffic, and the event loop its turns", async () => {
  const all = [await pingPong(newTransport("pump")), await pingPong(newTransport("pump"))];
  for (let round = 0; round < 2; round += 1) {
    const before = all.map(({ rounds }) => rounds);
    await everything();
    for (const [index, events] of all.entries()) assert.ok(events.rounds > before[index]! + 10, `pump ${index}`);
  }
  for (const events of all) events.on = false;
  await sleep(50);
  await everything();
});

const WORKER = (body: string): Worker =>
  new Worker(
    `import(${JSON.stringify(new URL("./pump.ts", import.meta.url).href)}).then(async ({ createPumpTransport }) => {
      const { parentPort } = require("node:worker_threads");
      const transport = createPumpTransport();
      ${body}
      parentPort.postMessage("ready");
    });`,
    { eval: true },
  );

test("a thread without connections ends by itself", async () => {
  const worker = WORKER("");
  const [code] = (await inTime("its end", once(worker, "exit"))) as [number];
  assert.equal(code, 0);
});

test("a thread that waits, and one in the middle of traffic, can be ended", async () => {
  for (const rests of [true, false]) {
    const worker = WORKER(`
      const wire = await transport.connect({ host: "127.0.0.1", port: ${port} }, 5000);
      wire.handler = {
        onData: (bytes, start, end) => ${rests ? "{}" : "wire.write(bytes, start, end)"},
        onDrain() {}, onEnd() {}, onClose() {}, onUnrecorded() {},
      };
      wire.write(Buffer.from("ball"), 0, 4);
    `);
    await inTime("its start", once(worker, "message"));
    await sleep(100);
    const [code] = (await inTime(
      "its end",
      worker.terminate().then((code) => [code]),
    )) as number[];
    assert.equal(code, 1);
  }
});

test("messages of the main thread reach one that waits", async () => {
  const worker = WORKER(`
    const wire = await transport.connect({ host: "127.0.0.1", port: ${port} }, 5000);
    wire.handler = { onData() {}, onDrain() {}, onEnd() {}, onClose() {}, onUnrecorded() {} };
    parentPort.on("message", (text) => parentPort.postMessage(text));
  `);
  await inTime("its start", once(worker, "message"));
  for (let i = 0; i < 20; i += 1) {
    const answer = once(worker, "message");
    worker.postMessage(i);
    assert.deepEqual(await inTime("its answer", answer), [i]);
  }
  await worker.terminate();
});
