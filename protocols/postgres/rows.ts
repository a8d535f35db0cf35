import { viewOf } from "../../core/bytes/copy.ts";
import { SluiceError } from "../../core/errors.ts";
import type { Masker } from "../../core/mask/types.ts";
import { ChunkFlags } from "./chunk-flags.ts";
import { type ColumnAction, maskedAction, type SessionMasks, searchedBinary, searchedText, ValueMasker } from "./values.ts";

/** What RowDescription says, a number per column (Message Formats, RowDescription). */
export interface Columns {
  readonly count: number;
  /** OID of the table a column comes from, 0 where it is not a table's column. */
  readonly tableOids: Uint32Array;
  readonly attributes: Int16Array;
  readonly typeOids: Uint32Array;
  /** 0 text, 1 binary. */
  readonly formats: Int16Array;
}

/** bytes[start, end): a whole RowDescription message. @throws SluiceError SLUICE_PROTOCOL_VIOLATION */
export function readColumns(bytes: Uint8Array, start: number, end: number): Columns {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  if (end - start < 7) throw malformed("RowDescription");
  const count = view.getInt16(start + 5);
  // Each column takes at least 19 bytes: an empty name's zero and 18 bytes of numbers.
  if (count < 0 || count * 19 > end - start - 7) throw malformed("RowDescription");
  const columns = {
    count,
    tableOids: new Uint32Array(count),
    attributes: new Int16Array(count),
    typeOids: new Uint32Array(count),
    formats: new Int16Array(count),
  };
  let at = start + 7;
  for (let index = 0; index < count; index += 1) {
    const zero = bytes.indexOf(0, at);
    if (zero < 0 || zero + 19 > end) throw malformed("RowDescription");
    at = zero + 1;
    columns.tableOids[index] = view.getUint32(at);
    columns.attributes[index] = view.getInt16(at + 4);
    columns.typeOids[index] = view.getUint32(at + 6);
    columns.formats[index] = view.getInt16(at + 16);
    at += 18;
  }
  if (at !== end) throw malformed("RowDescription");
  return columns;
}

function malformed(what: string): SluiceError {
  return new SluiceError("SLUICE_PROTOCOL_VIOLATION", `the target sent a malformed ${what}`);
}

/**
 * What to do with each column of a result. @param formats the formats asked for by Bind, which go before the
 * description's own (Describe of a statement always says text)
 * @returns undefined when the result passes as it is
 */
export function planColumns(
  columns: Columns,
  formats: "text" | "binary" | readonly number[] | undefined,
  masks: SessionMasks,
  byColumn: boolean,
): (ColumnAction | undefined)[] | undefined {
  let acts = false;
  const actions: (ColumnAction | undefined)[] = [];
  for (let index = 0; index < columns.count; index += 1) {
    const mask = byColumn ? masks.columns.get(columns.tableOids[index])?.get(columns.attributes[index]) : undefined;
    const type = columns.typeOids[index];
    const binary = formats === undefined ? columns.formats[index] !== 0 : formatOf(formats, index) !== 0;
    let action: ColumnAction | "impossible" | undefined;
    if (mask !== undefined) action = maskedAction(mask, type);
    else if (masks.masker.scans) action = binary ? searchedBinary(type) : searchedText(type);
    // Of a binary cursor nobody knows before; everything else is refused before it runs.
    if (action === "impossible") action = { kind: "column", mask: { rule: masks.contentRule, method: "null" }, asNull: true };
    if (action !== undefined) acts = true;
    actions.push(action);
  }
  return acts ? actions : undefined;
}

/** Whether every row has to be taken apart, not only those in which the prefilter suspects something. */
export const actsAlways = (actions: readonly (ColumnAction | undefined)[]): boolean =>
  actions.some((action) => action !== undefined && action.kind !== "scan");

function formatOf(formats: "text" | "binary" | readonly number[], index: number): number {
  if (formats === "text") return 0;
  if (formats === "binary") return 1;
  return formats[index] ?? 1;
}

