import assert from "node:assert/strict";
import { isUtf8 } from "node:buffer";
import { test } from "node:test";
import fc from "fast-check";
import { Shape } from "./shape.ts";
import { Templates } from "./templates.ts";

/** The shape's key is the oracle: what a template takes for the text it was made of has that text's key. */

const shape = new Shape();

/** The keys that the general way looks a text up by, without and with the literals that are kept; undefined: it has none, or is refused. */
function keys(bytes: Uint8Array, start: number, end: number, keep: Uint8Array | undefined): string | undefined {
  const found: string[] = [];
  for (const kept of keep === undefined ? [undefined] : [undefined, keep]) {
    if (!shape.compute(bytes, start, end, kept) || shape.zero || !isUtf8(bytes.subarray(start, end))) return undefined;
    found.push(Buffer.from(shape.key.subarray(0, shape.keyBytes)).toString("latin1"));
  }
  return found.join("\n");
}

/** What a slot is chosen by: one for all texts here. */
const PREFIX = "select a, b, c, d from t where ";

/** A text behind the prefix. As in a connection's buffer, other bytes stand before and behind it. */
function placed(sql: string | Buffer, behind = "\0Q"): [Buffer, number, number] {
  const text = Buffer.concat([Buffer.from(PREFIX), Buffer.from(sql as string)]);
  const bytes = Buffer.concat([Buffer.from("Q'7"), text, Buffer.from(behind)]);
  return [bytes, 3, 3 + text.length];
}

/** Templates that hold this text alone, under its keys; undefined: it has none. */
function learned(sql: string, keep?: Uint8Array): Templates<string> | undefined {
  const [bytes, start, end] = placed(sql);
  const key = keys(bytes, start, end, keep);
  if (key === undefined) return undefined;
  const templates = new Templates<string>();
  templates.learn(shape, bytes, start, end, key);
  return templates;
}

const find = (templates: Templates<string> | undefined, sql: string | Buffer, behind?: string): string | undefined =>
  templates?.find(...placed(sql, behind));

test("a statement is known again by other numbers and strings", () => {
  for (const [one, two] of [
    ["SELECT abalance FROM pgbench_accounts WHERE aid = 12345;", "SELECT abalance FROM pgbench_accounts WHERE aid = 7;"],
    [
      "update some_table set some_column = 'x' where b = 1 or c = -1",
      "update some_table set some_column = '\\; -- /* $$ \"' where b = 123456789 or c = -000",
    ],
    ["select 1..2, a[1:2], N'x'", "select 10..20, a[11:22], N''"],
    ["select 'é', \"é\" /* it's */ from é -- 1", "select 'e', \"é\" /* it's */ from é -- 1"],
    ["select 'a'\n'b', 1", "select 'c', 2"],
    ["select 1.5, 1e5, E'x', 0x1f, 12345678901, 'x'", "select 1.5, 1e5, E'x', 0x1f, 12345678901, 'y'"],
    ["commit", "commit"],
  ]) {
    assert.notEqual(find(learned(one), two), undefined, `${one} | ${two}`);
    assert.equal(find(learned(one), two), keys(...placed(two), undefined));
  }
});

test("what is not plainly a literal of the same kind is not found", () => {
  const texts: [string, string[]][] = [
    [
      "select a from t where b = 1 and c = 'x'",
      [
        "select a from t where b = 1234567890 and c = 'x'",
        "select a from t where b = 1.5 and c = 'x'",
        "select a from t where b = .5 and c = 'x'",
        "select a from t where b = 1. and c = 'x'",
        "select a from t where b = 1e5 and c = 'x'",
        "select a from t where b = 1_0 and c = 'x'",
        "select a from t where b = 0x1 and c = 'x'",
        "select a from t where b = -1 and c = 'x'",
        "select a from t where b = 1a and c = 'x'",
        "select a from t where b = $1 and c = 'x'",
        "select a from t where b = 1/**/ and c = 'x'",
        "select a from t where b = '1' and c = 'x'",
        "select a from t where b =  and c = 'x'",
        "select a from t where b = 1 and c = 'x''y'",
        "select a from t where b = 1 and c = 'é'",
        "select a from t where b = 1 and c = 'a\0b'",
        "select a from t where b = 1 and c = E'x'",
        "select a from t where b = 1 and c = N'x'",
        "select a from t where b = 1 and c = $$x$$",
        "select a from t where b = 1 and c = 'x'\n'y'",
        "select a from t where b = 1 and c = 'x",
        "select a from t where b = 1 and c = ",
        "select a from t where b = 1 and c = 2",
        "select a from t where b = 1 and c = 'x';",
        "select a from t where b = 1 and C = 'x'",
        "select a from t where b = 1 and c = 'x' ",
      ],
    ],
    ["select 1", ["select ", "select 1;", "select 1.", "select x", "select 1234567890"]],
    ["select e'a', 1", ["select e'b', 1", "select 'a', 1"]],
    ["select 1.5", ["select 1.6", "select 2", "select 15"]],
  ];
  for (const [one, others] of texts) {
    const templates = learned(one);
    assert.notEqual(find(templates, one), undefined, one);
    // What stands behind the text in the buffer is not part of it.
    for (const other of others)
      for (const behind of ["\0Q", "'", "1", "x'", ";"]) assert.equal(find(templates, other, behind), undefined, other);
  }
});

