import fs from "node:fs";
import { checksum } from "../core/native/checksum.ts";
import { ALLOCATED_MAX_BYTES, BLOCK_HEADER_BYTES, BLOCK_MAGIC, BLOCK_MAX_BYTES } from "./layout.ts";

const WINDOW_BYTES = 256 * 1024;

/** One complete block; its bytes are valid until the next call of next(). */
export interface Block {
  /** With its header. */
  readonly bytes: Buffer;
  /** Offset of the payload in the file. */
  readonly offset: number;
  readonly payload: Buffer;
}

/** What a segment holds after its last complete block. */
export interface Rest {
  /**
   * `allocated`: nothing but zeros, the room of blocks to come (window.ts). `torn`: a part of a block, or more zeros than a writer
   * leaves. `damaged`: complete blocks stand further on, so what is between is no end.
   */
  readonly kind: "nothing" | "allocated" | "torn" | "damaged";
  /** From the last complete block to the last byte that is not zero; zeros that no writer left count. */
  readonly bytes: number;
}

/**
 * Reads a segment's complete blocks in order, also while a writer appends: what is not complete (yet) reads as "no
 * more", and the next call looks again. Never writes, never locks.
 */
export class SegmentCursor {
  readonly segment: number;
  /** Offset after the last complete block. */
  position = 0;
  private sequence = 0;
  private readonly fd: number;
  private window = Buffer.allocUnsafe(WINDOW_BYTES);
  private windowStart = 0;
  private windowEnd = 0;
  private waiting = false;
  private readonly magic = Buffer.alloc(4);

  constructor(path: string, segment: number) {
    this.segment = segment;
    this.fd = fs.openSync(path, "r");
  }

  next(): Block | undefined {
    // A reader that waits for more asks often, and there may be a window's length of zeros to read.
    if (this.waiting && !this.begun()) return undefined;
    // What was read earlier may have been completed meanwhile.
    const block = this.read() ?? (this.begun() ? this.read() : undefined);
    this.waiting = block === undefined;
    return block;
  }

  /**
   * All blocks from here on.
   * @param live whether a writer may be at work: damage is then told only if it is still there after 0.3 s
   * @returns what stands after the last of them, not counting what a writer has added meanwhile
   */
  each(visit: (block: Block) => void, live = false): Rest {
    const pauses = live ? PAUSES_MILLIS : [];
    for (let looks = 0; ; looks += 1) {
      for (let block = this.next(); block !== undefined; block = this.next()) {
        visit(block);
        looks = 0;
      }
      const rest = this.rest();
      if (rest.kind !== "damaged" || looks > pauses.length) return rest;
      // Blocks appear in their order: if the writer put those that were found, it has put the one that seemed to be missing. But what was
      // found may also be a client's bytes that look like a block, within one that is being put: that takes as long as its thread waits.
      if (looks > 0) Atomics.wait(NEVER, 0, 0, pauses[looks - 1]);
    }
  }

  private rest(): Rest {
    const size = fs.fstatSync(this.fd).size;
    if (size <= this.position) return { kind: "nothing", bytes: 0 };
    const chunk = Buffer.allocUnsafe(1024 * 1024 + BLOCK_HEADER_BYTES);
    let bytes = 0;
    let found = false;
    const unpublishedBytes = this.unpublishedBytes(size);
    for (let base = this.position; base < size; base += chunk.length - BLOCK_HEADER_BYTES) {
      const filled = fs.readSync(this.fd, chunk, 0, chunk.length, base);
      const used = usedBytes(chunk.subarray(0, filled));
      if (used === 0) continue;
      bytes = base + used - this.position;
      found ||= this.hasBlock(chunk.subarray(0, filled), base, size);
      if (found && bytes > unpublishedBytes) return { kind: "damaged", bytes: size - this.position };
    }
    if (bytes > 0) return { kind: "torn", bytes };
    const allocated = this.position > 0 && size - this.position <= ALLOCATED_MAX_BYTES;
    return allocated ? { kind: "allocated", bytes: 0 } : { kind: "torn", bytes: size - this.position };
  }

  /** Length of the next block if all of it but its header's first word may be there (window.ts): what looks like blocks in it is its payload. */
  private unpublishedBytes(size: number): number {
    const header = Buffer.alloc(BLOCK_HEADER_BYTES);
    fs.readSync(this.fd, header, 0, header.length, this.position);
    const bytes = BLOCK_HEADER_BYTES + header.readUInt32LE(8);
    const begun = header.readUInt32LE(0) === 0 && header.readUInt32LE(12) === this.sequence;
    // A window holds the whole block.
    return begun && bytes <= size - this.position ? bytes : 0;
  }