/** Why a result in binary format cannot be masked, or undefined when it can (or need not) be. */
export function binaryRefusal(
  columns: Columns,
  formats: "binary" | readonly number[],
  masks: SessionMasks,
  byColumn: boolean,
): string | undefined {
  for (let index = 0; index < columns.count; index += 1) {
    if (formatOf(formats, index) === 0) continue;
    if (byColumn && masks.columns.get(columns.tableOids[index])?.has(columns.attributes[index])) continue;
    const type = columns.typeOids[index];
    if (masks.masker.scans && searchedBinary(type) === "impossible") {
      return `result column ${index + 1} (type OID ${type}) was asked for in binary format, in which it cannot be searched for sensitive data`;
    }
  }
  return undefined;
}

/** Why the result of an Execute cannot be masked although it may run; undefined: it can. @param columns undefined: not described */
export function unmaskable(
  masks: SessionMasks | undefined,
  byColumn: boolean,
  columns: Columns | undefined,
  formats: "text" | "binary" | readonly number[],
): string | undefined {
  if (formats === "text" || masks === undefined) return undefined;
  if (columns === undefined) {
    return "the result was asked for in binary format before the statement was described, so it cannot be masked; ask for text";
  }
  return binaryRefusal(columns, formats, masks, byColumn);
}

/** Whether what the prefilter says of the row's bytes says something about such a value. */
const isSearched = (action: ColumnAction | undefined): boolean => action?.kind === "scan" || (action?.kind === "decode" && action.text);

/** Whether every searched value of a row is shorter than `shortestBytes`. False too where the lengths do not add up. */
function holdsShortOnly(
  bytes: Uint8Array,
  start: number,
  end: number,
  actions: readonly (ColumnAction | undefined)[],
  shortestBytes: number,
): boolean {
  if (end - start < 7) return false;
  const view = viewOf(bytes);
  if (view.getUint16(start + 5) !== actions.length) return false;
  let at = start + 7;
  for (const action of actions) {
    if (at + 4 > end) return false;
    const length = view.getInt32(at);
    if (length >= shortestBytes && isSearched(action)) return false;
    at += 4 + Math.max(0, length);
  }
  return at === end;
}

/** Rows up to this are looked at value by value first: below it that costs less than a call of the native scan. */
const SHORT_ROW_BYTES = 64;

const NO_BUFFER = Buffer.alloc(0);
const OUT_BYTES = 1_024;

/** Searches and rewrites DataRow messages; one per session, its buffer is reused. */
export class RowMasker {
  /** Made when a row is first rewritten: most sessions never need it. */
  #out: Buffer = NO_BUFFER;
  #length = 0;
  readonly #flags = new ChunkFlags();
  readonly #values = new ValueMasker();

  /** Another chunk begins: what the prefilter said about the last one holds no more. */
  newChunk(): void {
    this.#flags.newChunk();
  }

  /**
   * @param available end of what is known of the chunk; the prefilter looks at it once
   * @param always what actsAlways() says of the actions
   * @param counts masked values per rule; added to
   * @returns undefined: the row passes as it is; else the message to send instead, valid until the next call
   */
  row(
    bytes: Uint8Array,
    start: number,
    end: number,
    available: number,
    actions: readonly (ColumnAction | undefined)[],
    masks: SessionMasks,
    always: boolean,
    counts: Map<string, number>,
  ): Uint8Array | undefined {
    this.#values.newRow();
    const flagged = masks.masker.scans && this.#flagged(masks.masker, bytes, start, end, available, actions);
    return flagged || always ? this.#rewrite(bytes, start, end, actions, masks, flagged, counts) : undefined;
  }

  /** Rows that end before this of bytes[start, available) pass as they are, where no column is masked always. */
  passUpTo(masks: SessionMasks, bytes: Uint8Array, start: number, available: number): number {
    if (!masks.masker.scans) return available;
    this.#values.newRow();
    return this.#flags.cleanUpTo(masks.masker, bytes, start, available, this.#values.work);
  }

