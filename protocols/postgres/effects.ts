import type { Pending } from "./pending.ts";
import type { Relay } from "./relay.ts";
import type { Classified, SessionEffect } from "./sql/types.ts";
import { type Change, type PreparedStatement, together } from "./statements.ts";

const NO_BYTES = new Uint8Array(0);

const madeInSql = (classified: Classified, text: string): PreparedStatement => ({
  classified,
  text,
  record: { text, storeSlot: -1 },
  columns: undefined,
  describedIn: undefined,
  describedAt: 0,
});

/** True for effects that may change how names are looked up. */
export const movesSearchPath = (effect: SessionEffect): boolean =>
  effect.kind === "search_path" || effect.kind === "reset_all" || effect.kind === "discard";

/** True for effects that end a transaction block, or undo a part of it, with the settings made in it. */
export const leavesBlock = (effect: SessionEffect): boolean =>
  effect.kind === "transaction" && ["commit", "rollback", "rollback_to", "prepare"].includes(effect.verb);

/** An operation with session effects goes to the server: take the stricter reading until the answer is there. */
export function sentEffects(relay: Relay, entry: Pending, classified: Classified): void {
  entry.leaves = relay.searchPath.boundToBlock && classified.effects.some(leavesBlock);
  if (entry.leaves) relay.searchPath.sent();
  const changes: Change[] = [];
  for (const effect of classified.effects) {
    if (movesSearchPath(effect)) relay.searchPath.sent();
    switch (effect.kind) {
      case "prepare":
        changes.push(relay.names.setStatement(effect.name, madeInSql(effect.inner, `EXECUTE ${effect.name}`)));
        break;
      case "deallocate":
        if (effect.name !== undefined) changes.push(relay.names.deleteStatement(effect.name));
        else for (const name of relay.names.statements.keys()) changes.push(relay.names.deleteStatement(name));
        break;
      case "discard":
        if (effect.what === "all") for (const name of relay.names.statements.keys()) changes.push(relay.names.deleteStatement(name));
        break;
      case "declare":
        changes.push(
          relay.names.setPortal(effect.name, {
            statement: madeInSql(effect.inner, `FETCH FROM ${effect.name}`),
            parameters: NO_BYTES,
            parametersStart: 0,
            parametersEnd: 0,
            formats: "text",
            searchPath: relay.searchPath.value,
          }),
        );
        break;
      case "close_cursor":
        for (const name of effect.name === undefined ? relay.names.portals.keys() : [effect.name])
          changes.push(relay.names.deletePortal(name));
        break;
      case "create_temp":
        relay.addTemporary(effect.name);
        break;
      case "ddl":
        relay.schemaChanges += 1;
        break;
      default:
    }
  }
  entry.change = together(changes);
}

export const changesSchema = (classified: Classified): boolean => classified.effects.some((effect) => effect.kind === "ddl");

/** A schema change of something besides a relation: a function, a type, an operator, an extension … */
export const changesObjects = (classified: Classified): boolean =>
  changesSchema(classified) && classified.accesses.some((access) => access.others.length > 0);

/**
 * The server has answered a message with effects. Collected until ReadyForQuery, because only then is it known whether
 * the (implicit) transaction held.
 */
export class EffectsSinceReady {
  /** Any of the fields below, schemaChanged apart, is not as it was made. */
  #any = false;
  schemaChanged = false;
  #pathChanges = 0;
  #pathEffect: SessionEffect | undefined;
  #transactions = 0;
  #ends = 0;
  #rolledBackTo = false;
  #failed = false;
  #lastTag = "";
  #moved = 0;
  #movedUrgently = 0;
  #leaving = 0;

  /** An operation has been answered. @param failed it was not carried out */
  completed(relay: Relay, entry: Pending, failed: boolean): void {
    const { classified, moves } = entry;
    const effects = classified === undefined ? 0 : classified.effects.length;
    if (effects === 0 && moves === 0 && !entry.leaves) return;
    this.#any = true;
    if (moves > 0) this.#moved += 1;
    if (moves === 2) this.#movedUrgently += 1;
    if (entry.leaves) this.#leaving += 1;
    if (classified === undefined || effects === 0) return;
    if (failed) this.#failed = true;
    for (const effect of classified.effects) {
      if (movesSearchPath(effect)) {
        this.#pathChanges += 1;
        this.#pathEffect = effect;
      }
      if (effect.kind === "transaction") {
        this.#transactions += 1;
        if (effect.verb === "rollback_to") this.#rolledBackTo = true;
        if (effect.verb === "commit" || effect.verb === "rollback" || effect.verb === "prepare") this.#ends += 1;
      }
      if (effect.kind === "ddl") {
        relay.schemaChanges -= 1;
        relay.schemaEpoch += 1;
        this.schemaChanged = true;
        relay.schemaUncommitted = true;
        if (moves > 0 || changesObjects(classified)) relay.objectsChanged = true;
      }
    }
  }

  /** An error that does not belong to a message with effects; it undoes what ran before it in the same implicit transaction. */
  errored(): void {
    this.#any = true;
    this.#failed = true;
  }

  tag(tag: string): void {
    this.#any = true;
    this.#lastTag = tag;
  }

  /** ReadyForQuery. Status bytes: 'I' 0x49, 'T' 0x54, 'E' 0x45. */
  ready(relay: Relay, before: number, after: number): void {
    const path = relay.searchPath;
    const inBlock = before !== 0x49;
    if (!this.#any && !inBlock && after === 0x49) {
      path.mayAskAgain();
      this.#left(relay);
      return;
    }
    if (this.#pathChanges > 0) {
      const effect = this.#pathEffect;
      if (this.#failed || this.#transactions > 0 || this.#pathChanges > 1 || effect === undefined) path.lost();
      else if (effect.kind === "search_path") path.set(effect.schemas, effect.local, inBlock);
      else if (effect.kind === "reset_all" || (effect.kind === "discard" && effect.what === "all")) path.reset(inBlock);
      for (let index = 0; index < this.#pathChanges; index += 1) path.settled();
    }
    path.mayAskAgain();
    for (; this.#leaving > 0; this.#leaving -= 1) path.settled();
    if (this.#moved > 0) {
      path.doubt(this.#movedUrgently > 0);
      for (let index = 0; index < this.#moved; index += 1) path.settled(index < this.#movedUrgently);
      this.#moved = 0;
      this.#movedUrgently = 0;
    }
    // Only a message that ends the block and does nothing else to it says which value holds.
    const tag = this.#lastTag;
    const ended = inBlock && after === 0x49;
    if (ended && this.#transactions === 1 && (tag === "COMMIT" || tag === "ROLLBACK")) path.ended(tag === "COMMIT" ? "commit" : "rollback");
    else if (ended || this.#rolledBackTo || this.#ends > 0) path.unclear();
    if (after === 0x49) this.#left(relay);
    this.#any = false;
    this.#pathChanges = 0;
    this.#pathEffect = undefined;
    this.#transactions = 0;
    this.#ends = 0;
    this.#rolledBackTo = false;
    this.#failed = false;
    this.#lastTag = "";
  }

  /** The server is in no transaction block. */
  #left(relay: Relay): void {
    relay.objectsChanged = false;
    relay.schemaUncommitted = false;
    relay.names.portals.clear();
  }
}
