import { createHash, type Hash, randomBytes } from "node:crypto";
import fs from "node:fs";
import { SluiceError } from "../core/errors.ts";
import { BatchClock } from "./clock.ts";
import { describe, errorCode } from "./folder.ts";
import {
  BLOCK_MAX_BYTES,
  DEFINITION_BYTES,
  EFFECT_DENY,
  EVENT_BYTES,
  RECORD,
  SEAL_BYTES,
  SESSION_OPENED,
  type SegmentInfo,
} from "./layout.ts";
import { Reserve } from "./reserve.ts";
import { Staging } from "./staging.ts";
import { finishBlock, ShortWrite, type StartedSegment, startSegment, type WriteSync } from "./start.ts";
import { type BlockWindow, SegmentWindow } from "./window.ts";

/** Outcomes and events kept in memory while nothing can be written. */
const RETAINED_MAX_BYTES = 16 * 1024 * 1024;
const FLUSH_MILLIS = 20;
const SYNC_MILLIS = 1_000;
const PROBE_MILLIS = 1_000;

/** Where an intent went; the outcome refers to it. Filled in by the journal. */
export interface IntentPlace {
  segment: number;
  offset: number;
  /** The block with this intent could not be written: the operation must not be forwarded and has no outcome. */
  lost: boolean;
}

export interface JournalOptions {
  readonly folder: string;
  readonly shard: number;
  readonly segmentBytes: number;
  readonly reserveBytes: number;
  /** Number of the first segment to write, and what goes before it. */
  readonly firstSegment: number;
  readonly previous: SegmentInfo["previous"];
  /** The live and pending records of a new segment's first block. */
  readonly carry: () => Buffer;
  readonly nextSession: () => number;
  readonly onRotate: (segment: number) => void;
  readonly onError: (error: Error) => void;
  /** Replaceable so that a test can make the faults that no file system makes on demand. */
  readonly writeSync?: WriteSync;
  readonly window?: BlockWindow;
}

export interface JournalStats {
  journalBytes: number;
  commits: number;
  failed: number;
}

/**
 * Append-only journal of one shard. Records are staged into one buffer that mirrors the file; a commit completes the
 * block's header in place and writes it with one pwrite. Nothing here waits; see README.md for what survives what.
 */
export class Journal {
  readonly stats: JournalStats;
  readonly staging = new Staging();
  segment: number;
  /** Definitions numbered below this stand in an earlier segment and must be repeated. */
  slotBase = 0;
  private readonly options: JournalOptions;
  private readonly write: WriteSync;
  private readonly window: BlockWindow;
  private readonly reserve: Reserve;
  private fd: number;
  private filePosition = 0;
  private sequence = 0;
  private rotateAt: number;
  private staged = 0;
  private places: IntentPlace[] = [];
  private failure: Error | undefined;
  private failureNeedsSegment = false;
  private refusal: SluiceError | undefined;
  private refused = 0;
  private lostBatches = 0;
  private droppedSession = -1;
  /** Running SHA-256 since the last seal. */
  private chain: Hash;
  private sealedTo = 0;
  private sealEnd = 0;
  private flushArmed = false;
  private syncArmed = false;
  private closed = false;
  private readonly flushTimer: NodeJS.Timeout;
  private readonly syncTimer: NodeJS.Timeout;
  private readonly probeTimer: NodeJS.Timeout;
  private readonly clock = new BatchClock();

  constructor(options: JournalOptions, stats: JournalStats) {
    this.options = options;
    this.stats = stats;
    this.write = options.writeSync ?? fs.writeSync;
    this.window = options.window ?? new SegmentWindow();
    this.reserve = new Reserve(options.folder, options.reserveBytes);
    if (!this.reserve.fill()) throw new Error(`no room for the ${options.reserveBytes} bytes kept back for denials`);
    const started = this.startSegment(options.firstSegment, options.previous);
    this.fd = started.fd;
    this.chain = started.chain;
    this.segment = options.firstSegment;
    this.filePosition = started.length;
    this.sequence = 1;
    this.slotBase = nextSlot();
    this.rotateAt = options.segmentBytes;
    this.flushTimer = stopped(() => this.flushDue(), FLUSH_MILLIS);
    this.syncTimer = stopped(() => this.syncDue(), SYNC_MILLIS);
    this.probeTimer = stopped(() => this.probe(), PROBE_MILLIS);
  }

