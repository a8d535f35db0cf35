import type { PostgresServer } from "../helpers/postgres.ts";
import type { Canaries } from "./canaries.ts";

/** What an expression can be made of; `other` only goes out as it is. */
export type ValueType = "text" | "int" | "num" | "date" | "time" | "uuid" | "json" | "bytes" | "list" | "place" | "bool" | "other";

export interface Column {
  readonly name: string;
  readonly type: ValueType;
  readonly masked: boolean;
  readonly generated: boolean;
}

export interface Relation {
  /** As a statement writes it. */
  readonly name: string;
  readonly kind: "table" | "view";
  readonly columns: readonly Column[];
  /** A view that works on masked columns in a way of which its columns do not tell. */
  readonly opaque: boolean;
  /** Rows go in here, not only through a parent. */
  readonly fills: boolean;
}

/** A schema as somebody writes it, and which of its columns are masked. */
export interface Schema {
  readonly name: string;
  readonly ddl: string;
  /** `schema.table.column` */
  readonly masked: readonly string[];
  /** Masked too, because they follow from a masked one: generated, inherited, a view's. */
  readonly derived: readonly string[];
  /** Views that work on masked columns. */
  readonly opaqueViews: readonly string[];
}

export interface Model {
  readonly relations: readonly Relation[];
}

const TYPES: Readonly<Record<string, ValueType>> = {
  text: "text",
  varchar: "text",
  bpchar: "text",
  citext: "text",
  label: "text",
  int2: "int",
  int4: "int",
  int8: "int",
  numeric: "num",
  float8: "num",
  date: "date",
  timestamp: "time",
  timestamptz: "time",
  uuid: "uuid",
  jsonb: "json",
  bytea: "bytes",
  _text: "list",
  _varchar: "list",
  place: "place",
  bool: "bool",
};

/** The relations of a database, with the mask that is said to apply to each column. */
export async function readModel(server: PostgresServer, database: string, schema: Schema): Promise<Model> {
  const rows = await server.query<{ s: string; r: string; k: string; c: string; t: string; g: boolean; p: boolean }>(
    `select n.nspname as s, c.relname as r, c.relkind as k, a.attname as c, t.typname as t, a.attgenerated <> '' as g, c.relispartition as p
       from pg_class c join pg_namespace n on n.oid = c.relnamespace join pg_attribute a on a.attrelid = c.oid join pg_type t on t.oid = a.atttypid
      where c.relkind in ('r', 'p', 'v', 'm') and n.nspname !~ '^pg_|^information_schema$' and a.attnum > 0 and not a.attisdropped
      order by c.oid, a.attnum`,
    [],
    database,
  );
  const masked = new Set([...schema.masked, ...schema.derived]);
  const relations = new Map<string, { row: (typeof rows)[number]; columns: Column[] }>();
  for (const row of rows) {
    const key = `${row.s}.${row.r}`;
    let entry = relations.get(key);
    if (entry === undefined) relations.set(key, (entry = { row, columns: [] }));
    const type = TYPES[row.t] ?? "other";
    entry.columns.push({ name: row.c, type, masked: masked.has(`${key}.${row.c}`), generated: row.g });
  }
  return {
    relations: [...relations].map(([key, { row, columns }]) => ({
      name: row.s === "public" ? row.r : key,
      kind: row.k === "v" || row.k === "m" ? "view" : "table",
      columns,
      opaque: schema.opaqueViews.includes(key),
      fills: row.k !== "v" && row.k !== "m" && !row.p,
    })),
  };
}

const WORDS = ["alpha", "beta", "gamma", "delta"];

/** The same in both databases: what is not masked. */
function plain(column: Column, row: number): string {
  switch (column.type) {
    case "int":
      return String(row);
    case "num":
      return `${row}.5`;
    case "date":
      return `'2001-02-0${row}'`;
    case "time":
      return `'2001-02-0${row} 04:05:06'`;
    case "uuid":
      return `'00000000-0000-4000-8000-00000000000${row}'`;
    case "json":
      return `'{"k": "${WORDS[row % 4]}", "n": ${row}, "l": ["x"]}'`;
    case "bytes":
      return `'\\x0${row}'`;
    case "list":
      return `array['${WORDS[row % 4]}', 'x']`;
    case "place":
      return `row('${WORDS[row % 4]}', ${row})`;
    case "bool":
      return row % 2 === 0 ? "true" : "false";
    case "text":
      return `'${WORDS[row % 4]}${row}'`;
    default:
      return "default";
  }
}

export const ROWS = 6;

/** Statements that fill every table: six rows each, with canaries where a mask applies. */
export function fill(model: Model, canaries: Canaries): string {
  const statements: string[] = [];
  for (const [index, table] of model.relations.filter((relation) => relation.fills).entries()) {
    const columns = table.columns.filter((column) => !column.generated);
    for (let row = 1; row <= ROWS; row += 1) {
      const values = columns.map((column, position) => {
        // NULL stays NULL under every mask, so that it may be seen: it stands in the same places everywhere.
        if (column.masked && position > 1 && (row + position + index) % 5 === 0) return "null";
        return column.masked ? canaries.literal(column.type) : plain(column, row);
      });
      statements.push(`insert into ${table.name} (${columns.map((column) => column.name).join(", ")}) values (${values.join(", ")})`);
    }
  }
  return statements.join(";\n");
}