  /** Whether a complete block that comes later than the next one begins in `chunk`, which is the file's from `base` on. */
  private hasBlock(chunk: Buffer, base: number, size: number): boolean {
    for (let at = chunk.indexOf(MAGIC_BYTES); at >= 0 && at + BLOCK_HEADER_BYTES <= chunk.length; at = chunk.indexOf(MAGIC_BYTES, at + 1)) {
      const length = chunk.readUInt32LE(at + 8);
      const sequence = chunk.readUInt32LE(at + 12);
      if (
        base + at === this.position ||
        sequence <= this.sequence ||
        length > size - base - at - BLOCK_HEADER_BYTES ||
        length > BLOCK_MAX_BYTES
      )
        continue;
      const body = Buffer.allocUnsafe(8 + length);
      fs.readSync(this.fd, body, 0, body.length, base + at + 8);
      if (checksum(body, 0, body.length) === chunk.readUInt32LE(at + 4)) return true;
    }
    return false;
  }

  /** Whether the next block's header has been begun. */
  private begun(): boolean {
    return fs.readSync(this.fd, this.magic, 0, 4, this.position) === 4 && this.magic.equals(MAGIC_BYTES);
  }

  private read(): Block | undefined {
    if (!this.have(BLOCK_HEADER_BYTES)) return this.nothing();
    let at = this.position - this.windowStart;
    const length = this.window.readUInt32LE(at + 8);
    if (this.window.readUInt32LE(at) !== BLOCK_MAGIC || this.window.readUInt32LE(at + 12) !== this.sequence || length > BLOCK_MAX_BYTES)
      return this.nothing();
    const total = BLOCK_HEADER_BYTES + length;
    // The file's size bounds what a damaged length can make us allocate.
    if (total > this.window.length && fs.fstatSync(this.fd).size - this.position < total) return this.nothing();
    if (!this.have(total)) return this.nothing();
    at = this.position - this.windowStart;
    if (checksum(this.window, at + 8, at + total) !== this.window.readUInt32LE(at + 4)) return this.nothing();
    const offset = this.position + BLOCK_HEADER_BYTES;
    this.position += total;
    this.sequence += 1;
    return { bytes: this.window.subarray(at, at + total), offset, payload: this.window.subarray(at + BLOCK_HEADER_BYTES, at + total) };
  }

  close(): void {
    fs.closeSync(this.fd);
  }

  /** Make [position, position + bytes) present in the window. */
  private have(bytes: number): boolean {
    if (this.position >= this.windowStart && this.position + bytes <= this.windowEnd) return true;
    if (bytes > this.window.length || (bytes <= WINDOW_BYTES && this.window.length > WINDOW_BYTES))
      this.window = Buffer.allocUnsafe(Math.max(bytes, WINDOW_BYTES));
    this.windowStart = this.position;
    this.windowEnd = this.position;
    while (this.windowEnd - this.windowStart < bytes) {
      const filled = this.windowEnd - this.windowStart;
      const read = fs.readSync(this.fd, this.window, filled, this.window.length - filled, this.windowEnd);
      if (read === 0) return false;
      this.windowEnd += read;
    }
    return true;
  }

  /** Forget the window: the same bytes may have been completed meanwhile. */
  private nothing(): undefined {
    this.windowStart = 0;
    this.windowEnd = 0;
    return undefined;
  }
}

const MAGIC_BYTES = Buffer.alloc(4);
MAGIC_BYTES.writeUInt32LE(BLOCK_MAGIC);
const ZEROS = Buffer.alloc(4_096);
/** How long damage is looked at before it is told. */
const PAUSES_MILLIS = [5, 10, 20, 40, 80, 160];
const NEVER = new Int32Array(new SharedArrayBuffer(4));

/** Length up to the last byte that is not zero. */
function usedBytes(bytes: Buffer): number {
  let end = bytes.length;
  while (end >= ZEROS.length && bytes.compare(ZEROS, 0, ZEROS.length, end - ZEROS.length, end) === 0) end -= ZEROS.length;
  while (end > 0 && bytes[end - 1] === 0) end -= 1;
  return end;
}

/**
 * One record at a known offset, copied out. Used for intents that an outcome refers to in an earlier segment.
 * @returns undefined when the file or a plausible record is not there
 */
export function readRecord(path: string, offset: number): Buffer | undefined {
  let fd: number;
  try {
    fd = fs.openSync(path, "r");
  } catch {
    return undefined;
  }
  try {
    const size = fs.fstatSync(fd).size;
    const head = Buffer.alloc(4);
    if (fs.readSync(fd, head, 0, 4, offset) < 4) return undefined;
    const length = head.readUInt32LE(0);
    if (length < 8 || length > size - offset || length > BLOCK_MAX_BYTES) return undefined;
    const record = Buffer.allocUnsafe(length);
    return fs.readSync(fd, record, 0, length, offset) === length ? record : undefined;
  } finally {
    fs.closeSync(fd);
  }
}
