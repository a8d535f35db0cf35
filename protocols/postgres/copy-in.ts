import { SluiceError } from "../../core/errors.ts";
import { REPLACE } from "./frame.ts";
import { TYPE } from "./messages.ts";
import type { Relay } from "./relay.ts";

/** CopyData passes without a look at each message: they are what the server has asked for, and no limit counts them. */
export const copyDataPasses = ({ skipping, copyIn, copyAwaited, quotas }: Relay): boolean =>
  copyIn && !skipping && !copyAwaited && quotas === undefined;

/** CopyDone or CopyFail goes to the server. */
export function copyInEnds(relay: Relay): void {
  if (!relay.copyIn) return;
  relay.copyIn = false;
  // Another COPY may follow in the same Query.
  if (relay.queue.head()?.kind === "query") relay.copyAwaited = true;
}

/**
 * Another message than those of COPY in copy-in mode. The server ignores Sync there, which clients send before they know of the mode.
 * It stays here: had the COPY failed at the server by then, the Sync would count, and nobody could tell.
 * @throws SluiceError SLUICE_PROTOCOL_VIOLATION
 */
export function inCopyIn(relay: Relay, type: number): number {
  if (type !== TYPE.sync)
    throw new SluiceError("SLUICE_PROTOCOL_VIOLATION", `message type '${String.fromCharCode(type)}' while COPY data are expected`);
  if (relay.copyStarted) relay.syncsInCopy += 1;
  return REPLACE;
}
