import assert from "node:assert/strict";
import { createHash } from "node:crypto";
import { test } from "node:test";
import { SluiceError } from "../errors.ts";
import { compilePolicy } from "./compile.ts";
import { parsePolicies } from "./parse.ts";
import { ISSUERS, TARGETS } from "./testkit.ts";

/** The lines of the error that this policy gives. */
function errors(...texts: string[]): string[] {
  try {
    compilePolicy(parsePolicies(texts.map((text, index) => ({ file: `p${index}.yaml`, text }))), TARGETS, ISSUERS);
  } catch (error) {
    assert(error instanceof SluiceError && error.code === "SLUICE_POLICY_INVALID", String(error));
    return error.message.split("\n");
  }
  return [];
}

/** Rules of one file; the first stands on line 3. */
const inRules = (...rules: string[]): string[] => errors(`version: 1\nrules:\n${rules.map((rule) => `  - ${rule}`).join("\n")}\n`);

test("the version is the hash of the files' contents", () => {
  const text = "version: 1\n";
  assert.equal(parsePolicies([{ file: "a", text }]).version, createHash("sha256").update(text).digest("hex").slice(0, 16));
  assert.notEqual(parsePolicies([{ file: "a", text }]).version, parsePolicies([{ file: "a", text: `${text}#\n` }]).version);
});

test("a document is plain data that crosses threads and compiles there", () => {
  const text = `version: 1
rules:
  - name: r
    who: { groups: [a], claims: { x: [1, true] } }
    on: { labels: { env: prod } }
    actions: read
    when: operation.text.matches('x')
    effect: approve
    approve: { count: 2, from: { groups: ["partner:dba"] }, holdFor: 90s, expiresAfter: 1h }
    grants: true
masks: [{ name: m, detect: [email] }]
`;
  const document = parsePolicies([{ file: "p.yaml", text }]);
  const copy = structuredClone(document);
  assert.deepEqual(copy, document);
  compilePolicy(copy, TARGETS, ISSUERS);
  assert.deepEqual(document.rules[0]?.approve, {
    count: 2,
    from: { groups: ["partner:dba"] },
    holdForMillis: 90_000,
    expiresAfterMillis: 3_600_000,
  });
});

