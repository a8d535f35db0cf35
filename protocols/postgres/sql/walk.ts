import { type Body, isTree, type Kind, kindOf, type Node, type Tree } from "./ast.ts";
import { ANYTHING, keyOf, type Origin, type Outputs, Ranges, type Source, under } from "./columns.ts";
import { CHANGES_SEQUENCE, functionRule, qualifiedRule, type Rule } from "./functions.ts";
import type { Classified, CopyOut, OriginUse, RelationColumn, RelationName, SessionEffect, StatementAccess } from "./types.ts";

/** Thrown inside the walk: the statement is refused for what it is. The message is the sentence for the client. */
export class Refusal extends Error {}

/**
 * Where a value goes. plain: to the client as it is, if it is a bare column; expression: it can reach the client or
 * another table in a changed form; predicate: it only decides about rows; unseen: it goes nowhere (EXISTS).
 */
export type Use = "plain" | "expression" | "predicate" | "unseen";

/** A value inside something else is no longer plain output. */
export const inner = (use: Use): Use => (use === "plain" ? "expression" : use);

/** Meanings of names that are followed in one message: with many tables every bare name has many. Beyond, anything may be meant. */
const COLUMN_WORK = 20_000;

export type Visitor<K extends Kind> = (walk: Walk, body: Body<K>, use: Use) => void;
export type Visitors = { readonly [K in Kind]?: Visitor<K> };

interface Cte {
  readonly name: string;
  readonly source: Source;
}

interface PendingAccess {
  readonly relations: Map<string, RelationName>;
  readonly others: Set<string>;
}

/** Collects what one message's statements do while the visitors walk their trees. One instance a message, never reused. */
export class Walk {
  readonly visitors: Visitors;
  readonly #accesses = new Map<string, PendingAccess>();
  readonly #columns = new Set<string>();
  readonly #functions = new Set<string>();
  readonly #effects: SessionEffect[] = [];
  readonly #plain = new Set<string>();
  readonly #expressions = new Set<string>();
  readonly #predicates = new Set<string>();
  readonly #uses = new Map<string, OriginUse>();
  #columnWork = 0;
  /** What stands in FROM, around the place that is being walked. */
  readonly ranges = new Ranges();
  /** What each query gives out, by its body. */
  readonly outputs = new WeakMap<object, Outputs>();
  readonly #scopes: Cte[][] = [];
  /** Offsets of constants in positions where no value changes this classification. */
  readonly inert = new Set<number>();
  /** Offsets of every other constant. */
  readonly fixed = new Set<number>();
  /** Above zero: inside function arguments or casts, where no constant is inert. */
  pinned = 0;
  unfiltered = false;
  star = false;
  explains = false;
  returnsRows = false;
  copy: "none" | "in" | "out" = "none";
  readonly copies: CopyOut[] = [];
  /** The setting that set_config(name, …) means where `name` is a column (queries.ts). */
  settingOfRow: string | undefined;
  /** Inside what the statement only stores and some later one runs. */
  stored = false;
  /** Inside the query of a view, or of a rule that makes one. */
  inView = false;
  /** The statement's string literals are secrets. */
  secret = false;

  constructor(visitors: Visitors) {
    this.visitors = visitors;
  }

  /** Visit an expression, query or FROM item. A kind without a visitor is refused. */
  visit(node: Node | undefined, use: Use): void {
    if (node === undefined) return;
    const kind = kindOf(node as Tree);
    if (kind === undefined) throw new Refusal("The statement contains an element that is not understood.");
    this.visitBody(kind, (node as Tree)[kind] as Tree, use);
  }

  visitBody(kind: Kind, body: unknown, use: Use): void {
    const visitor = this.visitors[kind] as ((walk: Walk, body: unknown, use: Use) => void) | undefined;
    if (visitor === undefined) throw new Refusal(`The statement contains an element (${kind}) that is not understood.`);
    visitor(this, body, use);
  }

  visitAll(nodes: readonly Node[] | undefined, use: Use): void {
    if (nodes !== undefined) for (const node of nodes) this.visit(node, use);
  }

  // ---- accesses

  access(action: string): PendingAccess {
    let pending = this.#accesses.get(action);
    if (pending === undefined) {
      pending = { relations: new Map(), others: new Set() };
      this.#accesses.set(action, pending);
    }
    return pending;
  }

  relation(action: string, schema: string | undefined, name: string): void {
    this.access(action).relations.set(`${schema ?? ""}\0${name}`, { schema, name });
  }

