import { SluiceError } from "../../core/errors.ts";
import { type CopyMasker, createCopyMasker } from "./copy-masker.ts";
import { MaskCounts } from "./mask-counts.ts";
import type { Pending } from "./pending.ts";

const LF = 0x0a;
/** Of the CopyData message that ends COPY in binary format: a field count of -1. */
const TRAILER_LENGTH = 6;

/** The COPY TO STDOUT whose data arrive at present, if one does. */
export class CopyOutReader {
  #copy: CopyMasker | "passes" | undefined;
  readonly #counts = new MaskCounts();
  /** The first line is a header. */
  #headerAwaited = false;
  #binary = false;

  /** Its data are on their way: no other result has rows now. */
  get underWay(): boolean {
    return this.#copy !== undefined;
  }

  /** A message of this length is a row that passes as it comes. */
  passes(length: number): boolean {
    return this.#copy === "passes" && !this.#headerAwaited && !(this.#binary && length === TRAILER_LENGTH);
  }

  /** Rows that end before this of bytes[start, available), and with passesEnding, pass as they come. */
  passUpTo(bytes: Uint8Array, start: number, available: number): number {
    if (typeof this.#copy === "object") return this.#copy.passUpTo(bytes, start, available);
    // In binary format a trailer may be among them.
    return this.#copy === "passes" && !this.#headerAwaited && !this.#binary ? available : start;
  }

  /** The last byte of a message that holds whole rows; -1: each is one. */
  get passesEnding(): number {
    return typeof this.#copy === "object" ? LF : -1;
  }

  /** Its data are masked, or what comes now is no row, so a message is read whole. */
  get readsWhole(): boolean {
    return typeof this.#copy === "object" || this.#headerAwaited;
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
    this.#binary = bytes[start + 5] === 1;
    const format = head.classified?.copies[number]?.format;
    this.#headerAwaited = typeof format === "object" && format.header && !this.#binary;
    if (!head.masks) return;
    const copies = head.decision?.copies;
    // Everything that runs was planned: what was not is not known, and cannot be masked.
    if (copies === undefined || number >= copies.length)
      throw new SluiceError("SLUICE_MASK_IMPOSSIBLE", "COPY data came that no statement asks for, so they cannot be masked");
    const plan = copies[number];
    if (plan === undefined) return;
    this.#headerAwaited = false;
    this.#copy = createCopyMasker(plan, bytes[start + 5], columns);
  }

  /** CopyData. @returns undefined: it passes as it is; else what goes out instead; empty: nothing yet */
  data(head: Pending | undefined, bytes: Uint8Array, start: number, end: number, available: number): Uint8Array | undefined {
    const copy = this.#copy;
    if (copy === undefined || head === undefined)
      throw new SluiceError("SLUICE_PROTOCOL_VIOLATION", "the target sent an unexpected CopyData");
    if (copy === "passes") {
      const ends = this.#binary && end - start === TRAILER_LENGTH + 1 && bytes[start + 5] === 0xff && bytes[start + 6] === 0xff;
      if (!this.#headerAwaited && !ends) head.rows += 1;
      this.#headerAwaited = false;
      return undefined;
    }
    const masked = copy.message(bytes, start, end, available, this.#counts.of(head));
    head.rows += copy.rows;
    this.#counts.keep(head);
    return masked;
  }

  /** CopyDone. @throws SluiceError SLUICE_PROTOCOL_VIOLATION when a row is not whole */
  done(): void {
    if (typeof this.#copy === "object") this.#copy.end();
    this.stop();
  }

  /** The operation is over, however it ended. */
  stop(): void {
    this.#copy = undefined;
    this.#headerAwaited = false;
  }
}
