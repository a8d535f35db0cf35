import { randomBytes } from "node:crypto";
import fs from "node:fs";
import { promisify } from "node:util";
import { checksum } from "../core/native/checksum.ts";
import { setDirect } from "../core/native/direct.ts";
import { errorCode, framesPath } from "./folder.ts";
import { ShortWrite } from "./start.ts";

/**
 * Layout of a frames segment: a run of blocks, each of whole pages, little-endian.
 *
 * Block
 *    0  u32  magic 0x4d524653 ("SFRM")
 *    4  u32  CRC-32 (zlib) of bytes [8, 24 + length)
 *    8  u32  length of the payload
 *   12  u32  number of the block in its shard, ascending through all segments
 *   16  8    the segment's mark, random: recorded bytes, which others choose, can never pass for a block
 *   24       payload: frames (frames.ts), then zeros up to the page's end
 */
export const FRAMES_MAGIC = 0x4d524653;
export const FRAMES_HEADER_BYTES = 24;
export const MARK_BYTES = 8;
export const PAGE_BYTES = 4_096;
/** The largest block; frames are gathered into blocks of this size. */
export const FRAMES_BLOCK_BYTES = 65_536;
/** A block's place in the file has room for what is in it and the rest of a page. */
export const pagesFor = (payloadBytes: number): number => Math.ceil((FRAMES_HEADER_BYTES + payloadBytes) / PAGE_BYTES) * PAGE_BYTES;

const SYNC_MILLIS = 1_000;

/** A block on its way to the file. Reused. */
export interface FrameBlock {
  readonly buffer: Buffer;
  readonly view: DataView;
  number: number;
  /** Header and payload. */
  end: number;
  /** Numbers of the sessions that have frames in it. */
  owners: number[];
}

/** Where a group of blocks was written. */
export interface WrittenAt {
  readonly segment: number;
  readonly mark: Buffer;
  readonly offset: number;
}

export type WriteBuffers = (fd: number, buffers: Buffer[], position: number, done: (error: Error | null, written: number) => void) => void;

/**
 * Appends blocks to a shard's frames segments on libuv's threads; one group at a time, so that they stand in order. A
 * segment is never continued by another writer, nor after a failure: it is cut to its last good block and left.
 */
export class FrameFile {
  private readonly folder: string;
  private readonly segmentBytes: number;
  private readonly onSyncFailed: (error: Error) => void;
  private readonly writeBuffers: WriteBuffers;
  private segment: number;
  private fd = -1;
  private mark: Buffer = Buffer.alloc(MARK_BYTES);
  private position = 0;
  /** The file's system takes writes past the page cache, as far as is known. */
  private takesDirect = false;
  /** What is written now goes past the page cache. */
  private direct = false;
  private dirty = false;
  /** A group is on its way: its descriptor must not be closed. */
  private busy = false;
  private onIdle: () => void = () => {};
  /** A sync failed while a group was on its way. */
  private suspect = false;
  private fresh = false;
  private timer: NodeJS.Timeout | undefined;
  /** Syncs and closes, one after the other: no descriptor is closed under its sync. */
  private later: Promise<void> = Promise.resolve();

  /** @param segment number of the first segment to write; none of that number or above exists */
  constructor(
    folder: string,
    segment: number,
    segmentBytes: number,
    onSyncFailed: (error: Error) => void,
    writeBuffers: WriteBuffers = fs.writev,
  ) {
    this.folder = folder;
    this.segment = segment;
    this.segmentBytes = segmentBytes;
    this.onSyncFailed = onSyncFailed;
    this.writeBuffers = writeBuffers;
  }

  /**
   * Write a group, past the page cache where that can be: copying into pages that the kernel has to find first costs several times as
   * much as everything else here. Not again before `done`. After an error nothing of the group counts as written.
   * @param behind the disk is: the page cache takes it faster, as long as it has room
   */
  write(blocks: readonly FrameBlock[], behind: boolean, done: (error: Error | undefined, at: WrittenAt) => void): void {
    if (this.position >= this.segmentBytes) this.leave();
    this.busy = true;
    const ended: typeof done = (error, at) => {
      this.busy = false;
      done(error, at);
      this.onIdle();
    };
    if (this.fd >= 0) {
      this.append(blocks, behind, ended);
      return;
    }
    const path = framesPath(this.folder, this.segment);
    fs.open(path, "wx", 0o600, (error, fd) => {
      if (error !== null) {
        // Whatever stands there is not this writer's.
        this.segment += 1;
        ended(error, this.at(0));
        return;
      }
      this.fd = fd;
      this.direct = setDirect(fd, true);
      this.takesDirect = this.direct;
      this.mark = randomBytes(MARK_BYTES);
      this.position = 0;
      this.fresh = true;
      this.append(blocks, behind, ended);
    });
  }

