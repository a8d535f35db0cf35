import type { ByteText, Span } from "./bytes.ts";

const isBase64Url = (code: number): boolean =>
  (code >= 0x30 && code <= 0x39) || (code >= 0x41 && code <= 0x5a) || (code >= 0x61 && code <= 0x7a) || code === 0x2d || code === 0x5f;

/** A JOSE header is a JSON object that names an algorithm (RFC 7515 section 4.1.1). */
function isJoseHeader(part: string): boolean {
  // A header with certificates may be long, but not unbounded.
  if (part.length > 16_384) return true;
  const json = Buffer.from(part, "base64url").toString();
  // Cheaper than a parser's exception.
  if (!json.includes('"alg"')) return false;
  try {
    const header: unknown = JSON.parse(json);
    return typeof header === "object" && header !== null && "alg" in header;
  } catch {
    return false;
  }
}

/** End of the base64url characters that start at `from`. */
function runEnd(text: ByteText, from: number): number {
  let end = from;
  while (isBase64Url(text.charCodeAt(end))) end++;
  return end;
}

/** Places inside one long part that are tried as the header's start; bounds the work on hostile text. */
const HEADER_STARTS_MAX = 4;

/** End of the compact form whose first part ends at `firstEnd`: three parts (RFC 7515), five (RFC 7516), or two cut short. */
function tokenEnd(text: ByteText, firstEnd: number): number {
  let end = runEnd(text, firstEnd + 1);
  if (text[end] !== ".") return text.startsWith("eyJ", firstEnd + 1) ? end : -1;
  for (let part = 3; part <= 5 && text[end] === "."; part++) {
    const next = runEnd(text, end + 1);
    // An unsecured token ends with a dot; later dots without a part end a sentence.
    if (next === end + 1 && part > 3) break;
    end = next;
  }
  return end;
}

/** JSON Web Tokens in compact form; the first part is a JOSE header (`eyJ` is `{"` in base64url). */
export function jsonWebTokens(text: ByteText, found: Span[]): void {
  for (let start = text.indexOf("eyJ"); start >= 0; ) {
    const firstEnd = runEnd(text, start);
    let next = firstEnd;
    if (text[firstEnd] === ".") {
      const end = tokenEnd(text, firstEnd);
      for (let tries = 0; end >= 0 && tries < HEADER_STARTS_MAX && start >= 0 && start < firstEnd; tries++) {
        if (isJoseHeader(text.slice(start, firstEnd))) {
          found.push({ start, end });
          next = end;
          break;
        }
        start = text.indexOf("eyJ", start + 3);
      }
    }
    start = text.indexOf("eyJ", next);
  }
}

const KEY_BEGIN = /-{4,5} ?BEGIN [A-Z0-9 ]{0,40}PRIVATE KEY(?: BLOCK)? ?-{4,5}|PuTTY-User-Key-File-[0-9]/g;
const KEY_END = /-{4,5} ?END [A-Z0-9 ]{0,40}PRIVATE KEY(?: BLOCK)? ?-{4,5}/g;

/** PEM (RFC 7468), OpenSSH, OpenPGP and ssh.com private key blocks, and PuTTY key files; without an end, to the field's end. */
export function privateKeys(text: ByteText, found: Span[]): void {
  KEY_BEGIN.lastIndex = 0;
  for (let begin = KEY_BEGIN.exec(text); begin !== null; begin = KEY_BEGIN.exec(text)) {
    KEY_END.lastIndex = KEY_BEGIN.lastIndex;
    const ending = begin[0].startsWith("P") ? null : KEY_END.exec(text);
    const end = ending === null ? text.length : KEY_END.lastIndex;
    found.push({ start: begin.index, end });
    KEY_BEGIN.lastIndex = end;
  }
}

