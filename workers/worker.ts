import { BroadcastChannel, threadId } from "node:worker_threads";
import { workerData } from "piscina";
import { SluiceError } from "../core/errors.ts";
import { createTransport } from "../core/net/transport.ts";
import type { Wire } from "../core/net/types.ts";
import { QuotaTable } from "../core/quota/table.ts";
import { createClassifier } from "../protocols/postgres/sql/classify.ts";
import { openRecorder } from "../store/recorder.ts";
import { serve } from "./connection.ts";
import { type ConnectionTask, type Order, WORKER_SLOTS, type WorkerData } from "./messages.ts";
import { log, Room, report } from "./room.ts";
import { UpstreamSlots } from "./upstream-slots.ts";

/**
 * Entry of a worker thread. Everything that sessions share is made once, here; then each accepted connection is one call
 * of the default export (a Piscina task), which resolves when the session is over.
 */
const STATS_MILLIS = 1_000;

const data = workerData as WorkerData;
const descriptors = new Int32Array(data.descriptors);
const slot = claimSlot(new Int32Array(data.slots));
const orders = new BroadcastChannel(data.channel);
const early: Order[] = [];
/** Connections that came through a proxy, by offer. */
const proxied = new Map<number, Wire>();
let room: Room | undefined;
orders.onmessage = (event) => {
  const order = (event as unknown as { readonly data: Order }).data;
  if (order.kind === "close") {
    if (order.threads.includes(threadId)) void close();
  } else if (order.kind === "refuse") {
    for (const offer of order.offers) proxied.get(offer)?.destroy();
  } else if (room === undefined) early.push(order);
  else obey(room, order);
};
let start: () => void = () => {};
const started = new Promise<void>((resolve) => {
  start = resolve;
});
const ready = makeRoom();

function obey(here: Room, order: Order): void {
  if (order.kind !== "start") here.obey(order);
  else if (order.thread === threadId) {
    here.adopt(order.snapshot);
    start();
  }
}

/** A slot of its own: the shard it records to, its row among the upstream counts, its share of the process ids. */
function claimSlot(slots: Int32Array): number {
  for (let index = 1; index < WORKER_SLOTS; index += 1) {
    if (Atomics.compareExchange(slots, index, 0, threadId) === 0) return index;
  }
  throw new SluiceError("SLUICE_INTERNAL", "no free worker slot");
}

async function makeRoom(): Promise<Room> {
  const classifier = await createClassifier();
  const transport = createTransport();
  const recorder = openRecorder(data.snapshot.config.data, slot, { onError: (error) => log("error", `recorder: ${error.message}`, {}) });
  transport.beforeSend = () => recorder.commit();
  transport.onFault = (error) => room?.fault("transport", error);
  const made = new Room({
    slot,
    transport,
    recorder,
    classifier,
    quotas: new QuotaTable(data.quotas, slot),
    upstreamSlots: new UpstreamSlots(data.upstreams, slot),
    snapshot: data.snapshot,
    maskKey: Buffer.from(data.maskKey),
  });
  room = made;
  for (const order of early.splice(0)) obey(made, order);
  setInterval(() => made.sendStats(), STATS_MILLIS).unref();
  // A worker that replaces another was started with its set's first snapshot; the main thread answers with the present one.
  report({ kind: "ready", slot, thread: threadId });
  return made;
}

/** Close everything that outlives a session, and say so. */
async function close(): Promise<void> {
  const here = await ready;
  here.sendStats();
  await here.endAll();
  await Promise.allSettled([here.classifier.close(), here.authenticator.close()]);
  await here.recorder.close();
  report({ kind: "stored", thread: threadId });
}

export default async function run(task: ConnectionTask): Promise<void> {
  const here = room ?? (await ready);
  await started;
  // Lost: the main thread gave this worker up and closed the descriptor; its number may already be another connection's.
  if (Atomics.compareExchange(descriptors, task.fd, task.offer, -task.offer) !== task.offer) return;
  const wire = here.transport.adopt(task.fd);
  const listener = here.listener(task.listener);
  if (!task.isProxied) return serve(wire, listener, here);
  const { offer } = task;
  proxied.set(offer, wire);
  try {
    await serve(wire, listener, here, (address) => report({ kind: "client", offer, address }));
  } finally {
    proxied.delete(offer);
  }
}
