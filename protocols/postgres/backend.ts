import { SluiceError } from "../../core/errors.ts";
import { LIMITS } from "../../core/limits.ts";
import { CopyOutReader } from "./copy-out.ts";
import type { CutReason } from "./cut.ts";
import { Descriptions } from "./descriptions.ts";
import { Answers, checkPrivileges } from "./doubt.ts";
import { EffectsSinceReady } from "./effects.ts";
import { FORWARD_AND_ADD, FORWARD as forward, MessageFramer, type MessageVisitor, REPLACE } from "./frame.ts";
import { BACKEND_LIMITS, TYPE as types } from "./messages.ts";
import { errorFields } from "./notices.ts";
import { maskedNotice, searchedString } from "./outside-rows.ts";
import { readParameterStatus } from "./parameter-status.ts";
import type { Pending } from "./pending.ts";
import type { Relay } from "./relay.ts";
import { ResultMasks } from "./result-masks.ts";
import { parseSearchPath } from "./search-path.ts";
import { TargetSide } from "./sides.ts";
import { skipToSync } from "./skip.ts";

// Of its own, as in frame.ts.
const TYPE = types;
const FORWARD = forward;

/** The target's side of a session: each message is matched with what it answers, masked, recorded, and sent on. */
export class BackendReader extends TargetSide implements MessageVisitor {
  // What every answer looks at comes first: with thousands of sessions each cache line of one is a miss.
  readonly #framer: MessageFramer;
  readonly #results = new ResultMasks();
  readonly #copyOut = new CopyOutReader();
  replacement: Uint8Array | undefined;
  /** Request that bytes in a run belong to; 0: none. */
  #request = 0;
  /** Of the bytes of the next run, [#from, #to) are the response to that request; #from < 0: none of them. */
  #from = -1;
  #to = -1;
  /** Bytes still to come of a response's message that passes piece by piece, and where in the next run it begins. */
  #streamBytesLeft = 0;
  /** Bytes of the response so far. */
  #responseBytes = 0;
  /** An operation that has ended; its outcome goes on record behind its last bytes. */
  #due: Pending["request"] = 0;
  #dueOutcome: "done" | "failed" | "cancelled" = "done";
  #dueRows = 0;
  #dueFailed: Pending["failed"];
  #dueMasked: Pending["masked"];
  /** ReadyForQuery came in the present read. */
  #becameIdle = false;
  readonly #effects = new EffectsSinceReady();
  readonly #descriptions = new Descriptions();
  passesEnding = -1;
  #streamFrom = 0;
  /** The message that passes piece by piece does not reach the client. */
  #dropsStream = false;
  /** The replacement about to be emitted belongs to the response. */
  #replacesResponse = false;
  sawFatal = false;
  readonly #answersOfOwn = new Answers();

  constructor(relay: Relay) {
    super(relay);
    this.#framer = new MessageFramer(this);
  }

