import assert from "node:assert/strict";
import { test } from "node:test";
import { Names } from "./statements.ts";

test("changes of one pipeline are taken back in reverse", () => {
  const names = new Names<string>();
  names.set("s", "old");
  const undos = [names.set("s", "new"), names.delete("s"), names.set("s", "newer")];
  assert.equal(names.get("s"), "newer");
  for (const undo of undos.reverse()) undo();
  assert.equal(names.get("s"), "old");
});

test("an undo never brings a value back over a later change: the name is forgotten", () => {
  const names = new Names<string>();
  names.set("s", "select note");
  // Skipped by the server after an error, but the next pipeline was sent before that was known.
  const skipped = names.delete("s");
  names.delete("s");
  const later = names.set("s", "select email");
  skipped();
  assert.equal(names.get("s"), undefined);
  later();
  assert.equal(names.get("s"), undefined, "nor does the later one's own undo");
});

test("once nothing is on its way, numbers are let go and values stay", () => {
  const names = new Names<string>();
  names.set("s", "value");
  names.settle();
  assert.equal(names.get("s"), "value");
  assert.deepEqual(names.keys(), ["s"]);
  names.set("t", "x")();
  assert.equal(names.has("t"), false);
});
