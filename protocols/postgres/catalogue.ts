import { performance } from "node:perf_hooks";
import { toSluiceError } from "../../core/errors.ts";
import { CodeReader, NO_MOVING_CODE } from "./catalogue-code.ts";
import { type CatalogueData, loadCatalogue, type Relation, type RelationKind } from "./catalogue-load.ts";
import { findMasked, type MaskedRelations, qualify } from "./catalogue-masks.ts";
import { ViewReader } from "./catalogue-views.ts";
import type { Upstream } from "./dial.ts";
import { parseSearchPath } from "./search-path.ts";

export type { Relation, RelationKind } from "./catalogue-load.ts";
export { type MaskedRelations, qualify } from "./catalogue-masks.ts";

/** After this the catalogue is read again in the background at its next use. */
const MAX_AGE_MILLIS = 60_000;
/** After this without a successful reading the old one is no longer good enough to decide by. */
const USABLE_MILLIS = 300_000;
/** Between two readings the target rests this many times the last one's duration, a second at most and after a failure. */
const REST_FACTOR = 4;
const MAX_REST_MILLIS = 1_000;
/** Kept answers of maskedRelations; sessions under the same policy ask for the same patterns. */
const KEPT_MASK_SETS = 64;

export interface ColumnOrigin {
  readonly schema: string;
  readonly table: string;
  readonly column: string;
  readonly kind: RelationKind;
}

/** What is known about one target's relations and functions. One per worker and target; readings are shared by its sessions. */
export interface Catalogue {
  /** Unlike that of any other catalogue of this worker. */
  readonly serial: number;
  /** search_path of a new session of the target's user; undefined where it cannot be read. */
  readonly searchPath: readonly string[] | undefined;
  /** The role setting of such a session (`none`, as a rule); undefined before the first reading. */
  readonly role: string | undefined;
  /** Rises when a reading found other contents; part of the key of whatever is derived from it. */
  readonly generation: number;
  /** False before the first reading, after invalidate(), and when the last reading is too old: await refresh() before the next decision. */
  readonly loaded: boolean;
  /**
   * Read the catalogue unless a reading under way will do; single-flight. When it resolves the catalogue is at least as new as the
   * call, even if `loaded` is false again because of somebody else's change. @throws SluiceError when the target cannot be read
   */
  refresh(): Promise<void>;
  /** Something changed the schema (a DDL statement passed, or the transaction of one was committed). */
  invalidate(): void;
  /**
   * The relations that a name can mean, as qualify() spells them; empty when there is none.
   * @param searchPath in force; undefined: unknown, so every schema counts. `$user` means the target's user. Temporary tables are
   * the caller's business
   */
  resolve(schema: string | undefined, name: string, searchPath: readonly string[] | undefined): readonly string[];
  /** Every schema in which the target's user may look names up, the system's aside. */
  schemas(): readonly string[];
  /** @param relation as qualify() spells it */
  hasColumn(relation: string, column: string): boolean;
  /** @param name as qualify() spells it */
  relation(name: string): Relation | undefined;
  /** A schema in which the target's user may look names up. */
  hasSchema(schema: string): boolean;
  /** What RowDescription's table oid and attribute number mean. Undefined: no relation known here, so nothing is known to be clean. */
  columnOrigin(oid: number, attnum: number): ColumnOrigin | undefined;
  /** @param columnPatterns `schema.table.column`; `*` for a part stands for any. @throws SluiceError SLUICE_POLICY_INVALID */
  maskedRelations(columnPatterns: readonly string[]): MaskedRelations;
  /** A function of pg_catalog or information_schema that no other schema's function of the same name can take the place of. */
  isBuiltinFunction(name: string): boolean;
  /**
   * Whether a statement may change search_path or the role from within, by code of the target's that it runs.
   * @param functions that it calls, as written. @param relations as qualify() spells them. @param changesSchema event triggers see it
   */
  mayMove(functions: readonly string[], relations: readonly string[], changesSchema: boolean): boolean;
  /** `=` between values of PostgreSQL's own types may be an operator or a cast of somebody else's. */
  readonly hasOwnEquality: boolean;
  /** Some schema besides the system's has a function of this name. */
  hasOtherFunction(name: string): boolean;
}

