import assert from "node:assert/strict";
import { before, test } from "node:test";
import fc from "fast-check";
import { LIMITS } from "../../core/limits.ts";
import { BENIGN } from "../../core/mask/benign.ts";
import { DETECTORS } from "../../core/mask/detectors.ts";
import { createMasker } from "../../core/mask/masker.ts";
import { SENSITIVE, seeded } from "../../core/mask/samples.ts";
import type { Masker } from "../../core/mask/types.ts";
import { buildNative } from "../../core/native/build.ts";
import type { DetectorName, MaskMethod, MaskRule } from "../../core/policy/types.ts";
import { binaryRefusal, planColumns, RowMasker, readColumns } from "./rows.ts";
import type { ColumnAction, SessionMasks } from "./values.ts";

before(() => buildNative({ quiet: true }));

const ALL: DetectorName[] = DETECTORS.map((detector) => detector.name);
const KEY = Buffer.alloc(32, 7);
const rule = (detect: DetectorName[], method: MaskMethod, name = "r"): MaskRule => ({
  name,
  columns: [],
  detect,
  with: method,
  predicates: "deny",
});

/** A masker whose detector is the word SECRET and whose column mask is `#`. */
const masker: Masker = {
  scans: true,
  shortestBytes: 6,
  flags: new Uint32Array(0),
  flagsMax: 0,
  scan: () => -1,
  kindsIn: (bytes, start, end) => (Buffer.from(bytes.subarray(start, end)).includes("SECRET") ? 1 : 0),
  field: (bytes, start, end) => {
    const text = Buffer.from(bytes.subarray(start, end)).toString("latin1");
    return text.includes("SECRET") ? Buffer.from(text.replaceAll("SECRET", "-")) : undefined;
  },
  column: (method) => (method === "null" ? null : Buffer.from("#")),
  lastRule: "content",
  searched: 0,
};

const masks: SessionMasks = {
  masker,
  columns: new Map([[100, new Map([[2, { rule: "column", method: "redact" }]])]]),
  contentRule: "content",
};

const row = (values: readonly (string | null)[]): Buffer => {
  const parts = values.map((value) => {
    const length = Buffer.alloc(4);
    length.writeInt32BE(value === null ? -1 : Buffer.byteLength(value));
    return Buffer.concat([length, Buffer.from(value ?? "")]);
  });
  const body = Buffer.concat([Buffer.from([values.length >> 8, values.length & 255]), ...parts]);
  const header = Buffer.alloc(5);
  header.write("D");
  header.writeInt32BE(body.length + 4, 1);
  return Buffer.concat([header, body]);
};

interface Column {
  readonly table: number;
  readonly attribute: number;
  readonly type: number;
  readonly format: number;
}

const description = (columns: readonly Column[]): Buffer => {
  const parts = columns.map(({ table, attribute, type, format }) => {
    const bytes = Buffer.alloc(20);
    bytes.write("c\0");
    bytes.writeUInt32BE(table, 2);
    bytes.writeInt16BE(attribute, 6);
    bytes.writeUInt32BE(type, 8);
    bytes.writeInt16BE(format, 18);
    return bytes;
  });
  const body = Buffer.concat([Buffer.from([0, columns.length]), ...parts]);
  const header = Buffer.alloc(5);
  header.write("T");
  header.writeInt32BE(body.length + 4, 1);
  return Buffer.concat([header, body]);
};

const text = { table: 0, attribute: 0, type: 25, format: 0 };
const maskedText = { table: 100, attribute: 2, type: 25, format: 0 };

test("columns are planned by origin, type and format", () => {
  const bytes = description([
    text,
    maskedText,
    { ...maskedText, type: 23 },
    { ...maskedText, format: 1 },
    { ...text, type: 1700 },
    { ...text, type: 23, format: 1 },
    { ...maskedText, type: 23, format: 1 },
    { ...text, format: 1 },
    { ...text, type: 114, format: 1 },
    { ...text, type: 3802, format: 1 },
    { ...text, type: 1009, format: 1 },
    { ...text, type: 1007, format: 1 },
    { ...text, type: 600, format: 1 },
  ]);
  const columns = readColumns(bytes, 0, bytes.length);
  assert.deepEqual(planColumns(columns, undefined, masks, true), [
    { kind: "scan", nullOnHit: false },
    { kind: "column", mask: { rule: "column", method: "redact" }, asNull: false },
    { kind: "column", mask: { rule: "column", method: "redact" }, asNull: true },
    // Text is the same bytes in binary.
    { kind: "column", mask: { rule: "column", method: "redact" }, asNull: false },
    { kind: "scan", nullOnHit: true },
    undefined,
    { kind: "column", mask: { rule: "column", method: "redact" }, asNull: true },
    { kind: "scan", nullOnHit: false },
    { kind: "scan", nullOnHit: false, json: true },
    { kind: "decode", type: 3802, text: false },
    { kind: "decode", type: 1009, text: true },
    undefined,
    // A binary form that is not known (of a cursor: elsewhere it is refused before).
    { kind: "column", mask: { rule: "content", method: "null" }, asNull: true },
  ]);
  assert.equal(
    planColumns(columns, undefined, { masker: { ...masker, scans: false }, columns: new Map(), contentRule: "r" }, true),
    undefined,
  );
});