test("a literal that matters stands in the template as it is", () => {
  const templates = learned("select f('a', 1) from t where b = 'a' and c = 1", Uint8Array.of(1, 1, 0, 0));
  assert.notEqual(find(templates, "select f('a', 1) from t where b = 'b' and c = 2"), undefined);
  assert.equal(find(templates, "select f('b', 1) from t where b = 'a' and c = 1"), undefined);
  assert.equal(find(templates, "select f('a', 2) from t where b = 'a' and c = 1"), undefined);
});

test("a byte that stands for a hole in templates is not taken for one", () => {
  for (const byte of ["\u0001", "\u0002"]) {
    for (const sql of [`select "${byte}", 1`, `select 1 /*${byte}*/`, `select $$${byte}$$`]) {
      for (const instead of ["''", "5", byte]) assert.equal(find(learned(sql), sql.replace(byte, instead)), undefined);
    }
  }
});

const integer = fc.oneof(fc.nat({ max: 999_999_999 }).map(String), fc.constantFrom("0", "00", "000000001"));
const string = fc.constantFrom("''", "'a'", "'\\'", "'--'", "'/*'", "'$$'", "'\"'", "'1'", "'\n'", "'\u0001'", "'; drop table t; '");
const literal = fc.oneof(
  integer,
  string,
  fc.constantFrom("-1", "1.5", ".5", "1.", "1e5", "0x1f", "1_0", "1234567890", "1a", "$1"),
  fc.constantFrom("'a''b'", "E'\\''", "e'x'", "B'0'", "X'f'", "N'x'", "U&'x'", "$$x$$", "'a'\n'b'", "'é'"),
  fc.string({ unit: "binary", maxLength: 5 }).map((text) => `'${text}'`),
);
const plain = fc.constantFrom(...' =,:,+,-, -,*,/,<,(,),[, ,\t,;,a ,"q",..,/* \' */,-- 1\n,\n'.split(","), ",");
const odd = fc.constantFrom(...'\r,a,e,E,x,b,u&,N,_,$,$a$,$$,.,::,--,/*,*/,","",\',\\,é,\u0001,\u0002,\u007f,\n--\'\n'.split(","));
const glue = fc.oneof({ weight: 5, arbitrary: plain }, { weight: 1, arbitrary: odd });
/** A literal, one of the same kind, and any other. */
const hole = fc.oneof(
  fc.record({ value: integer, similar: integer, other: literal }),
  fc.record({ value: string, similar: string, other: literal }),
  fc.record({ value: literal, similar: literal, other: literal }),
);
/** Which of a hole's three stand in another text, and what is changed in it at random: where, bytes to drop, what to put there. */
const variant = fc.record({
  which: fc.array(fc.constantFrom("value", "similar", "similar", "similar", "other"), { minLength: 6, maxLength: 6 }),
  edits: fc.oneof(
    fc.constant([]),
    fc.array(fc.tuple(fc.nat(), fc.nat(2), fc.oneof(glue, odd, literal, fc.constantFrom("\0", "1", "'", "''", ""))), { maxLength: 2 }),
  ),
  behind: fc.constantFrom("\0Q", "'", "1", "\n'x'", ".5", ""),
});

