/** Below this a loop is faster than making a view for TypedArray.set(). */
const LOOP_BYTES = 96;

/** Copy from[start, end) to `to` at `at`; the ranges must not overlap. @throws RangeError when `to` has no room (for short copies: silently cut) */
export function copyInto(from: Uint8Array, start: number, end: number, to: Uint8Array, at: number): void {
  if (end - start > LOOP_BYTES) {
    to.set(from.subarray(start, end), at);
    return;
  }
  for (let index = start; index < end; index += 1, at += 1) to[at] = from[index];
}

/** A copy of its own: a Buffer's slice() would be a view of memory that the next read overwrites. */
export function copyOf(bytes: Uint8Array, start: number, end: number): Uint8Array {
  const copy = new Uint8Array(end - start);
  copyInto(bytes, start, end, copy, 0);
  return copy;
}

/** Whether a[aStart, aEnd) holds exactly the bytes of `b`. */
export function sameBytes(a: Uint8Array, aStart: number, aEnd: number, b: Uint8Array): boolean {
  if (aEnd - aStart !== b.length) return false;
  for (let index = 0; index < b.length; index += 1) if (a[aStart + index] !== b[index]) return false;
  return true;
}

/** Where the first zero byte of bytes[start, end) is, or -1. */
export function zeroIn(bytes: Uint8Array, start: number, end: number): number {
  const near = end < start + LOOP_BYTES ? end : start + LOOP_BYTES;
  for (let index = start; index < near; index += 1) if (bytes[index] === 0) return index;
  if (near === end) return -1;
  const found = bytes.indexOf(0, near);
  return found < end ? found : -1;
}

const CHUNK_BYTES = 1_024;

/** Copies of short byte ranges that are kept for a while, many to a chunk: an allocation of their own would cost more than the copy. */
export class Keep {
  /** Holds what keep() was called for last. */
  chunk: Uint8Array = new Uint8Array(0);
  #used = 0;

  /** Copy bytes[start, end). @returns where the copy begins in `chunk`; it never changes there */
  keep(bytes: Uint8Array, start: number, end: number): number {
    const length = end - start;
    if (this.#used + length > this.chunk.length) {
      this.chunk = new Uint8Array(Math.max(CHUNK_BYTES, length));
      this.#used = 0;
    }
    const at = this.#used;
    copyInto(bytes, start, end, this.chunk, at);
    this.#used = at + length;
    return at;
  }
}
