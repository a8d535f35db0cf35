import assert from "node:assert/strict";
import { once } from "node:events";
import { connect, type Socket } from "node:net";
import { after, before, describe, test } from "node:test";
import { Worker } from "node:worker_threads";
import { LIMITS } from "../limits.ts";
import { buildNative } from "../native/build.ts";
import { bytesOf, closeAll, Events, listen, listenAdopting, newTransport, send, until, type WirePair, wirePairs } from "./rig.ts";
import type { Transport, Wire } from "./types.ts";

// What happens around the moment in which a batch is sent: in the ticks and microtasks that its handlers begin, to wires that are ended or
// destroyed in it, and when it is broken off. The page from which a batch leaves is used again at once by whatever comes next.

before(() => buildNative({ quiet: true }));
after(closeAll);
const workers: Worker[] = [];
after(() => Promise.all(workers.map((worker) => worker.terminate())));

const PEERS = 6;
/** No two have the same bytes at one place of the page. */
const text = (of: number, what: string): string => `${`<${of}${what}>`.repeat(50 + 13 * of)}\n`;

/** Bytes of all peers arrive while this thread looks elsewhere, so that the pump has them in one batch. */
async function ask(pairs: readonly WirePair[]): Promise<void> {
  for (const { peer } of pairs) peer.write("?");
  await new Promise((resolve) => setImmediate(resolve));
  const end = performance.now() + 20;
  while (performance.now() < end);
}

/** What each peer got. */
function collected(pairs: readonly WirePair[]): string[] {
  const got = pairs.map(() => "");
  for (const [index, { peer }] of pairs.entries()) peer.on("data", (chunk: Buffer) => (got[index] += chunk.toString("latin1")));
  return got;
}

function close(pairs: readonly WirePair[]): void {
  for (const { wire, peer } of pairs) {
    wire.destroy();
    peer.destroy();
  }
}

for (const kind of ["pump", "sockets"] as const) describe(`around a batch through ${kind}`, () => around(() => newTransport(kind)));

