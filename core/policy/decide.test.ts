import assert from "node:assert/strict";
import { test } from "node:test";
import { identity, MOMENT, ORDERS, operation, policyOf, sessionOf, summary, TARGETS } from "./testkit.ts";

/** Rules in flow form on one line each, one operation, the verdict. `base` lets somebody in who is otherwise allowed nothing. */
const base = "- { name: base, actions: [connect], effect: allow }";
const select = ["sql:select", "public.a"];
const table: [what: string, rules: string[], accesses: string[][], expected: string][] = [
  ["nothing matches", [base], [select], "deny"],
  ["an allow without keys covers everything", ["- { name: r, effect: allow }"], [["sql:do"], ["sql:drop", "public.a"]], "allow by r"],
  ["an allow by class", ["- { name: r, actions: [read], effect: allow }"], [select], "allow by r"],
  ["class read is not write", ["- { name: r, actions: [read], effect: allow }"], [["sql:update", "public.a"]], "deny"],
  ["an unknown verb is admin", ["- { name: r, actions: [read, write, schema, session], effect: allow }"], [["sql:brandnew"]], "deny"],
  ["a bare verb", ["- { name: r, actions: select, effect: allow }"], [select], "allow by r"],
  [
    "read implies session",
    ["- { name: r, actions: [read], resources: ['public.*'], effect: allow }"],
    [["sql:set", "setting:work_mem"]],
    "allow by r",
  ],
  ["one verb of write implies session", ["- { name: r, actions: [sql:insert], effect: allow }"], [["sql:transaction"]], "allow by r"],
  ["session does not imply read", ["- { name: r, actions: [session], effect: allow }"], [select], "deny"],
  ["admin does not imply session", ["- { name: r, actions: [admin], effect: allow }"], [["sql:transaction"]], "deny"],
  [
    "a deny of read does not touch session",
    ["- { name: d, actions: [read], effect: deny }", "- { name: r, effect: allow }"],
    [["sql:set"]],
    "allow by r",
  ],
  [
    "every resource must be covered",
    ["- { name: r, resources: ['public.*'], effect: allow }"],
    [["sql:select", "public.a", "hr.b"]],
    "deny",
  ],
  [
    "several allows may cover together",
    ["- { name: r, resources: ['public.*'], effect: allow }", "- { name: s, resources: ['hr.*'], effect: allow }"],
    [["sql:select", "public.a", "hr.b"]],
    "allow by r",
  ],
  [
    "an allow of another action does not help to cover",
    [
      "- { name: r, actions: [read], resources: ['public.*'], effect: allow }",
      "- { name: s, actions: [write], resources: ['hr.*'], effect: allow }",
    ],
    [["sql:select", "public.a", "hr.b"]],
    "deny",
  ],
  [
    "no resource is covered by the action",
    ["- { name: r, actions: [read], resources: ['public.*'], effect: allow }"],
    [["sql:select"]],
    "allow by r",
  ],
  ["no resource, other action", ["- { name: r, actions: [write], resources: ['public.*'], effect: allow }"], [["sql:select"]], "deny"],
  [
    "deny matches on any resource",
    ["- { name: d, resources: ['hr.*'], effect: deny }", "- { name: r, effect: allow }"],
    [["sql:select", "public.a", "hr.b"]],
    "deny by d",
  ],
  [
    "deny with resources spares what has none",
    ["- { name: d, resources: ['hr.*'], effect: deny }", "- { name: r, effect: allow }"],
    [["sql:select"]],
    "allow by r",
  ],
  [
    "deny without resources matches what has none",
    ["- { name: d, actions: [sql:select], effect: deny }", "- { name: r, effect: allow }"],
    [["sql:select"]],
    "deny by d",
  ],
  ["order does not matter", ["- { name: r, effect: allow }", "- { name: d, actions: [read], effect: deny }"], [select], "deny by d"],
  ["approve beats allow", ["- { name: r, effect: allow }", "- { name: a, actions: [read], effect: approve }"], [select], "approve by a"],
  [
    "deny beats approve",
    ["- { name: r, effect: allow }", "- { name: a, actions: [read], effect: approve }", "- { name: d, actions: [read], effect: deny }"],
    [select],
    "deny by d",
  ],
  ["approve only narrows", [base, "- { name: a, actions: [read], effect: approve }"], [select], "deny"],
  [
    "approve that grants",
    [base, "- { name: a, actions: [read], effect: approve, grants: true, who: { groups: analytics } }"],
    [select],
    "approve by a",
  ],
  [
    "approve that grants, for others",
    [base, "- { name: a, actions: [read], effect: approve, grants: true, who: { groups: dba } }"],
    [select],
    "deny",
  ],
  ["the strictest access decides", ["- { name: r, actions: [read], effect: allow }"], [select, ["sql:insert", "public.b"]], "deny"],
  [
    "a deny on the last access",
    ["- { name: r, effect: allow }", "- { name: d, actions: [sql:drop], effect: deny }"],
    [select, ["sql:drop", "public.b"]],
    "deny by d",
  ],
  [
    "a deny behind an uncovered access names its rule",
    [base, "- { name: d, actions: [sql:drop], effect: deny }"],
    [select, ["sql:drop", "public.b"]],
    "deny by d",
  ],
  ["an operation without accesses", ["- { name: r, effect: allow }"], [], "deny"],
  ["resources are case-sensitive", ["- { name: r, resources: [public.a], effect: allow }"], [["sql:select", "public.A"]], "deny"],
  [
    "a glob of the table part",
    ["- { name: r, resources: ['*.customers'], effect: allow }"],
    [["sql:select", "hr.customers"]],
    "allow by r",
  ],
  [
    "a glob without kind does not reach other kinds",
    ["- { name: r, resources: ['*b'], effect: allow }"],
    [["sql:alter", "role:bob"]],
    "deny",
  ],
  ["a kind", ["- { name: r, resources: ['role:*'], effect: allow }"], [["sql:alter", "role:bob"]], "allow by r"],
  ["a lone star is everything", ["- { name: r, resources: ['*'], effect: allow }"], [["sql:alter", "role:bob"]], "allow by r"],
  ["a prefix is not a schema", ["- { name: r, resources: ['public.*'], effect: allow }"], [["sql:select", "public2.a"]], "deny"],
  ["who by user", ["- { name: r, who: { users: [alice] }, effect: allow }"], [select], "allow by r"],
  ["who: keys are joined by AND", [base, "- { name: r, who: { users: [alice], groups: [dba] }, effect: allow }"], [select], "deny"],
  ["who: values are joined by OR", ["- { name: r, who: { groups: [dba, analytics] }, effect: allow }"], [select], "allow by r"],
  [
    "a group of another issuer is another group",
    [base, "- { name: r, who: { groups: ['partner:analytics'] }, effect: allow }"],
    [select],
    "deny",
  ],
  ["who by issuer", [base, "- { name: r, who: { issuers: [partner] }, effect: allow }"], [select], "deny"],
  ["a claim", ["- { name: r, who: { claims: { department: sales } }, effect: allow }"], [select], "allow by r"],
  ["a claim's list contains", ["- { name: r, who: { claims: { roles: [auditor, x] } }, effect: allow }"], [select], "allow by r"],
  ["a claim's type counts", [base, "- { name: r, who: { claims: { level: '3' } }, effect: allow }"], [select], "deny"],
  ["a claim that is missing", [base, "- { name: r, who: { claims: { constructor: x } }, effect: allow }"], [select], "deny"],
  ["on by target", [base, "- { name: r, on: { targets: [billing] }, effect: allow }"], [select], "deny"],
  ["on by label", ["- { name: r, on: { labels: { env: [test, prod] } }, effect: allow }"], [select], "allow by r"],
  ["on by another label", [base, "- { name: r, on: { labels: { zone: eu } }, effect: allow }"], [select], "deny"],
  ["on by protocol", ["- { name: r, on: { protocols: [postgres] }, effect: allow }"], [select], "allow by r"],
  ["introspection needs no allow of read", [base], [["sql:select", "pg_catalog.pg_class", "information_schema.columns"]], "allow by base"],
  ["introspection and a table", [base], [["sql:select", "pg_catalog.pg_class", "public.a"]], "deny"],
  [
    "introspection and an allowed table",
    ["- { name: r, actions: [read], resources: ['public.*'], effect: allow }"],
    [["sql:select", "pg_catalog.pg_class", "public.a"]],
    "allow by r",
  ],
  ["secrets are not introspection", [base], [["sql:select", "pg_catalog.pg_authid"]], "deny"],
  [
    "statistics are not introspection",
    ["- { name: r, resources: ['public.*'], effect: allow }"],
    [["sql:select", "pg_catalog.pg_stats"]],
    "deny",
  ],
  ["introspection is for select alone", [base], [["sql:update", "pg_catalog.pg_class"]], "deny"],
  [
    "a deny that names a catalogue",
    ["- { name: r, effect: allow }", "- { name: d, resources: [pg_catalog.pg_proc], effect: deny }"],
    [["sql:select", "pg_catalog.pg_proc"]],
    "deny by d",
  ],
  [
    "observe on a deny",
    ["- { name: r, effect: allow }", "- { name: d, mode: observe, actions: [read], effect: deny }"],
    [select],
    "allow by r, observed deny by d",
  ],
  [
    "observe on an approve",
    ["- { name: r, effect: allow }", "- { name: a, mode: observe, actions: [read], effect: approve }"],
    [select],
    "allow by r, observed approve by a",
  ],
  [
    "an observed deny hides an observed approve",
    [
      "- { name: r, effect: allow }",
      "- { name: a, mode: observe, effect: approve, actions: [read] }",
      "- { name: d, mode: observe, actions: [read], effect: deny }",
    ],
    [select],
    "allow by r, observed deny by d",
  ],
  [
    "an observed rule does not lift another",
    [
      "- { name: r, effect: allow }",
      "- { name: o, mode: observe, actions: [read], effect: deny }",
      "- { name: d, actions: [read], effect: deny }",
    ],
    [select],
    "deny by d",
  ],
  ["an observed rule does not allow", [base, "- { name: d, mode: observe, actions: [read], effect: deny }"], [select], "deny"],
  [
    "an observed approve that grants does not grant",
    [base, "- { name: a, mode: observe, actions: [read], effect: approve, grants: true, who: { users: alice } }"],
    [select],
    "deny",
  ],
];

