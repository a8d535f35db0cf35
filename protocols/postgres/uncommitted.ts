import type { Decision } from "./decide.ts";
import { changesObjects, changesSchema } from "./effects.ts";
import { maskRefusal } from "./refused.ts";
import type { Relay } from "./relay.ts";
import type { Classified } from "./sql/types.ts";

const OBJECTS = "this transaction has changed functions or types, and a column mask applies to what the statement reads";
const COPY = "this transaction has changed the schema, so which columns COPY sends, to which a mask applies, is not certain";

/** The decision, or a refusal where it rests on a catalogue that this transaction's own changes have outdated. */
export function certain(relay: Relay, decision: Decision, classified: Classified): Decision {
  if (!decision.masksColumns && decision.copies.length === 0) return decision;
  const several = classified.statements > 1;
  const objects = decision.masksColumns && (relay.objectsChanged || (several && changesObjects(classified)));
  const copy = decision.copies.some((plan) => plan?.exact) && (relay.schemaUncommitted || (several && changesSchema(classified)));
  if (!objects && !copy) return decision;
  const verdict = maskRefusal(decision, relay.policy.policyVersion, objects ? OBJECTS : COPY, "Commit the schema change first.");
  // A record of its own: what it says has not been written yet.
  return { ...decision, verdict, record: { ...decision.record, effect: "deny", storeSlot: -1 } };
}
