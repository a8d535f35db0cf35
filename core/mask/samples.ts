import type { DetectorName } from "../policy/types.ts";
import { mod97 } from "./iban.ts";
import { luhn } from "./numbers.ts";

/** Values for tests and measurements: generated from a seed, shaped like real ones, none of them a real person's. */
export type Random = () => number;

/** Numbers in [0, 1) from a seed (mulberry32). */
export function seeded(seed: number): Random {
  let state = seed >>> 0;
  return () => {
    state = (state + 0x6d2b79f5) >>> 0;
    let mixed = Math.imul(state ^ (state >>> 15), state | 1);
    mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61);
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 4_294_967_296;
  };
}

export const below = (random: Random, limit: number): number => Math.floor(random() * limit);
export const pick = <T>(random: Random, list: readonly T[]): T => list[below(random, list.length)] as T;

const DIGITS = "0123456789";
const UPPER = "ABCDEFGHIJKLMNOPQRSTUVWXYZ";
const LOWER = UPPER.toLowerCase();

export const letters = (random: Random, alphabet: string, length: number): string =>
  Array.from({ length }, () => alphabet[below(random, alphabet.length)]).join("");
export const digits = (random: Random, length: number): string => letters(random, DIGITS, length);
export const hex = (random: Random, length: number): string => letters(random, "0123456789abcdef", length);
export const base64 = (random: Random, length: number): string => letters(random, `${UPPER}${LOWER}${DIGITS}+/`, length);
const word = (random: Random, length: number): string => letters(random, `${UPPER}${LOWER}${DIGITS}`, length);

function grouped(text: string, sizes: readonly number[], separator: string): string {
  const parts: string[] = [];
  for (let at = 0, i = 0; at < text.length; i++) {
    const size = sizes[Math.min(i, sizes.length - 1)] as number;
    parts.push(text.slice(at, at + size));
    at += size;
  }
  return parts.join(separator);
}

function card(random: Random): string {
  const [prefix, length, sizes] = pick(random, [
    ["4", 16, [4]],
    ["51", 16, [4]],
    ["2221", 16, [4]],
    ["37", 15, [4, 6, 5]],
    ["6011", 16, [4]],
    ["3528", 16, [4]],
    ["36", 14, [4, 6, 4]],
    ["62", 19, [4]],
  ] as const);
  const body = prefix + digits(random, length - prefix.length - 1);
  const number = body + [...DIGITS].find((check) => luhn(body + check));
  return pick(random, [number, grouped(number, sizes, " "), grouped(number, sizes, "-"), grouped(number, sizes, "\u00a0")]);
}

function ssn(random: Random): string {
  const area = pick(random, ["001", "123", "545", "667", "899"]);
  const group = String(1 + below(random, 99)).padStart(2, "0");
  const serial = String(1 + below(random, 9999)).padStart(4, "0");
  return pick(random, [
    `${area}-${group}-${serial}`,
    `${area} ${group} ${serial}`,
    `${area}\u2011${group}\u2011${serial}`,
    `ssn: ${area}${group}${serial}`,
    `Social-Security no. of the holder ${area}${group}${serial}`,
  ]);
}

const NAMES = ["john", "Jane.Doe", "o'brien", "m.müller", "a", "x_y-z", "first+tag", "anna99"];
const HOSTS = ["example.com", "mail.example.co.uk", "corp.io", "bücher.example", "a-b.example.org", "x.museum"];

function iban(random: Random): string {
  const [country, body] = pick(random, [
    ["DE", digits(random, 18)],
    ["GB", letters(random, UPPER, 4) + digits(random, 14)],
    ["FR", digits(random, 10) + letters(random, UPPER + DIGITS, 11) + digits(random, 2)],
    ["NO", digits(random, 11)],
    ["NL", letters(random, UPPER, 4) + digits(random, 10)],
    ["MT", letters(random, UPPER, 4) + digits(random, 5) + letters(random, UPPER + DIGITS, 18)],
    ["ES", digits(random, 20)],
    ["CH", digits(random, 5) + letters(random, UPPER + DIGITS, 12)],
  ] as const);
  const check = String(98 - mod97(`${country}00${body}`)).padStart(2, "0");
  const number = country + check + body;
  return pick(random, [number, grouped(number, [4], " "), grouped(number, [4], "-"), number.toLowerCase(), grouped(number, [4], "\u00a0")]);
}