  /** Whether the prefilter suspects something in bytes[start, end). */
  #flagged(
    masker: Masker,
    bytes: Uint8Array,
    start: number,
    end: number,
    available: number,
    actions: readonly (ColumnAction | undefined)[],
  ): boolean {
    const isShort = end - start <= SHORT_ROW_BYTES && !this.#flags.covers(bytes, start);
    if (isShort && holdsShortOnly(bytes, start, end, actions, masker.shortestBytes)) return false;
    return this.#flags.any(masker, bytes, start, end, available, this.#values.work);
  }

  #rewrite(
    bytes: Uint8Array,
    start: number,
    end: number,
    actions: readonly (ColumnAction | undefined)[],
    masks: SessionMasks,
    flagged: boolean,
    counts: Map<string, number>,
  ): Uint8Array | undefined {
    const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
    if (end - start < 7) throw malformed("DataRow");
    const count = view.getInt16(start + 5);
    if (count !== actions.length) throw malformed("DataRow");
    let at = start + 7;
    let copiedUpTo = start;
    let changed = false;
    for (let index = 0; index < count; index += 1) {
      if (at + 4 > end) throw malformed("DataRow");
      const length = view.getInt32(at);
      if (length < -1 || (length > 0 && at + 4 + length > end)) throw malformed("DataRow");
      const valueStart = at + 4;
      const valueEnd = length > 0 ? valueStart + length : valueStart;
      const action = actions[index];
      if (action !== undefined && length >= 0) {
        const replaced = this.#value(action, bytes, valueStart, valueEnd, masks, flagged, counts);
        if (replaced !== undefined) {
          if (!changed) this.#length = 0;
          changed = true;
          this.#append(bytes, copiedUpTo, at);
          this.#appendLength(replaced === null ? -1 : replaced.length);
          if (replaced !== null) this.#append(replaced, 0, replaced.length);
          copiedUpTo = valueEnd;
        }
      }
      at = valueEnd;
    }
    if (at !== end) throw malformed("DataRow");
    if (!changed) return undefined;
    this.#append(bytes, copiedUpTo, end);
    this.#out.writeInt32BE(this.#length - 1, 1);
    return this.#out.subarray(0, this.#length);
  }

  #value(
    action: ColumnAction,
    bytes: Uint8Array,
    start: number,
    end: number,
    masks: SessionMasks,
    flagged: boolean,
    counts: Map<string, number>,
  ): Uint8Array | null | undefined {
    if (action.kind === "column") return this.#values.value(action, bytes, start, end, masks.masker, 0, counts);
    if (!flagged && isSearched(action)) return undefined;
    if (action.kind === "decode") return this.#decoded(action, bytes, start, end, masks.masker, counts);
    const kinds = this.#flags.kinds(masks.masker, bytes, start, end, this.#values.work);
    return kinds === 0 ? undefined : this.#values.value(action, bytes, start, end, masks.masker, kinds, counts);
  }

  #decoded(
    action: ColumnAction & { readonly kind: "decode" },
    bytes: Uint8Array,
    start: number,
    end: number,
    masker: Masker,
    counts: Map<string, number>,
  ): Uint8Array | null | undefined {
    const { work } = this.#values;
    const kindsOf = action.text
      ? (text: Uint8Array, from: number, to: number) => this.#flags.kinds(masker, text, from, to, work)
      : (text: Uint8Array, from: number, to: number) => masker.kindsIn(text, from, to, work);
    return this.#values.decoded(action.type, bytes, start, end, masker, kindsOf, !action.text || !this.#flags.complete, counts);
  }

  #append(bytes: Uint8Array, start: number, end: number): void {
    this.#reserve(end - start);
    this.#out.set(bytes.subarray(start, end), this.#length);
    this.#length += end - start;
  }

  #appendLength(value: number): void {
    this.#reserve(4);
    this.#out.writeInt32BE(value, this.#length);
    this.#length += 4;
  }

  #reserve(count: number): void {
    if (this.#length + count <= this.#out.length) return;
    // Not from Node's pool, of which a few kept bytes would keep 64 KiB.
    const grown = Buffer.allocUnsafeSlow(Math.max(OUT_BYTES, (this.#length + count) * 2));
    grown.set(this.#out.subarray(0, this.#length));
    this.#out = grown;
  }
}