  range(action: string, variable: Body<"RangeVar"> | undefined): void {
    if (variable?.relname === undefined) return;
    this.relation(action, variable.schemaname, variable.relname);
  }

  other(action: string, kind: string, names: readonly string[] | string): void {
    this.access(action).others.add(`${kind}:${typeof names === "string" ? names : names.join(".")}`);
  }

  effect(effect: SessionEffect): void {
    if (effect.kind === "ddl" && this.#effects.some((known) => known.kind === "ddl")) return;
    this.#effects.push(effect);
  }

  /** A function is called, or named where it will be called. */
  function(path: readonly string[], argumentCount: number): void {
    const name = path[path.length - 1] ?? "";
    const schema = path.length > 1 ? path[path.length - 2] : undefined;
    this.#functions.add(path.join("."));
    const rule = functionRule(name, argumentCount) ?? qualifiedRule(schema, name);
    if (rule !== undefined) this.#apply(rule, path);
  }

  /**
   * `x.name` or `(x).name`: where x has no such column or field, the server calls name(x), whatever x's type is
   * (PostgreSQL documentation, 8.16.5: functional notation and attribute notation are equivalent).
   */
  attribute(name: string): void {
    const rule = functionRule(name, 1);
    if (rule !== undefined) this.#apply(rule, [name]);
    else if (CHANGES_SEQUENCE.has(name)) this.other("sql:update", "function", name);
  }

  #apply(rule: Rule, path: readonly string[]): void {
    const name = path[path.length - 1] ?? "";
    if ("refuse" in rule) {
      if (name.startsWith("dblink")) this.secret = true;
      throw new Refusal(`Function ${name} is refused: it ${rule.refuse}.`);
    }
    this.other(rule.action, "function", path);
  }

  changesSequence(name: string): boolean {
    return CHANGES_SEQUENCE.has(name);
  }

  // ---- common table expressions

  withScope(body: () => void): void {
    this.#scopes.push([]);
    try {
      body();
    } finally {
      this.#scopes.pop();
    }
  }

  declareCte(name: string, source: Source): void {
    this.#scopes[this.#scopes.length - 1].push({ name, source });
  }

  cte(name: string): Cte | undefined {
    for (let level = this.#scopes.length - 1; level >= 0; level -= 1) {
      const found = this.#scopes[level].findLast((cte) => cte.name === name);
      if (found !== undefined) return found;
    }
    return undefined;
  }

  // ---- columns

  /** A column that is named but not read (INSERT columns, SET targets, definitions). */
  named(column: string | undefined): void {
    if (column !== undefined) this.#columns.add(column);
  }

  /** A column reference; `path` without a trailing star. @param partner what it is compared with for equality @returns what it stands for */
  column(path: readonly string[], use: Use | "equality", partner?: RelationColumn): readonly Origin[] {
    const name = path[path.length - 1];
    this.#columns.add(name);
    if (path.length > 1) this.attribute(name);
    this.#mention(name, use);
    if (this.#columnWork > COLUMN_WORK) return ANYTHING;
    const origins = this.ranges.column(path);
    this.#worked(1 + origins.length);
    this.used(origins, use, partner);
    // The name of a table is also that of its row.
    const asRow = use === "equality" ? "predicate" : inner(use);
    if (path.length > 1) for (const call of this.ranges.rowFunctions(path)) this.used(under(call.row, name, call.of), asRow);
    else this.used(this.ranges.row(name), asRow);
    return origins;
  }

  /** `(value).name`: a field, or a function of the value. What the value is made of was seen at its own place. */
  field(name: string, use: Use): void {
    this.#columns.add(name);
    this.attribute(name);
    this.#mention(name, use);
  }

  #mention(name: string, use: Use | "equality"): void {
    if (use === "plain") this.#plain.add(name);
    else if (use === "expression") this.#expressions.add(name);
    else if (use === "predicate" || use === "equality") this.#predicates.add(name);
  }

