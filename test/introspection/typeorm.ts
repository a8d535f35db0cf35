import { type Asked, of } from "./asked.ts";

// TypeORM 0.3 over node-postgres: metadata in simple queries with the names written in, reads with parameters.

const TABLE = `"table_schema" = 'public' AND "table_name" = 'customers'`;
const IN = `("s"."nspname" = 'public' AND "c"."relname" = 'customers') OR ("s"."nspname" = 'public' AND "c"."relname" = 'orders')`;

const ACTIONS = (column: string) =>
  `CASE ${column} WHEN 'a' THEN 'NO ACTION' WHEN 'r' THEN 'RESTRICT' WHEN 'c' THEN 'CASCADE' WHEN 'n' THEN 'SET NULL' WHEN 'd' THEN 'SET DEFAULT' END`;

const indices = (
  kinds: string,
  method: string,
) => `SELECT "s"."nspname" AS "table_schema", "c"."relname" AS "table_name", "x"."relname" AS "constraint_name", "a"."attname" AS "column_name",
  CASE "i"."indisunique" WHEN 't' THEN 'TRUE' ELSE'FALSE' END AS "is_unique", pg_get_expr("i"."indpred", "i"."indrelid") AS "condition", "ty"."typname" AS "type_name"${method}
  FROM "pg_class" "c" INNER JOIN "pg_index" "i" ON "i"."indrelid" = "c"."oid" INNER JOIN "pg_attribute" "a" ON "a"."attrelid" = "c"."oid"  AND "a"."attnum" = ANY ("i"."indkey")
  INNER JOIN "pg_namespace" "s" ON "s"."oid" = "c"."relnamespace" INNER JOIN "pg_class" "x" ON "x"."oid" = "i"."indexrelid" INNER JOIN "pg_type" "ty" ON "ty"."oid" = "a"."atttypid"
  ${method === "" ? "" : `INNER JOIN "pg_am" "am" ON "x"."relam" = "am"."oid"`} LEFT JOIN "pg_constraint" "k" ON "k"."conname" = "x"."relname"
  WHERE "c"."relkind" IN (${kinds}) AND "k"."contype" IS NULL AND (${IN}) ORDER BY 1, 2, 3, 4`;