const SYSTEM_COLUMNS: Readonly<Record<number, string>> = {
  [-1]: "ctid",
  [-2]: "xmin",
  [-3]: "cmin",
  [-4]: "xmax",
  [-5]: "cmax",
  [-6]: "tableoid",
};

/** @param open a new connection with the target's own credential, used for one reading and closed */
export function createCatalogue(open: () => Promise<Upstream>): Catalogue {
  return new TargetCatalogue(open);
}

const EMPTY: CatalogueData = {
  relations: new Map(),
  reads: new Map(),
  views: new Map(),
  generated: new Map(),
  parents: new Map(),
  usableSchemas: new Set(),
  builtinFunctions: new Set(),
  otherFunctions: new Set(),
  movingCode: NO_MOVING_CODE,
  ownEquality: true,
  user: "",
  searchPath: "",
  role: "",
  digest: "",
};

let serials = 0;

class TargetCatalogue implements Catalogue {
  readonly serial = ++serials;
  generation = 0;
  readonly #open: () => Promise<Upstream>;
  readonly #codeReader = new CodeReader();
  readonly #viewReader = new ViewReader();
  #data: CatalogueData = EMPTY;
  /** Schemas by relation name. */
  readonly #schemasByName = new Map<string, string[]>();
  readonly #relationsByName = new Map<string, Relation>();
  readonly #maskSets = new Map<string, MaskedRelations>();
  /** Counts invalidations; a reading is current when none came after it began. */
  #changes = 0;
  #readAtChange = -1;
  #readAtMillis = 0;
  #restUntilMillis = 0;
  #reading: Promise<void> | undefined;
  /** #changes when the reading under way began; undefined while it still rests. */
  #begunAtChange: number | undefined;

  constructor(open: () => Promise<Upstream>) {
    this.#open = open;
  }

  get loaded(): boolean {
    return this.#readAtChange === this.#changes && performance.now() - this.#readAtMillis < USABLE_MILLIS;
  }

  invalidate(): void {
    this.#changes += 1;
  }

