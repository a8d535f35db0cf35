import type { EffectsSinceReady } from "./effects.ts";
import type { Pending } from "./pending.ts";
import type { Relay } from "./relay.ts";

/**
 * The server ignores everything up to Sync, a Query too: nothing of it happened.
 * @param failed the head of the queue, which has failed
 * @param finish records its end
 */
export function skipToSync(
  relay: Relay,
  failed: Pending,
  outcome: "failed" | "cancelled",
  effects: EffectsSinceReady,
  finish: () => void,
): void {
  const { queue } = relay;
  let count = 0;
  while (count < queue.size && queue.at(count).kind !== "sync") count += 1;
  if (count === queue.size) relay.skipping = true;
  for (let index = count - 1; index >= 0; index -= 1) {
    const entry = queue.at(index);
    entry.change?.undo();
    relay.parameterBytes -= entry.parameterBytes;
    effects.completed(relay, entry, true);
    if (entry !== failed && entry.request !== 0) entry.failed = { code: "25P02", message: "skipped after an earlier error" };
    if (entry === failed) finish();
    else if (entry.request !== 0 && entry.refusal === undefined) {
      relay.recorder.outcome(entry.request, outcome, 0, 0, entry.failed, undefined);
    }
  }
  for (let index = 0; index < count; index += 1) queue.shift();
  relay.answered();
}
