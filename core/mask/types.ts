import type { MaskMethod } from "../policy/types.ts";

/**
 * Content and column masking for one set of mask rules. Protocol-blind: it sees byte ranges that hold one
 * value in text form (UTF-8). One instance per worker and rule set; not re-entrant.
 */
export interface Masker {
  /** True when at least one rule detects by content. */
  readonly scans: boolean;
  /**
   * Prefilter over a whole chunk that may hold many fields and framing between them. Over-approximates: it may
   * flag what is nothing, and never misses a field that maskField would change.
   * @returns the number of flagged positions; `flags[0..n)` then holds, ascending, offsets (absolute in `bytes`) of
   * bytes that lie in a suspected match (its last byte). -1: more flags than fit, treat every field as flagged.
   */
  scan(bytes: Uint8Array, start: number, end: number): number;
  readonly flags: Uint32Array;
  /**
   * Exact matchers and validators over one field.
   * @returns undefined: unchanged; null: the whole value becomes NULL; else the replacement. `lastRule` names the rule.
   */
  field(bytes: Uint8Array, start: number, end: number): Uint8Array | null | undefined;
  /** The mask of one column's whole value (never undefined: a column mask always replaces). */
  column(method: MaskMethod, bytes: Uint8Array, start: number, end: number): Uint8Array | null;
  /** Name of the mask rule that the last field() call applied. */
  readonly lastRule: string;
}
