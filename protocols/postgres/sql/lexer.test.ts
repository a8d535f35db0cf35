import assert from "node:assert/strict";
import { test } from "node:test";
import fc from "fast-check";
import { loadModule, scanSync } from "libpg-query";
import { stringLiterals } from "./lexer.ts";
import { Shape } from "./shape.ts";

/** The server's own scanner is the oracle: literals begin and end where it says. */

await loadModule();
const shape = new Shape();

/** Literals as PostgreSQL's scanner finds them; undefined: it reports an error. */
function oracle(sql: string): { replaceable: string[]; strings: string[] } | "unknown" | undefined {
  const bytes = Buffer.from(sql);
  const replaceable: string[] = [];
  const strings: string[] = [];
  let tokens: ReturnType<typeof scanSync>["tokens"];
  try {
    tokens = scanSync(sql).tokens ?? [];
  } catch (error) {
    // The package does not escape control characters in what it answers.
    if (error instanceof SyntaxError) return "unknown";
    return undefined;
  }
  for (const token of tokens) {
    const start = token.start ?? 0;
    const first = bytes[start];
    const range = `${start}-${token.end}`;
    // SCONST, USCONST, BCONST, XCONST; ICONST and FCONST are 266 and 260.
    if (token.tokenType >= 261 && token.tokenType <= 264) strings.push(range);
    if (token.tokenType === 260 || token.tokenType === 266) replaceable.push(range);
    if (token.tokenType === 261 && first !== 36) replaceable.push(range);
  }
  return { replaceable, strings };
}

let compared = 0;

function compare(sql: string): void {
  if (sql.trim() === "") return;
  const expected = oracle(sql);
  const bytes = Buffer.from(sql);
  const lexed = shape.compute(bytes, 0, bytes.length, undefined);
  if (!lexed) return;
  compared += 1;
  if (expected === "unknown") return;
  assert.ok(expected !== undefined, `lexed here, an error for the server: ${JSON.stringify(sql)}`);
  const found = Array.from({ length: shape.literals }, (_, i) => `${shape.literalStarts[i]}-${shape.literalEnds[i]}`);
  assert.deepEqual(found, expected.replaceable, JSON.stringify(sql));
  assert.deepEqual(
    stringLiterals(bytes, 0, bytes.length)?.map(([start, end]) => `${start}-${end}`),
    expected.strings,
    JSON.stringify(sql),
  );
}

const mustLex = (sql: string): void => {
  const bytes = Buffer.from(sql);
  assert.ok(shape.compute(bytes, 0, bytes.length, undefined), sql);
  compare(sql);
};

test("literals of every form", () => {
  for (const sql of [
    "select 'a', 'a''b', '', 'back\\slash', 'new\nline'",
    "select E'a\\'b', e'\\\\', E'x''y', E'\\n'",
    "select 'a'\n'b', 'a' \t\r\n 'b', E'a\\''\n'b\\''",
    "select 'a' 'b'",
    "select 'a' /* \n */ 'b'",
    "select B'01', X'ff', b'0'\n'1', N'x', U&'\\0041', U&\"a\", u&'x' uescape '!'",
    "select $$a$$, $tag$ 'x' $$ $tag$, $1, $2::int, a$b$c, $é$x$é$",
    'select "a", "a""b", "a\'b", "/*", "--"',
    "select 1, 1.5, .5, 1., 1e5, 1.5e-3, 0x1F, 0o17, 0b101, 1_000, 1..2, t.1, 123456789, 1234567890",
    "select 1 /* a /* nested ' */ ' */ - 2 -- it's\n + 3",
    "select a--b\n, c/**/, 5 */* x */ 6, -1, - 1, a-1, +-1, 1-- 2",
    "select a>=1, a<>1, a::int, a->>'b', a@>'{}', b #>> '{a}', a ? 'b', x := 1, y => 2",
    "select é, 'é', \"é\", É1, 'ünï'",
  ]) {
    mustLex(sql);
  }
});

test("what the server's scanner refuses has no shape", () => {
  for (const sql of [
    "select 'a",
    'select "a',
    "select $$a",
    "select /* x",
    "select 1a",
    "select 1_",
    "select 0x",
    "select 1e",
    "select $1a",
    'select ""',
    "select E'a\\'",
    "select \u0001",
    "select 'a' -- c\n 'b'",
  ]) {
    const bytes = Buffer.from(sql);
    assert.equal(shape.compute(bytes, 0, bytes.length, undefined), false, sql);
  }
});

test("literals lie where the server's scanner finds them, in any mixture of fragments", () => {
  const fragment = fc.constantFrom(
    "'",
    "''",
    "'a'",
    "'a\\'",
    "E'",
    "e'\\''",
    "E'a\\\\'",
    "\\",
    '"',
    '"a"',
    '""',
    "$",
    "$$",
    "$a$",
    "$1",
    "--",
    "-- x\n",
    "/*",
    "*/",
    "/* ' */",
    "\n",
    "\r",
    " ",
    "\t",
    "\f",
    "1",
    "12345678901",
    ".",
    "..",
    "1.5",
    "e",
    "E5",
    "1e5",
    "0x",
    "0x1f",
    "_",
    "1_0",
    "a",
    "x",
    "b'01'",
    "X'f'",
    "N'a'",
    "U&'a'",
    'u&"a"',
    "&",
    "é",
    "'é'",
    "+",
    "-",
    "*",
    "/",
    "=",
    "<",
    ">",
    "@",
    "!",
    "|",
    ":",
    "::",
    ":=",
    "(",
    ")",
    ",",
    ";",
    "[",
    "]",
    "select",
    "from",
  );
  fc.assert(
    fc.property(fc.array(fragment, { maxLength: 14 }), (parts) => compare(parts.join(""))),
    { numRuns: 20_000 },
  );
  assert.ok(compared > 2_000, `too few texts lexed: ${compared}`);
});