const cases: [rule: string, expected: string][] = [
  ["{ name: r, efect: allow }", "p0.yaml:3:5: rules[0].effect: expected one of allow, deny, approve, got nothing (the key is missing)"],
  ["{ name: r, effect: permit }", 'p0.yaml:3:24: rules[0].effect: expected one of allow, deny, approve, got "permit"'],
  ["{ name: r, effect: allow, actions: [reed] }", "p0.yaml:3:41: rules[0].actions[0]: expected a class (read, write"],
  ["{ name: r, effect: allow, actions: [sql:selekt] }", "p0.yaml:3:41: rules[0].actions[0]: expected a class"],
  [
    "{ name: r, effect: deny, actions: [ssh:exec] }",
    'p0.yaml:3:40: rules[0].actions[0]: expected an action of sql, got "ssh:exec": ssh is not available in this version',
  ],
  ["{ name: r, effect: deny, actions: [foo:bar] }", "p0.yaml:3:40: rules[0].actions[0]: expected protocol:verb with the protocol sql"],
  ["{ name: r, effect: deny, actions: [] }", "p0.yaml:3:39: rules[0].actions: expected text or a list of texts that is not empty"],
  [
    "{ name: r, effect: deny, on: { targets: [nowhere] } }",
    'p0.yaml:3:46: rules[0].on.targets[0]: expected the name of a configured target, got "nowhere"',
  ],
  [
    "{ name: r, effect: deny, on: { protocols: [ssh] } }",
    "p0.yaml:3:48: rules[0].on.protocols[0]: expected a protocol of this version (postgres)",
  ],
  [
    "{ name: r, effect: deny, who: { groups: ['nobody:x'] } }",
    "p0.yaml:3:46: rules[0].who.groups[0]: expected a configured issuer before the colon (corp, partner)",
  ],
  ["{ name: r, effect: deny, who: { users: ['*'] } }", "p0.yaml:3:45: rules[0].who.users[0]: expected a name (there are no patterns here)"],
  ["{ name: r, effect: deny, who: { issuers: [x] } }", "p0.yaml:3:47: rules[0].who.issuers[0]: expected one of corp, partner"],
  [
    "{ name: r, effect: deny, who: {} }",
    "p0.yaml:3:35: rules[0].who: expected a map with users, groups, issuers or claims that is not empty",
  ],
  [
    "{ name: r, effect: deny, when: operation.nope }",
    "p0.yaml:3:36: rules[0].when: expected a CEL expression that gives true or false: unknown field: nope (character 11 of the expression)",
  ],
  ["{ name: r, effect: deny, when: true }", "p0.yaml:3:36: rules[0].when: expected a CEL expression, got true"],
  ["{ name: r, effect: allow, mode: observe }", "p0.yaml:3:37: rules[0].mode: expected enforce"],
  ["{ name: r, effect: allow, approve: { count: 1 } }", "p0.yaml:3:40: rules[0].approve: expected effect approve beside it, got allow"],
  [
    "{ name: r, effect: approve, approve: { holdFor: 60 } }",
    "p0.yaml:3:53: rules[0].approve.holdFor: expected a duration such as 500ms, 60s, 15m or 1h, got 60",
  ],
  [
    "{ name: r, effect: approve, approve: { count: 0 } }",
    "p0.yaml:3:51: rules[0].approve.count: expected a whole number from 1 to 100, got 0",
  ],
  [
    "{ name: r, effect: approve, approve: { from: { groups: ['x:y'] } } }",
    "p0.yaml:3:61: rules[0].approve.from.groups[0]: expected a configured issuer",
  ],
  ["{ name: r, effect: approve, grants: true }", "p0.yaml:3:41: rules[0].grants: expected who beside it"],
  ["{ name: r, effect: deny, grants: true, who: { users: a } }", "p0.yaml:3:38: rules[0].grants: expected effect approve beside it"],
  ["{ name: r, effect: deny, record: { results: full } }", "p0.yaml:3:38: rules[0].record: expected no record on a rule that denies"],
  [
    "{ name: r, effect: allow, record: { results: head, headBytes: 5 } }",
    "p0.yaml:3:67: rules[0].record.headBytes: expected a size such as 50MB",
  ],
  ['{ name: r, effect: deny, message: "a\\nb" }', "p0.yaml:3:39: rules[0].message: expected text on one line of up to 512 characters"],
];

for (const [rule, expected] of cases) {
  test(`refused: ${rule}`, () => {
    const found = inRules(rule);
    assert(
      found.some((line) => line.startsWith(expected)),
      `${expected}\n${found.join("\n")}`,
    );
  });
}

test("an unknown key is named with its line, and with what it may have meant", () => {
  assert.deepEqual(inRules("name: r\n    efect: allow"), [
    "p0.yaml:3:5: rules[0].effect: expected one of allow, deny, approve, got nothing (the key is missing)",
    "p0.yaml:4:5: rules[0].efect: unknown key; expected one of name, description, mode, who, on, actions, resources, when, effect, message, approve, grants, record (did you mean effect?)",
  ]);
});

test("all errors of all files are reported", () => {
  const found = errors("version: 1\nrules: [{ name: r, effect: x }]\nmasks: [{ name: m }]", "version: 2\n");
  assert.equal(found.length, 2, found.join("\n"));
  assert.match(found[0] ?? "", /^p0.yaml:2:28: rules\[0\].effect/);
  assert.match(found[1] ?? "", /^p1.yaml:1:10: version: expected 1, got 2/);
  assert.equal(
    errors(
      "version: 1\nrules:\n  - { name: a, effect: deny, on: { targets: [x] } }\n  - { name: b, effect: deny, who: { users: ['y:z'] } }",
    ).length,
    2,
  );
});

test("names are unique over all files", () => {
  assert.deepEqual(errors("version: 1\nrules: [{ name: r, effect: deny }]", "version: 1\nrules: [{ name: r, effect: deny }]"), [
    'p1.yaml:2:17: rules[0].name: expected a name that no other rule has, got "r" again',
  ]);
});