for (const [what, rules, accesses, expected] of table) {
  test(what, () => {
    const session = sessionOf(policyOf(`rules:\n${rules.map((rule) => `  ${rule}`).join("\n")}`));
    assert.equal(summary(session.decide(operation(...accesses), MOMENT)), expected);
  });
}

test("observe for the whole policy lets everything pass and says what would have happened", () => {
  const policy = policyOf(
    "mode: observe\nrules:\n  - { name: r, actions: [read], effect: allow }\n  - { name: d, actions: [sql:drop], effect: deny }",
  );
  const session = sessionOf(policy);
  assert.equal(summary(session.decide(operation(select), MOMENT)), "allow by r");
  assert.equal(summary(session.decide(operation(["sql:insert", "public.a"]), MOMENT)), "allow, observed deny");
  assert.equal(summary(session.decide(operation(["sql:drop", "public.a"]), MOMENT)), "allow, observed deny by d");
  const enforced = policyOf("mode: observe\nrules:\n  - { name: d, mode: enforce, actions: [sql:drop], effect: deny }");
  assert.equal(summary(sessionOf(enforced).decide(operation(["sql:drop", "public.a"]), MOMENT)), "deny by d");
});

test("one file that enforces keeps what no rule allows refused", () => {
  const policy = policyOf(`rules:\n  ${base}`, "mode: observe\nrules:\n  - { name: d, actions: [sql:drop], effect: deny }");
  assert.equal(summary(sessionOf(policy).decide(operation(select), MOMENT)), "deny");
});

