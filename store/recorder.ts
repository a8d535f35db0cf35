import { SluiceError } from "../core/errors.ts";
import { type Environment, openEnvironment, type StoredSession } from "./environment.ts";
import { claimShard, describe, environmentFolder, listShards, releaseShard, unusable } from "./folder.ts";
import type { WriteBuffers } from "./frame-file.ts";
import { FrameWriter } from "./frames.ts";
import { Journal } from "./journal.ts";
import { Keeper } from "./keeper.ts";
import { LIVE_BYTES, PENDING_BYTES, putHeader, RECORD, type SessionInfo } from "./layout.ts";
import { type Recovered, recoverShard } from "./recover.ts";
import { putStopped, putUnknown, RecordedSession, type SessionContext } from "./session.ts";
import type { AuditEvent, Recorder, SessionRecorder } from "./types.ts";

const STOPPED = "gateway stopped";

export interface RecorderOptions {
  /** A journal segment is followed by the next above this. */
  readonly segmentBytes?: number;
  /** A frames segment is followed by the next above this. */
  readonly framesSegmentBytes?: number;
  /** Replaceable so that a test can make the faults that no file system makes on demand. */
  readonly writeBuffers?: WriteBuffers;
  /** Disk space kept back for denials and kills. */
  readonly reserveBytes?: number;
  /** Session recordings stop (and with them all sessions) while the disk has less free than this; keep it above 8 × congestedBytes. */
  readonly minFreeBytes?: number;
  /** Recorded bytes in flight to the disk above which the recorder is congested; above eight times as much they are refused. */
  readonly congestedBytes?: number;
  /** Failures of the background work, once when they begin. */
  readonly onError?: (error: Error) => void;
}

/**
 * Open one shard for writing: 0 for the main thread, 1 to n for the workers. Recovers first what a crash left there.
 * @throws SluiceError SLUICE_STORE_UNUSABLE: not writable, no room, or in use by another process
 */
export function openRecorder(dataFolder: string, shard: number, options: RecorderOptions = {}): Recorder {
  const folder = claimShard(dataFolder, shard);
  let environment: Environment | undefined;
  try {
    environment = openEnvironment(environmentFolder(folder), false);
    const recovered = recoverShard(folder, environment.meta.get("synced") ?? 0);
    return new ShardRecorder(folder, shard, environment, recovered, options);
  } catch (error) {
    void environment?.root.close();
    releaseShard(folder);
    if (error instanceof SluiceError) throw error;
    throw unusable(`the store in ${folder} cannot be opened: ${describe(error)}`, error);
  }
}

/** Recover the shards of workers that no longer exist: those above `workers`. For the main thread, at start. */
export async function recoverOrphans(dataFolder: string, workers: number): Promise<void> {
  for (const shard of listShards(dataFolder)) if (shard > workers) await openRecorder(dataFolder, shard).close();
}

class ShardRecorder implements Recorder {
  readonly stats = { operations: 0, journalBytes: 0, frameBytes: 0, commits: 0, failed: 0 };
  onRelieved: () => void = () => {};
  private readonly folder: string;
  private readonly shard: number;
  private readonly environment: Environment;
  private readonly journal: Journal;
  private readonly keeper: Keeper;
  private readonly frames: FrameWriter;
  private readonly context: SessionContext;
  private readonly congestedBytes: number;
  private readonly live = new Map<number, RecordedSession>();
  private nextSession: number;
  private wasCongested = false;
  private closing = false;
  /** Why commits throw until the turn's writes are gone. */
  private refusal: unknown;
  private refusals = 0;

  constructor(folder: string, shard: number, environment: Environment, recovered: Recovered, options: RecorderOptions) {
    this.folder = folder;
    this.shard = shard;
    this.environment = environment;
    this.nextSession = recovered.nextSession;
    this.congestedBytes = options.congestedBytes ?? 8 * 1024 * 1024;
    const onError = options.onError ?? (() => {});
    this.keeper = new Keeper(
      folder,
      options.minFreeBytes ?? 128 * 1024 * 1024,
      (error) => this.failed(error, onError),
      () => this.settled(),
    );
    this.frames = new FrameWriter(
      folder,
      environment,
      this.keeper,
      {
        hardBytes: this.congestedBytes * 8,
        segmentBytes: options.framesSegmentBytes ?? 256 * 1024 * 1024,
        writeBuffers: options.writeBuffers,
      },
      this.stats,
    );
    let recovering = true;
    this.journal = new Journal(
      {
        folder,
        shard,
        segmentBytes: options.segmentBytes ?? 64 * 1024 * 1024,
        reserveBytes: options.reserveBytes ?? 1024 * 1024,
        firstSegment: recovered.nextSegment,
        previous: recovered.previous,
        // Until the recovered ends are on record the new segment says what is live and pending as the old one did.
        carry: () => (recovering ? carryRecovered(recovered) : this.carry()),
        nextSession: () => this.nextSession,
        onRotate: (segment) => this.rotated(segment),
        onError,
      },
      this.stats,
    );
    this.finishRecovery(recovered);
    recovering = false;
    const ended: SessionContext["ended"] = (session, endedMicros, reason) => this.sessionEnded(session, endedMicros, reason);
    this.context = { journal: this.journal, frames: this.frames, stats: this.stats, spare: undefined, spares: 0, ended };
  }

