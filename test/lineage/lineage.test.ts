import assert from "node:assert/strict";
import { it } from "node:test";
import { APPLICATIONS } from "./applications.ts";
import { hunt, shown, summary } from "./hunt.ts";
import { randomSchema } from "./schemas.ts";

// Always the same seed here, so that a red run says something about the change; others and both servers: npm run soak -- --part lineage.
// SLUICE_LINEAGE_SEED repeats a run, SLUICE_LINEAGE_SECONDS makes it longer.
const seed = Number(process.env.SLUICE_LINEAGE_SEED ?? 4_711);
const seconds = Number(process.env.SLUICE_LINEAGE_SECONDS ?? 14);

it("masked columns of random schemas under random statements", { timeout: (seconds + 120) * 1_000 }, async (context) => {
  const result = await hunt({ seed, seconds, versions: [15], schemas: [randomSchema(seed), ...APPLICATIONS] });
  context.diagnostic(`seed ${seed}: ${summary(result)}`);
  assert.equal(result.findings.length, 0, `seed ${seed}:\n${shown(result)}`);
  assert.ok(result.touching > 50 && result.masked > 5, summary(result));
  assert.ok(result.clean - result.cleanFailed - result.later > 50, summary(result));
});
