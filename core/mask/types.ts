import type { MaskMethod } from "../policy/types.ts";

/**
 * What the prefilter may still read closely, so that no value holds up the thread: LIMITS.suspiciousBytes to begin with. Bytes among
 * digits in groups or after something like a label count, others do not.
 */
export interface Work {
  left: number;
}

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
   * flags[flagsMax, flagsMax + n). -1: more than flagsMax, or more to read than `work` allows: ask kindsIn() about each field.
   */
  scan(bytes: Uint8Array, start: number, end: number, work?: Work): number;
  readonly flags: Uint32Array;
  readonly flagsMax: number;
  /**
   * The same for one field: the kinds of its flags, 0 where there are none. All kinds where `work` does not suffice. Leaves `flags` as
   * it is.
   */
  kindsIn(bytes: Uint8Array, start: number, end: number, work?: Work): number;
  /**
   * Exact matchers and validators over one field, of the detectors in `suspected` (what kindsIn() said); left out: of all. Of a field over
   * LIMITS.maskedValueBytes or `mostBytes` nothing is read: where the prefilter flags it, it is replaced whole ([REDACTED], or null
   * for the method null). So is one with which `searched` would come over `mostBytes` (left out: LIMITS.maskedRowBytes).
   * @returns undefined: unchanged; null: the whole value becomes NULL; else the replacement. `lastRule` names the rule.
   */
  field(bytes: Uint8Array, start: number, end: number, suspected?: number, mostBytes?: number): Uint8Array | null | undefined;
  /** The mask of one column's whole value (never undefined: a column mask always replaces). */
  column(method: MaskMethod, bytes: Uint8Array, start: number, end: number): Uint8Array | null;
  /** Name of the mask rule that the last field() call applied. */
  readonly lastRule: string;
  /** Bytes that the exact matchers of the last field() call read, all rounds together, and some more for what a value and each match cost. */
  readonly searched: number;
}
