import assert from "node:assert/strict";
import { it } from "node:test";
import { fuzzLive } from "./live.ts";

it("mutated conversations leave a live gateway as it was", { timeout: 90_000 }, async (context) => {
  const { conversations, answers } = await fuzzLive(20_260_101, 6);
  context.diagnostic(`${conversations} conversations, ${answers} bytes of answers`);
  assert.ok(conversations > 60, `${conversations} conversations only`);
  assert.ok(answers > 50_000, "the conversations got no further than the door");
});
