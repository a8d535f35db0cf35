import { fileURLToPath } from "node:url";
import { Piscina } from "piscina";
import { SluiceError } from "../core/errors.ts";
import { closeFd } from "../core/native/acceptor.ts";
import { allocateQuotas, forgetWorker } from "../core/quota/table.ts";
import { type ConnectionTask, type Order, type Report, type Snapshot, TARGET_SLOTS, WORKER_SLOTS, type WorkerData } from "./messages.ts";

/** Sessions of one worker at a time; far above what descriptors allow. */
const SESSIONS_PER_WORKER = 100_000;
/** V8's old space of one worker: beyond it the worker ends with its sessions, and is replaced. */
const WORKER_HEAP_MIB = 2_048;
/** V8 would let new objects spread over 130 MiB while thousands connect, and keep it; a session's memory was mostly that. */
const WORKER_YOUNG_MIB = 12;
const CLOSE_MILLIS = 5_000;
const READY_MILLIS = 30_000;

export interface PoolEvents {
  /** Tell all workers. */
  send(order: Order): void;
  report(message: Report): void;
  /** A connection that was placed is over, whatever became of it. */
  ended(offer: number): void;
  /**
   * A worker ended; its sessions are gone. The slot is free again once the returned promise has resolved.
   * @param expected it was told to
   */
  lost(slot: number, error: Error | undefined, expected: boolean): Promise<void>;
}

interface WorkerSet {
  readonly piscina: Piscina;
  readonly size: number;
  ready: number;
  /** Sessions placed and not over. */
  tasks: number;
  retired: boolean;
  readonly whenReady: Promise<void>;
}

/**
 * The worker pool: Piscina, one task per session, placed by least live sessions. Piscina's size is fixed, so another
 * worker count means another set of workers: new sessions go there, the old set ends with its last session.
 */
export class WorkerPool {
  readonly #channel: string;
  readonly #maskKey: Uint8Array;
  readonly #events: PoolEvents;
  readonly #descriptors: SharedArrayBuffer;
  readonly #slots = new SharedArrayBuffer(WORKER_SLOTS * 4);
  readonly #upstreams = new SharedArrayBuffer(WORKER_SLOTS * TARGET_SLOTS * 4);
  readonly #quotas = allocateQuotas(WORKER_SLOTS);
  readonly #offers: Int32Array;
  #offer = 0;
  readonly #threads = new Set<number>();
  readonly #sets = new Set<WorkerSet>();
  #current: WorkerSet;
  #lastError: Error | undefined;
  #closing = false;

  constructor(
    data: {
      readonly channel: string;
      readonly maskKey: Uint8Array;
      readonly snapshot: Snapshot;
      readonly size: number;
      readonly maxDescriptors: number;
    },
    events: PoolEvents,
  ) {
    this.#channel = data.channel;
    this.#maskKey = data.maskKey;
    this.#events = events;
    this.#descriptors = new SharedArrayBuffer((data.maxDescriptors + 1) * 4);
    this.#offers = new Int32Array(this.#descriptors);
    this.#current = this.#makeSet(data.size, data.snapshot);
  }

  /** Resolves when every worker of the present set has started. */
  get ready(): Promise<void> {
    return this.#current.whenReady;
  }

