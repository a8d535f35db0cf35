import { createHash } from "node:crypto";
import { SluiceError } from "../../core/errors.ts";
import { LIMITS } from "../../core/limits.ts";
import type { CodeReader, MovingCode } from "./catalogue-code.ts";
import type { ViewReader } from "./catalogue-views.ts";
import type { Upstream } from "./dial.ts";
import { SideConnection, type TextRow } from "./query.ts";
import type { ViewLineage } from "./view-lineage.ts";

/** pg_class.relkind: ordinary table, view, materialized view, foreign table, partitioned table, sequence, composite type. */
export type RelationKind = "r" | "v" | "m" | "f" | "p" | "S" | "c";

export interface Relation {
  readonly oid: number;
  readonly schema: string;
  readonly name: string;
  readonly kind: RelationKind;
  /** Column names by attnum; holes where columns were dropped. */
  readonly columns: readonly (string | undefined)[];
  /** Type OIDs by attnum, a domain's being that of what it is over, as in RowDescription; 0 where nothing is known. */
  readonly types: Uint32Array;
  /** Numbers of generated columns, which COPY leaves out. */
  readonly generated: readonly number[];
}

/** One consistent reading of a target's system catalogues. */
export interface CatalogueData {
  readonly relations: ReadonlyMap<number, Relation>;
  /**
   * Views and materialized views → oids of the relations their queries read, directly → attnums of the columns; WHOLE_ROW: any column.
   * What is there for a rule of another kind counts as read too: an UPDATE of its table can answer with rows from elsewhere.
   */
  readonly reads: ReadonlyMap<number, ReadonlyMap<number, ReadonlySet<number>>>;
  /** What views and materialized views outside the system's schemas do with the columns that they read, where that can be told. */
  readonly views: ReadonlyMap<number, ViewLineage>;
  /** Relation oid → attnum of a generated column → attnums of those it is computed from. */
  readonly generated: ReadonlyMap<number, ReadonlyMap<number, readonly number[]>>;
  /** Children (inheritance, partitions) → oids of their parents, directly. */
  readonly parents: ReadonlyMap<number, readonly number[]>;
  /** Schemas in which the target's own user may look names up. */
  readonly usableSchemas: ReadonlySet<string>;
  readonly builtinFunctions: ReadonlySet<string>;
  readonly otherFunctions: ReadonlySet<string>;
  /** There are operators named `=` on PostgreSQL's own types, domains or pseudo-types, or implicit casts from such types, besides its own. */
  readonly ownEquality: boolean;
  /** What may change search_path or the role from within. */
  readonly movingCode: MovingCode;
  readonly user: string;
  /** The search_path that a new session of this user has, as SHOW gives it. */
  readonly searchPath: string;
  /** The role setting of a new session of this user: `none`, unless the user's own settings say another. */
  readonly role: string;
  /** Equal digests: equal contents. */
  readonly digest: string;
}

const LOAD_MILLIS = 60_000;
/** PostgreSQL's MaxHeapAttributeNumber. */
const MAX_ATTRIBUTE = 1_600;
/** A relation has at most 1,600 columns of at most 63 bytes, in JSON. */
const MAX_ROW_BYTES = 2 * 1024 * 1024;

/**
 * One relation a row with its columns as JSON [[attnum, name, type, generated], …]: far fewer and smaller messages than one column a
 * row.
 * Other sessions' temporary tables and TOAST are left out.
 */
const RELATIONS = `
  select c.oid, n.nspname, c.relname, c.relkind,
         (select json_agg(json_build_array(a.attnum, a.attname, (case t.typtype when 'd' then t.typbasetype else a.atttypid end)::int8,
                                           a.attgenerated <> '') order by a.attnum)
            from pg_attribute a join pg_type t on t.oid = a.atttypid where a.attrelid = c.oid and a.attnum > 0 and not a.attisdropped)
    from pg_class c join pg_namespace n on n.oid = c.relnamespace
   where c.relkind in ('r', 'v', 'm', 'f', 'p', 'S', 'c') and n.nspname !~ '^pg_(toast|temp|toast_temp)(_|$)'
   order by c.oid`;

