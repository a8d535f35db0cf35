import { type ByteText, isAlphanumeric, type Span } from "./bytes.ts";

/** Characters of a local part (RFC 5322 atext, without those that delimit in URLs, code and markup); \x80 on for RFC 6532. */
const LOCAL = /[A-Za-z0-9._%+\x80-\xff-]/;
const IS_LOCAL = Uint8Array.from({ length: 256 }, (_, code) => Number(LOCAL.test(String.fromCharCode(code))));
/** Belong to it only between two of the above. */
const LOCAL_INNER = /[!#$&'*^~]/;
const IS_LOCAL_INNER = Uint8Array.from({ length: 256 }, (_, code) => Number(LOCAL_INNER.test(String.fromCharCode(code))));
const DOMAIN = /[A-Za-z0-9.\x80-\xff-]/;
const IS_DOMAIN = Uint8Array.from({ length: 256 }, (_, code) => Number(DOMAIN.test(String.fromCharCode(code))));
const LABEL = /^[A-Za-z0-9\x80-\xff](?:[A-Za-z0-9\x80-\xff_-]{0,61}[A-Za-z0-9\x80-\xff])?$/;
const TOP = /^(?:[A-Za-z\x80-\xff]{2,63}|xn--[A-Za-z0-9-]{2,59})$/;
/** Where digits directly follow (`a@b.com2024`), the domain is cut after one of these. */
const COMMON_TOP = /^(?:com|org|net|edu|gov|info|io|dev|app|de|fr|uk|us|eu|ch|at|nl|es|it)(?=[0-9_-])/i;
/** `logo@2x.png`, `getty@tty1.service`: file names and unit names, no top-level domains. */
const NOT_TOP = new Set(
  "png jpg jpeg gif webp svg css js mjs cjs jsx tsx json html xml yaml yml txt pdf service socket timer target mount slice".split(" "),
);

/** Bytes before the sign that are looked at; RFC 5321 allows 64. Bounds the work on hostile text. */
const LOCAL_BYTES_MAX = 256;

const LABEL_BYTES_MAX = 63;
const isAsciiLetter = (code: number): boolean => (code | 0x20) >= 0x61 && (code | 0x20) <= 0x7a;

/** Whether [from, to) is the commonest form of a domain as a whole, for which nothing needs to be cut off: `mail2.example.com`. */
function isPlainDomain(text: ByteText, from: number, to: number): boolean {
  if (!isAsciiLetter(text.charCodeAt(from))) return false;
  let label = from;
  let lettersOnly = true;
  for (let at = from; at < to; at++) {
    const code = text.charCodeAt(at);
    if (code === 0x2e) {
      if (at === label || at - label > LABEL_BYTES_MAX) return false;
      label = at + 1;
      lettersOnly = true;
    } else if (!isAsciiLetter(code)) {
      if (code < 0x30 || code > 0x39) return false;
      lettersOnly = false;
    }
  }
  const bytes = to - label;
  return label > from && lettersOnly && bytes >= 2 && bytes <= LABEL_BYTES_MAX && !NOT_TOP.has(text.slice(label, to).toLowerCase());
}

/** End of the domain that starts at `from`, or -1. */
function domainEnd(text: ByteText, from: number): number {
  let to = from;
  while (to < text.length && IS_DOMAIN[text.charCodeAt(to)] === 1) to++;
  while (to > from && (text[to - 1] === "." || text[to - 1] === "-")) to--;
  if (isPlainDomain(text, from, to)) return to;
  const labels = text.slice(from, to).split(".");
  // Sentences run on (`a@b.com.-`): labels after an unfit one are not part of the domain.
  const unfit = labels.findIndex((label) => !LABEL.test(label));
  if (unfit >= 0) labels.length = unfit;
  for (; labels.length >= 2; labels.pop()) {
    const last = labels.at(-1) as string;
    // Text of another script may follow directly; no top-level domain mixes ASCII with it.
    const cut = /^[A-Za-z]{2,63}(?=[-\x80-\xff])/.exec(last)?.[0] ?? COMMON_TOP.exec(last)?.[0];
    if (cut === undefined && TOP.test(last)) break;
    if (cut !== undefined) {
      labels[labels.length - 1] = cut;
      break;
    }
  }
  if (labels.length < 2 || NOT_TOP.has((labels.at(-1) as string).toLowerCase())) return -1;
  // A package's version: `pkg@1.2.3-rc.next`.
  if (/^[0-9]+$/.test(labels[0] as string) && /^[0-9]+$/.test(labels[1] as string)) return -1;
  return from + labels.join(".").length;
}

function localStart(text: ByteText, at: number): number {
  let start = at;
  while (start > 0 && at - start < LOCAL_BYTES_MAX) {
    if (IS_LOCAL[text.charCodeAt(start - 1)] !== 1) {
      const between = start < at && start > 1 && IS_LOCAL[text.charCodeAt(start - 2)] === 1;
      if (!between || IS_LOCAL_INNER[text.charCodeAt(start - 1)] === 0) break;
    }
    start--;
  }
  // Not in the middle of a character.
  while (start < at && (text[start] === "." || (text.charCodeAt(start) & 0xc0) === 0x80)) start++;
  return start;
}

/** Mail addresses with a dotted domain; `%40` for the sign (URL encoding) and non-ASCII parts (RFC 6531) included. */
export function emails(text: ByteText, found: Span[]): void {
  let at = text.indexOf("@");
  let encoded = text.indexOf("%40");
  while (at >= 0 || encoded >= 0) {
    const plain = encoded < 0 || (at >= 0 && at < encoded);
    const sign = plain ? at : encoded;
    const after = sign + (plain ? 1 : 3);
    const start = localStart(text, sign);
    const end = start < sign ? domainEnd(text, after) : -1;
    // `git@host:path` is a repository, the same words in every log of a build.
    const repository = text.slice(start, sign) === "git" && text[end] === ":" && !isAlphanumeric(text.charCodeAt(start - 1));
    if (end > 0 && !repository) found.push({ start, end });
    if (plain) at = text.indexOf("@", after);
    else encoded = text.indexOf("%40", after);
  }
}
