import {
  type CheckedNumber,
  type Code,
  compilePatterns,
  type DigitShape,
  type Literal,
  matcherAvailable,
  type PatternSet,
} from "../native/matcher.ts";
import type { DetectorName } from "../policy/types.ts";
import { IBAN_FORMS } from "./iban.ts";
import { ISSUED_PREFIXES } from "./numbers.ts";

/** More flags in one chunk make scan() answer -1. */
export const FLAGS_MAX = 16_384;

/** The bit that stands for a detector among the kinds of a flag. */
export const KIND_BITS: Readonly<Record<DetectorName, number>> = {
  private_key: 1,
  jwt: 2,
  cloud_key: 4,
  payment_card: 8,
  iban: 16,
  us_ssn: 32,
  email: 64,
  phone: 128,
};
export const ALL_KINDS = Object.values(KIND_BITS).reduce((all, bit) => all | bit, 0);

export type PrefilterEngine = "native" | "regexp";
/**
 * Like Masker.scan. @param flags two words for each flag, then one: what may be read closely (Work), and afterwards what is left of it
 * (the portable engine does not count)
 */
export type Prefilter = (bytes: Uint8Array, start: number, end: number, flags: Uint32Array) => number;

type Flagged = readonly [pattern: string, flags: "" | "i"];

type Bare<Pattern> = Omit<Pattern, "kinds">;

/** Necessary parts of a detector's matches, for the native scan and, as regular expressions, for the portable one. */
interface Hints {
  readonly literals?: readonly Bare<Literal>[];
  readonly numbers?: readonly Bare<CheckedNumber>[];
  readonly shapes?: readonly Bare<DigitShape>[];
  readonly codes?: readonly Bare<Code>[];
  /** The same for numbers, shapes and codes, over latin1. Literals are translated. */
  readonly portable?: readonly Flagged[];
}

const ANYTHING = { caseless: false, token: 0, digits: 0, window: 0, joined: false } as const;
const exactly = (...texts: string[]): Bare<Literal>[] => texts.map((text) => ({ ...ANYTHING, text }));
const caseless = (...texts: string[]): Bare<Literal>[] => texts.map((text) => ({ ...ANYTHING, text, caseless: true }));
const withToken = (token: number, ...texts: string[]): Bare<Literal>[] => texts.map((text) => ({ ...ANYTHING, text, token }));

/** Up to three separator bytes, as in core/native/digits.h. */
const GAP = "[ ()./\\x80-\\xff-]{1,3}";

/**
 * What every exact match of a detector contains. A chunk holds fields and framing between them, so nothing here looks
 * before a match: the byte before a field may look like a digit or letter.
 */
const HINTS: Readonly<Record<DetectorName, Hints>> = {
  payment_card: { numbers: ISSUED_PREFIXES, portable: [["[2-6](?:[ \\x80-\\xff-]{0,3}[0-9]){12}", ""]] },
  us_ssn: {
    literals: caseless("ssn", "social").map((label) => ({ ...label, digits: 9, window: 48 })),
    shapes: [
      {
        groups: [
          [3, 3],
          [2, 2],
          [4, 4],
        ],
        zeros: 0,
        digits: 9,
      },
    ],
    portable: [[`[0-9]{3}${GAP}[0-9]{2}${GAP}[0-9]{4}`, ""]],
  },
  email: { literals: exactly("@", "%40") },
  iban: { codes: IBAN_FORMS, portable: [["[A-Z]{2}[0-9]{2}(?:[ \\x80-\\xff-]{0,3}[A-Z0-9]){11}", "i"]] },
  phone: {
    literals: [
      { ...ANYTHING, text: "+", digits: 7, window: 49, joined: true },
      ...caseless("phone", "mobile", "tel", "fax", "whatsapp").map((label) => ({ ...label, digits: 10, window: 64 })),
    ],
    shapes: [
      {
        groups: [
          [3, 3],
          [3, 3],
          [4, 4],
        ],
        zeros: 0,
        digits: 10,
      },
      {
        groups: [
          [3, 5],
          [3, 4],
          [3, 4],
        ],
        zeros: 1,
        digits: 10,
      },
      {
        groups: [
          [3, 5],
          [6, 8],
        ],
        zeros: 1,
        digits: 10,
      },
      {
        groups: [
          [2, 2],
          [2, 2],
          [2, 2],
          [2, 2],
          [2, 2],
        ],
        zeros: 1,
        digits: 10,
      },
      {
        groups: [
          [3, 5],
          [1, 9],
        ],
        zeros: 2,
        digits: 10,
      },
    ],
    portable: [
      [`[2-9][0-9]{2}${GAP}[2-9][0-9]{2}${GAP}[0-9]{4}`, ""],
      [`0[0-9]{2,4}${GAP}[0-9]{3}`, ""],
      [`0[0-9](?:${GAP}[0-9]{2}){4}`, ""],
      [`00[1-9][0-9]{0,2}${GAP}[0-9]`, ""],
    ],
  },
  jwt: { literals: withToken(4, "eyJ") },
  private_key: { literals: exactly("PRIVATE KEY", "PuTTY-User-Key-File-") },
  cloud_key: {
    literals: [
      ...withToken(16, "AKIA", "ASIA", "ABIA", "ACCA"),
      ...caseless("secret"),
      ...withToken(28, "AIza", "GOCSPX-"),
      ...withToken(20, "ya29.", "sk-proj-", "sk-ant-", "sk-svcacct-", "sk-admin-", "glpat-", "github_pat_", "T3BlbkFJ"),
      ...exactly('"private_key', "AccountKey=", "SharedAccessKey=", "+ASt", "ACDb", "+ABa", "Q~", "whsec_", "hooks.slack.com/services/"),
      ...withToken(34, "ghp_", "gho_", "ghu_", "ghs_", "ghr_", "npm_", "hf_", "pypi-AgEIcHlwaS", "dop_v1_"),
      ...withToken(12, "xox", "xapp-"),
      ...withToken(16, "k_live_", "k_test_"),
      ...withToken(22, "SG.", "hvs.", "hvb."),
    ],
  },
};

