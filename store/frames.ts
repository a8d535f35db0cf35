import type { Database } from "lmdb";
import { unpackMultiple } from "msgpackr";
import { copyInto, newView } from "../core/bytes/copy.ts";
import { alignedBuffer } from "../core/native/direct.ts";
import type { Environment } from "./environment.ts";
import { describe, unusable } from "./folder.ts";
import {
  FRAMES_BLOCK_BYTES,
  FRAMES_HEADER_BYTES,
  type FrameBlock,
  FrameFile,
  PAGE_BYTES,
  pagesFor,
  type WriteBuffers,
  type WrittenAt,
} from "./frame-file.ts";
import { type FrameFinding, PlaceRun, recoverFrames } from "./frame-index.ts";
import type { Keeper } from "./keeper.ts";

/** Numbers are 32 bits wide, in the files and in the index. A start is refused some way before they end. */
const BLOCK_NUMBER_MAX = 0xffff_ffff;
const START_NUMBER_MAX = 0xff00_0000;
/** A frame is split rather than started with less room than this. */
const SPLIT_MIN_BYTES = 64;
const FLUSH_MILLIS = 50;
/** Full blocks that are written together. */
const GROUP_BLOCKS = 16;
/** With more than so many waiting, half of what makes sessions pause, groups go through the page cache until the disk has caught up. */
const BEHIND_BLOCKS = 64;
/** Blocks kept for reuse while the disk is behind, and once it has caught up: new ones would have the heap collected again and again. */
const SPARE_BLOCKS = 128;
const SPARE_IDLE_BLOCKS = 16;
/** A transaction of LMDB costs as much CPU as a few hundred recorded queries. */
const INDEX_MILLIS = 1_000;

export const FROM_CLIENT = 0;
export const TO_CLIENT = 1;

// Of their own, as in session.ts.
const BLOCK_BYTES = FRAMES_BLOCK_BYTES;
const copy = copyInto;

/**
 * Frame, one MessagePack array (so that any decoder reads a block), written by hand because it is on the hot path:
 *    0  0x95               array of 5
 *    1  0xce u32           session number
 *    6  0xce u32           request, 0 where none
 *   11  0x00 | 0x01        direction: from client, to client
 *   12  0xcb f64           microseconds of the Unix epoch (big-endian, as MessagePack has it)
 *   21  0xc6 u32, bytes    the bytes
 */
const FRAME_HEADER_BYTES = 26;
/** A block filled further than this is full for a frame that does not fit. */
const FULL_BYTES = BLOCK_BYTES - FRAME_HEADER_BYTES - SPLIT_MIN_BYTES;

export interface FrameOptions {
  /** Bytes on their way to the disk above which frames are refused. */
  readonly hardBytes: number;
  /** A frames segment is followed by the next above this. */
  readonly segmentBytes: number;
  /** Replaceable so that a test can make the faults that no file system makes on demand. */
  readonly writeBuffers?: WriteBuffers | undefined;
}

export interface StoredFrame {
  readonly session: number;
  readonly request: number;
  readonly direction: typeof FROM_CLIENT | typeof TO_CLIENT;
  readonly micros: number;
  readonly bytes: Uint8Array;
}

/** Marks which block a session wrote to last, so that the block's index lists it once. */
export interface FrameOwner {
  readonly number: number;
  frameBlock: number;
}

/** Collects the frames of all sessions of a worker into blocks and hands those to the frames file, then their places to LMDB. */
export class FrameWriter {
  private readonly places: Database<Buffer, number>;
  private readonly keeper: Keeper;
  private readonly file: FrameFile;
  /** With more than this on its way nothing is taken. */
  private hardBytes: number;
  /** Bytes of full blocks that are not in the file yet. */
  waitingBytes = 0;
  private readonly stats: { frameBytes: number };
  private current: FrameBlock = newBlock();
  private end = FRAMES_HEADER_BYTES;
  private owners: number[] = [];
  /** Full blocks in order; those being written stay at the front until they are. */
  private readonly full: FrameBlock[] = [];
  private readonly spare: FrameBlock[] = [];
  private writing = false;
  private behind = false;
  /** So many of `full` are to be written without waiting for more. */
  private urgent = 0;
  private readonly run = new PlaceRun();
  private indexUrgent = false;
  private armed = false;
  private readonly timer: NodeJS.Timeout;
  private indexTimer: NodeJS.Timeout | undefined;
  /** What the last writer's death left in the frames segments, for the audit. */
  readonly findings: readonly FrameFinding[];
  /** Number of the block being filled. */
  number: number;
  /** Frames were not accepted since the flag was last cleared. */
  dropped = false;

