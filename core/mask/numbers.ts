import { type ByteText, digitsOf, isAlphanumeric, isDigit, SEPARATOR, type Span } from "./bytes.ts";

/** Luhn check (ISO/IEC 7812-1 annex B). */
export function luhn(digits: string): boolean {
  let sum = 0;
  for (let i = digits.length - 1, double = false; i >= 0; i--, double = !double) {
    const digit = digits.charCodeAt(i) - 0x30;
    sum += double ? (digit > 4 ? digit * 2 - 9 : digit * 2) : digit;
  }
  return sum % 10 === 0;
}

/** EAN-13 check: such a number is an article, even where Luhn holds too. */
function ean13(digits: string): boolean {
  let sum = 0;
  for (let i = 0; i < 13; i++) sum += (digits.charCodeAt(i) - 0x30) * (i % 2 === 0 ? 1 : 3);
  return sum % 10 === 0;
}

const MAESTRO_RANGES = new Set([5018, 5020, 5038, 5893, 6304, 6759, 6761, 6762, 6763]);

/**
 * Whether a scheme issues numbers with this beginning in this length: Visa, Mastercard, American Express, Diners Club,
 * Discover, JCB, UnionPay, Maestro, Mir, RuPay, Dankort, Verve.
 */
export function isIssuedRange(digits: string): boolean {
  const two = Number(digits.slice(0, 2));
  const four = Number(digits.slice(0, 4));
  const maestro = MAESTRO_RANGES.has(four);
  switch (digits.length) {
    case 13:
      return digits[0] === "4" && !ean13(digits);
    case 14:
      return two === 36 || two === 38 || two === 39 || (four >= 3000 && four <= 3059) || four === 3095;
    case 15:
      return two === 34 || two === 37;
    case 16:
      return (
        digits[0] === "4" ||
        digits[0] === "6" ||
        (two >= 50 && two <= 59) ||
        (four >= 2221 && four <= 2720) ||
        (four >= 2200 && four <= 2204) ||
        (four >= 3528 && four <= 3589) ||
        two === 36
      );
    case 17:
    case 18:
      return two === 62 || maestro;
    case 19:
      return digits[0] === "4" || two === 62 || four === 6011 || two === 65 || maestro;
    default:
      return false;
  }
}

const tens = (...first: number[]): string => first.map((digit) => Array.from("0123456789", (next) => `${digit}${next}`).join("")).join("");
const MAESTRO = "50586367";

/** For each length of a card number the two digits that isIssuedRange() knows such numbers to begin with; for the prefilter. */
export const ISSUED_PREFIXES: readonly { readonly length: number; readonly prefixes: string }[] = [
  { length: 13, prefixes: tens(4) },
  { length: 14, prefixes: "30363839" },
  { length: 15, prefixes: "3437" },
  { length: 16, prefixes: `2223242526273536${tens(4, 5, 6)}` },
  { length: 17, prefixes: `62${MAESTRO}` },
  { length: 18, prefixes: `62${MAESTRO}` },
  { length: 19, prefixes: `${tens(4)}606265${MAESTRO}` },
];

/** How cards are printed, where a number is only part of a longer row of groups. */
const PRINTED = [
  [4, 4, 4, 4],
  [4, 6, 5],
  [4, 6, 4],
  [4, 4, 4, 4, 3],
  [4, 4, 4, 1],
];
const ROW = new RegExp(`[0-9](?:${SEPARATOR}?[0-9])*`, "g");

interface DigitGroup {
  readonly start: number;
  readonly length: number;
}

function groupsOf(text: ByteText, start: number, end: number): DigitGroup[] {
  const groups: DigitGroup[] = [];
  for (let at = start; at < end; at++) {
    const first = at;
    while (at < end && isDigit(text.charCodeAt(at))) at++;
    if (at > first) groups.push({ start: first, length: at - first });
  }
  return groups;
}

/** Letters that touch a card number count as its label up to this length. */
const LABEL_LENGTH_MAX = 20;

/**
 * Whether letters touch the number in a way that makes it part of an identifier. `PAN4111…` is a card with a label;
 * `7f4111…a0` and every hexadecimal text is not.
 */