  /** These values go where `use` says; what goes out as it is, is told by where the server says it is from. */
  used(origins: readonly Origin[], use: Use | "equality", partner?: RelationColumn): void {
    if (use === "plain" || use === "unseen" || this.#columnWork > COLUMN_WORK) return;
    for (const origin of origins) {
      const { relation, column, unless } = origin;
      const key = `${use}\0${keyOf(origin)}${partner === undefined ? "" : `\0\0\0${keyOf({ ...partner })}`}`;
      if (!this.#uses.has(key)) this.#uses.set(key, { use, relation, column, unless, ...(partner === undefined ? {} : { partner }) });
    }
    if (origins !== ANYTHING) this.#worked(origins.length);
  }

  #worked(meanings: number): void {
    if (this.#columnWork > COLUMN_WORK) return;
    for (const use of ["expression", "predicate"] as const) if (this.#columnWork + meanings > COLUMN_WORK) this.anything(use);
    this.#columnWork += meanings;
  }

  /** Something that cannot be told by name: any column of any relation of the statement. */
  anything(use: Use): void {
    this.used(ANYTHING, use);
  }

  // ---- result

  result(statements: number, secrets: readonly (readonly [number, number])[], refusal: string | undefined): Classified {
    const accesses: StatementAccess[] = [];
    for (const [action, pending] of this.#accesses) {
      accesses.push({ action, relations: [...pending.relations.values()], others: [...pending.others] });
    }
    return Object.freeze({
      written: { last: undefined },
      accesses,
      statements,
      unfiltered: this.unfiltered,
      columns: [...this.#columns],
      functions: [...this.#functions],
      effects: this.#effects,
      columnUse: {
        plain: [...this.#plain],
        star: this.star,
        expressions: [...this.#expressions],
        predicates: [...this.#predicates],
        origins: [...this.#uses.values()],
      },
      copy: this.copy,
      copies: this.copies,
      explains: this.explains,
      returnsRows: this.returnsRows,
      secrets,
      refusal,
      empty: statements === 0 && refusal === undefined,
    });
  }
}

/** Visit every expression and query below `value`; a relation that is named there is reached under `action`, or under its field's own. */
export function sweep(walk: Walk, value: unknown, action: string, field = ""): void {
  if (Array.isArray(value)) {
    for (const item of value) sweep(walk, item, action, field);
    return;
  }
  if (!isTree(value)) return;
  const kind = kindOf(value);
  if (kind === undefined) {
    sweepBody(walk, value, action, field);
    return;
  }
  const body = value[kind];
  // An index shows no value of its columns.
  if (kind === "IndexElem") walk.visitBody(kind, body, "unseen");
  else if (kind === "RangeVar") sweepBody(walk, body as Tree, action, field);
  else if (walk.visitors[kind] !== undefined && kind !== "List" && kind !== "String") walk.visitBody(kind, body, "expression");
  else sweepBody(walk, body as Tree, action, kind === "TableLikeClause" ? "like" : kind === "ColumnDef" ? "columnDef" : field);
}

/** Relations that a definition refers to, by field: reading what is in them, or changing them. */
const FIELD_ACTIONS: Readonly<Record<string, string>> = {
  pktable: "sql:select",
  like: "sql:select",
  constrrel: "sql:select",
  inhRelations: "sql:alter",
  name: "sql:alter",
};
const FUNCTION_FIELDS: ReadonlySet<string> = new Set(["funcname", "func_name", "handler_name", "plhandler", "plinline", "plvalidator"]);

function sweepBody(walk: Walk, body: Tree, action: string, field: string): void {
  if (typeof body.relname === "string") {
    walk.relation(FIELD_ACTIONS[field] ?? action, body.schemaname as string | undefined, body.relname);
    return;
  }
  if (typeof body.roletype === "string") {
    walk.other(action, "role", typeof body.rolename === "string" ? body.rolename : body.roletype.replace("ROLESPEC_", "").toLowerCase());
    return;
  }
  if (body.pubobjtype === "PUBLICATIONOBJ_TABLES_IN_SCHEMA") walk.other(action, "schema", String(body.name));
  if (body.for_all_tables === true) walk.other(action, "database", "current");
  // A foreign key without columns means the primary key, whose columns only the catalogue knows.
  if (body.pktable !== undefined && body.pk_attrs === undefined) walk.anything("predicate");
  if (field === "columnDef") walk.named(body.colname as string | undefined);
  for (const key in body) {
    const value = body[key];
    if (typeof value !== "object") continue;
    if (FUNCTION_FIELDS.has(key)) walk.function(namesOf(value), 0);
    // A foreign key tells of every value whether the referenced column has it.
    else if (key === "pk_attrs") for (const column of namesOf(value)) walk.column([column], "predicate");
    else sweep(walk, value, action, key === "relation" && field === "like" ? "like" : key);
  }
}

function namesOf(value: unknown): string[] {
  if (!Array.isArray(value)) return [];
  return value.flatMap((item: unknown) => {
    const text = isTree(item) && isTree(item.String) ? item.String.sval : undefined;
    return typeof text === "string" ? [text] : [];
  });
}