test("connect: an allow implies it for its who and on; nothing else does", () => {
  const policy = policyOf(`rules:
  - { name: r, who: { groups: [analytics] }, on: { targets: [orders] }, actions: [sql:insert], when: operation.unfiltered, effect: allow }
  - { name: d, who: { users: [mallory] }, effect: deny }`);
  const ask = (user: string, groups: string[], where = ORDERS) => policy.connect(identity(user, groups), where, "", MOMENT.nowMillis);
  const granted = ask("corp:bob", ["corp:analytics"]);
  assert(!("kind" in granted) && granted.rule === "r" && granted.policyVersion === policy.version && granted.observed === undefined);
  for (const [refused, rule] of [
    [ask("corp:bob", []), undefined],
    [ask("corp:bob", ["partner:analytics"]), undefined],
    [ask("corp:bob", ["corp:analytics"], TARGETS[1]), undefined],
    [ask("corp:mallory", ["corp:analytics"]), "d"],
  ] as const) {
    assert("kind" in refused && refused.code === "SLUICE_DENIED" && refused.rule === rule, JSON.stringify(refused));
  }
});

test("connect: a deny of some resources or some other action does not close the door", () => {
  const policy = policyOf(`rules:
  - { name: r, effect: allow }
  - { name: d, resources: [hr.salaries], effect: deny }
  - { name: e, actions: [sql:drop], effect: deny }
  - { name: f, actions: [session], effect: deny }`);
  assert(!("kind" in policy.connect(identity("corp:bob"), ORDERS, "", 0)));
});

