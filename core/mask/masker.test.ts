import assert from "node:assert/strict";
import { createHmac } from "node:crypto";
import { before, test } from "node:test";
import fc from "fast-check";
import { buildNative } from "../native/build.ts";
import type { DetectorName, MaskMethod, MaskRule } from "../policy/types.ts";
import { BENIGN } from "./benign.ts";
import { DETECTORS } from "./detectors.ts";
import { createMasker } from "./masker.ts";
import { hmacSha256 } from "./methods.ts";
import { ISSUED_PREFIXES, isIssuedRange } from "./numbers.ts";
import { below, pick, SENSITIVE, seeded } from "./samples.ts";
import type { Masker } from "./types.ts";

const ALL: DetectorName[] = DETECTORS.map((detector) => detector.name);
const KEY = Buffer.from("a key for tests only, 32 bytes..");
const METHODS: MaskMethod[] = ["redact", "partial", "hash", "null"];

const rule = (detect: DetectorName[], method: MaskMethod, name = "r"): MaskRule => ({
  name,
  columns: [],
  detect,
  with: method,
  predicates: "deny",
});
function mask(masker: Masker, text: string): string | null {
  const bytes = Buffer.from(text);
  const masked = masker.field(bytes, 0, bytes.length);
  return masked === undefined ? text : masked === null ? null : Buffer.from(masked).toString();
}

const engines = ["native", "regexp"] as const;
before(() => buildNative({ quiet: true }));

/** Any field: sensitive, ordinary or random text, several run together. */
const fieldText = fc
  .array(
    fc.oneof(
      { weight: 4, arbitrary: fc.tuple(fc.constantFrom(...ALL), fc.nat()).map(([name, seed]) => SENSITIVE[name](seeded(seed))) },
      {
        weight: 1,
        arbitrary: fc.tuple(fc.constantFrom(...Object.keys(BENIGN)), fc.nat()).map(([kind, seed]) => BENIGN[kind]?.(seeded(seed)) ?? ""),
      },
      { weight: 1, arbitrary: fc.string({ unit: "grapheme", maxLength: 8 }) },
      { weight: 2, arbitrary: fc.string({ unit: fc.constantFrom(..."0123456789 -.()+@/_aZe:=\u00a0"), maxLength: 24 }) },
      { weight: 2, arbitrary: fc.constantFrom(" ", "", "-", ".", "@", "x", "1", "\u2011", "é", "\0") },
    ),
    { minLength: 1, maxLength: 5 },
  )
  .map((parts) => parts.join(""));
/** Bytes between fields: anything, with a liking for what looks like text. */
const framing = fc
  .array(fc.oneof(fc.nat(255), fc.constantFrom(0x30, 0x39, 0x20, 0x2d, 0x41, 0x40, 0x2b, 0x28)), { maxLength: 6 })
  .map((bytes) => Buffer.from(bytes));

test("scan flags every field that field() changes, in any framing, at any place", () => {
  for (const engine of engines) {
    for (const detect of [ALL, ...ALL.map((name) => [name])]) {
      const masker = createMasker([rule(detect, "redact")], KEY, engine);
      fc.assert(
        fc.property(fc.array(fc.tuple(framing, fieldText), { minLength: 1, maxLength: 4 }), framing, fc.nat(3), (pieces, last, lead) => {
          const parts: Buffer[] = [Buffer.alloc(lead)];
          const fields: [number, number][] = [];
          let at = lead;
          for (const [frame, text] of pieces) {
            const bytes = Buffer.from(text);
            fields.push([at + frame.length, at + frame.length + bytes.length]);
            parts.push(frame, bytes);
            at += frame.length + bytes.length;
          }
          const chunk = Buffer.concat([...parts, last]);
          const count = masker.scan(chunk, lead, chunk.length);
          const flags = [...masker.flags.subarray(0, Math.max(0, count))];
          const kinds = [...masker.flags.subarray(masker.flagsMax, masker.flagsMax + Math.max(0, count))];
          for (let i = 1; i < flags.length; i++) assert.ok((flags[i - 1] as number) < (flags[i] as number));
          for (const [start, end] of fields) {
            // What the flags of the field say is all that is asked of the exact matchers.
            const flagged = flags.reduce((all, flag, i) => (flag >= start && flag < end ? all | (kinds[i] as number) : all), 0);
            const by = (wanted?: number): string => String(masker.field(chunk, start, end, wanted));
            if (count >= 0 && by() !== by(flagged)) {
              assert.fail(`${engine} ${detect.join()}: flagged ${flagged}: ${JSON.stringify(chunk.toString("latin1", start, end))}`);
            }
            assert.equal(by(masker.kindsIn(chunk, start, end)), by(), `${engine} ${detect.join()}: the field alone`);
          }
        }),
        { numRuns: detect.length > 1 ? 1500 : 150 },
      );
    }
  }
});

