import assert from "node:assert/strict";
import { test } from "node:test";
import fc from "fast-check";
import { ALICE, MOMENT, ORDERS, operation, policyOf, summary } from "./testkit.ts";

const ACTIONS = ["read", "write", "schema", "session", "admin", "sql:select", "sql:insert", "sql:drop", "connect"];
const PATTERNS = ["public.*", "*.a", "hr.b", "*", "role:*", "pg_catalog.pg_class"];
const RESOURCES = ["public.a", "public.b", "hr.a", "hr.b", "role:x", "pg_catalog.pg_class", "pg_catalog.pg_authid"];

const someOf = (values: string[]) =>
  fc.option(fc.uniqueArray(fc.constantFrom(...values), { minLength: 1, maxLength: 3 }), { nil: undefined });

interface Rule {
  effect: string;
  actions: string[] | undefined;
  resources: string[] | undefined;
  groups: string[] | undefined;
}
const rule = (effects: string[]): fc.Arbitrary<Rule> =>
  fc.record({
    effect: fc.constantFrom(...effects),
    actions: someOf(ACTIONS),
    resources: someOf(PATTERNS),
    groups: someOf(["analytics", "dba"]),
  });
const rules = fc.array(rule(["allow", "deny", "approve"]), { maxLength: 6 });
const access = fc
  .tuple(
    fc.constantFrom("sql:select", "sql:insert", "sql:drop", "sql:set", "sql:do"),
    fc.uniqueArray(fc.constantFrom(...RESOURCES), { maxLength: 3 }),
  )
  .map(([action, resources]) => [action, ...resources]);
const accesses = fc.array(access, { minLength: 1, maxLength: 3 });

/** 2: allow, 1: approve, 0: deny. */
const RANK: Readonly<Record<string, number>> = { allow: 2, approve: 1, deny: 0 };

function outcome(list: readonly Rule[], asked: readonly string[][]): { effect: string; rule: string | undefined } {
  const text = list.map(({ effect, actions, resources, groups }, index) =>
    JSON.stringify({ name: `r${index}`, effect, actions, resources, who: groups && { groups } }),
  );
  const policy = policyOf(`rules: [${text.join(", ")}]`);
  const grant = policy.connect(ALICE, ORDERS, "", 0);
  if ("kind" in grant) return { effect: grant.code === "SLUICE_DENIED" ? "deny" : "approve", rule: grant.rule };
  const verdict = policy.session(grant).decide(operation(...asked), MOMENT);
  return { effect: summary(verdict).split(" ")[0] ?? "", rule: verdict.rule };
}

const rank = (list: readonly Rule[], asked: readonly string[][]): number => RANK[outcome(list, asked).effect] ?? -1;
const check = (property: fc.IRawProperty<unknown>): void => fc.assert(property as fc.IProperty<unknown>, { numRuns: 300 });

const passes = (list: readonly Rule[], asked: readonly string[][]): boolean => outcome(list, asked).effect === "allow";

test("an allow more never refuses what passed", () => {
  check(
    fc.property(rules, rule(["allow"]), accesses, (list, more, asked) => assert(passes([...list, more], asked) || !passes(list, asked))),
  );
});

test("a deny or an approve more never lets pass what was refused", () => {
  check(
    fc.property(rules, rule(["deny", "approve"]), accesses, (list, more, asked) =>
      assert(passes(list, asked) || !passes([...list, more], asked)),
    ),
  );
});

test("a deny more never makes anything milder", () => {
  check(fc.property(rules, rule(["deny"]), accesses, (list, more, asked) => assert(rank([...list, more], asked) <= rank(list, asked))));
});

test("a deny that matches everything always wins", () => {
  const everything: Rule = { effect: "deny", actions: undefined, resources: undefined, groups: undefined };
  check(
    fc.property(rules, accesses, fc.nat(6), (list, asked, at) =>
      assert.equal(outcome(list.toSpliced(at, 0, everything), asked).effect, "deny"),
    ),
  );
});

test("the order of rules does not change the effect", () => {
  check(fc.property(rules, accesses, (list, asked) => assert.equal(outcome(list.toReversed(), asked).effect, outcome(list, asked).effect)));
});

test("one more access or resource never widens", () => {
  check(fc.property(rules, accesses, access, (list, asked, more) => assert(rank(list, [...asked, more]) <= rank(list, asked))));
  check(
    fc.property(rules, access, fc.constantFrom(...RESOURCES), (list, asked, more) => {
      fc.pre(asked.length > 1);
      assert(rank(list, [[...asked, more]]) <= rank(list, [asked]));
    }),
  );
});

test("without an allow nothing passes", () => {
  check(
    fc.property(fc.array(rule(["deny", "approve"]), { maxLength: 6 }), accesses, (list, asked) =>
      assert.notEqual(outcome(list, asked).effect, "allow"),
    ),
  );
});