test("integers and truth values in text form are not searched: they are too short for a match", () => {
  const inert = [16, 21, 23, 26].map((type) => ({ ...text, type }));
  const bytes = description(inert);
  assert.equal(planColumns(readColumns(bytes, 0, bytes.length), undefined, masks, true), undefined);
  const long = description([20, 700, 701, 1700, 2950].map((type) => ({ ...text, type })));
  assert.ok(planColumns(readColumns(long, 0, long.length), undefined, masks, true)?.every((action) => action?.kind === "scan"));
  const every = createMasker([rule(ALL, "redact")], KEY, "regexp");
  for (const detector of DETECTORS) assert.ok(every.shortestBytes <= detector.leastBytes);
  fc.assert(
    fc.property(fc.integer({ min: -(2 ** 31), max: 2 ** 32 - 1 }), (number) => {
      const value = Buffer.from(String(number));
      assert.equal(every.field(value, 0, value.length), undefined);
    }),
    { numRuns: 2_000, examples: [[-(2 ** 31)], [2 ** 32 - 1], [0]] },
  );
});

test("a binary result is refused where it could not be masked", () => {
  const one = (column: Column) => {
    const bytes = description([column]);
    return readColumns(bytes, 0, bytes.length);
  };
  // A masked column becomes a value of its type or NULL; a composite cannot be searched.
  for (const type of [25, 23, 600]) assert.equal(binaryRefusal(one({ ...maskedText, type }), "binary", masks, true), undefined);
  for (const type of [600, 2249, 3614]) {
    assert.match(binaryRefusal(one({ ...text, type }), "binary", masks, true) ?? "", new RegExp(`OID ${type}`));
    assert.match(binaryRefusal(one({ ...maskedText, type }), "binary", masks, false) ?? "", new RegExp(`OID ${type}`));
  }
  for (const type of [25, 114, 3802, 1009, 1700, 20, 701, 17])
    assert.equal(binaryRefusal(one({ ...text, type }), "binary", masks, true), undefined);
  assert.equal(binaryRefusal(one({ ...text, type: 23 }), "binary", masks, true), undefined);
  assert.equal(binaryRefusal(one(text), "binary", masks, true), undefined, "the binary form of text is the text");
  assert.equal(binaryRefusal(one(maskedText), [0], masks, true), undefined);
});

const value = fc.oneof(fc.constant(null), fc.string({ maxLength: 30 }), fc.constant("a SECRET b"), fc.constant("SECRETSECRET"));

test("a rewritten row is a row: lengths are right, other values are untouched, no masked value is left", () => {
  fc.assert(
    fc.property(
      fc.array(fc.tuple(value, fc.constantFrom("pass", "scan", "null", "column", "gone")), { minLength: 1, maxLength: 12 }),
      fc.boolean(),
      (fields, flagged) => {
        const actionOf: Record<string, ColumnAction | undefined> = {
          pass: undefined,
          scan: { kind: "scan", nullOnHit: false },
          null: { kind: "scan", nullOnHit: true },
          column: { kind: "column", mask: { rule: "column", method: "redact" }, asNull: false },
          gone: { kind: "column", mask: { rule: "column", method: "redact" }, asNull: true },
        };
        const expected = fields.map(([field, kind]) => {
          if (field === null || kind === "pass") return field;
          if (kind === "column") return "#";
          if (kind === "gone") return null;
          if (!flagged || !field.includes("SECRET")) return field;
          return kind === "null" ? null : field.replaceAll("SECRET", "-");
        });
        const message = row(fields.map(([field]) => field));
        // Surrounded by other bytes, as in a chunk.
        const chunk = Buffer.concat([Buffer.from("xx"), message, Buffer.from("yy")]);
        const counts = new Map<string, number>();
        const out = new RowMasker().row(
          chunk,
          2,
          2 + message.length,
          chunk.length,
          fields.map(([, kind]) => actionOf[kind]),
          flagged ? masks : { ...masks, masker: { ...masker, scan: () => 0 } },
          true,
          counts,
        );
        assert.deepEqual(Buffer.from(out ?? message), row(expected));
        const changes = fields.filter(
          ([field, kind], index) => field !== null && (kind === "column" || kind === "gone" || expected[index] !== field),
        ).length;
        assert.equal(
          [...counts.values()].reduce((sum, count) => sum + count, 0),
          changes,
        );
      },
    ),
    { numRuns: 500 },
  );
});