function phone(random: Random): string {
  const area = pick(random, ["212", "415", "650", "808", "972"]);
  const exchange = pick(random, ["555", "234", "867"]);
  const line = digits(random, 4);
  return pick(random, [
    `+1 ${area} ${exchange} ${line}`,
    `+1-${area}-${exchange}-${line}`,
    `+1${area}${exchange}${line}`,
    `+1 (${area}) ${exchange}-${line}`,
    `(${area}) ${exchange}-${line}`,
    `${area}-${exchange}-${line}`,
    `${area}.${exchange}.${line}`,
    `1-${area}-${exchange}-${line}`,
    `+49 30 ${digits(random, 8)}`,
    `+44 20 7946 ${line}`,
    `+33 6 12 34 ${line.slice(0, 2)} ${line.slice(2)}`,
    `+919876${digits(random, 6)}`,
    `0049 151 2345${line}`,
    `020 7946 ${line}`,
    `07911 ${digits(random, 6)}`,
    `01 23 45 ${line.slice(0, 2)} ${line.slice(2)}`,
    `phone: ${area}${exchange}${line}`,
  ]);
}

function jwt(random: Random): string {
  const part = (value: unknown): string => Buffer.from(JSON.stringify(value)).toString("base64url");
  const header = { alg: pick(random, ["HS256", "RS256", "ES256"]), typ: "JWT" };
  return `${part(header)}.${part({ sub: digits(random, 8), iat: 1_700_000_000 })}.${base64(random, 43).replaceAll("+", "-").replaceAll("/", "_")}`;
}

function privateKey(random: Random): string {
  const kind = pick(random, ["", "RSA ", "EC ", "OPENSSH ", "ENCRYPTED ", "DSA "]);
  const newline = pick(random, ["\n", "\r\n", "\\n"]);
  if (random() < 0.2) {
    return [
      "-----BEGIN PGP PRIVATE KEY BLOCK-----",
      "",
      base64(random, 64),
      base64(random, 20),
      "-----END PGP PRIVATE KEY BLOCK-----",
    ].join(newline);
  }
  return [`-----BEGIN ${kind}PRIVATE KEY-----`, base64(random, 64), base64(random, 64), `-----END ${kind}PRIVATE KEY-----`].join(newline);
}

function cloudKey(random: Random): string {
  const awsId = `${pick(random, ["AKIA", "ASIA"])}${letters(random, "ABCDEFGHIJKLMNOPQRSTUVWXYZ234567", 16)}`;
  return pick(random, [
    awsId,
    `aws_secret_access_key = ${base64(random, 40)}`,
    `AIza${word(random, 35)}`,
    `AccountKey=${base64(random, 86)}==`,
    `ghp_${word(random, 36)}`,
    `github_pat_${word(random, 22)}_${word(random, 59)}`,
    `xoxb-${digits(random, 12)}-${digits(random, 12)}-${word(random, 24)}`,
    `sk_live_${word(random, 24)}`,
    `glpat-${word(random, 20)}`,
    `npm_${word(random, 36)}`,
    `SG.${word(random, 22)}.${word(random, 43)}`,
    `{"type":"service_account","private_key_id":"${hex(random, 40)}"}`,
  ]);
}

/** One sensitive value in one of its written forms. */
export const SENSITIVE: Readonly<Record<DetectorName, (random: Random) => string>> = {
  payment_card: card,
  us_ssn: ssn,
  email: (random) => `${pick(random, NAMES)}@${pick(random, HOSTS)}`,
  iban,
  phone,
  jwt,
  private_key: privateKey,
  cloud_key: cloudKey,
};

export const day = (random: Random): string =>
  `20${10 + below(random, 25)}-${String(1 + below(random, 12)).padStart(2, "0")}-${String(1 + below(random, 28)).padStart(2, "0")}`;
export const clock = (random: Random): string =>
  `${String(below(random, 24)).padStart(2, "0")}:${digits(random, 1)}5:${digits(random, 1)}1`;

/** One PostgreSQL DataRow message (Byte1('D') Int32 Int16, then Int32 length and bytes of each field). */
export function dataRow(fields: readonly string[]): Buffer {
  const values = fields.map((field) => Buffer.from(field));
  const length = 6 + values.reduce((sum, value) => sum + 4 + value.length, 0);
  const row = Buffer.alloc(1 + length);
  row.write("D");
  row.writeInt32BE(length, 1);
  row.writeInt16BE(values.length, 5);
  let at = 7;
  for (const value of values) {
    row.writeInt32BE(value.length, at);
    at += 4 + value.copy(row, at + 4);
  }
  return row;
}

/** Rows of six ordinary fields, about 110 bytes each, up to `bytes` in all. */
export function cleanChunk(random: Random, bytes: number): Buffer {
  const rows: Buffer[] = [];
  for (let total = 0, id = 100_000; ; id++) {
    const row = dataRow([
      String(id),
      `customer ${below(random, 100_000)} Berlin`,
      `${day(random)} ${clock(random)}.${digits(random, 6)}+00`,
      (random() * 1000).toFixed(2),
      "status shipped ok",
      hex(random, 20),
    ]);
    total += row.length;
    if (total > bytes) return Buffer.concat(rows);
    rows.push(row);
  }
}
