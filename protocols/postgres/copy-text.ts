import { SluiceError } from "../../core/errors.ts";
import type { Work } from "../../core/mask/types.ts";
import type { CopyFormat } from "./sql/types.ts";

// The text and CSV formats of COPY TO (PostgreSQL documentation, COPY, File Formats; src/backend/commands/copyto.c).

const LF = 0x0a;
const BACKSLASH = 0x5c;

/** The field stands between quotes. */
export const QUOTED = 1;
/** What stands there is not the value itself: escapes are among it. */
export const ESCAPES = 2;

/** Where in the row the next byte stands. */
const FIELD = 0;
const BARE = 1;
const BEHIND_BACKSLASH = 2;
const IN_QUOTES = 3;
const BEHIND_ESCAPE = 4;
const BEHIND_QUOTE = 5;

/** Cuts rows into fields. A row may come in pieces: no byte of it is looked at twice. */
export class FieldCutter {
  /** Bounds of each field of the row that cut() found, from the row's first byte; quotes are inside them. */
  readonly starts: Int32Array;
  readonly ends: Int32Array;
  /** QUOTED, ESCAPES. */
  readonly marks: Uint8Array;
  readonly #format: CopyFormat;
  readonly #columns: number;
  /** 1 for the bytes that mean something outside quotes, and between them. */
  readonly #bareStops = new Uint8Array(256);
  readonly #quotedStops = new Uint8Array(256);
  #at = 0;
  #field = 0;
  #place = FIELD;

  /** @param columns how many fields every row has */
  constructor(format: CopyFormat, columns: number) {
    this.#format = format;
    this.#columns = columns;
    const fields = Math.max(columns, 1);
    this.starts = new Int32Array(fields);
    this.ends = new Int32Array(fields);
    this.marks = new Uint8Array(fields);
    const csv = format.kind === "csv";
    for (const byte of [format.delimiter, LF, csv ? format.quote : BACKSLASH]) this.#bareStops[byte] = 1;
    for (const byte of [format.quote, format.escape]) this.#quotedStops[byte] = 1;
  }

