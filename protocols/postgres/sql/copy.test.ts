import assert from "node:assert/strict";
import { after, before, test } from "node:test";
import { createClassifier } from "./classify.ts";
import type { Classifier, CopyFormat, CopyOut } from "./types.ts";

let classifier: Classifier;
before(async () => {
  classifier = await createClassifier();
});
after(() => classifier.close());

const copies = async (sql: string): Promise<readonly CopyOut[]> => {
  const bytes = Buffer.from(sql);
  return (await classifier.classify(bytes, 0, bytes.length)).copies;
};
const formatOf = async (options: string): Promise<CopyFormat | string | undefined> =>
  (await copies(`copy t to stdout ${options}`))[0]?.format;

const TEXT: CopyFormat = { kind: "text", delimiter: 9, nullText: "\\N", header: false, quote: 0, escape: 0x5c };
const CSV: CopyFormat = { kind: "csv", delimiter: 0x2c, nullText: "", header: false, quote: 0x22, escape: 0x22 };

test("what a message copies out, in order", async () => {
  assert.deepEqual(await copies('copy t to stdout; select 1; copy "S".u (a, "B") to stdout csv; copy (select 1) to stdout'), [
    { relation: { schema: undefined, name: "t" }, columns: undefined, format: TEXT },
    { relation: { schema: "S", name: "u" }, columns: ["a", "B"], format: CSV },
    { relation: undefined, columns: undefined, format: TEXT },
  ]);
  assert.deepEqual(await copies("select 1"), []);
  assert.deepEqual(await copies("copy t from stdin"), []);
});

test("options, old and new spelling", async () => {
  for (const [options, expected] of [
    ["", TEXT],
    ["(format text, delimiter E'\\t', null E'\\\\N', header false, encoding 'UTF-8')", TEXT],
    ["with delimiter '|' null as 'x' header", { ...TEXT, delimiter: 0x7c, nullText: "x", header: true }],
    ["(header 1)", { ...TEXT, header: true }],
    ["(header 'ON')", { ...TEXT, header: true }],
    ["(header 0)", TEXT],
    ["(null '')", { ...TEXT, nullText: "" }],
    ["with csv quote '''' force quote a", { ...CSV, quote: 0x27, escape: 0x27 }],
    ["(format csv, escape '\\', force_quote *, null 'NULL')", { ...CSV, escape: 0x5c, nullText: "NULL" }],
    ["(format csv, delimiter 1)", { ...CSV, delimiter: 0x31 }],
    ["(format csv, delimiter ';', escape ';')", { ...CSV, delimiter: 0x3b, escape: 0x3b }],
    ["(format binary)", { ...TEXT, kind: "binary" }],
    ["binary", { ...TEXT, kind: "binary" }],
  ] as const) {
    assert.deepEqual(await formatOf(options), expected, options);
  }
  assert.deepEqual((await copies("copy t to stdout using delimiters '|'"))[0]?.format, { ...TEXT, delimiter: 0x7c });
});

test("what is not known for certain is said so", async () => {
  for (const options of [
    "(format 'json')",
    "(format 'CSV')",
    "(format csv, format text)",
    "(header match)",
    "(header 2)",
    "(delimiter 'ab')",
    "(delimiter 'a')",
    "(delimiter 1)",
    "(delimiter '\u00e9')",
    "(delimiter '')",
    "(delimiter E'\\n')",
    "(delimiter E'\\r', format csv)",
    "(delimiter)",
    "(null E'a\\nb')",
    "(null E'a\\tb')",
    "(null '\\')",
    "(null 'a\\Nb')",
    "(format csv, null 'a,b')",
    "(format csv, null 'a\"b')",
    "(format csv, delimiter '\"')",
    "(format csv, quote E'\\n')",
    "(format csv, quote 'ab')",
    "(format csv, escape '')",
    "(quote 'x')",
    "(force_quote *)",
    "(format binary, delimiter ',')",
    "(format binary, header)",
    "(encoding 'latin1')",
    "(encoding sql_ascii)",
    "(freeze)",
    "(log_verbosity verbose)",
    "(something 'new')",
  ]) {
    assert.equal(typeof (await formatOf(options)), "string", options);
  }
});