  refresh(): Promise<void> {
    if (this.#reading === undefined) {
      this.#reading = this.#read().finally(() => {
        this.#reading = undefined;
      });
      return this.#reading;
    }
    if (this.#begunAtChange === undefined || this.#begunAtChange === this.#changes) return this.#reading;
    // It began before the last change and may have missed it.
    const next = (): Promise<void> => this.refresh();
    return this.#reading.then(next, next);
  }

  async #read(): Promise<void> {
    this.#begunAtChange = undefined;
    const rest = this.#restUntilMillis - performance.now();
    if (rest > 0) await new Promise((resolve) => setTimeout(resolve, rest));
    const atChange = this.#changes;
    this.#begunAtChange = atChange;
    const began = performance.now();
    let restMillis = MAX_REST_MILLIS;
    try {
      this.#take(await loadCatalogue(await this.#open(), this.#codeReader, this.#viewReader));
      this.#readAtChange = atChange;
      this.#readAtMillis = began;
      restMillis = Math.min(MAX_REST_MILLIS, REST_FACTOR * (performance.now() - began));
    } catch (thrown) {
      throw toSluiceError(thrown);
    } finally {
      this.#restUntilMillis = performance.now() + restMillis;
    }
  }

  #take(data: CatalogueData): void {
    if (data.digest === this.#data.digest) return;
    this.#data = data;
    this.#maskSets.clear();
    this.#schemasByName.clear();
    this.#relationsByName.clear();
    for (const relation of data.relations.values()) this.#relationsByName.set(qualify(relation.schema, relation.name), relation);
    for (const { schema, name } of data.relations.values()) {
      const schemas = this.#schemasByName.get(name);
      if (schemas === undefined) this.#schemasByName.set(name, [schema]);
      else schemas.push(schema);
    }
    this.generation += 1;
  }

  resolve(schema: string | undefined, name: string, searchPath: readonly string[] | undefined): readonly string[] {
    this.#noticeAge();
    const schemas = this.#schemasByName.get(name);
    if (schemas === undefined) return [];
    if (schema !== undefined) return schemas.includes(schema) ? [qualify(schema, name)] : [];
    if (searchPath === undefined) return schemas.map((each) => qualify(each, name));
    if (!searchPath.includes("pg_catalog") && schemas.includes("pg_catalog")) return [qualify("pg_catalog", name)];
    for (const entry of searchPath) {
      const each = entry === "$user" ? this.#data.user : entry;
      // The server passes over schemas that its user has no USAGE on.
      if (schemas.includes(each) && this.#data.usableSchemas.has(each)) return [qualify(each, name)];
    }
    return [];
  }

  get searchPath(): readonly string[] | undefined {
    return this.#data.digest === "" ? undefined : parseSearchPath(this.#data.searchPath, this.#data.user);
  }

  schemas(): readonly string[] {
    return [...this.#data.usableSchemas].filter((schema) => !schema.startsWith("pg_") && schema !== "information_schema");
  }

  hasColumn(relation: string, column: string): boolean {
    return this.#relationsByName.get(relation)?.columns.includes(column) ?? false;
  }

  relation(name: string): Relation | undefined {
    return this.#relationsByName.get(name);
  }

  hasSchema(schema: string): boolean {
    return this.#data.usableSchemas.has(schema);
  }

  columnOrigin(oid: number, attnum: number): ColumnOrigin | undefined {
    this.#noticeAge();
    const relation = this.#data.relations.get(oid);
    if (relation === undefined) return undefined;
    const column = attnum < 0 ? SYSTEM_COLUMNS[attnum] : relation.columns[attnum];
    return column === undefined ? undefined : { schema: relation.schema, table: relation.name, column, kind: relation.kind };
  }

  maskedRelations(columnPatterns: readonly string[]): MaskedRelations {
    this.#noticeAge();
    const key = columnPatterns.join("\0");
    const kept = this.#maskSets.get(key);
    if (kept !== undefined) return kept;
    const made = findMasked(this.#data, columnPatterns);
    if (this.#maskSets.size >= KEPT_MASK_SETS) this.#maskSets.clear();
    this.#maskSets.set(key, made);
    return made;
  }

  get role(): string | undefined {
    return this.#data.digest === "" ? undefined : this.#data.role;
  }

  mayMove(functions: readonly string[], relations: readonly string[], changesSchema: boolean): boolean {
    const { movingCode, builtinFunctions, otherFunctions } = this.#data;
    if (movingCode.everywhere || (changesSchema && movingCode.onSchemaChange)) return true;
    for (const name of functions) {
      // A name may hold dots itself: every ending is looked at.
      let known = false;
      for (let at = -1; ; ) {
        const last = name.slice(at + 1);
        if (movingCode.functions.has(last)) return true;
        known ||= builtinFunctions.has(last) || otherFunctions.has(last);
        at = name.indexOf(".", at + 1);
        if (at < 0) break;
      }
      // Made by this transaction, or since the last reading.
      if (!known) return true;
    }
    return relations.some((relation) => {
      // What is temporary is not read, and may be a view.
      if (relation.startsWith("pg_temp.")) return movingCode.functions.size > 0;
      const found = this.#relationsByName.get(relation);
      return found !== undefined && movingCode.relations.has(found.oid);
    });
  }

  hasOtherFunction(name: string): boolean {
    return this.#data.otherFunctions.has(name);
  }

  get hasOwnEquality(): boolean {
    return this.#data.ownEquality;
  }

  isBuiltinFunction(name: string): boolean {
    this.#noticeAge();
    const { builtinFunctions, otherFunctions } = this.#data;
    const dot = name.indexOf(".");
    if (dot < 0) return builtinFunctions.has(name) && !otherFunctions.has(name);
    const schema = name.slice(0, dot);
    return (schema === "pg_catalog" || schema === "information_schema") && builtinFunctions.has(name.slice(dot + 1));
  }

  #noticeAge(): void {
    if (this.loaded && this.#reading === undefined && performance.now() - this.#readAtMillis > MAX_AGE_MILLIS)
      this.refresh().catch(() => {});
  }
}
