import type { Hash } from "node:crypto";
import { newView } from "../core/bytes/copy.ts";
import { BLOCK_HEADER_BYTES, putHeader } from "./layout.ts";

const BUFFER_BYTES = 256 * 1024;
// Of its own, as in session.ts.
const HEADER_BYTES = BLOCK_HEADER_BYTES;

/**
 * The journal's buffer. It mirrors the end of the file: complete blocks, then at `start` the block being staged. Complete
 * blocks stay until the running digest has taken them in, many at a time, which costs a fraction of a digest per block.
 */
export class Staging {
  buffer: Buffer = Buffer.alloc(BUFFER_BYTES);
  view: DataView = newView(this.buffer);
  /** Where the block being staged begins, its header included. */
  start = 0;
  end = HEADER_BYTES;
  /** The buffer's length; to read it there is two objects more to look at. */
  private limit = BUFFER_BYTES;
  /** Everything before it went into the digest. */
  private fed = 0;

  get empty(): boolean {
    return this.end === this.start + HEADER_BYTES;
  }

  fits(length: number): boolean {
    return this.end + length <= this.limit;
  }

  /** Take `length` bytes, which must fit; the caller fills in the whole record. @returns where it begins */
  take(length: number): number {
    const at = this.end;
    this.end = at + length;
    return at;
  }

  put(length: number, type: number, detail: number, flags: number): number {
    const at = this.take(length);
    putHeader(this.view, at, length, type, detail, flags);
    return at;
  }

  clear(): void {
    this.end = this.start + HEADER_BYTES;
  }

  /** Take in what is complete. */
  feed(chain: Hash): void {
    if (this.fed < this.start) chain.update(this.buffer.subarray(this.fed, this.start));
    this.fed = this.start;
  }

  /** The complete blocks need no feeding: a new digest begins after them. */
  skipFeed(): void {
    this.fed = this.start;
  }

  /** The staged block was written: begin the next. */
  complete(chain: Hash): void {
    this.start = this.end;
    // Wrap early, so that most blocks find room without a forced write.
    if (this.limit - this.end < BUFFER_BYTES / 4) this.wrap(chain);
    else this.end += HEADER_BYTES;
  }

  /** Begin at the front again; nothing may be staged. */
  wrap(chain: Hash): void {
    this.feed(chain);
    if (this.limit > BUFFER_BYTES) this.use(Buffer.alloc(BUFFER_BYTES));
    this.start = 0;
    this.fed = 0;
    this.end = HEADER_BYTES;
  }

  /** Make room for a record that the buffer cannot hold. */
  grow(length: number, chain: Hash): void {
    this.feed(chain);
    const staged = this.end - this.start;
    const larger = Buffer.alloc(Math.max(BUFFER_BYTES, staged + length));
    larger.set(this.buffer.subarray(this.start, this.end));
    this.use(larger);
    this.start = 0;
    this.fed = 0;
    this.end = staged;
  }

  private use(buffer: Buffer): void {
    this.buffer = buffer;
    this.view = newView(buffer);
    this.limit = buffer.length;
  }

  /** Remove records from the staged block. @param keep told type, detail, where the record is, and where it goes if it stays */
  compact(keep: (type: number, detail: number, from: number, to: number) => boolean): void {
    const { buffer, view } = this;
    let to = this.start + HEADER_BYTES;
    for (let from = to; from < this.end; ) {
      const length = view.getUint32(from, true);
      if (keep(view.getUint8(from + 4), view.getUint8(from + 5), from, to)) {
        if (to !== from) buffer.copyWithin(to, from, from + length);
        to += length;
      }
      from += length;
    }
    this.end = to;
  }

  /** The last `length` bytes before the staged block, or undefined where the buffer wrapped meanwhile. */
  lastComplete(length: number): Buffer | undefined {
    return this.start >= length ? this.buffer.subarray(this.start - length, this.start) : undefined;
  }
}
