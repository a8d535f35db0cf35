import { type ByteText, isAlphanumeric, type Span, separatorLength } from "./bytes.ts";

/** Structure of the part after country and check digits (SWIFT IBAN registry): n digits, a letters, c either; with its count. */
const STRUCTURES: Readonly<Record<string, string>> = {
  AD: "8n12c",
  AE: "19n",
  AL: "8n16c",
  AT: "16n",
  AZ: "4a20c",
  BA: "16n",
  BE: "12n",
  BG: "4a6n8c",
  BH: "4a14c",
  BI: "23n",
  BR: "23n1a1c",
  BY: "4c4n16c",
  CH: "5n12c",
  CR: "18n",
  CY: "8n16c",
  CZ: "20n",
  DE: "18n",
  DJ: "23n",
  DK: "14n",
  DO: "4c20n",
  EE: "16n",
  EG: "25n",
  ES: "20n",
  FI: "14n",
  FK: "2a12n",
  FO: "14n",
  FR: "10n11c2n",
  GB: "4a14n",
  GE: "2a16n",
  GI: "4a15c",
  GL: "14n",
  GR: "7n16c",
  GT: "24c",
  HN: "4a20n",
  HR: "17n",
  HU: "24n",
  IE: "4a14n",
  IL: "19n",
  IQ: "4a15n",
  IS: "22n",
  IT: "1a10n12c",
  JO: "4a4n18c",
  KW: "4a22c",
  KZ: "3n13c",
  LB: "4n20c",
  LC: "4a24c",
  LI: "5n12c",
  LT: "16n",
  LU: "3n13c",
  LV: "4a13c",
  LY: "21n",
  MC: "10n11c2n",
  MD: "20c",
  ME: "18n",
  MK: "3n10c2n",
  MN: "16n",
  MR: "23n",
  MT: "4a5n18c",
  MU: "4a19n3a",
  NI: "4a20n",
  NL: "4a10n",
  NO: "11n",
  OM: "3n16c",
  PK: "4a16c",
  PL: "24n",
  PS: "4a21c",
  PT: "21n",
  QA: "4a21c",
  RO: "4a16c",
  RS: "18n",
  RU: "14n15c",
  SA: "2n18c",
  SC: "4a20n3a",
  SD: "14n",
  SE: "20n",
  SI: "15n",
  SK: "20n",
  SM: "1a10n12c",
  SO: "19n",
  ST: "21n",
  SV: "4a20n",
  TL: "19n",
  TN: "20n",
  TR: "5n1c16c",
  UA: "6n19c",
  VA: "18n",
  VG: "4a16n",
  XK: "16n",
  YE: "4a4n18c",
};

const CLASSES: Readonly<Record<string, string>> = { n: "[0-9]", a: "[A-Z]", c: "[A-Z0-9]" };

interface Country {
  readonly length: number;
  readonly form: RegExp;
}

const COUNTRIES: ReadonlyMap<string, Country> = new Map(
  Object.entries(STRUCTURES).map(([country, structure]) => {
    const parts = [...structure.matchAll(/([0-9]+)([nac])/g)].map(([, count, kind]) => ({
      count: Number(count),
      kind: CLASSES[kind as string],
    }));
    const form = new RegExp(`^[A-Z]{2}[0-9]{2}${parts.map(({ count, kind }) => `${kind}{${count}}`).join("")}$`);
    return [country, { form, length: parts.reduce((sum, { count }) => sum + count, 4) }];
  }),
);

/** By country the class of every character after the check digits (see STRUCTURES), for the prefilter. */
export const IBAN_FORMS: readonly { readonly prefix: string; readonly rest: string }[] = Object.entries(STRUCTURES).map(
  ([prefix, structure]) => ({
    prefix,
    rest: structure.replace(/([0-9]+)([nac])/g, (_part, count: string, kind: string) => kind.repeat(Number(count))),
  }),
);

/** ISO 7064 MOD 97-10 over the rearranged number, seven digits at a time. */
export function mod97(iban: string): number {
  const digits = (iban.slice(4) + iban.slice(0, 4)).replace(/[A-Z]/g, (letter) => String(letter.charCodeAt(0) - 55));
  let rest = 0;
  for (let i = 0; i < digits.length; i += 7) rest = Number(rest + digits.slice(i, i + 7)) % 97;
  return rest;
}

const BEGINNING = /[A-Za-z]{2}[0-9]{2}/g;

/** IBANs of every country of the registry, either case, plain or with single separators; structure and check digits hold. */
export function ibans(text: ByteText, found: Span[]): void {
  BEGINNING.lastIndex = 0;
  for (let match = BEGINNING.exec(text); match !== null; match = BEGINNING.exec(text)) {
    const start = match.index;
    BEGINNING.lastIndex = start + 1;
    const country = COUNTRIES.get(text.slice(start, start + 2).toUpperCase());
    if (country === undefined) continue;
    if (isAlphanumeric(text.charCodeAt(start - 1)) && !/iban$/i.test(text.slice(Math.max(0, start - 4), start))) continue;
    let end = start + 4;
    let length = 4;
    for (; length < country.length; length++) {
      const next = end + separatorLength(text, end);
      if (!isAlphanumeric(text.charCodeAt(next))) break;
      end = next + 1;
    }
    if (length < country.length || isAlphanumeric(text.charCodeAt(end))) continue;
    const iban = text
      .slice(start, end)
      .replace(/[^A-Za-z0-9]+/g, "")
      .toUpperCase();
    if (!country.form.test(iban) || mod97(iban) !== 1) continue;
    found.push({ start, end });
    BEGINNING.lastIndex = end;
  }
}
