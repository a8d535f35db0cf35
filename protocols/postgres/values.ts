import { LIMITS } from "../../core/limits.ts";
import type { Masker, Work } from "../../core/mask/types.ts";
import type { MaskMethod } from "../../core/policy/types.ts";
import { binaryForm, GIVE_UP, holdsText, isJson, maskBinary } from "./binary-values.ts";

/** Masks in force for one session at one catalogue generation. */
export interface SessionMasks {
  readonly masker: Masker;
  /** table OID → attribute number → the rule that masks it. */
  readonly columns: ReadonlyMap<number, ReadonlyMap<number, ColumnMask>>;
  /** The first rule with detectors, which what cannot be searched counts for; "" where there is none. */
  readonly contentRule: string;
}

export interface ColumnMask {
  readonly rule: string;
  readonly method: MaskMethod;
}

/** What happens to each column of one result: undefined passes as it is. */
export type ColumnAction =
  /** Searched as text. `json` has to stay JSON; "likely" where only the value itself says whether it is. */
  | { readonly kind: "scan"; readonly nullOnHit: boolean; readonly json?: boolean | "likely" }
  | { readonly kind: "column"; readonly mask: ColumnMask; readonly asNull: boolean }
  /** A binary form that has to be taken apart before it can be searched. `text`: the text of its elements stands in it as it is. */
  | { readonly kind: "decode"; readonly type: number; readonly text: boolean };

const TEXT_TYPES = new Set([18, 19, 25, 1042, 1043, 705, 2275]);
const JSON_TYPES = new Set([114, 3802]);
const JSON_AND_TEXT_ARRAYS = new Set([...JSON_TYPES, 1002, 1003, 1009, 1014, 1015, 199, 3807, 142, 143]);
/** Text forms of ten digits and a sign at most, in which nothing is a match: bool, int2, int4, oid. */
const INERT_TEXT_TYPES = new Set([16, 21, 23, 26]);

/** A masked column: text takes what the method makes of it, in binary too, where it is the same bytes; every other type becomes NULL. */
export const maskedAction = (mask: ColumnMask, type: number): ColumnAction => ({ kind: "column", mask, asNull: !TEXT_TYPES.has(type) });

/** How a column in text format is searched; undefined: nothing can be in it. */
export function searchedText(type: number): ColumnAction | undefined {
  if (INERT_TEXT_TYPES.has(type)) return undefined;
  const json = JSON_TYPES.has(type);
  const nullOnHit = !TEXT_TYPES.has(type) && !JSON_AND_TEXT_ARRAYS.has(type);
  return json ? { kind: "scan", nullOnHit, json } : { kind: "scan", nullOnHit };
}

/** The same in binary format; "impossible": what is in it cannot be known. */
export function searchedBinary(type: number): ColumnAction | "impossible" | undefined {
  switch (binaryForm(type)) {
    case "inert":
      return undefined;
    case "text":
      return { kind: "scan", nullOnHit: false };
    case "json":
      return { kind: "scan", nullOnHit: false, json: true };
    case "bytes":
      return { kind: "scan", nullOnHit: true };
    case undefined:
      return "impossible";
    default:
      return { kind: "decode", type, text: holdsText(type) };
  }
}

/** All bits of what kindsIn() answers. */
export const EVERY_KIND = -1;

/** Masks one value after the other and counts them; knows nothing of how they are framed. */
export class ValueMasker {
  /** Bytes of the present row that may still be matched exactly (Masker.searched). */
  #exactBytesLeft: number = LIMITS.maskedRowBytes;
  #elementsLeft: number = LIMITS.maskedElements;
  /** What the prefilter may still read closely in the present row. */
  readonly work: Work = { left: LIMITS.suspiciousBytes };

  newRow(): void {
    this.#exactBytesLeft = LIMITS.maskedRowBytes;
    this.work.left = LIMITS.suspiciousBytes;
    this.#elementsLeft = LIMITS.maskedElements;
  }

  /** The rest of the row is not matched any more: what is suspected in it is replaced whole. */
  exhaust(): void {
    this.#exactBytesLeft = 0;
    this.work.left = 0;
  }

  /**
   * @param kinds what the prefilter suspects in it (only asked for where the action is `scan`)
   * @param counts masked values per rule; added to
   * @returns undefined: it stays; null: NULL; else what goes in its place
   */
  value(
    action: Exclude<ColumnAction, { readonly kind: "decode" }>,
    bytes: Uint8Array,
    start: number,
    end: number,
    masker: Masker,
    kinds: number,
    counts: Map<string, number>,
  ): Uint8Array | null | undefined {
    if (action.kind === "column") {
      count(counts, action.mask.rule);
      return action.asNull ? null : masker.column(action.mask.method, bytes, start, end);
    }
    const replaced = this.#search(bytes, start, end, masker, kinds);
    if (replaced === undefined) return undefined;
    count(counts, masker.lastRule);
    if (replaced === null || action.nullOnHit) return null;
    if (action.json === undefined || action.json === false) return replaced;
    if (action.json === "likely" && !looksLikeJson(bytes, start, end)) return replaced;
    // A number inside JSON has no quotes around it: what is put in its place would not be JSON.
    return isJson(replaced) ? replaced : null;
  }

  /**
   * A value of the action `decode`.
   * @param kindsOf what the prefilter suspects in the text of an element; asked in their order
   * @param costs asking that costs about as much as a search
   * @returns as value()
   */
  decoded(
    type: number,
    bytes: Uint8Array,
    start: number,
    end: number,
    masker: Masker,
    kindsOf: (text: Uint8Array, from: number, to: number) => number,
    costs: boolean,
    counts: Map<string, number>,
  ): Uint8Array | null | undefined {
    let found = "";
    const masked = maskBinary(type, bytes, start, end, (text, from, to, cost) => {
      if (to - from < masker.shortestBytes) return undefined;
      const kinds = kindsOf(text, from, to);
      if (kinds === 0 && !costs) return undefined;
      this.#elementsLeft -= cost;
      if (this.#elementsLeft < 0) {
        // With nothing left to search it, it is replaced whole.
        masker.field(text, from, to, EVERY_KIND, 0);
        found = masker.lastRule;
        return GIVE_UP;
      }
      const replaced = this.#search(text, from, to, masker, kinds);
      if (replaced !== undefined) found = masker.lastRule;
      return replaced;
    });
    if (masked !== undefined) count(counts, found);
    return masked;
  }

  #search(bytes: Uint8Array, start: number, end: number, masker: Masker, kinds: number): Uint8Array | null | undefined {
    if (kinds === 0) return undefined;
    const replaced = masker.field(bytes, start, end, kinds, this.#exactBytesLeft);
    this.#exactBytesLeft = Math.max(0, this.#exactBytesLeft - masker.searched);
    return replaced;
  }
}

/** An object or a list: a bare number or string in a column of text is JSON only by chance. A large one is not read to make sure. */
const looksLikeJson = (bytes: Uint8Array, start: number, end: number): boolean =>
  (bytes[start] === 0x7b || bytes[start] === 0x5b) && (end - start > LIMITS.maskedValueBytes || isJson(bytes.subarray(start, end)));

function count(counts: Map<string, number>, rule: string): void {
  counts.set(rule, (counts.get(rule) ?? 0) + 1);
}
