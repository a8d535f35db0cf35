import { createHash } from "node:crypto";
import { performance } from "node:perf_hooks";
import { SluiceError } from "../errors.ts";

/**
 * Counters of limits in shared memory, so that what one identity uses in any worker counts in all of them.
 *
 *     header: lock | (unused) | origin of the clock: float64, milliseconds
 *     counters: COUNTERS × | key: 4 × int32 | lock | tick | used | milliseconds of a tick | units used in each of 17 ticks |
 *     holders: one int32 for each worker slot and counter: live sessions of that worker that hold the counter
 *
 * A window is counted in sixteenths of its length (ticks), the one that has begun and the sixteen before it: what is used stays
 * counted for one window at least and for a sixteenth more at most, so no stretch of time as long as the window ever sees more
 * than the limit. Taking is two atomic operations; only the move to the next tick, and finding a counter, take a lock. A lock's
 * value is the slot of the worker that holds it, so that the main thread can free what a worker leaves behind that died.
 */
const COUNTERS = 16_384;
const TICKS = 16;
const SLOTS = TICKS + 1;

const KEY_INTS = 4;
const LOCK = 4;
const TICK = 5;
const USED = 6;
const TICK_MILLIS = 7;
const FIRST_SLOT = 8;
const COUNTER_INTS = FIRST_SLOT + SLOTS;
const HEADER_INTS = 4;

/** Larger limits are counted in units of several, rounded up, so that a count fits 31 bits with room to spare. */
const MOST_UNITS = 2 ** 30;
const LOCK_MILLIS = 2_000;

/** Memory for createQuotas; about 1.7 MiB, and 64 KiB for each worker slot that is used. */
export function allocateQuotas(workerSlots: number): SharedArrayBuffer {
  const buffer = new SharedArrayBuffer(4 * (HEADER_INTS + COUNTERS * COUNTER_INTS + workerSlots * COUNTERS));
  new Float64Array(buffer, 8, 1)[0] = monotonicMillis();
  return buffer;
}

/** The same in every thread of a process, unlike performance.now(); never goes back, unlike Date.now(). */
const monotonicBase = offsetMillis();
const monotonicMillis = (): number => monotonicBase + performance.now();

/** What hrtime is ahead of this thread's performance.now(): both are read until nothing came between, as a thread may be stopped at any point. */
function offsetMillis(): number {
  let narrowest = Number.POSITIVE_INFINITY;
  let offset = 0;
  for (let attempt = 0; attempt < 1_000 && narrowest > 0.01; attempt += 1) {
    const before = performance.now();
    const now = Number(process.hrtime.bigint()) / 1e6;
    const width = performance.now() - before;
    if (width >= narrowest) continue;
    narrowest = width;
    offset = now - before;
  }
  return offset;
}

/** A worker thread has ended: free its locks, and what its sessions held. Main thread. */
export function forgetWorker(buffer: SharedArrayBuffer, slot: number): void {
  const ints = new Int32Array(buffer);
  const free = (at: number): void => {
    if (Atomics.compareExchange(ints, at, slot, 0) === slot) Atomics.notify(ints, at);
  };
  for (let counter = 0; counter < COUNTERS; counter += 1) free(HEADER_INTS + counter * COUNTER_INTS + LOCK);
  const holders = HEADER_INTS + COUNTERS * COUNTER_INTS + slot * COUNTERS;
  // Element by element: a fill would not be atomic, and others add these numbers up.
  for (let counter = 0; counter < COUNTERS; counter += 1) if (ints[holders + counter] !== 0) Atomics.store(ints, holders + counter, 0);
  free(0);
}

/** The table as one worker uses it. */
export class QuotaTable {
  readonly #ints: Int32Array;
  readonly #slot: number;
  readonly #workerSlots: number;
  readonly #originMillis: number;

  /** @param slot from 1; of this worker */
  constructor(buffer: SharedArrayBuffer, slot: number) {
    this.#ints = new Int32Array(buffer);
    this.#slot = slot;
    this.#workerSlots = (this.#ints.length - HEADER_INTS) / COUNTERS - COUNTER_INTS;
    this.#originMillis = new Float64Array(buffer, 8, 1)[0] ?? 0;
  }

