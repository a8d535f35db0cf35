import { copyOf } from "../../core/bytes/copy.ts";
import { SluiceError } from "../../core/errors.ts";
import { REPLACE } from "./frame.ts";
import { copyFail, flush, query, TYPE } from "./messages.ts";
import type { Pending } from "./pending.ts";
import { REFUSED_PARSE, REFUSED_QUERY } from "./refused.ts";
import type { Relay } from "./relay.ts";

/** What becomes of a message of the server while a result is being cut, or its transaction is the gateway's own. */
const PASS = 0;
const SWALLOW = 1;
/** The operation fails here, as if the server had said so; the client gets the limit's error, before ReadyForQuery if it is that. */
const FAIL = 2;
/** The CommandComplete that was kept goes out instead. */
const KEPT = 3;

/** What a Cutter needs of backend.ts. */
interface Reader {
  /** Send this now, as part of the response that arrives. Only where the message before was replaced. */
  addToResponse(bytes: Uint8Array): void;
  /** Send this in place of the present message, as part of the response. */
  answerWith(bytes: Uint8Array): number;
  /** The operation at the head has failed, and the client learns it in place of, or before, the present message. */
  fail(head: Pending, reason: CutReason, bytes: Uint8Array, start: number, end: number): number;
}

/** Why a result is cut. */
export interface CutReason {
  readonly response: Uint8Array;
  readonly failed: { readonly code: string; readonly message: string };
}

/**
 * Where the one operation is whose rows are counted (quotas.ts sees to it that nothing that matters is under way behind it):
 *
 *     rest                  no more than that
 *     begun → open          a simple query in a transaction of the gateway's own: BEGIN was sent before it
 *       → committing          the last CommandComplete waits for the COMMIT; an error of the COMMIT takes its place
 *       → rollingBack         after an error, the limit's or the server's
 *     cut                   the server was asked to cancel; what it still sends does not reach the client
 *       → failing             it had finished before: it gets something that fails, so that its transaction fails as well
 *       → syncing             the same where Sync is on its way already, which changes nothing outside a block …
 *           → failingBlock    … and leaves a block open, which then gets what fails
 */
type Step = "rest" | "begun" | "open" | "committing" | "rollingBack" | "cut" | "failing" | "syncing" | "failingBlock";

const COMMIT = query("COMMIT");
const ROLLBACK = query("ROLLBACK");
const FAIL_EXECUTE = Buffer.concat([REFUSED_PARSE, flush()]);
const GIVE_UP_COPY = copyFail("a limit of Sluice is used up");
const IDLE = 0x49;
const FAILED_BLOCK = 0x45;

/** Cuts a result and brings server and client to the same state again. */
export class Cutter {
  readonly #relay: Relay;
  #step: Step = "rest";
  #cancelling = false;
  /** What has to wait until no CancelRequest can strike it any more. */
  #next: Uint8Array | undefined;
  cut: CutReason | undefined;
  /** The CommandComplete that the end of the gateway's own transaction may still change. */
  #kept: Uint8Array | undefined;

  constructor(relay: Relay) {
    this.#relay = relay;
  }

  get atRest(): boolean {
    return this.#step === "rest";
  }

  /** Nothing of the client's may be sent: a CancelRequest on its way would strike it, or the last operation is not over. */
  get isBusy(): boolean {
    return this.#cancelling || this.#step !== "rest";
  }

  /** The simple query that is about to be sent goes out behind BEGIN. */
  wrap(): void {
    this.#step = "begun";
  }

