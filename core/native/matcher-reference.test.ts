import assert from "node:assert/strict";
import { before, test } from "node:test";
import { patternsFor } from "../mask/prefilter.ts";
import { below, digits, hex, letters, pick, type Random, SENSITIVE, seeded } from "../mask/samples.ts";
import type { DetectorName } from "../policy/types.ts";
import { buildNative } from "./build.ts";
import { compilePatterns, type DigitShape, type Literal, type PatternSet } from "./matcher.ts";

// What the scan has to find, said byte by byte: whatever block, lane or chance candidate a match falls into, both agree.
before(() => buildNative({ quiet: true }));

const ALL = Object.keys(SENSITIVE) as DetectorName[];
const EMPTY: PatternSet = { literals: [], numbers: [], shapes: [], codes: [] };

const isDigit = (byte: number | undefined): boolean => byte !== undefined && byte >= 0x30 && byte <= 0x39;
const isLetter = (byte: number): boolean => (byte >= 0x41 && byte <= 0x5a) || (byte >= 0x61 && byte <= 0x7a);
const isTight = (byte: number): boolean => byte >= 0x80 || byte === 0x20 || byte === 0x2d;
const isLoose = (byte: number): boolean => byte === 0x28 || byte === 0x29 || byte === 0x2e || byte === 0x2f;
const isSeparator = (byte: number | undefined): boolean => byte !== undefined && (isTight(byte) || isLoose(byte));

type Emit = (end: number, kinds: number) => void;

function literalAt(bytes: Uint8Array, at: number, { text, caseless, token, digits: wanted, window, joined }: Literal): boolean {
  if ((bytes[at] | 0x20) !== (text.charCodeAt(0) | 0x20)) return false;
  const found = Buffer.from(bytes.subarray(at, at + text.length)).toString("latin1");
  if (caseless ? found.toLowerCase() !== text.toLowerCase() : found !== text) return false;
  const rest = bytes.subarray(at + text.length);
  if (rest.length < token) return false;
  for (const byte of rest.subarray(0, token)) if (!isDigit(byte) && !isLetter(byte) && byte !== 0x2d && byte !== 0x5f) return false;
  let count = 0;
  for (const byte of rest.subarray(0, window)) {
    if (count === wanted) break;
    if (isDigit(byte)) count++;
    else if (joined && !isSeparator(byte)) break;
  }
  return count === wanted;
}

function codes(set: PatternSet, bytes: Uint8Array, emit: Emit): void {
  for (let at = 0; at + 4 < bytes.length; at++) {
    if (!isLetter(bytes[at]) || !isLetter(bytes[at + 1]) || !isDigit(bytes[at + 2]) || !isDigit(bytes[at + 3])) continue;
    const prefix = String.fromCharCode(bytes[at], bytes[at + 1]).toUpperCase();
    const code = set.codes.find((one) => one.prefix === prefix);
    if (code === undefined) continue;
    let rest = "";
    let gap = 0;
    let next = at + 4;
    for (; next < bytes.length && rest.length < code.rest.length; next++) {
      const byte = bytes[next];
      const kind = code.rest[rest.length];
      if (isDigit(byte) || isLetter(byte)) {
        if (kind !== "c" && (kind === "n") !== isDigit(byte)) break;
        rest += String.fromCharCode(byte);
        gap = 0;
      } else if (!isTight(byte) || ++gap > 3) break;
    }
    if (rest.length < code.rest.length) continue;
    const number = [...(rest + Buffer.from(bytes.subarray(at, at + 4)).toString("latin1"))].map((one) => Number.parseInt(one, 36)).join("");
    if (BigInt(number) % 97n === 1n) emit(next - 1, code.kinds);
  }
}

type Gate = "zeros" | "pairs" | "afterGap";
function gateOf({ groups, zeros }: DigitShape): Gate {
  if (zeros === 2) return "zeros";
  return groups.length >= 5 && groups.every(([least, most]) => least === 2 && most === 2) ? "pairs" : "afterGap";
}

