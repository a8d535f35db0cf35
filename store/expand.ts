import { createHash } from "node:crypto";
import { segmentInfo } from "./chain.ts";
import { segmentPath } from "./folder.ts";
import {
  CLOSE_BYTES,
  DEFINITION_BYTES,
  type DecisionInfo,
  DIGEST_BYTES,
  EVENT_BYTES,
  eachRecord,
  INTENT_BYTES,
  NO_STATEMENT,
  OUTCOME_BYTES,
  OUTCOME_HAS_DIGEST,
  OUTCOME_HAS_EXTRA,
  OUTCOME_RECOVERED,
  OUTCOMES,
  RECORD,
  SESSION_OPENED,
  type SegmentInfo,
  type SessionInfo,
} from "./layout.ts";
import { decodeParameters } from "./parameters.ts";
import { parseSession, placeKey } from "./recover.ts";
import { type Block, readRecord, SegmentCursor } from "./segment.ts";
import type { AuditEvent } from "./types.ts";

/** An event and where it ends in its shard; the cursor is added where shards are merged. */
export interface Expanded {
  readonly event: Omit<AuditEvent, "cursor">;
  readonly micros: number;
  readonly segment: number;
  /** Offset after the record that ended the event. */
  readonly end: number;
  /** Number of the session it belongs to; 0: none. */
  readonly session: number;
}

/** What the records of one segment refer to by number. */
interface Definitions {
  info: SegmentInfo | undefined;
  readonly decisions: Map<number, DecisionInfo>;
  readonly statements: Map<number, string>;
  readonly sessions: Map<number, SessionInfo>;
  seal: Buffer;
}

interface Intent {
  readonly record: Buffer;
  readonly definitions: Definitions;
}

/** Turns the journal records of one shard, fed in order, into audit events. */
export class Expander {
  private readonly folder: string;
  /** Only events of this session; 0: of all. */
  private readonly only: number;
  private definitions: Definitions = none();
  /** Intents read that have no outcome yet, by place. */
  private readonly intents = new Map<number, Intent>();
  /** Definitions of earlier segments, loaded when reading began after them. */
  private readonly earlier = new Map<number, Definitions>();

  constructor(folder: string, only = 0) {
    this.folder = folder;
    this.only = only;
  }

  /** @param after events that end at or before this offset are not returned */
  block(block: Block, segment: number, after: number): Expanded[] {
    const events: Expanded[] = [];
    const { payload, offset } = block;
    eachRecord(payload, (type, at, length) => {
      const record = payload.subarray(at, at + length);
      const place = offset + at;
      if (define(this.definitions, type, record)) {
        if (type === RECORD.segment) this.begin(segmentInfo(payload));
        if (type !== RECORD.session || record[5] !== SESSION_OPENED) return;
      }
      if (type === RECORD.intent) {
        if (this.only === 0 || record.readUInt32LE(8) === this.only)
          this.intents.set(placeKey(segment, place), { record: Buffer.from(record), definitions: this.definitions });
        return;
      }
      const end = place + length;
      if (end <= after) {
        if (type === RECORD.outcome) this.intents.delete(placeKey(record.readUInt32LE(40), record.readUInt32LE(44)));
        return;
      }
      const expanded = this.expand(type, record, segment, place);
      if (expanded !== undefined) events.push({ ...expanded, segment, end });
    });
    return events;
  }

  private begin(info: SegmentInfo | undefined): void {
    this.definitions = none();
    this.definitions.info = info;
    if (info?.previous) this.definitions.seal = Buffer.from(info.previous.seal, "hex");
  }

