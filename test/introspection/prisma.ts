import { type Asked, of, SCHEMAS } from "./asked.ts";

// Prisma 6: the schema engine's introspection, the driver's own look-ups (it asks for types and whether columns may be null), the
// query engine's reads. Named statements, parameters, binary results.

/** With `schema` in its address, which it has by default, it asks for the path as it connects. */
export const PRISMA_STARTUP = { search_path: '"public"', client_encoding: "UTF8" };

export const PRISMA: readonly Asked[] = [
  ...of("Prisma", "simple", {
    "the schema was set": "SHOW search_path",
    "set the schema behind a pooler": 'SET search_path = "public"',
    "is it alive": "SELECT 1",
    "begin, isolation": "BEGIN; SET TRANSACTION ISOLATION LEVEL READ COMMITTED; COMMIT",
  }),
  ...of("Prisma", "binary", {
    version: "SELECT version()",
    "schema exists": {
      sql: "SELECT EXISTS (SELECT 1 FROM pg_namespace WHERE nspname = $1), version(), current_setting('server_version_num')::integer AS server_number",
      values: ["public"],
    },
    namespaces: {
      sql: "SELECT ns.nspname AS found FROM pg_namespace AS ns WHERE ns.nspname = ANY ( $1 ) AND ns.nspname <> 'internal' ORDER BY found",
      values: [SCHEMAS],
    },
    tables: {
      sql: `SELECT c.relname AS tbl, s.nspname AS sch, (c.relhassubclass AND c.relkind = 'p') AS partitioned, (c.relhassubclass AND c.relkind = 'r') AS has_children,
        c.relkind = 'f' AS foreign_table, c.relrowsecurity AS row_security, reloptions, obj_description(c.oid, 'pg_class') AS remark
        FROM pg_class AS c INNER JOIN pg_namespace AS s ON s.oid = c.relnamespace
        WHERE ((c.relkind = 'r' AND c.relispartition = 'f') OR c.relkind = 'p' OR c.relkind = 'f') AND s.nspname = ANY ( $1 ) ORDER BY sch, tbl`,
      values: [SCHEMAS],
    },
    views: {
      sql: `SELECT v.viewname AS view_name, v.definition AS body, v.schemaname AS sch, obj_description(c.oid, 'pg_class') AS remark
        FROM pg_catalog.pg_views v INNER JOIN pg_catalog.pg_namespace s ON v.schemaname = s.nspname
        INNER JOIN pg_catalog.pg_class c ON c.relnamespace = s.oid AND c.relname = v.viewname WHERE schemaname = ANY ( $1 ) ORDER BY 1`,
      values: [SCHEMAS],
    },
    columns: {
      sql: `SELECT place.sch, col.table_name, col.column_name, format_type(a.atttypid, a.atttypmod) AS shown_type, col.numeric_precision, col.numeric_scale,
        col.numeric_precision_radix, col.datetime_precision, col.data_type, col.udt_schema AS type_schema, col.udt_name AS type_name,
        pg_get_expr(d.adbin, d.adrelid) AS default_value, col.is_nullable, col.is_identity, col.character_maximum_length, col_description(a.attrelid, ordinal_position) AS remark
        FROM information_schema.columns col JOIN pg_attribute a ON a.attname = col.column_name
        JOIN (SELECT pg_class.oid, relname, pg_namespace.nspname AS sch FROM pg_class JOIN pg_namespace ON pg_namespace.oid = pg_class.relnamespace AND pg_namespace.nspname = ANY ( $1 )
          WHERE reltype > 0) AS place ON place.oid = a.attrelid AND relname = col.table_name AND sch = col.table_schema
        LEFT OUTER JOIN pg_attrdef d ON d.adrelid = a.attrelid AND d.adnum = a.attnum AND table_schema = sch
        WHERE table_schema = ANY ( $1 ) ORDER BY sch, table_name, ordinal_position;`,
      values: [SCHEMAS],
    },
    enums: {
      sql: `SELECT ty.typname AS enum_name, en.enumlabel AS label, s.nspname AS sch, obj_description(ty.oid, 'pg_type') AS remark
        FROM pg_type ty JOIN pg_enum en ON ty.oid = en.enumtypid JOIN pg_catalog.pg_namespace s ON s.oid = ty.typnamespace WHERE s.nspname = ANY ( $1 ) ORDER BY en.enumsortorder`,
      values: [SCHEMAS],
    },
    "base types": {
      sql: `SELECT ty.typname, s.nspname FROM pg_type ty JOIN pg_catalog.pg_namespace s ON s.oid = ty.typnamespace
        WHERE s.nspname = ANY ( $1 ) AND ty.typtype = 'b' -- no domains, no enums
        AND ty.typinput::regproc::text <> 'array_in' -- and no arrays
        ORDER BY 1`,
      values: ["{pg_catalog,public}"],
    },
    indexes: {
      sql: `WITH flat AS (SELECT indrelid, indexrelid, indisunique, indisprimary, unnest(indkey) AS keyid, generate_subscripts(indkey, 1) AS keyno, unnest(indclass) AS class, unnest(indoption) AS how
          FROM pg_index WHERE indpred IS NULL AND NOT indisexclusion)
        SELECT s.nspname AS sch, ix.relname AS index_name, t.relname AS table_name, a.attname AS column_name, flat.indisunique, flat.indisprimary, flat.keyno, oc.opcname, oc.opcdefault,
          am.amname, CASE flat.how & 1 WHEN 1 THEN 'DESC' ELSE 'ASC' END AS direction, CASE flat.how & 2 WHEN 2 THEN true ELSE false END AS nulls_first, con.condeferrable, con.condeferred
        FROM flat INNER JOIN pg_class AS t ON t.oid = flat.indrelid INNER JOIN pg_class AS ix ON ix.oid = flat.indexrelid INNER JOIN pg_namespace AS s ON s.oid = t.relnamespace
        LEFT JOIN pg_attribute AS a ON a.attrelid = t.oid AND a.attnum = flat.keyid INNER JOIN pg_am AS am ON am.oid = ix.relam LEFT JOIN pg_opclass AS oc ON oc.oid = flat.class
        LEFT JOIN pg_constraint con ON flat.indexrelid = con.conindid AND con.contype <> 'f' WHERE s.nspname = ANY ( $1 ) ORDER BY sch, table_name, index_name, keyno`,
      values: [SCHEMAS],
    },
    "partial indexes": {
      sql: `SELECT ix.relname, pg_get_expr(i.indpred, i.indrelid) AS predicate FROM pg_index i JOIN pg_class ix ON ix.oid = i.indexrelid JOIN pg_namespace s ON s.oid = ix.relnamespace
        WHERE s.nspname = ANY ( $1 ) AND i.indpred IS NOT NULL AND NOT i.indisexclusion ORDER BY 1`,
      values: [SCHEMAS],
    },
    "foreign keys": {
      sql: `SELECT fk.oid AS id, mine.attname AS from_column, target.relname AS to_table, theirs.attname AS to_column, fk.confdeltype, fk.confupdtype, target_schema.nspname AS to_schema,
          conname AS name, theirs_no, mine_no, from_table, from_schema, condeferrable, condeferred
        FROM (SELECT s.nspname AS from_schema, unnest(k.conkey) AS mine_no, unnest(k.confkey) AS theirs_no, c.relname AS from_table, generate_subscripts(k.conkey, 1) AS place,
            k.oid, k.confrelid, k.conrelid, k.conname, k.confdeltype, k.confupdtype, k.condeferrable AS condeferrable, k.condeferred AS condeferred
          FROM pg_class c JOIN pg_constraint k ON k.conrelid = c.oid JOIN pg_namespace s ON c.relnamespace = s.oid WHERE s.nspname = ANY ( $1 ) AND k.contype = 'f' ORDER BY place) fk
        JOIN pg_attribute theirs ON theirs.attrelid = fk.confrelid AND theirs.attnum = fk.theirs_no JOIN pg_class target ON target.oid = fk.confrelid
        JOIN pg_attribute mine ON mine.attrelid = fk.conrelid AND mine.attnum = fk.mine_no JOIN pg_namespace target_schema ON target.relnamespace = target_schema.oid
        ORDER BY from_schema, from_table, name, id, fk.place;`,
      values: [SCHEMAS],
    },
    "check and exclusion constraints": {
      sql: `SELECT s.nspname AS sch, t.relname AS tbl, k.conname AS name, k.contype AS kind, pg_get_constraintdef(k.oid) AS body, k.condeferrable, k.condeferred
        FROM pg_constraint k JOIN pg_class AS t ON t.oid = k.conrelid JOIN pg_namespace AS s ON s.oid = t.relnamespace
        WHERE s.nspname = ANY ( $1 ) AND contype NOT IN ('p', 'u', 'f') ORDER BY sch, tbl, k.contype, name`,
      values: [SCHEMAS],
    },
    sequences: {
      sql: `SELECT sequence_name, sequence_schema AS sch, start_value::INT8, minimum_value::INT8 AS lowest, maximum_value::INT8 AS highest, increment::INT8 AS step,
        (CASE cycle_option WHEN 'yes' THEN TRUE ELSE FALSE END) AS cycles, 0::INT8 AS cached FROM information_schema.sequences WHERE sequence_schema = ANY ( $1 ) ORDER BY sequence_name`,
      values: [SCHEMAS],
    },
    procedures: {
      sql: `SELECT f.proname, s.nspname, CASE WHEN l.lanname = 'internal' THEN f.prosrc ELSE pg_get_functiondef(f.oid) END AS body
        FROM pg_proc f LEFT JOIN pg_namespace s ON f.pronamespace = s.oid LEFT JOIN pg_language l ON f.prolang = l.oid WHERE s.nspname = ANY ( $1 ) AND f.prokind <> 'a' ORDER BY 1`,
      values: ["{public,hr}"],
    },
    extensions: `SELECT e.extname, e.extversion, e.extrelocatable, s.nspname FROM pg_extension e INNER JOIN pg_namespace s ON e.extnamespace = s.oid ORDER BY e.extname ASC`,
    "migrations applied": `SELECT "id", "checksum", "finished_at", "migration_name", "logs", "rolled_back_at", "started_at", "applied_steps_count" FROM "public"."_prisma_migrations" ORDER BY "started_at" ASC`,
    "type by number": {
      sql: `SELECT ty.typname, ty.typtype, ty.typelem, ra.rngsubtype, ty.typbasetype, s.nspname, ty.typrelid FROM pg_catalog.pg_type ty
        LEFT OUTER JOIN pg_catalog.pg_range ra ON ra.rngtypid = ty.oid INNER JOIN pg_catalog.pg_namespace s ON ty.typnamespace = s.oid WHERE ty.oid = $1`,
      values: ["3904"],
    },
    "labels of an enum": { sql: "SELECT enumlabel FROM pg_catalog.pg_enum WHERE enumtypid = $1 ORDER BY enumsortorder", values: ["1"] },
    "fields of a composite": {
      sql: "SELECT attname, atttypid FROM pg_catalog.pg_attribute WHERE attrelid = $1 AND NOT attisdropped AND attnum > 0 ORDER BY attnum",
      values: ["1247"],
    },
    "columns that may be null": {
      sql: `SELECT NOT pg_attribute.attnotnull AS may_be_null FROM (VALUES ($1::int4, $2::int8, $3::int4), ($4::int4, $5::int8, $6::int4)) AS asked(place, rel, no)
        LEFT JOIN pg_catalog.pg_attribute ON rel IS NOT NULL AND attrelid = rel AND attnum = no ORDER BY asked.place`,
      values: ["0", "1259", "1", "1", undefined, undefined],
    },
    "a read": {
      sql: `SELECT "public"."customers"."id", "public"."customers"."name", "public"."customers"."mood"::text FROM "public"."customers" WHERE ("public"."customers"."id" = $1 AND 1=1) LIMIT $2 OFFSET $3`,
      values: ["1", "1", "0"],
    },
    "a read with a masked column": {
      sql: `SELECT "public"."customers"."id", "public"."customers"."email" FROM "public"."customers" WHERE 1=1 ORDER BY "public"."customers"."id" ASC OFFSET $1`,
      values: ["0"],
    },
    "a read by list": {
      sql: `SELECT "public"."orders"."id", "public"."orders"."item", "public"."orders"."customer" FROM "public"."orders" WHERE "public"."orders"."customer" IN ($1,$2) ORDER BY "public"."orders"."id" ASC OFFSET $3`,
      values: ["1", "2", "0"],
    },
    "a read of related rows": {
      sql: `SELECT "a"."id", "b"."rows" FROM "public"."regions" AS "a" LEFT JOIN LATERAL (SELECT COALESCE(JSONB_AGG("data"), '[]') AS "rows"
        FROM (SELECT "d"."data" FROM (SELECT JSONB_BUILD_OBJECT('id', "o"."id", 'item', "o"."item") AS "data" FROM "public"."orders" AS "o" WHERE "a"."id" = "o"."region" ORDER BY "o"."id") AS "d" LIMIT $1) AS "e") AS "b" ON TRUE ORDER BY "a"."id" ASC`,
      values: ["100"],
    },
    "a count": {
      sql: `SELECT COUNT(*) FROM (SELECT "public"."customers"."id" FROM "public"."customers" WHERE 1=1 OFFSET $1) AS "sub"`,
      values: ["0"],
    },
    "a relation's count": `SELECT "public"."regions"."id", COALESCE("agg"."n", 0) AS "n" FROM "public"."regions" LEFT JOIN (SELECT "public"."orders"."region", COUNT(*) AS "n" FROM "public"."orders" WHERE 1=1 GROUP BY "public"."orders"."region") AS "agg" ON ("public"."regions"."id" = "agg"."region") ORDER BY 1`,
    "a group": `SELECT SUM("public"."orders"."amount"), "public"."orders"."region" FROM "public"."orders" WHERE 1=1 GROUP BY "public"."orders"."region" OFFSET 0`,
  }),
];
