import type { Decision, Moves } from "./decide.ts";
import type { Classified } from "./sql/types.ts";
import type { Change, Portal, PreparedStatement } from "./statements.ts";

/**
 * One client message that awaits its answer. The server answers in order, so the head of the queue says what a
 * backend message belongs to (PostgreSQL documentation, "Message Flow"). `ask` is all that Sluice asks on its own (doubt.ts).
 */
export type PendingKind = "query" | "parse" | "bind" | "describe" | "execute" | "close" | "sync" | "ask";

/** Rows of the result are counted, and it may be cut … */
export const LIMITED = 1;
/** … and what it does besides must then be undone. */
export const LIMITED_CAREFULLY = 2;

export class Pending {
  kind: PendingKind = "sync";
  /** Number of the operation on record; 0: none. */
  request = 0;
  decision: Decision | undefined;
  /** What runs, where that has session effects to carry out at its end. */
  classified: Classified | undefined;
  statement: PreparedStatement | undefined;
  /** What Execute runs. */
  portal: Portal | undefined;
  /** What it makes of names, if the server carries it out. */
  change: Change | undefined;
  rows = 0;
  /** Bytes of Bind parameters kept for it. */
  parameterBytes = 0;
  /** Its rows go through a mask. */
  masks = false;
  /** Sluice asked for this itself (Describe for its own use): its answer does not go to the client. */
  own = false;
  /** What most messages have none of: an entry is written anew for each, so it is to be small. */
  #rare: Rare | undefined;

  /** The ErrorResponse that the client gets instead of the server's: this message was refused. */
  get refusal(): Uint8Array | undefined {
    return this.#rare?.refusal;
  }

  set refusal(refusal: Uint8Array | undefined) {
    if (refusal !== this.refusal) this.#some.refusal = refusal;
  }

  get failed(): Failed | undefined {
    return this.#rare?.failed;
  }

  set failed(failed: Failed | undefined) {
    if (failed !== this.failed) this.#some.failed = failed;
  }

  get masked(): Map<string, number> | undefined {
    return this.#rare?.masked;
  }

  set masked(masked: Map<string, number> | undefined) {
    if (masked !== this.masked) this.#some.masked = masked;
  }

  /** What it may do to search_path and role unseen; search_path counts as unknown since it was sent. */
  get moves(): Moves {
    return this.#rare === undefined ? 0 : this.#rare.moves;
  }

  set moves(moves: Moves) {
    if (moves !== this.moves) this.#some.moves = moves;
  }

  /** It ends a block, or goes back in it, that search_path depends on; as above. */
  get leaves(): boolean {
    return this.#rare !== undefined && this.#rare.leaves;
  }

  set leaves(leaves: boolean) {
    if (leaves !== this.leaves) this.#some.leaves = leaves;
  }

  /** COPY TO STDOUT that it has begun. */
  get copies(): number {
    return this.#rare === undefined ? 0 : this.#rare.copies;
  }

  set copies(copies: number) {
    if (copies !== this.copies) this.#some.copies = copies;
  }

  get limited(): Limited {
    return this.#rare === undefined ? 0 : this.#rare.limited;
  }

  set limited(limited: Limited) {
    if (limited !== this.limited) this.#some.limited = limited;
  }

  get #some(): Rare {
    this.#rare ??= new Rare();
    return this.#rare;
  }

  /** Let go of everything large, and of what only some messages have; clear() does the rest. */
  release(): void {
    this.decision = undefined;
    this.classified = undefined;
    this.statement = undefined;
    this.portal = undefined;
    this.change = undefined;
    this.#rare = undefined;
  }

  /** @param kind of the message that this released entry stands for now */
  clear(kind: PendingKind): this {
    this.kind = kind;
    this.request = 0;
    this.rows = 0;
    this.parameterBytes = 0;
    this.masks = false;
    this.own = false;
    return this;
  }
}

type Failed = { code: string; message: string };
type Limited = 0 | typeof LIMITED | typeof LIMITED_CAREFULLY;

class Rare {
  refusal: Uint8Array | undefined;
  failed: Failed | undefined;
  masked: Map<string, number> | undefined;
  moves: Moves = 0;
  leaves = false;
  copies = 0;
  limited: Limited = 0;
}

/**
 * First in, first out, over reused entries: for most messages nothing is allocated once the pipeline has reached its usual depth. What
 * is written to an entry behind its shift() may be found in the next one.
 */
export class PendingQueue {
  #head = 0;
  #size = 0;
  /** The ring's entry 0, which is the head whenever the queue was empty before: no way through the array for it. */
  #first = new Pending();
  #ring: Pending[] = [this.#first, new Pending(), new Pending(), new Pending()];

  get size(): number {
    return this.#size;
  }

  head(): Pending | undefined {
    return this.#size === 0 ? undefined : this.#front;
  }

  get #front(): Pending {
    return this.#head === 0 ? this.#first : this.#ring[this.#head];
  }

  at(index: number): Pending {
    return this.#ring[(this.#head + index) & (this.#ring.length - 1)];
  }

  push(kind: PendingKind): Pending {
    if (this.#size === 0) {
      this.#size = 1;
      return this.#first.clear(kind);
    }
    if (this.#size === this.#ring.length) this.#grow();
    const entry = this.#ring[(this.#head + this.#size) & (this.#ring.length - 1)];
    this.#size += 1;
    return entry.clear(kind);
  }

  shift(): void {
    // The ring must not keep what its entries have stood for.
    this.#front.release();
    this.#size -= 1;
    // From the beginning again once it is empty: the same few entries are in the caches.
    this.#head = this.#size === 0 ? 0 : (this.#head + 1) & (this.#ring.length - 1);
  }

  #grow(): void {
    const ring: Pending[] = [];
    for (let index = 0; index < this.#size; index += 1) ring.push(this.at(index));
    while (ring.length < this.#size * 2) ring.push(new Pending());
    this.#ring = ring;
    this.#first = ring[0];
    this.#head = 0;
  }
}