  constructor(folder: string, environment: Environment, keeper: Keeper, options: FrameOptions, stats: { frameBytes: number }) {
    this.places = environment.places;
    this.keeper = keeper;
    this.hardBytes = options.hardBytes;
    this.stats = stats;
    const found = recoverFrames(folder, environment, (block) =>
      this.index(block, block.number, block.offset, block.payload.length, ownersOf(block.payload)),
    );
    if (found.lastNumber > START_NUMBER_MAX)
      throw unusable(
        `its last block of recorded bytes has the number ${found.lastNumber}: the numbers are used up, or the index is damaged`,
        undefined,
        "Keep this data folder as it is, and give the gateway a new one.",
      );
    this.findings = found.findings;
    this.number = found.lastNumber + 1;
    this.file = new FrameFile(
      folder,
      found.nextSegment,
      options.segmentBytes,
      (error) => keeper.fail(describe(error)),
      options.writeBuffers,
    );
    this.putIndex();
    keeper.put(environment.meta, "frames", found.nextSegment, 64);
    this.timer = setTimeout(() => {
      this.armed = false;
      this.handOverAll();
    }, FLUSH_MILLIS).unref();
  }

  add(owner: FrameOwner, request: number, direction: number, micros: number, bytes: Uint8Array, start: number, end: number): void {
    const { keeper } = this;
    if (keeper.failure !== undefined || keeper.inFlightBytes + this.waitingBytes > this.hardBytes) {
      this.dropped = true;
      return;
    }
    for (let from = start; from < end; ) {
      let at = this.end;
      if (at > FULL_BYTES && BLOCK_BYTES - at - FRAME_HEADER_BYTES < end - from) {
        this.nextBlock();
        if (this.full.length >= GROUP_BLOCKS) this.handOver();
        at = this.end;
      }
      const room = BLOCK_BYTES - at - FRAME_HEADER_BYTES;
      const length = room < end - from ? room : end - from;
      const { number } = owner;
      if (owner.frameBlock !== this.number) {
        owner.frameBlock = this.number;
        this.owners.push(number);
      }
      const { current } = this;
      this.end = at + FRAME_HEADER_BYTES + length;
      const { view } = current;
      view.setInt16(at, 0x95ce);
      view.setInt32(at + 2, number | 0);
      view.setInt8(at + 6, 0xce);
      view.setInt32(at + 7, request | 0);
      view.setInt16(at + 11, (direction << 8) | 0xcb);
      view.setFloat64(at + 13, micros);
      view.setInt8(at + 21, 0xc6);
      view.setInt32(at + 22, length);
      copy(bytes, from, from + length, current, at + FRAME_HEADER_BYTES);
      from += length;
    }
    this.stats.frameBytes += end - start;
    if (!this.armed) {
      this.armed = true;
      this.timer.refresh();
    }
  }

  /** Hand everything to the file, and its places to LMDB. The keeper is settled when all that is done. */
  flush(): void {
    this.indexUrgent = true;
    this.handOverAll();
    if (this.full.length === 0) this.putIndex();
  }

  /** Wait for the disk. @throws SluiceError SLUICE_RECORD_FAILED */
  async sync(): Promise<void> {
    // A failure is the keeper's by then.
    await this.file.sync().catch(() => {});
    await this.keeper.settled();
  }

  /** After the last flush. */
  async close(): Promise<void> {
    clearTimeout(this.timer);
    clearTimeout(this.indexTimer);
    await this.file.close();
  }