test("masks", () => {
  const inMasks = (mask: string): string => errors(`version: 1\nmasks:\n  - ${mask}\n`).join("\n");
  assert.match(inMasks("{ name: m, columns: [customers.email] }"), /^p0.yaml:3:26: masks\[0\].columns\[0\]: expected schema.table.column/);
  assert.match(inMasks("{ name: m, columns: ['public.cust*.email'] }"), /expected schema.table.column/);
  assert.match(inMasks("{ name: m, columns: ['a..b'] }"), /expected schema.table.column/);
  assert.match(inMasks("{ name: m, detect: [passport] }"), /^p0.yaml:3:25: masks\[0\].detect\[0\]: expected one of payment_card, us_ssn/);
  assert.match(inMasks("{ name: m }"), /^p0.yaml:3:5: masks\[0\]: expected columns or detect, got neither/);
  assert.match(
    inMasks("{ name: m, detect: [email], except: { groups: ['q:x'] } }"),
    /masks\[0\].except.groups\[0\]: expected a configured issuer/,
  );
  assert.equal(inMasks("{ name: m, columns: ['*.customers.email'], with: null }"), "");
});

test("limits", () => {
  const inLimits = (...limits: string[]) => errors(`version: 1\nlimits:\n${limits.map((limit) => `  - ${limit}`).join("\n")}`).join("\n");
  assert.equal(inLimits("{ who: { groups: [agents] }, rows: 100000, bytes: 50MB, per: 1h }", "{ name: few, sessions: 3 }"), "");
  assert.match(
    inLimits("{ rows: 0, per: 1h }"),
    /^p0.yaml:3:\d+: limits\[0\].rows: expected a whole number from 1 to 1000000000000, got 0/,
  );
  assert.match(inLimits("{ rows: 5 }"), /^p0.yaml:3:5: limits\[0\].per: expected a duration, which rows needs, got nothing/);
  assert.match(inLimits("{ sessions: 5, per: 1h }"), /^p0.yaml:3:\d+: limits\[0\].per: expected rows, bytes or statements beside it/);
  assert.match(inLimits("{ who: { groups: [a] } }"), /^p0.yaml:3:5: limits\[0\]: expected rows, bytes, statements or sessions, got none/);
  assert.match(inLimits("{ bytes: 0B, per: 1h }"), /limits\[0\].bytes: expected a whole number of bytes of at least 1, got "0B"/);
  assert.match(inLimits("{ bytes: 50 MX, per: 1h }"), /limits\[0\].bytes: expected a size such as 50MB/);
  assert.match(inLimits("{ rows: 5, per: 500ms }"), /limits\[0\].per: expected 1s to 366d in whole milliseconds, got "500ms"/);
  assert.match(inLimits("{ rows: 5, per: 400d }"), /limits\[0\].per: expected 1s to 366d/);
  assert.match(inLimits("{ operations: 5, per: 1h }"), /limits\[0\].operations: unknown key; expected/);
  assert.match(
    inLimits("{ name: a, sessions: 1 }", "{ name: a, sessions: 2 }"),
    /^p0.yaml:4:13: limits\[1\].name: expected a name that no other limit has/,
  );
  assert.match(inLimits("{ sessions: 1, who: { users: ['nobody:x'] } }"), /limits\[0\].who.users\[0\]: expected a configured issuer/);
  assert.match(
    inLimits("{ sessions: 1, on: { targets: [nowhere] } }"),
    /limits\[0\].on.targets\[0\]: expected the name of a configured target/,
  );
});

test("an allow in a file that observes, beside one that enforces, is refused", () => {
  const found = errors("version: 1\nrules: [{ name: a, effect: allow }]", "version: 1\nmode: observe\nrules: [{ name: b, effect: allow }]");
  assert.match(found.join("\n"), /^p1.yaml:3:28: rules\[0\].effect: expected an allow only in files that enforce/);
});

test("YAML that is not sound", () => {
  assert.match(errors("version: 1\nversion: 1").join("\n"), /^p0.yaml:2:1: not valid YAML: the key stands here twice/);
  assert.match(errors("version: 1\nrules: [").join("\n"), /^p0.yaml:2:\d+: not valid YAML/);
  assert.match(errors("").join("\n"), /^p0.yaml:1:1: expected a (YAML document|map)/);
  assert.match(errors("- a").join("\n"), /^p0.yaml:1:1: expected a map/);
  assert.match(errors("version: 1\n---\nversion: 1").join("\n"), /expected one YAML document, got several/);
  const bomb = `version: 1\na0: &a0 [x,x,x,x,x,x,x,x,x]\n${Array.from({ length: 9 }, (_, i) => `a${i + 1}: &a${i + 1} [${`*a${i},`.repeat(9)}]`).join("\n")}\n`;
  assert.match(errors(bomb).join("\n"), /too many aliases/);
});
