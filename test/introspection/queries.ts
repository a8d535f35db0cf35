import { type Asked, of } from "./asked.ts";
import { DJANGO } from "./django.ts";
import { METABASE } from "./metabase.ts";
import { PRISMA } from "./prisma.ts";
import { RAILS } from "./rails.ts";
import { TYPEORM } from "./typeorm.ts";

// What tools ask, after their published sources, in our own words: the relations, joins, functions, operators, casts and parameters are
// those of the tools; texts were written down anew. SQLAlchemy and pgjdbc, which are here to run, run for real besides (sqlalchemy.ts, jdbc.ts).

export const ASKED: readonly Asked[] = [
  ...of("node-postgres", "simple", {
    "is it alive": "select 1",
    "server and session":
      "select version(), current_user, session_user, current_database(), current_schema(), pg_backend_pid(), inet_server_port() > 0",
    settings: "show server_version; show standard_conforming_strings; show time zone",
    types:
      "select oid, typname, typarray, typelem from pg_type where typtype = 'b' and typname in ('json', 'jsonb', 'int4', 'hstore') order by oid",
  }),
  ...of("SQLAlchemy 2", "simple", {
    connect: "select pg_catalog.version(); select current_schema(); show standard_conforming_strings; show transaction isolation level",
    "has table":
      "SELECT pg_catalog.pg_class.relname FROM pg_catalog.pg_class JOIN pg_catalog.pg_namespace ON pg_catalog.pg_namespace.oid = pg_catalog.pg_class.relnamespace WHERE pg_catalog.pg_class.relname = 'customers' AND pg_catalog.pg_class.relkind = ANY (ARRAY['r', 'p', 'f', 'v', 'm']) AND pg_catalog.pg_table_is_visible(pg_catalog.pg_class.oid) AND pg_catalog.pg_namespace.nspname != 'pg_catalog'",
    "schema names":
      "SELECT pg_catalog.pg_namespace.nspname FROM pg_catalog.pg_namespace WHERE pg_catalog.pg_namespace.nspname NOT LIKE 'pg\\_%' ORDER BY pg_catalog.pg_namespace.nspname",
    columns: `SELECT pg_catalog.pg_attribute.attname AS name, pg_catalog.format_type(pg_catalog.pg_attribute.atttypid, pg_catalog.pg_attribute.atttypmod) AS format_type,
      (SELECT pg_catalog.pg_get_expr(pg_catalog.pg_attrdef.adbin, pg_catalog.pg_attrdef.adrelid) AS pg_get_expr_1 FROM pg_catalog.pg_attrdef WHERE pg_catalog.pg_attrdef.adrelid = pg_catalog.pg_attribute.attrelid AND pg_catalog.pg_attrdef.adnum = pg_catalog.pg_attribute.attnum AND pg_catalog.pg_attribute.atthasdef) AS "default",
      pg_catalog.pg_attribute.attnotnull AS not_null, pg_catalog.pg_class.relname AS table_name, pg_catalog.pg_description.description AS comment, pg_catalog.pg_attribute.attgenerated AS generated,
      (SELECT json_build_object('always', pg_catalog.pg_attribute.attidentity = 'a', 'start', pg_catalog.pg_sequence.seqstart, 'increment', pg_catalog.pg_sequence.seqincrement) AS json_build_object_1 FROM pg_catalog.pg_sequence
        WHERE pg_catalog.pg_attribute.attidentity != '' AND pg_catalog.pg_sequence.seqrelid = CAST(CAST(pg_catalog.pg_get_serial_sequence(CAST(CAST(pg_catalog.pg_attribute.attrelid AS REGCLASS) AS TEXT), pg_catalog.pg_attribute.attname) AS REGCLASS) AS OID)) AS identity_options
      FROM pg_catalog.pg_class LEFT OUTER JOIN pg_catalog.pg_attribute ON pg_catalog.pg_class.oid = pg_catalog.pg_attribute.attrelid AND pg_catalog.pg_attribute.attnum > 0 AND NOT pg_catalog.pg_attribute.attisdropped
      LEFT OUTER JOIN pg_catalog.pg_description ON pg_catalog.pg_description.objoid = pg_catalog.pg_attribute.attrelid AND pg_catalog.pg_description.objsubid = pg_catalog.pg_attribute.attnum
      JOIN pg_catalog.pg_namespace ON pg_catalog.pg_namespace.oid = pg_catalog.pg_class.relnamespace WHERE pg_catalog.pg_class.relkind = ANY (ARRAY['r', 'p', 'f', 'v', 'm']) AND pg_catalog.pg_table_is_visible(pg_catalog.pg_class.oid) AND pg_catalog.pg_namespace.nspname != 'pg_catalog' ORDER BY pg_catalog.pg_class.relname, pg_catalog.pg_attribute.attnum`,
    "primary keys": `SELECT attr.conrelid, array_agg(CAST(attr.attname AS TEXT) ORDER BY attr.ord) AS cols, attr.conname, min(attr.description) AS description FROM (SELECT con.conrelid, con.conname, con.ord, pg_attribute.attname, con.description
        FROM pg_catalog.pg_attribute JOIN (SELECT pg_constraint.conrelid, pg_constraint.conname, unnest(pg_constraint.conkey) AS attnum, generate_subscripts(pg_constraint.conkey, 1) AS ord, pg_description.description
          FROM pg_catalog.pg_constraint LEFT OUTER JOIN pg_catalog.pg_description ON pg_description.objoid = pg_constraint.oid WHERE pg_constraint.contype = 'p' AND pg_constraint.conrelid IN ('customers'::regclass)) AS con
        ON pg_attribute.attnum = con.attnum AND pg_attribute.attrelid = con.conrelid) AS attr GROUP BY attr.conrelid, attr.conname ORDER BY attr.conrelid, attr.conname`,
    "foreign keys":
      "SELECT c.relname, r.conname, pg_catalog.pg_get_constraintdef(r.oid, true) AS condef, n.nspname FROM pg_catalog.pg_class c LEFT JOIN pg_catalog.pg_constraint r ON c.oid = r.conrelid AND r.contype = 'f' LEFT JOIN pg_catalog.pg_class cr ON cr.oid = r.confrelid LEFT JOIN pg_catalog.pg_namespace n ON n.oid = cr.relnamespace WHERE c.relname = 'orders' ORDER BY 1, 2",
    enums:
      "SELECT t.typname AS name, pg_catalog.pg_type_is_visible(t.oid) AS visible, n.nspname AS schema, lbl.labels FROM pg_catalog.pg_type t JOIN pg_catalog.pg_namespace n ON n.oid = t.typnamespace LEFT JOIN (SELECT e.enumtypid, array_agg(CAST(e.enumlabel AS TEXT) ORDER BY e.enumsortorder) AS labels FROM pg_catalog.pg_enum e GROUP BY e.enumtypid) lbl ON t.oid = lbl.enumtypid WHERE t.typtype = 'e' ORDER BY 3, 1",
    domains:
      "SELECT t.typname, pg_catalog.format_type(t.typbasetype, t.typtypmod) AS attype, NOT t.typnotnull AS nullable, t.typdefault, array_agg(pg_catalog.pg_get_constraintdef(c.oid, true)) FROM pg_catalog.pg_type t JOIN pg_catalog.pg_namespace n ON n.oid = t.typnamespace LEFT JOIN pg_catalog.pg_constraint c ON c.contypid = t.oid WHERE t.typtype = 'd' AND n.nspname = 'public' GROUP BY 1, 2, 3, 4",
    "view definition":
      "SELECT pg_catalog.pg_get_viewdef(pg_class.oid) AS pg_get_viewdef_1 FROM pg_catalog.pg_class JOIN pg_catalog.pg_namespace ON pg_namespace.oid = pg_class.relnamespace WHERE pg_class.relkind = ANY (ARRAY['v', 'm']) AND pg_class.relname = 'v_names'",
    hstore: "SELECT t.oid, typarray FROM pg_type t JOIN pg_namespace ns ON typnamespace = ns.oid WHERE typname = 'hstore'",
    "a read":
      "SELECT customers.id, customers.name, orders_1.id AS id_1, orders_1.item FROM customers LEFT OUTER JOIN orders AS orders_1 ON customers.id = orders_1.customer WHERE customers.id IN (1, 2) ORDER BY customers.id, orders_1.id",
    "a count":
      "SELECT count(*) AS count_1 FROM (SELECT customers.id AS customers_id, customers.name AS customers_name FROM customers WHERE customers.id > 1) AS anon_1",
  }),
  ...of("Hibernate and JDBC", "named", {
    "floating point": "SET extra_float_digits = 3",
    label: "SET application_name = 'app'",
    schemas:
      "SELECT nspname AS TABLE_SCHEM, NULL AS TABLE_CATALOG FROM pg_catalog.pg_namespace WHERE nspname <> 'pg_toast' AND (nspname !~ '^pg_temp_' OR nspname = (pg_catalog.current_schemas(true))[1]) AND (nspname !~ '^pg_toast_temp_') ORDER BY TABLE_SCHEM",
    tables: `SELECT current_database() AS TABLE_CAT, n.nspname AS TABLE_SCHEM, c.relname AS TABLE_NAME, CASE n.nspname ~ '^pg_' OR n.nspname = 'information_schema' WHEN true THEN 'SYSTEM' ELSE CASE c.relkind WHEN 'r' THEN 'TABLE' WHEN 'v' THEN 'VIEW' ELSE NULL END END AS TABLE_TYPE, d.description AS REMARKS
      FROM pg_catalog.pg_namespace n, pg_catalog.pg_class c LEFT JOIN pg_catalog.pg_description d ON (c.oid = d.objoid AND d.objsubid = 0 and d.classoid = 'pg_class'::regclass) WHERE c.relnamespace = n.oid AND n.nspname LIKE 'public' ORDER BY TABLE_TYPE, TABLE_SCHEM, TABLE_NAME`,
    columns: `SELECT * FROM (SELECT n.nspname, c.relname, a.attname, a.atttypid, a.attnotnull OR (t.typtype = 'd' AND t.typnotnull) AS attnotnull, a.atttypmod, a.attlen, t.typtypmod, row_number() OVER (PARTITION BY a.attrelid ORDER BY a.attnum) AS attnum,
        nullif(a.attidentity, '') as attidentity, nullif(a.attgenerated, '') as attgenerated, pg_catalog.pg_get_expr(def.adbin, def.adrelid) AS adsrc, dsc.description, t.typbasetype, t.typtype
      FROM pg_catalog.pg_namespace n JOIN pg_catalog.pg_class c ON (c.relnamespace = n.oid) JOIN pg_catalog.pg_attribute a ON (a.attrelid = c.oid) JOIN pg_catalog.pg_type t ON (a.atttypid = t.oid) LEFT JOIN pg_catalog.pg_attrdef def ON (a.attrelid = def.adrelid AND a.attnum = def.adnum)
      LEFT JOIN pg_catalog.pg_description dsc ON (c.oid = dsc.objoid AND a.attnum = dsc.objsubid) LEFT JOIN pg_catalog.pg_class dc ON (dc.oid = dsc.classoid AND dc.relname = 'pg_class') LEFT JOIN pg_catalog.pg_namespace dn ON (dc.relnamespace = dn.oid AND dn.nspname = 'pg_catalog')
      WHERE c.relkind in ('r', 'p', 'v', 'f', 'm') and a.attnum > 0 AND NOT a.attisdropped AND n.nspname LIKE 'public') c WHERE true ORDER BY nspname, c.relname, attnum`,
    "primary keys": `SELECT result.TABLE_NAME, result.COLUMN_NAME, result.KEY_SEQ, result.PK_NAME FROM (SELECT ct.relname AS TABLE_NAME, a.attname AS COLUMN_NAME, (information_schema._pg_expandarray(i.indkey)).n AS KEY_SEQ, ci.relname AS PK_NAME, information_schema._pg_expandarray(i.indkey) AS KEYS, a.attnum AS A_ATTNUM
      FROM pg_catalog.pg_class ct JOIN pg_catalog.pg_attribute a ON (ct.oid = a.attrelid) JOIN pg_catalog.pg_namespace n ON (ct.relnamespace = n.oid) JOIN pg_catalog.pg_index i ON (a.attrelid = i.indrelid) JOIN pg_catalog.pg_class ci ON (ci.oid = i.indexrelid) WHERE n.nspname = 'public' AND i.indisprimary) result
      where result.A_ATTNUM = (result.KEYS).x ORDER BY result.table_name, result.pk_name, result.key_seq`,
    sequences: "select * from information_schema.sequences order by sequence_schema, sequence_name",
    types:
      "SELECT n.nspname = ANY (current_schemas(true)), n.nspname, t.typname FROM pg_catalog.pg_type t JOIN pg_catalog.pg_namespace n ON t.typnamespace = n.oid WHERE t.oid = 'mood'::regtype",
    keywords: "select string_agg(word, ',') from pg_catalog.pg_get_keywords() where word <> ALL ('{a,abs,absolute}'::text[])",
    privileges:
      "SELECT n.nspname, c.relname, r.rolname, c.relacl::text FROM pg_catalog.pg_namespace n, pg_catalog.pg_class c, pg_catalog.pg_roles r WHERE c.relnamespace = n.oid AND c.relowner = r.oid AND c.relkind IN ('r', 'p', 'v', 'm', 'f') AND n.nspname LIKE 'public' ORDER BY nspname, relname",
    "a read":
      "select c1_0.id, c1_0.name, o1_0.customer, o1_0.id, o1_0.item from customers c1_0 left join orders o1_0 on c1_0.id = o1_0.customer where c1_0.id = 1 order by o1_0.id",
    "a read with a masked column": "select c1_0.id, c1_0.email, c1_0.name from customers c1_0 where c1_0.id = 1",
  }),
  ...PRISMA,
  ...TYPEORM,
  ...METABASE,
  ...RAILS,
  ...DJANGO,
];
