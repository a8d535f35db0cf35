import type { MaskMethod } from "../policy/types.ts";

/**
 * Content and column masking for one set of mask rules. Protocol-blind: it sees byte ranges that hold one
 * value in text form (UTF-8). One instance per worker and rule set; not re-entrant.
 */
export interface Masker {
  /** True when at least one rule detects by content. */
  readonly scans: boolean;
  /** No detector of these rules matches a value of fewer bytes. */
  readonly shortestBytes: number;
  /**
   * Prefilter over a whole chunk that may hold many fields and framing between them. A flag is the offset (absolute in `bytes`) of a
   * byte, with kinds: the detectors that suspect something there. It over-approximates: it may flag what is nothing. For every
   * match of a detector in a field there is a flag of its kind in the same field: not always within the match (the label of a
   * number, the first line of a private key), but always on a byte of the field.
   * @returns the number n of flags: their offsets, ascending and distinct, are flags[0, n), their kinds, bits that field() takes,
   * flags[flagsMax, flagsMax + n). -1: more than flagsMax, ask kindsIn() about each field.
   */
  scan(bytes: Uint8Array, start: number, end: number): number;
  readonly flags: Uint32Array;
  readonly flagsMax: number;
  /** The same for one field: the kinds of its flags, 0 where there are none. Leaves `flags` as it is. */
  kindsIn(bytes: Uint8Array, start: number, end: number): number;
  /**
   * Exact matchers and validators over one field, of the detectors in `kinds`; left out: of all. Of a field over `mostBytes`
   * (left out: LIMITS.maskedValueBytes) nothing is read: where the prefilter flags it, it is replaced whole ([REDACTED], or null
   * for the method null).
   * @returns undefined: unchanged; null: the whole value becomes NULL; else the replacement. `lastRule` names the rule.
   */
  field(bytes: Uint8Array, start: number, end: number, kinds?: number, mostBytes?: number): Uint8Array | null | undefined;
  /** The mask of one column's whole value (never undefined: a column mask always replaces). */
  column(method: MaskMethod, bytes: Uint8Array, start: number, end: number): Uint8Array | null;
  /** Name of the mask rule that the last field() call applied. */
  readonly lastRule: string;
}