function around(open: () => Transport): void {
  test("what ticks and microtasks write leaves behind what their handler wrote", { timeout: 15_000 }, async () => {
    const transport = open();
    let recorded = 0;
    transport.beforeSend = () => (recorded += 1);
    const pairs = await wirePairs(transport, PEERS);
    const got = collected(pairs);
    const expected = pairs.map(() => "");
    const put = (index: number, what: string): void => {
      expected[index] += text(index, what);
      send(pairs[index]!.wire, text(index, what));
    };
    for (const [index, { events }] of pairs.entries()) {
      const next = (index + 1) % PEERS;
      events.onBytes = () => {
        put(index, "handler");
        process.nextTick(() => put(index, "tick"));
        queueMicrotask(() => put(index, "microtask"));
        process.nextTick(() => put(next, "another's tick"));
        void Promise.resolve().then(() => put(next, "another's microtask"));
      };
    }
    for (let round = 0; round < 5; round += 1) {
      await ask(pairs);
      await until(() => got.every((bytes, index) => bytes.length >= expected[index]!.length && bytes !== ""), "the answers");
      assert.deepEqual(got, expected);
    }
    assert.ok(recorded >= 5, `${recorded} batches on record`);
    close(pairs);
  });

  test("a tick that writes more than the page has room for, speaks last words, ends and destroys", { timeout: 15_000 }, async () => {
    const pairs = await wirePairs(open(), PEERS);
    const got = collected(pairs);
    const large = Buffer.alloc(600_000, "large;");
    const tick = [
      (wire: Wire) => wire.write(large, 0, large.length),
      (wire: Wire) => wire.lastWords(bytesOf("last words")),
      (wire: Wire) => wire.end(),
    ] as const;
    for (const [index, { wire, events }] of pairs.entries()) {
      events.onBytes = () => {
        send(wire, text(index, "handler"));
        if (index < 3) process.nextTick(() => tick[index]!(wire));
        else queueMicrotask(() => tick[index - 3]!(wire));
      };
    }
    const ends = pairs.map(({ peer }, index) => (index % 3 === 0 ? undefined : once(peer, "end")));
    await ask(pairs);
    const expected = pairs.map((_pair, index) => text(index, "handler") + [large.toString(), "last words", ""][index % 3]);
    await until(() => got.every((bytes, index) => bytes.length >= expected[index]!.length), "all bytes");
    await Promise.all(ends);
    for (const [index, bytes] of got.entries()) assert.ok(bytes === expected[index], `peer ${index}`);
    close(pairs);
  });

  test("a tick destroys a wire and adopts another: nobody gets its bytes, and none is sent twice", { timeout: 15_000 }, async () => {
    const transport = open();
    const pairs = await wirePairs(transport, PEERS);
    const got = collected(pairs);
    // Adopted within the batch's own ticks, so that it has the slot of the one destroyed.
    const adopted: Wire[] = [];
    const late: Socket[] = [];
    const waiting: (() => Wire)[] = [];
    const lazily = { adopt: (fd: number) => void waiting.push(() => transport.adopt(fd)) } as unknown as Transport;
    const port = await listenAdopting(lazily, () => {});
    for (let i = 0; i < PEERS; i += 1) late.push(connect(port, "127.0.0.1"));
    await until(() => waiting.length === PEERS, "connections that nobody has adopted yet");
    let heard = "";
    for (const socket of late) socket.on("data", (chunk: Buffer) => (heard += chunk.toString()));
    for (const [index, { wire, events }] of pairs.entries()) {
      events.onBytes = () => {
        send(wire, text(index, "handler"));
        const replace = (): void => {
          wire.destroy();
          const other = waiting[index]!();
          other.handler = new Events();
          adopted.push(other);
          send(other, `hello ${index};`);
        };
        if (index === 0) replace();
        else if (index % 2 === 0) process.nextTick(replace);
        else queueMicrotask(replace);
      };
    }
    await ask(pairs);
    const hellos = pairs.map((_pair, index) => `hello ${index};`);
    await until(() => heard.length >= hellos.join("").length, "what the new ones are told");
    await Promise.all(pairs.map(({ events }) => events.closed));
    assert.deepEqual(heard.match(/hello \d;/g)?.toSorted(), hellos);
    assert.equal(heard.length, hellos.join("").length);
    assert.equal(got[0], "", "destroyed by its handler before the batch was sent");
    for (const [index, bytes] of got.entries()) assert.ok(text(index, "handler").startsWith(bytes), `peer ${index}`);
    for (const wire of adopted) wire.destroy();
    close(pairs);
  });

  test("an end behind more than the kernel takes; the backlog's handler is told", { timeout: 15_000 }, async () => {
    const pairs = await wirePairs(open(), PEERS);
    const large = Buffer.alloc(LIMITS.backlogHighBytes + 8_000_000, "0123456789");
    for (const [index, { wire, events, peer }] of pairs.entries()) {
      peer.pause();
      events.onBytes = () => {
        wire.write(large, 0, large.length);
        send(wire, `${index}`);
        if (index % 2 === 0) wire.end();
        events.onDrained = () => wire.end();
      };
    }
    await ask(pairs);
    await until(() => pairs.every(({ wire }) => wire.backlogBytes > 0), "the backlogs");
    const sizes = pairs.map(() => 0);
    const ends = pairs.map(async ({ peer }, index) => {
      let last = 0;
      peer.on("data", (chunk: Buffer) => {
        sizes[index]! += chunk.length;
        last = chunk.at(-1)!;
      });
      await once(peer.resume(), "end");
      return last;
    });
    assert.deepEqual(
      await Promise.all(ends),
      [...pairs.keys()].map((index) => 48 + index),
    );
    assert.deepEqual(
      sizes,
      pairs.map(() => large.length + 1),
    );
    for (const [index, { events }] of pairs.entries()) assert.equal(events.drains, index % 2, `backlog of ${index}`);
    close(pairs);
  });

  test("a batch that is not recorded: nothing of it leaves, what others write in its ticks does", { timeout: 15_000 }, async () => {
    const transport = open();
    const pairs = await wirePairs(transport, PEERS);
    const got = collected(pairs);
    let fails = false;
    transport.beforeSend = () => {
      if (fails) throw new Error("disk full");
    };
    const [silent, ...rest] = pairs as [WirePair, ...WirePair[]];
    for (const [index, { wire, events }] of rest.entries()) {
      events.onBytes = () => {
        fails = true;
        send(wire, "not recorded");
        setImmediate(() => {
          fails = false;
          send(wire, "behind a gap");
          if (index === 0) send(silent.wire, "recorded");
        });
      };
    }
    await ask(rest);
    await until(() => got[0] === "recorded" && rest.every(({ events }) => events.unrecorded === 1), "the other's bytes");
    assert.deepEqual(
      got.slice(1),
      rest.map(() => ""),
    );
    close(pairs);
  });
}