test("connect: named with a when, it is bound by it; approve and observe work on it", () => {
  const named = policyOf(`rules:\n  - { name: r, actions: [connect], when: "client.address.inNetwork('10.0.0.0/8')", effect: allow }`);
  assert(!("kind" in named.connect(identity("corp:bob"), ORDERS, "10.9.9.9:1234", 0)));
  for (const address of ["192.168.0.1:1", "", "nonsense"]) {
    const refused = named.connect(identity("corp:bob"), ORDERS, address, 0);
    assert("kind" in refused && !refused.stable, address);
  }
  const approve = policyOf("rules:\n  - { name: r, effect: allow }\n  - { name: a, actions: [connect], effect: approve }");
  const held = approve.connect(identity("corp:bob"), ORDERS, "", 0);
  assert("kind" in held && held.code === "SLUICE_APPROVAL_UNAVAILABLE" && held.rule === "a");
  const observing = policyOf("mode: observe").connect(identity("corp:bob"), ORDERS, "", 0);
  assert(!("kind" in observing));
  assert.deepEqual(observing.observed, { effect: "deny", rule: undefined });
});

test("messages name action, resources and rule, and stay on one line", () => {
  const session = sessionOf(
    policyOf(`rules:
  - { name: r, effect: allow, actions: [read] }
  - { name: d, actions: [sql:drop], effect: deny, message: Schema changes go through migrations. }
  - { name: a, actions: [read], resources: [hr.b], effect: approve, approve: { from: { groups: [dba] }, holdFor: 60s } }`),
  );
  const refused = (...accesses: string[][]) => {
    const verdict = session.decide(operation(...accesses), MOMENT);
    assert(verdict.kind === "refused");
    return verdict;
  };
  assert.equal(refused(["sql:drop", "public.a"]).message, "Schema changes go through migrations.");
  assert.match(refused(["sql:drop", "public.a"]).hint ?? "", /rule d /);
  assert.equal(refused(["sql:insert", "public.a", "hr.b"]).message, "sql:insert on public.a, hr.b is not allowed");
  assert.match(refused(["sql:insert", "public.a"]).hint ?? "", /No rule .* target orders/);
  assert.match(refused(["sql:select", "hr.b"]).message, /^sql:select on hr.b needs an approval$/);
  assert.match(refused(["sql:select", "hr.b"]).hint ?? "", /rule a demands an approval, and approvals are not available in this version/);
  const hostile = refused(["sql:insert", `public.x\r\n\u202e${"y".repeat(500)}`, "a.b", "a.c", "a.d", "a.e", "a.f", "a.g"]).message;
  assert.match(hostile, /^[ -~…]+$/);
  assert(hostile.length < 300 && hostile.includes("and 2 more"), hostile);
});