  /** Microseconds of the Unix epoch, the same for everything between two commits. */
  nowMicros(): number {
    const { clock } = this;
    if (clock.stale) {
      this.arm();
      clock.read();
    }
    return clock.micros;
  }

  /** As begin(), for who fills in the header as well, before anything else is staged. */
  take(length: number): number {
    if (!this.staging.fits(length)) this.makeRoom(length);
    return this.staging.take(length);
  }

  /**
   * Stage a record of `length` bytes; the caller fills its body at the returned index of `staging`.
   * @throws SluiceError SLUICE_LIMIT_EXCEEDED when no block could hold it
   */
  begin(length: number, type: number, detail: number, flags: number): number {
    if (!this.staging.fits(length)) this.makeRoom(length);
    return this.staging.put(length, type, detail, flags);
  }

  /** Offset in the segment's file of the record staged at `at`. */
  offsetOf(at: number): number {
    return this.filePosition + at - this.staging.start;
  }

  /** Note the intent staged at `at`, so that it can be refused if its block cannot be written. */
  track(at: number, place: IntentPlace): void {
    place.segment = this.segment;
    place.offset = this.offsetOf(at);
    this.places[this.staged] = place;
    this.staged += 1;
  }

  /** Stage a definition (session, decision, statement). */
  define(type: number, detail: number, number: number, body: string): number {
    const at = this.begin(DEFINITION_BYTES + Buffer.byteLength(body), type, detail, 0);
    this.staging.view.setUint32(at + 8, number, true);
    this.staging.buffer.write(body, at + DEFINITION_BYTES, "utf8");
    return at;
  }

  event(timeMicros: number, json: string): void {
    const at = this.begin(EVENT_BYTES + Buffer.byteLength(json), RECORD.event, 0, 0);
    this.staging.view.setFloat64(at + 8, timeMicros, true);
    this.staging.buffer.write(json, at + EVENT_BYTES, "utf8");
  }

  /**
   * Write the staged intents (and whatever else is staged).
   * @throws SluiceError SLUICE_RECORD_FAILED: intents staged since the last commit are not on record
   */
  commit(): void {
    this.clock.stale = true;
    if (this.staged > 0) this.writeOut(true);
    if (this.refusal !== undefined) {
      const refusal = this.refusal;
      this.refusal = undefined;
      throw refusal;
    }
  }

  /** Write everything staged at once, without reporting refused intents: those wait for the next commit(). */
  push(mayRotate = true): void {
    this.writeOut(mayRotate);
  }

  /** Stage and write a session's opening record. @returns its offset, or -1 when it could not be written */
  openSession(number: number, json: string): number {
    this.writeOut(true);
    const at = this.define(RECORD.session, SESSION_OPENED, number, json);
    const offset = this.offsetOf(at);
    this.droppedSession = -1;
    this.writeOut(false);
    return this.droppedSession === number ? -1 : offset;
  }

  /** Write within 20 ms, unless a commit comes first. */
  arm(): void {
    if (this.flushArmed || this.closed) return;
    this.flushArmed = true;
    this.flushTimer.refresh();
  }

  get failing(): Error | undefined {
    return this.failure;
  }

  /** Write, seal and wait for the disk. @throws SluiceError SLUICE_RECORD_FAILED */
  async flush(): Promise<void> {
    this.writeOut(true);
    this.seal();
    if (this.failure !== undefined) throw recordFailed(this.failure);
    const { fd } = this;
    await new Promise<void>((resolve, reject) => {
      // A rotation meanwhile syncs and closes the old file itself.
      fs.fdatasync(fd, (error) => (error === null || fd !== this.fd ? resolve() : reject(recordFailed(error))));
    });
  }

  async close(): Promise<void> {
    if (this.closed) return;
    try {
      await this.flush();
    } finally {
      this.closed = true;
      for (const timer of [this.flushTimer, this.syncTimer, this.probeTimer]) clearTimeout(timer);
      this.cut();
      fs.closeSync(this.fd);
    }
  }

  private writeOut(mayRotate: boolean): void {
    if (this.staging.empty || this.closed) return;
    if (this.failure === undefined) {
      const error = this.writeBlock();
      if (error === undefined) {
        if (mayRotate && this.filePosition >= this.rotateAt) this.rotate();
        return;
      }
      this.fail(error);
    }
    this.dropUnforwarded();
    if (this.staging.empty) return;
    // What remains are outcomes, denials and events: the reserve was released for them.
    if (this.writeBlock() === undefined) return;
    if (this.staging.end - this.staging.start <= RETAINED_MAX_BYTES) return this.arm();
    this.dropUnforwarded(true);
    this.lostBatches += 1;
    this.staged = 0;
    this.staging.clear();
    this.slotBase = nextSlot();
  }