/** In `reads`: a row is used as a value, so that any of its columns may be meant. */
export const WHOLE_ROW = -1;

/**
 * What a view's query reads stands in pg_depend, relations and columns alike, but for rows used as a value: those are variables
 * without a column number in its tree (ev_type 1 is SELECT).
 */
const READS = `
  with rules as materialized (
    select oid, ev_class, ev_type <> '1' or ev_action::text like '%:varattno 0 %' as whole from pg_rewrite)
  select r.ev_class, d.refobjid, string_agg(distinct (case when r.whole then ${WHOLE_ROW} else d.refobjsubid end)::text, ' ')
    from rules r join pg_depend d on d.classid = 'pg_rewrite'::regclass and d.objid = r.oid and d.refclassid = 'pg_class'::regclass
   where d.refobjid <> r.ev_class
   group by 1, 2
   order by 1, 2`;

/** What a generated column is computed from stands as a dependency of the column or of its expression. */
const GENERATED = `
  select distinct a.attrelid, a.attnum, d.refobjsubid
    from pg_attribute a left join pg_attrdef e on e.adrelid = a.attrelid and e.adnum = a.attnum
    join pg_depend d on d.refclassid = 'pg_class'::regclass and d.refobjid = a.attrelid and d.refobjsubid not in (0, a.attnum)
     and (d.classid = 'pg_class'::regclass and d.objid = a.attrelid and d.objsubid = a.attnum or d.classid = 'pg_attrdef'::regclass and d.objid = e.oid)
   where a.attgenerated <> '' and not a.attisdropped
   order by 1, 2, 3`;

const PARENTS = "select inhrelid, inhparent from pg_inherits order by 1, 2";
const SCHEMAS = "select nspname from pg_namespace where has_schema_privilege(oid, 'usage') order by 1";
const FUNCTIONS = `
  select distinct n.nspname in ('pg_catalog', 'information_schema'), p.proname
    from pg_proc p join pg_namespace n on n.oid = p.pronamespace order by 1, 2`;

/** Oids below 16384 are PostgreSQL's own. */
const OWN_EQUALITY = `
  select exists (select from pg_operator o join pg_type l on l.oid = o.oprleft join pg_type r on r.oid = o.oprright
                  where o.oprname = '=' and o.oid >= 16384
                    and (l.oid < 16384 or r.oid < 16384 or l.typtype in ('d', 'p') or r.typtype in ('d', 'p')))
      or exists (select from pg_cast where oid >= 16384 and castcontext = 'i' and castsource < 16384)`;

/**
 * Read the catalogues in one read-only transaction and close the connection.
 * @param codeReader @param viewReader those of this target
 * @throws SluiceError SLUICE_LIMIT_EXCEEDED beyond LIMITS.catalogueColumns, and what SideConnection.query throws
 */
