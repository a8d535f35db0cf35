import { type Asked, of } from "./asked.ts";

// Active Record: connection, schema cache and schema dump in simple queries, reads in named statements.

const HERE = "= ANY (current_schemas(false))";
const sources = (kinds: string, more = "") =>
  `SELECT c.relname FROM pg_class c LEFT JOIN pg_namespace s ON s.oid = c.relnamespace WHERE s.nspname ${HERE}${more} AND c.relkind IN (${kinds}) ORDER BY 1`;
const types = (where: string) =>
  `SELECT ty.oid, ty.typname, ty.typelem, ty.typdelim, ty.typinput, ra.rngsubtype, ty.typtype, ty.typbasetype FROM pg_type as ty LEFT JOIN pg_range as ra ON oid = rngtypid WHERE ${where} ORDER BY 1`;
const ofDatabase = (column: string) => `SELECT ${column} FROM pg_database WHERE datname = current_database()`;
const ofTable = (table: string) => `c.relname = '${table}' AND s.nspname ${HERE}`;

export const RAILS: readonly Asked[] = [
  ...of("Rails", "simple", {
    "set up the connection":
      "SET client_min_messages TO 'warning'; SET standard_conforming_strings = on; SET intervalstyle = iso_8601; SET SESSION timezone TO 'UTC'; SET search_path TO public",
    encoding: "SET client_encoding TO 'unicode'",
    settings: "SHOW server_version_num; SHOW max_identifier_length; SHOW search_path; SHOW client_min_messages; SHOW TIME ZONE",
    "types by name": types(
      "ty.typname IN ('int2', 'int4', 'int8', 'oid', 'float4', 'float8', 'numeric', 'bool', 'jsonb') OR ty.typtype IN ('r', 'e', 'd') OR ty.typinput = 'array_in(cstring,oid,integer)'::regprocedure OR ty.typelem != 0",
    ),
    "types by number": types("ty.oid IN (23, 25)"),
    "is it alive": ";",
    database: "SELECT current_database()",
    schema: "SELECT current_schema",
    "of the database": `${ofDatabase("pg_encoding_to_char(encoding)")}; ${ofDatabase("datcollate")}; ${ofDatabase("datctype")}`,
    schemas: "SELECT nspname FROM pg_namespace WHERE nspname !~ '^pg_.*' AND nspname NOT IN ('information_schema') ORDER by nspname;",
    "schema exists": "SELECT COUNT(*) FROM pg_namespace WHERE nspname = 'public'",
    "data sources": sources("'r','v','m','p','f'"),
    tables: sources("'r','p'"),
    "table exists": sources("'r','p'", " AND c.relname = 'customers'"),
    views: sources("'v','m'"),
    "foreign tables": sources("'f'"),
    columns: `SELECT a.attname, format_type(a.atttypid, a.atttypmod), pg_get_expr(d.adbin, d.adrelid), a.attnotnull, a.atttypid, a.atttypmod, c.collname, col_description(a.attrelid, a.attnum) AS comment, attidentity AS identity, attgenerated as attgenerated
      FROM pg_attribute a LEFT JOIN pg_attrdef d ON a.attrelid = d.adrelid AND a.attnum = d.adnum LEFT JOIN pg_type ty ON a.atttypid = ty.oid LEFT JOIN pg_collation c ON a.attcollation = c.oid AND a.attcollation <> ty.typcollation
      WHERE a.attrelid = '"customers"'::regclass AND a.attnum > 0 AND NOT a.attisdropped ORDER BY a.attnum`,
    "primary keys": `SELECT a.attname FROM (SELECT indrelid, indkey, generate_subscripts(indkey, 1) place FROM pg_index WHERE indrelid = '"customers"'::regclass AND indisprimary) i
      JOIN pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = i.indkey[i.place] ORDER BY i.place`,
    indexes: `SELECT distinct x.relname, i.indisunique, i.indkey, pg_get_indexdef(i.indexrelid), pg_catalog.obj_description(x.oid, 'pg_class') AS comment, i.indisvalid,
        ARRAY(SELECT pg_get_indexdef(indexrelid, k + 1, true) FROM generate_subscripts(indkey, 1) AS k ORDER BY k) AS columns
      FROM pg_class c INNER JOIN pg_index i ON c.oid = i.indrelid INNER JOIN pg_class x ON i.indexrelid = x.oid LEFT JOIN pg_namespace s ON s.oid = c.relnamespace
      WHERE x.relkind IN ('i', 'I') AND i.indisprimary = 'f' AND ${ofTable("customers")} ORDER BY x.relname`,
    "index exists": `SELECT COUNT(*) FROM pg_class c INNER JOIN pg_index i ON c.oid = i.indrelid INNER JOIN pg_class x ON i.indexrelid = x.oid LEFT JOIN pg_namespace s ON s.oid = c.relnamespace
      WHERE x.relkind IN ('i', 'I') AND x.relname = 'customers_email_key' AND ${ofTable("customers")}`,
    "columns of an index": "SELECT a.attnum, a.attname FROM pg_attribute a WHERE a.attrelid = 1259 AND a.attnum IN (1,2)",
    "foreign keys": `SELECT o.oid::regclass::text AS to_table, mine.attname AS column, theirs.attname AS primary_key, k.conname AS name, k.confupdtype AS on_update, k.confdeltype AS on_delete, k.convalidated AS valid, k.condeferrable AS deferrable, k.condeferred AS deferred, k.conkey, k.confkey, k.conrelid, k.confrelid
      FROM pg_constraint k JOIN pg_class c ON k.conrelid = c.oid JOIN pg_class o ON k.confrelid = o.oid JOIN pg_attribute mine ON mine.attnum = k.conkey[1] AND mine.attrelid = c.oid JOIN pg_attribute theirs ON theirs.attnum = k.confkey[1] AND theirs.attrelid = o.oid
      JOIN pg_namespace s ON k.connamespace = s.oid WHERE k.contype = 'f' AND ${ofTable("orders")} ORDER BY k.conname`,
    "check constraints": `SELECT conname, pg_get_constraintdef(k.oid, true) AS constraintdef, k.convalidated AS valid FROM pg_constraint k JOIN pg_class c ON k.conrelid = c.oid JOIN pg_namespace s ON s.oid = k.connamespace WHERE k.contype = 'c' AND ${ofTable("bookings")}`,
    "exclusion constraints": `SELECT conname, pg_get_constraintdef(k.oid) AS constraintdef, k.condeferrable, k.condeferred FROM pg_constraint k JOIN pg_class c ON k.conrelid = c.oid JOIN pg_namespace s ON s.oid = k.connamespace WHERE k.contype = 'x' AND ${ofTable("bookings")}`,
    "unique constraints": `SELECT k.conname, k.conrelid, k.conkey, k.condeferrable, k.condeferred, pg_get_constraintdef(k.oid) AS constraintdef FROM pg_constraint k JOIN pg_class c ON k.conrelid = c.oid JOIN pg_namespace s ON s.oid = k.connamespace WHERE k.contype = 'u' AND ${ofTable("customers")}`,
    "comment of a table": `SELECT pg_catalog.obj_description(c.oid, 'pg_class') FROM pg_catalog.pg_class c LEFT JOIN pg_namespace s ON s.oid = c.relnamespace WHERE c.relkind IN ('r','p') AND ${ofTable("customers")}`,
    "partitions of a table": `SELECT pg_catalog.pg_get_partkeydef(c.oid) FROM pg_catalog.pg_class c LEFT JOIN pg_namespace s ON s.oid = c.relnamespace WHERE c.relkind IN ('p') AND ${ofTable("parts")}`,
    "parents of a table": `SELECT p.relname AS parent FROM pg_catalog.pg_inherits i JOIN pg_catalog.pg_class c ON i.inhrelid = c.oid JOIN pg_catalog.pg_class p ON i.inhparent = p.oid LEFT JOIN pg_namespace s ON s.oid = c.relnamespace WHERE c.relkind IN ('r','p') AND ${ofTable("loud")}`,
    "sequence of a key": `SELECT pg_get_serial_sequence('customers', 'id')`,
    "key and sequence": `SELECT a.attname, s.nspname, q.relname FROM pg_class q, pg_attribute a, pg_depend d, pg_constraint k, pg_namespace s WHERE q.oid = d.objid AND q.relkind = 'S' AND a.attrelid = d.refobjid AND a.attnum = d.refobjsubid
      AND a.attrelid = k.conrelid AND a.attnum = k.conkey[1] AND q.relnamespace = s.oid AND k.contype = 'p' AND d.classid = 'pg_class'::regclass AND d.refobjid = '"customers"'::regclass`,
    "key and sequence by default": `SELECT a.attname, s.nspname, CASE WHEN pg_get_expr(d.adbin, d.adrelid) !~* 'nextval' THEN NULL WHEN split_part(pg_get_expr(d.adbin, d.adrelid), '''', 2) ~ '.'
        THEN substr(split_part(pg_get_expr(d.adbin, d.adrelid), '''', 2), strpos(split_part(pg_get_expr(d.adbin, d.adrelid), '''', 2), '.')+1) ELSE split_part(pg_get_expr(d.adbin, d.adrelid), '''', 2) END
      FROM pg_class c JOIN pg_attribute a ON (c.oid = attrelid) JOIN pg_attrdef d ON (adrelid = attrelid AND adnum = attnum) JOIN pg_constraint k ON (conrelid = adrelid AND adnum = conkey[1]) JOIN pg_namespace s ON (c.relnamespace = s.oid)
      WHERE c.oid = '"customers"'::regclass AND k.contype = 'p' AND pg_get_expr(d.adbin, d.adrelid) ~* 'nextval|uuid_generate|gen_random_uuid'`,
    enums: `SELECT ty.typname AS name, ty.OID AS oid, s.nspname AS schema, array_agg(en.enumlabel ORDER BY en.enumsortorder) AS value FROM pg_enum AS en JOIN pg_type AS ty ON ty.oid = en.enumtypid JOIN pg_namespace s ON ty.typnamespace = s.oid
      WHERE s.nspname ${HERE} GROUP BY ty.OID, s.nspname, ty.typname ORDER BY 1`,
    extensions:
      "SELECT pg_extension.extname, s.nspname AS schema FROM pg_extension JOIN pg_namespace s ON pg_extension.extnamespace = s.oid ORDER BY 1",
    "extension to be had": "SELECT installed_version IS NOT NULL FROM pg_available_extensions WHERE name = 'plpgsql'",
    "values of an index's options": "SELECT a.amname FROM pg_am a JOIN pg_class c ON c.relam = a.oid WHERE c.relname = 'customers_pkey'",
    explain: `EXPLAIN SELECT "customers"."id", "customers"."name" FROM "customers" WHERE "customers"."id" = 1`,
  }),
  ...of("Rails", "named", {
    migrations: {
      sql: `SELECT "schema_migrations"."version" FROM "schema_migrations" ORDER BY "schema_migrations"."version" ASC`,
      values: [],
    },
    environment: {
      sql: `SELECT * FROM "ar_internal_metadata" WHERE "ar_internal_metadata"."key" = $1 ORDER BY "ar_internal_metadata"."key" ASC LIMIT 1`,
      values: ["environment"],
    },
    "a read": { sql: `SELECT "regions".* FROM "regions" WHERE "regions"."id" = $1 LIMIT $2`, values: ["1", "1"] },
    "a read with masked columns": { sql: `SELECT "customers".* FROM "customers" WHERE "customers"."id" = $1 LIMIT $2`, values: ["1", "1"] },
    "a preload": { sql: `SELECT "orders".* FROM "orders" WHERE "orders"."customer" IN ($1, $2, $3)`, values: ["1", "2", "3"] },
    "does one exist": { sql: `SELECT 1 AS one FROM "customers" WHERE "customers"."name" = $1 LIMIT $2`, values: ["name 1", "1"] },
    "in batches": {
      sql: `SELECT "customers".* FROM "customers" WHERE "customers"."id" > $1 ORDER BY "customers"."id" ASC LIMIT $2`,
      values: ["2", "1000"],
    },
    "a count": `SELECT COUNT(*) FROM "customers"`,
    "a count of keys": `SELECT COUNT(DISTINCT "customers"."id") FROM "customers" LEFT OUTER JOIN "orders" ON "orders"."customer" = "customers"."id"`,
    "eager loading": `SELECT "customers"."id" AS t0_r0, "customers"."name" AS t0_r1, "customers"."email" AS t0_r2, "orders"."id" AS t1_r0, "orders"."item" AS t1_r1 FROM "customers" LEFT OUTER JOIN "orders" ON "orders"."customer" = "customers"."id" ORDER BY "customers"."id", "orders"."id"`,
    "a lookup by a masked column": {
      sql: `SELECT "customers".* FROM "customers" WHERE "customers"."email" = $1 LIMIT $2`,
      values: ["1@corp.example", "1"],
    },
  }),
];
