import assert from "node:assert/strict";
import { once } from "node:events";
import { existsSync, readdirSync, readFileSync } from "node:fs";
import { type AddressInfo, createServer, type Server, type Socket } from "node:net";
import { after, before, test } from "node:test";
import { setTimeout as sleep } from "node:timers/promises";
import { Worker } from "node:worker_threads";
import { buildNative } from "./build.ts";
import { NativePump, RUN_WORDS, SLOT, SLOT_WORDS } from "./pump.ts";

before(() => buildNative({ quiet: true }));

let server: Server | undefined;
const sockets: Socket[] = [];
let closeSlot = (): void => {};
after(() => {
  closeSlot();
  for (const socket of sockets) socket.destroy();
  server?.close();
});

test("what lies outside the shared memory, or belongs to no connection, is refused before a byte leaves", { timeout: 10_000 }, async () => {
  const received: Buffer[] = [];
  server = createServer((socket) => {
    sockets.push(socket);
    socket.on("data", (chunk: Buffer) => received.push(chunk));
  }).listen(0, "127.0.0.1");
  await once(server, "listening");
  const pump = new NativePump(1_024, () => {});
  const slot = pump.connectTcp("127.0.0.1", (server.address() as AddressInfo).port);
  await once(server, "connection");
  closeSlot = () => pump.close(slot);
  const page = Buffer.from(pump.page.buffer);
  page.fill("other connections' bytes;");
  const all = pump.page.length;
  const INT_MAX = 0x7fff_ffff;
  for (const [of, start, end] of [
    [slot, -1, 10],
    [slot, 0, all + 1],
    [slot, all, all + 1],
    [slot, 10, 9],
    [slot, -INT_MAX - 1, INT_MAX],
    [slot, INT_MAX, INT_MAX],
    [slot + 1, 0, 1],
    [-1, 0, 1],
    [INT_MAX, 0, 1],
    [-INT_MAX - 1, 0, 1],
  ] as const) {
    pump.runs.set([of, start, end]);
    assert.throws(() => pump.send(1), { code: "ERR_INVALID_ARG_TYPE" }, `${of} ${start} ${end}`);
  }
  for (const count of [-1, pump.runs.length / RUN_WORDS + 1, INT_MAX]) {
    assert.throws(() => pump.send(count), { code: "ERR_INVALID_ARG_TYPE" }, `${count} runs`);
  }
  for (const other of [-1, slot + 1, INT_MAX]) {
    assert.throws(() => pump.sendNow(other, Buffer.from("x")), { code: "ERR_INVALID_ARG_TYPE" });
    for (const call of [pump.close, pump.finish, pump.rearm, pump.release, pump.peer, pump.tlsState, pump.certificate]) {
      assert.throws(() => call.call(pump, other), { code: "ERR_INVALID_ARG_TYPE" }, `${call.name} of ${other}`);
    }
  }
  await sleep(20);
  assert.equal(Buffer.concat(received).toString(), "");
  // The page's very end, and nothing, are within.
  pump.runs.set([slot, all - 3, all, slot, all, all]);
  assert.equal(pump.send(2), 0);
  await once(sockets[0]!, "data");
  assert.equal(Buffer.concat(received).toString(), page.toString("utf8", all - 3));
  // After two thousand million owners a slot's generations start again.
  pump.slots[slot * SLOT_WORDS + SLOT.generation] = INT_MAX;
  closeSlot();
  closeSlot = () => {};
  assert.equal(pump.slots[slot * SLOT_WORDS + SLOT.generation], 0);
  assert.throws(() => pump.close(slot), { code: "ERR_INVALID_ARG_TYPE" }, "closed twice");
});

/** The scheduler's slices of this process's threads, in nanoseconds. */
const slices = (): readonly number[] =>
  readdirSync("/proc/self/task").map((thread) =>
    Number(/^se\.slice +: +(\d+)$/m.exec(readFileSync(`/proc/self/task/${thread}/sched`, "utf8"))?.[1]),
  );

test("the thread of a pump has a short slice, and no other thread", { timeout: 20_000 }, async (context) => {
  if (!existsSync("/proc/self/sched") || !/^se\.slice /m.test(readFileSync("/proc/self/sched", "utf8"))) {
    return context.skip("the kernel does not tell a thread's slice in /proc/<pid>/sched: Linux 6.12 with CONFIG_SCHED_DEBUG is needed");
  }
  const short = (): number => slices().filter((nanos) => nanos === 100_000).length;
  const before = short();
  const worker = new Worker(
    `const { parentPort, workerData } = require("node:worker_threads");
    import(workerData).then(({ NativePump }) => {
      globalThis.pump = new NativePump(1_024, () => {});
      parentPort.postMessage("open");
      parentPort.on("message", () => {});
    });`,
    { eval: true, workerData: new URL("./pump.ts", import.meta.url).href },
  );
  await once(worker, "message");
  assert.equal(short(), before + 1);
  await worker.terminate();
  assert.equal(short(), before);
});
