import assert from "node:assert/strict";
import { test } from "node:test";
import fc from "fast-check";
import type { Masker } from "../../core/mask/types.ts";
import { binaryRefusal, type ColumnAction, planColumns, RowMasker, readColumns, type SessionMasks } from "./rows.ts";

/** A masker whose detector is the word SECRET and whose column mask is `#`. */
const masker: Masker = {
  scans: true,
  flags: new Uint32Array(16),
  scan: () => -1,
  field: (bytes, start, end) => {
    const text = Buffer.from(bytes.subarray(start, end)).toString("latin1");
    return text.includes("SECRET") ? Buffer.from(text.replaceAll("SECRET", "-")) : undefined;
  },
  column: (method) => (method === "null" ? null : Buffer.from("#")),
  lastRule: "content",
};

const masks: SessionMasks = { masker, columns: new Map([[100, new Map([[2, { rule: "column", method: "redact" }]])]]) };

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
  ]);
  const columns = readColumns(bytes, 0, bytes.length);
  assert.deepEqual(planColumns(columns, undefined, masks, true), [
    { kind: "scan", nullOnHit: false },
    { kind: "column", mask: { rule: "column", method: "redact" }, asNull: false },
    { kind: "column", mask: { rule: "column", method: "redact" }, asNull: true },
    { kind: "column", mask: { rule: "column", method: "redact" }, asNull: true },
    { kind: "scan", nullOnHit: true },
    undefined,
  ]);
  assert.equal(planColumns(columns, undefined, { masker: { ...masker, scans: false }, columns: new Map() }, true), undefined);
});

test("a binary result is refused where it could not be masked", () => {
  const one = (column: Column) => {
    const bytes = description([column]);
    return readColumns(bytes, 0, bytes.length);
  };
  assert.match(binaryRefusal(one(maskedText), "binary", masks, true) ?? "", /column 1 is masked/);
  assert.match(binaryRefusal(one({ ...text, type: 1700 }), "binary", masks, true) ?? "", /OID 1700/);
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
          fields.map(([, kind]) => actionOf[kind]),
          masks,
          flagged,
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
  const feed = (bytes: Buffer) => () => new RowMasker().row(bytes, 0, bytes.length, actions, masks, true, new Map());
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
