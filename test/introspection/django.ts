import { type Asked, of } from "./asked.ts";

// Django: connection, inspectdb's introspection, reads. psycopg writes values into the text; psycopg 3 asks for types with a parameter.

const VISIBLE = "pg_catalog.pg_table_is_visible(c.oid)";

export const DJANGO: readonly Asked[] = [
  ...of("Django", "simple", {
    "set up the connection": "SELECT set_config('TimeZone', 'UTC', false)",
    "is it alive": "SELECT 1",
    "read only transaction": "BEGIN; SET TRANSACTION READ ONLY; COMMIT",
    tables: `SELECT c.relname, CASE WHEN c.relispartition THEN 'p' WHEN c.relkind IN ('m', 'v') THEN 'v' ELSE 't' END, obj_description(c.oid, 'pg_class')
      FROM pg_catalog.pg_class c LEFT JOIN pg_catalog.pg_namespace s ON s.oid = c.relnamespace
      WHERE c.relkind IN ('f', 'm', 'p', 'r', 'v') AND s.nspname NOT IN ('pg_catalog', 'pg_toast') AND ${VISIBLE} ORDER BY 1`,
    columns: `SELECT a.attname AS column_name, NOT (a.attnotnull OR (ty.typtype = 'd' AND ty.typnotnull)) AS is_nullable, pg_get_expr(d.adbin, d.adrelid) AS column_default,
        CASE WHEN collname = 'default' THEN NULL ELSE collname END AS collation, a.attidentity != '' AS is_autofield, col_description(a.attrelid, a.attnum) AS column_comment
      FROM pg_attribute a LEFT JOIN pg_attrdef d ON a.attrelid = d.adrelid AND a.attnum = d.adnum LEFT JOIN pg_collation co ON a.attcollation = co.oid
      JOIN pg_type ty ON a.atttypid = ty.oid JOIN pg_class c ON a.attrelid = c.oid JOIN pg_namespace s ON c.relnamespace = s.oid
      WHERE c.relkind IN ('f', 'm', 'p', 'r', 'v') AND c.relname = 'customers' AND s.nspname NOT IN ('pg_catalog', 'pg_toast') AND ${VISIBLE} ORDER BY a.attnum`,
    "columns of a table by a read": 'SELECT * FROM "regions" LIMIT 1',
    "columns of a masked table by a read": 'SELECT * FROM "customers" LIMIT 1',
    sequences: `SELECT q.relname AS sequence_name, a.attname AS colname FROM pg_class q JOIN pg_depend d ON d.objid = q.oid AND d.classid = 'pg_class'::regclass AND d.refclassid = 'pg_class'::regclass
      JOIN pg_attribute a ON d.refobjid = a.attrelid AND d.refobjsubid = a.attnum JOIN pg_class c ON c.oid = d.refobjid AND c.relname = 'customers' AND ${VISIBLE} WHERE q.relkind = 'S';`,
    relations: `SELECT mine.attname, o.relname, theirs.attname, k.confdeltype FROM pg_constraint k LEFT JOIN pg_class c ON k.conrelid = c.oid LEFT JOIN pg_class o ON k.confrelid = o.oid
      LEFT JOIN pg_attribute mine ON c.oid = mine.attrelid AND mine.attnum = k.conkey[1] LEFT JOIN pg_attribute theirs ON o.oid = theirs.attrelid AND theirs.attnum = k.confkey[1]
      WHERE c.relname = 'orders' AND k.contype = 'f' AND c.relnamespace = o.relnamespace AND ${VISIBLE} ORDER BY 1`,
    constraints: `SELECT k.conname, array( SELECT attname FROM unnest(k.conkey) WITH ORDINALITY AS parts(no, place) JOIN pg_attribute AS a ON parts.no = a.attnum WHERE a.attrelid = k.conrelid ORDER BY parts.place ), k.contype,
        (SELECT o.relname || '.' || oa.attname FROM pg_attribute AS oa JOIN pg_class AS o ON oa.attrelid = o.oid WHERE oa.attrelid = k.confrelid AND oa.attnum = k.confkey[1]), c.reloptions
      FROM pg_constraint AS k JOIN pg_class AS c ON k.conrelid = c.oid WHERE c.relname = 'orders' AND ${VISIBLE} ORDER BY 1`,
    indexes: `SELECT indexname, array_agg(attname ORDER BY place), indisunique, indisprimary, array_agg(direction ORDER BY place), amname, body, outer_part.options
      FROM (SELECT x.relname as indexname, i.*, a.attname, am.amname, CASE WHEN i.indexprs IS NOT NULL THEN pg_get_indexdef(i.indexrelid) END AS body,
          CASE am.amname WHEN 'btree' THEN CASE (how & 1) WHEN 1 THEN 'DESC' ELSE 'ASC' END END as direction, x.reloptions as options
        FROM (SELECT * FROM pg_index p, unnest(p.indkey, p.indoption) WITH ORDINALITY parts(key, how, place)) i
        LEFT JOIN pg_class c ON i.indrelid = c.oid LEFT JOIN pg_class x ON i.indexrelid = x.oid LEFT JOIN pg_am am ON x.relam = am.oid LEFT JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum = i.key
        WHERE c.relname = 'customers' AND ${VISIBLE}) outer_part
      GROUP BY indexname, indisunique, indisprimary, amname, body, outer_part.options ORDER BY 1;`,
    "hstore and citext":
      "SELECT ty.oid, typarray FROM pg_type ty JOIN pg_namespace ns ON typnamespace = ns.oid WHERE typname IN ('hstore', 'citext')",
    migrations:
      'SELECT "django_migrations"."id", "django_migrations"."app", "django_migrations"."name", "django_migrations"."applied" FROM "django_migrations"',
    "a read": `SELECT "customers"."id", "customers"."name" FROM "customers" INNER JOIN "regions" ON ("customers"."region" = "regions"."id") WHERE "regions"."name" = 'north' ORDER BY "customers"."name" ASC LIMIT 21`,
    "a read with masked columns": `SELECT "customers"."id", "customers"."name", "customers"."email", "customers"."ssn" FROM "customers" WHERE "customers"."id" = 1 LIMIT 21`,
    "a case insensitive search": `SELECT "customers"."id", "customers"."name" FROM "customers" WHERE UPPER("customers"."name"::text) LIKE UPPER('%NAME%') ORDER BY 1`,
    "a lookup by a masked column": `SELECT COUNT(*) AS "__count" FROM "customers" WHERE UPPER("customers"."email"::text) LIKE UPPER('%corp%')`,
    "an aggregate": `SELECT "customers"."id", COUNT("orders"."id") AS "n" FROM "customers" LEFT OUTER JOIN "orders" ON ("customers"."id" = "orders"."customer") GROUP BY "customers"."id" ORDER BY 1`,
    "does one exist": `SELECT 1 AS "a" FROM "customers" WHERE "customers"."id" = 1 LIMIT 1`,
    "the admin's date hierarchy": `SELECT DISTINCT DATE_TRUNC('year', "orders"."at" AT TIME ZONE 'UTC') AS "datefield" FROM "orders" WHERE "orders"."at" IS NOT NULL ORDER BY 1 ASC`,
    "a server-side cursor": `BEGIN; DECLARE "_django_curs_1" NO SCROLL CURSOR WITH HOLD FOR SELECT "customers"."id", "customers"."name" FROM "customers" ORDER BY 1; COMMIT; FETCH FORWARD 3 FROM "_django_curs_1"; CLOSE "_django_curs_1"`,
  }),
  ...of("Django", "extended", {
    "a type by name": {
      sql: "SELECT typname AS name, oid, typarray AS array_oid, oid::regtype::text AS regtype, typdelim AS delimiter FROM pg_type ty WHERE ty.oid = to_regtype($1) ORDER BY ty.oid",
      values: ["mood"],
    },
    "an enum by name": {
      sql: `SELECT name, oid, array_oid, array_agg(label) AS labels FROM (SELECT ty.typname AS name, ty.oid AS oid, ty.typarray AS array_oid, en.enumlabel AS label FROM pg_type ty LEFT JOIN pg_enum en ON en.enumtypid = ty.oid
        WHERE ty.oid = to_regtype($1) ORDER BY en.enumsortorder) x GROUP BY name, oid, array_oid`,
      values: ["mood"],
    },
  }),
];
