import assert from "node:assert/strict";
import { rmSync } from "node:fs";
import { join } from "node:path";
import { test } from "node:test";
import { nodeBinary, rootFolder, run } from "./helpers/processes.ts";

test("the demo's tour does what each of its steps says", async (context) => {
  const suffix = `-test-${process.pid}`;
  context.after(() => rmSync(join(rootFolder, `.demo${suffix}`), { recursive: true, force: true }));
  const result = await run(nodeBinary, ["demo/demo.ts", "--tour"], {
    cwd: rootFolder,
    env: { SLUICE_DEMO_SUFFIX: suffix },
    timeoutMillis: 240_000,
  });
  assert.equal(result.code, 0, result.stdout + result.stderr);
  assert.equal(result.stdout.match(/^\d\. /gm)?.length, 6, result.stdout);
  assert.ok(!result.stdout.includes("✗"), result.stdout);
});

test("the demo refuses options that it does not know", async () => {
  const result = await run(nodeBinary, ["demo/demo.ts", "--toor"], { cwd: rootFolder });
  assert.equal(result.code, 2);
  assert.match(result.stderr, /unknown option --toor/);
});
