import type { ByteText, Span } from "./bytes.ts";

const isBase64Url = (code: number): boolean =>
  (code >= 0x30 && code <= 0x39) || (code >= 0x41 && code <= 0x5a) || (code >= 0x61 && code <= 0x7a) || code === 0x2d || code === 0x5f;

/** Texts with an algorithm that are no JSON after all, of one field: each costs an exception, so after these such a text counts as a header. */
const BROKEN_HEADERS_MAX = 64;

/** Tells JOSE headers: JSON objects that name an algorithm (RFC 7515 section 4.1.1). One for each field. */
class JoseHeaders {
  #broken = 0;

  has(part: string): boolean {
    // A header with certificates may be long, but not unbounded.
    if (part.length > 16_384) return true;
    const json = Buffer.from(part, "base64url").toString();
    // Cheaper than a parser's exception.
    if (!json.includes('"alg"')) return false;
    if (this.#broken >= BROKEN_HEADERS_MAX) return true;
    try {
      const header: unknown = JSON.parse(json);
      return typeof header === "object" && header !== null && "alg" in header;
    } catch {
      this.#broken += 1;
      return false;
    }
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
  const headers = new JoseHeaders();
  for (let start = text.indexOf("eyJ"); start >= 0; ) {
    const firstEnd = runEnd(text, start);
    let next = firstEnd;
    if (text[firstEnd] === ".") {
      const end = tokenEnd(text, firstEnd);
      for (let tries = 0; end >= 0 && tries < HEADER_STARTS_MAX && start >= 0 && start < firstEnd; tries++) {
        if (headers.has(text.slice(start, firstEnd))) {
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

/** A form is searched only where one of its literals is; group 1, where there is one, is the secret, else the whole match is. */
interface SecretForm {
  readonly literals: readonly string[];
  readonly form: RegExp;
  /** Bytes before the match that belong to the secret; a look-behind has seen them. */
  readonly before?: number;
}

/** Documented forms of provider secrets. */
const CLOUD_KEYS: readonly SecretForm[] = [
  // AWS access key id
  { literals: ["AKIA", "ASIA", "ABIA", "ACCA"], form: /(?<![A-Za-z0-9])(?:AKIA|ASIA|ABIA|ACCA)[A-Z2-7]{16}(?![A-Za-z0-9])/g },
  // Google: API key, OAuth client secret, access token, service account
  { literals: ["AIza"], form: /(?<![A-Za-z0-9])AIza[A-Za-z0-9_-]{35}(?![A-Za-z0-9_-])/g },
  { literals: ["GOCSPX-"], form: /GOCSPX-[A-Za-z0-9_-]{28}/g },
  { literals: ["ya29."], form: /ya29\.[A-Za-z0-9_-]{20,}/g },
  { literals: ['"private_key'], form: /"private_key(?:_id)?"[ \t\r\n]{0,4}:[ \t\r\n]{0,4}"([^"]{20,})"/g },
  // Azure: connection strings; storage, Cosmos DB and Batch keys by their signature; Entra client secrets
  { literals: ["AccountKey=", "SharedAccessKey="], form: /(?:AccountKey|SharedAccessKey)=([A-Za-z0-9+/]{42,86}={0,2})/g },
  {
    literals: ["+ASt", "ACDb", "+ABa"],
    form: /(?<=[A-Za-z0-9+/]{76})(?:\+ASt|ACDb|\+ABa)[A-Za-z0-9+/]{5}[AQgw]==/g,
    before: 76,
  },
  { literals: ["Q~"], form: /(?<![A-Za-z0-9])[A-Za-z0-9_~.]{3}[0-9]Q~[A-Za-z0-9_~.-]{31,34}/g },
  // GitHub, GitLab, package registries
  { literals: ["ghp_", "gho_", "ghu_", "ghs_", "ghr_"], form: /gh[pousr]_[A-Za-z0-9]{36,}/g },
  { literals: ["github_pat_"], form: /github_pat_[A-Za-z0-9_]{22,}/g },
  { literals: ["glpat-"], form: /glpat-[A-Za-z0-9_-]{20,}/g },
  { literals: ["npm_"], form: /npm_[A-Za-z0-9]{36}/g },
  { literals: ["pypi-AgEIcHlwaS"], form: /pypi-AgEIcHlwaS[A-Za-z0-9_-]{50,}/g },
  // Slack
  { literals: ["xox"], form: /xox[abeoprs]-[A-Za-z0-9-]{10,}/g },
  { literals: ["xapp-"], form: /xapp-[0-9]-[A-Za-z0-9-]{10,}/g },
  { literals: ["hooks.slack.com/services/"], form: /hooks\.slack\.com\/services\/([A-Za-z0-9/]{30,})/g },
  // Stripe
  { literals: ["k_live_", "k_test_"], form: /[rs]k_(?:live|test)_[A-Za-z0-9]{16,}/g },
  { literals: ["whsec_"], form: /whsec_[A-Za-z0-9+/]{24,}/g },
  // Model providers
  { literals: ["sk-"], form: /sk-(?:proj|ant|svcacct|admin)-[A-Za-z0-9_-]{20,}/g },
  { literals: ["T3BlbkFJ"], form: /sk-[A-Za-z0-9]{20}T3BlbkFJ[A-Za-z0-9]{20}/g },
  { literals: ["hf_"], form: /hf_[A-Za-z0-9]{34}/g },
  // SendGrid, DigitalOcean, Vault
  { literals: ["SG."], form: /SG\.[A-Za-z0-9_-]{22}\.[A-Za-z0-9_-]{43}/g },
  { literals: ["dop_v1_"], form: /dop_v1_[a-f0-9]{64}/g },
  { literals: ["hvs.", "hvb."], form: /hv[sb]\.[A-Za-z0-9_-]{24,}/g },
];
/** A label in any case and spelling, then an AWS secret. */
const LABELLED_SECRET =
  /(?:secret[ _.-]?(?:access)?[ _.-]?key|aws[ _.-]?secret)["']?[ \t\r\n]{0,3}[:=>]{1,2}[ \t\r\n]{0,3}["']?([A-Za-z0-9/+]{40})(?![A-Za-z0-9/+=])/gi;
const AWS_KEY_ID = /(?<![A-Za-z0-9])(?:AKIA|ASIA)[A-Z2-7]{16}(?![A-Za-z0-9])/;
/** Beside a key id a bare 40-character value is its secret. */
const AWS_SECRET = /(?<![A-Za-z0-9/+])(?=[^a-z]{0,39}[a-z])(?=[^A-Z]{0,39}[A-Z])(?=[^0-9]{0,39}[0-9])[A-Za-z0-9/+]{40}(?![A-Za-z0-9/+=])/g;

function addAll(text: ByteText, form: RegExp, before: number, found: Span[]): void {
  for (const match of text.matchAll(form)) {
    const secret = match[1] ?? match[0];
    const start = match.index + match[0].lastIndexOf(secret);
    found.push({ start: start - before, end: start + secret.length });
  }
}

/** Keys and tokens of cloud and service providers by their documented forms; an AWS secret by its label or beside its key id. */
export function cloudKeys(text: ByteText, found: Span[]): void {
  for (const { literals, form, before } of CLOUD_KEYS) {
    if (literals.some((literal) => text.includes(literal))) addAll(text, form, before ?? 0, found);
  }
  addAll(text, LABELLED_SECRET, 0, found);
  if (AWS_KEY_ID.test(text)) addAll(text, AWS_SECRET, 0, found);
}
