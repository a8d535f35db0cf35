import fs from "node:fs";
import { SealChain } from "./chain.ts";
import { listSegments, segmentPath } from "./folder.ts";
import { DEFINITION_BYTES, eachRecord, RECORD, SESSION_OPENED, type SegmentInfo, type SessionInfo } from "./layout.ts";
import { readRecord, SegmentCursor } from "./segment.ts";

export interface LiveSession {
  readonly segment: number;
  readonly offset: number;
  readonly info: SessionInfo | undefined;
}

export interface PendingIntent {
  readonly session: number;
  readonly request: number;
  readonly segment: number;
  readonly offset: number;
}

export interface SeenSession {
  readonly number: number;
  readonly segment: number;
  readonly info: SessionInfo;
  end?: { readonly micros: number; readonly segment: number; readonly operations: number; readonly reason: string };
}

/** What the journal of a stopped writer says; reading it changes nothing but a torn tail, which is cut. */
export interface Recovered {
  nextSegment: number;
  previous: SegmentInfo["previous"];
  nextSession: number;
  /** Sessions that were never closed. */
  live: Map<number, LiveSession>;
  /** Intents without outcome, by place. */
  pending: Map<number, PendingIntent>;
  /** Sessions that began in the segments read, for the session index. */
  seen: Map<number, SeenSession>;
  /** Sessions that ended in the segments read and began before them: number → end. */
  ended: Map<number, NonNullable<SeenSession["end"]>>;
  /** Highest request seen of each session, which is how many operations it had. */
  lastRequests: Map<number, number>;
  /** For the audit: crash tail, damage. */
  findings: { what: string; segment: number; offset: number; bytes: number }[];
}

/**
 * @param indexedBefore segments before this one need not be read for the session index
 */
export function recoverShard(folder: string, indexedBefore: number): Recovered {
  const state: Recovered = {
    nextSegment: 1,
    previous: null,
    nextSession: 1,
    live: new Map(),
    pending: new Map(),
    seen: new Map(),
    ended: new Map(),
    lastRequests: new Map(),
    findings: [],
  };
  const segments = listSegments(folder);
  const last = segments.at(-1);
  if (last === undefined) return state;
  state.nextSegment = last + 1;
  // A segment reads alone once its first block is complete; one that a crash tore at birth needs the one before it.
  let from = segments.length - 1;
  while (from > 0 && !begins(folder, segments[from] ?? 0)) from -= 1;
  while (from > 0 && (segments[from] ?? 0) > indexedBefore && (segments[from - 1] ?? 0) >= indexedBefore) from -= 1;
  for (const segment of segments.slice(from)) readSegment(folder, segment, state);
  for (const [number, session] of state.live) {
    if (session.info === undefined) state.live.set(number, { ...session, info: sessionAt(folder, session.segment, session.offset) });
  }
  return state;
}

function begins(folder: string, segment: number): boolean {
  const cursor = new SegmentCursor(segmentPath(folder, segment), segment);
  try {
    return cursor.next() !== undefined;
  } finally {
    cursor.close();
  }
}

function readSegment(folder: string, segment: number, state: Recovered): void {
  const path = segmentPath(folder, segment);
  const cursor = new SegmentCursor(path, segment);
  const chain = new SealChain();
  try {
    const rest = cursor.each((block) => {
      const first = chain.info === undefined;
      chain.add(block);
      if (first && chain.info !== undefined) {
        // The first block repeats what is live and pending; it is the whole truth of what went before.
        state.live.clear();
        state.pending.clear();
        state.nextSession = Math.max(state.nextSession, chain.info.nextSession);
      }
      const { payload, offset } = block;
      eachRecord(payload, (type, at, length) => readState(state, segment, payload, type, at, length, offset + at));
    });
    if (chain.brokenAt !== undefined)
      state.findings.push({ what: "journal altered: a seal does not match", segment, offset: chain.brokenAt, bytes: 0 });
    const found = { segment, offset: cursor.position, bytes: rest.bytes };
    if (rest.kind === "damaged")
      state.findings.push({ what: "journal damaged: blocks beyond it are intact but cannot be reached", ...found });
    else if (rest.kind !== "nothing") fs.truncateSync(path, cursor.position);
    if (rest.kind === "torn") state.findings.push({ what: "crash tail cut", ...found });
    if (chain.info !== undefined) state.previous = { segment, end: cursor.position, seal: chain.end() };
  } finally {
    cursor.close();
  }
}

function readState(state: Recovered, segment: number, payload: Buffer, type: number, at: number, length: number, offset: number): void {
  const number = length >= 12 ? payload.readUInt32LE(at + 8) : 0;
  switch (type) {
    case RECORD.live:
      state.live.set(number, {
        segment: payload.readUInt32LE(at + 12),
        offset: payload.readUInt32LE(at + 16),
        info: state.seen.get(number)?.info,
      });
      return;
    case RECORD.pending: {
      const place = {
        session: number,
        request: payload.readUInt32LE(at + 12),
        segment: payload.readUInt32LE(at + 16),
        offset: payload.readUInt32LE(at + 20),
      };
      state.pending.set(placeKey(place.segment, place.offset), place);
      return;
    }
    case RECORD.session: {
      if (payload[at + 5] !== SESSION_OPENED) return;
      state.nextSession = Math.max(state.nextSession, number + 1);
      const info = parseSession(payload.subarray(at + DEFINITION_BYTES, at + length));
      state.live.set(number, { segment, offset, info });
      if (info !== undefined) state.seen.set(number, { number, segment, info });
      return;
    }
    case RECORD.intent:
      state.lastRequests.set(number, payload.readUInt32LE(at + 12));
      state.pending.set(placeKey(segment, offset), { session: number, request: payload.readUInt32LE(at + 12), segment, offset });
      return;
    case RECORD.outcome:
      state.pending.delete(placeKey(payload.readUInt32LE(at + 40), payload.readUInt32LE(at + 44)));
      return;
    case RECORD.close: {
      state.live.delete(number);
      const end = {
        micros: payload.readDoubleLE(at + 12),
        segment,
        operations: payload.readDoubleLE(at + 20),
        reason: payload.toString("utf8", at + 28, at + length),
      };
      const seen = state.seen.get(number);
      if (seen !== undefined) seen.end = end;
      else state.ended.set(number, end);
      return;
    }
    default:
  }
}

/** A place in a shard as one exact number (segments stay below 2^21). */
export const placeKey = (segment: number, offset: number): number => segment * 0x1_0000_0000 + offset;

function sessionAt(folder: string, segment: number, offset: number): SessionInfo | undefined {
  const record = readRecord(segmentPath(folder, segment), offset);
  return record === undefined || record[4] !== RECORD.session ? undefined : parseSession(record.subarray(DEFINITION_BYTES));
}

export function parseSession(json: Buffer): SessionInfo | undefined {
  try {
    return JSON.parse(json.toString("utf8")) as SessionInfo;
  } catch {
    return undefined;
  }
}
