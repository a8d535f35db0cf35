import type { RelationColumn, RelationName } from "./types.ts";

/**
 * Which relations' columns a name can stand for. The grammar does not know the columns of tables, so a name stands for all that it
 * could mean: of a qualified name every range of that name, in whichever query around it; of a bare name every range there is. What
 * a query gives out unchanged is followed through subqueries, WITH and column lists; what it computes was seen where it was computed.
 */

/** One column of one relation. */
export interface Origin {
  /** undefined: any relation of the statement. */
  readonly relation: RelationName | undefined;
  /** `*`: any column of the relation, or its whole row. */
  readonly column: string;
  /** Only where none of these has that column: further in, the name would mean theirs. */
  readonly unless?: { readonly column: string; readonly of: readonly RelationName[] };
}

/** What `x.name` uses where none of `of` has such a column: then the server calls name(x), with the whole row. */
export interface RowFunction {
  readonly of: readonly RelationName[];
  readonly row: readonly Origin[];
}

export const ANYTHING: readonly Origin[] = [{ relation: undefined, column: "*" }];
const NOTHING: readonly Origin[] = [];

/** What stands in FROM. */
export type Source =
  | { readonly kind: "relation"; readonly relation: RelationName /** Its columns have other names here. */; readonly renamed: boolean }
  | { readonly kind: "query"; readonly outputs: Outputs | undefined /** Its first columns' names. */; readonly names: readonly string[] }
  /** Every value of it is computed. */
  | { readonly kind: "computed" };

export interface Range {
  readonly alias: string;
  readonly source: Source;
  /** Its rows are the statement's own making: EXCLUDED, or what RETURNING calls OLD and NEW. */
  readonly proposed: boolean;
}

export type Output =
  | { readonly name: string; readonly origins: readonly Origin[] }
  /** A star stands for all columns of these. */
  | { readonly star: readonly Source[] };

/** What a query gives out, in order. */
export class Outputs {
  readonly items: readonly Output[];
  readonly #byName = new Map<string, readonly Origin[]>();
  readonly #isColumn = new Map<string, boolean>();
  #all: readonly Origin[] | undefined;
  #starred: readonly RelationName[] | undefined;

  constructor(items: readonly Output[]) {
    this.items = items;
  }

  // A query that many references name is looked through once a name: nested ones would take time without bound.

  named(name: string): readonly Origin[] {
    let found = this.#byName.get(name);
    if (found === undefined) {
      found = union(
        this.items.flatMap((item) =>
          "star" in item ? item.star.map((source) => resolve(source, name)) : item.name === name ? [item.origins] : [],
        ),
      );
      this.#byName.set(name, found);
    }
    return found;
  }

  /** Whether `name` is surely one of its columns. */
  has(name: string): boolean {
    let found = this.#isColumn.get(name);
    if (found === undefined) {
      found = this.items.some((item) => ("star" in item ? item.star.some((source) => hasColumn(source, name)) : item.name === name));
      this.#isColumn.set(name, found);
    }
    return found;
  }

  /** Relations of which it gives out all columns. */
  starred(): readonly RelationName[] {
    this.#starred ??= distinct(this.items.flatMap((item) => ("star" in item ? item.star.flatMap(relationsOf) : [])));
    return this.#starred;
  }

  all(): readonly Origin[] {
    this.#all ??= union(this.items.flatMap((item) => ("star" in item ? item.star.map(rowOf) : [item.origins])));
    return this.#all;
  }

  /** Position from 0; behind a star any column may be meant. */
  at(position: number): readonly Origin[] {
    const star = this.items.findIndex((item) => "star" in item);
    if (star >= 0 && star <= position) return this.all();
    const item = this.items[position];
    return item === undefined || "star" in item ? NOTHING : item.origins;
  }
}

const dotted = ({ schema, name }: RelationName): string => `${schema ?? ""}\0${name}`;

export const keyOf = ({ relation, column, unless }: Origin): string =>
  `${relation === undefined ? "?" : dotted(relation)}\0${column}${unless === undefined ? "" : `\0\0${unless.column}\0${unless.of.map(dotted).join("\0")}`}`;

/** The same, under a condition; of two the first one stays, which only makes more of it count. */
export const under = (origins: readonly Origin[], column: string, of: readonly RelationName[]): readonly Origin[] =>
  origins.map((origin) => (origin.unless === undefined ? { ...origin, unless: { column, of } } : origin));

export function union(lists: readonly (readonly Origin[])[]): readonly Origin[] {
  if (lists.length === 0) return NOTHING;
  if (lists.length === 1) return lists[0];
  const found = new Map<string, Origin>();
  for (const list of lists) for (const origin of list) found.set(keyOf(origin), origin);
  return [...found.values()];
}

function distinct(relations: readonly RelationName[]): readonly RelationName[] {
  return [...new Map(relations.map((relation) => [dotted(relation), relation])).values()];
}

/** What `name` stands for in a source. */
export function resolve(source: Source, name: string): readonly Origin[] {
  switch (source.kind) {
    case "relation":
      return [{ relation: source.relation, column: source.renamed ? "*" : name }];
    case "query": {
      const { outputs, names } = source;
      if (outputs === undefined) return ANYTHING;
      const position = names.indexOf(name);
      if (position >= 0) return outputs.at(position);
      return outputs.named(name);
    }
    case "computed":
      return NOTHING;
  }
}

