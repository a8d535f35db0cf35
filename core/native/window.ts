import { type JournalAddon, journalIfBuilt, type NativeWindow } from "./addons.ts";

/** Fields of the page, as journal.cc numbers them. */
const START = 0;
const TOTAL = 1;
const POSITION = 2;
const SEQUENCE = 3;
const PROBLEM = 4;
const FIELDS = 5;

/** A part of a file that is allocated and mapped, so that writing into it takes no system call and needs no more room. One thread's. */
export class MappedWindow {
  /** Bytes [base, end) of the file can be written; none where both are 0. */
  base = 0;
  end = 0;
  private readonly addon: JournalAddon;
  private readonly native: NativeWindow;
  private readonly page: Uint32Array;
  private attached: Uint8Array | undefined;

  private constructor(native: NativeWindow, page: Uint32Array, from: JournalAddon) {
    this.native = native;
    this.page = page;
    this.addon = from;
  }

  /** @returns undefined where there is no addon, or it cannot work here */
  static open(): MappedWindow | undefined {
    const addon = journalIfBuilt();
    if (addon === null) return undefined;
    const page = new Uint32Array(FIELDS);
    const native = addon.open(page);
    return native === undefined ? undefined : new MappedWindow(native, page, addon);
  }

  /**
   * Complete the header of the block [start, start + total) of `buffer` and copy the block to `position` of the file.
   * @returns 0, or an errno: then the file may hold a part of it, but not its header
   */
  append(buffer: Uint8Array, start: number, total: number, position: number, sequence: number): number {
    const { page } = this;
    if (buffer !== this.attached) {
      this.addon.attach(this.native, buffer);
      this.attached = buffer;
    }
    page[START] = start;
    page[TOTAL] = total;
    page[POSITION] = position;
    page[SEQUENCE] = sequence;
    this.native();
    return page[PROBLEM] as number;
  }

  /**
   * Allocate and map [position, position + bytes) of the file; what was mapped before that is no more.
   * @param spareBytes what must be free in the file system beyond that
   * @returns 0, or an errno: then the window is where it was
   */
  move(fd: number, position: number, bytes: number, spareBytes = 0): number {
    const problem = this.addon.move(this.native, fd, position, bytes, spareBytes);
    if (problem === 0) {
      this.base = position;
      this.end = position + bytes;
    }
    return problem;
  }

  release(): void {
    this.addon.release(this.native);
    this.base = 0;
    this.end = 0;
  }
}