  #makeSet(size: number, snapshot: Snapshot): WorkerSet {
    let markReady = () => {};
    const whenReady = new Promise<void>((resolve) => {
      markReady = resolve;
    });
    const piscina = new Piscina({
      filename: fileURLToPath(new URL("./worker.ts", import.meta.url)),
      minThreads: size,
      maxThreads: size,
      concurrentTasksPerWorker: SESSIONS_PER_WORKER,
      maxQueue: SESSIONS_PER_WORKER,
      // A worker must never block its loop to wait for a task.
      atomics: "disabled",
      recordTiming: false,
      resourceLimits: { maxOldGenerationSizeMb: WORKER_HEAP_MIB, maxYoungGenerationSizeMb: WORKER_YOUNG_MIB },
      workerData: {
        channel: this.#channel,
        maskKey: this.#maskKey,
        snapshot,
        descriptors: this.#descriptors,
        slots: this.#slots,
        upstreams: this.#upstreams,
        quotas: this.#quotas,
      } satisfies WorkerData,
      loadBalancer: (_task, workers) => {
        let least = null;
        for (const worker of workers) {
          if (least === null || worker.currentUsage < least.currentUsage) least = worker;
        }
        return least;
      },
    });
    const set: WorkerSet = { piscina, size, ready: 0, tasks: 0, retired: false, whenReady };
    piscina.on("message", (message: Report) => {
      if (message.kind === "ready") {
        set.ready += 1;
        if (set.ready === size) markReady();
      }
      this.#events.report(message);
    });
    piscina.on("error", (error: Error) => this.#died(error));
    piscina.on("workerCreate", () => this.#watch(set));
    this.#sets.add(set);
    this.#watch(set);
    return set;
  }

  /**
   * Hand an accepted connection to a worker. The descriptor is closed here if no worker takes it.
   * @returns the offer's number, which `ended` will name later
   */
  place(fd: number, listener: number, isProxied: boolean): number {
    const set = this.#current;
    this.#offer = (this.#offer % 0x7fff_fff0) + 1;
    const task: ConnectionTask = { fd, listener, isProxied, offer: this.#offer };
    Atomics.store(this.#offers, fd, task.offer);
    set.tasks += 1;
    set.piscina.run(task).then(
      () => {
        set.tasks -= 1;
        this.#events.ended(task.offer);
        this.#endIfUnused(set);
      },
      (error: Error) => {
        set.tasks -= 1;
        // The worker died before it took the connection over; what it had taken over was closed with it.
        if (Atomics.compareExchange(this.#offers, task.fd, task.offer, 0) === task.offer) closeFd(task.fd);
        this.#events.ended(task.offer);
        this.#died(error);
        this.#endIfUnused(set);
      },
    );
    return task.offer;
  }

  /** Connections placed and not over, handshakes included. */
  get placed(): number {
    let placed = 0;
    for (const set of this.#sets) placed += set.tasks;
    return placed;
  }

  /**
   * Put another number of workers to work. Live sessions stay where they are.
   * @throws SluiceError SLUICE_INTERNAL when the new ones do not start; the old ones then go on
   */
  async resize(size: number, snapshot: Snapshot): Promise<void> {
    if (this.#current.size === size || this.#closing) return;
    const next = this.#makeSet(size, snapshot);
    let timer: NodeJS.Timeout | undefined;
    const late = new Promise<false>((resolve) => {
      timer = setTimeout(resolve, READY_MILLIS, false);
    });
    const isUp = await Promise.race([next.whenReady.then(() => true), late]);
    clearTimeout(timer);
    if (!isUp) {
      next.retired = true;
      this.#sets.delete(next);
      void next.piscina.destroy();
      throw new SluiceError("SLUICE_INTERNAL", `workers: ${size} workers could not be started; the log says why`);
    }
    const previous = this.#current;
    this.#current = next;
    previous.retired = true;
    this.#endIfUnused(previous);
  }

  #endIfUnused(set: WorkerSet): void {
    if (!set.retired || this.#closing || !this.#sets.has(set)) return;
    if (set.tasks > 0) return;
    this.#sets.delete(set);
    void this.#end(set);
  }

  /** Threads come and go with faults; learn of their ends, to free their slots. */
  #watch(set: WorkerSet): void {
    for (const worker of set.piscina.threads) {
      const thread = worker.threadId;
      if (thread < 1 || this.#threads.has(thread)) continue;
      this.#threads.add(thread);
      worker.once("exit", () => {
        this.#threads.delete(thread);
        // Of a set that is only being started, resize() tells the end.
        this.#free(thread, (this.#current !== undefined && set !== this.#current) || this.#closing);
      });
    }
  }

  #free(thread: number, expected: boolean): void {
    const slots = new Int32Array(this.#slots);
    for (let slot = 1; slot < WORKER_SLOTS; slot += 1) {
      if (Atomics.load(slots, slot) !== thread) continue;
      new Int32Array(this.#upstreams).fill(0, slot * TARGET_SLOTS, (slot + 1) * TARGET_SLOTS);
      forgetWorker(this.#quotas, slot);
      // The slot stays taken until what the worker left in its shard is put right.
      void this.#events.lost(slot, this.#lastError, expected).finally(() => Atomics.store(slots, slot, 0));
      return;
    }
    // It never got as far as taking a slot.
    if (!expected) void this.#events.lost(0, this.#lastError, false);
  }

  #died(error: Error): void {
    if (!this.#closing) this.#lastError = error;
  }

  /** End a set's threads after each has closed its store. */
  async #end(set: WorkerSet): Promise<void> {
    const threads = new Set(set.piscina.threads.map((worker) => worker.threadId));
    await new Promise<void>((resolve) => {
      const timer = setTimeout(resolve, CLOSE_MILLIS);
      set.piscina.on("message", (message: Report) => {
        if (message.kind === "stored") threads.delete(message.thread);
        if (threads.size > 0) return;
        clearTimeout(timer);
        resolve();
      });
      this.#events.send({ kind: "close", threads: [...threads] });
    });
    await set.piscina.destroy();
  }

  async close(): Promise<void> {
    this.#closing = true;
    await Promise.all([...this.#sets].map((set) => this.#end(set)));
  }
}