  /** Complete the block's header and write the block. On failure the file ends where it ended before. */
  private writeBlock(): Error | undefined {
    const { buffer, start, end } = this.staging;
    const total = end - start;
    try {
      // While writing fails no room is taken ahead: what there is belongs to the reserve.
      const copied = this.failure === undefined && this.window.append(this.fd, buffer, start, total, this.filePosition, this.sequence);
      if (!copied) this.writeWhole(start, total);
    } catch (error) {
      this.cut();
      return error instanceof Error ? error : new Error(String(error));
    }
    this.filePosition += total;
    this.sequence += 1;
    this.stats.commits += 1;
    this.stats.journalBytes += total;
    this.staged = 0;
    this.staging.complete(this.chain);
    if (!this.syncArmed && !this.closed) {
      this.syncArmed = true;
      this.syncTimer.refresh();
    }
    return undefined;
  }

  private writeWhole(start: number, total: number): void {
    const { buffer, view } = this.staging;
    finishBlock(buffer, view, start, start + total, this.sequence);
    let written = this.write(this.fd, buffer, start, total, this.filePosition);
    // A second try for the rest: it tells why the first was short.
    if (written < total) written += this.write(this.fd, buffer, start + written, total - written, this.filePosition + written);
    if (written !== total) throw new ShortWrite(written, total);
  }

  /** End the file after its last block. */
  private cut(): void {
    this.window.release();
    try {
      fs.ftruncateSync(this.fd, this.filePosition);
    } catch {
      // The next block overwrites the same place; a reader stops before it meanwhile.
    }
  }

  private makeRoom(length: number): void {
    if (length > BLOCK_MAX_BYTES / 2)
      throw new SluiceError("SLUICE_LIMIT_EXCEEDED", `a journal record of ${length} bytes is over the limit`);
    // No rotation here: a definition staged a moment ago must share the segment of the intent that uses it.
    this.writeOut(false);
    if (this.staging.empty) this.staging.wrap(this.chain);
    if (!this.staging.fits(length)) this.staging.grow(length, this.chain);
  }

  /** Take out of the staged block what must not go on without a record: session openings and all intents but denials (or those as well). */
  private dropUnforwarded(denialsToo = false): void {
    let intents = 0;
    let kept = 0;
    this.staging.compact((type, detail, from, to) => {
      if (type === RECORD.session && detail === SESSION_OPENED) {
        this.droppedSession = this.staging.view.getUint32(from + 8, true);
        return false;
      }
      if (type !== RECORD.intent) return true;
      const place = this.places[intents];
      intents += 1;
      if (place === undefined) return false;
      if (detail === EFFECT_DENY && !denialsToo) {
        place.offset = this.offsetOf(to);
        this.places[kept] = place;
        kept += 1;
        return true;
      }
      place.lost = true;
      this.refused += 1;
      return false;
    });
    if (intents > kept) this.refusal = recordFailed(this.failure ?? new Error("unknown cause"));
    this.staged = kept;
  }

  private fail(error: Error): void {
    this.stats.failed += 1;
    const space = ["ENOSPC", "EDQUOT"].includes(errorCode(error)) || error instanceof ShortWrite;
    if (space) this.reserve.release();
    else this.failureNeedsSegment = true;
    if (this.failure === undefined) {
      this.failure = error;
      this.options.onError(recordFailed(error));
    }
    if (!this.closed) this.probeTimer.refresh();
  }

  /** While failing: writing is tried again once the reserve could be filled again, in a new segment if the file itself is at fault. */
  private probe(): void {
    if (this.closed || this.failure === undefined) return;
    const failure = this.failure;
    // A denial's place and definitions belong to the segment that is given up.
    this.dropUnforwarded(this.failureNeedsSegment);
    let well = this.reserve.fill();
    if (well && this.failureNeedsSegment) well = this.nextSegment();
    if (well && !this.staging.empty) well = this.writeBlock() === undefined;
    if (!well) {
      this.reserve.release();
      this.probeTimer.refresh();
      return;
    }
    this.failure = undefined;
    this.failureNeedsSegment = false;
    const detail = {
      what: "recording failed and works again",
      cause: describe(failure),
      refusedOperations: this.refused,
      lostBatches: this.lostBatches,
    };
    this.refused = 0;
    this.lostBatches = 0;
    this.event(this.nowMicros(), JSON.stringify({ type: "control", detail }));
    this.push();
  }

