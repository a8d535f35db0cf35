import { maskedError, maskedString } from "./notices.ts";
import type { Pending } from "./pending.ts";
import type { Relay } from "./relay.ts";

// Masks on what reaches the client outside of rows, counted like those on rows.

/** An ErrorResponse or NoticeResponse as the client may see it. @returns undefined when nothing changes */
export function maskedNotice(
  relay: Relay,
  head: Pending | undefined,
  bytes: Uint8Array,
  start: number,
  end: number,
): Uint8Array | undefined {
  const { policy, masker } = relay;
  if (policy.masks.length === 0) return undefined;
  const counts = new Map<string, number>();
  const columnRule = policy.masks.find((mask) => mask.columns.length > 0)?.name;
  const masked = maskedError(bytes, start, end, masker, columnRule, head?.decision?.masksColumns === true, counts);
  count(relay, head, counts);
  return masked;
}

/** A message that ends in a string which begins at `from`, that string searched by content. @returns undefined when nothing changes */
export function searchedString(
  relay: Relay,
  head: Pending | undefined,
  bytes: Uint8Array,
  start: number,
  from: number,
  end: number,
): Uint8Array | undefined {
  const { masker } = relay;
  if (masker?.scans !== true) return undefined;
  const counts = new Map<string, number>();
  const searched = maskedString(bytes, start, from, end, masker, counts);
  count(relay, head, counts);
  return searched;
}

/** They belong to the operation that is answered, if there is one. */
function count(relay: Relay, head: Pending | undefined, counts: ReadonlyMap<string, number>): void {
  for (const [rule, masked] of counts) {
    if (head === undefined || head.request === 0 || head.refusal !== undefined) relay.room.counters.maskedBy(rule, masked);
    else {
      head.masked ??= new Map();
      head.masked.set(rule, (head.masked.get(rule) ?? 0) + masked);
    }
  }
}
