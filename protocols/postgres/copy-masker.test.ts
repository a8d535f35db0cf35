import assert from "node:assert/strict";
import { before, test } from "node:test";
import fc from "fast-check";
import { LIMITS } from "../../core/limits.ts";
import { createMasker } from "../../core/mask/masker.ts";
import { buildNative } from "../../core/native/build.ts";
import type { MaskRule } from "../../core/policy/types.ts";
import { type CopyMasker, createCopyMasker } from "./copy-masker.ts";
import { type CopyPlan, SEARCHED } from "./copy-plan.ts";
import type { CopyFormat } from "./sql/types.ts";
import type { ColumnAction, SessionMasks } from "./values.ts";

before(() => buildNative({ quiet: true }));

const RULE: MaskRule = {
  name: "content",
  columns: [],
  detect: ["payment_card", "email", "phone", "private_key", "iban"],
  with: "redact",
  predicates: "deny",
};
const KEY = Buffer.alloc(32, 7);
const masksOf = (...rules: MaskRule[]): SessionMasks => ({
  masker: createMasker(rules, KEY, undefined),
  columns: new Map(),
  contentRule: "content",
});
let masks: SessionMasks;
before(() => {
  masks = masksOf(RULE);
});

const TEXT: CopyFormat = { kind: "text", delimiter: 9, nullText: "\\N", header: false, quote: 0, escape: 0x5c };
const CSV: CopyFormat = { kind: "csv", delimiter: 0x2c, nullText: "", header: false, quote: 0x22, escape: 0x22 };
const BINARY: CopyFormat = { ...TEXT, kind: "binary" };

const plan = (format: CopyFormat, actions: CopyPlan["actions"], with_ = masks): CopyPlan => ({
  format,
  actions,
  exact: actions !== undefined,
  fresh: false,
  masks: with_,
});
const column = (method: "redact" | "partial" | "hash" | "null", asNull = false): ColumnAction => ({
  kind: "column",
  mask: { rule: "column", method },
  asNull,
});

const copyData = (payload: Uint8Array): Buffer => {
  const head = Buffer.from([0x64, 0, 0, 0, 0]);
  head.writeInt32BE(payload.length + 4, 1);
  return Buffer.concat([head, payload]);
};

interface Outcome {
  readonly payload: Buffer;
  readonly rows: number;
  readonly counts: Record<string, number>;
}

/** What comes out for these payloads, each a message; `together`: all in one chunk, else each in a buffer that is overwritten afterwards. */
function through(masker: CopyMasker, payloads: readonly Uint8Array[], together: boolean): Outcome {
  const counts = new Map<string, number>();
  const out: Buffer[] = [];
  let rows = 0;
  const messages = payloads.map(copyData);
  const chunk = Buffer.concat(messages);
  let at = 0;
  masker.newChunk();
  for (const message of messages) {
    const bytes = together ? chunk : Buffer.from(message);
    const start = together ? at : 0;
    if (!together) masker.newChunk();
    const end = start + message.length;
    const masked = Buffer.from(masker.message(bytes, start, end, together ? chunk.length : end, counts) ?? message);
    if (!together) bytes.fill(0x34);
    at += message.length;
    rows += masker.rows;
    if (masked.length === 0) continue;
    assert.equal(masked[0], 0x64);
    assert.equal(masked.readInt32BE(1), masked.length - 1);
    out.push(masked.subarray(5));
  }
  masker.end();
  return { payload: Buffer.concat(out), rows, counts: Object.fromEntries(counts) };
}

const latin1 = (text: string): Buffer => Buffer.from(text, "latin1");
const one = (format: CopyFormat, actions: CopyPlan["actions"], columns: number, stream: string): Outcome =>
  through(createCopyMasker(plan(format, actions), 0, columns), [latin1(stream)], true);