/** All that stands in a row of a source. */
export function rowOf(source: Source): readonly Origin[] {
  switch (source.kind) {
    case "relation":
      return [{ relation: source.relation, column: "*" }];
    case "query":
      return source.outputs?.all() ?? ANYTHING;
    case "computed":
      return NOTHING;
  }
}

/** `name` is surely a column of the source. A list of names hides those that they stand for. */
function hasColumn(source: Source, name: string): boolean {
  if (source.kind !== "query") return false;
  const { outputs, names } = source;
  if (names.length === 0 || outputs === undefined) return names.includes(name) || outputs?.has(name) === true;
  const behind = outputs.items.slice(names.length);
  return names.includes(name) || (outputs.starred().length === 0 && behind.some((item) => "name" in item && item.name === name));
}

/** Relations of which a source gives out all columns under their own names. */
function relationsOf(source: Source): readonly RelationName[] {
  if (source.kind === "relation") return source.renamed ? [] : [source.relation];
  return source.kind === "query" && source.names.length === 0 ? (source.outputs?.starred() ?? []) : [];
}

interface Level {
  readonly ranges: Range[];
  /** Where this is walked the server sees every range of the level. */
  settled: boolean;
  /** The server has a name for a range of the level that is not known here. */
  unnamed: boolean;
}

/**
 * The ranges in sight, a level for each query. What the server would not let a place see (a table beside a subquery without
 * LATERAL) counts as seen as well as what stands further out, because that is then what the name means.
 */
export class Ranges {
  readonly #levels: Level[] = [];

  within(body: () => void): void {
    this.#levels.push({ ranges: [], settled: true, unnamed: false });
    try {
      body();
    } finally {
      this.#levels.pop();
    }
  }

  /** @param settled false inside FROM, but for functions and LATERAL, which see all that stands before them */
  during(settled: boolean, body: () => void): void {
    const level = this.#levels[this.#levels.length - 1];
    const before = level?.settled ?? true;
    if (level !== undefined) level.settled = settled;
    body();
    if (level !== undefined) level.settled = before;
  }

  /** @param alias undefined: the server makes one up, which is not followed */
  add(alias: string | undefined, source: Source, proposed = false): void {
    const level = this.#levels[this.#levels.length - 1];
    if (alias !== undefined) level?.ranges.push({ alias, source, proposed });
    else if (level !== undefined) level.unnamed = true;
  }

  /** A join under a name of its own: what it joins cannot be named any more. @param from how many ranges were there before it */
  hide(from: number): void {
    this.#levels[this.#levels.length - 1]?.ranges.splice(from);
  }

  /** Ranges of the innermost query; `from` leaves out those before it. */
  own(from = 0): readonly Range[] {
    return this.#levels[this.#levels.length - 1]?.ranges.slice(from) ?? [];
  }

  get count(): number {
    return this.#levels[this.#levels.length - 1]?.ranges.length ?? 0;
  }

  #named(alias: string): readonly Range[] {
    return this.#levels.flatMap((level) => level.ranges.filter((range) => range.alias === alias));
  }

  /** @param path of a column reference, without a star */
  column(path: readonly string[]): readonly Origin[] {
    const name = path[path.length - 1];
    const meanings = path.length > 1 ? this.#named(path[path.length - 2]).map(({ source }) => resolve(source, name)) : this.#bare(name);
    // Nothing in sight: a definition, in which names are those of the relation that is defined.
    return meanings.length === 0 ? [{ relation: undefined, column: name }] : union(meanings);
  }

  /** The one column of a relation that `alias.name` stands for if the relation has such a column; undefined: it may be something else. */
  certain(path: readonly string[]): RelationColumn | undefined {
    const [alias, column, more] = path;
    if (column === undefined || more !== undefined || this.#levels.some((level) => level.unnamed)) return undefined;
    const [range, other] = this.#named(alias);
    if (range === undefined || other !== undefined || range.proposed) return undefined;
    return range.source.kind === "relation" && !range.source.renamed ? { relation: range.source.relation, column } : undefined;
  }

  /** The innermost query that has such a column decides; which one that is, is for the catalogue to say. */
  #bare(name: string): readonly (readonly Origin[])[] {
    const meanings: (readonly Origin[])[] = [];
    let unless: readonly RelationName[] = [];
    for (let index = this.#levels.length - 1; index >= 0; index -= 1) {
      const { ranges, settled } = this.#levels[index];
      const here = union(ranges.map((range) => resolve(range.source, name)));
      if (ranges.length > 0) meanings.push(unless.length === 0 ? here : under(here, name, unless));
      if (!settled) continue;
      if (ranges.some((range) => hasColumn(range.source, name))) return meanings;
      unless = distinct([...unless, ...ranges.flatMap((range) => relationsOf(range.source))]);
    }
    return meanings;
  }

  /** What a qualified name uses where it is no column: a function of a row. */
  rowFunctions(path: readonly string[]): readonly RowFunction[] {
    const name = path[path.length - 1];
    return this.#named(path[path.length - 2])
      .filter((range) => !hasColumn(range.source, name))
      .map((range) => ({ of: relationsOf(range.source), row: rowOf(range.source) }));
  }

  /** The row that a name may stand for. */
  row(alias: string): readonly Origin[] {
    return union(this.#named(alias).map((range) => rowOf(range.source)));
  }

  /** What `t.*`, or `*` without a name, stands for; undefined: not in sight. */
  star(alias: string | undefined): readonly Source[] | undefined {
    const found = (alias === undefined ? this.own() : this.#named(alias)).map((range) => range.source);
    return alias !== undefined && found.length === 0 ? undefined : found;
  }
}
