import { createHash, type Hash, hash } from "node:crypto";
import { copyInto } from "../core/bytes/copy.ts";
import type { RecordConfig } from "../core/config/types.ts";
import { FROM_CLIENT, type FrameOwner, type FrameWriter, TO_CLIENT } from "./frames.ts";
import { type IntentPlace, type Journal, nextSlot } from "./journal.ts";
import {
  CLOSE_BYTES,
  DIGEST_BYTES,
  EFFECT_DENY,
  EFFECTS,
  INTENT_BYTES,
  NO_STATEMENT,
  OUTCOME_BYTES,
  OUTCOME_HAS_DIGEST,
  OUTCOME_HAS_EXTRA,
  OUTCOME_RECOVERED,
  OUTCOMES,
  RECORD,
  type SessionInfo,
} from "./layout.ts";
import type { DecisionRecord, Outcome, SessionRecorder, StatementRecord } from "./types.ts";

// Of their own: V8 reads an import from its cell each time and checks it; these are numbers in its code.
const INTENT = RECORD.intent;
const INTENT_LENGTH = INTENT_BYTES;
const OUTCOME = RECORD.outcome;
const OUTCOME_LENGTH = OUTCOME_BYTES;
/** NO_STATEMENT as 32 bits with a sign: a number that needs no object. */
const NOT_PREPARED = NO_STATEMENT | 0;
const copy = copyInto;
/** Request of an operation that is none. */
const NONE = -1;
const CLIENTS = FROM_CLIENT;
const SERVERS = TO_CLIENT;

/** Record modes: the first bytes of each response, all, none but their digest. */
const HEAD = 0;
const FULL = 1;
const DIGEST = 2;

/** Responses up to this size are digested in one call at their end, which costs half of a streaming digest. */
const ONE_CALL_BYTES = 4_096;
const SPARE_OPERATIONS = 1_024;

/** An operation between its intent and its outcome. Reused: the hot path allocates none. */
class Operation implements IntentPlace {
  request = NONE;
  segment = 0;
  offset = 0;
  lost = false;
  /** What is kept of the response: HEAD, FULL or DIGEST. A comparison of texts would be a call. */
  mode = HEAD;
  /** Some of the response is in `short` or `digest`. */
  digested = false;
  /** Bytes of the response that may still be kept (head). */
  left = 0;
  /** The session's next one without an outcome; of a spare one, the next spare one. */
  next: Operation | undefined = undefined;
  short: Buffer | undefined = undefined;
  shortBytes = 0;
  digest: Hash | undefined = undefined;
}

/** What the sessions of one recorder share. */
export interface SessionContext {
  readonly journal: Journal;
  readonly frames: FrameWriter;
  readonly stats: { operations: number };
  /** Operations that have ended, up to SPARE_OPERATIONS, for use again. */
  spare: Operation | undefined;
  spares: number;
  readonly ended: (session: RecordedSession, endedMicros: number, reason: string) => void;
}

export class RecordedSession implements SessionRecorder, FrameOwner {
  // What every operation looks at stands together: with thousands of sessions each cache line of one is a miss.
  private readonly context: SessionContext;
  readonly number: number;
  private definedAt = nextSlot();
  private lastRequest = 0;
  /** The session's own record mode, which its operations begin with. */
  private readonly mode: number;
  private readonly headBytes: number;
  /**
   * Operations without an outcome, ascending by request. Nearly always there is one or none: that one is `own`, whose request is
   * NONE when there is none, and no pointer is written for it. Those behind it are a list.
   */
  private readonly own = new Operation();
  private first: Operation | undefined = undefined;
  private last: Operation | undefined = undefined;
  operations = 0;
  frameBlock = 0;
  readonly info: SessionInfo;
  readonly openSegment: number;
  readonly openOffset: number;
  readonly firstBlock: number;
  /** What head mode still keeps of bytes that answer no operation. */
  private looseLeft: number;
  private closed = false;

  constructor(context: SessionContext, number: number, info: SessionInfo, record: RecordConfig, openOffset: number) {
    this.context = context;
    this.number = number;
    this.info = info;
    this.mode = modeOf(record);
    this.headBytes = record.headBytes;
    this.openSegment = context.journal.segment;
    this.openOffset = openOffset;
    this.firstBlock = context.frames.number;
    this.looseLeft = record.headBytes;
  }