  /**
   * @param rowStart where the row begins; the same row in each call until it is whole, wherever it stands by then
   * @returns where the row ends, behind its newline; -1: not before `end`
   * @throws SluiceError SLUICE_PROTOCOL_VIOLATION for what COPY does not write
   */
  cut(bytes: Uint8Array, rowStart: number, end: number): number {
    const { delimiter, quote, escape, kind } = this.#format;
    const csv = kind === "csv";
    const bareStops = this.#bareStops;
    const quotedStops = this.#quotedStops;
    let place = this.#place;
    for (let at = rowStart + this.#at; at < end; at += 1) {
      // Most bytes of a large value mean nothing; they are passed over.
      if (place === BARE) {
        while (at < end) {
          const passed = bytes[at];
          if (bareStops[passed] === 0) at += 1;
          else if (passed === BACKSLASH && !csv && at + 1 < end) {
            this.marks[this.#field] |= ESCAPES;
            at += 2;
          } else break;
        }
        if (at === end) break;
      } else if (place === IN_QUOTES) {
        while (at < end && quotedStops[bytes[at]] === 0) at += 1;
        if (at === end) break;
      }
      const byte = bytes[at];
      switch (place) {
        case IN_QUOTES:
          if (byte === escape && escape !== quote) place = BEHIND_ESCAPE;
          else if (byte === quote) place = BEHIND_QUOTE;
          continue;
        case BEHIND_ESCAPE:
          this.marks[this.#field] |= ESCAPES;
          place = IN_QUOTES;
          continue;
        case BEHIND_BACKSLASH:
          place = BARE;
          continue;
        case BEHIND_QUOTE:
          if (byte === quote && escape === quote) {
            this.marks[this.#field] |= ESCAPES;
            place = IN_QUOTES;
            continue;
          }
          if (byte !== delimiter && byte !== LF) throw malformed();
          break;
        case FIELD:
          this.#begin(at - rowStart);
          if (csv && byte === quote) {
            this.marks[this.#field] = QUOTED;
            place = IN_QUOTES;
            continue;
          }
          place = BARE;
          break;
        default:
      }
      if (byte === LF) {
        this.#finish(at - rowStart);
        if (this.#field !== this.#columns && !(this.#columns === 0 && at === rowStart)) throw malformed();
        this.#at = 0;
        this.#field = 0;
        this.#place = FIELD;
        return at + 1;
      }
      if (byte === delimiter) {
        this.#finish(at - rowStart);
        place = FIELD;
      } else if (csv) {
        if (byte === quote) throw malformed();
      } else if (byte === BACKSLASH) {
        this.marks[this.#field] |= ESCAPES;
        place = BEHIND_BACKSLASH;
      }
    }
    this.#at = end - rowStart;
    this.#place = place;
    return -1;
  }

  #begin(offset: number): void {
    if (this.#field >= this.starts.length) throw malformed();
    this.starts[this.#field] = offset;
    this.marks[this.#field] = 0;
  }

  #finish(offset: number): void {
    this.ends[this.#field] = offset;
    this.#field += 1;
  }
}

const malformed = () => new SluiceError("SLUICE_PROTOCOL_VIOLATION", "the target sent a row of COPY that is not of the format asked for");

/** What an escape costs, in units of Work. */
const ESCAPE_UNITS = 4;
const NAMED_ESCAPES = new Map([
  [0x62, 0x08],
  [0x66, 0x0c],
  [0x6e, 0x0a],
  [0x72, 0x0d],
  [0x74, 0x09],
  [0x76, 0x0b],
]);
/** The same by their name's byte; 0: none. */
const NAMED = Uint8Array.from({ length: 256 }, (_, name) => NAMED_ESCAPES.get(name) ?? 0);
const ESCAPE_NAMES = new Map([...NAMED_ESCAPES].map(([name, byte]) => [byte, name]));

const isOctal = (byte: number): boolean => byte >= 0x30 && byte <= 0x37;

function hexDigit(byte: number): number {
  if (byte >= 0x30 && byte <= 0x39) return byte - 0x30;
  const lower = byte | 0x20;
  return lower >= 0x61 && lower <= 0x66 ? lower - 0x57 : -1;
}

/**
 * The value that stands in a field of text format, read as COPY FROM does: \b \f \n \r \t \v, \ and up to three octal digits, \x and
 * up to two hexadecimal ones; another byte behind a backslash is itself.
 * @param work each escape counts
 * @returns undefined: there are more than that allows
 */
export function unescapeText(bytes: Uint8Array, start: number, end: number, work: Work): Buffer | undefined {
  const value = Buffer.allocUnsafe(end - start);
  let length = 0;
  let at = start;
  while (at < end) {
    while (at < end && bytes[at] !== BACKSLASH) value[length++] = bytes[at++];
    if (at === end) break;
    if (work.left < ESCAPE_UNITS) return undefined;
    work.left -= ESCAPE_UNITS;
    let byte = bytes[at++];
    if (at < end) {
      byte = bytes[at++];
      const named = NAMED[byte];
      if (named !== 0) byte = named;
      else if (isOctal(byte)) {
        let code = byte - 0x30;
        for (let digits = 1; digits < 3 && at < end && isOctal(bytes[at]); digits += 1) code = code * 8 + bytes[at++] - 0x30;
        byte = code & 255;
      } else if (byte === 0x78 && at < end && hexDigit(bytes[at]) >= 0) {
        let code = hexDigit(bytes[at++]);
        if (at < end && hexDigit(bytes[at]) >= 0) code = code * 16 + hexDigit(bytes[at++]);
        byte = code;
      }
    }
    value[length++] = byte;
  }
  return value.subarray(0, length);
}

/** Bytes that text format escapes whatever the delimiter is. */
const ESCAPED = Uint8Array.from({ length: 256 }, (_, byte) => Number(byte === BACKSLASH || ESCAPE_NAMES.has(byte)));

/** A value as a field of text format. */
export function escapeText(value: Uint8Array, format: CopyFormat): Uint8Array {
  const { delimiter } = format;
  let plain = 0;
  while (plain < value.length && ESCAPED[value[plain]] === 0 && value[plain] !== delimiter) plain += 1;
  if (plain === value.length) return value;
  const field: number[] = [];
  for (const byte of value) {
    const name = ESCAPE_NAMES.get(byte);
    if (name !== undefined) field.push(BACKSLASH, name);
    else if (byte === BACKSLASH || byte === delimiter) field.push(BACKSLASH, byte);
    else field.push(byte);
  }
  return Uint8Array.from(field);
}

/**
 * What stands between the quotes of a CSV field, [start, end) without them.
 * @param work each escape counts
 * @returns undefined: there are more than that allows
 */
export function unescapeCsv(bytes: Uint8Array, start: number, end: number, format: CopyFormat, work: Work): Buffer | undefined {
  const { quote, escape } = format;
  const value = Buffer.allocUnsafe(end - start);
  let length = 0;
  for (let at = start; at < end; at += 1) {
    while (at < end && bytes[at] !== escape) value[length++] = bytes[at++];
    if (at === end) break;
    if (work.left < ESCAPE_UNITS) return undefined;
    work.left -= ESCAPE_UNITS;
    if (at + 1 < end && (bytes[at + 1] === quote || bytes[at + 1] === escape)) at += 1;
    value[length++] = bytes[at];
  }
  return value.subarray(0, length);
}

/** A value as a field of CSV, between quotes where it needs them or where `quoted` says so. */
export function escapeCsv(value: Uint8Array, format: CopyFormat, quoted: boolean): Uint8Array {
  const { delimiter, quote, escape, nullText } = format;
  const plain =
    !quoted &&
    !value.some((byte) => byte === delimiter || byte === quote || byte === LF || byte === 0x0d) &&
    // The end of the data in a column of its own, where it stands alone.
    !(value.length === 2 && value[0] === BACKSLASH && value[1] === 0x2e) &&
    Buffer.compare(value, Buffer.from(nullText)) !== 0;
  if (plain) return value;
  const field = [quote];
  for (const byte of value) {
    if (byte === quote || byte === escape) field.push(escape);
    field.push(byte);
  }
  field.push(quote);
  return Uint8Array.from(field);
}