test("every escape of text format is read, and written again as COPY writes it", () => {
  const masked = (field: string) => one(TEXT, undefined, 1, `${field}\n`).payload.toString("latin1").slice(0, -1);
  // Within the value each of these stands next to what is found, and has to come out again.
  for (const [field, expected] of [
    ["\\b \\f \\n \\r \\t \\v \\\\ a@b.example", "\\b \\f \\n \\r \\t \\v \\\\ [REDACTED:email]"],
    ["\\x41\\x4A\\x9 \\101\\7 a@b.example", "AJ\\t A\x07 [REDACTED:email]"],
    ["\\q\\. a@b.example", "q. [REDACTED:email]"],
    // What hides a value until it is read.
    ["a\\x40b.example", "[REDACTED:email]"],
    ["a\\100b.example", "[REDACTED:email]"],
    ["a\\@b.example", "[REDACTED:email]"],
    ["4111\\x201111 1111\\0401111", "[REDACTED:payment_card]"],
    [
      "-----BEGIN PRIVATE KEY-----\\nMIIEvQIBADANBgkqhkiG9w0BAQEFAASCBKcwggSjAgEAAoIBAQC7\\n-----END PRIVATE KEY-----",
      "[REDACTED:private_key]",
    ],
    ["\\N", "\\N"],
    ["nothing \\t here \\\\N", "nothing \\t here \\\\N"],
    ["", ""],
  ] as const) {
    assert.equal(masked(field), expected, field);
  }
  const pipe = { ...TEXT, delimiter: 0x2d };
  assert.equal(
    one(pipe, undefined, 2, "4111\\-1111\\-1111\\-1111-a\\-b a@b.example\n").payload.toString(),
    "[REDACTED:payment_card]-a\\-b [REDACTED:email]\n",
  );
});

test("CSV: quotes, escapes, new lines, NULL and what only looks like it", () => {
  const csv = (stream: string, format: Partial<CopyFormat> = {}, actions?: CopyPlan["actions"]) =>
    one({ ...CSV, ...format }, actions, 3, stream).payload.toString("latin1");
  assert.equal(csv('1,"a\n""b"", 4111 1111 1111 1111",\n'), '1,"a\n""b"", [REDACTED:payment_card]",\n');
  assert.equal(csv('1,"a\\"b\\\\ x@y.example",z\n', { escape: 0x5c }), '1,"a\\"b\\\\ [REDACTED:email]",z\n');
  // Outside quotes the escape character is nothing special.
  assert.equal(csv("a\\b x@y.example,\\,z\n", { escape: 0x5c }), "a\\b [REDACTED:email],\\,z\n");
  assert.equal(csv("x@y.example;,;\n", { delimiter: 0x3b }), "[REDACTED:email];,;\n");
  // The replacement has the delimiter in it, or looks like NULL.
  assert.equal(csv("1:x@y.example:3\n", { delimiter: 0x3a }), '1:"[REDACTED:email]":3\n');
  assert.equal(csv("1,x@y.example,3\n", { nullText: "[REDACTED:email]" }), '1,"[REDACTED:email]",3\n');
  const actions = [undefined, column("redact"), column("null")];
  assert.equal(csv('1,,""\n2,"",x\n3,"a,\nb",\n', {}, actions), '1,,\n2,"[REDACTED]",\n3,"[REDACTED]",\n');
  assert.equal(csv('1,NULL,x\n2,"NULL",NULL\n', { nullText: "NULL" }, actions), '1,NULL,NULL\n2,"[REDACTED]",NULL\n');
  assert.equal(
    csv('id,"na,me",x@y.example\n1,a,b\n', { header: true }, actions),
    'id,"na,me",x@y.example\n1,[REDACTED],\n',
    "names of columns stay",
  );
});

