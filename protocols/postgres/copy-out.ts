import { SluiceError } from "../../core/errors.ts";
import { type CopyMasker, createCopyMasker } from "./copy-masker.ts";
import type { Pending } from "./pending.ts";

/** The COPY TO STDOUT whose data arrive at present, if one does. */
export class CopyOutReader {
  #copy: CopyMasker | "passes" | undefined;
  /** Masked values per rule of the next operation that has any. */
  #counts = new Map<string, number>();

  /** Its data pass as they come. */
  get passes(): boolean {
    return this.#copy === "passes";
  }

  /** Its data are masked, so each message is read whole. */
  get masks(): boolean {
    return typeof this.#copy === "object";
  }

  newChunk(): void {
    if (typeof this.#copy === "object") this.#copy.newChunk();
  }

  /**
   * CopyOutResponse, bytes[start, end): `| 'H' | length: int32 | format: int8 | columns: int16 | format: int16 | … |`.
   * @throws SluiceError SLUICE_PROTOCOL_VIOLATION, SLUICE_MASK_IMPOSSIBLE
   */
  begin(head: Pending, bytes: Uint8Array, start: number, end: number): void {
    const columns = end - start < 8 ? -1 : (bytes[start + 6] << 8) | bytes[start + 7];
    if (end - start !== 8 + columns * 2) throw new SluiceError("SLUICE_PROTOCOL_VIOLATION", "the target sent a malformed CopyOutResponse");
    const number = head.copies;
    head.copies += 1;
    this.#copy = "passes";
    if (!head.masks) return;
    const copies = head.decision?.copies;
    // Everything that runs was planned: what was not is not known, and cannot be masked.
    if (copies === undefined || number >= copies.length)
      throw new SluiceError("SLUICE_MASK_IMPOSSIBLE", "COPY data came that no statement asks for, so they cannot be masked");
    const plan = copies[number];
    if (plan !== undefined) this.#copy = createCopyMasker(plan, bytes[start + 5], columns);
  }

  /** CopyData. @returns undefined: it passes as it is; else what goes out instead; empty: nothing yet */
  data(head: Pending | undefined, bytes: Uint8Array, start: number, end: number, available: number): Uint8Array | undefined {
    const copy = this.#copy;
    if (copy === undefined || head === undefined)
      throw new SluiceError("SLUICE_PROTOCOL_VIOLATION", "the target sent an unexpected CopyData");
    if (copy === "passes") {
      head.rows += 1;
      return undefined;
    }
    const counts = head.masked ?? this.#counts;
    const masked = copy.message(bytes, start, end, available, counts);
    head.rows += copy.rows;
    if (head.masked === undefined && counts.size > 0) {
      head.masked = counts;
      this.#counts = new Map();
    }
    return masked;
  }

  /** CopyDone. @throws SluiceError SLUICE_PROTOCOL_VIOLATION when a row is not whole */
  done(): void {
    if (typeof this.#copy === "object") this.#copy.end();
    this.#copy = undefined;
  }

  /** The operation is over, however it ended. */
  stop(): void {
    this.#copy = undefined;
  }
}
