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
  /** Bits of the caller's choice, 1 to 2^31 − 1; what is found is reported with them. */
  readonly kinds: number;
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
  readonly kinds: number;
}

/**
 * Numbers with a Luhn check digit (ISO/IEC 7812-1 annex B), with nothing but spaces, dashes or multi-byte characters between their
 * digits, in groups of three and more but the last. Any digits before and after.
 */
export interface CheckedNumber {
  /** Digits, 13..19. */
  readonly length: number;
  /** The two digits that it may begin with, one after the other: `3638`. */
  readonly prefixes: string;
  readonly kinds: number;
}

/** Two letters (given in upper case, found in both), two check digits, then `rest`; separators apart. ISO 7064 MOD 97-10 holds. */
export interface Code {
  readonly prefix: string;
  /** A character each, 1..60: n digit, a letter, c either. */
  readonly rest: string;
  readonly kinds: number;
}

/** What one scan looks for. */
export interface PatternSet {
  /** At most 250. A match ends with the literal, whatever must follow. */
  readonly literals: readonly Literal[];
  readonly numbers: readonly CheckedNumber[];
  readonly shapes: readonly DigitShape[];
  /** At most 255. */
  readonly codes: readonly Code[];
}

/** A compiled pattern set of this thread; freed with the object. */
export interface PatternDatabase {
  /**
   * Scan bytes[start, end). Writes the offset (absolute in `bytes`) of the last byte of every match, ascending and distinct, to the
   * first half of `flags`, and the kinds of all matches that end there to the same place of the second half. Where `flags` has an odd
   * number of words, the last one bounds what is read closely (a byte of a run of digits or of a code counts as one), and tells
   * afterwards what is left of it.
   * @returns how many were written; -1 when they do not fit, or there is more to read closely than that
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