test("a table without columns, rows that are empty, a header alone", () => {
  for (const format of [TEXT, CSV]) {
    assert.deepEqual(one(format, undefined, 0, "\n\n"), { payload: latin1("\n\n"), rows: 2, counts: {} });
    assert.deepEqual(one(format, [column("redact")], 1, ""), { payload: latin1(""), rows: 0, counts: {} });
    assert.deepEqual(one({ ...format, header: true }, [column("redact")], 1, "name\n"), { payload: latin1("name\n"), rows: 0, counts: {} });
  }
  assert.deepEqual(one(TEXT, [column("redact")], 1, "\n"), { payload: latin1("[REDACTED]\n"), rows: 1, counts: { column: 1 } });
  assert.deepEqual(one(CSV, [column("redact")], 1, "\n"), { payload: latin1("\n"), rows: 1, counts: {} });
});

test("another mark of NULL in text is masked like a value: it could be one", () => {
  const format = { ...TEXT, nullText: "x" };
  assert.equal(one(format, [column("redact")], 1, "x\ny\n").payload.toString(), "[REDACTED]\n[REDACTED]\n");
  assert.equal(one(TEXT, [column("redact")], 1, "\\N\ny\n").payload.toString(), "\\N\n[REDACTED]\n");
});

test("a value that is JSON stays JSON, a bare number becomes text", () => {
  const searched = (field: string) => one(TEXT, undefined, 1, `${field}\n`).payload.toString();
  assert.equal(searched('{"a": 4111111111111111}'), "\\N\n");
  assert.equal(searched('{"a": "4111111111111111"}'), '{"a": "[REDACTED:payment_card]"}\n');
  assert.equal(searched("4111111111111111"), "[REDACTED:payment_card]\n");
  assert.equal(searched("{4111111111111111,x}"), "{[REDACTED:payment_card],x}\n");
  assert.equal(one(TEXT, [{ kind: "scan", nullOnHit: true }], 1, "4111111111111111\n").payload.toString(), "\\N\n");
});

test("what is not a row of the format ends the session", () => {
  for (const [format, columns, stream] of [
    [TEXT, 2, "a\n"],
    [TEXT, 2, "a\tb\tc\n"],
    [TEXT, 1, "a"],
    [TEXT, 1, "a\\"],
    [TEXT, 1, "a\\\n"],
    [CSV, 2, "a\n"],
    [CSV, 1, "a,b\n"],
    [CSV, 1, '"a"b\n'],
    [CSV, 1, 'a"b\n'],
    [CSV, 1, '"a\n'],
    [CSV, 1, '"a"'],
  ] as const) {
    assert.throws(
      () =>
        one(
          format,
          Array.from({ length: columns }, () => column("redact")),
          columns,
          stream,
        ),
      { code: "SLUICE_PROTOCOL_VIOLATION" },
      JSON.stringify(stream),
    );
  }
  const columns = [column("redact")];
  assert.throws(() => createCopyMasker(plan(TEXT, columns), 0, 2), { code: "SLUICE_MASK_IMPOSSIBLE" });
  assert.throws(() => createCopyMasker(plan(TEXT, columns), 1, 1), { code: "SLUICE_MASK_IMPOSSIBLE" });
  assert.throws(() => createCopyMasker(plan(BINARY, columns), 0, 1), { code: "SLUICE_MASK_IMPOSSIBLE" });
});

test("a row in pieces is held up to a limit", () => {
  const masker = createCopyMasker(plan(TEXT, undefined), 0, 1);
  const piece = copyData(Buffer.alloc(1024 * 1024, 0x78));
  const pieces = LIMITS.inspectedBackendMessageBytes / (1024 * 1024);
  for (let count = 0; count < pieces; count += 1) assert.equal(masker.message(piece, 0, piece.length, piece.length, new Map())?.length, 0);
  assert.throws(() => masker.message(piece, 0, piece.length, piece.length, new Map()), { code: "SLUICE_LIMIT_EXCEEDED" });
});

// ---- an independent writer and reader, by regular expressions over latin1

type Field = string | null;

const NAMES: Record<string, string> = { "\b": "b", "\f": "f", "\n": "n", "\r": "r", "\t": "t", "\v": "v" };
const CODES = Object.fromEntries(Object.entries(NAMES).map(([code, name]) => [name, code]));
const inClass = (text: string): string => text.replace(/[\\\]^-]/g, "\\$&");

