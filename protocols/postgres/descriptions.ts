import { Seen } from "../../core/bytes/copy.ts";
import { type Columns, readColumns } from "./rows.ts";

interface Known {
  readonly bytes: Seen;
  readonly columns: Columns;
}

const SHARED_MAX = 32;
/** Larger ones are a session's own. */
const SHARED_MAX_BYTES = 4_096;
/**
 * Those that this thread's sessions have seen of late. Columns are what the message says and nothing else, so sessions that ask for the
 * same share them: sixteen copies would be in no cache.
 */
const shared: Known[] = [];
let oldest = 0;

function known(bytes: Uint8Array, start: number, end: number): Known {
  for (const each of shared) if (each.bytes.is(bytes, start, end)) return each;
  const read: Known = { columns: readColumns(bytes, start, end), bytes: new Seen(bytes, start, end) };
  if (end - start > SHARED_MAX_BYTES) return read;
  shared[oldest] = read;
  oldest = (oldest + 1) % SHARED_MAX;
  return read;
}

/** Reads RowDescriptions; drivers ask for the same one over and over. */
export class Descriptions {
  #last: Known | undefined;

  /** bytes[start, end): a whole RowDescription. @throws SluiceError SLUICE_PROTOCOL_VIOLATION */
  columns(bytes: Uint8Array, start: number, end: number): Columns {
    let last = this.#last;
    if (last === undefined || !last.bytes.is(bytes, start, end)) {
      last = known(bytes, start, end);
      this.#last = last;
    }
    return last.columns;
  }
}
