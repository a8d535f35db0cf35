import { SluiceError } from "../../core/errors.ts";
import { LIMITS } from "../../core/limits.ts";
import type { Masker } from "../../core/mask/types.ts";
import { ChunkFlags } from "./chunk-flags.ts";
import { BinaryCutter } from "./copy-binary.ts";
import { type CopyPlan, SEARCHED } from "./copy-plan.ts";
import { ESCAPES, escapeCsv, escapeText, FieldCutter, QUOTED, unescapeCsv, unescapeText } from "./copy-text.ts";
import { actsAlways, RowMasker } from "./rows.ts";
import type { CopyFormat } from "./sql/types.ts";
import { type ColumnAction, EVERY_KIND, ValueMasker } from "./values.ts";

/** Masks the CopyData messages of one COPY TO STDOUT. The rows are a stream: messages need not begin and end with them. */
export interface CopyMasker {
  /** Rows that the last message() completed. */
  readonly rows: number;
  /** Another chunk begins: what the prefilter said about the last one holds no more. */
  newChunk(): void;
  /**
   * One CopyData message, bytes[start, end). @param available end of what is known of the chunk
   * @param counts masked values per rule; added to
   * @returns undefined: it passes as it is; else the message to send instead, valid until the next call; empty: none, its bytes are held
   */
  message(bytes: Uint8Array, start: number, end: number, available: number, counts: Map<string, number>): Uint8Array | undefined;
  /** Messages of bytes[start, available) that end before this, and each with a newline, pass as they are; each is counted as a row, as PostgreSQL sends them. */
  passUpTo(bytes: Uint8Array, start: number, available: number): number;
  /** CopyDone. @throws SluiceError SLUICE_PROTOCOL_VIOLATION when the last row is not whole */
  end(): void;
}

/**
 * @param overallFormat of CopyOutResponse: 0 text or CSV, 1 binary @param columns how many it says there are
 * @throws SluiceError SLUICE_MASK_IMPOSSIBLE when these are not what the plan is for
 */
export function createCopyMasker(plan: CopyPlan, overallFormat: number, columns: number): CopyMasker {
  const binary = plan.format.kind === "binary";
  const matches = plan.actions === undefined || plan.actions.length === columns;
  if (overallFormat !== (binary ? 1 : 0) || (plan.exact && !matches))
    throw new SluiceError("SLUICE_MASK_IMPOSSIBLE", "COPY sends other columns than the catalogue knows, so they cannot be masked");
  return binary ? new BinaryCopyMasker(plan, columns) : new TextCopyMasker(plan, columns, matches);
}

const MESSAGE_HEADER_BYTES = 5;
const NOTHING = new Uint8Array(0);

/** A CopyData message under construction. */
class Outgoing {
  #bytes = Buffer.allocUnsafe(4_096);
  #length = MESSAGE_HEADER_BYTES;

  clear(): void {
    this.#length = MESSAGE_HEADER_BYTES;
  }