  /** Chain all complete blocks so far and put the seal on record. */
  private seal(): void {
    if (this.closed) return;
    this.writeOut(false);
    if (this.failure !== undefined || this.filePosition === this.sealEnd) return;
    this.staging.feed(this.chain);
    const digest = this.chain.copy().digest();
    const at = this.begin(SEAL_BYTES, RECORD.seal, 0, 0);
    this.staging.view.setUint32(at + 8, this.sealedTo, true);
    this.staging.view.setUint32(at + 12, this.filePosition, true);
    this.staging.buffer.set(digest, at + 16);
    const to = this.filePosition;
    const error = this.writeBlock();
    if (error !== undefined) {
      this.staging.clear();
      this.fail(error);
      return;
    }
    this.chain = createHash("sha256").update(digest).update(this.lastBlock(to));
    this.staging.skipFeed();
    this.sealedTo = to;
    this.sealEnd = this.filePosition;
  }

  /** The block just written; it is still in the buffer unless that wrapped, then it is read back. */
  private lastBlock(from: number): Buffer {
    const length = this.filePosition - from;
    const staged = this.staging.lastComplete(length);
    if (staged !== undefined) return staged;
    const bytes = Buffer.alloc(length);
    fs.readSync(this.fd, bytes, 0, length, from);
    return bytes;
  }

  /** @returns whether a new segment was begun; otherwise writing goes on in the old one */
  private rotate(): boolean {
    this.seal();
    return this.failure === undefined && this.nextSegment();
  }

  private nextSegment(): boolean {
    // The seal of the last block cannot stand in the segment itself: the next segment's header carries it.
    this.staging.feed(this.chain);
    const previous = { segment: this.segment, end: this.filePosition, seal: this.chain.copy().digest("hex") };
    // Before the next one is there: a segment that is not the last ends with its last block.
    this.cut();
    let started: StartedSegment;
    try {
      started = this.startSegment(this.segment + 1, previous);
    } catch (error) {
      this.rotateAt = this.filePosition + 1024 * 1024;
      this.options.onError(recordFailed(error instanceof Error ? error : new Error(String(error))));
      return false;
    }
    const old = this.fd;
    fs.fdatasync(old, (error) => {
      if (error !== null) this.options.onError(recordFailed(error));
      fs.close(old, () => {});
    });
    this.fd = started.fd;
    this.chain = started.chain;
    this.staging.skipFeed();
    this.segment += 1;
    this.filePosition = started.length;
    this.sequence = 1;
    this.sealedTo = 0;
    this.sealEnd = 0;
    this.slotBase = nextSlot();
    this.rotateAt = this.options.segmentBytes;
    this.options.onRotate(this.segment);
    return true;
  }

  private startSegment(segment: number, previous: SegmentInfo["previous"]): StartedSegment {
    const { folder, shard, nextSession, carry } = this.options;
    const info: SegmentInfo = {
      version: 1,
      shard,
      segment,
      id: randomBytes(6).toString("hex"),
      createdMicros: Date.now() * 1000,
      nextSession: nextSession(),
      previous,
    };
    return startSegment(folder, info, carry(), this.write);
  }

  private flushDue(): void {
    this.flushArmed = false;
    this.clock.adjust();
    this.writeOut(true);
  }

  private syncDue(): void {
    this.syncArmed = false;
    this.window.retry();
    this.seal();
    const { fd } = this;
    fs.fdatasync(fd, (error) => {
      if (error === null || this.closed || fd !== this.fd) return;
      // After a failed sync the kernel may have dropped what it could not write: this file is not trusted any more.
      this.failureNeedsSegment = true;
      this.fail(error);
    });
  }
}

function recordFailed(cause: Error): SluiceError {
  return new SluiceError("SLUICE_RECORD_FAILED", `cannot record: ${describe(cause)}`, {
    hint: "Nothing is forwarded that cannot be recorded. Check the data folder's disk.",
    cause,
  });
}

/** A timer for use with refresh() only (its first firing finds nothing to do). It never keeps the process alive. */
const stopped = (run: () => void, millis: number): NodeJS.Timeout => setTimeout(run, millis).unref();

let slots = 0;
/** Definitions are numbered ascending through the thread's life, so that one comparison tells whether a segment has one. */
export const nextSlot = (): number => {
  slots += 1;
  return slots;
};