  /** Milliseconds since the table was made; the same for all threads. */
  nowMillis(): number {
    return monotonicMillis() - this.#originMillis;
  }

  /**
   * Hold the counter of a key; it is made if there is none.
   * @param windowMillis up to 2^35; 0: it counts holders only
   * @param mostHolders refuse if so many live sessions hold it already
   * @returns `full`: as many hold it as may
   * @throws SluiceError SLUICE_QUOTA_SESSIONS when every counter is in use
   */
  hold(key: string, windowMillis: number, max: number, mostHolders: number): Quota | "full" {
    const tickMillis = Math.max(1, Math.ceil(windowMillis / TICKS));
    const unit = 2 ** Math.max(0, Math.ceil(Math.log2(max / MOST_UNITS)));
    const hash = new Int32Array(
      new Uint8Array(createHash("sha256").update(`${key}\n${windowMillis}\n${unit}`).digest()).buffer,
      0,
      KEY_INTS,
    );
    // 0 says that a place has never been taken.
    hash[0] = hash[0] === 0 ? 1 : hash[0]!;
    this.#lock(0);
    try {
      const at = this.#find(hash, tickMillis);
      if (this.holders(at) >= mostHolders) return "full";
      Atomics.add(this.#ints, this.#holderCell(at, this.#slot), 1);
      return new Quota(this, this.#ints, at, tickMillis, unit, Math.floor(max / unit), max);
    } finally {
      this.#unlock(0);
    }
  }

  /** How many live sessions hold the counter at this place. */
  holders(at: number): number {
    let holders = 0;
    for (let slot = 0; slot < this.#workerSlots; slot += 1) holders += Atomics.load(this.#ints, this.#holderCell(at, slot));
    return holders;
  }

  /** Only Quota calls this. */
  release(at: number): void {
    Atomics.sub(this.#ints, this.#holderCell(at, this.#slot), 1);
  }

  /** Empty the ticks that are past. */
  advance(at: number, tick: number): void {
    const ints = this.#ints;
    this.#lock(at + LOCK);
    try {
      const seen = Atomics.load(ints, at + TICK);
      const gone = Math.min(tick - seen, SLOTS);
      // Published last: nobody adds to a slot before it is empty.
      for (let index = 1; index <= gone; index += 1) {
        const units = Atomics.exchange(ints, at + FIRST_SLOT + ((tick - gone + index) % SLOTS), 0);
        if (units !== 0) Atomics.sub(ints, at + USED, units);
      }
      if (tick > seen) Atomics.store(ints, at + TICK, tick);
    } finally {
      this.#unlock(at + LOCK);
    }
  }

  #find(hash: Int32Array, tickMillis: number): number {
    const ints = this.#ints;
    const first = (hash[1]! >>> 0) % COUNTERS;
    let usable = -1;
    for (let probe = 0; probe < COUNTERS; probe += 1) {
      const at = HEADER_INTS + ((first + probe) % COUNTERS) * COUNTER_INTS;
      if (ints[at] === 0) {
        if (usable < 0) usable = at;
        break;
      }
      if (ints[at] === hash[0] && ints[at + 1] === hash[1] && ints[at + 2] === hash[2] && ints[at + 3] === hash[3]) return at;
      if (usable < 0 && this.#isIdle(at)) usable = at;
    }
    if (usable < 0) {
      throw new SluiceError("SLUICE_QUOTA_SESSIONS", `all ${COUNTERS} counters of limits are in use`, {
        hint: "They become free as windows end. Until then only identities that are being counted already get in.",
      });
    }
    for (let index = KEY_INTS; index < COUNTER_INTS; index += 1) Atomics.store(ints, usable + index, 0);
    Atomics.store(ints, usable + TICK, Math.floor(this.nowMillis() / tickMillis));
    Atomics.store(ints, usable + TICK_MILLIS, tickMillis);
    for (let index = KEY_INTS - 1; index >= 0; index -= 1) Atomics.store(ints, usable + index, hash[index]!);
    return usable;
  }

  /** Nobody holds it and its window is over. */
  #isIdle(at: number): boolean {
    const ints = this.#ints;
    const tick = Math.floor(this.nowMillis() / Atomics.load(ints, at + TICK_MILLIS));
    const isOver = Atomics.load(ints, at + USED) === 0 || tick - Atomics.load(ints, at + TICK) >= SLOTS;
    return isOver && this.holders(at) === 0;
  }

  #holderCell(at: number, slot: number): number {
    return HEADER_INTS + COUNTERS * COUNTER_INTS + slot * COUNTERS + (at - HEADER_INTS) / COUNTER_INTS;
  }

  /** Held for microseconds at most, or until the main thread frees it for a worker that died. */
  #lock(at: number): void {
    const ints = this.#ints;
    const deadline = performance.now() + LOCK_MILLIS;
    for (;;) {
      const holder = Atomics.compareExchange(ints, at, 0, this.#slot);
      if (holder === 0) return;
      if (performance.now() > deadline) throw new SluiceError("SLUICE_INTERNAL", "the table of limits is locked");
      Atomics.wait(ints, at, holder, 1);
    }
  }

  #unlock(at: number): void {
    Atomics.store(this.#ints, at, 0);
    Atomics.notify(this.#ints, at);
  }
}

/** A session's hold on one counter. */
export class Quota {
  readonly max: number;
  readonly #table: QuotaTable;
  readonly #ints: Int32Array;
  readonly #at: number;
  readonly #tickMillis: number;
  readonly #unit: number;
  readonly #maxUnits: number;
  /** What is left of units that were taken whole. */
  #credit = 0;
  #held = true;

  constructor(table: QuotaTable, ints: Int32Array, at: number, tickMillis: number, unit: number, maxUnits: number, max: number) {
    this.#table = table;
    this.#ints = ints;
    this.#at = at;
    this.#tickMillis = tickMillis;
    this.#unit = unit;
    this.#maxUnits = maxUnits;
    this.max = max;
  }

  /**
   * Take `amount`, all of it or nothing.
   * @param nowMillis of the table
   * @param force also beyond the limit
   */
  take(amount: number, nowMillis: number, force = false): boolean {
    let units = amount;
    if (this.#unit > 1) {
      units = Math.max(0, Math.ceil((amount - this.#credit) / this.#unit));
    }
    if (!this.#takeUnits(units, nowMillis, force)) return false;
    if (this.#unit > 1) this.#credit += units * this.#unit - amount;
    return true;
  }

  #takeUnits(units: number, nowMillis: number, force: boolean): boolean {
    const ints = this.#ints;
    const at = this.#at;
    const tick = Math.floor(nowMillis / this.#tickMillis);
    if (Atomics.load(ints, at + TICK) < tick) this.#table.advance(at, tick);
    if (units === 0) return true;
    for (;;) {
      const used = Atomics.load(ints, at + USED);
      const after = used + units;
      if (after > this.#maxUnits && !force) return false;
      // Beyond the limit only what is forced is counted, and not without bound.
      if (after > 2 * MOST_UNITS - 1) return true;
      if (Atomics.compareExchange(ints, at + USED, used, after) === used) break;
    }
    Atomics.add(ints, at + FIRST_SLOT + (Atomics.load(ints, at + TICK) % SLOTS), units);
    return true;
  }

  /** Units rounded up to whole ones are not kept from one operation to the next: the window they were taken in may end. */
  settle(): void {
    this.#credit = 0;
  }

  used(nowMillis: number): number {
    this.#takeUnits(0, nowMillis, false);
    return Atomics.load(this.#ints, this.#at + USED) * this.#unit;
  }

  isExhausted(nowMillis: number): boolean {
    this.#takeUnits(0, nowMillis, false);
    return Atomics.load(this.#ints, this.#at + USED) >= this.#maxUnits;
  }

  /** Milliseconds until the oldest of what is counted no longer is, so that something is free again; 0: nothing is counted. */
  freesInMillis(nowMillis: number): number {
    const ints = this.#ints;
    const tick = Atomics.load(ints, this.#at + TICK);
    for (let age = TICKS; age >= 0; age -= 1) {
      if (Atomics.load(ints, this.#at + FIRST_SLOT + ((tick - age + SLOTS) % SLOTS)) === 0) continue;
      return Math.max(0, (tick - age + SLOTS) * this.#tickMillis - nowMillis);
    }
    return 0;
  }

  holders(): number {
    return this.#table.holders(this.#at);
  }

  release(): void {
    if (!this.#held) return;
    this.#held = false;
    this.#table.release(this.#at);
  }
}