test("rows and descriptions whose lengths do not add up are refused", () => {
  const good = row(["ab", "cd"]);
  const actions: ColumnAction[] = [
    { kind: "scan", nullOnHit: false },
    { kind: "scan", nullOnHit: false },
  ];
  const feed = (bytes: Buffer) => () => new RowMasker().row(bytes, 0, bytes.length, bytes.length, actions, masks, true, new Map());
  assert.doesNotThrow(feed(good));
  for (const [at, wrong] of [
    [7, 0x7f],
    [7, 0xff],
    [10, 9],
    [10, 1],
    [6, 3],
  ] as const) {
    const bad = Buffer.from(good);
    bad[at] = wrong;
    assert.throws(feed(bad), /malformed DataRow/, `byte ${at} = ${wrong}`);
  }
  const columns = description([text]);
  for (const length of [5, 6, 8, columns.length - 1]) assert.throws(() => readColumns(columns, 0, length), /malformed RowDescription/);
  columns[6] = 200;
  assert.throws(() => readColumns(columns, 0, columns.length), /malformed RowDescription/);
});

const SEARCHED: ColumnAction = { kind: "scan", nullOnHit: false };

/** What comes out of a chunk of rows, read as they come in. */
function through(rows: RowMasker, messages: readonly Buffer[], masker: Masker, counts = new Map<string, number>()): Buffer[] {
  const chunk = Buffer.concat(messages);
  rows.newChunk();
  let at = 0;
  return messages.map((message) => {
    const actions = Array.from({ length: message.readInt16BE(5) }, () => SEARCHED);
    const end = at + message.length;
    const out = rows.row(chunk, at, end, chunk.length, actions, { masker, columns: new Map(), contentRule: "r" }, false, counts);
    at = end;
    return Buffer.from(out ?? message);
  });
}

const anyValue = fc.oneof(
  fc.constant(null),
  fc.tuple(fc.constantFrom(...ALL), fc.nat()).map(([name, seed]) => SENSITIVE[name](seeded(seed))),
  fc.tuple(fc.constantFrom(...Object.keys(BENIGN)), fc.nat()).map(([kind, seed]) => BENIGN[kind](seeded(seed))),
  fc.string({ unit: fc.constantFrom(..."0123456789 -.@+a"), maxLength: 12 }),
  fc.constantFrom("a@b.co", "a@b.c", "", "1"),
);

test("of many rows in one chunk each value comes out as the exact matchers alone would leave it", () => {
  for (const engine of ["native", "regexp"] as const) {
    for (const detect of [ALL, ...ALL.map((name) => [name])]) {
      const real = createMasker([rule(detect, "redact")], KEY, engine);
      const rows = new RowMasker();
      fc.assert(
        fc.property(fc.array(fc.array(anyValue, { minLength: 1, maxLength: 5 }), { minLength: 1, maxLength: 8 }), (values) => {
          const expected = values.map((fields) =>
            row(
              fields.map((field) => {
                const bytes = Buffer.from(field ?? "");
                return field === null ? null : String(real.field(bytes, 0, bytes.length) ?? bytes);
              }),
            ),
          );
          assert.deepEqual(through(rows, values.map(row), real), expected);
        }),
        { numRuns: detect.length > 1 ? 600 : 100 },
      );
    }
  }
});

