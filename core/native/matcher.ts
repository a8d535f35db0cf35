import { loadMatcher, type MatcherAddon } from "./addons.ts";

/** Bytes to look for, and what must follow them. */
export interface Literal {
  /** 1..64 bytes of UTF-8. */
  readonly text: string;
  readonly caseless: boolean;
  /** So many letters, digits, `-` or `_` directly after it; 0: anything. */
  readonly token: number;
  /** So many digits within the next `window` bytes (up to 1024); 0: anything. */
  readonly digits: number;
  readonly window: number;
  /** Nothing but separators (see DigitShape) among those digits. */
  readonly joined: boolean;
}

/**
 * Digits in groups: up to three separators (space, dash, dot, slash, parentheses, bytes of multi-byte characters) between
 * two groups. The first group may be the end of a longer one and the last the beginning, since bytes around the text
 * may look like digits.
 */
export interface DigitShape {
  /**
   * Least and most digits of each group, 2..6 groups: the first and the last three and more and the one before the last two
   * and more; or five and more pairs with one separator byte each; or anything after two zeros.
   */
  readonly groups: readonly (readonly [least: number, most: number])[];
  /** The first group starts with this many zeros, 0..2; after two with another digit. */
  readonly zeros: number;
  /** Fewest digits of the whole run around it. */
  readonly digits: number;
}

/** What one scan looks for. */
export interface PatternSet {
  /** At most 250. A match ends with the literal, whatever must follow. */
  readonly literals: readonly Literal[];
  /** So many digits with nothing but spaces, dashes or multi-byte characters between, in groups of three and more but the last; 0: none. */
  readonly run: number;
  readonly shapes: readonly DigitShape[];
  /** Two letters (given in upper case, found in both), two digits, then letters or digits up to `length` in all, separators apart. */
  readonly codes: readonly { readonly prefix: string; readonly length: number }[];
}

/** A compiled pattern set of this thread; freed with the object. */
export interface PatternDatabase {
  /**
   * Scan bytes[start, end). Writes to `flags`, ascending and distinct, the offset (absolute in `bytes`) of the last byte
   * of every match. A run of digits is flagged once in `run` digits.
   * @returns how many were written; -1 when they do not fit
   */
  scan(bytes: Uint8Array, start: number, end: number, flags: Uint32Array): number;
}

let addon: MatcherAddon | undefined;

/** Whether the matcher addon is built and loads on this machine. */
export function matcherAvailable(): boolean {
  try {
    addon ??= loadMatcher();
    return true;
  } catch {
    return false;
  }
}

/**
 * @throws SluiceError SLUICE_INTERNAL when the addon is not built
 * @throws TypeError when a part of the set is out of its range
 */
export function compilePatterns(set: PatternSet): PatternDatabase {
  const native = (addon ??= loadMatcher());
  const database = native.compile(set);
  return { scan: (bytes, start, end, flags) => native.scan(database, bytes, start, end, flags) };
}
