import assert from "node:assert/strict";
import { test } from "node:test";
import { jsonLine, manyLines, oneLine } from "./printable.ts";

/** CSI in its one-byte form, right-to-left override, a tag beyond the first plane, line separator, delete, escape. */
const HOSTILE = "a\u009b31m\u202eb\u{e0041}\u2028\u007f\u001b]0;title\u0007";

test("nothing that a terminal could act on is left", () => {
  for (const shown of [oneLine(HOSTILE), manyLines(HOSTILE), jsonLine({ application: HOSTILE })])
    assert.doesNotMatch(shown, /[\p{Cc}\p{Cf}\p{Zl}\p{Zp}]/u);
});

test("lines and tabs stay where there may be several lines", () => {
  assert.equal(manyLines("a\n\tb\r"), "a\n\tb\\r");
  assert.equal(oneLine("a\n\tb\r"), "a\\n\\tb\\r");
});

test("JSON keeps its value", () => {
  const value = { application: HOSTILE, list: ["ä", "😀", null, 1] };
  assert.deepEqual(JSON.parse(jsonLine(value)), value);
  assert.equal(jsonLine({ a: "ä😀\n" }), '{"a":"ä😀\\n"}');
});