test("rows of values too short for a match are not scanned, all others are", () => {
  const real = createMasker([rule(ALL, "redact")], KEY, undefined);
  let scans = 0;
  const counting: Masker = {
    scans: true,
    shortestBytes: real.shortestBytes,
    flags: real.flags,
    flagsMax: real.flagsMax,
    lastRule: "r",
    searched: 0,
    scan: (...args) => {
      scans += 1;
      return real.scan(...args);
    },
    kindsIn: (...args) => real.kindsIn(...args),
    field: (...args) => real.field(...args),
    column: (...args) => real.column(...args),
  };
  const scansOf = (messages: readonly Buffer[]): number => {
    scans = 0;
    through(new RowMasker(), messages, counting);
    return scans;
  };
  assert.equal(scansOf([row(["-1234"]), row(["12", null, "", "12345"])]), 0);
  assert.equal(scansOf([row(["123456"])]), 1);
  assert.equal(scansOf([row(["1"]), row(["1", "a@b.co"]), row(["1"])]), 1);
  assert.equal(scansOf([row(Array.from({ length: 40 }, () => "1"))]), 1, "a long row is not walked");
  // What does not add up is not trusted to be short.
  const wrong = row(["1", "2"]);
  wrong[10] = 0;
  assert.equal(scansOf([wrong]), 1);
  const behind = Buffer.concat([row(["1"]), Buffer.from("a@b.co")]);
  assert.throws(() => through(new RowMasker(), [behind], counting), /malformed DataRow/, "scanned, and then refused");
  const shortest = through(new RowMasker(), [row(["1", "a@b.co"])], counting);
  assert.deepEqual(shortest, [row(["1", "[REDACTED:email]"])]);
});

test("what the prefilter said of a buffer does not hold for what is read into it next", () => {
  const real = createMasker([rule(ALL, "redact")], KEY, undefined);
  const rows = new RowMasker();
  const buffer = Buffer.from(row(["nothing here", "x"]));
  const masked = (): Uint8Array | undefined => {
    rows.newChunk();
    return rows.row(
      buffer,
      0,
      buffer.length,
      buffer.length,
      [SEARCHED, SEARCHED],
      { masker: real, columns: new Map(), contentRule: "r" },
      false,
      new Map(),
    );
  };
  assert.equal(masked(), undefined);
  row(["a@b.co, again", ""]).copy(buffer);
  assert.deepEqual(Buffer.from(masked() ?? []), row(["[REDACTED:email], again", ""]));
});

/** Without the difference of large values, which takes long to make. */
const assertSame = (got: readonly Buffer[], expected: readonly Buffer[]): void =>
  assert.ok(Buffer.concat(got).equals(Buffer.concat(expected)), `${got.map((message) => message.length)} bytes`);

test("a suspected value over the limit is replaced whole, an unsuspected one passes", () => {
  const benign = "lorem ipsum ".repeat(LIMITS.maskedValueBytes / 12 + 2);
  const suspected = `${benign}a@b.co`;
  const most = `${benign.slice(0, LIMITS.maskedValueBytes - 7)} a@b.co`;
  for (const engine of ["native", "regexp"] as const) {
    for (const method of ["redact", "partial", "hash", "null"] as const) {
      const real = createMasker([rule(["iban"], "redact", "other"), rule(["email"], method, "mail")], KEY, engine);
      const counts = new Map<string, number>();
      const out = through(new RowMasker(), [row([benign, suspected, "x"])], real, counts);
      assertSame(out, [row([benign, method === "null" ? null : "[REDACTED]", "x"])]);
      if (engine === "native") assert.deepEqual([...counts], [["mail", 1]]);
      if (method === "redact") {
        assertSame(through(new RowMasker(), [row([most])], real), [row([most.replace("a@b.co", "[REDACTED:email]")])]);
      }
    }
  }
  // The values of a row together: what no longer fits is replaced whole, and the next row begins anew.
  const together = createMasker([rule(["email"], "redact")], KEY, undefined);
  const rest = `${benign.slice(0, LIMITS.maskedRowBytes - most.length - 200)} a@b.co`;
  const shown = (text: string) => text.replace("a@b.co", "[REDACTED:email]");
  const suspicious = benign.slice(0, 200).replaceAll(" ", "@");
  assertSame(through(new RowMasker(), [row([most, rest, suspicious, benign]), row(["a@b.co", suspicious])], together), [
    row([shown(most), shown(rest), "[REDACTED]", benign]),
    row(["[REDACTED:email]", suspicious]),
  ]);
  // As notices ask, without flags.
  const whole = createMasker([rule(ALL, "redact")], KEY, undefined);
  assert.equal(whole.field(Buffer.from(benign), 0, benign.length), undefined);
  assert.equal(String(whole.field(Buffer.from(suspected), 0, suspected.length)), "[REDACTED]");
  // More flags in the chunk than are kept: each value is asked about for itself.
  const many = "a@".repeat(LIMITS.maskedValueBytes);
  const real = createMasker([rule(ALL, "redact")], KEY, undefined);
  assertSame(through(new RowMasker(), [row([many, benign, "a@b.co"])], real), [row(["[REDACTED]", benign, "[REDACTED:email]"])]);
});
