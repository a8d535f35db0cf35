import assert from "node:assert/strict";
import { test } from "node:test";
import { explain } from "./explain.ts";
import { ALICE, identity, MOMENT, ORDERS, operation, policyOf } from "./testkit.ts";

const policy = policyOf(`rules:
  - { name: other-user, who: { users: [bob] }, effect: allow }
  - { name: other-target, on: { targets: [billing] }, effect: allow }
  - { name: other-action, actions: [write], effect: allow }
  - { name: other-resource, actions: [read], resources: ["hr.*"], effect: allow }
  - { name: other-when, actions: [read], when: operation.unfiltered, effect: allow }
  - { name: failing-allow, actions: [read], when: identity.claims.nope == 1, effect: allow }
  - { name: failing-deny, actions: [read], resources: [hr.c], when: identity.claims.nope == 1, effect: deny }
  - { name: fits, actions: [read], resources: [public.a], effect: allow }
masks: [{ name: m, detect: [email] }]`);

test("every rule says which key failed first", () => {
  const found = explain(policy, ALICE, ORDERS, operation(["sql:select", "public.a"]), MOMENT);
  assert.deepEqual(
    found.rules.map(({ rule, failed, at }) => `${rule}: ${failed ?? "matched"} ${at}`),
    [
      "other-user: who policy.yaml:3",
      "other-target: on policy.yaml:4",
      "other-action: actions policy.yaml:5",
      "other-resource: resources policy.yaml:6",
      "other-when: when policy.yaml:7",
      "failing-allow: when policy.yaml:8",
      "failing-deny: resources policy.yaml:9",
      "fits: matched policy.yaml:10",
    ],
  );
  assert.equal(found.effect, "allow");
  assert.equal(found.rule, "fits");
  assert.deepEqual(found.masks, ["m"]);
  assert.match(found.rules[5]?.detail ?? "", /the expression failed, so the allow does not match/);
});

test("a deny whose expression fails is shown as matched", () => {
  const found = explain(policy, ALICE, ORDERS, operation(["sql:select", "hr.c"]), MOMENT);
  assert.equal(found.effect, "deny");
  assert.equal(found.rule, "failing-deny");
  assert.match(found.rules[6]?.detail ?? "", /hr.c \(the expression failed, so the rule matches\)/);
});

test("who may not connect gets that as the reason", () => {
  const closed = policyOf("rules:\n  - { name: r, who: { users: [bob] }, effect: allow }");
  const found = explain(closed, ALICE, ORDERS, operation(["sql:select", "public.a"]), MOMENT);
  assert.deepEqual(found.connect, { allowed: false, rule: undefined, message: "connect to orders is not allowed" });
  assert.equal(found.effect, "deny");
  assert.equal(explain(closed, identity("corp:bob"), ORDERS, operation(["connect"]), MOMENT).effect, "allow");
});

test("introspection is named", () => {
  const found = explain(policy, ALICE, ORDERS, operation(["sql:select", "pg_catalog.pg_class", "pg_catalog.pg_authid"]), MOMENT);
  assert.deepEqual(found.introspection, ["pg_catalog.pg_class"]);
  assert.equal(found.effect, "deny");
});
