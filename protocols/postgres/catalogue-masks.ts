import { SluiceError } from "../../core/errors.ts";
import { type CatalogueData, type Relation, WHOLE_ROW } from "./catalogue-load.ts";
import type { ColumnId } from "./view-lineage.ts";

export interface MaskedRelations {
  /** Relation oid → attnum → index of the first pattern that names the column, the same column of a parent or child, or what a view's column shows. */
  readonly columns: ReadonlyMap<number, ReadonlyMap<number, number>>;
  /** Of `columns` those that are computed from others, or show such a one: their values are not those that the patterns are about. */
  readonly computed: ReadonlyMap<number, ReadonlySet<number>>;
  /** Every relation through which masked values can be read: those with masked columns, views among them, and `untraced`; as qualify() spells them. */
  readonly relations: ReadonlySet<string>;
  /** Views, and tables with rules, that work on masked columns in a way of which their own columns do not tell. */
  readonly untraced: ReadonlySet<string>;
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
  const untracedOids = spreadToViews(data, columns);
  const relations = new Set<string>();
  const untraced = new Set<string>();
  for (const oid of columns.keys()) addName(data, oid, relations);
  for (const oid of untracedOids) {
    addName(data, oid, relations);
    addName(data, oid, untraced);
  }
  const besides = new Set<string>();
  for (const oid of reach([...columns.keys()], allReaders(data))) addName(data, oid, besides);
  for (const name of relations) besides.delete(name);
  return { columns, computed: computedColumns(data, columns), relations, untraced, besides };
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

/**
 * Adds to `masked` the columns of views that give masked ones out as they are. @returns what works on masked columns, or on whole rows of
 * them, in any other way, or on anything of such a view: nothing of it is known to be clean
 */
function spreadToViews(data: CatalogueData, masked: MaskedColumns): Set<number> {
  const untraced = new Set<number>();
  const readers = allReaders(data);
  const open = [...masked.keys()];
  // Both sets only grow, and each reader is looked at again whenever something that it reads was added.
  for (let oid = open.pop(); oid !== undefined; oid = open.pop()) {
    for (const reader of readers.get(oid) ?? []) {
      if (untraced.has(reader)) continue;
      const shown = shownBy(data, reader, masked, untraced);
      if (shown === undefined) {
        untraced.add(reader);
        open.push(reader);
        continue;
      }
      const known = masked.get(reader);
      const added = shown.filter(([attribute, index]) => index < (known?.get(attribute) ?? Number.POSITIVE_INFINITY));
      for (const [attribute, index] of added) add(masked, reader, attribute, index);
      if (added.length > 0) open.push(reader);
    }
  }
  return untraced;
}

/** Columns of a reader that show a masked one, each with its pattern; undefined: what it does with masked columns cannot be told. */
function shownBy(
  data: CatalogueData,
  reader: number,
  masked: MaskedColumns,
  untraced: ReadonlySet<number>,
): readonly (readonly [attribute: number, index: number])[] | undefined {
  const patternOf = ({ oid, attribute }: ColumnId): number | undefined => masked.get(oid)?.get(attribute);
  const read: ColumnId[] = [];
  for (const [oid, attributes] of data.reads.get(reader) ?? []) {
    if (untraced.has(oid)) return undefined;
    if (masked.has(oid) && attributes.has(WHOLE_ROW)) return undefined;
    for (const attribute of attributes) read.push({ oid, attribute });
  }
  const hidden = read.filter((column) => patternOf(column) !== undefined);
  if (hidden.length === 0) return [];
  const lineage = data.views.get(reader);
  if (lineage === undefined || lineage.outputs.length !== data.relations.get(reader)?.columns.length) return undefined;
  const { outputs, used } = lineage;
  if (used.some((column) => patternOf(column) !== undefined || (column.attribute === 0 && masked.has(column.oid)))) return undefined;
  // The server keeps account of what is read in its own way: what it names and no output shows was overlooked.
  const isShown = (column: ColumnId) => outputs.some((output) => output?.oid === column.oid && output.attribute === column.attribute);
  if (!hidden.every(isShown)) return undefined;
  const shown: [number, number][] = [];
  for (let attribute = 1; attribute < outputs.length; attribute += 1) {
    const output = outputs[attribute];
    if (output === undefined) continue;
    if (output.attribute === 0 && masked.has(output.oid)) return undefined;
    const index = patternOf(output);
    if (index !== undefined) shown.push([attribute, index]);
  }
  return shown;
}

function computedColumns(data: CatalogueData, masked: MaskedColumns): Map<number, Set<number>> {
  const computed = new Map<number, Set<number>>();
  for (const [oid, attributes] of masked) {
    for (const attribute of attributes.keys()) {
      let source: ColumnId | undefined = { oid, attribute };
      const seen = new Set<number>();
      // A view's column is one of what it reads, or computed.
      while (source !== undefined && data.views.has(source.oid) && !seen.has(source.oid)) {
        seen.add(source.oid);
        source = data.views.get(source.oid)!.outputs[source.attribute];
      }
      const relation = source === undefined ? undefined : data.relations.get(source.oid);
      if (relation !== undefined && /^[rpf]$/.test(relation.kind) && !relation.generated.includes(source!.attribute)) continue;
      const known = computed.get(oid) ?? new Set();
      computed.set(oid, known.add(attribute));
    }
  }
  return computed;
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
