import { performance } from "node:perf_hooks";
import { setTimeout as sleep } from "node:timers/promises";
import { decodeCursor, encodeCursor, type Position } from "./cursor.ts";
import { type Expanded, Expander } from "./expand.ts";
import { listSegments, listShards, segmentPath, shardFolder } from "./folder.ts";
import { SegmentCursor } from "./segment.ts";
import type { AuditEvent } from "./types.ts";

const BATCH_EVENTS = 256;
const POLL_MILLIS = 50;
/** A shard that had nothing new is not asked again sooner while others have events. */
const RETRY_MILLIS = 20;
/** A reader that is behind its writers, and so never without something to deliver, looks for new shards this often. */
const LIST_MILLIS = 500;

/** Reads one shard's events in order, through all its segments, while it may be written. */
export class ShardTail {
  readonly shard: number;
  private readonly folder: string;
  private readonly expander: Expander;
  private readonly lastSegment: number;
  private cursor: SegmentCursor | undefined;
  private segment: number;
  private after: number;

  /** @param options `only`: events of this session number; `lastSegment`: where to stop */
  constructor(folder: string, shard: number, start: Position, options: { readonly only?: number; readonly lastSegment?: number } = {}) {
    this.folder = folder;
    this.shard = shard;
    this.expander = new Expander(folder, options.only);
    this.lastSegment = options.lastSegment ?? Number.POSITIVE_INFINITY;
    this.segment = start.segment;
    this.after = start.offset;
  }

  /** The next events, at least one block's if there are any; empty: nothing new yet. */
  poll(): Expanded[] {
    const events: Expanded[] = [];
    while (events.length < BATCH_EVENTS) {
      this.cursor ??= this.openSegment();
      if (this.cursor === undefined) break;
      const block = this.cursor.next();
      if (block !== undefined) {
        for (const event of this.expander.block(block, this.segment, this.after)) events.push(event);
        continue;
      }
      // A later segment exists only after this one was finished, so one more look settles that nothing was missed.
      const next = listSegments(this.folder).find((segment) => segment > this.segment && segment <= this.lastSegment);
      if (next === undefined) break;
      const late = this.cursor.next();
      if (late !== undefined) {
        for (const event of this.expander.block(late, this.segment, this.after)) events.push(event);
        continue;
      }
      this.close();
      this.segment = next;
      this.after = 0;
    }
    return events;
  }

  close(): void {
    this.cursor?.close();
    this.cursor = undefined;
  }

  private openSegment(): SegmentCursor | undefined {
    const segments = listSegments(this.folder);
    const segment = segments.find((number) => number >= this.segment && number <= this.lastSegment);
    if (segment === undefined) return undefined;
    if (segment !== this.segment) this.after = 0;
    this.segment = segment;
    return new SegmentCursor(segmentPath(this.folder, segment), segment);
  }
}

export interface TailOptions {
  /** `cursor` of the last event that was processed; undefined: from the beginning. */
  readonly since?: string | undefined;
  /** Wait for more events at the end instead of returning. */
  readonly follow: boolean;
  /** Ends the iteration. */
  readonly signal?: AbortSignal | undefined;
}

/**
 * Audit events of all shards. Each shard's come in their order; shards are merged by time as far as they have been
 * written. Works beside a running gateway, which it neither locks nor slows, and takes in shards that appear later.
 * @throws SluiceError SLUICE_CONFIG_INVALID for a cursor that is none
 */
export async function* tailEvents(dataFolder: string, options: TailOptions): AsyncGenerator<AuditEvent, void, void> {
  const positions = options.since === undefined ? new Map<number, Position>() : decodeCursor(options.since);
  const shards = new Map<number, { readonly tail: ShardTail; queue: Expanded[]; next: number; emptyAt: number }>();
  try {
    let delivered = 0;
    let listedAt = Number.NEGATIVE_INFINITY;
    while (options.signal?.aborted !== true) {
      const now = performance.now();
      if (delivered === 0 || now - listedAt > LIST_MILLIS) {
        listedAt = now;
        for (const shard of listShards(dataFolder)) {
          if (shards.has(shard)) continue;
          const tail = new ShardTail(shardFolder(dataFolder, shard), shard, positions.get(shard) ?? { segment: 0, offset: 0 });
          shards.set(shard, { tail, queue: [], next: 0, emptyAt: Number.NEGATIVE_INFINITY });
        }
      }
      let first: { readonly tail: ShardTail; queue: Expanded[]; next: number } | undefined;
      for (const shard of shards.values()) {
        if (shard.next >= shard.queue.length) {
          if (delivered > 0 && now - shard.emptyAt < RETRY_MILLIS) continue;
          shard.queue = shard.tail.poll();
          shard.next = 0;
          if (shard.queue.length === 0) shard.emptyAt = now;
        }
        const head = shard.queue[shard.next];
        const best = first?.queue[first.next];
        if (head !== undefined && (best === undefined || head.micros < best.micros)) first = shard;
      }
      const chosen = first?.queue[first.next];
      if (first === undefined || chosen === undefined) {
        if (delivered > 0) {
          delivered = 0;
          continue;
        }
        if (!options.follow) return;
        await sleep(POLL_MILLIS, undefined, { signal: options.signal, ref: true }).catch(() => {});
        continue;
      }
      first.next += 1;
      delivered += 1;
      positions.set(first.tail.shard, { segment: chosen.segment, offset: chosen.end });
      yield { ...chosen.event, cursor: encodeCursor(positions) };
    }
  } finally {
    for (const { tail } of shards.values()) tail.close();
  }
}

/** The cursor after everything on record now, for a reader that wants only what comes. */
export function currentCursor(dataFolder: string): string {
  const positions = new Map<number, Position>();
  for (const shard of listShards(dataFolder)) {
    const folder = shardFolder(dataFolder, shard);
    const segment = listSegments(folder).at(-1);
    if (segment === undefined) continue;
    const cursor = new SegmentCursor(segmentPath(folder, segment), segment);
    while (cursor.next() !== undefined);
    positions.set(shard, { segment, offset: cursor.position });
    cursor.close();
  }
  return encodeCursor(positions);
}
