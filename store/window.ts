import { MappedWindow } from "../core/native/window.ts";

/** How far ahead of its last block a segment is allocated: a tenth of a second's blocks under full load. */
export const WINDOW_BYTES = 1024 * 1024;
/** With less than this free nothing is allocated ahead: what is left belongs to the blocks, and to the denials of all shards (reserve.ts). */
const SPARE_BYTES = 32 * 1024 * 1024;
/** A block that is not within the window and longer than this is cheaper to write with a system call. */
const LARGE_BYTES = WINDOW_BYTES / 4;

/** Where a segment's blocks can be put without a system call. Replaceable so that a test can make faults. */
export interface BlockWindow {
  /**
   * Complete the header of the block [start, start + total) of `buffer` and put the block at `position` of the file.
   * @returns false when there is no window for it: then the block must be written, header and all
   * @throws Error EIO when the file could not take it after all; a part of it may be there
   */
  append(fd: number, buffer: Buffer, start: number, total: number, position: number, sequence: number): boolean;
  /** The time has come to ask again a file system that had no room or could not do it. */
  retry(): void;
  /** Leave the file, which may then be cut or closed. It is longer than its last block until it is cut. */
  release(): void;
}

/** The window of the segment being written. It moves on before it is used up, after the current turn's work. */
export class SegmentWindow implements BlockWindow {
  private readonly mapped: MappedWindow | undefined = MappedWindow.open();
  private refused = false;
  private moveAt = 0;
  private last = 0;
  private ahead: NodeJS.Immediate | undefined;

  append(fd: number, buffer: Buffer, start: number, total: number, position: number, sequence: number): boolean {
    const { mapped } = this;
    if (mapped === undefined) return false;
    const last = position + total;
    if (last > mapped.end && (this.refused || total > LARGE_BYTES || !this.move(fd, position))) return false;
    const problem = mapped.append(buffer, start, total, position, sequence);
    if (problem !== 0) throw Object.assign(new Error(`EIO: the mapped journal cannot be written (errno ${problem})`), { code: "EIO" });
    this.last = last;
    if (last > this.moveAt) this.ahead ??= setImmediate(() => this.moveAhead(fd));
    return true;
  }

  retry(): void {
    this.refused = false;
  }

  release(): void {
    if (this.ahead !== undefined) clearImmediate(this.ahead);
    this.ahead = undefined;
    this.refused = false;
    this.mapped?.release();
  }

  private moveAhead(fd: number): void {
    this.ahead = undefined;
    if (!this.refused) this.move(fd, this.last);
  }

  private move(fd: number, position: number): boolean {
    this.refused = this.mapped?.move(fd, position, WINDOW_BYTES, SPARE_BYTES) !== 0;
    this.moveAt = this.refused ? Number.POSITIVE_INFINITY : position + (WINDOW_BYTES / 4) * 3;
    return !this.refused;
  }
}