  private nextBlock(): void {
    const { current } = this;
    current.number = this.number;
    current.end = this.end;
    current.owners = this.owners;
    this.full.push(current);
    this.waitingBytes += BLOCK_BYTES;
    this.number += 1;
    // The numbers are used up: nothing is taken any more.
    if (this.number >= BLOCK_NUMBER_MAX) this.hardBytes = Number.NEGATIVE_INFINITY;
    this.owners = [];
    this.end = FRAMES_HEADER_BYTES;
    this.current = this.spare.pop() ?? newBlock();
  }

  private handOverAll(): void {
    if (this.end > FRAMES_HEADER_BYTES) this.nextBlock();
    this.urgent = this.full.length;
    this.handOver();
  }

  /** One group at a time: in the file blocks stand in order. */
  private handOver(): void {
    if (this.writing || (this.full.length < GROUP_BLOCKS && this.urgent === 0)) return;
    this.writing = true;
    // No bytes: waitingBytes counts them.
    this.keeper.submit({
      bytes: 0,
      put: (done) => this.write(done),
      written: () => {
        this.writing = false;
        this.handOver();
      },
    });
  }

  private write(done: (error: unknown) => void): void {
    const group = this.full.slice(0, GROUP_BLOCKS);
    if (this.full.length > BEHIND_BLOCKS) this.behind = true;
    else if (this.full.length <= GROUP_BLOCKS) this.behind = false;
    this.file.write(group, this.behind, (error, at) => {
      if (error === undefined) this.wrote(group, at);
      done(error);
    });
  }

  private wrote(group: readonly FrameBlock[], at: WrittenAt): void {
    let { offset } = at;
    for (const block of group) {
      const length = block.end - FRAMES_HEADER_BYTES;
      this.index(at, block.number, offset, length, block.owners);
      offset += pagesFor(length);
      if (this.spare.length < SPARE_BLOCKS) this.spare.push(block);
    }
    this.full.splice(0, group.length);
    this.waitingBytes -= group.length * BLOCK_BYTES;
    this.urgent = Math.max(0, this.urgent - group.length);
    if (this.urgent === 0 && this.indexUrgent) this.putIndex();
    // A killed writer's blocks are found without the index, and so are a running one's; so it can be late.
    else this.indexTimer ??= setTimeout(() => this.indexDue(), INDEX_MILLIS).unref();
  }

  private index(at: Omit<WrittenAt, "offset">, number: number, offset: number, length: number, owners: readonly number[]): void {
    if (!this.run.takes(at)) this.putIndex();
    this.run.add(at, number, offset, length, owners);
  }

  private indexDue(): void {
    if (this.spare.length > SPARE_IDLE_BLOCKS) this.spare.length = SPARE_IDLE_BLOCKS;
    this.putIndex();
  }

  private putIndex(): void {
    clearTimeout(this.indexTimer);
    this.indexTimer = undefined;
    this.indexUrgent = false;
    const { first } = this.run;
    if (first === undefined) return;
    const value = this.run.take();
    this.keeper.put(this.places, first, value, value.length);
  }
}

function newBlock(): FrameBlock {
  const buffer = alignedBuffer(FRAMES_BLOCK_BYTES, PAGE_BYTES);
  return { buffer, view: newView(buffer), number: 0, end: 0, owners: [] };
}

/** Frames of one session in a block, in the order they were written. Reads what FrameWriter wrote. */
export function readBlock(block: Buffer, session: number): StoredFrame[] {
  const frames: StoredFrame[] = [];
  for (const value of unpackMultiple(block) as unknown[]) {
    if (!Array.isArray(value) || value.length !== 5) continue;
    const [number, request, direction, micros, bytes] = value as unknown[];
    if (number !== session || typeof request !== "number" || typeof micros !== "number" || !(bytes instanceof Uint8Array)) continue;
    frames.push({ session, request, direction: direction === TO_CLIENT ? TO_CLIENT : FROM_CLIENT, micros, bytes });
  }
  return frames;
}

/** Numbers of the sessions that have frames in a block. */
export function ownersOf(block: Buffer): number[] {
  const owners = new Set<number>();
  for (let at = 0; at + FRAME_HEADER_BYTES <= block.length; at += FRAME_HEADER_BYTES + block.readUInt32BE(at + 22))
    owners.add(block.readUInt32BE(at + 2));
  return [...owners];
}
