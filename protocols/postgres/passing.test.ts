import assert from "node:assert/strict";
import { before, test } from "node:test";
import fc from "fast-check";
import { createMasker } from "../../core/mask/masker.ts";
import { buildNative } from "../../core/native/build.ts";
import { createCopyMasker } from "./copy-masker.ts";
import { FORWARD, MessageFramer, type MessageVisitor, REPLACE } from "./frame.ts";
import { RowMasker } from "./rows.ts";
import type { CopyFormat } from "./sql/types.ts";
import type { ColumnAction, SessionMasks } from "./values.ts";

// Rows that pass unseen, and those that are looked at one by one, have to leave the same bytes.

before(() => buildNative({ quiet: true }));

let masks: SessionMasks;
before(() => {
  masks = {
    masker: createMasker(
      [{ name: "content", columns: [], detect: ["payment_card", "email", "phone", "iban", "jwt"], with: "redact", predicates: "deny" }],
      Buffer.alloc(32, 7),
      undefined,
    ),
    columns: new Map(),
    contentRule: "content",
  };
});

const TEXT: CopyFormat = { kind: "text", delimiter: 9, nullText: "\\N", header: false, quote: 0, escape: 0x5c };
const CSV: CopyFormat = { kind: "csv", delimiter: 0x2c, nullText: "", header: false, quote: 0x22, escape: 0x22 };
const SEARCHED: ColumnAction = { kind: "scan", nullOnHit: false };

interface Passing {
  newChunk(): void;
  upTo(bytes: Uint8Array, start: number, available: number): number;
  readonly ending: number;
  /** @returns undefined: the message passes; how many rows it had is added by itself */
  masked(bytes: Uint8Array, start: number, end: number, available: number): Uint8Array | undefined;
}

/** What the framer makes of a stream. @param passes rows may pass unseen */
function through(
  stream: Buffer,
  chunks: readonly number[],
  passing: Passing,
  passes: boolean,
): { out: Buffer; unseen: number; seen: number } {
  const out: Buffer[] = [];
  let unseen = 0;
  let seen = 0;
  const visitor: MessageVisitor = {
    replacement: undefined,
    passesEnding: passing.ending,
    limit: () => 1_000_000,
    streams: () => false,
    passesUpTo: (_type, bytes, start, available) => (passes ? passing.upTo(bytes, start, available) : start),
    passed: (_type, count) => {
      unseen += count;
    },
    message(_type, bytes, start, end, available) {
      seen += 1;
      const masked = passing.masked(bytes, start, end, available);
      visitor.replacement = masked === undefined ? undefined : Buffer.from(masked);
      return masked === undefined ? FORWARD : REPLACE;
    },
    run: (bytes, start, end) => out.push(Buffer.from(bytes.subarray(start, end))),
    emit: (replacement) => replacement !== undefined && out.push(Buffer.from(replacement)),
  };
  const framer = new MessageFramer(visitor);
  let at = 0;
  for (const length of [...chunks, stream.length]) {
    const chunk = Buffer.from(stream.subarray(at, at + length));
    passing.newChunk();
    framer.push(chunk, 0, chunk.length);
    chunk.fill(0xee);
    at += length;
  }
  return { out: Buffer.concat(out), unseen, seen };
}

const VALUES = [
  "order 17 left the warehouse",
  "",
  "4111 1111 1111 1111",
  "ann@example.com",
  "x".repeat(90),
  "Zürich",
  "2024-01-01 12:00:00",
  "DE89370400440532013000",
];
const NASTY = ['a "quoted", one', "back\\slash", "tab\tand\nnewline", "\\N", "two\tann@example.com"];
const value = fc.oneof(
  { weight: 30, arbitrary: fc.constant(VALUES[0] as string) },
  { weight: 3, arbitrary: fc.constantFrom(...VALUES) },
  { weight: 1, arbitrary: fc.constantFrom(...NASTY) },
  { weight: 2, arbitrary: fc.constant(null) },
);
const table = fc.array(fc.tuple(value, value, value), { minLength: 20, maxLength: 200 });
const chunks = fc.array(fc.integer({ min: 1, max: 9_000 }), { maxLength: 6 });

const message = (type: string, body: Buffer): Buffer => {
  const head = Buffer.alloc(5);
  head.write(type);
  head.writeInt32BE(body.length + 4, 1);
  return Buffer.concat([head, body]);
};

const inText = (text: string | null): string =>
  text === null ? "\\N" : text.replaceAll("\\", "\\\\").replaceAll("\t", "\\t").replaceAll("\n", "\\n");
