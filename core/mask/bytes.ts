/**
 * A field's bytes as a string of one character per byte (latin1), so that regular expressions see bytes, offsets are
 * byte offsets, and no byte sequence is invalid. Multi-byte characters show as characters from \x80 on.
 */
export type ByteText = string;

/** One finding inside a field: text[start, end). */
export interface Span {
  readonly start: number;
  readonly end: number;
}

/** A separator inside grouped numbers: space, dash, no-break space, or a typographic dash or narrow space (U+2010-2015, U+202F). */
export const SEPARATOR = "(?: |-|\\xc2\\xa0|\\xe2\\x80[\\x90-\\x95\\xaf])";

/** Length of the SEPARATOR that starts at `at`, 0 if there is none. */
export function separatorLength(text: ByteText, at: number): number {
  switch (text.charCodeAt(at)) {
    case 0x20:
    case 0x2d:
      return 1;
    case 0xc2:
      return text.charCodeAt(at + 1) === 0xa0 ? 2 : 0;
    case 0xe2: {
      const last = text.charCodeAt(at + 2);
      return text.charCodeAt(at + 1) === 0x80 && ((last >= 0x90 && last <= 0x95) || last === 0xaf) ? 3 : 0;
    }
    default:
      return 0;
  }
}

export const isDigit = (code: number): boolean => code >= 0x30 && code <= 0x39;
const isLetter = (code: number): boolean => (code | 0x20) >= 0x61 && (code | 0x20) <= 0x7a;
/** ASCII letter or digit; NaN (outside the text) is neither. */
export const isAlphanumeric = (code: number): boolean => isDigit(code) || isLetter(code);

export const digitsOf = (text: ByteText): string => text.replace(/[^0-9]+/g, "");
