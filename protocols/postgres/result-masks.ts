import { SluiceError } from "../../core/errors.ts";
import { MaskCounts } from "./mask-counts.ts";
import type { Pending } from "./pending.ts";
import { actsAlways, type Columns, planColumns, RowMasker } from "./rows.ts";
import type { ColumnAction, SessionMasks } from "./values.ts";

const SEARCHED: ColumnAction = { kind: "scan", nullOnHit: false };

/** Masks the rows of a session's results, one result after the other. */
export class ResultMasks {
  readonly #rows = new RowMasker();
  readonly #counts = new MaskCounts();
  /** The result that arrives at present: what to do with its columns; undefined passes it. */
  #actions: (ColumnAction | undefined)[] | undefined;
  #actionsFor: Pending | undefined;
  #always = false;
  #masks: SessionMasks | undefined;
  /** The last plan of a result's columns, and what it was made from. */
  #planned: (ColumnAction | undefined)[] | undefined;
  #plannedColumns: Columns | undefined;
  #plannedFormats: Parameters<typeof planColumns>[1];
  #plannedMasks: SessionMasks | undefined;
  #plannedByColumn = false;
  #plannedAlways = false;

  /** Another chunk of bytes begins, or somebody else has used the prefilter. */
  newChunk(): void {
    this.#rows.newChunk();
  }

  /** The result is over. */
  over(): void {
    this.#actionsFor = undefined;
  }

  /** A result of these columns arrives. @param formats those that Bind asked for; undefined: the description's own */
  plan(head: Pending, columns: Columns, formats: Parameters<typeof planColumns>[1]): void {
    const masks = this.#use(head);
    const byColumn = head.decision?.masksColumns === true;
    if (
      columns !== this.#plannedColumns ||
      formats !== this.#plannedFormats ||
      masks !== this.#plannedMasks ||
      byColumn !== this.#plannedByColumn
    ) {
      this.#planned = planColumns(columns, formats, masks, byColumn);
      this.#plannedColumns = columns;
      this.#plannedFormats = formats;
      this.#plannedMasks = masks;
      this.#plannedByColumn = byColumn;
      this.#plannedAlways = this.#planned !== undefined && actsAlways(this.#planned);
    }
    this.#actions = this.#planned;
    this.#always = this.#plannedAlways;
    this.#actionsFor = head;
  }

  #use(head: Pending): SessionMasks {
    const masks = head.decision?.masks;
    if (masks === undefined) throw new SluiceError("SLUICE_INTERNAL", "masks are in force without a matcher");
    // What the prefilter of other masks said about this chunk says nothing about these.
    if (masks !== this.#masks) this.#rows.newChunk();
    this.#masks = masks;
    return masks;
  }

  /**
   * DataRow, bytes[start, end). @param available end of what is known of the chunk
   * @returns what goes out instead, valid until the next call; undefined: it passes as it is
   */
  row(head: Pending, bytes: Uint8Array, start: number, end: number, available: number): Uint8Array | undefined {
    if (this.#actionsFor !== head) this.#planExecute(head, bytes, start, end);
    const actions = this.#actions;
    const masks = this.#masks;
    if (actions === undefined || masks === undefined) return undefined;
    const rewritten = this.#rows.row(bytes, start, end, available, actions, masks, this.#always, this.#counts.of(head));
    if (rewritten !== undefined) this.#counts.keep(head);
    return rewritten;
  }

  /** Rows of the result that end before this of bytes[start, available) pass as they are; before its first row that is not known. */
  passUpTo(head: Pending, bytes: Uint8Array, start: number, available: number): number {
    if (this.#actionsFor !== head) return start;
    if (this.#actions === undefined || this.#masks === undefined) return available;
    return this.#always ? start : this.#rows.passUpTo(this.#masks, bytes, start, available);
  }

  /** The first row of an Execute: its columns are known from a Describe, or else every value is searched. */
  #planExecute(head: Pending, bytes: Uint8Array, start: number, end: number): void {
    const columns = head.statement?.columns;
    if (columns !== undefined) {
      this.plan(head, columns, head.portal?.formats ?? "text");
      return;
    }
    if (head.decision?.masksColumns === true || head.kind === "query") {
      throw new SluiceError("SLUICE_MASK_IMPOSSIBLE", "rows came without a description, so they cannot be masked");
    }
    this.#use(head);
    const count = end - start < 7 ? 0 : (bytes[start + 5] << 8) | bytes[start + 6];
    this.#actions = Array.from({ length: count }, () => SEARCHED);
    this.#always = false;
    this.#actionsFor = head;
  }
}