/** What the native scan looks for. */
export function patternsFor(detectors: readonly DetectorName[]): PatternSet {
  const gather = <Pattern>(patternsOf: (hints: Hints) => readonly Bare<Pattern>[] | undefined): (Bare<Pattern> & { kinds: number })[] =>
    detectors.flatMap((name) => (patternsOf(HINTS[name]) ?? []).map((pattern) => ({ ...pattern, kinds: KIND_BITS[name] })));
  return {
    literals: gather<Literal>((hints) => hints.literals),
    numbers: gather<CheckedNumber>((hints) => hints.numbers),
    shapes: gather<DigitShape>((hints) => hints.shapes),
    codes: gather<Code>((hints) => hints.codes),
  };
}

function native(detectors: readonly DetectorName[]): Prefilter {
  const database = compilePatterns(patternsFor(detectors));
  return (bytes, start, end, flags) => database.scan(bytes, start, end, flags);
}

/** A literal, and what must follow, as a regular expression. */
function translated({ text, caseless: folded, token, digits, window, joined }: Bare<Literal>): Flagged {
  const literal = text.replace(/[.*+?^${}()|[\]\\/-]/g, (character) => `\\x${character.charCodeAt(0).toString(16)}`);
  const separators = `[ ()./\\x80-\\xff-]{0,${Math.floor(window / Math.max(1, digits)) - 1}}`;
  const number = joined ? `(?=(?:${separators}[0-9]){${digits}})` : `(?=[^]{0,${window - 1}}[0-9])`;
  const follow = (token > 0 ? `(?=[A-Za-z0-9_-]{${token}})` : "") + (digits > 0 ? number : "");
  return [literal + follow, folded ? "i" : ""];
}

function regexp(detectors: readonly DetectorName[]): Prefilter {
  const hints = detectors.map((name) => HINTS[name]);
  const flagged = hints.flatMap((hint) => [...(hint.literals ?? []).map(translated), ...(hint.portable ?? [])]);
  const sources = (flags: "" | "i"): string[] => flagged.filter(([, own]) => own === flags).map(([pattern]) => pattern);
  const forms = (["", "i"] as const).flatMap((flags) =>
    sources(flags).length === 0 ? [] : [new RegExp(sources(flags).join("|"), `g${flags}`)],
  );
  return (bytes, start, end, flags) => {
    const text = Buffer.prototype.latin1Slice.call(bytes, start, end);
    const capacity = flags.length >> 1;
    let count = 0;
    for (const form of forms) {
      form.lastIndex = 0;
      for (let match = form.exec(text); match !== null; match = form.exec(text)) {
        if (count === capacity) return -1;
        // The first byte: where a match starts in a field, another alternative at the same place may end beyond it.
        flags[count++] = start + match.index;
        // Framing may look like a match and swallow the beginning of a real one, so every start is tried.
        form.lastIndex = match.index + 1;
      }
    }
    flags.subarray(0, count).sort();
    let kept = 0;
    for (let i = 0; i < count; i++) {
      if (i === 0 || flags[i] !== flags[kept - 1]) flags[kept++] = flags[i] as number;
    }
    // Which alternative matched is not asked: a flag here is of every kind.
    flags.fill(ALL_KINDS, capacity, capacity + kept);
    return kept;
  };
}

/** Compiled prefilters of this thread: a set of detectors is compiled once, whatever number of sessions uses it. */
const compiled = new Map<string, Prefilter>();

/**
 * The prefilter for a set of detectors.
 * @param engine undefined: the native one where it is built, else the portable one
 * @throws SluiceError SLUICE_INTERNAL when `native` is asked for and not built
 */
export function prefilterFor(detectors: readonly DetectorName[], engine: PrefilterEngine | undefined): Prefilter {
  const chosen = engine ?? (matcherAvailable() ? "native" : "regexp");
  const names = [...new Set(detectors)].sort();
  const key = `${chosen} ${names.join(" ")}`;
  let prefilter = compiled.get(key);
  if (prefilter === undefined) {
    prefilter = chosen === "native" ? native(names) : regexp(names);
    compiled.set(key, prefilter);
  }
  return prefilter;
}