function touchesIdentifier(text: ByteText, start: number, end: number): boolean {
  let from = start;
  let to = end;
  while (start - from <= LABEL_LENGTH_MAX && isAlphanumeric(text.charCodeAt(from - 1))) from--;
  while (to - end <= LABEL_LENGTH_MAX && isAlphanumeric(text.charCodeAt(to))) to++;
  if (from === start && to === end) return false;
  const around = text.slice(from, start) + text.slice(end, to);
  return around.length > LABEL_LENGTH_MAX || /[0-9]/.test(around) || !/[g-z]/i.test(around);
}

/** Part of a decimal fraction, a signed international number or an identifier. */
function isCardContext(text: ByteText, start: number, end: number): boolean {
  const previous = text[start - 1];
  if ((previous === "." || previous === ",") && isDigit(text.charCodeAt(start - 2))) return false;
  if (text[end] === "." && isDigit(text.charCodeAt(end + 1))) return false;
  return previous !== "+" && !touchesIdentifier(text, start, end);
}

/** Primary account numbers of 13 to 19 digits, plain or in groups with one separator each; Luhn and issued range hold. */
export function paymentCards(text: ByteText, found: Span[]): void {
  ROW.lastIndex = 0;
  for (let row = ROW.exec(text); row !== null; row = ROW.exec(text)) {
    if (row[0].length < 13) continue;
    const groups = groupsOf(text, row.index, row.index + row[0].length);
    const accept = (first: number, count: number): boolean => {
      const start = groups[first]?.start ?? 0;
      const last = groups[first + count - 1] as { start: number; length: number };
      const end = last.start + last.length;
      const digits = digitsOf(text.slice(start, end));
      if (!isIssuedRange(digits) || !luhn(digits) || !isCardContext(text, start, end)) return false;
      found.push({ start, end });
      return true;
    };
    // The whole row in groups of the writer's own choice, but not a list of small numbers.
    const wholeRow =
      groups.length > 1 && row[0].length <= 19 * 4 && groups.every((group, i) => group.length >= 3 || i === groups.length - 1);
    if (wholeRow && accept(0, groups.length)) continue;
    for (let i = 0; i < groups.length; i++) {
      if ((groups[i] as { length: number }).length >= 13) {
        accept(i, 1);
        continue;
      }
      const printed = PRINTED.find((form) => form.every((length, k) => groups[i + k]?.length === length) && accept(i, form.length));
      if (printed !== undefined) i += printed.length - 1;
    }
  }
}

const SSN = new RegExp(`([0-9]{3})(${SEPARATOR})([0-9]{2})\\2([0-9]{4})`, "g");
/** After a label the nine digits may stand without separators. */
const LABELLED_SSN = /(?:ssn|social[ _-]?security)[^0-9]{0,24}([0-9]{3})[ -]?([0-9]{2})[ -]?([0-9]{4})(?![0-9])/gi;

/** Never issued: area 000, 666, 900-999; group 00; serial 0000 (SSA, POMS RM 10201.035). */
const isIssuedSsn = (area: string, group: string, serial: string): boolean =>
  area !== "000" && area !== "666" && area < "900" && group !== "00" && serial !== "0000";

const followsDigit = (text: ByteText, at: number, separator: string): boolean =>
  text.slice(Math.max(0, at - separator.length), at) === separator && isDigit(text.charCodeAt(at - separator.length - 1));

/** US social security numbers as AAA-GG-SSSS with dashes or spaces; nine digits alone only after a label, they are too common. */
export function socialSecurityNumbers(text: ByteText, found: Span[]): void {
  SSN.lastIndex = 0;
  for (let match = SSN.exec(text); match !== null; match = SSN.exec(text)) {
    const { index: start } = match;
    const end = start + match[0].length;
    SSN.lastIndex = start + 1;
    const separator = match[2] as string;
    if (isAlphanumeric(text.charCodeAt(start - 1)) || isAlphanumeric(text.charCodeAt(end))) continue;
    // Part of a longer row of groups.
    const followed = text.startsWith(separator, end) && isDigit(text.charCodeAt(end + separator.length));
    if (followed || followsDigit(text, start, separator) || followsDigit(text, start, ".") || followsDigit(text, start, "-")) continue;
    if (isIssuedSsn(match[1] as string, match[3] as string, match[4] as string)) found.push({ start, end });
  }
  for (const match of text.matchAll(LABELLED_SSN)) {
    const end = match.index + match[0].length;
    const start = text.indexOf(match[1] as string, match.index);
    if (isIssuedSsn(match[1] as string, match[2] as string, match[3] as string)) found.push({ start, end });
  }
}
