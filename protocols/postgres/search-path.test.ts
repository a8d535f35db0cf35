import assert from "node:assert/strict";
import { test } from "node:test";
import { parseSearchPath, SearchPath } from "./search-path.ts";

test("the setting's value as schema names", () => {
  assert.deepEqual(parseSearchPath('"$user", public', "svc"), ["svc", "public"]);
  assert.deepEqual(parseSearchPath('a,B , "C d","q""q"', "svc"), ["a", "b", "C d", 'q"q']);
  assert.deepEqual(parseSearchPath("", "svc"), []);
  for (const bad of ["a,", ",a", "a b", '"a', 'a"b"']) assert.equal(parseSearchPath(bad, "svc"), undefined, bad);
});

test("a change that is under way makes the value unknown until its ReadyForQuery", () => {
  const path = new SearchPath(["public"]);
  path.sent();
  assert.equal(path.value, undefined);
  path.set(["a"], false, false);
  assert.equal(path.value, undefined);
  path.settled();
  assert.deepEqual(path.value, ["a"]);
});

test("a transaction's SET is undone by ROLLBACK, kept by COMMIT; SET LOCAL ends with the block", () => {
  const path = new SearchPath(["public"]);
  path.set(["a"], false, true);
  assert.deepEqual(path.value, ["a"]);
  path.ended("rollback");
  assert.deepEqual(path.value, ["public"]);
  path.set(["a"], false, true);
  path.ended("commit");
  assert.deepEqual(path.value, ["a"]);
  path.set(["b"], true, true);
  assert.deepEqual(path.value, ["b"]);
  path.ended("commit");
  assert.deepEqual(path.value, ["a"]);
  path.set(["c"], true, false);
  assert.deepEqual(path.value, ["a"], "SET LOCAL outside a block does nothing");
  path.reset(false);
  assert.deepEqual(path.value, ["public"]);
});

test("what cannot be known stays unknown until it is set or reported anew", () => {
  const path = new SearchPath(["public"]);
  path.lost();
  path.ended("commit");
  assert.equal(path.value, undefined);
  path.set(["a"], false, false);
  assert.deepEqual(path.value, ["a"]);
  path.lost();
  path.reported(["b"]);
  assert.deepEqual(path.value, ["b"]);
  path.lost();
  path.set(["x"], false, false);
  assert.deepEqual(path.value, ["b"], "a server that reports the setting is believed over our own reading");
});

test("white space and letters are the server's, not Unicode's", () => {
  assert.deepEqual(parseSearchPath("\u00a0public, hr", "svc"), ["\u00a0public", "hr"]);
  assert.deepEqual(parseSearchPath('"\u212aX"', "svc"), ["\u212aX"]);
  // Lower case in a database with an encoding of single bytes, and as it is in others.
  for (const either of ["\u212aX", "\u00c4", "a, s\u00c4"]) assert.equal(parseSearchPath(either, "svc"), undefined, either);
  assert.deepEqual(parseSearchPath('s\u00e4, "\u00c4"', "svc"), ["s\u00e4", "\u00c4"]);
  assert.equal(parseSearchPath("a".repeat(64), "svc"), undefined);
  // White space to PostgreSQL 16 and later, and before a part of the name.
  for (const either of ["\v", "\va, b", "a\v, b", "a,\v b", "a, b \v", "a\vb"])
    assert.equal(parseSearchPath(either, "svc"), undefined, either);
  assert.deepEqual(parseSearchPath('"\va", b', "svc"), ["\va", "b"]);
});

test("code that ran leaves it in doubt until the server is asked; in a block what was told holds to its end", () => {
  const path = new SearchPath(["public"]);
  const run = (urgent: boolean): void => {
    path.sent();
    path.doubt(urgent);
    path.settled();
  };
  run(false);
  assert.equal(path.value, undefined);
  assert.equal(path.urgent, false);
  path.set(["a"], false, false);
  assert.equal(path.value, undefined, "the role is in doubt, too");
  path.asked(["hr"], false);
  assert.deepEqual(path.value, ["hr"]);
  run(true);
  assert.equal(path.urgent, true);
  path.askedInVain();
  assert.equal(path.urgent, false, "the same is not asked over and over");
  assert.equal(path.askable, false);
  path.mayAskAgain();
  assert.equal(path.urgent, true);
  path.asked(["b"], true);
  assert.deepEqual(path.value, ["b"]);
  path.ended("commit");
  assert.equal(path.value, undefined);
  path.asked(["c"], true);
  path.unclear();
  assert.equal(path.value, undefined, "rolled back to a savepoint");
});

test("a server that reports the setting is asked all the same: it does not report the role", () => {
  const path = new SearchPath(["public"]);
  path.reported(["hr"]);
  path.doubt(false);
  assert.equal(path.value, undefined);
  path.asked(["hr"], true);
  path.reported(["a"]);
  assert.deepEqual(path.value, ["a"]);
  path.ended("rollback");
  assert.equal(path.value, undefined);
});

test("what cannot be read is asked for once", () => {
  const path = new SearchPath(undefined);
  assert.equal(path.askable, true);
  path.asked(undefined, false);
  assert.equal(path.askable, false);
});
