import assert from "node:assert/strict";
import { before, test } from "node:test";
import { buildNative } from "../native/build.ts";
import type { DetectorName, MaskRule } from "../policy/types.ts";
import { BENIGN } from "./benign.ts";
import { DETECTORS } from "./detectors.ts";
import { createMasker } from "./masker.ts";
import { pick, SENSITIVE, seeded } from "./samples.ts";
import type { Masker } from "./types.ts";

const ALL: DetectorName[] = DETECTORS.map((detector) => detector.name);
const rule = (detect: DetectorName[]): MaskRule => ({ name: "r", columns: [], detect, with: "redact", predicates: "deny" });

before(() => buildNative({ quiet: true }));

/** As the data path does it: the prefilter, then the matchers of what it flags. */
function masked(masker: Masker, text: string): string {
  const bytes = Buffer.from(text);
  const kinds = masker.kindsIn(bytes, 0, bytes.length);
  return kinds === 0 ? text : String(masker.field(bytes, 0, bytes.length, kinds) ?? text);
}

/** How values stand in fields. */
const WRITTEN: readonly ((value: string) => string)[] = [
  (value) => value,
  (value) => `see ${value} there`,
  (value) => `"${value}"`,
  (value) => `'${value}'`,
  (value) => `{"k":"${value}"}`,
  (value) => `{"k": ["${value}", 1]}`,
  (value) => `x=${value};`,
  (value) => `(${value})`,
  (value) => `[${value}]`,
  (value) => `<td>${value}</td>`,
  (value) => `${value}.`,
  (value) => `${value}, and more`,
  (value) => `\n${value}\n`,
  (value) => `a\t${value}\tb`,
  (value) => `note: ${value}`,
  (value) => `Grüße: ${value} – danke`,
  (value) => `${value} / ${value}`,
  (value) => `{${value},NULL}`,
  (value) => `(1,"${value}",2024-01-01)`,
  (value) => `${"long text before it ".repeat(20)}${value}${" and long text after it".repeat(20)}`,
];

test("in each of twenty written forms at least 99 % of the values are masked by their own detector", () => {
  assert.equal(WRITTEN.length, 20);
  const perForm = 200;
  for (const name of ALL) {
    const masker = createMasker([rule([name])], new Uint8Array(32), undefined);
    for (const [form, written] of WRITTEN.entries()) {
      const random = seeded(7 + form);
      const missed: string[] = [];
      for (let i = 0; i < perForm; i++) {
        const value = SENSITIVE[name](random);
        const text = written(value);
        const result = masked(masker, text);
        // The label of a number may stay, the number may not.
        const secret = /^(?:[A-Za-z_]+ ?[:=] ?)?([^{]*)/.exec(value)?.[1] ?? "";
        if (result === text || (secret !== "" && result.includes(secret))) missed.push(text);
      }
      assert.ok(
        missed.length <= perForm / 100,
        `${name}, form ${form}: ${missed.length} missed, such as ${missed.slice(0, 5).join(" | ")}`,
      );
    }
  }
});

test("at most one in 10,000 ordinary values is changed", () => {
  const masker = createMasker([rule(ALL)], new Uint8Array(32), undefined);
  const random = seeded(11);
  const perKind = 4_000;
  const changed: string[] = [];
  for (const [kind, make] of Object.entries(BENIGN)) {
    for (let i = 0; i < perKind; i++) {
      const value = make(random);
      const result = masked(masker, value);
      if (result !== value) changed.push(`${kind} ${value} -> ${result}`);
    }
  }
  const allowed = (perKind * Object.keys(BENIGN).length) / 10_000;
  assert.ok(changed.length <= allowed, `${changed.length} of ${allowed}: ${changed.slice(0, 20).join(" | ")}`);
});

test("several ordinary values in one text are as harmless as each alone", () => {
  const masker = createMasker([rule(ALL)], new Uint8Array(32), undefined);
  const random = seeded(13);
  const kinds = Object.keys(BENIGN);
  const texts = 10_000;
  const changed: string[] = [];
  for (let i = 0; i < texts; i++) {
    const value = [0, 1, 2].map(() => BENIGN[pick(random, kinds)](random)).join(pick(random, [", ", "; ", "\t", "\n"]));
    const result = masked(masker, value);
    if (result !== value) changed.push(`${value} -> ${result}`);
  }
  assert.ok(changed.length <= (3 * texts) / 10_000, `${changed.length}: ${changed.slice(0, 20).join(" | ")}`);
});
