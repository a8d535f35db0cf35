import { SluiceError } from "../core/errors.ts";
import { LIMITS } from "../core/limits.ts";
import { TARGET_SLOTS, WORKER_SLOTS } from "./messages.ts";

/**
 * Counts upstream connections of all workers per target in shared memory, and makes those that come above
 * `connections.max` wait in a bounded queue. Each worker writes only its own row, so that the row of a worker that died
 * can be cleared by the main thread.
 */
export class UpstreamSlots {
  readonly #table: Int32Array;
  readonly #row: number;
  /** Connections of this worker that wait, by target slot. */
  readonly #waiting = new Map<number, number>();

  constructor(buffer: SharedArrayBuffer, workerSlot: number) {
    this.#table = new Int32Array(buffer);
    this.#row = workerSlot * TARGET_SLOTS;
  }

  /**
   * Take a place, waiting for one at most LIMITS.dialQueueMillis.
   * @returns gives the place back; idempotent
   * @throws SluiceError SLUICE_TARGET_BUSY
   */
  async acquire(target: string, slot: number, max: number): Promise<() => void> {
    if (!this.#take(slot, max)) {
      const queued = this.#waiting.get(slot) ?? 0;
      if (queued >= LIMITS.dialQueue) throw busy(target, max, "and the queue for it is full");
      this.#waiting.set(slot, queued + 1);
      try {
        const deadline = Date.now() + LIMITS.dialQueueMillis;
        while (!this.#take(slot, max)) {
          const left = deadline - Date.now();
          if (left <= 0) throw busy(target, max, `and none became free within ${LIMITS.dialQueueMillis / 1000} s`);
          await this.#released(slot, left);
        }
      } finally {
        this.#waiting.set(slot, (this.#waiting.get(slot) ?? 1) - 1);
      }
    }
    let held = true;
    return () => {
      if (!held) return;
      held = false;
      Atomics.sub(this.#table, this.#row + slot, 1);
      // Row 0 belongs to no worker: its elements count releases, for those who wait.
      Atomics.add(this.#table, slot, 1);
      Atomics.notify(this.#table, slot);
    };
  }

  /** Two workers that take the last place at once both see too many and both step back; one of them gets it on its next try. */
  #take(slot: number, max: number): boolean {
    Atomics.add(this.#table, this.#row + slot, 1);
    let total = 0;
    for (let worker = 1; worker < WORKER_SLOTS; worker += 1) total += Atomics.load(this.#table, worker * TARGET_SLOTS + slot);
    if (total <= max) return true;
    Atomics.sub(this.#table, this.#row + slot, 1);
    return false;
  }

  async #released(slot: number, leftMillis: number): Promise<void> {
    const seen = Atomics.load(this.#table, slot);
    // Looked at again every 100 ms at the latest: the row of a worker that died is cleared without a notification.
    const wait = Atomics.waitAsync(this.#table, slot, seen, Math.min(leftMillis, 100));
    if (wait.async) await wait.value;
  }
}

const busy = (target: string, max: number, why: string) =>
  new SluiceError("SLUICE_TARGET_BUSY", `target "${target}" has all of its ${max} connections in use, ${why}`, {
    hint: "connections.max of the target.",
  });
