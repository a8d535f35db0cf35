import assert from "node:assert/strict";
import { test } from "node:test";
import { steps } from "./steps.ts";

// The same steps as `npm run check`, so that one run of the tests tells everything.
for (const step of steps) {
  test(`check: ${step.name}`, async () => {
    assert.equal(await step.problems(), "");
  });
}
