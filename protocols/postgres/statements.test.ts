import assert from "node:assert/strict";
import { test } from "node:test";
import { LIMITS } from "../../core/limits.ts";
import type { Classified } from "./sql/types.ts";
import { NamedObjects, Names, type Portal, type PreparedStatement, recordOf, together } from "./statements.ts";

test("changes of one pipeline are taken back together", () => {
  const names = new Names<string>();
  names.change("s", "old", 0).confirm();
  const changes = [names.change("s", "new", 1), names.change("s", undefined, 1), names.change("s", "newer", 1)];
  assert.equal(names.get("s"), "newer");
  together(changes)?.undo();
  assert.equal(names.get("s"), "old");
  assert.equal(names.size, 1);
});

test("a change that was skipped is taken out from beneath a later one", () => {
  const names = new Names<string>();
  names.change("s", "old", 0).confirm();
  // Skipped by the server after an error, but the next pipeline was sent before that was known.
  const skipped = names.change("s", undefined, 1);
  const closed = names.change("s", undefined, 2);
  const parsed = names.change("s", "new", 2);
  skipped.undo();
  assert.equal(names.get("s"), "new", "the later pipeline is on its way");
  closed.confirm();
  parsed.confirm();
  assert.equal(names.get("s"), "new");
  assert.equal(names.find("s")?.holdsIn(9), true);
});

test("if the later one is skipped as well, what was there before holds", () => {
  const names = new Names<string>();
  names.change("s", "old", 0).confirm();
  const skipped = names.change("s", "newer", 1);
  const later = names.change("s", "newest", 2);
  skipped.undo();
  later.undo();
  assert.equal(names.get("s"), "old");
  const freed = names.change("s", undefined, 3);
  const again = names.change("s", "again", 4);
  freed.confirm();
  again.undo();
  assert.equal(names.get("s"), undefined, "the name was freed for certain");
  assert.deepEqual(names.keys(), []);
  assert.equal(names.size, 0);
});

test("what an earlier pipeline makes of a name does not hold before its answer, one's own does", () => {
  const names = new Names<string>();
  for (const name of ["", "s"]) {
    const made = names.change(name, "value", 1);
    assert.equal(names.find(name)?.holdsIn(1), true);
    assert.equal(names.find(name)?.holdsIn(2), false);
    made.confirm();
    assert.equal(names.find(name)?.holdsIn(2), true);
    // Freed, but perhaps not: whoever frees all names must free this one as well.
    const freed = names.change(name, undefined, 2);
    assert.ok(names.keys().includes(name));
    assert.equal(names.has(name), false);
    freed.confirm();
    assert.equal(names.find(name), undefined);
  }
  assert.equal(names.size, 0);
});

test("the end of a transaction takes what was made before it, not what is on its way", () => {
  const names = new Names<string>();
  names.change("gone", "value", 1).confirm();
  names.change("again", "old", 1).confirm();
  const again = names.change("again", "new", 2);
  names.change("", "value", 1).confirm();
  names.clear();
  assert.deepEqual(names.keys(), ["again"]);
  assert.equal(names.get("again"), "new");
  again.undo();
  assert.equal(names.get("again"), undefined, "there is nothing to fall back to");
  assert.equal(names.size, 0);
});

test("the same text has the same place on record, another one of its shape has not", () => {
  const classified = { written: { last: undefined } } as unknown as Classified;
  const of = (text: string, padding = "") => {
    const bytes = Buffer.from(`${padding}${text}`);
    return recordOf(classified, bytes, padding.length, bytes.length);
  };
  const first = of("select 1");
  assert.equal(first.text, "select 1");
  first.storeSlot = 7;
  assert.equal(of("select 1", "PP"), first);
  assert.deepEqual(of("select 2"), { text: "select 2", storeSlot: -1 });
  assert.notEqual(of("select 1"), first);
  const long = `select ${"1".repeat(2_000)}`;
  assert.notEqual(of(long), of(long), "long texts are not kept");
});

test("what portals and prepared statements of a session keep is bounded, also before the answers are there", () => {
  const portal = (bytes: number): Portal => ({
    statement: {} as PreparedStatement,
    parameters: new Uint8Array(0),
    parametersStart: 0,
    parametersEnd: bytes,
    formats: "text",
    searchPath: undefined,
  });
  const eighth = LIMITS.namedBytes / 8;
  const limit = { code: "SLUICE_LIMIT_EXCEEDED" };
  for (const nameOf of [(index: number) => `p${index}`, () => "p", () => ""]) {
    const names = new NamedObjects();
    for (let index = 0; index < 8; index += 1) names.setPortal(nameOf(index), portal(eighth));
    assert.throws(() => names.setPortal(nameOf(8), portal(eighth)), limit);
    names.setPortal(nameOf(8), portal(100));
  }
  const names = new NamedObjects();
  for (let index = 0; index < 8; index += 1) names.setPortal(`p${index}`, portal(eighth)).confirm();
  for (let round = 0; round < 3; round += 1) names.setPortal("p0", portal(eighth)).confirm();
  assert.throws(() => names.setPortal("p8", portal(eighth)), limit);
  names.deletePortal("p1").confirm();
  names.setPortal("p8", portal(eighth)).confirm();
  const statement = { text: "x".repeat(eighth) } as PreparedStatement;
  for (let index = 0; index < 8; index += 1) names.setStatement(`s${index}`, statement).confirm();
  assert.throws(() => names.setStatement("s8", statement), limit);
});