  private expand(type: number, record: Buffer, segment: number, place: number): Pick<Expanded, "event" | "micros" | "session"> | undefined {
    const { definitions } = this;
    const id = `${definitions.info?.id ?? "0"}-${place.toString(16)}`;
    const number = type === RECORD.event ? 0 : record.readUInt32LE(8);
    if (this.only !== 0 && number !== this.only) return undefined;
    if (type === RECORD.event) {
      const micros = record.readDoubleLE(8);
      const body = JSON.parse(record.toString("utf8", EVENT_BYTES)) as Omit<AuditEvent, "id" | "cursor" | "time" | "hash">;
      return { session: 0, micros, event: { id, time: timeOf(micros), ...body, hash: hashOf(definitions.seal, record) } };
    }
    const info = definitions.sessions.get(number);
    if (type === RECORD.session && info !== undefined) {
      const micros = info.startedMillis * 1000;
      return {
        session: number,
        micros,
        event: { id, time: timeOf(micros), type: "session.open", ...sessionOf(info), hash: hashOf(definitions.seal, record) },
      };
    }
    if (type === RECORD.close) {
      const micros = record.readDoubleLE(12);
      const detail = { reason: record.toString("utf8", CLOSE_BYTES), operations: record.readDoubleLE(20) };
      const started = info === undefined ? {} : { durationMicros: Math.max(0, micros - info.startedMillis * 1000) };
      return {
        session: number,
        micros,
        event: {
          id,
          time: timeOf(micros),
          type: "session.close",
          ...sessionOf(info),
          ...started,
          detail,
          hash: hashOf(definitions.seal, record),
        },
      };
    }
    if (type !== RECORD.outcome) return undefined;
    const micros = record.readDoubleLE(16);
    return { session: number, micros, event: { id, time: timeOf(micros), ...this.operation(record, number, segment) } };
  }

  private operation(record: Buffer, number: number, segment: number): Omit<AuditEvent, "id" | "cursor" | "time"> {
    const intent = this.intentOf(record.readUInt32LE(40), record.readUInt32LE(44), segment);
    const info = this.definitions.sessions.get(number) ?? intent?.definitions.sessions.get(number);
    const flags = record.readUInt16LE(6);
    const recovered = (flags & OUTCOME_RECOVERED) !== 0;
    let at = OUTCOME_BYTES;
    let sha256: string | undefined;
    if ((flags & OUTCOME_HAS_DIGEST) !== 0) {
      sha256 = record.toString("hex", at, at + DIGEST_BYTES);
      at += DIGEST_BYTES;
    }
    const extra: Extra = (flags & OUTCOME_HAS_EXTRA) === 0 ? {} : (JSON.parse(record.toString("utf8", at)) as Extra);
    const rows = record.readDoubleLE(24);
    return {
      type: "operation",
      ...sessionOf(info),
      request: String(record.readUInt32LE(12)),
      ...(intent === undefined ? {} : describeIntent(intent)),
      ...(recovered
        ? {}
        : { response: { ...(rows >= 0 ? { rows } : {}), bytes: record.readDoubleLE(32), ...(sha256 === undefined ? {} : { sha256 }) } }),
      ...(extra.masked === undefined ? {} : { masked: extra.masked }),
      outcome: OUTCOMES[record[5] ?? 0] ?? "unknown",
      ...(extra.code === undefined ? {} : { error: { code: extra.code, message: extra.message ?? "" } }),
      ...(recovered || intent === undefined
        ? {}
        : { durationMicros: Math.max(0, Math.round(record.readDoubleLE(16) - intent.record.readDoubleLE(24))) }),
      hash: hashOf(this.definitions.seal, intent?.record, record),
    };
  }

  private intentOf(segment: number, offset: number, current: number): Intent | undefined {
    const key = placeKey(segment, offset);
    const known = this.intents.get(key);
    if (known !== undefined) {
      this.intents.delete(key);
      return known;
    }
    const record = readRecord(segmentPath(this.folder, segment), offset);
    if (record === undefined || record[4] !== RECORD.intent || record.length < INTENT_BYTES) return undefined;
    let definitions = segment === current ? this.definitions : this.earlier.get(segment);
    if (definitions === undefined) {
      definitions = loadDefinitions(this.folder, segment);
      this.earlier.set(segment, definitions);
    }
    return { record, definitions };
  }
}

