import { LIMITS } from "../limits.ts";
import type { DetectorName, MaskMethod, MaskRule } from "../policy/types.ts";
import type { ByteText, Span } from "./bytes.ts";
import { DETECTORS, type Detector, type FieldFacts } from "./detectors.ts";
import { maskWhole, replacement, STRICTNESS } from "./methods.ts";
import { ALL_KINDS, FLAGS_MAX, KIND_BITS, type Prefilter, type PrefilterEngine, prefilterFor } from "./prefilter.ts";
import type { Masker, Work } from "./types.ts";

interface Task {
  readonly detector: Detector;
  readonly rule: string;
  readonly method: MaskMethod;
  readonly kinds: number;
}

interface Finding extends Span {
  readonly task: Task;
}

/** Replacing can bring text together that matches anew; more rounds than this and the whole value is redacted. */
const ROUNDS_MAX = 8;
/** What a value and a match cost beyond the reading, as bytes read would. */
const VALUE_BYTES = 24;
const MATCH_BYTES = 16;
const HASHED_MATCH_BYTES = 48;
/** More flags than this in one field and it counts as flagged for every detector. */
const FIELD_FLAGS_MAX = 256;
const REDACTED = "[REDACTED]";

/** Where several rules name a detector, the strictest method counts (null, redact, hash, partial), then the first rule. */
function tasksOf(rules: readonly MaskRule[]): Task[] {
  return DETECTORS.flatMap((detector) => {
    const named = rules.filter((rule) => rule.detect.includes(detector.name));
    const first = named[0];
    if (first === undefined) return [];
    const rule = named.reduce((best, next) => (STRICTNESS[next.with] > STRICTNESS[best.with] ? next : best), first);
    return [{ detector, rule: rule.name, method: rule.with, kinds: KIND_BITS[detector.name] }];
  });
}

/** What bytes there are of each value that FieldFacts counts; 0 for all others. */
const DIGIT = 1;
const DASH = 2;
const DOT = 3;
const SIGN = 4;
const COUNTED = Uint8Array.from({ length: 256 }, (_, byte) => {
  if (byte >= 0x30 && byte <= 0x39) return DIGIT;
  return byte === 0x2d ? DASH : byte === 0x2e ? DOT : byte === 0x40 || byte === 0x25 ? SIGN : 0;
});

/** Of the field that is looked at, and used by one call at a time. */
class Facts implements FieldFacts {
  bytes = 0;
  digits = 0;
  dashes = 0;
  dots = 0;
  signs = 0;
  #counts = new Uint32Array(5);

  read(bytes: Uint8Array, start: number, end: number): void {
    this.#counts.fill(0);
    for (let i = start; i < end; i++) this.#counts[COUNTED[bytes[i]]]++;
    this.bytes = end - start;
    this.digits = this.#counts[DIGIT];
    this.dashes = this.#counts[DASH];
    this.dots = this.#counts[DOT];
    this.signs = this.#counts[SIGN];
  }
}

/** Findings in order without overlaps: what overlaps becomes one, under the strictest method, then the earliest finding. */
function merge(findings: Finding[]): { start: number; end: number; task: Task; whole: boolean }[] {
  findings.sort((a, b) => a.start - b.start || b.end - a.end);
  const merged: { start: number; end: number; task: Task; whole: boolean }[] = [];
  for (const { start, end, task } of findings) {
    const last = merged.at(-1);
    if (last === undefined || start >= last.end) {
      merged.push({ start, end, task, whole: true });
      continue;
    }
    const stricter = STRICTNESS[task.method] > STRICTNESS[last.task.method];
    // What is kept of one match must not show a part of another.
    if (stricter || end > last.end) last.whole = false;
    if (stricter) last.task = task;
    last.end = Math.max(last.end, end);
  }
  return merged;
}

/** @returns what the prefilter says; `work` is what is left of it */
function scanWithin(
  prefilter: Prefilter,
  bytes: Uint8Array,
  start: number,
  end: number,
  flags: Uint32Array,
  work: Work | undefined,
): number {
  const last = flags.length - 1;
  flags[last] = work === undefined ? LIMITS.suspiciousBytes : work.left;
  const count = prefilter(bytes, start, end, flags);
  if (work !== undefined) work.left = flags[last];
  return count;
}

class RuleMasker implements Masker {
  readonly scans: boolean;
  readonly shortestBytes: number;
  readonly flags: Uint32Array;
  readonly flagsMax = FLAGS_MAX;
  lastRule = "";
  searched = 0;
  readonly #tasks: readonly Task[];
  readonly #key: Uint8Array;
  readonly #prefilter: ReturnType<typeof prefilterFor> | undefined;
  /** Of one field; `flags` belongs to whoever scans a chunk. */
  readonly #fieldFlags: Uint32Array;
  readonly #facts = new Facts();

