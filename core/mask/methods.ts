import { hash } from "node:crypto";
import type { DetectorName, MaskMethod } from "../policy/types.ts";
import { type ByteText, digitsOf } from "./bytes.ts";

/** From the most to the least that a method hides. */
export const STRICTNESS: Readonly<Record<MaskMethod, number>> = { null: 3, redact: 2, hash: 1, partial: 0 };

const BASE32 = "abcdefghijklmnopqrstuvwxyz234567";

const BLOCK_BYTES = 64;

/** The key under the inner and the outer pad of HMAC. */
interface Pads {
  readonly inner: Buffer;
  readonly outer: Buffer;
}

const padsOf = new WeakMap<Uint8Array, Pads>();

function pads(key: Uint8Array): Pads {
  let found = padsOf.get(key);
  if (found === undefined) {
    const block = Buffer.alloc(BLOCK_BYTES);
    block.set(key.length > BLOCK_BYTES ? hash("sha256", key, "buffer") : key);
    found = { inner: block.map((byte) => byte ^ 0x36) as Buffer, outer: block.map((byte) => byte ^ 0x5c) as Buffer };
    padsOf.set(key, found);
  }
  return found;
}

/** HMAC-SHA-256 (RFC 2104) of two one-shot digests: a quarter of what an Hmac object costs, and a value may hold thousands of matches. */
export function hmacSha256(key: Uint8Array, value: Uint8Array | string): Buffer {
  const { inner, outer } = pads(key);
  const bytes = typeof value === "string" ? Buffer.from(value) : value;
  return hash("sha256", Buffer.concat([outer, hash("sha256", Buffer.concat([inner, bytes]), "buffer")]), "buffer");
}

/**
 * A keyed, stable token: `h:` and 80 bits of HMAC-SHA-256 in base32. Equal values give equal tokens under one key, so
 * joins and counts still work; without the key a guessed value cannot be confirmed.
 */
export function hashToken(key: Uint8Array, value: Uint8Array | string): string {
  const digest = hmacSha256(key, value);
  let token = "h:";
  let bits = 0;
  let held = 0;
  for (let i = 0; i < 10; i++) {
    held = (held << 8) | (digest[i] as number);
    for (bits += 8; bits >= 5; bits -= 5) token += BASE32[(held >> (bits - 5)) & 31];
    held &= 31;
  }
  return token;
}

/** One value in its written forms gives one token. */
function canonical(detector: DetectorName, match: ByteText): string {
  switch (detector) {
    case "payment_card":
    case "us_ssn":
    case "phone":
      return digitsOf(match);
    case "iban":
      return match.replace(/[^A-Za-z0-9]+/g, "").toUpperCase();
    case "email":
      return match.replace("%40", "@").toLowerCase();
    default:
      return match;
  }
}

/** The part that stays; secrets keep nothing. */
function partial(detector: DetectorName, match: ByteText): string {
  switch (detector) {
    case "payment_card":
    case "phone":
      return `****${digitsOf(match).slice(-4)}`;
    case "us_ssn":
      return `***-**-${digitsOf(match).slice(-4)}`;
    case "iban":
      return `****${match.replace(/[^A-Za-z0-9]+/g, "").slice(-4)}`;
    case "email": {
      const sign = match.lastIndexOf("@") >= 0 ? match.lastIndexOf("@") : match.lastIndexOf("%40");
      // One character, which may be several bytes.
      const first = /^(?:[^\x80-\xff]|[\x80-\xff][\x80-\xbf]{0,3})/.exec(match)?.[0] ?? "";
      return `${first}***${match.slice(sign)}`;
    }
    default:
      return redacted(detector);
  }
}

const redacted = (detector: DetectorName): string => `[REDACTED:${detector}]`;

/** What stands in place of one match. ASCII but for what `partial` keeps of an e-mail address. */
export function replacement(method: Exclude<MaskMethod, "null">, detector: DetectorName, match: ByteText, key: Uint8Array): ByteText {
  if (method === "redact") return redacted(detector);
  return method === "hash" ? hashToken(key, Buffer.from(canonical(detector, match), "latin1")) : partial(detector, match);
}

/** Characters that a column's `partial` keeps at most, and the least part of the value that is hidden. */
const KEPT_CHARACTERS_MAX = 2;
const HIDDEN_PER_KEPT = 4;

/**
 * The mask of a whole value: `[REDACTED]`; `****` with the last two characters (at most a quarter of them); the token; or null.
 * The length of the value never shows.
 */
export function maskWhole(method: MaskMethod, value: Uint8Array, key: Uint8Array): Uint8Array | null {
  switch (method) {
    case "null":
      return null;
    case "hash":
      return Buffer.from(hashToken(key, value));
    case "redact":
      return Buffer.from("[REDACTED]");
    case "partial": {
      // Only the tail is decoded; 4 bytes a character hold what may be kept.
      const tail = Buffer.from(value.buffer, value.byteOffset + Math.max(0, value.length - 64), Math.min(64, value.length)).toString();
      const characters = [...tail];
      const kept = Math.min(KEPT_CHARACTERS_MAX, Math.floor(characters.length / HIDDEN_PER_KEPT));
      const shown = kept === 0 ? "" : characters.slice(-kept).join("");
      return Buffer.from(`****${shown.includes("\ufffd") ? "" : shown}`);
    }
  }
}
