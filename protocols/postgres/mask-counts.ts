import type { Pending } from "./pending.ts";

/** Masked values per rule, of one operation after the other. Most have none, so the map is only the operation's once it has. */
export class MaskCounts {
  #spare = new Map<string, number>();

  /** Where values masked in the response to this operation are counted; keep() follows. */
  of(head: Pending): Map<string, number> {
    return head.masked ?? this.#spare;
  }

  keep(head: Pending): void {
    if (head.masked !== undefined || this.#spare.size === 0) return;
    head.masked = this.#spare;
    this.#spare = new Map();
  }
}