test("what is found has the same key, whatever was changed in the text", () => {
  let found = 0;
  let notFound = 0;
  fc.assert(
    fc.property(
      fc.array(fc.record({ text: glue, hole: fc.option(hole, { nil: undefined }) }), { minLength: 1, maxLength: 6 }),
      fc.array(variant, { minLength: 8, maxLength: 8 }),
      fc.option(fc.uint8Array({ minLength: 6, maxLength: 6, max: 1 }), { nil: undefined }),
      (parts, variants, keep) => {
        const one = parts.map((part) => part.text + (part.hole?.value ?? "")).join("");
        const templates = learned(one, keep);
        if (templates === undefined) return;
        for (const { which, edits, behind } of variants) {
          let two = parts.map((part, index) => part.text + (part.hole?.[which[index] as "value"] ?? "")).join("");
          for (const [where, drop, put] of edits) {
            const at = where % (two.length + 1);
            two = two.slice(0, at) + put + two.slice(at + drop);
          }
          if (two === one) continue;
          const value = find(templates, two, behind);
          if (value === undefined) notFound += 1;
          else {
            found += 1;
            assert.equal(value, keys(...placed(two, behind), keep), `${JSON.stringify(one)} | ${JSON.stringify(two)}`);
          }
        }
      },
    ),
    { numRuns: 10_000 },
  );
  assert.ok(found > 2_000 && notFound > 2_000, `found ${found}, not found ${notFound}`);
});

test("bytes that are not UTF-8 are not found", () => {
  const templates = learned("select 'x', \"é\"");
  for (const bad of [[0xff], [0xc3], [0xed, 0xa0, 0x80], [0x80]]) {
    assert.equal(find(templates, Buffer.concat([Buffer.from("select '"), Buffer.from(bad), Buffer.from('\', "é"')])), undefined);
    assert.equal(find(templates, Buffer.concat([Buffer.from("select 'x', \""), Buffer.from(bad), Buffer.from('"')])), undefined);
  }
});

test("a template stays while it is of use, and makes room when it is not", () => {
  const templates = new Templates<string>();
  const learn = (sql: string): void => {
    const [bytes, start, end] = placed(sql);
    assert.ok(shape.compute(bytes, start, end, undefined));
    templates.learn(shape, bytes, start, end, sql);
  };
  const one = "column_one = 1";
  const two = "column_two = 1";
  learn(one);
  for (let i = 0; i < 20; i += 1) {
    learn(two);
    assert.equal(find(templates, one), one);
    assert.equal(find(templates, two), undefined);
  }
  for (let i = 0; i < 20; i += 1) learn(two);
  assert.equal(find(templates, one), undefined);
  assert.equal(find(templates, two), two);
});

test("no template for what has no room, and none of an earlier text is left in its place", () => {
  const templates = new Templates<string>();
  const texts = ["1", "x".repeat(1_021)];
  for (const sql of texts) {
    const [bytes, start, end] = placed(sql);
    assert.ok(shape.compute(bytes, start, end, undefined));
    for (let i = 0; i < 20; i += 1) templates.learn(shape, bytes, start, end, sql);
  }
  for (const sql of [...texts, "x"]) assert.equal(find(templates, sql), undefined);
  const long = "y".repeat(1_021 - PREFIX.length);
  assert.notEqual(find(learned(long), long), undefined);
  assert.equal(find(learned(`${long}y`), `${long}y`), undefined);
  // A string may be long, a text may not be.
  const known = learned("select 'x'");
  assert.notEqual(find(known, `select '${"x".repeat(60_000)}'`), undefined);
  assert.equal(find(known, `select '${"x".repeat(70_000)}'`), undefined);
});

test("empty and short texts", () => {
  const templates = new Templates<string>();
  assert.equal(templates.find(Buffer.alloc(0), 0, 0), undefined);
  for (const sql of ["", ";", "1", "select 1", "select 1 from a_table_of_29_bytes"]) {
    const bytes = Buffer.from(sql);
    assert.ok(shape.compute(bytes, 0, bytes.length, undefined));
    const fresh = new Templates<string>();
    fresh.learn(shape, bytes, 0, bytes.length, sql);
    assert.equal(fresh.find(bytes, 0, bytes.length), sql);
    for (let end = 0; end < bytes.length; end += 1) assert.equal(fresh.find(bytes, 0, end), undefined);
  }
});