test("the prefilter knows every beginning that a card number may have", () => {
  for (let length = 12; length <= 20; length++) {
    const { prefixes } = ISSUED_PREFIXES.find((entry) => entry.length === length) ?? { prefixes: "" };
    const known = new Set(Array.from(prefixes.matchAll(/../g), ([two]) => two));
    for (let four = 0; four < 10_000; four++) {
      const beginning = String(four).padStart(4, "0");
      const issued = isIssuedRange(beginning.padEnd(length, "0")) || isIssuedRange(`${beginning.padEnd(length - 1, "0")}1`);
      if (issued) assert.ok(known.has(beginning.slice(0, 2)), `${length} digits from ${beginning}`);
    }
  }
});

test("masking a masked field changes nothing, and valid UTF-8 stays valid", () => {
  for (const method of METHODS) {
    const masker = createMasker([rule(ALL, method)], KEY, "regexp");
    const decoder = new TextDecoder("utf-8", { fatal: true });
    fc.assert(
      fc.property(fieldText, (text) => {
        const bytes = Buffer.from(text);
        const once = masker.field(bytes, 0, bytes.length);
        if (once === undefined || once === null) return;
        decoder.decode(once);
        assert.equal(masker.field(once, 0, once.length), undefined, `${text} -> ${decoder.decode(once)}`);
      }),
      { numRuns: 1500 },
    );
  }
});

test("both engines lead to the same output of a whole chunk", () => {
  const [native, portable] = engines.map((engine) => createMasker([rule(ALL, "redact")], KEY, engine)) as [Masker, Masker];
  const masked = (masker: Masker, chunk: Buffer, fields: readonly [number, number][]): string[] => {
    const count = masker.scan(chunk, 0, chunk.length);
    const flags = masker.flags.subarray(0, Math.max(0, count));
    return fields.map(([start, end]) => {
      const suspected = count < 0 || flags.some((flag) => flag >= start && flag < end);
      const result = suspected ? masker.field(chunk, start, end) : undefined;
      return result === undefined ? "same" : String(result);
    });
  };
  const random = seeded(3);
  for (let round = 0; round < 200; round++) {
    const fields: [number, number][] = [];
    const parts: Buffer[] = [];
    let at = 0;
    for (let i = 0; i < 30; i++) {
      const text = random() < 0.3 ? SENSITIVE[pick(random, ALL)](random) : (BENIGN[pick(random, Object.keys(BENIGN))]?.(random) ?? "");
      const value = Buffer.from(text);
      const frame = Buffer.from([0, 0, 0, value.length & 255].slice(below(random, 4)));
      fields.push([at + frame.length, at + frame.length + value.length]);
      parts.push(frame, value);
      at += frame.length + value.length;
    }
    const chunk = Buffer.concat(parts);
    assert.deepEqual(masked(native, chunk, fields), masked(portable, chunk, fields));
  }
});

test("the methods keep what they say", () => {
  const text =
    "card 4111 1111 1111 1111, mail Jane.Doe@example.com, iban DE89 3704 0044 0532 0130 00, ssn 123-45-6789, tel +1 415 555 2671.";
  const by = (method: MaskMethod): string | null => mask(createMasker([rule(ALL, method)], KEY, "regexp"), text);
  assert.equal(
    by("redact"),
    "card [REDACTED:payment_card], mail [REDACTED:email], iban [REDACTED:iban], ssn [REDACTED:us_ssn], tel [REDACTED:phone].",
  );
  assert.equal(by("partial"), "card ****1111, mail J***@example.com, iban ****3000, ssn ***-**-6789, tel ****2671.");
  assert.match(by("hash") as string, /^card h:[a-z2-7]{16}, mail h:[a-z2-7]{16}, iban h:/);
  assert.equal(by("null"), null);
});

test("hash is stable over written forms and differs by key", () => {
  const masker = createMasker([rule(ALL, "hash")], KEY, "regexp");
  const other = createMasker([rule(ALL, "hash")], Buffer.alloc(32), "regexp");
  assert.equal(mask(masker, "4111111111111111"), mask(masker, "4111-1111-1111-1111"));
  assert.equal(mask(masker, "JANE@example.com"), mask(masker, "jane@example.com"));
  assert.notEqual(mask(masker, "4111111111111111"), mask(other, "4111111111111111"));
});

test("the digest of hash is HMAC-SHA-256", () => {
  for (const keyBytes of [0, 16, 32, 63, 64, 65, 200]) {
    const key = Buffer.alloc(keyBytes, 9);
    for (const value of ["", "jane@example.com", "é".repeat(500)]) {
      assert.deepEqual(hmacSha256(key, value), createHmac("sha256", key).update(value).digest());
      assert.deepEqual(hmacSha256(key, Buffer.from(value)), createHmac("sha256", key).update(value).digest());
    }
  }
});

