import {
  CLASS,
  DIGIT,
  IDENT_START,
  isIdentPart,
  isSmallInteger,
  SPACE,
  skipBlockComment,
  skipDollar,
  skipLineComment,
  skipNumber,
  skipQuotedIdentifier,
  skipString,
} from "./lexer.ts";

/** Longest key, in bytes, and most literals of a text that has one. */
const KEY_BYTES = 32 * 1024;
const LITERALS = 4096;
/** Texts longer than this are not lexed: they have no key. */
const TEXT_BYTES = 1024 * 1024;
/** Parentheses nested deeper than this are not parsed on the worker's own stack. */
const NESTING = 200;

/** Stand for a replaced literal in a key, by kind; these bytes occur nowhere else in a key. */
const STRING = 1;
const ESCAPE_STRING = 2;
const INTEGER = 3;
const NUMBER = 4;
/** First byte of a key in which some literals stand as they are. */
const PARTLY = 5;

/**
 * The shape of one SQL text: its bytes with literals replaced by their kind, runs of whitespace and comments by one
 * space. One instance a worker: compute() overwrites the result of the call before, and allocates nothing.
 */
export class Shape {
  readonly key = new Uint8Array(KEY_BYTES);
  keyBytes = 0;
  /** 30 bits, never negative. */
  hash = 0;
  /** Literals that may be replaced, in order; offsets relative to the text's start. */
  literals = 0;
  readonly literalStarts = new Int32Array(LITERALS);
  readonly literalEnds = new Int32Array(LITERALS);
  /** Those of them that the key holds as they are. */
  keep: Uint8Array | undefined = undefined;
  /** A zero byte stands outside what the server would accept. */
  zero = false;
  /** There are bytes over 127, whose UTF-8 has to be checked. */
  nonAscii = false;
  /** The text is of a kind that can take the parser long although it is short. */
  heavy = false;

  /**
   * @param keep literals, by index, that stay as they are in the key (a zero or missing entry is replaced)
   * @returns false: no key (not lexable, or too long). zero, nonAscii and heavy are then not meaningful.
   */
  compute(bytes: Uint8Array, start: number, end: number, keep: Uint8Array | undefined): boolean {
    this.zero = false;
    this.nonAscii = false;
    this.heavy = false;
    this.literals = 0;
    this.keep = keep;
    this.keyBytes = 0;
    if (end - start > TEXT_BYTES) return false;
    const key = this.key;
    let length = 0;
    // FNV-1a.
    let hash = 0x811c9dc5;
    if (keep !== undefined) {
      key[length++] = PARTLY;
      hash = 0x01000193;
    }
    let nesting = 0;
    let closed = false;
    let high = 0;
    let space = false;
    let i = start;
    while (i < end) {
      const byte = bytes[i];
      const kind = CLASS[byte];
      if ((kind & SPACE) !== 0) {
        space = true;
        i += 1;
        continue;
      }
      if (byte === 45 && bytes[i + 1] === 45 && i + 1 < end) {
        const next = skipLineComment(bytes, i, end);
        for (; i < next; i += 1) {
          high |= bytes[i];
          if (bytes[i] === 0) this.zero = true;
        }
        space = true;
        continue;
      }
      if (byte === 47 && bytes[i + 1] === 42 && i + 1 < end) {
        const next = skipBlockComment(bytes, i, end);
        if (next < 0) return false;
        for (; i < next; i += 1) {
          high |= bytes[i];
          if (bytes[i] === 0) this.zero = true;
        }
        space = true;
        continue;
      }
      let next = i + 1;
      let marker = 0;
      if ((kind & IDENT_START) !== 0) {
        const quote = next < end ? bytes[next] : 0;
        const lower = byte | 32;
        if (quote === 39 && (lower === 101 || lower === 98 || lower === 120)) {
          // E'…' may be replaced; B'…' and X'…' stay.
          next = skipString(bytes, next, end, lower === 101, lower === 101);
          if (lower === 101) marker = ESCAPE_STRING;
        } else if (lower === 117 && quote === 38 && next + 1 < end && (bytes[next + 1] === 39 || bytes[next + 1] === 34)) {
          next = bytes[next + 1] === 39 ? skipString(bytes, next + 1, end, false, true) : skipQuotedIdentifier(bytes, next + 1, end);
        } else while (next < end && isIdentPart(bytes[next])) next += 1;
      } else if (byte === 39) {
        next = skipString(bytes, i, end, false, true);
        marker = STRING;
      } else if ((kind & DIGIT) !== 0 || (byte === 46 && next < end && (CLASS[bytes[next]] & DIGIT) !== 0)) {
        next = skipNumber(bytes, i, end);
        marker = next > 0 && isSmallInteger(bytes, i, next) ? INTEGER : NUMBER;
      } else if (byte === 46 && next < end && bytes[next] === 46) next += 1;
      else if (byte === 34) next = skipQuotedIdentifier(bytes, i, end);
      else if (byte === 36) next = skipDollar(bytes, i, end);
      else if (byte < 32 || byte === 127) return false;
      else if (byte === 40 || byte === 91) {
        nesting += 1;
        if (nesting > NESTING) this.heavy = true;
      } else if (byte === 41 || byte === 93) nesting -= 1;
      // `(a, b, …) = (…)`: the tree of a multiple assignment grows with the square of its text.
      else if (byte === 61 && closed && end - start > 512) this.heavy = true;
      if (next < 0 || next > end) return false;
      closed = byte === 41;
      if (space && length > 0) {
        if (length >= KEY_BYTES) return false;
        key[length++] = 32;
        hash = Math.imul(hash ^ 32, 0x01000193);
      }
      space = false;
      if (marker !== 0) {
        const index = this.literals;
        if (index >= LITERALS || length >= KEY_BYTES) return false;
        this.literals = index + 1;
        this.literalStarts[index] = i - start;
        this.literalEnds[index] = next - start;
        key[length++] = marker;
        hash = Math.imul(hash ^ marker, 0x01000193);
        if (keep === undefined || keep[index] !== 1) {
          for (; i < next; i += 1) {
            high |= bytes[i];
            if (bytes[i] === 0) this.zero = true;
          }
          continue;
        }
      }
      if (length + next - i > KEY_BYTES) return false;
      for (; i < next; i += 1) {
        const part = bytes[i];
        if (part === 0) this.zero = true;
        high |= part;
        key[length++] = part;
        hash = Math.imul(hash ^ part, 0x01000193);
      }
    }
    this.nonAscii = high >= 128;
    this.keyBytes = length;
    hash ^= hash >>> 15;
    hash = Math.imul(hash, 0x2c1b3c6d);
    hash ^= hash >>> 13;
    this.hash = hash & 0x3fffffff;
    return true;
  }