function write(format: CopyFormat, row: readonly Field[], quoteAll: boolean): string {
  const delimiter = String.fromCharCode(format.delimiter);
  const quote = String.fromCharCode(format.quote);
  const escape = String.fromCharCode(format.escape);
  const field = (value: Field): string => {
    if (value === null) return format.nullText;
    if (format.kind === "text") {
      return value.replace(new RegExp(`[\\b\\f\\n\\r\\t\\v\\\\${inClass(delimiter)}]`, "g"), (each) => `\\${NAMES[each] ?? each}`);
    }
    const needs =
      quoteAll || value === format.nullText || value === "\\." || [delimiter, quote, "\n", "\r"].some((each) => value.includes(each));
    if (!needs) return value;
    return quote + value.replace(new RegExp(`[${inClass(quote)}${inClass(escape)}]`, "g"), (each) => escape + each) + quote;
  };
  return `${row.map(field).join(delimiter)}\n`;
}

function read(format: CopyFormat, stream: string, columns: number): Field[][] {
  const delimiter = inClass(String.fromCharCode(format.delimiter));
  const quote = inClass(String.fromCharCode(format.quote));
  const escape = inClass(String.fromCharCode(format.escape));
  const found: Field[][] = [[]];
  const pattern =
    format.kind === "text"
      ? new RegExp(`((?:[^\\\\\\n${delimiter}]|\\\\[^])*)([\\n${delimiter}])`, "gy")
      : escape === quote
        ? new RegExp(`(?:[${quote}]((?:[^${quote}]|[${quote}]{2})*)[${quote}]|([^\\n${quote}${delimiter}]*))([\\n${delimiter}])`, "gy")
        : new RegExp(
            `(?:[${quote}]((?:[^${quote}${escape}]|[${escape}][^])*)[${quote}]|([^\\n${quote}${delimiter}]*))([\\n${delimiter}])`,
            "gy",
          );
  let end = 0;
  for (const match of stream.matchAll(pattern)) {
    end = match.index + match[0].length;
    let value: Field;
    if (format.kind === "text") {
      value =
        match[1] === format.nullText
          ? null
          : (match[1] ?? "").replace(/\\(?:x([0-9a-fA-F]{1,2})|([0-7]{1,3})|([^]))/g, (_all, hex, octal, other) =>
              hex !== undefined
                ? String.fromCharCode(Number.parseInt(hex, 16))
                : octal !== undefined
                  ? String.fromCharCode(Number.parseInt(octal, 8) & 255)
                  : (CODES[other] ?? other),
            );
    } else if (match[1] !== undefined) value = match[1].replace(new RegExp(`[${escape}]([${quote}${escape}])`, "g"), "$1");
    else value = match[2] === format.nullText ? null : (match[2] ?? "");
    found.at(-1)?.push(value);
    if (match[0].endsWith("\n") && match.at(-1) === "\n") found.push([]);
  }
  assert.equal(end, stream.length, `not all of it can be read: ${JSON.stringify(stream.slice(end))}`);
  found.pop();
  for (const row of found) assert.equal(row.length, columns);
  return found;
}