interface Extra {
  readonly code?: string;
  readonly message?: string;
  readonly masked?: Readonly<Record<string, number>>;
}

function describeIntent({
  record,
  definitions,
}: Intent): Pick<AuditEvent, "action" | "resources" | "statement" | "parameters" | "decision"> {
  const decision = definitions.decisions.get(record.readUInt32LE(16));
  const statement = record.readUInt32LE(20);
  const payload = record.subarray(INTENT_BYTES);
  const prepared = statement !== NO_STATEMENT;
  const parameters = prepared && payload.length > 0 ? decodeParameters(payload) : undefined;
  const text = prepared ? definitions.statements.get(statement) : payload.toString("utf8");
  return {
    ...(decision === undefined ? {} : { action: decision.action, resources: decision.resources }),
    ...(text === undefined ? {} : { statement: text }),
    ...(parameters === undefined ? {} : { parameters }),
    ...(decision === undefined ? {} : { decision: decisionOf(decision) }),
  };
}

function decisionOf(decision: DecisionInfo): NonNullable<AuditEvent["decision"]> {
  const { effect, rule, policyVersion, observed } = decision;
  return { effect, ...(rule === undefined ? {} : { rule }), policyVersion, ...(observed === undefined ? {} : { observed }) };
}

function sessionOf(info: SessionInfo | undefined): Pick<AuditEvent, "session" | "identity" | "client" | "target" | "protocol"> {
  if (info === undefined) return {};
  const client = info.application === undefined ? { address: info.address } : { address: info.address, application: info.application };
  return { session: info.id, identity: info.identity, client, target: info.target, protocol: info.protocol };
}

/** Take a record that only defines; true when it was one. */
function define(definitions: Definitions, type: number, record: Buffer): boolean {
  switch (type) {
    case RECORD.segment:
    case RECORD.live:
    case RECORD.pending:
      return true;
    case RECORD.session: {
      const info = parseSession(record.subarray(DEFINITION_BYTES));
      if (info !== undefined) definitions.sessions.set(record.readUInt32LE(8), info);
      return true;
    }
    case RECORD.decision:
      definitions.decisions.set(record.readUInt32LE(8), JSON.parse(record.toString("utf8", DEFINITION_BYTES)) as DecisionInfo);
      return true;
    case RECORD.statement:
      definitions.statements.set(record.readUInt32LE(8), record.toString("utf8", DEFINITION_BYTES));
      return true;
    case RECORD.seal:
      definitions.seal = Buffer.from(record.subarray(16, 16 + DIGEST_BYTES));
      return true;
    default:
      return false;
  }
}

function loadDefinitions(folder: string, segment: number): Definitions {
  const definitions = none();
  let cursor: SegmentCursor;
  try {
    cursor = new SegmentCursor(segmentPath(folder, segment), segment);
  } catch {
    return definitions;
  }
  try {
    for (let block = cursor.next(); block !== undefined; block = cursor.next()) {
      const { payload } = block;
      eachRecord(payload, (type, at, length) => void define(definitions, type, payload.subarray(at, at + length)));
    }
  } finally {
    cursor.close();
  }
  return definitions;
}

const none = (): Definitions => ({
  info: undefined,
  decisions: new Map(),
  statements: new Map(),
  sessions: new Map(),
  seal: Buffer.alloc(0),
});

/** RFC 3339 with microseconds, UTC. */
export function timeOf(micros: number): string {
  const millis = Math.floor(micros / 1000);
  const rest = String(Math.round(micros - millis * 1000)).padStart(3, "0");
  return `${new Date(millis).toISOString().slice(0, -1)}${rest}Z`;
}

/** Binds an event to the chain: SHA-256(last seal before it ‖ its records as the journal holds them). */
function hashOf(seal: Buffer, ...records: (Buffer | undefined)[]): string {
  const hash = createHash("sha256").update(seal);
  for (const record of records) if (record !== undefined) hash.update(record);
  return hash.digest("hex");
}