test("exact matching ends where it has read as much as it may: the value is replaced whole", () => {
  for (const method of METHODS) {
    const masker = createMasker([rule(ALL, method)], KEY, "native");
    const field = (text: string, mostBytes: number): string | null | undefined => {
      const masked = masker.field(Buffer.from(text), 0, text.length, undefined, mostBytes);
      return masked == null ? masked : Buffer.from(masked).toString();
    };
    const whole = method === "null" ? null : "[REDACTED]";
    // Many matches cost more than their bytes.
    const many = "jane@example.com ".repeat(100);
    const piecemeal = field(many, 100_000);
    if (method === "redact") assert.equal(piecemeal, "[REDACTED:email] ".repeat(100));
    const cost = masker.searched;
    if (method !== "null") {
      assert.ok(cost > many.length + 100 * 16, `${cost}`);
      assert.equal(field(many, cost), piecemeal);
      assert.equal(field(many, cost - 1), whole);
    }
    assert.equal(field(many, many.length - 1), whole);
    // A second look, at what a replacement has left, costs as much again.
    const twice = `jane@example.com ${"@".repeat(200)}`;
    field(twice, 100_000);
    if (method !== "null") assert.ok(masker.searched > 2 * 200, `${masker.searched}`);
    // Nothing is suspected: nothing is replaced, however little may be read.
    assert.equal(field("lorem ipsum dolor sit amet", 0), undefined);
  }
});

test("texts that are no header after all cost an exception each, so there are not many of them", () => {
  const masker = createMasker([rule(["jwt"], "redact")], KEY, "native");
  const broken = `${Buffer.from('{"alg" ').toString("base64url")}.eyJhbGciOi.`;
  assert.equal(mask(masker, broken.repeat(10)), broken.repeat(10));
  assert.notEqual(mask(masker, broken.repeat(100)), broken.repeat(100));
});

test("of several rules the strictest counts, then the first; lastRule names it", () => {
  const masker = createMasker(
    [
      rule(["email", "iban"], "partial", "one"),
      rule(["email"], "hash", "two"),
      rule(["email"], "hash", "three"),
      rule(["us_ssn"], "null", "four"),
    ],
    KEY,
    "regexp",
  );
  assert.match(mask(masker, "a@b.co") as string, /^h:/);
  assert.equal(masker.lastRule, "two");
  assert.equal(mask(masker, "DE89370400440532013000"), "****3000");
  assert.equal(masker.lastRule, "one");
  assert.equal(mask(masker, "a@b.co 123-45-6789"), null);
  assert.equal(masker.lastRule, "four");
});

test("rules without detectors scan nothing", () => {
  const masker = createMasker([rule([], "redact")], KEY, undefined);
  assert.equal(masker.scans, false);
  assert.equal(masker.scan(Buffer.from("a@b.co"), 0, 6), 0);
  assert.equal(masker.field(Buffer.from("a@b.co"), 0, 6), undefined);
});

test("columns are always replaced, and only a little of them is kept", () => {
  const masker = createMasker([], KEY, undefined);
  const column = (method: MaskMethod, text: string): string | undefined => {
    const bytes = Buffer.from(`<${text}>`);
    const masked = masker.column(method, bytes, 1, bytes.length - 1);
    return masked === null ? undefined : Buffer.from(masked).toString();
  };
  assert.equal(column("redact", "secret"), "[REDACTED]");
  assert.equal(column("redact", ""), "[REDACTED]");
  assert.equal(column("null", "secret"), undefined);
  assert.equal(column("partial", "abc"), "****");
  assert.equal(column("partial", "abcd"), "****d");
  assert.equal(column("partial", "a long value"), "****ue");
  assert.equal(column("partial", "Grüße von Øé"), "****Øé");
  assert.equal(column("partial", "x".repeat(500)), "****xx");
  assert.match(column("hash", "x") as string, /^h:[a-z2-7]{16}$/);
  assert.equal(column("hash", "x"), column("hash", "x"));
  assert.notEqual(column("hash", "x"), column("hash", "y"));
});

test("hostile fields take time in proportion to their length", () => {
  const masker = createMasker([rule(ALL, "redact")], KEY, "regexp");
  const size = 1 << 18;
  for (const piece of [
    "@",
    "a@",
    "%40",
    "eyJ",
    "eyJ.",
    "eyJhbGci",
    "1",
    "1 ",
    "4111 ",
    "123-45-",
    "+1",
    "+49 ",
    "DE89",
    "-----BEGIN PRIVATE KEY-----",
    "0",
    "00",
    "AKIA",
    "a.",
    "phone:",
    "secret key=",
    "A",
    "4111111111111111a",
  ]) {
    const bytes = Buffer.alloc(size, piece);
    const from = process.cpuUsage();
    masker.field(bytes, 0, size);
    const millis = process.cpuUsage(from).user / 1000;
    assert.ok(millis < 600, `${piece}: ${Math.round(millis)} ms`);
  }
});
