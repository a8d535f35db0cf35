import type { Moment } from "../../core/policy/types.ts";
import { readParameters } from "./bind.ts";
import type { Relay } from "./relay.ts";
import type { Portal } from "./statements.ts";

/** What a policy's conditions may ask of the moment. @param portal whose parameters count */
export function momentOf(relay: Relay, statementText: string, portal: Portal | undefined): Moment {
  return {
    text: statementText,
    parameters: portal === undefined ? [] : readParameters(portal.parameters.subarray(portal.parametersStart, portal.parametersEnd)),
    transaction: relay.transactionStatus === 0x49 ? "idle" : relay.transactionStatus === 0x54 ? "block" : "failed",
    clientAddress: relay.clientAddress,
    nowMillis: Date.now(),
  };
}
