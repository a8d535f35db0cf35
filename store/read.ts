import fs from "node:fs";
import path from "node:path";
import { SluiceError } from "../core/errors.ts";
import { type Environment, openEnvironment, type StoredSession } from "./environment.ts";
import { timeOf } from "./expand.ts";
import { describe, environmentFolder, listShards, runningWriter, shardFolder, unusable } from "./folder.ts";
import { sessionBlocks } from "./frame-index.ts";
import { readBlock } from "./frames.ts";
import { ShardTail } from "./tail.ts";
import type { AuditEvent } from "./types.ts";

export { currentCursor, tailEvents } from "./tail.ts";

/** One session as `sessions list` shows it. */
export interface SessionSummary {
  readonly id: string;
  readonly identity: StoredSession["identity"];
  readonly client: { readonly address: string; readonly application?: string };
  readonly target: string;
  readonly protocol: string;
  readonly started: string;
  readonly ended?: string;
  /** Its gateway runs and has not closed it. */
  readonly live: boolean;
  /** Known once the session ended. */
  readonly operations?: number;
  readonly reason?: string;
  /** Recording mode of results: full, head or digest. */
  readonly results: string;
}

export interface SessionFilter {
  readonly user?: string;
  readonly target?: string;
  readonly live?: boolean;
  /** Started at or after, before: milliseconds of the Unix epoch. */
  readonly sinceMillis?: number;
  readonly untilMillis?: number;
  /** At most this many, newest first; 100 unless given. */
  readonly limit?: number;
}

/** Recorded sessions, newest first. Works with the gateway running or stopped. */
export function listSessions(dataFolder: string, filter: SessionFilter = {}): SessionSummary[] {
  const limit = filter.limit ?? 100;
  const found: { readonly startedMillis: number; readonly summary: SessionSummary }[] = [];
  eachShard(dataFolder, (environment, folder) => {
    const running = runningWriter(folder) !== undefined;
    let taken = 0;
    // Reversed: from the newest downwards; the start of the range is then its upper end.
    const start: [number, number] = [filter.untilMillis ?? Number.MAX_SAFE_INTEGER, 0];
    for (const { value } of environment.sessions.getRange({ reverse: true, start })) {
      if (value.startedMillis < (filter.sinceMillis ?? 0) || taken >= limit) break;
      const summary = summaryOf(value, running);
      if (filter.user !== undefined && value.identity.user !== filter.user) continue;
      if (filter.target !== undefined && value.target !== filter.target) continue;
      if (filter.live !== undefined && summary.live !== filter.live) continue;
      found.push({ startedMillis: value.startedMillis, summary });
      taken += 1;
    }
    return undefined;
  });
  found.sort((a, b) => b.startedMillis - a.startedMillis);
  return found.slice(0, limit).map((entry) => entry.summary);
}

/** @param options `operations`: at most this many are read, 10,000 unless given; `more` tells whether there are others */
export function showSession(
  dataFolder: string,
  id: string,
  options: { readonly operations?: number } = {},
): (SessionSummary & { readonly events: readonly Omit<AuditEvent, "cursor">[]; readonly more: boolean }) | undefined {
  const limit = options.operations ?? 10_000;
  return eachShard(dataFolder, (environment, folder, shard) => {
    const session = sessionById(environment, id);
    if (session === undefined) return undefined;
    const lastSegment = session.lastSegment === undefined ? {} : { lastSegment: session.lastSegment };
    const tail = new ShardTail(folder, shard, { segment: session.firstSegment, offset: 0 }, { only: session.number, ...lastSegment });
    const events: Omit<AuditEvent, "cursor">[] = [];
    try {
      for (let batch = tail.poll(); batch.length > 0 && events.length <= limit; batch = tail.poll())
        for (const { event } of batch) events.push(event);
    } finally {
      tail.close();
    }
    return { ...summaryOf(session, runningWriter(folder) !== undefined), events: events.slice(0, limit), more: events.length > limit };
  });
}

/** Recorded bytes of one direction, as they passed. Pieces of one message may come in several frames. */
export interface Frame {
  readonly direction: "fromClient" | "toClient";
  /** Microseconds of the Unix epoch. */
  readonly micros: number;
  /** Request the bytes answer (toClient), or the last request before them (fromClient); 0: none. */
  readonly request: number;
  readonly bytes: Uint8Array;
}

/**
 * A session's recorded bytes in order, for replay; empty for an unknown session. Rendering is the protocol's business.
 * @param damaged called where recorded bytes are missing or damaged, to go on behind them; without it that ends the reading
 * @throws SluiceError SLUICE_STORE_DAMAGED
 */
export async function* readFrames(
  dataFolder: string,
  id: string,
  damaged: (error: SluiceError) => void = stop,
): AsyncGenerator<Frame, void, void> {
  for (const shard of listShards(dataFolder)) {
    const folder = shardFolder(dataFolder, shard);
    const environment = openForReading(folder);
    if (environment === undefined) continue;
    try {
      const session = sessionById(environment, id);
      if (session === undefined) continue;
      for (const block of sessionBlocks(environment, folder, session)) {
        if ("damage" in block) {
          damaged(
            new SluiceError("SLUICE_STORE_DAMAGED", `block ${block.number} of the recorded bytes of shard ${shard}: ${block.damage}`, {
              hint: "`sluice sessions replay --raw` shows what stands after it.",
            }),
          );
          continue;
        }
        for (const { direction, micros, request, bytes } of readBlock(block.payload, session.number)) {
          yield { direction: direction === 0 ? "fromClient" : "toClient", micros, request, bytes };
        }
      }
      return;
    } finally {
      await environment.root.close();
    }
  }
}

function stop(error: SluiceError): never {
  throw error;
}

function sessionById(environment: Environment, id: string): StoredSession | undefined {
  const key = environment.ids.get(id);
  return key === undefined ? undefined : environment.sessions.get(key);
}

function summaryOf(session: StoredSession, running: boolean): SessionSummary {
  const { id, identity, address, application, target, protocol, startedMillis, endedMicros, operations, reason, results } = session;
  return {
    id,
    identity,
    client: application === undefined ? { address } : { address, application },
    target,
    protocol,
    started: timeOf(startedMillis * 1000),
    ...(endedMicros === undefined ? {} : { ended: timeOf(endedMicros) }),
    live: running && endedMicros === undefined,
    ...(operations === undefined ? {} : { operations }),
    ...(reason === undefined ? {} : { reason }),
    results,
  };
}

/** Visit every shard's environment until one visit returns something. */
function eachShard<T>(
  dataFolder: string,
  visit: (environment: Environment, folder: string, shard: number) => T | undefined,
): T | undefined {
  for (const shard of listShards(dataFolder)) {
    const folder = shardFolder(dataFolder, shard);
    const environment = openForReading(folder);
    if (environment === undefined) continue;
    try {
      const result = visit(environment, folder, shard);
      if (result !== undefined) return result;
    } finally {
      void environment.root.close();
    }
  }
  return undefined;
}

/** Read-only in other processes; in the writer's own the options must be the writer's. */
function openForReading(folder: string): Environment | undefined {
  const lmdb = environmentFolder(folder);
  if (!fs.existsSync(path.join(lmdb, "data.mdb"))) return undefined;
  try {
    return openEnvironment(lmdb, runningWriter(folder) !== process.pid);
  } catch (error) {
    if (error instanceof SluiceError) throw error;
    throw unusable(`the store in ${folder} cannot be read: ${describe(error)}`, error);
  }
}