  /** Is this the key of the last compute()? */
  matches(other: Uint8Array): boolean {
    const length = this.keyBytes;
    if (other.length !== length) return false;
    const key = this.key;
    for (let i = 0; i < length; i += 1) if (key[i] !== other[i]) return false;
    return true;
  }
}

/**
 * Which literals of a text have to stay in its key: those that do not begin where the tree has an inert constant.
 * A negative number is one constant at its minus sign.
 * @param inert offsets of constants in positions where the value does not matter
 * @param fixed offsets of all other constants
 * @returns undefined: none has to stay
 */
export function literalsToKeep(
  shape: Shape,
  text: Uint8Array,
  inert: ReadonlySet<number>,
  fixed: ReadonlySet<number>,
): Uint8Array | undefined {
  const starts = new Set<number>();
  for (const offset of inert) if (!fixed.has(offset)) starts.add(behindSign(text, offset));
  for (const offset of fixed) starts.delete(behindSign(text, offset));
  let keep: Uint8Array | undefined;
  for (let index = 0; index < shape.literals; index += 1) {
    if (starts.has(shape.literalStarts[index])) continue;
    keep ??= new Uint8Array(shape.literals);
    keep[index] = 1;
  }
  return keep;
}

function behindSign(text: Uint8Array, offset: number): number {
  let at = offset;
  while (at < text.length && (text[at] === 45 || (at > offset && (CLASS[text[at]] & SPACE) !== 0))) {
    // Two minus signs begin a comment.
    if (text[at] === 45 && text[at + 1] === 45) return -1;
    at += 1;
  }
  return at;
}

interface Entry<T> {
  readonly key: Uint8Array;
  readonly keep: Uint8Array | undefined;
  readonly value: T;
}

/**
 * Values by shape, bounded in number and bytes. Two generations: when the young one is full, the old one is dropped and
 * the young one takes its place; a hit in the old one moves up. Two keys of one hash replace each other, so that no
 * choice of texts makes a look-up slow. A shape of which some literals matter leads to a second key that holds them.
 */
export class ShapeCache<T> {
  readonly #entriesMax: number;
  readonly #bytesMax: number;
  #young = new Map<number, Entry<T | undefined>>();
  #old = new Map<number, Entry<T | undefined>>();
  #youngBytes = 0;

  /** @param entriesMax, @param bytesMax of keys; half of each a generation */
  constructor(entriesMax: number, bytesMax: number) {
    this.#entriesMax = Math.max(1, entriesMax >> 1);
    this.#bytesMax = bytesMax >> 1;
  }

  get size(): number {
    return this.#young.size + this.#old.size;
  }

  /** The value for a text of which `shape` holds the key without literals; it may be recomputed over `bytes`. */
  find(shape: Shape, bytes: Uint8Array, start: number, end: number): T | undefined {
    const entry = this.#get(shape);
    if (entry === undefined || entry.keep === undefined) return entry?.value;
    if (!shape.compute(bytes, start, end, entry.keep)) return undefined;
    return this.#get(shape)?.value;
  }

  #get(shape: Shape): Entry<T | undefined> | undefined {
    const young = this.#young.get(shape.hash);
    if (young !== undefined && shape.matches(young.key)) return young;
    const old = this.#old.get(shape.hash);
    if (old === undefined || !shape.matches(old.key)) return undefined;
    this.#old.delete(shape.hash);
    this.#add(shape.hash, old);
    return old;
  }

  /** @param keep as literalsToKeep says. `shape` is recomputed. */
  store(shape: Shape, bytes: Uint8Array, start: number, end: number, keep: Uint8Array | undefined, value: T): void {
    if (!shape.compute(bytes, start, end, undefined)) return;
    this.#add(shape.hash, { key: shape.key.slice(0, shape.keyBytes), keep, value: keep === undefined ? value : undefined });
    if (keep === undefined || !shape.compute(bytes, start, end, keep)) return;
    this.#add(shape.hash, { key: shape.key.slice(0, shape.keyBytes), keep: undefined, value });
  }

  #add(hash: number, entry: Entry<T | undefined>): void {
    const bytes = entry.key.length;
    if (this.#young.size >= this.#entriesMax || this.#youngBytes + bytes > this.#bytesMax) {
      this.#old = this.#young;
      this.#young = new Map();
      this.#youngBytes = 0;
    }
    this.#youngBytes += bytes;
    this.#young.set(hash, entry);
  }
}
