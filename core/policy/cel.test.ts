import assert from "node:assert/strict";
import { test } from "node:test";
import { compileWhen } from "./cel.ts";
import { withoutPort } from "./context.ts";
import { ALICE, identity, MOMENT, operation, policyOf, sessionOf, summary } from "./testkit.ts";
import type { Moment, Operation } from "./types.ts";

const select = operation(["sql:select", "public.a"]);

/** Verdict of `allow` plus one rule of this effect with this `when`. */
function decide(effect: string, when: string, moment: Partial<Moment> = {}, fields: Partial<Operation> = {}, who = ALICE) {
  const rules = [
    effect === "allow" ? "- { name: base, actions: [connect], effect: allow }" : "- { name: base, effect: allow }",
    `- { name: r, actions: [read, write], effect: ${effect}, when: ${JSON.stringify(when)} }`,
  ];
  return sessionOf(policyOf(`rules:\n  ${rules.join("\n  ")}`), who).decide({ ...select, ...fields }, { ...MOMENT, ...moment });
}

test("every variable can be read", () => {
  const holds = [
    "identity.issuer == 'corp' && identity.user == 'corp:alice' && identity.subject == 'alice'",
    "'corp:analytics' in identity.groups",
    "identity.claims.department == 'sales' && identity.claims.level >= 3 && 'auditor' in identity.claims.roles",
    "has(identity.claims.department) && !has(identity.claims.missing)",
    "target.name == 'orders' && target.protocol == 'postgres' && target.labels.env == 'prod' && target.database == 'orders'",
    "operation.action == 'sql:select' && operation.class == 'read' && operation.actions == ['sql:select']",
    "operation.resources.all(r, r.startsWith('public.')) && operation.tables == ['public.a']",
    "'secret' in operation.columns && 'now' in operation.functions",
    "operation.unfiltered && operation.statements == 2 && operation.transaction == 'block'",
    "operation.text.contains('limit') && operation.parameters[0] == 'x' && operation.parameters[1] == null",
    "client.address == '10.1.2.3' && client.address.inNetwork('10.1.0.0/16')",
    "time.hour == 14 && time.minute == 30 && time.weekday == 3 && time.epochSeconds == 1768401000",
    "operation.text.matches('^select .* lim[it]+ [0-9]{1,3}$')",
    "operation.text.matches('(?i)^SELECT')",
  ];
  const fields = { tables: ["public.a"], columns: ["secret"], functions: ["now"], unfiltered: true, statements: 2 };
  const moment = { text: "select * from a limit 10", parameters: ["x", undefined], transaction: "block" as const };
  for (const when of holds) assert.equal(summary(decide("deny", when, moment, fields)), "deny by r", when);
  for (const when of holds) assert.equal(summary(decide("deny", `!(${when})`, moment, fields)), "allow by base", when);
  for (const when of holds) assert.equal(summary(decide("allow", when, moment, fields)), "allow by r", when);
});

test("what fails at run time never widens", () => {
  const failing = [
    "identity.claims.missing == 'x'",
    "identity.claims.department > 3",
    "operation.parameters[7] == 'x'",
    "identity.claims.department",
    "target.labels.nope == 'x'",
    "target.labels.constructor == 'x'",
    "1 / (operation.statements - operation.statements) == 1",
    "client.address.inNetwork('fd00::/8') || 1 / 0 == 1",
  ];
  for (const when of failing) {
    assert.equal(summary(decide("allow", when)), "deny", when);
    assert.equal(summary(decide("deny", when)), "deny by r", when);
    assert.equal(summary(decide("approve", when)), "approve by r", when);
  }
});

test("a search in a text that is too long fails", () => {
  const text = "x".repeat(70_000);
  assert.equal(summary(decide("allow", "operation.text.matches('x')", { text })), "deny");
  assert.equal(summary(decide("deny", "operation.text.matches('y')", { text })), "deny by r");
});

test("a pattern that would backtrack takes linear time", () => {
  const start = performance.now();
  assert.equal(summary(decide("deny", "operation.text.matches('(a+)+$')", { text: `${"a".repeat(60_000)}b` })), "allow by base");
  assert(performance.now() - start < 2_000);
});

test("expressions that are refused at load", () => {
  const refused: [when: string, says: RegExp][] = [
    ["operation.unfilterd", /unknown field: unfilterd \(character 11/],
    ["user == 'x'", /Unknown variable: user \(character 1 /],
    ["target.password == 'x'", /unknown field: password/],
    ["target.user == 'x'", /unknown field: user/],
    ["operation.statements == 'x'", /no such overload/],
    ["operation.text", /its type is string/],
    ["operation.unfiltered &&", /Unexpected token/],
    ["nosuch(operation.text)", /nosuch/],
    ["operation.text.matches('(')", /pattern is not valid/],
    ["operation.text.matches('(?=a)b')", /not supported/],
    ["operation.text.matches(identity.user)", /literal/],
    ["client.address.inNetwork('10.0.0.0/33')", /a network such as/],
    ["client.address.inNetwork(identity.user)", /literal/],
    ["__proto__ == 1", /Reserved identifier/],
  ];
  for (const [when, says] of refused) {
    const result = compileWhen(when);
    assert("error" in result && says.test(result.error), `${when}: ${JSON.stringify(result)}`);
  }
});

test("a verdict is stable unless a rule that otherwise matches read what changes", () => {
  const stable = ["operation.unfiltered", "identity.claims.level > 3", "operation.tables.size() > 3", "'x' in operation.functions"];
  const unstable = [
    "operation.text.contains('x')",
    "operation.parameters.size() > 1",
    "operation.transaction == 'failed'",
    "time.hour > 20",
    "client.address == '1.1.1.1'",
  ];
  for (const when of stable) assert.equal(decide("deny", when).stable, true, when);
  for (const when of unstable) assert.equal(decide("deny", when).stable, false, when);
  const otherAction = policyOf(
    `rules:\n  - { name: r, effect: allow }\n  - { name: d, actions: [sql:drop], when: time.hour > 20, effect: deny }`,
  );
  assert.equal(sessionOf(otherAction).decide(select, MOMENT).stable, true);
  const covered = policyOf(`rules:\n  - { name: r, effect: allow }\n  - { name: s, when: time.hour > 20, effect: allow }`);
  assert.equal(sessionOf(covered).decide(select, MOMENT).stable, true);
  const uncovered = policyOf("rules:\n  - { name: s, when: time.hour > 20, actions: [read], effect: allow }");
  assert.equal(sessionOf(uncovered).decide(select, MOMENT).stable, false);
});

test("sessions do not see each other's identity", () => {
  const policy = policyOf(`rules:\n  - { name: r, when: identity.user == 'corp:alice', effect: allow }`);
  const alice = sessionOf(policy);
  const bob = sessionOf(policy, identity("corp:bob"));
  assert.equal(summary(bob.decide(select, MOMENT)), "deny");
  assert.equal(summary(alice.decide(select, MOMENT)), "allow by r");
  assert.equal(summary(bob.decide(select, MOMENT)), "deny");
});

test("the port of a client's address is left out", () => {
  for (const [given, wanted] of [
    ["10.0.0.1:555", "10.0.0.1"],
    ["[::1]:555", "::1"],
    ["::1", "::1"],
    ["10.0.0.1", "10.0.0.1"],
    ["", ""],
  ] as const) {
    assert.equal(withoutPort(given), wanted);
  }
});
