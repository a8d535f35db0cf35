/**
 * Copying and comparing the short ranges that messages consist of. Everything goes through DataViews: there is one kind of them, so the
 * loops stay fast whatever mixture of Buffers and Uint8Arrays comes by, where a loop over `bytes[index]` asks for each byte which kind it
 * has. Eight bytes a step: a BigInt that only goes from one view to another is a machine word, not an object.
 */

/** Up to this a loop is faster than making a view for TypedArray.set(). */
const LOOP_BYTES = 256;
/** From here on it is worth while to have the code for 32 bytes a step in the cache. */
const LONG_BYTES = 128;
const NEAR_BYTES = 96;

/** Memory that is copied to, and its view. */
export interface Destination {
  readonly buffer: Uint8Array;
  /** Of all of `buffer`. */
  readonly view: DataView;
}

/** The two arrays asked for last, for most of what is copied comes from one or two: what was read, and kept parameters. */
let firstBytes: Uint8Array = new Uint8Array(0);
let firstView = new DataView(firstBytes.buffer);
let secondBytes = firstBytes;
let secondView = firstView;

/** Larger ones are not held on to. */
const KNOWN_MAX_BYTES = 2 * 1024 * 1024;

/** A view of all of `bytes` for whoever keeps it. */
export const newView = (bytes: Uint8Array): DataView => new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);

/** A view of all of `bytes`, to read numbers from: one access where four bytes would be four, each with its checks. */
export function viewOf(bytes: Uint8Array): DataView {
  if (bytes === firstBytes) return firstView;
  if (bytes === secondBytes) return secondView;
  if (bytes.length > KNOWN_MAX_BYTES) return newView(bytes);
  secondBytes = firstBytes;
  secondView = firstView;
  firstBytes = bytes;
  firstView = newView(bytes);
  return firstView;
}

/** A destination of its own. */
export const destination = (buffer: Uint8Array): Destination => ({ buffer, view: newView(buffer) });

/**
 * Copy from[start, end) to `to` at `at`; the ranges must not overlap. @throws RangeError when either lies outside
 *
 * V8 inlines functions of up to 460 bytes of bytecode. This one is longer, with all its cases in it, so that there is one for everybody
 * who copies on the data path: it was three in each batch, with 25 cache lines of code each.
 */
export function copyInto(from: Uint8Array, start: number, end: number, to: Destination, at: number): void {
  const length = end - start;
  if (length > LOOP_BYTES) {
    if (start < 0 || end > from.length) throw new RangeError("the range to copy lies outside the bytes");
    to.buffer.set(from.subarray(start, end), at);
    return;
  }
  let source = firstView;
  if (from !== firstBytes) source = from === secondBytes ? secondView : viewOf(from);
  const { view } = to;
  const shift = at - start;
  if (length >= 8) {
    const last = end - 8;
    let index = start;
    if (length >= LONG_BYTES) {
      for (; index <= last - 24; index += 32) {
        view.setBigUint64(index + shift, source.getBigUint64(index, true), true);
        view.setBigUint64(index + shift + 8, source.getBigUint64(index + 8, true), true);
        view.setBigUint64(index + shift + 16, source.getBigUint64(index + 16, true), true);
        view.setBigUint64(index + shift + 24, source.getBigUint64(index + 24, true), true);
      }
    }
    for (; index < last; index += 8) view.setBigUint64(index + shift, source.getBigUint64(index, true), true);
    // The last eight, some of which may have been copied before.
    view.setBigUint64(last + shift, source.getBigUint64(last, true), true);
  } else if (length >= 4) {
    view.setUint32(at, source.getUint32(start));
    view.setUint32(at + length - 4, source.getUint32(end - 4));
  } else {
    for (let index = start; index < end; index += 1) view.setUint8(index + shift, source.getUint8(index));
  }
}

/** A copy of its own: a Buffer's slice() would be a view of memory that the next read overwrites. */
export function copyOf(bytes: Uint8Array, start: number, end: number): Uint8Array {
  const copy = new Uint8Array(end - start);
  copy.set(bytes.subarray(start, end));
  return copy;
}

/** Bytes that were seen, to be compared with what comes next. */
export class Seen {
  readonly #length: number;
  readonly #view: DataView;

  /** Keeps a copy of bytes[start, end). */
  constructor(bytes: Uint8Array, start: number, end: number) {
    this.#length = end - start;
    this.#view = new DataView(copyOf(bytes, start, end).buffer);
  }

  /** Whether bytes[start, end) are the same. */
  is(bytes: Uint8Array, start: number, end: number): boolean {
    const length = this.#length;
    if (end - start !== length) return false;
    const view = this.#view;
    const other = viewOf(bytes);
    let index = 0;
    for (; index <= length - 4; index += 4) if (view.getInt32(index, true) !== other.getInt32(start + index, true)) return false;
    for (; index < length; index += 1) if (view.getUint8(index) !== other.getUint8(start + index)) return false;
    return true;
  }
}

const RECENT_ENTRIES = 32;
/** What is longer is made, and not kept for others. */
const RECENT_BYTES = 4_096;

/** What was made of some bytes. */
export interface Made<T> {
  readonly bytes: Seen;
  readonly value: T;
}

/**
 * What was made of short byte ranges of late, for all sessions of a thread: they send the same ones over and over, and what each of them
 * kept for itself would be in no cache. Only for what depends on the bytes and on nothing else.
 */
export class Recent<T> {
  readonly #entries: Made<T>[] = [];
  readonly #make: (bytes: Uint8Array, start: number, end: number) => T;
  #oldest = 0;

  constructor(make: (bytes: Uint8Array, start: number, end: number) => T) {
    this.#make = make;
  }

  /** @throws what making it throws */
  get(bytes: Uint8Array, start: number, end: number): Made<T> {
    for (const each of this.#entries) if (each.bytes.is(bytes, start, end)) return each;
    const value = this.#make(bytes, start, end);
    const made: Made<T> = { bytes: new Seen(bytes, start, end), value };
    if (end - start > RECENT_BYTES) return made;
    this.#entries[this.#oldest] = made;
    this.#oldest = (this.#oldest + 1) % RECENT_ENTRIES;
    return made;
  }
}

/** Where the first zero byte of bytes[start, end) is, or -1. */
export function zeroIn(bytes: Uint8Array, start: number, end: number): number {
  const near = end < start + NEAR_BYTES ? end : start + NEAR_BYTES;
  for (let index = start; index < near; index += 1) if (bytes[index] === 0) return index;
  if (near === end) return -1;
  const found = bytes.indexOf(0, near);
  return found < end ? found : -1;
}

const CHUNK_BYTES = 4_096;

/**
 * Copies of short byte ranges that are kept for a while, many to a chunk: an allocation of their own would cost more than the copy.
 * One for all sessions of a thread: what they keep in the same moment stands side by side.
 */
export class Keep {
  #chunk: Destination = destination(new Uint8Array(0));
  #used = 0;

  /** Holds what keep() was called for last. */
  get chunk(): Uint8Array {
    return this.#chunk.buffer;
  }

  /** Copy bytes[start, end). @returns where the copy begins in `chunk`; it never changes there */
  keep(bytes: Uint8Array, start: number, end: number): number {
    const length = end - start;
    if (this.#used + length > this.chunk.length) {
      this.#chunk = destination(new Uint8Array(Math.max(CHUNK_BYTES, length)));
      this.#used = 0;
    }
    const at = this.#used;
    copyInto(bytes, start, end, this.#chunk, at);
    this.#used = at + length;
    return at;
  }
}
