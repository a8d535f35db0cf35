import { toSluiceError } from "../../core/errors.ts";
import type { WireHandler } from "../../core/net/types.ts";
import type { Relay } from "./relay.ts";

/**
 * What a session does with one of its wires. The readers are their wires' handlers themselves: with an object of closures between them a
 * read touched four more objects, which with many sessions are in no cache.
 */
abstract class Side implements WireHandler {
  protected readonly relay: Relay;

  constructor(relay: Relay) {
    this.relay = relay;
  }

  /** bytes[start, end) came. @throws what ends the session */
  abstract push(bytes: Uint8Array, start: number, end: number): void;

  abstract onDrain(): void;

  /** The peer has closed its connection, or ended it. */
  protected abstract gone(): void;

  onData(bytes: Uint8Array, start: number, end: number): void {
    const { relay } = this;
    if (relay.ended) return;
    try {
      this.push(bytes, start, end);
    } catch (error) {
      relay.fail(toSluiceError(error));
    }
  }

  onEnd(): void {
    this.gone();
  }

  onClose(): void {
    this.gone();
  }

  onUnrecorded(error: Error): void {
    this.relay.unrecorded(error);
  }
}

export abstract class ClientSide extends Side {
  onDrain(): void {
    this.relay.relieved();
  }

  protected gone(): void {
    this.relay.clientGone();
  }
}

export abstract class TargetSide extends Side {
  onDrain(): void {
    this.relay.resumeClient();
  }

  protected gone(): void {
    this.relay.targetGone();
  }
}
