import { type Asked, of } from "./asked.ts";

// Metabase: sync of tables, fields, keys and indexes, the sample that it takes fingerprints from, and questions. It goes through pgjdbc
// (jdbc.ts has the metadata calls that it makes besides), so parameters and named statements throughout.

const path = (schema: string, name: string) =>
  `'"' || replace(${schema}, '"', '""') || '"' || '.' || '"' || replace(${name}, '"', '""') || '"'`;
const may = (how: string, right: string) => `pg_catalog.${how}(current_user, ${path("o.sch", "o.obj")}, '${right}') as "${right}"`;
const sample = (columns: string, from: string) => `SELECT ${columns} FROM ${from} LIMIT 10000`;

const JSON_PATH = `("public"."documents"."body"#>> array[$1]::text[])::text`;

export const METABASE: readonly Asked[] = [
  ...of("Metabase", "named", {
    "time zone": "show timezone;",
    "set the time zone": "SET SESSION TIMEZONE TO 'UTC';",
    "isolation of its transactions": "SET SESSION CHARACTERISTICS AS TRANSACTION ISOLATION LEVEL READ UNCOMMITTED",
    version: "select version(), current_setting('server_version_num')",
    tables: {
      sql: `SELECT "s"."nspname" AS "schema", "c"."relname" AS "name", CASE "c"."relkind" WHEN 'r' THEN 'TABLE' WHEN 'p' THEN 'PARTITIONED TABLE' WHEN 'v' THEN 'VIEW' WHEN 'f' THEN 'FOREIGN TABLE' WHEN 'm' THEN 'MATERIALIZED VIEW' ELSE NULL END AS "type",
          "d"."description" AS "description", "live"."n_live_tup" AS "estimated_row_count"
        FROM "pg_catalog"."pg_class" AS "c" INNER JOIN "pg_catalog"."pg_namespace" AS "s" ON "c"."relnamespace" = "s"."oid"
        LEFT JOIN "pg_catalog"."pg_description" AS "d" ON ("c"."oid" = "d"."objoid") AND ("d"."objsubid" = $1) AND ("d"."classoid" = 'pg_class'::regclass)
        LEFT JOIN "pg_stat_user_tables" AS "live" ON ("s"."nspname" = "live"."schemaname") AND ("c"."relname" = "live"."relname")
        WHERE ("c"."relnamespace" = "s"."oid") AND ("s"."nspname" !~ $2) AND ("s"."nspname" <> $3) AND c.relkind in ('r', 'p', 'v', 'f', 'm') AND ("s"."nspname" IN ($4, $5)) ORDER BY "type" ASC, "schema" ASC, "name" ASC`,
      values: ["0", "^pg_", "information_schema", "public", "hr"],
    },
    privileges: `with held as (select NULL as role, o.sch as schema, o.obj as table, ${may("has_any_column_privilege", "update")}, ${may("has_any_column_privilege", "select")},
        ${may("has_any_column_privilege", "insert")}, ${may("has_table_privilege", "delete")}
      from (select schemaname as sch, tablename as obj from pg_catalog.pg_tables union select schemaname, viewname from pg_catalog.pg_views union select schemaname, matviewname from pg_catalog.pg_matviews) o
      where o.sch !~ '^pg_' and o.sch <> 'information_schema' and pg_catalog.has_schema_privilege(current_user, o.sch, 'usage')) select h.* from held h order by 2, 3`,
    "may it read a table": `SELECT TRUE AS "_" FROM "public"."customers" WHERE 1 <> 1 LIMIT 0`,
    "columns of a table by a read": `SELECT * FROM "public"."customers" WHERE 1 <> 1 LIMIT 0`,
    fields: {
      sql: `SELECT "c"."column_name" AS "name", CASE WHEN "c"."udt_schema" IN ('public', 'pg_catalog') THEN FORMAT('%s', "c"."udt_name") ELSE FORMAT('"%s"."%s"', "c"."udt_schema", "c"."udt_name") END AS "database-type",
          "c"."ordinal_position" - 1 AS "database-position", "c"."table_schema" AS "table-schema", "c"."table_name" AS "table-name", "pk"."column_name" IS NOT NULL AS "pk?",
          COL_DESCRIPTION(CAST(CAST(FORMAT('%I.%I', CAST("c"."table_schema" AS TEXT), CAST("c"."table_name" AS TEXT)) AS REGCLASS) AS OID), "c"."ordinal_position") AS "field-comment",
          (("column_default" IS NULL) OR (LOWER("column_default") = 'null')) AND ("is_nullable" = 'NO') AND NOT ((("column_default" IS NOT NULL) AND ("column_default" LIKE '%nextval(%')) OR ("is_identity" <> 'NO')) AS "database-required",
          (("column_default" IS NOT NULL) AND ("column_default" LIKE '%nextval(%')) OR ("is_identity" <> 'NO') AS "database-is-auto-increment"
        FROM "information_schema"."columns" AS "c"
        LEFT JOIN (SELECT "t"."table_schema", "t"."table_name", "k"."column_name" FROM "information_schema"."table_constraints" AS "t"
          INNER JOIN "information_schema"."key_column_usage" AS "k" ON ("t"."constraint_name" = "k"."constraint_name") AND ("t"."table_schema" = "k"."table_schema") AND ("t"."table_name" = "k"."table_name")
          WHERE "t"."constraint_type" = 'PRIMARY KEY') AS "pk" ON ("c"."table_schema" = "pk"."table_schema") AND ("c"."table_name" = "pk"."table_name") AND ("c"."column_name" = "pk"."column_name")
        WHERE c.table_schema !~ '^information_schema|catalog_history|pg_' AND ("c"."table_schema" IN ($1)) AND ("c"."table_name" IN ($2, $3))
        UNION ALL
        SELECT "a"."attname" AS "name", CASE WHEN "ts"."nspname" IN ('public', 'pg_catalog') THEN FORMAT('%s', "ty"."typname") ELSE FORMAT('"%s"."%s"', "ts"."nspname", "ty"."typname") END AS "database-type",
          "a"."attnum" - 1 AS "database-position", "s"."nspname" AS "table-schema", "m"."relname" AS "table-name", FALSE AS "pk?", NULL AS "field-comment", FALSE AS "database-required", FALSE AS "database-is-auto-increment"
        FROM "pg_catalog"."pg_class" AS "m" INNER JOIN "pg_catalog"."pg_namespace" AS "s" ON "s"."oid" = "m"."relnamespace" INNER JOIN "pg_catalog"."pg_attribute" AS "a" ON "a"."attrelid" = "m"."oid"
        INNER JOIN "pg_catalog"."pg_type" AS "ty" ON "ty"."oid" = "a"."atttypid" INNER JOIN "pg_catalog"."pg_namespace" AS "ts" ON "ts"."oid" = "ty"."typnamespace"
        WHERE ("m"."relkind" = 'm') AND ("a"."attnum" >= 1) AND ("s"."nspname" IN ($4)) ORDER BY "table-schema" ASC, "table-name" ASC, "database-position" ASC`,
      values: ["public", "customers", "orders", "public"],
    },
    "foreign keys": {
      sql: `SELECT "fs"."nspname" AS "fk-table-schema", "ft"."relname" AS "fk-table-name", "fa"."attname" AS "fk-column-name", "ps"."nspname" AS "pk-table-schema", "pt"."relname" AS "pk-table-name", "pa"."attname" AS "pk-column-name"
        FROM "pg_constraint" AS "k" INNER JOIN "pg_class" AS "ft" ON "k"."conrelid" = "ft"."oid" INNER JOIN "pg_namespace" AS "fs" ON "k"."connamespace" = "fs"."oid" INNER JOIN "pg_attribute" AS "fa" ON "k"."conrelid" = "fa"."attrelid"
        INNER JOIN "pg_class" AS "pt" ON "k"."confrelid" = "pt"."oid" INNER JOIN "pg_namespace" AS "ps" ON "pt"."relnamespace" = "ps"."oid" INNER JOIN "pg_attribute" AS "pa" ON "k"."confrelid" = "pa"."attrelid"
        WHERE fs.nspname !~ '^information_schema|catalog_history|pg_' AND ("k"."contype" = 'f'::char) AND ("fa"."attnum" = ANY(k.conkey)) AND ("pa"."attnum" = ANY(k.confkey)) AND ("fs"."nspname" IN ($1))
        ORDER BY "fk-table-schema" ASC, "fk-table-name" ASC, 3, 6`,
      values: ["public"],
    },
    indexes: {
      sql: `SELECT "t"."table-schema", "t"."table-name", TRIM(BOTH '"' FROM PG_CATALOG.PG_GET_INDEXDEF("t"."ci_oid", "t"."pos", FALSE)) AS "field-name"
        FROM (SELECT "s"."nspname" AS "table-schema", "c"."relname" AS "table-name", "x"."oid" AS "ci_oid", (INFORMATION_SCHEMA._PG_EXPANDARRAY("i"."indkey"))."n" AS "pos"
          FROM "pg_catalog"."pg_class" AS "c" INNER JOIN "pg_catalog"."pg_namespace" AS "s" ON "c"."relnamespace" = "s"."oid" INNER JOIN "pg_catalog"."pg_index" AS "i" ON "c"."oid" = "i"."indrelid"
          INNER JOIN "pg_catalog"."pg_class" AS "x" ON "x"."oid" = "i"."indexrelid" WHERE (PG_CATALOG.PG_GET_EXPR("i"."indpred", "i"."indrelid") IS NULL) AND s.nspname !~ '^information_schema|catalog_history|pg_' AND ("s"."nspname" IN ($1))) AS "t"
        WHERE "t"."pos" = 1 ORDER BY 1, 2, 3`,
      values: ["public"],
    },
    enums:
      "SELECT nspname, typname FROM pg_type ty JOIN pg_namespace s ON s.oid = ty.typnamespace WHERE ty.oid IN (SELECT DISTINCT enumtypid FROM pg_enum en) ORDER BY 1, 2",
    "a sample": sample(
      `"public"."customers"."id" AS "id", SUBSTRING("public"."customers"."name", 1, 1234) AS "substring1"`,
      `"public"."customers"`,
    ),
    "a sample with a masked column": sample(
      `"public"."customers"."id" AS "id", SUBSTRING("public"."customers"."email", 1, 1234) AS "substring1"`,
      `"public"."customers"`,
    ),
    "a sample of JSON": `SELECT CASE WHEN LENGTH(CAST("body" AS TEXT)) < 100000 THEN "body" ELSE NULL END AS "body" FROM (SELECT "public"."documents"."body" AS "body" FROM "public"."documents" ORDER BY "id" DESC LIMIT 500) AS "docs"`,
    "values of a column": `SELECT "public"."customers"."name" AS "name" FROM "public"."customers" GROUP BY "public"."customers"."name" ORDER BY "public"."customers"."name" ASC LIMIT 1000`,
    "values of a masked column": `SELECT "public"."customers"."email" AS "email" FROM "public"."customers" GROUP BY "public"."customers"."email" ORDER BY "public"."customers"."email" ASC LIMIT 1000`,
    "rows of a table, masked columns among them": `SELECT "public"."customers"."id" AS "id", "public"."customers"."name" AS "name", "public"."customers"."email" AS "email", "public"."customers"."ssn" AS "ssn" FROM "public"."customers" LIMIT 2000`,
    "rows of a question on a question": `SELECT "source"."id" AS "id", "source"."name" AS "name", "source"."email" AS "email" FROM (SELECT "public"."customers"."id" AS "id", "public"."customers"."name" AS "name", "public"."customers"."email" AS "email" FROM "public"."customers") AS "source" LIMIT 2000`,
    "a question by month": `SELECT CAST(DATE_TRUNC('month', "source"."at") AS DATE) AS "at", COUNT(*) AS "count", SUM("source"."amount") AS "sum", AVG("source"."amount") AS "avg", COUNT(DISTINCT "source"."item") AS "distinct"
      FROM (SELECT "public"."orders"."at" AS "at", "public"."orders"."amount" AS "amount", "public"."orders"."item" AS "item" FROM "public"."orders") AS "source" GROUP BY CAST(DATE_TRUNC('month', "source"."at") AS DATE) ORDER BY 1 ASC`,
    "a question by day of the week": `SELECT (CAST(extract(dow from "public"."orders"."at") AS integer) + 1) AS "day", PERCENTILE_CONT(0.5) within group (order by "public"."orders"."amount") AS "median" FROM "public"."orders" GROUP BY 1 ORDER BY 1 ASC`,
    "a question with a filter on time": {
      sql: `SELECT COUNT(*) AS "count" FROM "public"."orders" WHERE ("public"."orders"."at" >= timezone('UTC', $1::timestamp)) AND ("public"."orders"."at" < (DATE_TRUNC('day', NOW()) + INTERVAL '1 day'))`,
      values: ["2023-01-01 00:00"],
    },
    "a question with a join": {
      sql: `SELECT "Customers"."name" AS "Customers__name", "Regions"."name" AS "Regions__name", SUM("public"."orders"."amount") AS "sum" FROM "public"."orders"
        LEFT JOIN "public"."customers" AS "Customers" ON "public"."orders"."customer" = "Customers"."id" INNER JOIN "public"."regions" AS "Regions" ON "public"."orders"."region" = "Regions"."id"
        WHERE (LOWER("public"."orders"."item") LIKE $1) AND (("Customers"."mood" = CAST($2 AS "mood")) OR ("Customers"."mood" IS NULL)) GROUP BY 1, 2 ORDER BY "sum" DESC, 1 ASC LIMIT 50`,
      values: ["%item%", "ok"],
    },
    "a question with expressions": `SELECT split_part("public"."orders"."item", ' ', 2) AS "part", substring("public"."orders"."item" FROM '[0-9]+') AS "match", CAST(NULLIF(floor("public"."orders"."amount" / 2.0) * 2.0, 0) AS bigint) AS "bin", CASE WHEN "public"."orders"."amount" > 2 THEN 'many' ELSE 'few' END AS "kind" FROM "public"."orders" ORDER BY "public"."orders"."id" ASC LIMIT 1048575`,
    "a question on JSON": {
      sql: `SELECT ${JSON_PATH} AS "body → a", COUNT(*) AS "count" FROM "public"."documents" GROUP BY "body → a" ORDER BY "body → a" ASC`,
      values: ["a"],
    },
  }),
];