export const TYPEORM: readonly Asked[] = [
  ...of("TypeORM", "simple", {
    version: "SELECT version()",
    "version as a setting": "SHOW server_version",
    database: "SELECT * FROM current_database()",
    schema: "SELECT * FROM current_schema()",
    "database exists": "SELECT * FROM pg_database WHERE datname='postgres';",
    "schema exists": `SELECT * FROM "information_schema"."schemata" WHERE "schema_name" = 'hr'`,
    "table exists": `SELECT * FROM "information_schema"."tables" WHERE ${TABLE}`,
    "column exists": `SELECT * FROM "information_schema"."columns" WHERE ${TABLE} AND "column_name" = 'email'`,
    "extensions to be had": "SELECT name FROM pg_available_extensions",
    "partitions known": `SELECT TRUE FROM information_schema.columns WHERE table_name = 'pg_class' and column_name = 'relispartition'`,
    "all tables": `SELECT "table_schema", "table_name", obj_description(('"' || "table_schema" || '"."' || "table_name" || '"')::regclass, 'pg_class') AS table_comment FROM "information_schema"."tables"`,
    "some tables": `SELECT "table_schema", "table_name", obj_description(('"' || "table_schema" || '"."' || "table_name" || '"')::regclass, 'pg_class') AS table_comment FROM "information_schema"."tables" WHERE (${TABLE})`,
    columns: `SELECT columns.*, pg_catalog.col_description(('"' || table_catalog || '"."' || table_schema || '"."' || table_name || '"')::regclass::oid, ordinal_position) AS description,
      ('"' || "udt_schema" || '"."' || "udt_name" || '"')::"regtype" AS "regtype", pg_catalog.format_type("att"."atttypid", "att"."atttypmod") AS "format_type"
      FROM "information_schema"."columns" LEFT JOIN "pg_catalog"."pg_attribute" AS "att" ON "att"."attname" = "columns"."column_name" AND "att"."attrelid" = (
        SELECT "rel"."oid" FROM "pg_catalog"."pg_class" AS "rel" LEFT JOIN "pg_catalog"."pg_namespace" AS "sch" ON "sch"."oid" = "rel"."relnamespace"
        WHERE "rel"."relname" = "columns"."table_name" AND "sch"."nspname" = "columns"."table_schema" ) WHERE (${TABLE}) ORDER BY ordinal_position`,
    constraints: `SELECT "s"."nspname" AS "table_schema", "c"."relname" AS "table_name", "k"."conname" AS "constraint_name", pg_get_constraintdef("k"."oid") AS "expression",
      CASE "k"."contype" WHEN 'p' THEN 'PRIMARY' WHEN 'u' THEN 'UNIQUE' WHEN 'c' THEN 'CHECK' WHEN 'x' THEN 'EXCLUDE' END AS "constraint_type", "a"."attname" AS "column_name",
      "k"."condeferrable" AS "deferrable", "k"."condeferred" AS "deferred" FROM "pg_constraint" "k" INNER JOIN "pg_class" "c" ON "c"."oid" = "k"."conrelid"
      INNER JOIN "pg_namespace" "s" ON "s"."oid" = "k"."connamespace" LEFT JOIN "pg_attribute" "a" ON "a"."attrelid" = "k"."conrelid" AND "a"."attnum" = ANY ("k"."conkey")
      WHERE "c"."relkind" IN ('r', 'p') AND (${IN}) ORDER BY 1, 2, 3, 6`,
    indices: indices("'r', 'p'", ""),
    "indices with their method": indices("'r', 'p'", `, "am"."amname" AS "index_type"`),
    "indices of materialized views": indices("'m'", ""),
    "foreign keys": `SELECT "f"."conname" AS "constraint_name", "f"."nspname" AS "table_schema", "f"."relname" AS "table_name", "mine"."attname" AS "column_name", "s"."nspname" AS "referenced_table_schema",
      "c"."relname" AS "referenced_table_name", "theirs"."attname" AS "referenced_column_name", "f"."confdeltype" AS "on_delete", "f"."confupdtype" AS "on_update", "f"."condeferrable" AS "deferrable", "f"."condeferred" AS "deferred"
      FROM ( SELECT UNNEST ("k"."conkey") AS "parent", UNNEST ("k"."confkey") AS "child", "k"."confrelid", "k"."conrelid", "k"."conname", "k"."contype", "s"."nspname", "c"."relname", "k"."condeferrable",
          CASE WHEN "k"."condeferred" THEN 'INITIALLY DEFERRED' ELSE 'INITIALLY IMMEDIATE' END as condeferred, ${ACTIONS('"k"."confdeltype"')} as "confdeltype", ${ACTIONS('"k"."confupdtype"')} as "confupdtype"
        FROM "pg_class" "c" INNER JOIN "pg_namespace" "s" ON "c"."relnamespace" = "s"."oid" INNER JOIN "pg_constraint" "k" ON "k"."conrelid" = "c"."oid" WHERE "k"."contype" = 'f' AND (${IN}) ) "f"
      INNER JOIN "pg_attribute" "theirs" ON "theirs"."attrelid" = "f"."confrelid" AND "theirs"."attnum" = "f"."child" INNER JOIN "pg_class" "c" ON "c"."oid" = "f"."confrelid"  AND "c"."relispartition" = 'f'
      INNER JOIN "pg_namespace" "s" ON "c"."relnamespace" = "s"."oid" INNER JOIN "pg_attribute" "mine" ON "mine"."attrelid" = "f"."conrelid" AND "mine"."attnum" = "f"."parent" ORDER BY 1, 4`,
    "type of a column": `SELECT "udt_schema", "udt_name" FROM "information_schema"."columns" WHERE ${TABLE} AND "column_name"='mood'`,
    "labels of an enum": `SELECT "en"."enumlabel" AS "value" FROM "pg_enum" "en" INNER JOIN "pg_type" "ty" ON "ty"."oid" = "en"."enumtypid" INNER JOIN "pg_namespace" "s" ON "s"."oid" = "ty"."typnamespace" WHERE "s"."nspname" = 'public' AND "ty"."typname" = 'mood'`,
    "enum exists": `SELECT "s"."nspname", "ty"."typname" FROM "pg_type" "ty" INNER JOIN "pg_namespace" "s" ON "s"."oid" = "ty"."typnamespace" WHERE "s"."nspname" = 'public' AND "ty"."typname" = 'mood'`,
    "enums to be dropped": `SELECT 'DROP TYPE IF EXISTS "' || s.nspname || '"."' || ty.typname || '" CASCADE;' as "query" FROM "pg_type" "ty" INNER JOIN "pg_enum" "en" ON "en"."enumtypid" = "ty"."oid"
      INNER JOIN "pg_namespace" "s" ON "s"."oid" = "ty"."typnamespace" WHERE "s"."nspname" IN ('public', current_schema()) GROUP BY "s"."nspname", "ty"."typname"`,
    "views to be dropped": `SELECT 'DROP VIEW IF EXISTS "' || schemaname || '"."' || viewname || '" CASCADE;' as "query" FROM "pg_views" WHERE "schemaname" IN (current_schema()) AND "viewname" NOT IN ('geography_columns') ORDER BY 1`,
    "materialized views to be dropped": `SELECT 'DROP MATERIALIZED VIEW IF EXISTS "' || schemaname || '"."' || matviewname || '" CASCADE;' as "query" FROM "pg_matviews" WHERE "schemaname" IN (current_schema())`,
    "tables to be dropped": `SELECT 'DROP TABLE IF EXISTS "' || schemaname || '"."' || tablename || '" CASCADE;' as "query" FROM "pg_tables" WHERE "schemaname" IN (current_schema()) AND "tablename" NOT IN ('spatial_ref_sys') ORDER BY 1`,
    "its own views": `SELECT "m".* FROM "public"."typeorm_metadata" "m" INNER JOIN "pg_catalog"."pg_class" "c" ON "c"."relname" = "m"."name"
      INNER JOIN "pg_namespace" "s" ON "s"."oid" = "c"."relnamespace" AND "s"."nspname" = "m"."schema" WHERE "m"."type" IN ('VIEW', 'MATERIALIZED_VIEW') AND (1=1)`,
    "migrations that ran": `SELECT * FROM "migrations" "migrations" ORDER BY "id" DESC`,
    transaction: "START TRANSACTION; SAVEPOINT typeorm_1; RELEASE SAVEPOINT typeorm_1; COMMIT",
  }),
  ...of("TypeORM", "extended", {
    "a generated column": {
      sql: `SELECT * FROM "typeorm_metadata" WHERE "type" = $1 AND "name" = $2 AND "schema" = $3 AND "table" = $4`,
      values: ["GENERATED_COLUMN", "a", "public", "customers"],
    },
    "a read": {
      sql: `SELECT "Customer"."id" AS "Customer_id", "Customer"."name" AS "Customer_name", "Customer"."mood" AS "Customer_mood" FROM "customers" "Customer" WHERE (("Customer"."id" = $1)) LIMIT 1`,
      values: ["1"],
    },
    "a read with a masked column": {
      sql: `SELECT "Customer"."id" AS "Customer_id", "Customer"."email" AS "Customer_email" FROM "customers" "Customer" WHERE "Customer"."id" IN ($1, $2) ORDER BY "Customer_id" ASC`,
      values: ["1", "2"],
    },
    "a read with a page, the keys": `SELECT DISTINCT "distinctAlias"."Customer_id" AS "ids_Customer_id", "distinctAlias"."Customer_name" FROM (SELECT "Customer"."id" AS "Customer_id", "Customer"."name" AS "Customer_name", "o"."id" AS "o_id", "o"."item" AS "o_item"
      FROM "customers" "Customer" LEFT JOIN "orders" "o" ON "o"."customer"="Customer"."id") "distinctAlias" ORDER BY "distinctAlias"."Customer_name" ASC, "Customer_id" ASC LIMIT 10 OFFSET 0`,
    "a read with a page and a masked column beside it": `SELECT DISTINCT "distinctAlias"."Customer_id" AS "ids_Customer_id" FROM (SELECT "Customer"."id" AS "Customer_id", "Customer"."email" AS "Customer_email", "o"."item" AS "o_item"
      FROM "customers" "Customer" LEFT JOIN "orders" "o" ON "o"."customer"="Customer"."id") "distinctAlias" ORDER BY "Customer_id" ASC LIMIT 10`,
    "a count": `SELECT COUNT(DISTINCT("Customer"."id")) AS "cnt" FROM "customers" "Customer" LEFT JOIN "orders" "o" ON "o"."customer"="Customer"."id"`,
    "does one exist": {
      sql: `SELECT 1 AS "row_exists" FROM (SELECT 1 AS dummy_column) "dummy_table" WHERE EXISTS (SELECT 1 FROM "customers" "Customer" WHERE "Customer"."id" = $1)`,
      values: ["1"],
    },
  }),
];