  open(session: Parameters<Recorder["open"]>[0]): SessionRecorder {
    const { issuer, user, subject, groups, chain } = session.identity;
    const { id, application, target, protocol, startedMillis } = session;
    const info: SessionInfo = {
      id,
      identity: { issuer, user, subject, groups, chain },
      address: session.clientAddress,
      application,
      target,
      protocol,
      startedMillis,
      results: session.record.results,
    };
    const number = this.nextSession;
    const offset = this.keeper.hasRoom() && !this.closing ? this.journal.openSession(number, JSON.stringify(info)) : -1;
    if (offset < 0) {
      this.stats.failed += 1;
      throw new SluiceError("SLUICE_RECORD_FAILED", "the session's start cannot be recorded", {
        hint: "Check the data folder's disk.",
        cause: this.keeper.failure ?? this.journal.failing,
      });
    }
    this.nextSession += 1;
    const recorded = new RecordedSession(this.context, number, info, session.record, offset);
    this.live.set(number, recorded);
    this.store({ ...info, shard: this.shard, number, firstSegment: recorded.openSegment, firstBlock: recorded.firstBlock });
    return recorded;
  }

  event(event: Omit<AuditEvent, "id" | "cursor" | "time" | "hash">): void {
    this.journal.event(this.journal.nowMicros(), JSON.stringify(event));
    this.journal.push();
  }

  commit(): void {
    const { dropped } = this.frames;
    this.frames.dropped = false;
    try {
      this.journal.commit();
    } catch (error) {
      this.refuse(error);
      throw error;
    }
    if (dropped) {
      this.stats.failed += 1;
      this.refuse(
        this.keeper.failure ??
          new SluiceError("SLUICE_RECORD_FAILED", "session recordings arrive faster than the disk takes them", {
            hint: "Record less of the results, or use a faster disk.",
          }),
      );
    }
    if (this.refusal !== undefined) throw this.refusal;
  }

  /**
   * One refusal holds for everything of its turn: a commit can come between a session's record and its write (the page is full of
   * others' bytes, or another transport sends first), and would use the refusal up. Whatever is written in this turn leaves in the
   * next check phase at the latest, so before the second of these.
   */
  private refuse(refusal: unknown): void {
    this.refusal = refusal;
    this.refusals += 1;
    const last = this.refusals;
    setImmediate(() =>
      setImmediate(() => {
        if (this.refusals === last) this.refusal = undefined;
      }),
    );
  }

  get congested(): boolean {
    if (this.keeper.inFlightBytes + this.frames.waitingBytes > this.congestedBytes) this.wasCongested = true;
    return this.wasCongested;
  }

  async flush(): Promise<void> {
    this.frames.flush();
    await this.journal.flush();
    await this.keeper.settled();
    await this.frames.sync();
    await this.environment.root.flushed;
  }

  async close(): Promise<void> {
    if (this.closing) return;
    this.closing = true;
    for (const session of [...this.live.values()]) session.close(STOPPED);
    this.frames.flush();
    try {
      await this.journal.close();
      await this.keeper.settled().catch(() => this.keeper.retried());
      await this.frames.sync();
    } finally {
      this.keeper.close();
      await this.frames.close().catch(() => {});
      // After a failed write LMDB's own close can wait for a flush that never comes.
      await Promise.race([
        this.environment.root.close(),
        new Promise((resolve) => setTimeout(resolve, this.stats.failed > 0 ? 2_000 : 30_000).unref()),
      ]);
      releaseShard(this.folder);
    }
  }

  private sessionEnded(session: RecordedSession, endedMicros: number, reason: string): void {
    this.live.delete(session.number);
    this.store({
      ...session.info,
      shard: this.shard,
      number: session.number,
      firstSegment: session.openSegment,
      firstBlock: session.firstBlock,
      endedMicros,
      lastSegment: this.journal.segment,
      lastBlock: this.frames.number,
      operations: session.operations,
      reason,
    });
  }

  private store(session: StoredSession): void {
    const key: [number, number] = [session.startedMillis, session.number];
    this.keeper.put(this.environment.sessions, key, session, 1_024);
    this.keeper.put(this.environment.ids, session.id, key, 128);
  }