export async function loadCatalogue(upstream: Upstream, codeReader: CodeReader, viewReader: ViewReader): Promise<CatalogueData> {
  const side = new SideConnection(upstream, LOAD_MILLIS, MAX_ROW_BYTES);
  const digest = createHash("sha256");
  const rows = (sql: string, onRow: (row: TextRow) => void): Promise<void> =>
    side.query(sql, (row) => {
      digest.update(JSON.stringify(row));
      onRow(row);
    });
  try {
    let searchPath = "";
    let role = "";
    await rows("select pg_catalog.current_setting('search_path'), pg_catalog.current_setting('role')", ([pathValue, roleValue]) => {
      searchPath = pathValue!;
      role = roleValue!;
    });
    // A role's own search_path must not put other functions in front of the system's.
    await side.query(
      "begin isolation level repeatable read read only; set local search_path to pg_catalog; set local statement_timeout to '30s'; set local jit to off",
    );
    const relations = new Map<number, Relation>();
    const names = new Map<string, string>();
    let columnCount = 0;
    await rows(RELATIONS, (row) => {
      const relation = relationOf(row, names);
      columnCount += relation.columns.length;
      if (columnCount > LIMITS.catalogueColumns) {
        throw new SluiceError("SLUICE_LIMIT_EXCEEDED", `the target's catalogue has more than ${LIMITS.catalogueColumns} columns`);
      }
      relations.set(relation.oid, relation);
    });
    const reads = new Map<number, Map<number, Set<number>>>();
    await rows(READS, ([view, relation, columns]) => {
      const read = reads.get(Number(view)) ?? new Map<number, Set<number>>();
      reads.set(Number(view), read.set(Number(relation), new Set(columns!.split(" ").map(Number))));
    });
    const generated = new Map<number, Map<number, number[]>>();
    await rows(GENERATED, ([relation, column, source]) => {
      const columns = generated.get(Number(relation)) ?? new Map<number, number[]>();
      generated.set(Number(relation), columns);
      append(columns, Number(column), Number(source));
    });
    const parents = new Map<number, number[]>();
    await rows(PARENTS, ([child, parent]) => append(parents, Number(child), Number(parent)));
    const usableSchemas = new Set<string>();
    await rows(SCHEMAS, ([name]) => usableSchemas.add(name!));
    const builtinFunctions = new Set<string>();
    const otherFunctions = new Set<string>();
    await rows(FUNCTIONS, ([isBuiltin, name]) => (isBuiltin === "t" ? builtinFunctions : otherFunctions).add(name!));
    let ownEquality = true;
    await rows(OWN_EQUALITY, ([has]) => {
      ownEquality = has !== "f";
    });
    let user = "";
    await rows("select current_user", ([name]) => {
      user = name!;
    });
    const ownNames = new Map<number, string>();
    for (const { oid, schema, name } of relations.values())
      if (schema !== "pg_catalog" && schema !== "information_schema") ownNames.set(oid, name);
    const fetch: typeof rows = (sql, onRow) => side.query(sql, onRow);
    const movingCode = await codeReader.read(rows, fetch, ownNames);
    const views = await viewReader.read(rows, fetch);
    const code = { builtinFunctions, otherFunctions, movingCode, ownEquality };
    return { relations, reads, views, generated, parents, usableSchemas, ...code, user, searchPath, role, digest: digest.digest("hex") };
  } finally {
    side.close();
  }
}

/**
 * @param names one copy of each column name: most occur in many relations
 * @throws SluiceError SLUICE_TARGET_REFUSED when the row is not what a server answers
 */
export function relationOf([oid, schema, name, kind, json]: TextRow, names: Map<string, string>): Relation {
  const number = Number(oid);
  if (oid == null || !Number.isInteger(number) || schema == null || name == null || kind == null) throw malformed();
  const columns: (string | undefined)[] = [];
  const described = json == null ? [] : columnsOf(json);
  const types = new Uint32Array(described.reduce((most, [attnum]) => Math.max(most, attnum + 1), 0));
  const generated: number[] = [];
  for (const [attnum, column, type, isGenerated] of described) {
    while (columns.length < attnum) columns.push(undefined);
    let shared = names.get(column);
    if (shared === undefined) names.set(column, (shared = column));
    columns[attnum] = shared;
    types[attnum] = type;
    if (isGenerated) generated.push(attnum);
  }
  return { oid: number, schema, name, kind: kind as RelationKind, columns, types, generated: generated.length === 0 ? NONE : generated };
}

const NONE: readonly number[] = [];

/** Number, name, type and whether it is generated of each column; checked, because the numbers decide how much is allocated. */
function columnsOf(json: string): [number, string, number, boolean][] {
  let columns: unknown;
  try {
    columns = JSON.parse(json);
  } catch {
    throw malformed();
  }
  if (!Array.isArray(columns)) throw malformed();
  for (const column of columns) {
    if (!Array.isArray(column) || typeof column[1] !== "string") throw malformed();
    if (!Number.isInteger(column[0]) || column[0] < 1 || column[0] > MAX_ATTRIBUTE) throw malformed();
    if (!Number.isInteger(column[2]) || column[2] < 0 || column[2] > 0xffff_ffff || typeof column[3] !== "boolean") throw malformed();
  }
  return columns as [number, string, number, boolean][];
}

const malformed = () => new SluiceError("SLUICE_TARGET_REFUSED", "the target described its relations in a way that PostgreSQL does not");

function append(map: Map<number, number[]>, key: number, value: number): void {
  const list = map.get(key);
  if (list === undefined) map.set(key, [value]);
  else list.push(value);
}