  add(bytes: Uint8Array, start: number, end: number): void {
    const needed = this.#length + end - start;
    if (needed > this.#bytes.length) {
      const grown = Buffer.allocUnsafe(needed * 2);
      grown.set(this.#bytes.subarray(0, this.#length));
      this.#bytes = grown;
    }
    if (end - start > LOOPED_BYTES) this.#bytes.set(bytes.subarray(start, end), this.#length);
    else for (let at = start, to = this.#length; at < end; at += 1, to += 1) this.#bytes[to] = bytes[at];
    this.#length = needed;
  }

  /** The message; empty where nothing is in it. */
  message(): Uint8Array {
    if (this.#length === MESSAGE_HEADER_BYTES) return NOTHING;
    this.#bytes[0] = 0x64;
    this.#bytes.writeInt32BE(this.#length - 1, 1);
    return this.#bytes.subarray(0, this.#length);
  }
}

/** The beginning of a row whose end has not come. In front there is room for a message's header, which RowMasker wants to see. */
class Held {
  #bytes = Buffer.alloc(0);
  #length = 0;

  get any(): boolean {
    return this.#length > 0;
  }

  /** All that is held, now with these bytes behind it: it begins at MESSAGE_HEADER_BYTES. */
  with(bytes: Uint8Array, start: number, end: number): Buffer {
    const needed = this.#length + end - start;
    if (needed > LIMITS.inspectedBackendMessageBytes) {
      throw new SluiceError(
        "SLUICE_LIMIT_EXCEEDED",
        `a row of COPY of more than ${LIMITS.inspectedBackendMessageBytes} bytes cannot be masked`,
      );
    }
    if (MESSAGE_HEADER_BYTES + needed > this.#bytes.length) {
      const grown = Buffer.alloc(MESSAGE_HEADER_BYTES + needed * 2);
      grown.set(this.#bytes.subarray(0, MESSAGE_HEADER_BYTES + this.#length));
      this.#bytes = grown;
    }
    this.#bytes.set(bytes.subarray(start, end), MESSAGE_HEADER_BYTES + this.#length);
    this.#length = needed;
    return this.#bytes.subarray(0, MESSAGE_HEADER_BYTES + needed);
  }

  /** Only bytes[start, end) are held from here on; they may be held already. */
  keep(bytes: Uint8Array, start: number, end: number): void {
    if (start === end && this.#length === 0) return;
    if (this.#length > 0 && start === MESSAGE_HEADER_BYTES && end - start === this.#length) return;
    const kept = Buffer.from(bytes.subarray(start, end));
    this.#length = 0;
    if (kept.length === 0) this.#bytes = Buffer.alloc(0);
    else this.with(kept, 0, kept.length);
  }
}

/** What the two formats share: rows out of a stream, changed ones into a message. */
abstract class StreamMasker implements CopyMasker {
  rows = 0;
  readonly #held = new Held();
  protected readonly out = new Outgoing();
  /** Of the present bytes everything before this is in `out` or left out of it. */
  protected copiedUpTo = 0;
  protected changed = false;

  abstract newChunk(): void;
  /** Whether the message may pass without being cut; counts its rows where it does. */
  protected abstract passes(bytes: Uint8Array, start: number, end: number, available: number): boolean;
  /** passUpTo() where no row has begun. */
  protected abstract clean(bytes: Uint8Array, start: number, available: number): number;
  protected abstract cut(bytes: Uint8Array, start: number, end: number): number;
  /** What cut() found. @param own these bytes are the message itself, not what was held */
  protected abstract mask(
    bytes: Uint8Array,
    start: number,
    end: number,
    available: number,
    own: boolean,
    counts: Map<string, number>,
  ): void;
  protected abstract atEnd(): boolean;

  message(bytes: Uint8Array, start: number, end: number, available: number, counts: Map<string, number>): Uint8Array | undefined {
    this.rows = 0;
    const held = this.#held.any;
    if (!held && this.passes(bytes, start + MESSAGE_HEADER_BYTES, end, available)) return undefined;
    const source = held ? this.#held.with(bytes, start + MESSAGE_HEADER_BYTES, end) : bytes;
    const to = held ? source.length : end;
    let at = held ? MESSAGE_HEADER_BYTES : start + MESSAGE_HEADER_BYTES;
    this.out.clear();
    this.copiedUpTo = at;
    this.changed = false;
    while (at < to) {
      const next = this.cut(source, at, to);
      if (next < 0) break;
      this.mask(source, at, next, held ? to : available, !held, counts);
      at = next;
    }
    if (!this.changed && !held && at === to) return undefined;
    this.out.add(source, this.copiedUpTo, at);
    this.#held.keep(source, at, to);
    return this.out.message();
  }

  passUpTo(bytes: Uint8Array, start: number, available: number): number {
    return this.#held.any ? start : this.clean(bytes, start, available);
  }

  end(): void {
    if (this.#held.any || !this.atEnd()) throw new SluiceError("SLUICE_PROTOCOL_VIOLATION", "the target's COPY data end within a row");
  }

  /** Instead of [from, to) of the present bytes. */
  protected replace(bytes: Uint8Array, from: number, to: number, replacement: Uint8Array): void {
    this.out.add(bytes, this.copiedUpTo, from);
    this.out.add(replacement, 0, replacement.length);
    this.copiedUpTo = to;
    this.changed = true;
  }
}

const LF = 0x0a;
const COPY_DATA = 0x64;
const BACKSLASH = 0x5c;
/** Bytes that no detector takes for a part of a value: with others between the fields, what the prefilter says of a whole chunk says nothing. */
const PLAIN_DELIMITERS = new Set([0x09, 0x2c, 0x3b, 0x7c]);
const PLAIN_QUOTES = new Set([0, 0x22, 0x27]);

class TextCopyMasker extends StreamMasker {
  readonly #format: CopyFormat;
  readonly #masker: Masker;
  readonly #actions: readonly (ColumnAction | undefined)[];
  /** Every row has to be cut. */
  readonly #always: boolean;
  readonly #plain: boolean;
  readonly #null: Buffer;
  readonly #cutter: FieldCutter;
  readonly #values = new ValueMasker();
  #headerAwaited: boolean;
  readonly #flags = new ChunkFlags();
  #suspected = false;

  constructor(plan: CopyPlan, columns: number, matches: boolean) {
    super();
    const { format } = plan;
    this.#format = format;
    this.#masker = plan.masks.masker;
    this.#actions = matches && plan.actions !== undefined ? plan.actions : Array.from({ length: columns }, () => SEARCHED);
    this.#always = actsAlways(this.#actions);
    this.#plain = PLAIN_DELIMITERS.has(format.delimiter) && PLAIN_QUOTES.has(format.quote);
    this.#null = Buffer.from(format.nullText);
    this.#cutter = new FieldCutter(format, columns);
    this.#headerAwaited = format.header;
  }

  newChunk(): void {
    this.#flags.newChunk();
  }

  /** Whether something may be in the values of this message that stand in it as they are. */
  #suspects(bytes: Uint8Array, start: number, end: number, available: number): boolean {
    const masker = this.#masker;
    if (!masker.scans) return false;
    if (!this.#plain) return true;
    return this.#flags.any(masker, bytes, start, end, available, this.#values.work);
  }

  protected passes(bytes: Uint8Array, start: number, end: number, available: number): boolean {
    this.#values.newRow();
    this.#suspected = this.#suspects(bytes, start, end, available);
    if (this.#suspected || this.#always || this.#headerAwaited || end === start || bytes[end - 1] !== LF) return false;
    if (this.#specialIn(bytes, start, end) >= 0) return false;
    for (let at = indexIn(bytes, LF, start, end); at >= 0; at = indexIn(bytes, LF, at + 1, end)) this.rows += 1;
    return true;
  }

  protected clean(bytes: Uint8Array, start: number, available: number): number {
    if (this.#always || this.#headerAwaited || !this.#plain) return start;
    this.#values.newRow();
    const upTo = this.#masker.scans ? this.#flags.cleanUpTo(this.#masker, bytes, start, available, this.#values.work) : available;
    if (upTo === start) return start;
    for (let at = this.#specialIn(bytes, start, upTo); at >= 0; at = this.#specialIn(bytes, at + 1, upTo)) {
      if (!isLengthByte(bytes, start, at)) return at;
    }
    return upTo;
  }

  /** Where the first quote of CSV is, or the first backslash of text that does not only stand for NULL; -1: nowhere. */
  #specialIn(bytes: Uint8Array, start: number, end: number): number {
    const { delimiter, kind, quote } = this.#format;
    if (kind === "csv") return indexIn(bytes, quote, start, end);
    const bounds = (at: number): boolean => at < start || bytes[at] === delimiter || bytes[at] === LF;
    for (let at = indexIn(bytes, BACKSLASH, start, end); at >= 0; at = indexIn(bytes, BACKSLASH, at + 1, end)) {
      if (bytes[at + 1] !== 0x4e || at + 2 >= end || !bounds(at - 1) || !bounds(at + 2)) return at;
    }
    return -1;
  }

  protected cut(bytes: Uint8Array, start: number, end: number): number {
    return this.#cutter.cut(bytes, start, end);
  }

  protected mask(bytes: Uint8Array, start: number, _end: number, _available: number, own: boolean, counts: Map<string, number>): void {
    if (this.#headerAwaited) {
      this.#headerAwaited = false;
      return;
    }
    this.rows += 1;
    // The first row of a message shares what it may cost with the look at the whole message.
    if (!own || this.rows > 1) this.#values.newRow();
    const { starts, ends, marks } = this.#cutter;
    // What was held the prefilter has not seen in one piece.
    const suspected = this.#suspected || (!own && this.#masker.scans);
    for (let index = 0; index < this.#actions.length; index += 1) {
      const action = this.#actions[index];
      if (action === undefined) continue;
      if (action.kind === "scan" && !suspected && (marks[index] & ESCAPES) === 0) continue;
      // Of a value that stands in the message as it is the prefilter has told already.
      const told = own && this.#suspected && this.#plain && (marks[index] & ESCAPES) === 0;
      this.#field(action, bytes, start + starts[index], start + ends[index], marks[index], told, counts);
    }
  }

  #field(
    action: ColumnAction,
    bytes: Uint8Array,
    start: number,
    end: number,
    marks: number,
    told: boolean,
    counts: Map<string, number>,
  ): void {
    if (action.kind === "decode") throw new SluiceError("SLUICE_INTERNAL", "a binary form in COPY as text");
    const format = this.#format;
    const csv = format.kind === "csv";
    const quoted = (marks & QUOTED) !== 0;
    if (!quoted && this.#isNull(bytes, start, end)) return;
    let value = bytes;
    let from = quoted ? start + 1 : start;
    let to = quoted ? end - 1 : end;
    let kinds = 0;
    // What is too large for the exact matchers is not unescaped where it is suspected as it stands.
    const large = action.kind === "scan" && !told && to - from > LIMITS.maskedValueBytes;
    if (large) kinds = this.#masker.kindsIn(value, from, to, this.#values.work);
    if ((marks & ESCAPES) !== 0 && kinds === 0) {
      const work = action.kind === "scan" ? this.#values.work : { left: Number.POSITIVE_INFINITY };
      const unescaped = csv ? unescapeCsv(bytes, from, to, format, work) : unescapeText(bytes, from, to, work);
      if (unescaped === undefined) {
        this.#values.exhaust();
        kinds = EVERY_KIND;
      } else {
        value = unescaped;
        from = 0;
        to = value.length;
      }
    }
    if (action.kind === "scan" && kinds === 0) {
      if (told) kinds = this.#flags.kinds(this.#masker, bytes, from, to, this.#values.work);
      else if (!large || value !== bytes) kinds = this.#masker.kindsIn(value, from, to, this.#values.work);
      if (kinds === 0) return;
    }
    const masked = this.#values.value(action, value, from, to, this.#masker, kinds, counts);
    if (masked === undefined) return;
    if (masked === null) this.replace(bytes, start, end, this.#null);
    else this.replace(bytes, start, end, csv ? escapeCsv(masked, format, quoted) : escapeText(masked, format));
  }

  /**
   * In CSV a value that looks like NULL stands between quotes, and in text nothing looks like \N. Any other mark of NULL in text
   * could be a value as well: it is masked like one, or the choice of the mark would tell who has it.
   */
  #isNull(bytes: Uint8Array, start: number, end: number): boolean {
    if (end - start !== this.#null.length || (this.#format.kind === "text" && this.#format.nullText !== "\\N")) return false;
    return this.#null.every((byte, index) => bytes[start + index] === byte);
  }

  protected atEnd(): boolean {
    return true;
  }
}

/**
 * Whether bytes[at] is one of the two low bytes of a CopyData message's length. The first message begins at `start`, every other behind
 * a newline. Text holds no zero bytes, so nothing else looks like `d 0 0 .` or `d 0 0 0 .`: the zeros alone may be those of 65536.
 */
function isLengthByte(bytes: Uint8Array, start: number, at: number): boolean {
  if (at < start + 3 || bytes[at - 1] !== 0 || bytes[at - 2] !== 0) return false;
  const type = bytes[at - 3] === 0 ? at - 4 : at - 3;
  return type >= start && bytes[type] === COPY_DATA && (type === start || bytes[type - 1] === LF);
}

/** Below this a loop costs less than a call. */
const LOOPED_BYTES = 128;

/** Where the byte stands in [start, end), or -1; unlike indexOf it does not look beyond. */
function indexIn(bytes: Uint8Array, byte: number, start: number, end: number): number {
  if (end - start > LOOPED_BYTES) {
    // A Buffer's is the C library's search; that of a typed array goes byte by byte.
    const at = Buffer.from(bytes.buffer, bytes.byteOffset + start, end - start).indexOf(byte);
    return at < 0 ? -1 : start + at;
  }
  for (let at = start; at < end; at += 1) if (bytes[at] === byte) return at;
  return -1;
}

class BinaryCopyMasker extends StreamMasker {
  readonly #plan: CopyPlan;
  readonly #actions: readonly (ColumnAction | undefined)[];
  readonly #always: boolean;
  readonly #cutter: BinaryCutter;
  readonly #rows = new RowMasker();

  constructor(plan: CopyPlan, columns: number) {
    super();
    if (plan.actions === undefined) throw new SluiceError("SLUICE_INTERNAL", "binary COPY is masked without knowing its columns");
    this.#plan = plan;
    this.#actions = plan.actions;
    this.#always = actsAlways(plan.actions);
    this.#cutter = new BinaryCutter(columns);
  }

  newChunk(): void {
    this.#rows.newChunk();
  }

  protected passes(): boolean {
    return false;
  }

  protected clean(_bytes: Uint8Array, start: number): number {
    return start;
  }

  protected cut(bytes: Uint8Array, start: number, end: number): number {
    return this.#cutter.cut(bytes, start, end);
  }

  protected mask(bytes: Uint8Array, start: number, end: number, available: number, own: boolean, counts: Map<string, number>): void {
    if (this.#cutter.part !== "row") return;
    this.rows += 1;
    if (!own) this.#rows.newChunk();
    // A row here is the body of a DataRow. The bytes before it stand for that message's header; in front of the first row of a message
    // that is its own header.
    const from = start - MESSAGE_HEADER_BYTES;
    const masked = this.#rows.row(bytes, from, end, available, this.#actions, this.#plan.masks, this.#always, counts);
    if (masked !== undefined) this.replace(bytes, start, end, masked.subarray(MESSAGE_HEADER_BYTES));
  }

  protected atEnd(): boolean {
    return this.#cutter.ended;
  }
}