  intent(decision: DecisionRecord, statement: StatementRecord | undefined, bytes: Uint8Array, start: number, end: number): number {
    const { context, number } = this;
    const { journal } = context;
    const base = journal.slotBase;
    if (this.definedAt < base || decision.storeSlot < base || (statement !== undefined && statement.storeSlot < base))
      this.defineFor(decision, statement);
    const { effect, storeSlot } = decision;
    const statementSlot = statement === undefined ? NOT_PREPARED : statement.storeSlot;
    const detail = effect === "allow" ? 0 : EFFECTS.indexOf(effect);
    const length = INTENT_LENGTH + end - start;
    const at = journal.take(length);
    const micros = journal.nowMicros();
    let operation = this.own;
    if (operation.request !== NONE || this.first !== undefined) operation = this.another();
    const request = this.lastRequest + 1;
    this.lastRequest = request;
    operation.request = request;
    operation.lost = false;
    operation.mode = this.mode;
    operation.left = this.headBytes;
    journal.track(at, operation);
    this.operations += 1;
    context.stats.operations += 1;
    // After all that is read: whatever goes through a view makes V8 load and check again what it knew.
    const { staging } = journal;
    const { view } = staging;
    view.setInt32(at, length, true);
    view.setInt32(at + 4, INTENT | (detail << 8), true);
    view.setInt32(at + 8, number | 0, true);
    view.setInt32(at + 12, request | 0, true);
    view.setInt32(at + 16, storeSlot | 0, true);
    view.setInt32(at + 20, statementSlot | 0, true);
    view.setFloat64(at + 24, micros, true);
    copy(bytes, start, end, staging, at + INTENT_LENGTH);
    return request;
  }

  outcome(
    request: number,
    outcome: Outcome,
    rows: number,
    bytes: number,
    error: { readonly code: string; readonly message: string } | undefined,
    masked: ReadonlyMap<string, number> | undefined,
  ): void {
    let operation: Operation | undefined = this.own;
    if (operation.request !== request) {
      operation = this.take(request);
      if (operation === undefined) return;
    }
    // First: whatever staging it may call up, the operation has no second outcome.
    operation.request = NONE;
    if (!operation.lost) {
      const { journal } = this.context;
      if (this.definedAt < journal.slotBase) this.define();
      if (error === undefined && masked === undefined && operation.mode === HEAD && !operation.digested)
        putOutcome(journal, this.number, request, operation, outcome, rows, bytes, 0, 0);
      else putDetailed(journal, this.number, request, operation, outcome, rows, bytes, error, masked);
      journal.arm();
    }
    if (operation.digested) forget(operation);
    if (operation !== this.own) this.release(operation);
  }

  fromClient(bytes: Uint8Array, start: number, end: number): void {
    this.context.frames.add(this, this.lastRequest, CLIENTS, this.context.journal.nowMicros(), bytes, start, end);
  }

  toClient(request: number, bytes: Uint8Array, start: number, end: number, from: number, to: number): void {
    const operation = this.find(request);
    let keep = end;
    if (operation === undefined) {
      if (this.mode === DIGEST) return;
      if (this.mode === HEAD) {
        keep = Math.min(end, start + this.looseLeft);
        this.looseLeft -= keep - start;
      }
    } else if (operation.mode === HEAD) {
      if (operation.left === 0) return;
      if (start + operation.left < end) keep = start + operation.left;
      operation.left -= keep - start;
    } else {
      if (to > from) digest(operation, bytes, from, to);
      if (operation.mode === DIGEST) return;
    }
    if (keep > start) this.context.frames.add(this, request, SERVERS, this.context.journal.nowMicros(), bytes, start, keep);
  }

  override(request: number, record: RecordConfig): void {
    const operation = this.find(request);
    if (operation === undefined) return;
    operation.mode = modeOf(record);
    operation.left = record.headBytes;
  }