/** Whether a run that holds this place is read. */
function suspicious(bytes: Uint8Array, at: number, set: PatternSet): boolean {
  const d = (k: number): boolean => isDigit(bytes[at + k]);
  const s = (k: number): boolean => isSeparator(bytes[at + k]);
  const row = (from: number, to: number): boolean => Array.from({ length: to - from + 1 }, (_, i) => from + i).every(d);
  const gates = new Set(set.shapes.map(gateOf));
  const numbers = set.numbers.length > 0;
  if ((numbers || gates.has("afterGap")) && s(0) && row(1, 3) && (s(-1) || (row(-2, -1) && (d(-3) || s(-3))))) return true;
  if (numbers && row(0, 10) && (s(11) || row(11, 12))) return true;
  if (gates.has("pairs") && [0, 3, 6, 9].every((k) => s(k) && row(k + 1, k + 2))) return true;
  const gap = s(3) || (d(3) && (s(4) || (d(4) && s(5))));
  return gates.has("zeros") && bytes[at] === 0x30 && bytes[at + 1] === 0x30 && d(2) && bytes[at + 2] !== 0x30 && gap;
}

const luhn = (run: string): boolean =>
  [...run].reverse().reduce((sum, digit, i) => sum + (i % 2 === 0 ? Number(digit) : [0, 2, 4, 6, 8, 1, 3, 5, 7, 9][Number(digit)]), 0) %
    10 ===
  0;

/** One run of digits and separators that is read. */
function readRun(bytes: Uint8Array, from: number, to: number, set: PatternSet, emit: Emit): void {
  const inRun = bytes.subarray(from, to).filter(isDigit).length;
  if (inRun < Math.min(...set.shapes.map((shape) => shape.digits), ...(set.numbers.length > 0 ? [13] : []))) return;
  let number = "";
  let groups: { start: number; text: string }[] = [];
  for (let at = from; at < to; ) {
    let gap = at;
    while (gap < to && !isDigit(bytes[gap])) gap++;
    if (gap - at > 3) groups = [];
    if (gap - at > 3 || bytes.subarray(at, gap).some(isLoose)) number = "";
    let end = gap;
    for (; end < to && isDigit(bytes[end]); end++) {
      number += String.fromCharCode(bytes[end]);
      for (const { length, prefixes, kinds } of inRun >= 13 ? set.numbers : []) {
        const last = number.slice(-length);
        const admitted = new RegExp(`^(?:..)*${last.slice(0, 2)}`).test(prefixes);
        if (last.length === length && admitted && luhn(last)) emit(end, kinds);
      }
    }
    if (end === gap) break;
    groups.push({ start: gap, text: Buffer.from(bytes.subarray(gap, end)).toString("latin1") });
    for (const shape of set.shapes) {
      const own = groups.slice(-shape.groups.length);
      if (own.length < shape.groups.length || inRun < shape.digits) continue;
      const fits = own.every(({ text }, i) => {
        const [least, most] = shape.groups[i];
        return text.length >= least && (i === 0 || i === own.length - 1 || text.length <= most);
      });
      const [least, most] = shape.groups[0];
      const first = own[0].text;
      const begins = Array.from({ length: most - least + 1 }, (_, i) => least + i)
        .filter((take) => take <= first.length)
        .some((take) => (shape.zeros === 2 ? /^00[^0]/ : /^0/).test(first.slice(first.length - take)));
      const last = shape.groups.at(-1) as readonly [number, number];
      if (fits && (shape.zeros === 0 || begins)) emit((own.at(-1)?.start ?? 0) + last[0] - 1, shape.kinds);
    }
    at = end;
  }
}

function reference(set: PatternSet, bytes: Uint8Array): [end: number, kinds: number][] {
  const found = new Map<number, number>();
  const emit: Emit = (end, kinds) => void found.set(end, (found.get(end) ?? 0) | kinds);
  for (const literal of set.literals) {
    for (let at = 0; at < bytes.length; at++) if (literalAt(bytes, at, literal)) emit(at + literal.text.length - 1, literal.kinds);
  }
  codes(set, bytes, emit);
  const inRun = (at: number): boolean => isDigit(bytes[at]) || isSeparator(bytes[at]);
  for (let from = 0; from < bytes.length; from++) {
    if (!inRun(from)) continue;
    let to = from;
    let read = false;
    for (; to < bytes.length && inRun(to); to++) read ||= suspicious(bytes, to, set);
    if (read) readRun(bytes, from, to, set, emit);
    from = to;
  }
  return [...found].sort(([a], [b]) => a - b);
}