test("record: the covering rule's override; together, the one that keeps most", () => {
  const session = sessionOf(
    policyOf(`rules:
  - { name: r, actions: [read], effect: allow, record: { results: digest } }
  - { name: w, actions: [write], effect: allow, record: { results: head, headBytes: 2KiB } }
  - { name: s, actions: [schema], effect: allow }`),
  );
  const record = (...accesses: string[][]) => {
    const verdict = session.decide(operation(...accesses), MOMENT);
    return verdict.kind === "allowed" ? verdict.record : "refused";
  };
  assert.deepEqual(record(select), { results: "digest", headBytes: 1_000_000 });
  assert.deepEqual(record(select, ["sql:insert", "public.b"]), { results: "head", headBytes: 2048 });
  assert.equal(record(["sql:create", "public.c"]), undefined);
});

test("masks: on, who and except choose them", () => {
  const policy = policyOf(`rules: [{ name: r, effect: allow }]
masks:
  - { name: m1, on: { targets: [orders] }, except: { groups: [dba] }, columns: [public.customers.email, "*.*.ssn"], detect: [iban], with: null }
  - { name: m2, on: { labels: { env: test } }, detect: [email] }
  - { name: m3, who: { groups: [contractors] }, columns: public.a.b, with: hash, predicates: equality }`);
  assert.deepEqual(sessionOf(policy).masks, [
    { name: "m1", columns: ["public.customers.email", "*.*.ssn"], detect: ["iban"], with: "null", predicates: "deny" },
  ]);
  assert.deepEqual(
    sessionOf(policy, identity("corp:x", ["corp:dba", "corp:contractors"])).masks.map((mask) => mask.name),
    ["m3"],
  );
  assert.deepEqual(
    sessionOf(policy, identity("corp:x", ["partner:dba"])).masks.map((mask) => mask.name),
    ["m1"],
  );
  assert.deepEqual(sessionOf(policy, identity("corp:x"), TARGETS[1]).masks, [
    { name: "m2", columns: [], detect: ["email"], with: "redact", predicates: "deny" },
  ]);
});

test("a simple decision among twenty rules stays fast", () => {
  const rules = Array.from(
    { length: 18 },
    (_, index) => `  - { name: r${index}, actions: [read], resources: ["schema${index}.*"], effect: allow }`,
  );
  const session = sessionOf(
    policyOf(
      `rules:\n${rules.join("\n")}\n  - { name: d, resources: [hr.salaries], effect: deny }\n  - { name: e, actions: [sql:drop], effect: deny }`,
    ),
  );
  const one = operation(["sql:select", "schema17.orders"]);
  const count = 100_000;
  let best = Number.POSITIVE_INFINITY;
  for (let round = 0; round < 4; round++) {
    // Processor time: other work on the machine does not count.
    const start = process.cpuUsage();
    for (let index = 0; index < count; index++) session.decide(one, MOMENT);
    const { user, system } = process.cpuUsage(start);
    best = Math.min(best, (user + system) / count);
  }
  // The aim is 0.5 µs; ten times that is a mistake, not a busy machine.
  assert(best < 5, `${best} µs`);
});