/** A thread with a pump whose connections' handlers are `onData`; the peers are here. */
async function threadWith(onData: string): Promise<{ worker: Worker; peers: Socket[]; got: string[] }> {
  const peers: Socket[] = [];
  const got: string[] = [];
  const port = await listen((socket) => {
    const index = peers.push(socket.on("error", () => {})) - 1;
    got[index] = "";
    socket.on("data", (chunk: Buffer) => (got[index] += chunk.toString()));
  });
  const worker = new Worker(
    `import(${JSON.stringify(new URL("./pump.ts", import.meta.url).href)}).then(async ({ createPumpTransport }) => {
      const { parentPort } = require("node:worker_threads");
      const transport = createPumpTransport();
      let calls = 0;
      for (let i = 0; i < 3; i += 1) {
        const wire = await transport.connect({ host: "127.0.0.1", port: ${port} }, 5000);
        wire.handler = { onDrain() {}, onEnd() {}, onClose() {}, onUnrecorded() {}, onData() { ${onData} } };
      }
      parentPort.on("message", () => {
        parentPort.postMessage("looks elsewhere");
        Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, 100);
      });
      parentPort.postMessage("ready");
    });`,
    { eval: true },
  );
  workers.push(worker);
  await once(worker, "message");
  await until(() => peers.length === 3, "its connections");
  const elsewhere = once(worker, "message");
  worker.postMessage("look elsewhere");
  await elsewhere;
  for (const peer of peers) peer.write("?");
  return { worker, peers, got };
}

const WRITES = `calls += 1; wire.write(Buffer.from("due"), 0, 3);`;

test("a thread that ends while sends are due sends none of them and closes its connections", { timeout: 20_000 }, async () => {
  const ends = {
    "by itself": `if (calls === 2) process.exit(7);`,
    "from outside": `if (calls === 2) { parentPort.postMessage("end me"); Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0); }`,
  };
  for (const [how, ending] of Object.entries(ends)) {
    const { worker, peers, got } = await threadWith(WRITES + ending);
    const closes = peers.map((peer) => new Promise((resolve) => peer.once("close", resolve)));
    if (how === "from outside") {
      await once(worker, "message");
      await worker.terminate();
    } else {
      assert.deepEqual(await once(worker, "exit"), [7]);
    }
    for (const peer of peers) peer.end();
    await Promise.all(closes);
    assert.deepEqual(got, ["", "", ""], how);
  }
});

test("an exception that no wire can be blamed for: recorded bytes leave, whose event is lost ends, the thread learns of it once", {
  timeout: 20_000,
}, async () => {
  const { worker, peers, got } = await threadWith(`
    ${WRITES}
    transport.beforeSend = () => parentPort.postMessage("recorded");
    transport.onFault = () => { throw new Error("nobody's"); };
    if (calls === 1) process.on("uncaughtException", (error) => parentPort.postMessage(error.message));
    process.nextTick(() => parentPort.postMessage("tick"));
    if (calls === 2) throw new Error("a handler's");
  `);
  const told: string[] = [];
  worker.on("message", (message: string) => told.push(message));
  await until(() => told.includes("tick") && got.some((bytes) => bytes === "due"), "what was staged before it");
  const open = peers.filter(({ readableEnded, destroyed }) => !readableEnded && !destroyed);
  await until(() => told.filter((message) => message === "tick").length === 2, "both ticks");
  assert.deepEqual(got.toSorted(), ["", "", "due"]);
  assert.deepEqual(
    told.filter((message) => message !== "tick"),
    ["recorded", "nobody's"],
  );
  assert.equal(open.length, 1, "the one that was answered");
  assert.equal(await worker.terminate(), 1);
});
