import assert from "node:assert/strict";
import { test } from "node:test";
import { projectFiles, readProjectFile, show } from "./files.ts";
import { houseFindings, houseRules } from "./house.ts";
import { importFindings } from "./imports.ts";

test("the project keeps the rules of the house", () => {
  const findings = projectFiles().flatMap((file) => houseFindings(file, readProjectFile(file)));
  assert.deepEqual(findings.map(show), []);
});

const offences: Readonly<Record<string, readonly [file: string, text: string]>> = {
  any: ["core/a.ts", "const a = b as any;"],
  suppression: ["core/a.ts", "// @ts-ignore\nconst a = 1;"],
  unfinished: ["docs/a.md", "Works. TODO: the rest."],
  "skipped test": ["core/a.test.ts", 'test.skip("later", () => undefined);'],
  console: ["store/a.ts", 'console.log("here");'],
  exit: ["workers/a.ts", "process.exit(1);"],
  random: ["core/a.ts", "const id = Math.random();"],
  "code from strings": ["core/a.ts", "const f = new Function('return 1');"],
  "machine path": ["docs/a.md", "It lies in /home/somebody/sluice."],
  "child process": ["core/a.ts", 'import { spawn } from "node:child_process";'],
  "non-erasable syntax": ["core/a.ts", "export enum Colour { Red }"],
};

for (const rule of houseRules) {
  test(`house rule "${rule.name}" finds its offence and names the replacement`, () => {
    const [file, text] = offences[rule.name] ?? assert.fail("this rule has no offence to find");
    const findings = houseFindings(file, Buffer.from(text));
    assert.equal(findings.length, 1, `nothing found in ${text}`);
    assert.ok(findings[0]?.message.startsWith(`${rule.name}: `) && findings[0].message.includes(rule.instead));
  });
}

test("binary, generated and overlong files are found", () => {
  assert.match(houseFindings("core/a.dat", Buffer.from([1, 0, 2]))[0]?.message ?? "", /binary/);
  assert.match(houseFindings("core/native/build/a.o", Buffer.from("x"))[0]?.message ?? "", /generated/);
  assert.match(houseFindings("core/a.ts", Buffer.from("x;\n".repeat(600)))[0]?.message ?? "", /601 lines/);
});

test("what a rule forbids may be talked about in comments, and done where it belongs", () => {
  assert.deepEqual(houseFindings("core/a.ts", Buffer.from("// console.log( is not for here\n/* Math.random() */\n")), []);
  assert.deepEqual(houseFindings("tools/a.ts", Buffer.from('console.log("done");\nprocess.exit(0);')), []);
  assert.deepEqual(houseFindings("core/a.ts", Buffer.from("/** Refuses any client. */\nconst b = { of: anyClient };")), []);
});

const wrongImports: readonly (readonly [file: string, text: string, complaint: RegExp])[] = [
  ["core/a.ts", 'import { b } from "../store/b.ts";', /core\/ may import nothing outside itself/],
  ["store/a.ts", 'export { b } from "../protocols/b.ts";', /store\/ may import core\//],
  ["protocols/ssh/a.ts", 'import { b } from "../postgres/b.ts";', /protocols do not know each other/],
  ["workers/a.ts", 'import { b } from "../control/cli/api.ts";', /workers\/ may import/],
  ["protocols/a.ts", 'import { B } from "../store/types.ts";', /protocols\/ may import core\//],
  ["control/a.ts", 'import { b } from "../workers/b.ts";', /control\/ may import/],
  ["workers/a.ts", 'import { b } from "../core/policy/mint.ts";', /only core\/policy makes grants/],
  ["workers/a.ts", 'import { b } from "../test/helpers/b.ts";', /workers\/ may import/],
  ["core/a.ts", 'const b = await import("../tools/b.ts");', /core\/ may import/],
  ["workers/a.ts", 'new Worker(new URL("../test/b.ts", import.meta.url));', /workers\/ may import/],
  ["workers/a.ts", 'const b = require("../core/native/build/Release/b.node");', /native addon/],
  ["main.ts", 'import { b } from "./demo/b.ts";', /the entry point may import/],
  ["main.ts", 'import { b } from "../b.ts";', /outside the project/],
  ["extra/a.ts", 'import { b } from "../core/b.ts";', /does not know/],
];

for (const [file, text, complaint] of wrongImports) {
  test(`import directions: ${text} in ${file} is found`, () => {
    const findings = importFindings(file, text);
    assert.ok(
      findings.some((finding) => complaint.test(finding.message)),
      findings.map(show).join("\n") || "nothing found",
    );
  });
}

test("import directions: what is allowed is not complained about", () => {
  const allowed: readonly (readonly [string, string])[] = [
    ["workers/a.ts", 'import { x } from "../core/a.ts";\nimport type { B } from "../control/types.ts";'],
    ["protocols/a.ts", 'import type { B } from "../store/types.ts";'],
    ["core/policy/a.ts", 'import { b } from "./mint.ts";'],
    ["protocols/ssh/a.ts", 'import { b } from "../contract.ts";\nimport { c } from "./c.ts";'],
    ["core/mask/a.test.ts", 'import { b } from "../../test/helpers/b.ts";'],
    ["core/native/a.ts", 'const b = require("./build/Release/b.node");'],
    ["demo/a.ts", 'import { b } from "../test/helpers/b.ts";'],
    ["main.ts", 'import { b } from "./workers/b.ts";'],
  ];
  for (const [file, text] of allowed) assert.deepEqual(importFindings(file, text).map(show), []);
});