  push(bytes: Uint8Array, start: number, end: number): void {
    this.#results.newChunk();
    this.#copyOut.newChunk();
    try {
      this.#framer.push(bytes, start, end);
    } finally {
      if (this.#due !== 0) this.#settle();
    }
    if (this.#becameIdle) {
      // Only now: a session that leaves here must have passed on the answers that came in this read.
      this.#becameIdle = false;
      if (this.relay.queue.size === 0) this.relay.whenIdle();
    }
    this.relay.quotas?.afterRead();
    this.relay.resumeClient();
  }

  /** Bytes of the response that arrives at present. */
  get responseBytes(): number {
    return this.#responseBytes;
  }

  stop(): void {
    this.#framer.stop();
  }

  limit(type: number): number {
    const limit = BACKEND_LIMITS[type];
    const masks = type === TYPE.dataRow ? this.relay.queue.head()?.masks === true : type === TYPE.copyData && this.#copyOut.readsWhole;
    return masks ? LIMITS.inspectedBackendMessageBytes : limit;
  }

  /** Rows that no mask applies to pass piece by piece; everything else is read whole. */
  streams(type: number, length: number, at: number): boolean {
    const head = this.relay.queue.head();
    if (type === TYPE.copyData) {
      if (!this.#copyOut.passes(length)) return false;
    } else if (type !== TYPE.dataRow || head === undefined || head.masks || (head.kind !== "execute" && head.kind !== "query"))
      return false;
    else if (this.#copyOut.underWay) throw unexpected("DataRow");
    if (head !== undefined) {
      head.rows += 1;
      this.#request = head.request;
    }
    this.#dropsStream = head !== undefined && this.relay.quotas?.row(head, length + 1) === false;
    if (this.#dropsStream && head !== undefined) head.rows -= 1;
    this.#streamBytesLeft = length + 1;
    this.#streamFrom = at;
    return true;
  }

  /** Rows that nothing is to be done to, but that they are counted. */
  passesUpTo(type: number, bytes: Uint8Array, start: number, available: number): number {
    if (type !== TYPE.dataRow && type !== TYPE.copyData) return start;
    const head = this.relay.queue.head();
    if (!runs(head) || head.request === 0 || this.relay.quotas !== undefined) return start;
    this.passesEnding = type === TYPE.copyData ? this.#copyOut.passesEnding : -1;
    if (type === TYPE.copyData) return this.#copyOut.passUpTo(bytes, start, available);
    if (this.#copyOut.underWay) return start;
    return head.masks ? this.#results.passUpTo(head, bytes, start, available) : available;
  }

  passed(_type: number, count: number, start: number, end: number): void {
    const head = this.relay.queue.head();
    if (head === undefined) throw unexpected("row");
    head.rows += count;
    this.#request = head.request;
    this.#belongs(start, end);
  }

  run(bytes: Uint8Array, start: number, end: number): void {
    let from = this.#from;
    let to = this.#to;
    if (this.#streamBytesLeft > 0) {
      const at = Math.max(start, this.#streamFrom);
      const upTo = Math.min(end, at + this.#streamBytesLeft);
      this.#streamBytesLeft -= upTo - at;
      this.#streamFrom = 0;
      // Nothing stands behind the message in this run.
      if (this.#dropsStream) end = at;
      else {
        if (from < 0) from = at;
        to = upTo;
      }
    }
    this.#from = -1;
    if (end === start) return;
    if (from < 0) to = from;
    this.#responseBytes += to - from;
    this.relay.recorder.toClient(this.#request, bytes, start, end, from, to);
    this.relay.sendToClient(bytes, start, end);
  }

  emit(replacement: Uint8Array | undefined): void {
    if (replacement !== undefined && replacement.length > 0) {
      if (this.#replacesResponse) this.#belongs(0, replacement.length);
      this.run(replacement, 0, replacement.length);
    }
    this.#replacesResponse = false;
    if (this.#due !== 0) this.#settle();
  }

  /** bytes[start, end) of the present read are part of the response to #request. */
  #belongs(start: number, end: number): void {
    if (this.#from < 0) this.#from = start;
    this.#to = end;
  }

  /** Every byte of the operation that has ended was handed to the recorder. */
  #settle(): void {
    this.relay.quotas?.responded(this.#responseBytes);
    this.relay.recorder.outcome(this.#due, this.#dueOutcome, this.#dueRows, this.#responseBytes, this.#dueFailed, this.#dueMasked);
    this.#due = 0;
    this.#responseBytes = 0;
    this.#dueFailed = undefined;
    this.#dueMasked = undefined;
  }

  message(type: number, bytes: Uint8Array, start: number, end: number, available: number): number {
    const relay = this.relay;
    const head = relay.queue.head();
    if (head?.kind === "ask" && this.#answersOfOwn.take(relay, type, bytes, start, end)) return REPLACE;
    const cutter = relay.quotas?.cutter;
    if (cutter !== undefined && head !== undefined) {
      const answer = cutter.message(this, head, bytes, start, end);
      if (answer !== undefined) return answer;
    }
    switch (type) {
      case TYPE.dataRow:
        if (!runs(head) || this.#copyOut.underWay) throw unexpected("DataRow");
        this.#request = head.request;
        if (head.masks) {
          const masked = this.#results.row(head, bytes, start, end, available);
          this.replacement = masked;
          if (masked !== undefined) return this.#counted(head, masked.length, REPLACE);
        }
        return this.#counted(head, end - start, FORWARD, start);
      case TYPE.readyForQuery:
        return this.#ready(head, bytes[start + 5], start, end);
      case TYPE.commandComplete:
      case TYPE.emptyQueryResponse:
      case TYPE.portalSuspended:
        return this.#completed(head, type, bytes, start, end);
      case TYPE.rowDescription:
        return this.#rowDescription(head, bytes, start, end);
      case TYPE.parameterDescription:
        if (head?.kind !== "describe") throw unexpected("ParameterDescription");
        return head.own ? REPLACE : FORWARD;
      case TYPE.noData: {
        if (head?.kind !== "describe") throw unexpected("NoData");
        const own = head.own;
        relay.queue.shift();
        return own ? REPLACE : FORWARD;
      }
      case TYPE.parseComplete:
        return this.#simple(head, "parse");
      case TYPE.bindComplete:
        return this.#simple(head, "bind");
      case TYPE.closeComplete:
        return this.#simple(head, "close");
      case TYPE.errorResponse:
        return this.#error(head, bytes, start, end);
      case TYPE.noticeResponse:
        this.replacement = maskedNotice(relay, head, bytes, start, end);
        return this.#answers(head, start, end);
      case TYPE.parameterStatus:
        return this.#parameterStatus(bytes, start, end);
      case TYPE.notificationResponse:
        return this.#searched(bytes, start, bytes.indexOf(0, start + 9) + 1, end);
      case TYPE.copyInResponse:
        if (!runs(head)) throw unexpected("CopyInResponse");
        // Nothing was sent behind it (frontend.ts holds it back), so nothing can be taken for COPY data or ignored.
        if (relay.queue.size !== 1) throw unexpected("CopyInResponse");
        relay.copyAnswer(true);
        return this.#answers(head, start, end);
      case TYPE.copyOutResponse:
        if (!runs(head)) throw unexpected("CopyOutResponse");
        this.#copyOut.begin(head, bytes, start, end);
        // The prefilter's flags are for one user at a time: what it said about this chunk is asked for anew behind the COPY.
        this.#results.newChunk();
        return this.#answers(head, start, end);
      case TYPE.copyData:
        return this.#copyData(head, bytes, start, end, available);
      case TYPE.copyDone:
        this.#copyOut.done();
        return this.#answers(head, start, end);
      default:
        throw unexpected(`message type '${String.fromCharCode(type)}'`);
    }
  }

  #copyData(head: Pending | undefined, bytes: Uint8Array, start: number, end: number, available: number): number {
    const rowsBefore = head?.rows ?? 0;
    this.replacement = this.#copyOut.data(head, bytes, start, end, available);
    const count = this.replacement === undefined ? end - start : this.replacement.length;
    // A header, or what stands behind the last row, counts with the rest of the response.
    if (head !== undefined && count > 0 && head.rows > rowsBefore && this.relay.quotas?.row(head, count) === false) {
      head.rows = rowsBefore;
      this.replacement = undefined;
      return REPLACE;
    }
    return this.#answers(head, start, end);
  }

  /** A row of so many bytes for the client, unless a limit cuts the result here. */
  #counted(head: Pending, bytes: number, answer: number, start = 0): number {
    if (this.relay.quotas?.row(head, bytes) === false) {
      this.replacement = undefined;
      return REPLACE;
    }
    head.rows += 1;
    if (answer === REPLACE) this.#replacesResponse = true;
    else this.#belongs(start, start + bytes);
    return answer;
  }

  addToResponse(bytes: Uint8Array): void {
    this.#replacesResponse = true;
    this.emit(bytes);
  }

  answerWith(bytes: Uint8Array): number {
    this.replacement = bytes;
    this.#replacesResponse = true;
    return REPLACE;
  }

  fail(head: Pending, reason: CutReason, bytes: Uint8Array, start: number, end: number): number {
    head.failed = reason.failed;
    this.replacement = reason.response;
    if (bytes[start] !== TYPE.readyForQuery) return this.#failed(head, start, end, false);
    this.#effects.errored();
    this.replacement = Buffer.concat([reason.response, bytes.subarray(start, end)]);
    this.#ready(head, bytes[start + 5], start, end);
    return REPLACE;
  }

  /** A message that is part of the response to `head`, if that is an operation; `replacement` goes out instead where there is one. */
  #answers(head: Pending | undefined, start: number, end: number): number {
    const operation = runs(head) && head.request !== 0;
    if (operation) this.#request = head.request;
    if (this.replacement !== undefined) {
      this.#replacesResponse = operation;
      return REPLACE;
    }
    if (operation) this.#belongs(start, end);
    return FORWARD;
  }

  #simple(head: Pending | undefined, kind: "parse" | "bind" | "close"): number {
    if (head?.kind !== kind || head.refusal !== undefined) throw unexpected(`answer to ${kind}`);
    this.relay.parameterBytes -= head.parameterBytes;
    head.change?.confirm();
    this.relay.queue.shift();
    return FORWARD;
  }

  #rowDescription(head: Pending | undefined, bytes: Uint8Array, start: number, end: number): number {
    if (head === undefined || head.refusal !== undefined || (head.kind !== "query" && head.kind !== "describe"))
      throw unexpected("RowDescription");
    if (head.kind === "query") {
      this.#request = head.request;
      if (head.masks) this.#results.plan(head, this.#descriptions.columns(bytes, start, end), undefined);
      return this.#answers(head, start, end);
    }
    if (head.statement !== undefined && (head.own || this.relay.hasMasks)) {
      head.statement.columns = this.#descriptions.columns(bytes, start, end);
      head.statement.describedIn = this.relay.context();
      head.statement.describedAt = this.relay.schemaEpoch;
    }
    const own = head.own;
    this.relay.queue.shift();
    return own ? REPLACE : FORWARD;
  }

  #completed(head: Pending | undefined, type: number, bytes: Uint8Array, start: number, end: number): number {
    if (!runs(head)) throw unexpected("CommandComplete");
    if (type === TYPE.commandComplete) this.#tag(head, bytes, start, end);
    this.#results.over();
    this.#copyOut.stop();
    if (head.kind === "query" && this.relay.quotas?.cutter?.keep(bytes, start, end) === true) return REPLACE;
    this.#answers(head, start, end);
    if (head.kind === "query") return FORWARD;
    this.relay.copyAnswer(false);
    head.change?.confirm();
    this.#effects.completed(this.relay, head, false);
    this.#finish(head, "done");
    this.relay.queue.shift();
    // In a pipeline, what waits for a schema change does not wait for Sync, which may come behind it.
    this.relay.answered();
    // Behind this message another operation's answers may follow: the run ends here, so that each is recorded with its own.
    return this.relay.queue.size > 1 ? FORWARD_AND_ADD : FORWARD;
  }

  /** The command tag: `SELECT 5`, `INSERT 0 1`, `COPY 12`, `COMMIT`. Rows of changes are only told here. */
  #tag(head: Pending, bytes: Uint8Array, start: number, end: number): void {
    const first = bytes[start + 5];
    // S(ELECT) is counted as its rows pass, and is by far the most frequent.
    if (first === 0x53) return;
    const tag = Buffer.from(bytes.buffer, bytes.byteOffset + start + 5, end - start - 6).toString("latin1");
    this.#effects.tag(tag);
    const count = /^(?:INSERT \d+|UPDATE|DELETE|MERGE|COPY) (\d+)$/.exec(tag);
    if (count !== null && head.rows === 0) head.rows = Number(count[1]);
  }

  /** The operation has ended; what it was is recorded with its last bytes. */
  #finish(head: Pending, outcome: "done" | "failed" | "cancelled"): void {
    if (head.request === 0 || head.refusal !== undefined) return;
    if (this.#due !== 0) this.#settle();
    if (head.masked !== undefined) for (const [rule, count] of head.masked) this.relay.room.counters.maskedBy(rule, count);
    this.#due = head.request;
    this.#dueOutcome = outcome;
    this.#dueRows = head.rows;
    this.#dueFailed = head.failed;
    this.#dueMasked = head.masked;
    head.request = 0;
  }

  #ready(head: Pending | undefined, status: number, start: number, end: number): number {
    if (head === undefined || (head.kind !== "query" && head.kind !== "sync")) throw unexpected("ReadyForQuery");
    if (head.refusal !== undefined && head.failed === undefined) throw unexpected("answer to a refused statement");
    const relay = this.relay;
    if (head.kind === "query") {
      this.#effects.completed(relay, head, head.failed !== undefined);
      if (head.failed === undefined) head.change?.confirm();
      else head.change?.undo();
      this.#answers(head, start, end);
      this.#finish(head, head.failed === undefined ? "done" : head.failed.code === "57014" ? "cancelled" : "failed");
    }
    relay.queue.shift();
    if (relay.queue.size === 0) relay.copyAnswer(false);
    this.#copyOut.stop();
    this.#results.over();
    const before = relay.transactionStatus;
    this.#effects.ready(relay, before, status);
    relay.transactionStatus = status;
    if (head.kind === "sync" || status === 0x49) relay.unsynced = false;
    if (relay.inPipeline && relay.queue.size === 0) {
      // Only a Query can have been answered here.
      relay.inPipeline = false;
      relay.unsynced = status !== 0x49;
    }
    // Inside a block nobody else sees the change, not even the connection that reads the catalogue.
    if (this.#effects.schemaChanged && status === 0x49) {
      relay.schemaChanged();
      this.#effects.schemaChanged = false;
    }
    relay.answered();
    this.#becameIdle = true;
    // As in #completed.
    return relay.queue.size > 0 ? FORWARD_AND_ADD : FORWARD;
  }

  #error(head: Pending | undefined, bytes: Uint8Array, start: number, end: number): number {
    const relay = this.relay;
    const fields = errorFields(bytes, start, end);
    const fatal = fields.severity === "FATAL" || fields.severity === "PANIC";
    if (fatal) this.sawFatal = true;
    const masked = maskedNotice(relay, head, bytes, start, end);
    this.replacement = masked;
    if (head === undefined || head.kind === "sync") {
      if (!fatal) this.#effects.errored();
      return masked === undefined ? FORWARD : REPLACE;
    }
    head.failed = { code: fields.code, message: masked === undefined ? fields.message : errorFields(masked, 0, masked.length).message };
    if (head.refusal !== undefined && !fatal) this.replacement = head.refusal;
    const cutter = relay.quotas?.cutter;
    if (cutter?.cut !== undefined && !fatal) {
      head.failed = cutter.cut.failed;
      this.replacement = cutter.cut.response;
      cutter.failed(head.kind);
    }
    return this.#failed(head, start, end, fatal);
  }

  /** The operation at the head has failed; `replacement`, if there is one, is what the client learns. */
  #failed(head: Pending, start: number, end: number, fatal: boolean): number {
    const relay = this.relay;
    this.#results.over();
    this.#copyOut.stop();
    this.#effects.errored();
    const answer = this.#answers(head, start, end);
    // Whether the server read a Sync among the data before or after it failed cannot be known.
    if (relay.copyIn && relay.syncsInCopy > 0 && !fatal)
      throw new SluiceError("SLUICE_PROTOCOL_VIOLATION", "Sync among COPY data that failed");
    if (head.kind === "query") {
      relay.copyIn = false;
      return answer;
    }
    relay.copyAnswer(false);
    const outcome = head.failed?.code === "57014" ? "cancelled" : "failed";
    skipToSync(relay, head, outcome, this.#effects, () => this.#finish(head, outcome));
    return answer;
  }

  /** A value outside of a result: it has no column, but a detector may find something in it. */
  #searched(bytes: Uint8Array, start: number, from: number, end: number): number {
    if (from <= start + 5 || from >= end || bytes[end - 1] !== 0) throw unexpected("malformed message");
    const head = this.relay.queue.head();
    this.replacement = searchedString(this.relay, head, bytes, start, from, end);
    return this.#answers(head, start, end);
  }

  #parameterStatus(bytes: Uint8Array, start: number, end: number): number {
    const { name, value, valueAt } = readParameterStatus(bytes, start, end);
    checkPrivileges(this.relay, name, value);
    if (name === "search_path") this.relay.searchPath.reported(parseSearchPath(value, this.relay.grant.target.user));
    return this.#searched(bytes, start, valueAt, end);
  }
}

/** What the server was sent as it came, and answers with a result. */
const runs = (head: Pending | undefined): head is Pending =>
  head !== undefined && (head.kind === "query" || head.kind === "execute") && head.refusal === undefined;

const unexpected = (what: string) => new SluiceError("SLUICE_PROTOCOL_VIOLATION", `the target sent an unexpected ${what}`);
