/**
 * The token boundaries of PostgreSQL's scanner (scan.l, standard_conforming_strings = on) over bytes, as far as they
 * matter for finding literals: strings, numbers, quoted identifiers, comments, everything else. Each function takes the
 * offset where its token starts and returns the offset behind it, or -1 where the server's scanner would report an error.
 */

const NEWLINE = 10;
const RETURN = 13;
const QUOTE = 39;
const DASH = 45;
const SLASH = 47;
const STAR = 42;
const BACKSLASH = 92;
const UNDERSCORE = 95;
const DOLLAR = 36;
const DOT = 46;

/** Character classes of scan.l by byte. */
export const IDENT_START = 1;
export const DIGIT = 2;
export const SPACE = 4;
const HEX = 8;
export const CLASS = new Uint8Array(256);
for (let byte = 0; byte < 256; byte += 1) {
  const letter = (byte >= 65 && byte <= 90) || (byte >= 97 && byte <= 122) || byte === UNDERSCORE || byte >= 128;
  if (letter) CLASS[byte] |= IDENT_START;
  if (byte >= 48 && byte <= 57) CLASS[byte] |= DIGIT | HEX;
  if ((byte >= 65 && byte <= 70) || (byte >= 97 && byte <= 102)) CLASS[byte] |= HEX;
  // space, \t, \n, \v, \f, \r
  if (byte === 32 || (byte >= 9 && byte <= 13)) CLASS[byte] |= SPACE;
}

export const isIdentPart = (byte: number): boolean => (CLASS[byte] & (IDENT_START | DIGIT)) !== 0 || byte === DOLLAR;

/** `-- …` up to the end of its line. */
export function skipLineComment(bytes: Uint8Array, at: number, end: number): number {
  let i = at + 2;
  while (i < end && bytes[i] !== NEWLINE && bytes[i] !== RETURN) i += 1;
  return i;
}

/** A C comment; they nest. */
export function skipBlockComment(bytes: Uint8Array, at: number, end: number): number {
  let depth = 1;
  let i = at + 2;
  while (i < end) {
    const byte = bytes[i];
    if (byte === STAR && bytes[i + 1] === SLASH && i + 1 < end) {
      i += 2;
      depth -= 1;
      if (depth === 0) return i;
    } else if (byte === SLASH && bytes[i + 1] === STAR && i + 1 < end) {
      i += 2;
      depth += 1;
    } else i += 1;
  }
  return -1;
}

/**
 * A quoted string from its opening quote on, with the pieces that follow it after a line break (`'a'⏎'b'` is one string).
 * @param escapes backslash escapes (E'…')
 * @param doubles '' stands for a quote (not in B'…' and X'…')
 */
export function skipString(bytes: Uint8Array, at: number, end: number, escapes: boolean, doubles: boolean): number {
  let i = at + 1;
  while (i < end) {
    const byte = bytes[i];
    if (byte === BACKSLASH && escapes) {
      i += 2;
      continue;
    }
    i += 1;
    if (byte !== QUOTE) continue;
    if (doubles && i < end && bytes[i] === QUOTE) {
      i += 1;
      continue;
    }
    const next = continuation(bytes, i, end);
    if (next === NO_CONTINUATION) return i;
    if (next === UNCLEAR) return -1;
    i = next + 1;
  }
  return -1;
}

const NO_CONTINUATION = -1;
/** The parser that stands in for the server's does not accept a comment between the pieces of a string. */
const UNCLEAR = -2;

/** The opening quote of a continuing piece behind a closing quote. */
function continuation(bytes: Uint8Array, at: number, end: number): number {
  let newline = false;
  let comment = false;
  let i = at;
  while (i < end) {
    const byte = bytes[i];
    if (byte === NEWLINE || byte === RETURN) {
      newline = true;
      i += 1;
    } else if ((CLASS[byte] & SPACE) !== 0) i += 1;
    else if (byte === DASH && bytes[i + 1] === DASH && i + 1 < end) {
      comment = true;
      i = skipLineComment(bytes, i, end);
    } else if (byte !== QUOTE || !newline) return NO_CONTINUATION;
    else return comment ? UNCLEAR : i;
  }
  return NO_CONTINUATION;
}

/** `"…"`, with "" for a quote. */
export function skipQuotedIdentifier(bytes: Uint8Array, at: number, end: number): number {
  let i = at + 1;
  while (i < end) {
    if (bytes[i] === 34) {
      if (bytes[i + 1] !== 34 || i + 1 >= end) return i === at + 1 ? -1 : i + 1;
      i += 2;
    } else i += 1;
  }
  return -1;
}

/** `$1`, or `$tag$ … $tag$`. */
export function skipDollar(bytes: Uint8Array, at: number, end: number): number {
  let i = at + 1;
  if (i < end && (CLASS[bytes[i]] & DIGIT) !== 0) {
    while (i < end && (CLASS[bytes[i]] & DIGIT) !== 0) i += 1;
    return i < end && (CLASS[bytes[i]] & IDENT_START) !== 0 ? -1 : i;
  }
  if (i < end && (CLASS[bytes[i]] & IDENT_START) !== 0) while (i < end && (CLASS[bytes[i]] & (IDENT_START | DIGIT)) !== 0) i += 1;
  if (i >= end || bytes[i] !== DOLLAR) return -1;
  const tagBytes = i + 1 - at;
  for (i += 1; i + tagBytes <= end; i += 1) {
    if (bytes[i] !== DOLLAR) continue;
    let same = 1;
    while (same < tagBytes && bytes[i + same] === bytes[at + same]) same += 1;
    if (same === tagBytes) return i + tagBytes;
  }
  return -1;
}