/** The bytes stand in a block of their own with others around them, and the scan sees a part. */
function scanned(database: ReturnType<typeof compilePatterns>, text: Uint8Array, around: Uint8Array): [end: number, kinds: number][] {
  const bytes = new Uint8Array(around.length * 2 + text.length);
  bytes.set(around);
  bytes.set(text, around.length);
  bytes.set(around, around.length + text.length);
  const flags = new Uint32Array(2 * 8_192);
  const count = database.scan(bytes, around.length, around.length + text.length, flags);
  assert.ok(count >= 0);
  return Array.from({ length: count }, (_, i) => [flags[i] - around.length, flags[8_192 + i]]);
}

/** Parts of what is looked for, alone and in each other's way. */
function fragment(random: Random, set: PatternSet): string {
  const kind = below(random, 9);
  if (kind === 0) return letters(random, "+0123456789", 1 + below(random, 24));
  if (kind === 1) return letters(random, "+0123456789 -.()/\xa0\xc2", 1 + below(random, 40));
  if (kind === 2) return letters(random, "00011 -.", 1 + below(random, 24));
  if (kind === 3) return letters(random, "DEdeFRABCZ0123456789 -\0", 1 + below(random, 30));
  if (kind === 4)
    return pick(random, [`+${digits(random, 2)}`, `+${digits(random, 7)}`, ` ${digits(random, 3)}`, "\0\0\0", hex(random, 8)]);
  if (kind === 5) return String.fromCharCode(...Array.from({ length: 1 + below(random, 12) }, () => below(random, 256)));
  if (kind === 6) return SENSITIVE[pick(random, ALL)](random);
  const { text } = pick(random, set.literals);
  const changed = random() < 0.5 ? text : text.slice(below(random, 3), text.length - below(random, 2));
  const cased = random() < 0.7 ? changed : random() < 0.5 ? changed.toUpperCase() : changed.toLowerCase();
  const flipped = Buffer.from(cased, "latin1");
  if (random() < 0.3 && flipped.length > 0) flipped[below(random, flipped.length)] ^= 1 << below(random, 8);
  return flipped.toString("latin1") + (random() < 0.5 ? letters(random, "abcXYZ0123456789-_ ", below(random, 40)) : "");
}

test("what is found is what the patterns say, in bytes dense with parts of them", () => {
  const random = seeded(31);
  const sets = [patternsFor(ALL), ...ALL.map((name) => patternsFor([name]))];
  for (const shape of patternsFor(ALL).shapes) sets.push({ ...EMPTY, shapes: [shape] });
  const databases = sets.map(compilePatterns);
  let matches = 0;
  for (let round = 0; round < 2_500; round++) {
    const chosen = random() < 0.5 ? 0 : below(random, sets.length);
    const length = random() < 0.1 ? 1_500 + below(random, 200) : below(random, 200);
    let text = "";
    while (text.length < length) text += fragment(random, sets[0]);
    const bytes = Buffer.from(text.slice(0, length), "latin1");
    const expected = reference(sets[chosen], bytes);
    matches += expected.length;
    const around = Buffer.from(fragment(random, sets[0]), "latin1");
    assert.deepEqual(
      scanned(databases[chosen], bytes, around),
      expected,
      `set ${chosen}, round ${round}: ${JSON.stringify(bytes.toString("latin1"))}`,
    );
  }
  assert.ok(matches > 2_000, `${matches} matches`);
});

/** One place each gives them away, and all that matters around it is needed. */
const SPARSE = ["4222222222222", "01 23 45 67 89", "0012.5555555", "00123 5555555", "078-05-1120", "+1234567", "+1 (23) 45.67", "Q~", "@"];

test("every kind of match is found at every place of a block, and across what is scanned together", () => {
  const random = seeded(32);
  const set = patternsFor(ALL);
  const database = compilePatterns(set);
  // One batch of overlapping blocks is 32 times 49 bytes long.
  const leads = [...Array(140).keys(), ...Array.from({ length: 140 }, (_, i) => 32 * 49 - 120 + i), 2 * 32 * 49 - 3, 65_536 - 7];
  const samples = ALL.flatMap((name) => Array.from({ length: 6 }, () => SENSITIVE[name](random)));
  for (const value of [...SPARSE, ...samples].map((text) => Buffer.from(text))) {
    const alone = reference(set, value);
    assert.ok(alone.length > 0, `${value}`);
    for (const lead of leads) {
      const text = Buffer.concat([Buffer.alloc(lead), value, Buffer.alloc(below(random, 70))]);
      const expected = alone.map(([end, kinds]) => [end + lead, kinds]);
      assert.deepEqual(scanned(database, text, Buffer.from("+12")), expected, `behind ${lead} bytes: ${value}`);
    }
  }
});
