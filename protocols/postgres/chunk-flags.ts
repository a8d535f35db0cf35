import type { Masker, Work } from "../../core/mask/types.ts";

/**
 * What the prefilter suspects in a chunk of bytes. It looks at the chunk once, ahead of what is asked for, and its answers are read in
 * order. The flags are the masker's, one list for all its users: whoever else may have used it in between calls newChunk().
 */
export class ChunkFlags {
  /** The prefilter has looked at the present chunk up to here. */
  #scanned: Uint8Array | undefined;
  #scannedUpTo = 0;
  /** Flags that it found, or -1: too many to tell; the next one that may matter. */
  #found = 0;
  #next = 0;

  /** Another chunk begins: what the prefilter said about the last one holds no more. */
  newChunk(): void {
    this.#scanned = undefined;
  }

  /** The prefilter has looked at what begins here. */
  covers(bytes: Uint8Array, start: number): boolean {
    return this.#scanned === bytes && start < this.#scannedUpTo;
  }

  /** The prefilter told all that it suspects, so that kinds() only has to look it up. */
  get complete(): boolean {
    return this.#found >= 0;
  }

  /**
   * Whether something is suspected in bytes[start, end).
   * @param available end of what is known of the chunk
   * @param work of the row that begins here; a chunk with others behind it is small
   */
  any(masker: Masker, bytes: Uint8Array, start: number, end: number, available: number, work: Work): boolean {
    return this.cleanUpTo(masker, bytes, start, available, work) < end;
  }

  /** Nothing is suspected before this of bytes[start, available); `start`: there may be something everywhere. */
  cleanUpTo(masker: Masker, bytes: Uint8Array, start: number, available: number, work: Work): number {
    if (!this.covers(bytes, start)) {
      this.#found = masker.scan(bytes, start, available, work);
      this.#scanned = bytes;
      this.#scannedUpTo = available;
      this.#next = 0;
    }
    if (this.#found < 0) return start;
    const { flags } = masker;
    while (this.#next < this.#found && flags[this.#next] < start) this.#next += 1;
    return this.#next < this.#found ? flags[this.#next] : available;
  }

  /** Kinds suspected in bytes[start, end), a part of what any() was asked about; parts are asked for in their order. */
  kinds(masker: Masker, bytes: Uint8Array, start: number, end: number, work: Work): number {
    if (this.#found < 0) return masker.kindsIn(bytes, start, end, work);
    const { flags, flagsMax } = masker;
    let kinds = 0;
    for (; this.#next < this.#found && flags[this.#next] < end; this.#next += 1) {
      if (flags[this.#next] >= start) kinds |= flags[flagsMax + this.#next];
    }
    return kinds;
  }
}