/** As many decimal digits as surely fit an int4. */
export const SMALL_INTEGER_DIGITS = 9;

/** A number surely fits an int4 (it is decimal and at most 9 digits long), which the grammar tells from all others. */
export function isSmallInteger(bytes: Uint8Array, start: number, end: number): boolean {
  if (end - start > SMALL_INTEGER_DIGITS) return false;
  for (let i = start; i < end; i += 1) if ((CLASS[bytes[i]] & DIGIT) === 0) return false;
  return true;
}

/** A number: decimal with underscores, hexadecimal, octal, binary, fraction, exponent. */
export function skipNumber(bytes: Uint8Array, at: number, end: number): number {
  let i = at;
  const second = i + 1 < end ? bytes[i + 1] | 32 : 0;
  if (bytes[i] === 48 && (second === 120 || second === 111 || second === 98)) {
    i = digits(bytes, i + 2, end, true);
    return i < 0 || (i < end && isIdentPart(bytes[i])) ? -1 : i;
  }
  if (bytes[i] !== DOT) i = digits(bytes, i, end, false);
  if (i < 0) return -1;
  // `1..2` is an integer and two dots.
  if (i < end && bytes[i] === DOT && !(i + 1 < end && bytes[i + 1] === DOT)) {
    i += 1;
    if (i < end && (CLASS[bytes[i]] & DIGIT) !== 0) i = digits(bytes, i, end, false);
    if (i < 0) return -1;
  }
  if (i < end && (bytes[i] | 32) === 101) {
    let exponent = i + 1;
    if (exponent < end && (bytes[exponent] === 43 || bytes[exponent] === DASH)) exponent += 1;
    if (exponent >= end || (CLASS[bytes[exponent]] & DIGIT) === 0) return -1;
    i = digits(bytes, exponent, end, false);
  }
  // `1a` is an error; `1$1` is not always one, but nobody writes it.
  return i >= 0 && i < end && isIdentPart(bytes[i]) ? -1 : i;
}

/** Digits with single underscores between them (after a radix prefix also before them). */
function digits(bytes: Uint8Array, at: number, end: number, prefixed: boolean): number {
  const digit = prefixed ? HEX : DIGIT;
  let i = at;
  if (prefixed && i < end && bytes[i] === UNDERSCORE) i += 1;
  if (i >= end || (CLASS[bytes[i]] & digit) === 0) return -1;
  while (i < end) {
    if ((CLASS[bytes[i]] & digit) !== 0) i += 1;
    else if (bytes[i] === UNDERSCORE && i + 1 < end && (CLASS[bytes[i + 1]] & digit) !== 0) i += 2;
    else break;
  }
  return i;
}

/** Ranges of every string literal of any form in [start, end), absolute; undefined: the text does not lex. */
export function stringLiterals(bytes: Uint8Array, start: number, end: number): [number, number][] | undefined {
  const found: [number, number][] = [];
  let i = start;
  while (i < end) {
    const byte = bytes[i];
    const second = i + 1 < end ? bytes[i + 1] : 0;
    const kind = CLASS[byte];
    const lower = byte | 32;
    let next = i + 1;
    let isString = false;
    if (byte === DASH && second === DASH) next = skipLineComment(bytes, i, end);
    else if (byte === SLASH && second === STAR) next = skipBlockComment(bytes, i, end);
    else if (byte === QUOTE) {
      next = skipString(bytes, i, end, false, true);
      isString = true;
    } else if (byte === 34) next = skipQuotedIdentifier(bytes, i, end);
    else if (byte === DOLLAR) {
      next = skipDollar(bytes, i, end);
      isString = (CLASS[second] & DIGIT) === 0;
    } else if ((kind & DIGIT) !== 0) next = skipNumber(bytes, i, end);
    else if (byte === DOT && second === DOT) next = i + 2;
    else if (byte === DOT && (CLASS[second] & DIGIT) !== 0) next = skipNumber(bytes, i, end);
    else if ((kind & IDENT_START) !== 0) {
      const third = i + 2 < end ? bytes[i + 2] : 0;
      if (second === QUOTE && (lower === 101 || lower === 98 || lower === 120)) {
        next = skipString(bytes, i + 1, end, lower === 101, lower === 101);
        isString = true;
      } else if (lower === 117 && second === 38 && third === QUOTE) {
        next = skipString(bytes, i + 2, end, false, true);
        isString = true;
      } else if (lower === 117 && second === 38 && third === 34) next = skipQuotedIdentifier(bytes, i + 2, end);
      else while (next < end && isIdentPart(bytes[next])) next += 1;
    }
    if (next < 0 || next > end) return undefined;
    if (isString) found.push([i, next]);
    i = next;
  }
  return found;
}
