import assert from "node:assert/strict";
import { after, before, it } from "node:test";
import { KillRounds } from "./kill-rounds.ts";
import { type Rig, startRig } from "./rig.ts";

const ROUNDS = 20;
let rig: Rig;

before(async () => {
  rig = await startRig({ postgres: { logStatements: true } });
});
after(() => rig.stop());

it(`${ROUNDS} times kill -9 under load lose no statement that ran at the server`, { timeout: 180_000 }, async (context) => {
  const rounds = new KillRounds(rig, 20_260_101);
  for (let number = 0; number < ROUNDS; number += 1) await rounds.round(number);
  const { statements, unknown, done, sessions } = rounds.totals;
  context.diagnostic(
    `${statements} statements ran, ${done} done and ${unknown} unknown on record, ${sessions} sessions closed by recovery`,
  );
  // Six clients always have something under way; a round that catches all of them between two statements is possible, twenty are not.
  assert.ok(unknown > 0, "no operation was in flight at any kill");
  assert.ok(sessions >= ROUNDS, "recovery closed no sessions");
});