  private settled(): void {
    if (!this.wasCongested || this.keeper.failure !== undefined) return;
    if (this.keeper.inFlightBytes + this.frames.waitingBytes > this.congestedBytes / 2) return;
    this.wasCongested = false;
    // Not from here: LMDB may call back from within a write, and so from within a session's own call.
    setImmediate(() => this.onRelieved());
  }

  private failed(error: Error, report: (error: Error) => void): void {
    this.stats.failed += 1;
    report(error);
  }

  /** LMDB writes in order, so once this is there, so is every session of the segments before. */
  private rotated(segment: number): void {
    if (this.keeper.failure === undefined) this.keeper.put(this.environment.meta, "synced", segment, 64);
  }

  private carry(): Buffer {
    const parts: Buffer[] = [];
    for (const session of this.live.values()) {
      parts.push(liveRecord(session.number, session.openSegment, session.openOffset));
      session.eachPending((request, place) => parts.push(pendingRecord(session.number, request, place.segment, place.offset)));
    }
    return Buffer.concat(parts);
  }

  private finishRecovery(recovered: Recovered): void {
    const { journal } = this;
    const lastBlock = this.frames.number - 1;
    const operations = new Map<number, number>();
    for (const [number, session] of recovered.live) {
      if (session.info !== undefined) journal.define(RECORD.session, 0, number, JSON.stringify(session.info));
    }
    for (const intent of recovered.pending.values()) {
      putUnknown(journal, intent.session, intent.request, intent);
      operations.set(intent.session, Math.max(operations.get(intent.session) ?? 0, intent.request));
    }
    const endedMicros = journal.nowMicros();
    for (const [number, session] of recovered.live) {
      const count = Math.max(operations.get(number) ?? 0, recovered.lastRequests.get(number) ?? 0);
      putStopped(journal, number, count, STOPPED);
      if (session.info === undefined) continue;
      const stored = this.environment.sessions.get([session.info.startedMillis, number]);
      this.store({
        ...session.info,
        shard: this.shard,
        number,
        firstSegment: session.segment,
        firstBlock: stored?.firstBlock ?? 0,
        endedMicros,
        lastSegment: journal.segment,
        lastBlock,
        operations: count,
        reason: STOPPED,
      });
    }
    for (const finding of [...recovered.findings, ...this.frames.findings])
      journal.event(endedMicros, JSON.stringify({ type: "control", detail: finding }));
    // The next segment's first block would repeat as pending what these records have just ended.
    journal.push(false);
    this.repairIndex(recovered, lastBlock);
  }

  /** Sessions that the journal knows and LMDB may have lost: its last transactions were not on disk when the process died. */
  private repairIndex(recovered: Recovered, lastBlock: number): void {
    for (const { number, segment, info, end } of recovered.seen.values()) {
      if (end === undefined) continue;
      const stored = this.environment.sessions.get([info.startedMillis, number]);
      if (stored?.endedMicros !== undefined) continue;
      this.store({
        ...info,
        shard: this.shard,
        number,
        firstSegment: segment,
        firstBlock: stored?.firstBlock ?? 0,
        endedMicros: end.micros,
        lastSegment: end.segment,
        lastBlock,
        operations: end.operations,
        reason: end.reason,
      });
    }
    if (recovered.ended.size === 0) return;
    for (const { key, value } of this.environment.sessions.getRange({})) {
      const end = recovered.ended.get(value.number);
      if (end === undefined || value.endedMicros !== undefined) continue;
      this.keeper.put(
        this.environment.sessions,
        key,
        { ...value, endedMicros: end.micros, lastSegment: end.segment, lastBlock, operations: end.operations, reason: end.reason },
        1_024,
      );
    }
  }
}

function carryRecovered(recovered: Recovered): Buffer {
  const parts: Buffer[] = [];
  for (const [number, session] of recovered.live) parts.push(liveRecord(number, session.segment, session.offset));
  for (const intent of recovered.pending.values()) parts.push(pendingRecord(intent.session, intent.request, intent.segment, intent.offset));
  return Buffer.concat(parts);
}

function liveRecord(number: number, segment: number, offset: number): Buffer {
  const record = Buffer.alloc(LIVE_BYTES);
  putHeader(new DataView(record.buffer, record.byteOffset, record.length), 0, LIVE_BYTES, RECORD.live, 0, 0);
  record.writeUInt32LE(number, 8);
  record.writeUInt32LE(segment, 12);
  record.writeUInt32LE(offset, 16);
  return record;
}

function pendingRecord(number: number, request: number, segment: number, offset: number): Buffer {
  const record = Buffer.alloc(PENDING_BYTES);
  putHeader(new DataView(record.buffer, record.byteOffset, record.length), 0, PENDING_BYTES, RECORD.pending, 0, 0);
  record.writeUInt32LE(number, 8);
  record.writeUInt32LE(request, 12);
  record.writeUInt32LE(segment, 16);
  record.writeUInt32LE(offset, 20);
  return record;
}
