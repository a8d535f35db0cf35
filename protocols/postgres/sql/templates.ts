import { newView, viewOf } from "../../../core/bytes/copy.ts";
import { isSmallInteger, SMALL_INTEGER_DIGITS } from "./lexer.ts";
import type { Shape } from "./shape.ts";

/** Templates, the bytes each has room for, and the longest text that is compared. */
const SLOTS = 64;
const SLOT_BYTES = 1_024;
const TEXT_BYTES = 65_536;

/** A slot: the template's length (little-endian), how many other texts it will still see off, then the template. */
const PATIENCE_AT = 2;
const HEAD_BYTES = 3;
/** So many texts of its slot that it does not match, one after the other, take a template's place. */
const PATIENCE = 8;

/** Stand for a literal in a template; a text that holds one of these bytes otherwise gets none. */
const STRING = 1;
const INTEGER = 2;
const MARKER_MAX = 2;

const QUOTE = 39;

/**
 * Texts of late, as they were written, with holes where a literal does not matter: whoever sends the same statement again sends the
 * same bytes but for its literals, and one comparison says so, over far less memory than making the key of its shape and looking
 * that up. A hole takes only what the lexer, whatever comes next, reads as one literal of the same kind: one to nine digits, or
 * ASCII between two quotes. The tokens around it are then the same ones: a number or a string that ended where it did is followed
 * by the same bytes, up to the first byte of the next literal, and the lexer looks no further. All other texts are not found here.
 */
export class Templates<T> {
  readonly #slots = new Uint8Array(SLOTS * SLOT_BYTES);
  readonly #view = newView(this.#slots);
  readonly #values: (T | undefined)[] = Array.from({ length: SLOTS }, () => undefined);

  /** What learn() was given for a text that has the same key; undefined: not known here. */
  find(bytes: Uint8Array, start: number, end: number): T | undefined {
    if (end - start > TEXT_BYTES) return undefined;
    const slots = this.#slots;
    const slot = slotOf(bytes, start, end);
    const base = slot * SLOT_BYTES;
    const stop = base + HEAD_BYTES + (slots[base] | (slots[base + 1] << 8));
    const template = this.#view;
    const text = viewOf(bytes);
    let i = start;
    for (let at = base + HEAD_BYTES; at < stop; at += 1) {
      // Four bytes at a time while none of them is a hole.
      while (at + 4 <= stop && i + 4 <= end) {
        const four = template.getInt32(at, true);
        if (four !== text.getInt32(i, true) || holdsMarker(four)) break;
        at += 4;
        i += 4;
      }
      if (at >= stop) break;
      if (i >= end) return undefined;
      const wanted = slots[at];
      const first = i;
      let byte = bytes[i];
      i += 1;
      if (wanted > MARKER_MAX) {
        if (byte !== wanted) return undefined;
      } else if (wanted === INTEGER) {
        if (byte < 48 || byte > 57) return undefined;
        while (i < end && bytes[i] >= 48 && bytes[i] <= 57) i += 1;
        if (i - first > SMALL_INTEGER_DIGITS) return undefined;
      } else {
        if (byte !== QUOTE) return undefined;
        do {
          if (i >= end) return undefined;
          byte = bytes[i];
          i += 1;
          // Whether it is UTF-8 is not asked here.
          if (byte === 0 || byte >= 128) return undefined;
        } while (byte !== QUOTE);
      }
    }
    if (i !== end) return undefined;
    if (slots[base + PATIENCE_AT] !== PATIENCE) slots[base + PATIENCE_AT] = PATIENCE;
    return this.#values[slot];
  }

  /**
   * @param shape of this text, as it was when `value` was found under its key; the text has no zero byte and is valid UTF-8
   */
  learn(shape: Shape, bytes: Uint8Array, start: number, end: number, value: T): void {
    const slots = this.#slots;
    const slot = slotOf(bytes, start, end);
    const base = slot * SLOT_BYTES;
    if (slots[base + PATIENCE_AT] > 0) {
      slots[base + PATIENCE_AT] -= 1;
      return;
    }
    slots[base + PATIENCE_AT] = PATIENCE;
    this.#values[slot] = undefined;
    const length = writeTemplate(shape, bytes, start, end, slots, base + HEAD_BYTES, base + SLOT_BYTES);
    if (length < 0) return;
    slots[base] = length & 255;
    slots[base + 1] = length >> 8;
    this.#values[slot] = value;
  }
}

/** Whether one of the four bytes is MARKER_MAX or less: less 3 it borrows, so that its highest bit is set, which it was not. */
const holdsMarker = (four: number): boolean => ((four - 0x03030303) & ~four & 0x80808080) !== 0;

/** By a few bytes from where statements differ and literals are rare. */
function slotOf(bytes: Uint8Array, start: number, end: number): number {
  const length = end - start;
  let hash = length > 1 ? bytes[start + 1] : 0;
  if (length > 7) hash = hash * 3 + bytes[start + 7];
  if (length > 16) hash = hash * 5 + bytes[start + 16];
  if (length > 28) hash = hash * 7 + bytes[start + 28];
  return hash % SLOTS;
}

/** @returns its length; -1: there is no room, or a byte of the text would be taken for a hole */
function writeTemplate(
  shape: Shape,
  bytes: Uint8Array,
  start: number,
  end: number,
  to: Uint8Array,
  toStart: number,
  toEnd: number,
): number {
  let at = toStart;
  let i = start;
  let index = 0;
  while (i < end) {
    if (at >= toEnd) return -1;
    if (index < shape.literals && i === start + shape.literalStarts[index]) {
      const literalEnd = start + shape.literalEnds[index];
      const kind = shape.keep?.[index] === 1 ? 0 : holeFor(bytes, i, literalEnd);
      index += 1;
      if (kind !== 0) {
        to[at++] = kind;
        i = literalEnd;
        continue;
      }
    }
    if (bytes[i] <= MARKER_MAX) return -1;
    to[at++] = bytes[i++];
  }
  return at - toStart;
}

/** 0: a literal of any other kind stays as it is. */
function holeFor(bytes: Uint8Array, start: number, end: number): number {
  if (bytes[start] === QUOTE) return STRING;
  return isSmallInteger(bytes, start, end) ? INTEGER : 0;
}