  constructor(rules: readonly MaskRule[], hashKey: Uint8Array, engine: PrefilterEngine | undefined) {
    this.#tasks = tasksOf(rules);
    this.#key = hashKey;
    this.scans = this.#tasks.length > 0;
    this.shortestBytes = Math.min(...this.#tasks.map((task) => task.detector.leastBytes));
    this.flags = new Uint32Array(this.scans ? 2 * FLAGS_MAX + 1 : 0);
    this.#fieldFlags = new Uint32Array(this.scans ? 2 * FIELD_FLAGS_MAX + 1 : 0);
    const names: DetectorName[] = this.#tasks.map((task) => task.detector.name);
    this.#prefilter = this.scans ? prefilterFor(names, engine) : undefined;
  }

  scan(bytes: Uint8Array, start: number, end: number, work?: Work): number {
    return this.#prefilter === undefined ? 0 : scanWithin(this.#prefilter, bytes, start, end, this.flags, work);
  }

  kindsIn(bytes: Uint8Array, start: number, end: number, work?: Work): number {
    if (this.#prefilter === undefined || end - start < this.shortestBytes) return 0;
    const count = scanWithin(this.#prefilter, bytes, start, end, this.#fieldFlags, work);
    if (count < 0) return ALL_KINDS;
    let kinds = 0;
    for (let i = 0; i < count; i++) kinds |= this.#fieldFlags[FIELD_FLAGS_MAX + i];
    return kinds;
  }

  field(
    bytes: Uint8Array,
    start: number,
    end: number,
    suspected?: number,
    mostBytes: number = LIMITS.maskedRowBytes,
  ): Uint8Array | null | undefined {
    this.searched = 0;
    if (end - start < this.shortestBytes) return undefined;
    if (end - start > Math.min(mostBytes, LIMITS.maskedValueBytes)) return this.#whole(suspected ?? this.kindsIn(bytes, start, end));
    const kinds = suspected ?? ALL_KINDS;
    this.#facts.read(bytes, start, end);
    if (!this.#any(kinds)) return undefined;
    this.searched = VALUE_BYTES;
    let text: ByteText = Buffer.prototype.latin1Slice.call(bytes, start, end);
    let strictest: Task | undefined;
    let wanted = kinds;
    let result: Uint8Array | undefined;
    for (let round = 0; round < ROUNDS_MAX; round++) {
      this.searched += text.length;
      if (this.searched > mostBytes) break;
      const { masked, task } = this.#round(text, wanted, mostBytes);
      if (task !== undefined && (strictest === undefined || STRICTNESS[task.method] > STRICTNESS[strictest.method])) strictest = task;
      if (strictest === undefined) return undefined;
      this.lastRule = strictest.rule;
      if (masked === null) return null;
      if (this.searched > mostBytes) break;
      if (masked === text) return result;
      // What a replacement brings together may be anything, so it is searched like any field.
      text = masked;
      result = Buffer.from(text, "latin1");
      wanted = this.kindsIn(result, 0, result.length);
      if (wanted === 0) return result;
      this.#facts.read(result, 0, result.length);
    }
    return this.#whole(kinds | wanted);
  }

  column(method: MaskMethod, bytes: Uint8Array, start: number, end: number): Uint8Array | null {
    return maskWhole(method, bytes.subarray(start, end), this.#key);
  }

  /** A value that is too much for the exact matchers: the strictest of the rules whose detectors suspect something decides. */
  #whole(kinds: number): Uint8Array | null | undefined {
    let strictest: Task | undefined;
    for (const task of this.#tasks) {
      if ((task.kinds & kinds) === 0) continue;
      if (strictest === undefined || STRICTNESS[task.method] > STRICTNESS[strictest.method]) strictest = task;
    }
    if (strictest === undefined) return undefined;
    this.lastRule = strictest.rule;
    return strictest.method === "null" ? null : Buffer.from(REDACTED);
  }

  /** Whether a detector of these kinds may find something in the text that the facts are of. */
  #any(kinds: number): boolean {
    for (const task of this.#tasks) if (this.#applies(task, kinds)) return true;
    return false;
  }

  #applies({ detector, kinds }: Task, wanted: number): boolean {
    return (kinds & wanted) !== 0 && this.#facts.bytes >= detector.leastBytes && detector.possible(this.#facts);
  }

  /**
   * One pass over the text that the facts are of; `task` is the strictest that found something. Where what it found brings `searched`
   * over `mostBytes` nothing is replaced.
   */
  #round(text: ByteText, kinds: number, mostBytes: number): { masked: ByteText | null; task: Task | undefined } {
    const findings: Finding[] = [];
    for (const task of this.#tasks) {
      if (!this.#applies(task, kinds)) continue;
      const found: Span[] = [];
      task.detector.find(text, found);
      for (const { start, end } of found) findings.push({ start, end, task });
    }
    if (findings.length === 0) return { masked: text, task: undefined };
    let strictest: Task | undefined;
    let masked = "";
    let copied = 0;
    for (const { start, end, task, whole } of merge(findings)) {
      if (strictest === undefined || STRICTNESS[task.method] > STRICTNESS[strictest.method]) strictest = task;
      if (task.method === "null") return { masked: null, task };
      this.searched += task.method === "hash" ? HASHED_MATCH_BYTES : MATCH_BYTES;
      if (this.searched > mostBytes) return { masked: text, task: strictest };
      const method = task.method === "partial" && !whole ? "redact" : task.method;
      masked += text.slice(copied, start) + replacement(method, task.detector.name, text.slice(start, end), this.#key);
      copied = end;
    }
    return { masked: masked + text.slice(copied), task: strictest };
  }
}

/**
 * A masker for the rules in force at one target (core/mask/types.ts says what it promises).
 * @param hashKey key of the `hash` method, at least 16 bytes; the same key gives the same tokens
 * @param engine of scan(): undefined takes the native one where it is built, else the portable one; what field() does is the same
 * @throws SluiceError SLUICE_INTERNAL when `native` is asked for and not built
 */
export function createMasker(rules: readonly MaskRule[], hashKey: Uint8Array, engine: PrefilterEngine | undefined): Masker {
  return new RuleMasker(rules, hashKey, engine);
}
