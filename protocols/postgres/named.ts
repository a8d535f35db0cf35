import { leavesBlock } from "./effects.ts";
import type { Relay } from "./relay.ts";
import type { Classified } from "./sql/types.ts";
import type { Portal } from "./statements.ts";

/** What an operation stands for that names a prepared statement or a cursor of this session. */
export class NamedOperations {
  readonly #relay: Relay;
  readonly #joins = new WeakMap<Classified, WeakMap<Classified, Classified>>();

  constructor(relay: Relay) {
    this.#relay = relay;
  }

  /** Statements that carry out others (EXECUTE, FETCH) are judged together with those. */
  withNamed(classified: Classified, depth = 0): Classified {
    const names = this.#relay.names;
    let effective = classified;
    for (const effect of classified.effects) {
      if (effect.kind === "execute") {
        const inner = names.statements.get(effect.name)?.classified;
        if (inner === undefined) return { ...classified, refusal: `prepared statement "${effect.name}" was not made in this session` };
        // The protocol can prepare an EXECUTE or FETCH as well.
        if (depth > 2) return { ...classified, refusal: "EXECUTE of a statement that is itself an EXECUTE, too deep" };
        effective = this.#joined(effective, this.withNamed(inner, depth + 1));
      } else if (effect.kind === "fetch") {
        const inner = names.portals.get(effect.name)?.statement.classified;
        if (inner !== undefined) effective = this.#joined(effective, inner);
        // A cursor may be declared earlier in the same message.
        for (const other of classified.effects) {
          if (other.kind === "declare" && other.name === effect.name) effective = this.#joined(effective, other.inner);
        }
        if (effective === classified && effect.returnsRows && this.#relay.policy.masks.length > 0) {
          return {
            ...classified,
            refusal: `cursor "${effect.name}" was not declared in this session, and a mask applies to what it would return`,
          };
        }
      }
    }
    return effective;
  }

  /** Whether a name stands for something that the server may not hold: a change of it, sent earlier, may have been skipped. */
  uncertain(classified: Classified, depth = 0): boolean {
    const { names } = this.#relay;
    for (const effect of classified.effects) {
      if (effect.kind !== "execute" && effect.kind !== "fetch") continue;
      const found = effect.kind === "execute" ? names.statements.find(effect.name) : names.portals.find(effect.name);
      if (found === undefined) continue;
      if (!found.holdsIn(names.pipeline)) return true;
      const value = found.value;
      const inner = value === undefined ? undefined : "statement" in value ? value.statement.classified : value.classified;
      if (inner !== undefined && depth < 3 && this.uncertain(inner, depth + 1)) return true;
    }
    return false;
  }

  /**
   * The server looked a portal's names up when it was bound or declared. If search_path is another one by now, or was not
   * known then, they may mean any relation of that name.
   */
  movedPath(classified: Classified, portal: Portal | undefined): boolean {
    const path = this.#relay.searchPath.value;
    if (portal !== undefined && !samePath(portal.searchPath, path)) return true;
    // Behind the block's end in the same message another path may be in force.
    if (classified.statements > 1 && this.#relay.searchPath.boundToBlock && classified.effects.some(leavesBlock)) return true;
    for (const effect of classified.effects) {
      if (effect.kind !== "fetch") continue;
      const cursor = this.#relay.names.portals.get(effect.name);
      if (cursor !== undefined && !samePath(cursor.searchPath, path)) return true;
    }
    return false;
  }

  #joined(outer: Classified, inner: Classified): Classified {
    let byInner = this.#joins.get(outer);
    if (byInner === undefined) {
      byInner = new WeakMap();
      this.#joins.set(outer, byInner);
    }
    let joined = byInner.get(inner);
    if (joined === undefined) {
      joined = withInner(outer, inner);
      byInner.set(inner, joined);
    }
    return joined;
  }
}

/** Unknown is not even the same as unknown. */
function samePath(a: readonly string[] | undefined, b: readonly string[] | undefined): boolean {
  if (a === b) return a !== undefined;
  return a !== undefined && b !== undefined && a.length === b.length && a.every((schema, index) => schema === b[index]);
}

/** `EXECUTE name` and `FETCH … FROM name` carry out what was prepared or declared: judged as both together. */
function withInner(outer: Classified, inner: Classified): Classified {
  const both = (of: (each: Classified) => readonly string[]) => [...of(outer), ...of(inner)];
  return {
    accesses: [...outer.accesses, ...inner.accesses],
    statements: outer.statements,
    unfiltered: outer.unfiltered || inner.unfiltered,
    columns: both((each) => each.columns),
    functions: both((each) => each.functions),
    effects: [...outer.effects, ...inner.effects],
    columnUse: {
      plain: both((each) => each.columnUse.plain),
      star: outer.columnUse.star || inner.columnUse.star,
      expressions: both((each) => each.columnUse.expressions),
      predicates: both((each) => each.columnUse.predicates),
      origins: [...outer.columnUse.origins, ...inner.columnUse.origins],
    },
    copy: outer.copy === "none" ? inner.copy : outer.copy,
    copies: [...outer.copies, ...inner.copies],
    explains: outer.explains || inner.explains,
    returnsRows: outer.returnsRows || inner.returnsRows,
    secrets: [],
    refusal: outer.refusal ?? inner.refusal,
    empty: false,
  };
}
