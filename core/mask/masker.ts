import type { DetectorName, MaskMethod, MaskRule } from "../policy/types.ts";
import type { ByteText, Span } from "./bytes.ts";
import { DETECTORS, type Detector, type FieldFacts } from "./detectors.ts";
import { maskWhole, replacement, STRICTNESS } from "./methods.ts";
import { FLAGS_MAX, type PrefilterEngine, prefilterFor } from "./prefilter.ts";
import type { Masker } from "./types.ts";

interface Task {
  readonly detector: Detector;
  readonly rule: string;
  readonly method: MaskMethod;
}

interface Finding extends Span {
  readonly task: Task;
}

/** Replacing can bring text together that matches anew; more rounds than this and the whole value is redacted. */
const ROUNDS_MAX = 8;
/** The shortest text that any detector matches is `a@b.co`. */
const MATCH_BYTES_MIN = 6;

/** Where several rules name a detector, the strictest method counts (null, redact, hash, partial), then the first rule. */
function tasksOf(rules: readonly MaskRule[]): Task[] {
  return DETECTORS.flatMap((detector) => {
    const named = rules.filter((rule) => rule.detect.includes(detector.name));
    const first = named[0];
    if (first === undefined) return [];
    const rule = named.reduce((best, next) => (STRICTNESS[next.with] > STRICTNESS[best.with] ? next : best), first);
    return [{ detector, rule: rule.name, method: rule.with }];
  });
}

function factsOf(bytes: Uint8Array, start: number, end: number): FieldFacts {
  let digits = 0;
  let dashes = 0;
  let dots = 0;
  let signs = 0;
  for (let i = start; i < end; i++) {
    const byte = bytes[i] as number;
    if (byte >= 0x30 && byte <= 0x39) digits++;
    else if (byte === 0x2d) dashes++;
    else if (byte === 0x2e) dots++;
    else if (byte === 0x40 || byte === 0x25) signs++;
  }
  return { bytes: end - start, digits, dashes, dots, signs };
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

class RuleMasker implements Masker {
  readonly scans: boolean;
  readonly flags: Uint32Array;
  lastRule = "";
  readonly #tasks: readonly Task[];
  readonly #key: Uint8Array;
  readonly #prefilter: ReturnType<typeof prefilterFor> | undefined;

  constructor(rules: readonly MaskRule[], hashKey: Uint8Array, engine: PrefilterEngine | undefined) {
    this.#tasks = tasksOf(rules);
    this.#key = hashKey;
    this.scans = this.#tasks.length > 0;
    this.flags = new Uint32Array(this.scans ? FLAGS_MAX : 0);
    const names: DetectorName[] = this.#tasks.map((task) => task.detector.name);
    this.#prefilter = this.scans ? prefilterFor(names, engine) : undefined;
  }

  scan(bytes: Uint8Array, start: number, end: number): number {
    return this.#prefilter === undefined ? 0 : this.#prefilter(bytes, start, end, this.flags);
  }

  field(bytes: Uint8Array, start: number, end: number): Uint8Array | null | undefined {
    if (end - start < MATCH_BYTES_MIN || !this.scans) return undefined;
    const facts = factsOf(bytes, start, end);
    const tasks = this.#tasks.filter((task) => task.detector.possible(facts));
    if (tasks.length === 0) return undefined;
    const original: ByteText = Buffer.prototype.latin1Slice.call(bytes, start, end);
    let strictest: Task | undefined;
    let text = original;
    for (let round = 0; round < ROUNDS_MAX; round++) {
      // What a replacement brings together may be anything, so later rounds look for all.
      const { masked, task } = this.#round(text, round === 0 ? tasks : this.#tasks);
      if (task !== undefined && (strictest === undefined || STRICTNESS[task.method] > STRICTNESS[strictest.method])) strictest = task;
      if (strictest === undefined) return undefined;
      if (masked === null) {
        this.lastRule = strictest.rule;
        return null;
      }
      if (masked === text) {
        if (text === original) return undefined;
        this.lastRule = strictest.rule;
        return Buffer.from(text, "latin1");
      }
      text = masked;
    }
    this.lastRule = (strictest as Task).rule;
    return Buffer.from("[REDACTED]");
  }

  column(method: MaskMethod, bytes: Uint8Array, start: number, end: number): Uint8Array | null {
    return maskWhole(method, bytes.subarray(start, end), this.#key);
  }

  /** One pass over the text; `task` is the strictest that found something. */
  #round(text: ByteText, tasks: readonly Task[]): { masked: ByteText | null; task: Task | undefined } {
    const findings: Finding[] = [];
    for (const task of tasks) {
      const found: Span[] = [];
      task.detector.find(text, found);
      for (const { start, end } of found) findings.push({ start, end, task });
    }
    let strictest: Task | undefined;
    let masked = "";
    let copied = 0;
    for (const { start, end, task, whole } of merge(findings)) {
      if (strictest === undefined || STRICTNESS[task.method] > STRICTNESS[strictest.method]) strictest = task;
      if (task.method === "null") return { masked: null, task };
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
