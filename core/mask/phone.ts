import { type ByteText, digitsOf, isAlphanumeric, isDigit, type Span } from "./bytes.ts";

/** Country calling codes in use (ITU-T E.164, list of assigned codes): all of one and two digits, then the zones of three. */
const CALLING_CODES =
  /^(?:1|7|2[07]|3[0-469]|4[013-9]|5[1-8]|6[0-6]|8[1246]|9[0-58]|2[1-69][0-9]|3[578][0-9]|42[013]|50[0-9]|59[0-9]|67[0-9]|68[0-9]|69[0-2]|800|808|850|852|853|855|856|870|878|88[0-38]|96[0-8]|97[0-79]|99[2-8])/;

/** North American numbering plan: area and exchange start with 2-9 and are no N11 service code. */
const isNanp = (area: string, exchange: string): boolean =>
  area[0] !== undefined &&
  area[0] >= "2" &&
  exchange[0] !== undefined &&
  exchange[0] >= "2" &&
  !area.endsWith("11") &&
  !exchange.endsWith("11");

/** Digits after the plus sign: an assigned code and a length that E.164 allows and that numbers really have. */
function isInternational(digits: string): boolean {
  if (digits.length < 9 || digits.length > 15 || !CALLING_CODES.test(digits)) return false;
  return digits[0] !== "1" || (digits.length === 11 && isNanp(digits.slice(1, 4), digits.slice(4, 7)));
}

const GAP = "(?:[ .()/-]|\\xc2\\xa0|\\xe2\\x80[\\x90-\\x95\\xaf])";
/** Tried in this order at every place; each is bounded, so a scan stays linear. */
const FORMS: readonly {
  readonly form: RegExp;
  readonly contains: string;
  readonly accepts: (digits: string, match: RegExpExecArray) => boolean;
}[] = [
  {
    // +1 415 555 2671, +14155552671: exactly ten digits, whatever follows.
    form: /\+ ?1[ .(-]{0,2}[2-9][0-9]{2}[ .)-]{0,2}[2-9][0-9]{2}[ .-]?[0-9]{4}/g,
    contains: "+",
    accepts: (digits) => isInternational(digits),
  },
  {
    form: new RegExp(`\\+[ (]{0,2}[2-9](?:${GAP}{0,2}[0-9]){8,14}`, "g"),
    contains: "+",
    accepts: (digits) => isInternational(digits),
  },
  {
    // (415) 555-2671, 415-555-2671, 1.415.555.2671
    form: /(?:1[ .-]?)?(?:\(([2-9][0-9]{2})\)[ .-]{0,2}|([2-9][0-9]{2})[ .-])([2-9][0-9]{2})[ .-][0-9]{4}/g,
    contains: "",
    accepts: (_digits, match) => isNanp(match[1] ?? match[2] ?? "", match[3] ?? ""),
  },
  {
    // National forms with a trunk zero: 020 7946 0958, 030 1234567, 07911 123456
    form: /\(?0[1-9][0-9]{1,3}\)?[ ./-](?:[0-9]{3,4}[ .-][0-9]{3,4}|[0-9]{6,8})/g,
    contains: "0",
    accepts: (digits) => digits.length >= 10 && digits.length <= 12,
  },
  {
    // 01 23 45 67 89
    form: /0[1-9](?:[ .-][0-9]{2}){4}/g,
    contains: "0",
    accepts: () => true,
  },
  {
    // 0049 30 1234567
    form: /00[1-9][0-9]{0,2}[ .()/-]{1,2}[0-9](?:[ .()/-]{0,2}[0-9]){5,13}/g,
    contains: "00",
    accepts: (digits) => isInternational(digits.slice(2)),
  },
];

/** After a label plain digits count too. */
const LABELLED =
  /(?:phone|telephone|mobile|tel|fax|whatsapp)(?:[ _-]?(?:number|num|no|nr))?["' \t:=.#]{1,6}(\+?[0-9](?:[ .()/-]{0,2}[0-9]){9,14})(?![0-9])/gi;

/** No digit, letter or longer number with the same punctuation directly around it. */
function standsAlone(text: ByteText, start: number, end: number): boolean {
  const before = text.charCodeAt(start - 1);
  const after = text.charCodeAt(end);
  if (isAlphanumeric(before) || isAlphanumeric(after) || text[start - 1] === "+") return false;
  const joins = (character: string | undefined): boolean =>
    character === "." || character === "-" || character === "/" || character === ",";
  if (joins(text[start - 1]) && isAlphanumeric(text.charCodeAt(start - 2))) return false;
  return !(joins(text[end]) && isDigit(text.charCodeAt(end + 1)));
}

/**
 * Phone numbers: international with +, or with 00 and separators; North American with separators; national with a trunk
 * zero and separators. Ten to fifteen plain digits only after a label such as `phone:`.
 */
export function phoneNumbers(text: ByteText, found: Span[]): void {
  for (const { form, contains, accepts } of FORMS) {
    if (!text.includes(contains)) continue;
    form.lastIndex = 0;
    for (let match = form.exec(text); match !== null; match = form.exec(text)) {
      const start = match.index;
      const end = start + match[0].length;
      if (standsAlone(text, start, end) && accepts(digitsOf(match[0]), match)) found.push({ start, end });
      else form.lastIndex = start + 1;
    }
  }
  for (const match of text.matchAll(LABELLED)) {
    const end = match.index + match[0].length;
    if (!isAlphanumeric(text.charCodeAt(match.index - 1))) found.push({ start: end - (match[1] as string).length, end });
  }
}