const SENSITIVE = [
  "4111111111111111",
  "4111-1111-1111-1111",
  "4111 1111 1111 1111",
  "a@b.example",
  "+49 30 901820",
  "call +1 (212) 555-0123 now",
  '{"card": 4111111111111111}',
  '{"mail": "a@b.example", "n": [1, 2]}',
  "DE89 3704 0044 0532 0130 00",
  "-----BEGIN PRIVATE KEY-----\nMIIEvQIBADANBgkqhkiG9w0BAQEFAASCBKcwggSjAgEAAoIBAQC7\n-----END PRIVATE KEY-----",
];
const piece = fc.oneof(
  fc.constantFrom(...SENSITIVE),
  fc.constantFrom(
    "\\",
    "\\N",
    "\\.",
    "\n",
    "\r",
    "\t",
    "\b\f\v",
    '"',
    "'",
    ",",
    ";",
    "|",
    "-",
    " ",
    "@",
    "x41",
    "101",
    "",
    "NULL",
    "[REDACTED]",
    "4",
  ),
  fc.string({ maxLength: 12, unit: "binary" }).map((text) => Buffer.from(text.replaceAll("\0", "")).toString("latin1")),
);
const field: fc.Arbitrary<Field> = fc.oneof(
  { arbitrary: fc.constant(null), weight: 1 },
  { arbitrary: fc.array(piece, { maxLength: 4 }).map((pieces) => pieces.join("")), weight: 6 },
  { arbitrary: fc.constantFrom(...SENSITIVE), weight: 2 },
);
const FORMATS: readonly CopyFormat[] = [
  TEXT,
  { ...TEXT, header: true },
  ...["|", ",", "-", " ", "@", "+", "A", ":"].map((delimiter) => ({ ...TEXT, delimiter: delimiter.charCodeAt(0) })),
  { ...TEXT, delimiter: 1 },
  CSV,
  { ...CSV, header: true, nullText: "NULL" },
  { ...CSV, escape: 0x5c },
  { ...CSV, quote: 0x27, escape: 0x27, delimiter: 0x3b },
  ...["-", " ", "1", "@", "\t"].map((delimiter) => ({ ...CSV, delimiter: delimiter.charCodeAt(0) })),
  { ...CSV, quote: 0x34, escape: 0x2d },
  { ...CSV, quote: 0x31, escape: 0x31, nullText: "\\N" },
  { ...CSV, escape: 0x2c },
];
const ACTIONS: readonly (ColumnAction | undefined)[] = [
  undefined,
  SEARCHED,
  SEARCHED,
  { kind: "scan", nullOnHit: true },
  { kind: "scan", nullOnHit: false, json: true },
  column("redact"),
  column("partial"),
  column("hash"),
  column("null"),
  column("redact", true),
];

const isJson = (text: string): boolean => {
  try {
    JSON.parse(latin1(text).toString());
    return true;
  } catch {
    return false;
  }
};