  /**
   * Cut the result of the queue's head.
   * @throws SluiceError SLUICE_QUOTA_EXCEEDED, which ends the session, where what is under way behind it could not be undone
   */
  start(head: Pending, reason: CutReason): void {
    const { queue } = this.#relay;
    const isAlone = queue.size === 1 || (head.kind === "execute" && queue.size === 2 && queue.at(1).kind === "sync");
    if (!isAlone || (this.#step !== "rest" && this.#step !== "open")) {
      throw new SluiceError("SLUICE_QUOTA_EXCEEDED", reason.failed.message, {
        hint: "Rows came where none were expected, so that the session could not go on.",
      });
    }
    this.cut = reason;
    if (this.#step === "rest") this.#step = "cut";
    this.#cancelling = true;
    void this.#relay.cancelRunning().then(() => {
      this.#cancelling = false;
      const next = this.#next;
      this.#next = undefined;
      if (next !== undefined && !this.#relay.ended) this.#relay.sendToServer(next, 0, next.length);
      this.#relay.quotas?.wake();
    });
  }

  /** The server's error has taken its way, with the limit's in its place. */
  failed(kind: Pending["kind"]): void {
    if (kind === "query") return;
    this.cut = undefined;
    this.#step = "rest";
  }

  /** @returns the message was a CommandComplete of the gateway's own transaction and waits */
  keep(bytes: Uint8Array, start: number, end: number): boolean {
    if (this.#step !== "open") return false;
    this.#kept = copyOf(bytes, start, end);
    return true;
  }

  /**
   * A message of the server while not at rest.
   * @returns undefined: it takes its usual way
   */
  message(reader: Reader, head: Pending, bytes: Uint8Array, start: number, end: number): number | undefined {
    const reason = this.cut;
    switch (this.#intercept(reader, head, bytes[start], bytes[start + 5])) {
      case PASS:
        return undefined;
      case FAIL:
        this.cut = undefined;
        return reason === undefined ? REPLACE : reader.fail(head, reason, bytes, start, end);
      case KEPT: {
        const kept = this.#kept;
        this.#kept = undefined;
        return kept === undefined ? REPLACE : reader.answerWith(kept);
      }
      default:
        return REPLACE;
    }
  }

  #intercept(reader: Reader, head: Pending, type: number, status: number): number {
    switch (type) {
      case TYPE.parameterStatus:
      case TYPE.notificationResponse:
        if (this.#step === "open") this.#addKept(reader);
        return PASS;
      case TYPE.readyForQuery:
        return this.#ready(head, status);
      case TYPE.errorResponse:
        return this.#error(reader);
      default:
    }
    switch (this.#step) {
      case "begun":
        return SWALLOW;
      case "open":
        if (this.cut !== undefined) return this.#swallow(type);
        this.#addKept(reader);
        return PASS;
      case "committing":
        if (type !== TYPE.commandComplete) return PASS;
        return KEPT;
      case "cut":
        return ENDS_EXECUTE.has(type) && head.kind === "execute" ? this.#finished() : this.#swallow(type);
      default:
        return SWALLOW;
    }
  }

  #swallow(type: number): number {
    if (type === TYPE.copyInResponse) {
      this.#relay.copyAnswer(false);
      this.#send(GIVE_UP_COPY);
    }
    return SWALLOW;
  }

  /** The server had done all of an Execute before it was told to stop. */
  #finished(): number {
    if (this.#relay.queue.size === 1) {
      this.#step = "failing";
      this.#send(FAIL_EXECUTE);
      return SWALLOW;
    }
    this.#step = "syncing";
    return FAIL;
  }

  #error(reader: Reader): number {
    switch (this.#step) {
      case "begun":
      case "rollingBack":
        // Fatal errors as well: what the transaction does is not known.
        throw new SluiceError("SLUICE_TARGET_REFUSED", "the target did not carry out the gateway's own BEGIN or ROLLBACK");
      case "syncing":
      case "failingBlock":
        return SWALLOW;
      case "open":
        if (this.cut === undefined) this.#addKept(reader);
        return PASS;
      case "committing":
        this.#kept = undefined;
        return PASS;
      default:
        return PASS;
    }
  }

  #ready(head: Pending, status: number): number {
    switch (this.#step) {
      case "begun":
        if (status === IDLE) throw new SluiceError("SLUICE_TARGET_REFUSED", "the target did not carry out the gateway's own BEGIN");
        this.#step = "open";
        return SWALLOW;
      case "open":
        if (status === IDLE) return this.#rest(head);
        if (this.cut !== undefined || status === FAILED_BLOCK) {
          this.#kept = undefined;
          this.#step = "rollingBack";
          this.#send(ROLLBACK);
        } else {
          this.#step = "committing";
          this.#send(COMMIT);
        }
        return SWALLOW;
      case "committing":
        if (status === IDLE) return this.#rest(head);
        // The client's own CancelRequest can strike the COMMIT.
        this.#step = "rollingBack";
        this.#send(ROLLBACK);
        return SWALLOW;
      case "cut":
        if (head.failed !== undefined || status === IDLE || status === FAILED_BLOCK) return this.#rest(head);
        this.#step = "failing";
        this.#send(REFUSED_QUERY);
        return SWALLOW;
      case "syncing":
        if (status === IDLE || status === FAILED_BLOCK) return this.#rest(head);
        this.#step = "failingBlock";
        this.#send(REFUSED_QUERY);
        return SWALLOW;
      default:
        return this.#rest(head);
    }
  }

  /** In step again. */
  #rest(head: Pending): number {
    const fails = this.cut !== undefined && head.kind === "query" && head.failed === undefined;
    this.#step = "rest";
    this.cut = undefined;
    return fails ? FAIL : PASS;
  }

  #addKept(reader: Reader): void {
    const kept = this.#kept;
    this.#kept = undefined;
    if (kept !== undefined) reader.addToResponse(kept);
  }

  #send(bytes: Uint8Array): void {
    if (this.#cancelling) this.#next = bytes;
    else this.#relay.sendToServer(bytes, 0, bytes.length);
  }
}

const ENDS_EXECUTE: ReadonlySet<number> = new Set([TYPE.commandComplete, TYPE.portalSuspended, TYPE.emptyQueryResponse]);
