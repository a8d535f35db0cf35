import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { createRequire } from "node:module";
import { test } from "node:test";
import { BACKEND_MESSAGES, FRONTEND_MESSAGES, MESSAGES, TYPE } from "../protocols/postgres/messages.ts";
import { STATEMENT_KINDS } from "../protocols/postgres/sql/statements.ts";
import { FORWARDED_PARAMETERS, PINNED_PARAMETERS, STARTUP_PARAMETERS } from "../protocols/postgres/startup-parameters.ts";
import { PAGE, page, seenKinds } from "./mediation.ts";

const require = createRequire(import.meta.url);

/** Type bytes by direction: PostgreSQL documentation, Message Formats, 15 to 18. */
const PROTOCOL = { frontend: "BCDEFHPQSXcdfp", backend: "123ACDEGHIKNRSTVWZcdnstv" } as const;

test("every message of the protocol has a rule, and only those", () => {
  for (const from of ["frontend", "backend"] as const) {
    const letters = MESSAGES.filter((message) => message.from === from).map((message) => message.letter);
    assert.equal(letters.sort().join(""), [...PROTOCOL[from]].sort().join(""));
    const table = from === "frontend" ? FRONTEND_MESSAGES : BACKEND_MESSAGES;
    assert.equal(table.filter((rule) => rule !== undefined).length, letters.length);
  }
  const known = new Set(MESSAGES.map((message) => message.letter.charCodeAt(0)));
  assert.deepEqual(
    Object.entries(TYPE).filter(([, code]) => !known.has(code)),
    [],
  );
});

test("another implementation of the protocol reads no message that has no rule", () => {
  const source = readFileSync(require.resolve("pg-protocol/dist/parser.js"), "utf8");
  // The codes of authentication requests, which stand there as well, have no such comment.
  const codes = [...source.matchAll(/case (\d+) \/\* MessageCodes\.\w+ \*\//g)].map((match) => Number(match[1]));
  assert.ok(codes.length > 15, `${codes.length} codes were found`);
  for (const code of codes) assert.notEqual(BACKEND_MESSAGES[code], undefined, String.fromCharCode(code));
});

/** Kinds of statement that the parser can return: the keys under which it writes them. */
function kindsOfParser(): readonly string[] {
  const wasm = readFileSync(require.resolve("libpg-query/wasm/libpg-query.wasm")).toString("latin1");
  return [...new Set([...wasm.matchAll(/"([A-Z]\w*Stmt)":\{/g)].map((match) => match[1] ?? ""))];
}

test("every statement of the parser's grammar is in the table, and only those", () => {
  const kinds = kindsOfParser();
  assert.ok(kinds.length > 100);
  assert.deepEqual([...STATEMENT_KINDS.keys()].sort(), [...kinds].sort());
});

test("every inspected kind of statement stands in the specification", async () => {
  const seen = await seenKinds();
  const missing = [...STATEMENT_KINDS].filter(([kind, refusal]) => refusal === undefined && (seen.get(kind)?.statements ?? 0) === 0);
  assert.deepEqual(
    missing.map(([kind]) => kind),
    [],
  );
  for (const [kind, { actions, refusals }] of seen) {
    assert.ok(actions.size + refusals.size > 0, `${kind} is let through without an action`);
    if (STATEMENT_KINDS.get(kind) !== undefined) assert.equal(actions.size, 0, `${kind} is not refused`);
  }
});

test("no startup parameter has two rules, and what Sluice sets itself is not forwarded", () => {
  const names = STARTUP_PARAMETERS.map((rule) => rule.name);
  assert.equal(new Set(names).size, names.length);
  assert.equal(names.at(-1), "*");
  for (const name of PINNED_PARAMETERS.keys()) assert.ok(!FORWARDED_PARAMETERS.has(name) && names.includes(name), name);
});

test("docs/MEDIATION.md is what the tables say", async () => {
  assert.equal(readFileSync(PAGE, "utf8"), await page(), "run `node tools/mediation.ts --write`");
});