/** What becomes of one value alone. */
function expected(value: Field, action: ColumnAction | undefined): Field {
  if (value === null || action === undefined || action.kind === "decode") return value;
  const bytes = latin1(value);
  if (action.kind === "column") {
    const masked = action.asNull ? null : masks.masker.column(action.mask.method, bytes, 0, bytes.length);
    return masked === null ? null : Buffer.from(masked).toString("latin1");
  }
  const masked = masks.masker.field(bytes, 0, bytes.length);
  if (masked === undefined) return value;
  if (masked === null || action.nullOnHit) return null;
  const text = Buffer.from(masked).toString("latin1");
  if (action.json === true) return isJson(text) ? text : null;
  return action.json === "likely" && !isJson(text) && /^[{[]/.test(value) && isJson(value) ? null : text;
}

const table = fc.integer({ min: 1, max: 4 }).chain((columns) =>
  fc.record({
    columns: fc.constant(columns),
    rows: fc.array(fc.array(field, { minLength: columns, maxLength: columns }), { maxLength: 5 }),
    actions: fc.oneof(fc.constant(undefined), fc.array(fc.constantFrom(...ACTIONS), { minLength: columns, maxLength: columns })),
    format: fc.constantFrom(...FORMATS),
    quoteAll: fc.boolean(),
    together: fc.boolean(),
    cuts: fc.oneof(fc.constant(undefined), fc.array(fc.nat({ max: 400 }), { maxLength: 8 })),
  }),
);

/** Payloads as the server sends them, a row each, or the stream cut anywhere. */
function split(parts: readonly string[], cuts: readonly number[] | undefined): Buffer[] {
  if (cuts === undefined) return parts.map(latin1);
  const stream = parts.join("");
  const at = [...new Set(cuts.map((cut) => cut % (stream.length + 1)))].sort((a, b) => a - b);
  return [0, ...at].map((from, index) => latin1(stream.slice(from, at[index])));
}

test("masked rows, read by somebody else, hold the fields masked one by one", () => {
  fc.assert(
    fc.property(table, ({ columns, rows, actions, format, quoteAll, together, cuts }) => {
      const header = Array.from({ length: columns }, (_, index) => `c${index},\n"x`);
      const parts = [...(format.header ? [write(format, header, false)] : []), ...rows.map((row) => write(format, row, quoteAll))];
      const masker = createCopyMasker(plan(format, actions), 0, columns);
      const outcome = through(masker, split(parts, cuts), together);
      const found = read(format, outcome.payload.toString("latin1"), columns);
      if (format.header) assert.deepEqual(found.shift(), header);
      const wanted = rows.map((row) => row.map((value, index) => expected(value, actions === undefined ? SEARCHED : actions[index])));
      assert.deepEqual(found, wanted);
      assert.equal(outcome.rows, rows.length);
      const changed = rows.flatMap((row, at) =>
        row.filter((value, index) => {
          const action = actions === undefined ? SEARCHED : actions[index];
          return value !== null && (action?.kind === "column" || wanted[at]?.[index] !== value);
        }),
      ).length;
      assert.equal(
        Object.values(outcome.counts).reduce((sum, count) => sum + count, 0),
        changed,
      );
    }),
    { numRuns: 3_000 },
  );
});

const binaryField = (value: Uint8Array | null): Buffer => {
  const head = Buffer.alloc(4);
  head.writeInt32BE(value === null ? -1 : value.length);
  return Buffer.concat([head, value ?? Buffer.alloc(0)]);
};
const binaryRow = (fields: readonly (Uint8Array | null)[]): Buffer => {
  const head = Buffer.alloc(2);
  head.writeInt16BE(fields.length);
  return Buffer.concat([head, ...fields.map(binaryField)]);
};
const binaryHeader = (flags = 0, extension = Buffer.alloc(0)): Buffer => {
  const tail = Buffer.alloc(8);
  tail.writeInt32BE(flags, 0);
  tail.writeInt32BE(extension.length, 4);
  return Buffer.concat([Buffer.from("PGCOPY\n\xff\r\n\0", "latin1"), tail, extension]);
};
const TRAILER = Buffer.from([0xff, 0xff]);

test("binary: rows, NULL, a header with an extension, the trailer; nothing behind it", () => {
  const actions = [undefined, SEARCHED, column("partial"), column("redact", true)];
  const four = Buffer.from([0, 0, 0, 4]);
  const rows = [
    [four, Buffer.from("mail a@b.example"), Buffer.from("a longer value"), four],
    [four, null, null, null],
    [null, Buffer.from("nothing"), Buffer.from(""), Buffer.alloc(0)],
  ];
  const stream = Buffer.concat([binaryHeader(0, Buffer.from("4111111111111111")), ...rows.map(binaryRow), TRAILER]);
  const wanted = Buffer.concat([
    binaryHeader(0, Buffer.from("4111111111111111")),
    binaryRow([four, Buffer.from("mail [REDACTED:email]"), Buffer.from("****ue"), null]),
    binaryRow([four, null, null, null]),
    binaryRow([null, Buffer.from("nothing"), Buffer.from("****"), null]),
    TRAILER,
  ]);
  const run = (...payloads: Buffer[]) => through(createCopyMasker(plan(BINARY, actions), 1, 4), payloads, true);
  assert.deepEqual(run(stream), { payload: wanted, rows: 3, counts: { content: 1, column: 4 } });
  for (const bad of [
    stream.subarray(0, stream.length - 1),
    Buffer.concat([stream, Buffer.from("x")]),
    stream.subarray(0, stream.length - 2),
    Buffer.concat([binaryHeader(1 << 16), TRAILER]),
    Buffer.concat([Buffer.from("PGCOPY\n\xff\r\n\x01", "latin1"), binaryHeader()]),
    Buffer.concat([binaryHeader(), binaryRow([null, null, null]), TRAILER]),
    Buffer.concat([binaryHeader(), binaryRow([null, null, null, null, null]), TRAILER]),
    Buffer.concat([binaryHeader(), Buffer.from([0, 4, 0xff, 0xff, 0xff, 0xfe])]),
    Buffer.concat([binaryHeader(), Buffer.from([0, 4, 0x7f, 0xff, 0xff, 0xff])]),
    Buffer.from("no"),
  ]) {
    assert.throws(() => run(bad), { code: "SLUICE_PROTOCOL_VIOLATION" }, bad.toString("latin1"));
  }
});

test("wherever the stream is cut into messages, the same comes out", () => {
  const rows: Field[][] = [
    ["4111 1111 1111 1111\tx", "plain", 'q"u\\o\nte a@b.example'],
    [null, "\\", "+49 30 901820"],
    ["", "a,b|c", null],
  ];
  const actions = [SEARCHED, column("partial"), SEARCHED];
  const cases = [TEXT, { ...TEXT, delimiter: 0x7c, header: true }, CSV, { ...CSV, escape: 0x5c, header: true }].map((format) => {
    const header = format.header ? write(format, ["a", "b", "c\n"], false) : "";
    return { format, overall: 0, stream: latin1(header + rows.map((row) => write(format, row, false)).join("")) };
  });
  const binary = rows.map((row) => binaryRow(row.map((value) => (value === null ? null : latin1(value)))));
  cases.push({ format: BINARY, overall: 1, stream: Buffer.concat([binaryHeader(), ...binary, TRAILER]) });
  for (const { format, overall, stream } of cases) {
    const run = (payloads: Buffer[], together: boolean) => through(createCopyMasker(plan(format, actions), overall, 3), payloads, together);
    const whole = run([stream], true);
    assert.ok(whole.payload.includes("[REDACTED:payment_card]") && whole.payload.includes("****"), format.kind);
    for (const together of [true, false]) {
      for (let cut = 0; cut <= stream.length; cut += 1)
        assert.deepEqual(run([stream.subarray(0, cut), stream.subarray(cut)], together), whole, `${format.kind} at ${cut}`);
      assert.deepEqual(
        run(
          [...stream].map((byte) => Buffer.from([byte])),
          together,
        ),
        whole,
        `${format.kind} byte by byte`,
      );
    }
  }
});

test("messages pass unseen up to the first that has an escape or a quote; a length that looks like one is none", () => {
  for (const [format, text, special] of [
    [TEXT, (bytes: number) => `a\t\\N\t${"x".repeat(bytes - 6)}\n`, "a\tb\\\\c\td\n"],
    [CSV, (bytes: number) => `a,,${"x".repeat(bytes - 4)}\n`, 'a,"b",c\n'],
  ] as const) {
    const masker = createCopyMasker(plan(format, undefined), 0, 3);
    // 88 + 4 is a backslash, 30 + 4 a quote.
    const clean = Buffer.concat([88, 30, 50].map((bytes) => copyData(Buffer.from(text(bytes)))));
    masker.newChunk();
    assert.equal(masker.passUpTo(clean, 0, clean.length), clean.length, format.kind);
    const stream = Buffer.concat([clean, copyData(Buffer.from(special)), clean]);
    masker.newChunk();
    const upTo = masker.passUpTo(stream, 0, stream.length);
    assert.ok(upTo >= clean.length && upTo < clean.length + 5 + special.length, `${format.kind}: ${upTo}`);
  }
});

test("what no mask applies to is not touched: the message passes as it is", () => {
  for (const [format, stream] of [
    [TEXT, "a\t\\N\tc\n"],
    [TEXT, "a\\tb\tx\\\\\tc\n"],
    [CSV, 'a,"b, ""c""",\n'],
    [CSV, "a,b,c\n"],
  ] as const) {
    const masker = createCopyMasker(plan(format, undefined), 0, 3);
    const message = copyData(latin1(stream));
    assert.equal(masker.message(message, 0, message.length, message.length, new Map()), undefined, stream);
    assert.equal(masker.rows, 1);
  }
});
