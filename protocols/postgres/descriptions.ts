import { Seen } from "../../core/bytes/copy.ts";
import { type Columns, readColumns } from "./rows.ts";

/** Reads RowDescriptions; drivers ask for the same one over and over. */
export class Descriptions {
  #last: Seen | undefined;
  #columns: Columns | undefined;

  /** bytes[start, end): a whole RowDescription. @throws SluiceError SLUICE_PROTOCOL_VIOLATION */
  columns(bytes: Uint8Array, start: number, end: number): Columns {
    if (this.#columns === undefined || this.#last?.is(bytes, start, end) !== true) {
      this.#columns = readColumns(bytes, start, end);
      this.#last = new Seen(bytes, start, end);
    }
    return this.#columns;
  }
}
