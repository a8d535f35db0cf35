import { SluiceError } from "../../core/errors.ts";
import { type CatalogueData, type Relation, WHOLE_ROW } from "./catalogue-load.ts";

export interface MaskedRelations {
  /** Relation oid → attnum → index of the first pattern that names the column, or the same column of a parent or child. */
  readonly columns: ReadonlyMap<number, ReadonlyMap<number, number>>;
  /** Every relation through which masked values can be read: those with masked columns, and all views over those columns, as qualify() spells them. */
  readonly relations: ReadonlySet<string>;
  /** Those of `relations` that have no masked column of their own: views and materialized views over the others. */
  readonly viewsOver: ReadonlySet<string>;
  /** Views over other columns of those relations: nothing masked comes through them but the server's errors. */
  readonly besides: ReadonlySet<string>;
}

/** `schema.name`; a part with a dot or a quote in it is quoted, so that two relations never share a spelling. */
export function qualify(schema: string, name: string): string {
  return `${quotePart(schema)}.${quotePart(name)}`;
}

const quotePart = (part: string): string => (/[."]/.test(part) ? `"${part.replaceAll('"', '""')}"` : part);

/**
 * Which columns the patterns mask, and through which relations their values can be read.
 * @throws SluiceError SLUICE_POLICY_INVALID for a pattern that is not `schema.table.column`
 */
export function findMasked(data: CatalogueData, columnPatterns: readonly string[]): MaskedRelations {
  const columns = directlyMasked(data, columnPatterns.map(parsePattern));
  spreadOverInheritance(data, columns);
  spreadToGenerated(data, columns);
  const relations = new Set<string>();
  const viewsOver = new Set<string>();
  for (const oid of columns.keys()) addName(data, oid, relations);
  for (const oid of readersOf(data, columns)) {
    addName(data, oid, relations);
    addName(data, oid, viewsOver);
  }
  const besides = new Set<string>();
  for (const oid of reach([...columns.keys()], allReaders(data))) addName(data, oid, besides);
  for (const name of relations) besides.delete(name);
  return { columns, relations, viewsOver, besides };
}

const allReaders = (data: CatalogueData): Map<number, number[]> =>
  reversed(new Map([...data.reads].map(([view, read]) => [view, [...read.keys()]])));

interface Pattern {
  readonly schema: string | undefined;
  readonly table: string | undefined;
  readonly column: string | undefined;
}

/** Parts are separated by dots; a quoted part may hold dots, and `*` alone stands for any name. */
function parsePattern(text: string): Pattern {
  const parts = text.match(/"(?:[^"]|"")+"|[^."]+/g) ?? [];
  if (parts.length !== 3 || parts.join(".") !== text) {
    throw new SluiceError("SLUICE_POLICY_INVALID", `mask column "${text}" is not of the form schema.table.column`);
  }
  const [schema, table, column] = parts.map((part) =>
    part === "*" ? undefined : part.startsWith('"') ? part.slice(1, -1).replaceAll('""', '"') : part,
  );
  return { schema, table, column };
}

type MaskedColumns = Map<number, Map<number, number>>;

function directlyMasked(data: CatalogueData, patterns: readonly Pattern[]): MaskedColumns {
  const masked: MaskedColumns = new Map();
  for (const relation of data.relations.values()) {
    for (let index = 0; index < patterns.length; index++) {
      const { schema, table, column } = patterns[index]!;
      if ((schema ?? relation.schema) !== relation.schema || (table ?? relation.name) !== relation.name) continue;
      for (let attnum = 1; attnum < relation.columns.length; attnum++) {
        const name = relation.columns[attnum];
        if (name !== undefined && (column ?? name) === name) add(masked, relation.oid, attnum, index);
      }
    }
  }
  return masked;
}

/**
 * A row of a child can be read through its parents and is stored where its parent's rows are looked for: what is masked in one is
 * masked, by name (attribute numbers differ), in all its descendants and ancestors.
 */
function spreadOverInheritance(data: CatalogueData, masked: MaskedColumns): void {
  if (data.parents.size === 0) return;
  const children = reversed(data.parents);
  // Only what the patterns name spreads: an ancestor's mask does not come down again to the other children.
  for (const [oid, attnums] of [...masked].map(([key, value]) => [key, new Map(value)] as const)) {
    const origin = data.relations.get(oid)!;
    for (const relative of [...reach([oid], children), ...reach([oid], data.parents)]) {
      const relation = data.relations.get(relative);
      if (relation === undefined) continue;
      for (const [attnum, index] of attnums) {
        const there = attnumOf(relation, origin.columns[attnum]!);
        if (there > 0) add(masked, relative, there, index);
      }
    }
  }
}

/** What is computed from a masked column and stored, or read, as a column of its own is masked as that one is. */
function spreadToGenerated(data: CatalogueData, masked: MaskedColumns): void {
  for (const [oid, columns] of data.generated) {
    const known = masked.get(oid);
    if (known === undefined) continue;
    // None of its sources is generated itself: the server allows no such thing.
    for (const [attnum, sources] of columns) {
      for (const source of sources) {
        const index = known.get(source);
        if (index !== undefined) add(masked, oid, attnum, index);
      }
    }
  }
}

const attnumOf = (relation: Relation, column: string): number => relation.columns.indexOf(column);

function add(masked: MaskedColumns, oid: number, attnum: number, index: number): void {
  let columns = masked.get(oid);
  if (columns === undefined) masked.set(oid, (columns = new Map()));
  columns.set(attnum, Math.min(index, columns.get(attnum) ?? index));
}

/** Views that read a masked column, or anything of such a view. */
function readersOf(data: CatalogueData, masked: MaskedColumns): Set<number> {
  const found = new Set<number>();
  const readers = allReaders(data);
  const open = [...masked.keys()];
  for (let oid = open.pop(); oid !== undefined; oid = open.pop()) {
    for (const view of readers.get(oid) ?? []) {
      if (found.has(view) || masked.has(view)) continue;
      const read = data.reads.get(view)!.get(oid)!;
      const isHidden = (attnum: number) => attnum === WHOLE_ROW || masked.get(oid)!.has(attnum);
      if (masked.has(oid) && ![...read].some(isHidden)) continue;
      found.add(view);
      open.push(view);
    }
  }
  return found;
}

/** Everything reachable from `from` along `edges`, without `from` itself. */
function reach(from: readonly number[], edges: ReadonlyMap<number, readonly number[]>): Set<number> {
  const found = new Set<number>();
  const open = [...from];
  for (let oid = open.pop(); oid !== undefined; oid = open.pop()) {
    for (const next of edges.get(oid) ?? []) {
      if (found.has(next)) continue;
      found.add(next);
      open.push(next);
    }
  }
  return found;
}

function reversed(edges: ReadonlyMap<number, readonly number[]>): Map<number, number[]> {
  const back = new Map<number, number[]>();
  for (const [from, targets] of edges) {
    for (const to of targets) {
      const list = back.get(to);
      if (list === undefined) back.set(to, [from]);
      else list.push(from);
    }
  }
  return back;
}

function addName(data: CatalogueData, oid: number, names: Set<string>): void {
  const relation = data.relations.get(oid);
  if (relation !== undefined) names.add(qualify(relation.schema, relation.name));
}