const inCsv = (text: string | null): string =>
  text === null ? "" : text === "" || /[",\n\\]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text;

for (const [format, field, delimiter] of [
  [TEXT, inText, "\t"],
  [CSV, inCsv, ","],
] as const) {
  test(`COPY in ${format.kind} format: the same bytes and rows, whether rows pass unseen or not`, () => {
    let unseenInAll = 0;
    fc.assert(
      fc.property(table, chunks, fc.boolean(), (rows, lengths, joined) => {
        const lines = rows.map((row) => `${row.map(field).join(delimiter)}\n`);
        // A message with several rows, or a row in several messages, is not what PostgreSQL sends, but may be sent.
        const cut = joined
          ? [
              Buffer.from(lines.slice(0, 3).join("")),
              Buffer.from((lines[3] as string).slice(0, 5)),
              Buffer.from((lines[3] as string).slice(5)),
            ]
          : lines.slice(0, 4).map((line) => Buffer.from(line));
        const stream = Buffer.concat([...cut, ...lines.slice(4).map((line) => Buffer.from(line))].map((body) => message("d", body)));
        const both = [true, false].map((passes) => {
          const masker = createCopyMasker({ format, actions: undefined, exact: false, fresh: false, masks }, 0, 3);
          let counted = 0;
          const passing: Passing = {
            newChunk: () => masker.newChunk(),
            upTo: (bytes, start, available) => masker.passUpTo(bytes, start, available),
            ending: 0x0a,
            masked: (bytes, start, end, available) => {
              const out = masker.message(bytes, start, end, available, new Map());
              counted += masker.rows;
              return out;
            },
          };
          const { out, unseen } = through(stream, lengths, passing, passes);
          masker.end();
          if (passes) unseenInAll += unseen;
          // Several rows in a message count as one where they pass unseen.
          return { out: out.toString("latin1"), rows: joined ? 0 : counted + unseen };
        });
        assert.deepEqual(both[0], both[1]);
        assert.equal(both[0]?.rows, joined ? 0 : rows.length);
        assert.ok(!both[0]?.out.includes("@example.com") && !both[0]?.out.includes("4111 1111"));
      }),
      { numRuns: 150 },
    );
    assert.ok(unseenInAll > 300, `only ${unseenInAll} rows passed unseen`);
  });
}

test("DataRow: the same bytes, whether rows pass unseen or not", () => {
  const body = (row: readonly (string | null)[]): Buffer => {
    const parts: Buffer[] = [Buffer.from([0, row.length])];
    for (const text of row) {
      const length = Buffer.alloc(4);
      length.writeInt32BE(text === null ? -1 : Buffer.byteLength(text));
      parts.push(length, Buffer.from(text ?? ""));
    }
    return Buffer.concat(parts);
  };
  let unseenInAll = 0;
  fc.assert(
    fc.property(table, chunks, (rows, lengths) => {
      const stream = Buffer.concat(rows.map((row) => message("D", body(row))));
      const actions = [SEARCHED, SEARCHED, SEARCHED];
      const both = [true, false].map((passes) => {
        const masker = new RowMasker();
        const passing: Passing = {
          newChunk: () => masker.newChunk(),
          upTo: (bytes, start, available) => masker.passUpTo(masks, bytes, start, available),
          ending: -1,
          masked: (bytes, start, end, available) => masker.row(bytes, start, end, available, actions, masks, false, new Map()),
        };
        const { out, unseen, seen } = through(stream, lengths, passing, passes);
        assert.equal(unseen + seen, rows.length);
        if (passes) unseenInAll += unseen;
        return out.toString("latin1");
      });
      assert.equal(both[0], both[1]);
      assert.ok(!both[0]?.includes("@example.com") && !both[0]?.includes("4111 1111"));
    }),
    { numRuns: 150 },
  );
  assert.ok(unseenInAll > 300, `only ${unseenInAll} rows passed unseen`);
});

test("COPY in text format: an escape behind a length that ends in zero bytes is none of its bytes", () => {
  // The first byte of the row is a backslash, as are bytes of some of the lengths: those of 0x5c5c, 0x5c00 and 92.
  const secret = "\\x44E89370400440532013000";
  for (const length of [0x10000, 0x20000, 0x5c5c, 0x5c00, 92]) {
    const rest = "x".repeat(length - 4 - secret.length - 2);
    const stream = Buffer.concat([
      message("d", Buffer.from(`clean\t${"y".repeat(3_000)}\n`)),
      message("d", Buffer.from(`${secret}\t${rest}\n`)),
      message("d", Buffer.from(`clean\t${"z".repeat(3_000)}\n`)),
    ]);
    for (const chunks of [[], [3_015], [3_000, 40]]) {
      const masker = createCopyMasker({ format: TEXT, actions: undefined, exact: false, fresh: false, masks }, 0, 2);
      const passing: Passing = {
        newChunk: () => masker.newChunk(),
        upTo: (bytes, start, available) => masker.passUpTo(bytes, start, available),
        ending: 0x0a,
        masked: (bytes, start, end, available) => masker.message(bytes, start, end, available, new Map()),
      };
      const { out } = through(stream, chunks, passing, true);
      assert.ok(out.includes("[REDACTED:iban]"), `length ${length} in chunks of ${chunks.join()}`);
      assert.ok(!out.includes("E893704"));
    }
  }
});
