import fs from "node:fs";
import type { Database } from "lmdb";
import { SluiceError } from "../core/errors.ts";
import { describe } from "./folder.ts";

const PROBE_MILLIS = 1_000;

/** A write to the disk: `put` begins it and says how it went. A failed one is begun again. */
export interface Job {
  readonly put: (done: (error: unknown) => void) => void;
  readonly bytes: number;
  readonly written: () => void;
}

/**
 * Writes to LMDB and to the frames segments in the background, with bounded bytes in flight; LMDB's in order. What fails is kept
 * and tried again every second. Free space is checked before every write: LMDB must never meet a full disk, its binding can
 * corrupt the heap there.
 */
export class Keeper {
  private readonly folder: string;
  private readonly minFreeBytes: number;
  private readonly onError: (error: Error) => void;
  private readonly onSettled: () => void;
  private waiting: Job[] = [];
  private outstanding = 0;
  private idle: (() => void)[] = [];
  private timer: NodeJS.Timeout | undefined;
  private closed = false;
  private checkedMillis = Number.NEGATIVE_INFINITY;
  /** Bytes handed over and not yet written, failed ones included; frames count in FrameWriter.waitingBytes. */
  inFlightBytes = 0;
  failure: SluiceError | undefined;

  constructor(folder: string, minFreeBytes: number, onError: (error: Error) => void, onSettled: () => void) {
    this.folder = folder;
    this.minFreeBytes = minFreeBytes;
    this.onError = onError;
    this.onSettled = onSettled;
    this.hasRoom();
  }

  /** Queue one write. `value` must not change until `written` is called. */
  put<V, K extends string | number | [number, number]>(
    database: Database<V, K>,
    key: K,
    value: V,
    bytes: number,
    written: () => void = nothing,
  ): void {
    const put = (done: (error: unknown) => void): void => {
      // The callback form makes no promise; the declared types know only the promise form.
      const native = database as unknown as { put(key: K, value: V, done: (error: unknown) => void): void };
      native.put(key, value, done);
    };
    this.submit({ put, bytes, written });
  }

  /** Queue one write of any kind. */
  submit(job: Job): void {
    if (this.closed) return;
    this.inFlightBytes += job.bytes;
    if (this.waiting.length > 0 || !this.hasRoom()) this.waiting.push(job);
    else this.run(job);
  }

  /** @returns whether there is room for more, by a look at the disk that is at most 5 ms old; `failure` says what is wrong */
  hasRoom(): boolean {
    if (this.failure !== undefined) return false;
    // Asked once in 5 ms: what can be in flight by then is far less than what must be free.
    const now = performance.now();
    if (now - this.checkedMillis < 5) return true;
    this.checkedMillis = now;
    const trouble = this.spaceTrouble();
    if (trouble !== undefined) this.fail(trouble);
    return trouble === undefined;
  }

  /** Resolves when nothing is outstanding, or rejects while failing. */
  async settled(): Promise<void> {
    while (this.outstanding > 0) await new Promise<void>((resolve) => this.idle.push(resolve));
    if (this.failure !== undefined) throw this.failure;
  }

  /** Try what failed at once instead of in a second: for the end, where there is no later. Rejects when it fails again. */
  async retried(): Promise<void> {
    clearTimeout(this.timer);
    this.probe();
    await this.settled();
  }

  close(): void {
    this.closed = true;
    clearTimeout(this.timer);
  }

  private run(job: Job): void {
    this.outstanding += 1;
    job.put((error) => {
      this.outstanding -= 1;
      if (error === null || error === undefined) {
        this.inFlightBytes -= job.bytes;
        job.written();
        this.onSettled();
      } else {
        // lmdb attaches a promise with the cause; unobserved it would end the thread.
        if (error instanceof Error && "commitError" in error && error.commitError instanceof Promise) error.commitError.catch(nothing);
        this.waiting.push(job);
        this.fail(describe(error));
      }
      if (this.outstanding === 0) for (const resolve of this.idle.splice(0)) resolve();
    });
  }

  private spaceTrouble(): string | undefined {
    try {
      const stat = fs.statfsSync(this.folder);
      const free = stat.bavail * stat.bsize;
      return free >= this.minFreeBytes ? undefined : `${free} bytes are free, ${this.minFreeBytes} are needed`;
    } catch (error) {
      return describe(error);
    }
  }

  /** Recording fails until a look at the disk, a second from now, finds room. */
  fail(cause: string): void {
    if (this.failure === undefined) {
      this.failure = new SluiceError("SLUICE_RECORD_FAILED", `cannot keep session recordings: ${cause}`, {
        hint: "Nothing is forwarded that cannot be recorded. Make room on the data folder's disk.",
      });
      this.onError(this.failure);
    }
    if (!this.closed && this.timer === undefined) this.timer = setTimeout(() => this.probe(), PROBE_MILLIS).unref();
  }

  private probe(): void {
    this.timer = undefined;
    if (this.spaceTrouble() !== undefined) {
      this.timer = setTimeout(() => this.probe(), PROBE_MILLIS).unref();
      return;
    }
    this.failure = undefined;
    for (const job of this.waiting.splice(0)) this.run(job);
    this.onSettled();
  }
}

const nothing = (): void => {};
