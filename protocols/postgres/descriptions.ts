import { copyOf, sameBytes } from "../../core/bytes/copy.ts";
import { type Columns, readColumns } from "./rows.ts";

/** Reads RowDescriptions; drivers ask for the same one over and over. */
export class Descriptions {
  #last: Uint8Array = new Uint8Array(0);
  #columns: Columns | undefined;

  /** bytes[start, end): a whole RowDescription. @throws SluiceError SLUICE_PROTOCOL_VIOLATION */
  columns(bytes: Uint8Array, start: number, end: number): Columns {
    if (this.#columns === undefined || !sameBytes(bytes, start, end, this.#last)) {
      this.#columns = readColumns(bytes, start, end);
      this.#last = copyOf(bytes, start, end);
    }
    return this.#columns;
  }
}