  /** Wait until everything written is on the disk. @throws what fdatasync says */
  sync(): Promise<void> {
    const { fd, fresh } = this;
    if (!this.dirty || fd < 0) return this.later;
    this.dirty = false;
    this.fresh = false;
    const synced = this.later.then(async () => {
      await fdatasync(fd);
      if (fresh) await syncFolder(this.folder);
    });
    this.later = synced.catch((error: unknown) => {
      // After a failed sync the kernel may have dropped what it could not write: this file is not trusted any more.
      if (fd === this.fd) {
        if (this.busy) this.suspect = true;
        else this.leave();
      }
      this.onSyncFailed(error instanceof Error ? error : new Error(String(error)));
    });
    return synced;
  }

  async close(): Promise<void> {
    clearTimeout(this.timer);
    this.timer = undefined;
    try {
      if (this.busy)
        await new Promise<void>((resolve) => {
          this.onIdle = resolve;
        });
      await this.sync();
    } finally {
      this.leave();
      await this.later;
    }
  }

  private append(blocks: readonly FrameBlock[], behind: boolean, done: (error: Error | undefined, at: WrittenAt) => void): void {
    let total = 0;
    const buffers: Buffer[] = [];
    for (const block of blocks) {
      const bytes = pagesFor(block.end - FRAMES_HEADER_BYTES);
      this.seal(block, bytes);
      buffers.push(bytes === block.buffer.length ? block.buffer : block.buffer.subarray(0, bytes));
      total += bytes;
    }
    const direct = this.takesDirect && !behind;
    if (direct !== this.direct && setDirect(this.fd, direct)) this.direct = direct;
    this.put(buffers, total, done);
  }

  private put(buffers: Buffer[], total: number, done: (error: Error | undefined, at: WrittenAt) => void): void {
    const offset = this.position;
    this.writeBuffers(this.fd, buffers, offset, (error, written) => {
      // The file grew, for good or bad.
      this.dirty = true;
      if (error === null && written === total && !this.suspect) {
        this.position = offset + total;
        this.timer ??= setTimeout(() => this.syncDue(), SYNC_MILLIS).unref();
        done(undefined, this.at(offset));
        return;
      }
      if (this.direct && !this.suspect && isUntaken(error) && setDirect(this.fd, false)) {
        this.direct = false;
        this.takesDirect = false;
        this.put(buffers, total, done);
        return;
      }
      const cause = error ?? (this.suspect ? new Error("the file could not be synced") : new ShortWrite(written, total));
      this.leave();
      done(cause, this.at(offset));
    });
  }

  /** Complete the header, and clear what an earlier block left behind the end. */
  private seal({ buffer, view, number, end }: FrameBlock, bytes: number): void {
    if (end < bytes) buffer.fill(0, end, bytes);
    view.setUint32(0, FRAMES_MAGIC, true);
    view.setUint32(8, end - FRAMES_HEADER_BYTES, true);
    view.setUint32(12, number, true);
    buffer.set(this.mark, 16);
    view.setUint32(4, checksum(buffer, 8, end), true);
  }

  private at(offset: number): WrittenAt {
    return { segment: this.segment, mark: this.mark, offset };
  }

  /** Begin a new segment with the next write; this one ends with its last good block. */
  private leave(): void {
    const { fd, position, dirty, fresh } = this;
    if (fd < 0) return;
    const path = framesPath(this.folder, this.segment);
    this.fd = -1;
    this.position = 0;
    this.dirty = false;
    this.suspect = false;
    this.segment += 1;
    this.later = this.later.then(async () => {
      try {
        if (position === 0) await unlink(path);
        else {
          await ftruncate(fd, position);
          if (dirty) await fdatasync(fd);
          if (fresh) await syncFolder(this.folder);
        }
      } catch (error) {
        this.onSyncFailed(error instanceof Error ? error : new Error(String(error)));
      }
      fs.close(fd, () => {});
    });
  }

  private syncDue(): void {
    this.timer = undefined;
    // Reported already.
    this.sync().catch(() => {});
  }
}

/**
 * Whether a direct write ended in a way that may come of its being direct: the disk wants other alignment than pages, or the file
 * system offers no such writes after all, or takes a part at a time. No other error is tried again: after EIO the page cache
 * would only put off the bad news.
 */
const isUntaken = (error: Error | null): boolean => error === null || ["EINVAL", "EOPNOTSUPP", "ENOTSUP"].includes(errorCode(error));

const fdatasync = (fd: number): Promise<void> =>
  new Promise((resolve, reject) => fs.fdatasync(fd, (error) => (error === null ? resolve() : reject(error))));
const ftruncate = promisify(fs.ftruncate);
const unlink = promisify(fs.unlink);

/** A new file's name is on the disk only with its folder. */
async function syncFolder(folder: string): Promise<void> {
  const handle = await fs.promises.open(folder, "r");
  try {
    await handle.sync();
  } finally {
    await handle.close();
  }
}