  close(reason: string): void {
    if (this.closed) return;
    this.closed = true;
    if (this.own.request !== NONE) this.outcome(this.own.request, "unknown", 0, 0, undefined, undefined);
    while (this.first !== undefined) this.outcome(this.first.request, "unknown", 0, 0, undefined, undefined);
    const { journal } = this.context;
    // Always repeated: should the end be kept back while writing fails, it may come to stand in another segment.
    this.define();
    const now = journal.nowMicros();
    putClose(journal, this.number, now, this.operations, reason);
    journal.arm();
    this.context.ended(this, now, reason);
  }

  /** Operations whose intent is on record and whose outcome is not yet. */
  eachPending(visit: (request: number, place: IntentPlace) => void): void {
    if (this.own.request !== NONE && !this.own.lost) visit(this.own.request, this.own);
    for (let operation = this.first; operation !== undefined; operation = operation.next) {
      if (!operation.lost) visit(operation.request, operation);
    }
  }

  /** What an intent refers to must stand before it in the same segment. */
  private defineFor(decision: DecisionRecord, statement: StatementRecord | undefined): void {
    const { journal } = this.context;
    if (this.definedAt < journal.slotBase) this.define();
    if (decision.storeSlot < journal.slotBase) defineDecision(journal, decision);
    if (statement !== undefined && statement.storeSlot < journal.slotBase) defineStatement(journal, statement);
  }

  private define(): void {
    const { journal } = this.context;
    journal.define(RECORD.session, 0, this.number, JSON.stringify(this.info));
    this.definedAt = nextSlot();
  }

  private find(request: number): Operation | undefined {
    return this.own.request === request ? this.own : this.findBehind(request);
  }

  private findBehind(request: number): Operation | undefined {
    for (let operation = this.first; operation !== undefined; operation = operation.next) {
      if (operation.request >= request) return operation.request === request ? operation : undefined;
    }
    return undefined;
  }

  /** An operation at the end of the list, behind those that await their outcome. */
  private another(): Operation {
    const { context } = this;
    const operation = context.spare ?? new Operation();
    if (operation === context.spare) {
      context.spare = operation.next;
      context.spares -= 1;
      operation.next = undefined;
    }
    if (this.last === undefined) this.first = operation;
    else this.last.next = operation;
    this.last = operation;
    return operation;
  }

  /** Remove from the list and return; answers come in order, so it is nearly always the first. */
  private take(request: number): Operation | undefined {
    let before: Operation | undefined;
    let found = this.first;
    while (found !== undefined && found.request < request) {
      before = found;
      found = found.next;
    }
    if (found === undefined || found.request !== request) return undefined;
    if (before === undefined) this.first = found.next;
    else before.next = found.next;
    if (found.next === undefined) this.last = before;
    found.next = undefined;
    return found;
  }

  private release(operation: Operation): void {
    const { context } = this;
    if (context.spares >= SPARE_OPERATIONS) return;
    operation.next = context.spare;
    context.spare = operation;
    context.spares += 1;
  }
}

function modeOf(record: RecordConfig): number {
  if (record.results === "head") return HEAD;
  return record.results === "full" ? FULL : DIGEST;
}

function digest(operation: Operation, bytes: Uint8Array, start: number, end: number): void {
  operation.digested = true;
  if (operation.digest === undefined) {
    if (operation.shortBytes + end - start <= ONE_CALL_BYTES) {
      operation.short ??= Buffer.alloc(ONE_CALL_BYTES);
      operation.short.set(bytes.subarray(start, end), operation.shortBytes);
      operation.shortBytes += end - start;
      return;
    }
    operation.digest = createHash("sha256");
    if (operation.short !== undefined) operation.digest.update(operation.short.subarray(0, operation.shortBytes));
  }
  operation.digest.update(bytes.subarray(start, end));
}

/** SHA-256 of the response, a character a byte (a Buffer would cost twice as much), or undefined in head mode. */
function finish(operation: Operation): string | undefined {
  if (operation.digest !== undefined) return operation.digest.digest("binary");
  if (operation.mode === HEAD) return undefined;
  return hash("sha256", (operation.short ?? EMPTY).subarray(0, operation.shortBytes), "binary");
}

function forget(operation: Operation): void {
  operation.digested = false;
  operation.shortBytes = 0;
  operation.digest = undefined;
}

