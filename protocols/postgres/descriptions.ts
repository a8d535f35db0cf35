import { type Made, Recent } from "../../core/bytes/copy.ts";
import { type Columns, readColumns } from "./rows.ts";

const recent = new Recent(readColumns);

/** Reads RowDescriptions; drivers ask for the same one over and over. */
export class Descriptions {
  #last: Made<Columns> | undefined;

  /** bytes[start, end): a whole RowDescription. @throws SluiceError SLUICE_PROTOCOL_VIOLATION */
  columns(bytes: Uint8Array, start: number, end: number): Columns {
    if (this.#last?.bytes.is(bytes, start, end) !== true) this.#last = recent.get(bytes, start, end);
    return this.#last.value;
  }
}
