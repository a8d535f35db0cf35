import { unpackMultiple } from "msgpackr";
import { copyInto } from "../core/bytes/copy.ts";
import type { Environment } from "./environment.ts";
import type { Keeper } from "./keeper.ts";

/** One page less its header: the largest value that fills 16 LMDB pages of 4 KiB exactly. */
const BLOCK_BYTES = 65_520;
/** A frame is split rather than started with less room than this. */
const SPLIT_MIN_BYTES = 64;
const FLUSH_MILLIS = 50;
/** Full blocks that go to LMDB together: each of its transactions costs as much CPU as a few hundred recorded queries. */
const GROUP_BLOCKS = 8;

export const FROM_CLIENT = 0;
export const TO_CLIENT = 1;

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

export interface StoredFrame {
  readonly session: number;
  readonly request: number;
  readonly direction: typeof FROM_CLIENT | typeof TO_CLIENT;
  readonly micros: number;
  readonly bytes: Uint8Array;
}

interface FullBlock {
  readonly number: number;
  readonly block: Buffer;
  readonly length: number;
  readonly owners: number[];
}

/** Marks which block a session wrote to last, so that the block's index lists it once. */
export interface FrameOwner {
  readonly number: number;
  frameBlock: number;
}

/** Collects the frames of all sessions of a worker into blocks and hands those to LMDB. */
export class FrameWriter {
  private readonly environment: Environment;
  private readonly keeper: Keeper;
  private readonly hardBytes: number;
  private readonly stats: { frameBytes: number };
  private block: Buffer = Buffer.allocUnsafeSlow(BLOCK_BYTES);
  private view: DataView = new DataView(this.block.buffer);
  private end = 0;
  private owners: number[] = [];
  private full: FullBlock[] = [];
  private spare: Buffer[] = [];
  private armed = false;
  private readonly timer: NodeJS.Timeout;
  /** Number of the block being filled. */
  number: number;
  /** Frames were not accepted since the flag was last cleared. */
  dropped = false;

  constructor(environment: Environment, keeper: Keeper, hardBytes: number, stats: { frameBytes: number }) {
    this.environment = environment;
    this.keeper = keeper;
    this.hardBytes = hardBytes;
    this.stats = stats;
    const [last] = environment.frames.getKeys({ reverse: true, limit: 1 });
    this.number = last === undefined ? 1 : last + 1;
    this.timer = setTimeout(() => {
      this.armed = false;
      this.flush();
    }, FLUSH_MILLIS).unref();
  }

  /** Bytes of full blocks that wait for their group or the timer. */
  get waitingBytes(): number {
    return this.full.length * BLOCK_BYTES;
  }

  add(owner: FrameOwner, request: number, direction: number, micros: number, bytes: Uint8Array, start: number, end: number): void {
    if (this.keeper.failure !== undefined || this.keeper.inFlightBytes + this.waitingBytes > this.hardBytes) {
      this.dropped = true;
      return;
    }
    for (let from = start; from < end; ) {
      let room = BLOCK_BYTES - this.end - FRAME_HEADER_BYTES;
      if (room < SPLIT_MIN_BYTES && room < end - from) {
        this.nextBlock();
        if (this.full.length >= GROUP_BLOCKS) this.handOver();
        room = BLOCK_BYTES - FRAME_HEADER_BYTES;
      }
      if (owner.frameBlock !== this.number) {
        owner.frameBlock = this.number;
        this.owners.push(owner.number);
      }
      const length = room < end - from ? room : end - from;
      const { view } = this;
      const at = this.end;
      view.setUint16(at, 0x95ce);
      view.setUint32(at + 2, owner.number);
      view.setUint8(at + 6, 0xce);
      view.setUint32(at + 7, request);
      view.setUint16(at + 11, (direction << 8) | 0xcb);
      view.setFloat64(at + 13, micros);
      view.setUint8(at + 21, 0xc6);
      view.setUint32(at + 22, length);
      copyInto(bytes, from, from + length, this.block, at + FRAME_HEADER_BYTES);
      this.end = at + FRAME_HEADER_BYTES + length;
      from += length;
    }
    this.stats.frameBytes += end - start;
    if (!this.armed) {
      this.armed = true;
      this.timer.refresh();
    }
  }

  /** Hand everything to LMDB. */
  flush(): void {
    if (this.end > 0) this.nextBlock();
    this.handOver();
  }

  private nextBlock(): void {
    this.full.push({ number: this.number, block: this.block, length: this.end, owners: this.owners });
    this.number += 1;
    this.owners = [];
    this.end = 0;
    this.block = this.spare.pop() ?? Buffer.allocUnsafeSlow(BLOCK_BYTES);
    this.view = new DataView(this.block.buffer);
  }

  private handOver(): void {
    for (const { number, block, length, owners } of this.full.splice(0)) {
      this.keeper.put(this.environment.frames, number, block.subarray(0, length), BLOCK_BYTES, () => {
        if (this.spare.length < GROUP_BLOCKS) this.spare.push(block);
      });
      const index = Buffer.from(Uint32Array.from(owners).buffer);
      this.keeper.put(this.environment.index, number, index, index.length);
    }
  }

  close(): void {
    clearTimeout(this.timer);
    this.flush();
  }
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

/** Whether a block's index lists the session. */
export function indexLists(index: Buffer, session: number): boolean {
  for (let at = 0; at + 4 <= index.length; at += 4) if (index.readUInt32LE(at) === session) return true;
  return false;
}