function defineDecision(journal: Journal, decision: DecisionRecord): void {
  const { action, resources, effect, rule, policyVersion, observed } = decision;
  const slot = nextSlot();
  journal.define(
    RECORD.decision,
    effect === "deny" ? EFFECT_DENY : 0,
    slot,
    JSON.stringify({ action, resources, effect, rule, policyVersion, observed }),
  );
  decision.storeSlot = slot;
}

function defineStatement(journal: Journal, statement: StatementRecord): void {
  const slot = nextSlot();
  journal.define(RECORD.statement, 0, slot, statement.text);
  statement.storeSlot = slot;
}

function extraOf(
  error: { readonly code: string; readonly message: string } | undefined,
  masked: ReadonlyMap<string, number> | undefined,
): string {
  return JSON.stringify({
    code: error?.code,
    message: error?.message,
    masked: masked === undefined || masked.size === 0 ? undefined : Object.fromEntries(masked),
  });
}

/** Stage an outcome with its digest, error and masks as far as there are any. */
function putDetailed(
  journal: Journal,
  session: number,
  request: number,
  operation: Operation,
  outcome: Outcome,
  rows: number,
  bytes: number,
  error: { readonly code: string; readonly message: string } | undefined,
  masked: ReadonlyMap<string, number> | undefined,
): void {
  const sha256 = finish(operation);
  const extra = error === undefined && (masked === undefined || masked.size === 0) ? "" : extraOf(error, masked);
  const digestBytes = sha256 === undefined ? 0 : DIGEST_BYTES;
  const flags = (sha256 === undefined ? 0 : OUTCOME_HAS_DIGEST) | (extra === "" ? 0 : OUTCOME_HAS_EXTRA);
  const at = putOutcome(journal, session, request, operation, outcome, rows, bytes, digestBytes + Buffer.byteLength(extra), flags);
  const { buffer } = journal.staging;
  if (sha256 !== undefined) buffer.write(sha256, at + OUTCOME_BYTES, DIGEST_BYTES, "latin1");
  if (extra !== "") buffer.write(extra, at + OUTCOME_BYTES + digestBytes, "utf8");
}

/** Stage an outcome; layout.ts has its layout. @returns where it is; the caller fills in the `more` bytes behind it */
function putOutcome(
  journal: Journal,
  session: number,
  request: number,
  place: { readonly segment: number; readonly offset: number },
  outcome: Outcome,
  rows: number,
  bytes: number,
  more: number,
  flags: number,
): number {
  const detail = outcome === "done" ? 0 : OUTCOMES.indexOf(outcome);
  const length = OUTCOME_LENGTH + more;
  const at = journal.take(length);
  const micros = journal.nowMicros();
  const { segment, offset } = place;
  const { view } = journal.staging;
  view.setInt32(at, length, true);
  view.setInt32(at + 4, OUTCOME | (detail << 8) | (flags << 16), true);
  view.setInt32(at + 8, session | 0, true);
  view.setInt32(at + 12, request | 0, true);
  view.setFloat64(at + 16, micros, true);
  view.setFloat64(at + 24, rows, true);
  view.setFloat64(at + 32, bytes, true);
  view.setInt32(at + 40, segment | 0, true);
  view.setInt32(at + 44, offset | 0, true);
  return at;
}

function putClose(journal: Journal, session: number, micros: number, operations: number, reason: string): void {
  const at = journal.begin(CLOSE_BYTES + Buffer.byteLength(reason), RECORD.close, 0, 0);
  const { view, buffer } = journal.staging;
  view.setUint32(at + 8, session, true);
  view.setFloat64(at + 12, micros, true);
  view.setFloat64(at + 20, operations, true);
  buffer.write(reason, at + CLOSE_BYTES, "utf8");
}

/** After a crash: an operation that has no outcome gets one. */
export function putUnknown(
  journal: Journal,
  session: number,
  request: number,
  place: { readonly segment: number; readonly offset: number },
): void {
  putOutcome(journal, session, request, place, "unknown", 0, 0, 0, OUTCOME_RECOVERED);
}

/** After a crash: a session that has no end gets one. */
export const putStopped = (journal: Journal, session: number, operations: number, reason: string): void =>
  putClose(journal, session, journal.nowMicros(), operations, reason);

const EMPTY = Buffer.alloc(0);
