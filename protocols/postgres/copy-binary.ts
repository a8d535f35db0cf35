import { SluiceError } from "../../core/errors.ts";
import { LIMITS } from "../../core/limits.ts";

/** PGCOPY\n\377\r\n\0 */
const SIGNATURE = Buffer.from([0x50, 0x47, 0x43, 0x4f, 0x50, 0x59, 0x0a, 0xff, 0x0d, 0x0a, 0x00]);
const HEADER_BYTES = SIGNATURE.length + 8;

export type BinaryPart = "header" | "row" | "trailer";

/**
 * Cuts the binary format of COPY (PostgreSQL documentation, COPY, Binary Format) into its parts:
 *
 *     | signature: 11 bytes | flags: int32 | length of the extension: int32 | extension |
 *     | fields: int16 | length: int32, -1 NULL | value | … |
 *     | -1: int16 |
 *
 * A part may come in pieces: no field of it is looked at twice.
 */
export class BinaryCutter {
  /** What the last cut() found. */
  part: BinaryPart = "header";
  /** The trailer has come. */
  ended = false;
  readonly #columns: number;
  #headed = false;
  /** Of the present row: whether its number of fields was read, fields to come, bytes looked at. */
  #counted = false;
  #fieldsLeft = 0;
  #at = 0;

  constructor(columns: number) {
    this.#columns = columns;
  }

  /** @returns where the part that begins at `start` ends; -1: not before `end` */
  cut(bytes: Uint8Array, start: number, end: number): number {
    if (this.ended) throw malformed();
    const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
    if (!this.#headed) return this.#header(view, bytes, start, end);
    if (!this.#counted) {
      if (end - start < 2) return -1;
      const fields = view.getInt16(start);
      if (fields === -1) {
        this.ended = true;
        this.part = "trailer";
        return start + 2;
      }
      if (fields !== this.#columns) throw malformed();
      this.#counted = true;
      this.#fieldsLeft = fields;
      this.#at = 2;
    }
    while (this.#fieldsLeft > 0) {
      if (end - start < this.#at + 4) return -1;
      const length = view.getInt32(start + this.#at);
      const next = this.#at + 4 + Math.max(length, 0);
      if (length < -1 || next > LIMITS.inspectedBackendMessageBytes) throw malformed();
      if (end - start < next) return -1;
      this.#at = next;
      this.#fieldsLeft -= 1;
    }
    this.#counted = false;
    this.part = "row";
    return start + this.#at;
  }

  #header(view: DataView, bytes: Uint8Array, start: number, end: number): number {
    if (end - start < HEADER_BYTES) return -1;
    if (Buffer.compare(bytes.subarray(start, start + SIGNATURE.length), SIGNATURE) !== 0) throw malformed();
    // The upper half is critical: what is not known there must not be read on. Bit 16 was once for OIDs in each row.
    if (view.getUint16(start + SIGNATURE.length) !== 0) throw malformed();
    const extension = view.getInt32(start + SIGNATURE.length + 4);
    if (extension < 0 || extension > LIMITS.inspectedBackendMessageBytes) throw malformed();
    if (end - start < HEADER_BYTES + extension) return -1;
    this.#headed = true;
    this.part = "header";
    return start + HEADER_BYTES + extension;
  }
}

const malformed = () => new SluiceError("SLUICE_PROTOCOL_VIOLATION", "the target sent binary COPY data that are not of that format");