/** Documented forms of provider secrets. Group 1, where there is one, is the secret itself; else the whole match is. */
const CLOUD_KEYS: readonly RegExp[] = [
  /(?<![A-Za-z0-9])(?:AKIA|ASIA|ABIA|ACCA)[A-Z2-7]{16}(?![A-Za-z0-9])/g, // AWS access key id
  /(?:secret[ _.-]?(?:access)?[ _.-]?key|aws[ _.-]?secret)["']?[ \t\r\n]{0,3}[:=>]{1,2}[ \t\r\n]{0,3}["']?([A-Za-z0-9/+]{40})(?![A-Za-z0-9/+=])/gi, // AWS secret
  /(?<![A-Za-z0-9])AIza[A-Za-z0-9_-]{35}(?![A-Za-z0-9_-])/g, // Google API key
  /GOCSPX-[A-Za-z0-9_-]{28}/g, // Google OAuth client secret
  /ya29\.[A-Za-z0-9_-]{20,}/g, // Google access token
  /"private_key(?:_id)?"[ \t\r\n]{0,4}:[ \t\r\n]{0,4}"([^"]{20,})"/g, // Google service account
  /(?:AccountKey|SharedAccessKey)=([A-Za-z0-9+/]{42,86}={0,2})/g, // Azure connection strings
  /[A-Za-z0-9+/]{76}(?:\+ASt|ACDb|\+ABa)[A-Za-z0-9+/]{5}[AQgw]==/g, // Azure storage, Cosmos DB, Batch
  /(?<![A-Za-z0-9])[A-Za-z0-9_~.]{3}[0-9]Q~[A-Za-z0-9_~.-]{31,34}/g, // Microsoft Entra client secret
  /gh[pousr]_[A-Za-z0-9]{36,}/g, // GitHub
  /github_pat_[A-Za-z0-9_]{22,}/g,
  /glpat-[A-Za-z0-9_-]{20,}/g, // GitLab
  /npm_[A-Za-z0-9]{36}/g,
  /pypi-AgEIcHlwaS[A-Za-z0-9_-]{50,}/g,
  /xox[abeoprs]-[A-Za-z0-9-]{10,}/g, // Slack
  /xapp-[0-9]-[A-Za-z0-9-]{10,}/g,
  /hooks\.slack\.com\/services\/([A-Za-z0-9/]{30,})/g,
  /[rs]k_(?:live|test)_[A-Za-z0-9]{16,}/g, // Stripe
  /whsec_[A-Za-z0-9+/]{24,}/g,
  /sk-(?:proj|ant|svcacct|admin)-[A-Za-z0-9_-]{20,}/g, // model providers
  /sk-[A-Za-z0-9]{20}T3BlbkFJ[A-Za-z0-9]{20}/g,
  /SG\.[A-Za-z0-9_-]{22}\.[A-Za-z0-9_-]{43}/g, // SendGrid
  /dop_v1_[a-f0-9]{64}/g, // DigitalOcean
  /hv[sb]\.[A-Za-z0-9_-]{24,}/g, // Vault
  /hf_[A-Za-z0-9]{34}/g,
];
const AWS_KEY_ID = /(?<![A-Za-z0-9])(?:AKIA|ASIA)[A-Z2-7]{16}(?![A-Za-z0-9])/;
/** Beside a key id a bare 40-character value is its secret. */
const AWS_SECRET = /(?<![A-Za-z0-9/+])(?=[^a-z]{0,39}[a-z])(?=[^A-Z]{0,39}[A-Z])(?=[^0-9]{0,39}[0-9])[A-Za-z0-9/+]{40}(?![A-Za-z0-9/+=])/g;

export function cloudKeys(text: ByteText, found: Span[]): void {
  for (const form of CLOUD_KEYS) {
    for (const match of text.matchAll(form)) {
      const whole = match[0];
      const offset = match[1] === undefined ? 0 : whole.lastIndexOf(match[1]);
      found.push({ start: match.index + offset, end: match.index + offset + (match[1] ?? whole).length });
    }
  }
  if (!AWS_KEY_ID.test(text)) return;
  for (const match of text.matchAll(AWS_SECRET)) found.push({ start: match.index, end: match.index + match[0].length });
}
