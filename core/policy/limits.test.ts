import assert from "node:assert/strict";
import { test } from "node:test";
import { explain } from "./explain.ts";
import { ALICE, identity, MOMENT, ORDERS, operation, policyOf, sessionOf, TARGETS } from "./testkit.ts";

const RULES = "rules: [{ name: all, effect: allow }]\n";
const limitsOf = (text: string, who = ALICE, where = ORDERS) => sessionOf(policyOf(`${RULES}${text}`), who, where).limits;
const names = (text: string, who = ALICE, where = ORDERS) => limitsOf(text, who, where).map(({ name }) => name);
const keys = (text: string) => limitsOf(text).map(({ key }) => key);

test("every entry whose who and on match applies", () => {
  const text = `limits:
  - { name: all, sessions: 9 }
  - { name: analysts, who: { groups: [analytics] }, rows: 5, per: 1h }
  - { name: others, who: { groups: [dba] }, rows: 5, per: 1h }
  - { name: here, on: { targets: [orders] }, statements: 5, per: 90s }
  - { name: there, on: { labels: { env: test } }, bytes: 50MB, per: 1d }
  - { who: { claims: { level: 3 } }, bytes: 1KiB, per: 1d }
`;
  assert.deepEqual(names(text), ["all", "analysts", "here", "limits[5]"]);
  assert.deepEqual(names(text, identity("corp:bob")), ["all", "here"]);
  assert.deepEqual(names(text, ALICE, TARGETS[1]), ["all", "analysts", "there", "limits[5]"]);
  const [, analysts, here, unnamed] = limitsOf(text);
  assert.deepEqual([analysts?.rows, analysts?.perMillis, analysts?.bytes, analysts?.observe], [5, 3_600_000, undefined, false]);
  assert.deepEqual([here?.statements, here?.perMillis], [5, 90_000]);
  assert.equal(unnamed?.bytes, 1_024);
});

test("an entry is the same one by its name, and without one by what it says", () => {
  const entry = (changes: string) => keys(`limits: [{ ${changes} }]`)[0];
  assert.equal(entry("name: a, rows: 5, per: 1h"), entry("per: 2h, rows: 9, name: a"));
  assert.notEqual(entry("name: a, rows: 5, per: 1h"), entry("name: b, rows: 5, per: 1h"));
  assert.equal(entry("rows: 5, per: 1h"), entry("per: 1h, rows: 5, description: said differently"));
  assert.notEqual(entry("rows: 5, per: 1h"), entry("rows: 6, per: 1h"));
  // A name cannot be chosen so that it looks like some content.
  assert.notEqual(entry("name: x, rows: 5, per: 1h")?.split("\n")[0], entry("rows: 5, per: 1h")?.split("\n")[0]);
  assert.equal(keys("limits: [{ rows: 5, per: 1h }, { per: 1h, rows: 5 }]").length, 1);
});

test("observe: of the entry or of its file", () => {
  const observed = (text: string) => limitsOf(text).map(({ observe }) => observe);
  assert.deepEqual(observed("limits: [{ sessions: 1, mode: observe }, { sessions: 2 }]"), [true, false]);
  const file = policyOf(RULES, "mode: observe\nlimits: [{ sessions: 1 }, { sessions: 2, mode: enforce }]");
  assert.deepEqual(
    sessionOf(file).limits.map(({ observe }) => observe),
    [true, false],
  );
});

test("explain shows them", () => {
  const policy = policyOf(`${RULES}limits: [{ name: a, rows: 5, per: 1h }, { name: b, who: { groups: [dba] }, sessions: 1 }]`);
  const { limits } = explain(policy, ALICE, ORDERS, operation(["sql:select", "public.a"]), MOMENT);
  assert.deepEqual(
    limits.map(({ name, rows }) => [name, rows]),
    [["a", 5]],
  );
});
