import assert from "node:assert/strict";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";
import { SluiceError } from "../errors.ts";
import { parsePolicies } from "./parse.ts";
import { runPolicyTests } from "./testfile.ts";
import { operation, TARGETS } from "./testkit.ts";

const POLICY = `version: 1
rules:
  - { name: read, who: { groups: [analytics] }, on: { labels: { env: prod } }, actions: [read], resources: ["public.*"], effect: allow }
  - { name: night, actions: [read], when: time.hour < 6, effect: deny }
  - { name: big, actions: [sql:update], when: operation.unfiltered, effect: approve }
  - { name: write, actions: [write], who: { claims: { team: core } }, effect: allow }
`;
const policy = parsePolicies([{ file: "policy.yaml", text: POLICY }]);
const environment = { policy, targets: TARGETS, issuers: [{ name: "corp" }] };
const run = (tests: string, more = {}) =>
  runPolicyTests({ file: "tests.yaml", text: `version: 1\ntests:\n${tests}` }, { ...environment, ...more });

test("passes and failures", async () => {
  const results = await run(`
  - { name: reads, identity: { user: alice, groups: [analytics] }, target: orders, action: select, resources: public.a, at: 2026-01-14T12:00:00Z, expect: allow, rule: read }
  - { name: at night, identity: { user: alice, groups: [analytics] }, target: orders, action: select, resources: public.a, at: 2026-01-14T03:00:00Z, expect: deny, rule: night }
  - { name: wrong, identity: { user: alice, groups: [analytics] }, target: orders, action: select, resources: hr.a, at: 2026-01-14T12:00:00Z, expect: allow }
  - { name: wrong rule, identity: { user: alice, groups: [analytics] }, target: orders, action: select, resources: hr.a, at: 2026-01-14T12:00:00Z, expect: deny, rule: night }
  - { name: nobody, identity: { user: bob }, target: orders, action: connect, expect: deny, rule: null }
  - { name: approval, identity: { user: bob, claims: { team: core } }, target: { name: fresh }, action: sql:update, resources: [public.a], unfiltered: true, expect: approve, rule: big }
  - { name: several, identity: { user: bob, claims: { team: core } }, target: orders, accesses: [{ action: sql:insert, resources: public.a }, { action: sql:select, resources: hr.x }], expect: deny }`);
  assert.deepEqual(
    results.map(({ name, passed }) => `${name}: ${passed}`),
    ["reads: true", "at night: true", "wrong: false", "wrong rule: false", "nobody: true", "approval: true", "several: true"],
  );
  assert.equal(results[2]?.at, "tests.yaml:6");
  assert.equal(results[2]?.got, "deny by no rule");
  assert.equal(results[3]?.expected, "deny by night");
});

test("statements go through the classifier; what it refuses is denied", async () => {
  const classify = async (sql: string) => {
    if (sql.startsWith("bad")) throw new SluiceError("SLUICE_DENIED", "cannot be parsed");
    return operation(["sql:select", "public.a"]);
  };
  const one = (sql: string, expect: string) =>
    `  - { name: s, identity: { user: a, groups: [analytics] }, target: orders, at: "2026-01-14T12:00:00Z", statement: ${sql}, expect: ${expect} }\n`;
  const results = await run(one("select 1", "allow") + one("bad", "deny") + one("bad", "allow"), { classify });
  assert.deepEqual(
    results.map(({ passed }) => passed),
    [true, true, false],
  );
  assert.match(results[2]?.got ?? "", /cannot be parsed/);
});

test("a file may bring its own policy, issuers and targets", async () => {
  const folder = mkdtempSync(join(tmpdir(), "sluice-policy-"));
  try {
    writeFileSync(join(folder, "p.yaml"), POLICY);
    const text = `version: 1
policy: p.yaml
issuers: [acme]
targets: [{ name: t, labels: { env: prod } }]
tests:
  - { name: x, identity: { user: acme:alice, groups: [analytics] }, target: t, action: sql:select, resources: [public.a], at: "2026-01-14T12:00:00Z", expect: allow }
`;
    const results = await runPolicyTests({ file: join(folder, "tests.yaml"), text });
    assert.deepEqual(
      results.map(({ passed }) => passed),
      [true],
    );
  } finally {
    rmSync(folder, { recursive: true });
  }
});

test("mistakes in a test file are errors with a line", async () => {
  const failing = async (body: string): Promise<string> => {
    try {
      await run(body);
    } catch (error) {
      assert(error instanceof SluiceError && error.code === "SLUICE_POLICY_INVALID", String(error));
      return error.message;
    }
    return "";
  };
  const base = "identity: { user: a }, expect: deny";
  assert.match(
    await failing(`  - { name: x, ${base}, target: nope, action: select }`),
    /^tests.yaml:3:\d+: tests\[0\].target: expected the name of a target/,
  );
  assert.match(
    await failing(`  - { name: x, ${base}, target: orders, action: read }`),
    /tests\[0\].action: expected one action such as sql:select/,
  );
  assert.match(
    await failing(`  - { name: x, ${base}, target: orders }`),
    /tests\[0\]: expected one of action, accesses, statement, got none/,
  );
  assert.match(await failing(`  - { name: x, ${base}, target: orders, action: select, statement: x }`), /got several/);
  assert.match(await failing(`  - { name: x, ${base}, target: orders, action: select, at: soon }`), /tests\[0\].at: expected a time/);
  assert.match(await failing(`  - { name: x, ${base}, target: orders, action: select, expcet: deny }`), /unknown key/);
});
