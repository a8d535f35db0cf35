import type { Moment } from "../../core/policy/types.ts";
import { readParameters } from "./bind.ts";
import { utf8 } from "./notices.ts";
import type { Relay } from "./relay.ts";
import type { Portal, PreparedStatement } from "./statements.ts";

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

/** The message in hand, of which conditions may ask. One for a session: a closure for each message would be the largest thing that it allocates. */
export class Subject {
  readonly #relay: Relay;
  #statement: PreparedStatement | undefined;
  #bytes: Uint8Array | undefined;
  #start = 0;
  #end = 0;
  #portal: Portal | undefined;

  constructor(relay: Relay) {
    this.#relay = relay;
  }

  /** @param statement whose text it is, or bytes[start, end) is the text, or there is none */
  set(
    statement: PreparedStatement | undefined,
    bytes: Uint8Array | undefined,
    start: number,
    end: number,
    portal: Portal | undefined,
  ): void {
    this.#statement = statement;
    this.#bytes = bytes;
    this.#start = start;
    this.#end = end;
    this.#portal = portal;
  }

  /** Valid until the message has been decided. */
  readonly moment = (): Moment => {
    const text = this.#statement?.text ?? (this.#bytes === undefined ? "" : utf8(this.#bytes, this.#start, this.#end));
    return momentOf(this.#relay, text, this.#portal);
  };
}
