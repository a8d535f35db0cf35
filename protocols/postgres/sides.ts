import { toSluiceError } from "../../core/errors.ts";
import type { WireHandler } from "../../core/net/types.ts";
import type { Relay } from "./relay.ts";

// The readers are their wires' handlers themselves. With an object of closures between them a read touched four more objects, which
// with many sessions are in no cache.

/** What a session does with its client's wire. */
export abstract class ClientSide implements WireHandler {
  protected readonly relay: Relay;

  constructor(relay: Relay) {
    this.relay = relay;
  }

  /** bytes[start, end) came. @throws what ends the session */
  abstract push(bytes: Uint8Array, start: number, end: number): void;

  onData(bytes: Uint8Array, start: number, end: number): void {
    const { relay } = this;
    if (relay.ended) return;
    try {
      relay.room.counters.fromClientBytes += end - start;
      this.push(bytes, start, end);
    } catch (error) {
      relay.fail(toSluiceError(error));
    }
  }

  onDrain(): void {
    this.relay.relieved();
  }

  onEnd(): void {
    this.relay.clientGone();
  }

  onClose(): void {
    this.relay.clientGone();
  }

  onUnrecorded(error: Error): void {
    this.relay.unrecorded(error);
  }
}

/** The same with the target's. */
export abstract class TargetSide implements WireHandler {
  protected readonly relay: Relay;

  constructor(relay: Relay) {
    this.relay = relay;
  }

  /** bytes[start, end) came. @throws what ends the session */
  abstract push(bytes: Uint8Array, start: number, end: number): void;

  onData(bytes: Uint8Array, start: number, end: number): void {
    const { relay } = this;
    if (relay.ended) return;
    try {
      this.push(bytes, start, end);
    } catch (error) {
      relay.fail(toSluiceError(error));
    }
  }

  onDrain(): void {
    this.relay.resumeClient();
  }

  onEnd(): void {
    this.relay.targetGone();
  }

  onClose(): void {
    this.relay.targetGone();
  }

  onUnrecorded(error: Error): void {
    this.relay.unrecorded(error);
  }
}
