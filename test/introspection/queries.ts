// What tools ask the catalogues, after their documentation and their published sources, in our own words: the relations, joins,
// functions and casts are those of the tools; texts were written down anew.

export interface Asked {
  readonly tool: string;
  readonly what: string;
  readonly sql: string;
}

const of = (tool: string, queries: Readonly<Record<string, string>>): Asked[] =>
  Object.entries(queries).map(([what, sql]) => ({ tool, what, sql }));

const USER_SCHEMAS = "n.nspname not in ('pg_catalog', 'information_schema') and n.nspname !~ '^pg_toast'";

export const ASKED: readonly Asked[] = [
  ...of("node-postgres", {
    "is it alive": "select 1",
    "server and session":
      "select version(), current_user, session_user, current_database(), current_schema(), pg_backend_pid(), inet_server_port() > 0",
    settings: "show server_version; show standard_conforming_strings; show time zone",
    types:
      "select oid, typname, typarray, typelem from pg_type where typtype = 'b' and typname in ('json', 'jsonb', 'int4', 'hstore') order by oid",
  }),
  ...of("Prisma", {
    "is it alive": "SELECT 1",
    version: "SELECT version()",
    "schema exists":
      "SELECT EXISTS(SELECT 1 FROM pg_namespace WHERE nspname = 'public'), version(), current_setting('server_version_num')::integer as numeric_version",
    namespaces: "SELECT n.nspname AS schema_name FROM pg_catalog.pg_namespace n WHERE n.nspname = ANY (ARRAY['public', 'hr']) ORDER BY 1",
    tables: `SELECT tbl.relname AS table_name, namespace.nspname AS namespace, (tbl.relhassubclass and tbl.relkind = 'p') as is_partition,
        (tbl.relhassubclass and tbl.relkind = 'r') as has_subclass, tbl.relrowsecurity as has_row_level_security, reloptions,
        obj_description(tbl.oid, 'pg_class') as description
      FROM pg_class AS tbl INNER JOIN pg_namespace AS namespace ON namespace.oid = tbl.relnamespace
      WHERE tbl.relkind in ('r', 'p') AND namespace.nspname = ANY (ARRAY['public']) ORDER BY namespace, table_name`,
    columns: `SELECT oid.namespace, info.table_name, info.column_name, format_type(att.atttypid, att.atttypmod) as formatted_type, info.numeric_precision,
        info.numeric_scale, info.numeric_precision_radix, info.datetime_precision, info.data_type, info.udt_schema as type_schema_name, info.udt_name as full_data_type,
        pg_get_expr(attdef.adbin, attdef.adrelid) AS column_default, info.is_nullable, info.is_identity, info.character_maximum_length,
        col_description(att.attrelid, ordinal_position) AS description
      FROM information_schema.columns info
      JOIN pg_attribute att ON att.attname = info.column_name
      JOIN (SELECT pg_class.oid, relname, pg_namespace.nspname as namespace FROM pg_class JOIN pg_namespace on pg_namespace.oid = pg_class.relnamespace
            AND pg_namespace.nspname = ANY (ARRAY['public']) WHERE reltype > 0) as oid on oid.oid = att.attrelid AND relname = info.table_name AND namespace = info.table_schema
      LEFT OUTER JOIN pg_attrdef attdef ON attdef.adrelid = att.attrelid AND attdef.adnum = att.attnum AND table_schema = namespace
      WHERE table_schema = ANY (ARRAY['public']) ORDER BY namespace, table_name, ordinal_position`,
    enums: `SELECT t.typname as name, e.enumlabel as value, n.nspname as namespace, obj_description(t.oid, 'pg_type') as description
      FROM pg_type t JOIN pg_enum e ON t.oid = e.enumtypid JOIN pg_catalog.pg_namespace n ON n.oid = t.typnamespace WHERE n.nspname = ANY (ARRAY['public']) ORDER BY e.enumsortorder`,
    indexes: `WITH rawindex AS (SELECT indrelid, indexrelid, indisunique, indisprimary, unnest(indkey) AS indkeyid, generate_subscripts(indkey, 1) AS indkeyidx,
          unnest(indclass) AS indclass, unnest(indoption) AS indoption FROM pg_index WHERE indpred IS NULL AND NOT indisexclusion)
      SELECT schemainfo.nspname AS namespace, indexinfo.relname AS index_name, tableinfo.relname AS table_name, columninfo.attname AS column_name,
        rawindex.indisunique AS is_unique, rawindex.indisprimary AS is_primary_key, rawindex.indkeyidx AS column_index, opclass.opcname AS opclass, opclass.opcdefault AS opcdefault,
        indexaccess.amname AS index_algo, CASE rawindex.indoption & 1 WHEN 1 THEN 'DESC' ELSE 'ASC' END AS column_order
      FROM rawindex INNER JOIN pg_class AS indexinfo ON indexinfo.oid = rawindex.indexrelid INNER JOIN pg_class AS tableinfo ON tableinfo.oid = rawindex.indrelid
      INNER JOIN pg_namespace AS schemainfo ON schemainfo.oid = tableinfo.relnamespace LEFT JOIN pg_attribute AS columninfo ON columninfo.attrelid = tableinfo.oid AND columninfo.attnum = rawindex.indkeyid
      INNER JOIN pg_am AS indexaccess ON indexaccess.oid = indexinfo.relam LEFT JOIN pg_opclass AS opclass ON opclass.oid = rawindex.indclass
      WHERE schemainfo.nspname = ANY (ARRAY['public']) ORDER BY namespace, table_name, index_name, column_index`,
    "foreign keys": `SELECT con.oid > 0 AS con, att2.attname as child_column, cl.relname as parent_table, att.attname as parent_column, con.confdeltype, con.confupdtype, con.conname as constraint_name,
        child, parent, table_name, namespace, condeferrable, condeferred
      FROM (SELECT ns.nspname AS namespace, unnest(con1.conkey) AS parent, unnest(con1.confkey) AS child, cl.relname AS table_name, generate_subscripts(con1.conkey, 1) AS colidx,
              con1.oid, con1.confrelid, con1.conrelid, con1.conname, con1.confdeltype, con1.confupdtype, con1.condeferrable, con1.condeferred
            FROM pg_class cl join pg_constraint con1 on con1.conrelid = cl.oid join pg_namespace ns on cl.relnamespace = ns.oid
            WHERE ns.nspname = ANY (ARRAY['public']) and con1.contype = 'f') con
      JOIN pg_attribute att on att.attrelid = con.confrelid and att.attnum = con.child JOIN pg_class cl on cl.oid = con.confrelid
      JOIN pg_attribute att2 on att2.attrelid = con.conrelid and att2.attnum = con.parent ORDER BY constraint_name, colidx`,
    sequences: `SELECT sequence_name, sequence_schema as namespace, start_value::INT8, minimum_value::INT8 as min_value, maximum_value::INT8 as max_value, increment::INT8 as increment_by,
        (CASE cycle_option WHEN 'YES' THEN TRUE ELSE FALSE END) AS cycle FROM information_schema.sequences WHERE sequence_schema = 'public' ORDER BY 1`,
    views:
      "SELECT viewname AS view_name, definition AS view_sql, schemaname as namespace FROM pg_catalog.pg_views WHERE schemaname = ANY (ARRAY['public']) ORDER BY 1",
    procedures: `SELECT p.proname AS name, n.nspname as namespace, CASE WHEN l.lanname = 'internal' THEN p.prosrc ELSE pg_get_functiondef(p.oid) END as definition
      FROM pg_proc p LEFT JOIN pg_namespace n ON p.pronamespace = n.oid LEFT JOIN pg_language l ON p.prolang = l.oid WHERE n.nspname = ANY (ARRAY['public']) AND p.prokind NOT IN ('a', 'w') ORDER BY 1`,
    extensions:
      "SELECT ext.extname AS extension_name, ext.extversion AS extension_version, ext.extrelocatable, pn.nspname FROM pg_extension ext INNER JOIN pg_namespace pn ON ext.extnamespace = pn.oid ORDER BY 1",
    constraints: `SELECT schemainfo.nspname AS namespace, tableinfo.relname AS table_name, constraintinfo.conname, constraintinfo.contype::text, pg_get_constraintdef(constraintinfo.oid)
      FROM pg_constraint constraintinfo INNER JOIN pg_class tableinfo ON tableinfo.oid = constraintinfo.conrelid INNER JOIN pg_namespace schemainfo ON schemainfo.oid = tableinfo.relnamespace
      WHERE schemainfo.nspname = ANY (ARRAY['public']) AND contype NOT IN ('p', 'u', 'f') ORDER BY 1, 2, 3`,
    "a read": `SELECT "public"."customers"."id", "public"."customers"."name" FROM "public"."customers" WHERE ("public"."customers"."id" = 1 AND 1=1) LIMIT 1 OFFSET 0`,
    "a read of related rows": `SELECT "t0"."id", "t1"."__orders" FROM "public"."regions" AS "t0" LEFT JOIN LATERAL (SELECT COALESCE(JSONB_AGG("__prisma_data__"), '[]') AS "__orders"
      FROM (SELECT "t2"."__prisma_data__" FROM (SELECT JSONB_BUILD_OBJECT('id', "t3"."id", 'item', "t3"."item") AS "__prisma_data__" FROM "public"."orders" AS "t3" WHERE "t3"."region" = "t0"."id" ORDER BY "t3"."id") AS "t2") AS "t4") AS "t1" ON TRUE ORDER BY 1`,
  }),
  ...of("TypeORM", {
    version: "SELECT version()",
    database: "SELECT * FROM current_database()",
    schema: "SELECT * FROM current_schema()",
    "tables of a schema": `SELECT "table_schema", "table_name", obj_description(('"' || "table_schema" || '"."' || "table_name" || '"')::regclass, 'pg_class') AS table_comment FROM "information_schema"."tables" WHERE ("table_schema" = 'public' AND "table_name" = 'customers')`,
    columns: `SELECT columns.*, pg_catalog.col_description(('"' || table_catalog || '"."' || table_schema || '"."' || table_name || '"')::regclass::oid, ordinal_position) AS description,
      ('"' || "udt_schema" || '"."' || "udt_name" || '"')::"regtype" AS "regtype", pg_catalog.format_type("col_attr"."atttypid", "col_attr"."atttypmod") AS "format_type"
      FROM "information_schema"."columns" LEFT JOIN "pg_catalog"."pg_attribute" AS "col_attr" ON "col_attr"."attname" = "columns"."column_name"
      AND "col_attr"."attrelid" = ( SELECT "cls"."oid" FROM "pg_catalog"."pg_class" AS "cls" LEFT JOIN "pg_catalog"."pg_namespace" AS "ns" ON "ns"."oid" = "cls"."relnamespace"
        WHERE "cls"."relname" = "columns"."table_name" AND "ns"."nspname" = "columns"."table_schema" ) WHERE ("table_schema" = 'public' AND "table_name" = 'customers') ORDER BY ordinal_position`,
    constraints: `SELECT "ns"."nspname" AS "table_schema", "t"."relname" AS "table_name", "cnst"."conname" AS "constraint_name", pg_get_constraintdef("cnst"."oid") AS "expression",
      CASE "cnst"."contype" WHEN 'p' THEN 'PRIMARY' WHEN 'u' THEN 'UNIQUE' WHEN 'c' THEN 'CHECK' WHEN 'x' THEN 'EXCLUDE' END AS "constraint_type", "a"."attname" AS "column_name"
      FROM "pg_constraint" "cnst" INNER JOIN "pg_class" "t" ON "t"."oid" = "cnst"."conrelid" INNER JOIN "pg_namespace" "ns" ON "ns"."oid" = "cnst"."connamespace"
      LEFT JOIN "pg_attribute" "a" ON "a"."attrelid" = "cnst"."conrelid" AND "a"."attnum" = ANY ("cnst"."conkey") WHERE "t"."relkind" IN ('r', 'p') AND "ns"."nspname" = 'public' ORDER BY 1, 2, 3, 6`,
    indices: `SELECT "ns"."nspname" AS "table_schema", "t"."relname" AS "table_name", "i"."relname" AS "constraint_name", "a"."attname" AS "column_name", CASE "ix"."indisunique" WHEN 't' THEN 'TRUE' ELSE 'FALSE' END AS "is_unique",
      pg_get_expr("ix"."indpred", "ix"."indrelid") AS "condition", "types"."typname" AS "type_name", "am"."amname" AS "index_type"
      FROM "pg_class" "t" INNER JOIN "pg_index" "ix" ON "ix"."indrelid" = "t"."oid" INNER JOIN "pg_attribute" "a" ON "a"."attrelid" = "t"."oid" AND "a"."attnum" = ANY ("ix"."indkey")
      INNER JOIN "pg_namespace" "ns" ON "ns"."oid" = "t"."relnamespace" INNER JOIN "pg_class" "i" ON "i"."oid" = "ix"."indexrelid" INNER JOIN "pg_type" "types" ON "types"."oid" = "a"."atttypid"
      INNER JOIN "pg_am" "am" ON "i"."relam" = "am"."oid" LEFT JOIN "pg_constraint" "cnst" ON "cnst"."conname" = "i"."relname" WHERE "t"."relkind" IN ('r', 'p') AND "cnst"."contype" IS NULL AND "ns"."nspname" = 'public' ORDER BY 1, 2, 3, 4`,
    "foreign keys": `SELECT "con"."conname" AS "constraint_name", "con"."nspname" AS "table_schema", "con"."relname" AS "table_name", "att2"."attname" AS "column_name", "ns"."nspname" AS "referenced_table_schema",
      "cl"."relname" AS "referenced_table_name", "att"."attname" AS "referenced_column_name", "con"."confdeltype" AS "on_delete", "con"."condeferrable" AS "deferrable"
      FROM ( SELECT UNNEST ("con1"."conkey") AS "parent", UNNEST ("con1"."confkey") AS "child", "con1"."confrelid", "con1"."conrelid", "con1"."conname", "con1"."contype", "ns"."nspname", "cl"."relname", "con1"."condeferrable",
          CASE "con1"."confdeltype" WHEN 'a' THEN 'NO ACTION' WHEN 'r' THEN 'RESTRICT' WHEN 'c' THEN 'CASCADE' ELSE 'SET' END as "confdeltype"
        FROM "pg_class" "cl" INNER JOIN "pg_namespace" "ns" ON "cl"."relnamespace" = "ns"."oid" INNER JOIN "pg_constraint" "con1" ON "con1"."conrelid" = "cl"."oid" WHERE "con1"."contype" = 'f' AND "ns"."nspname" = 'public' ) "con"
      INNER JOIN "pg_attribute" "att" ON "att"."attrelid" = "con"."confrelid" AND "att"."attnum" = "con"."child" INNER JOIN "pg_class" "cl" ON "cl"."oid" = "con"."confrelid" AND "cl"."relispartition" = 'f'
      INNER JOIN "pg_namespace" "ns" ON "cl"."relnamespace" = "ns"."oid" INNER JOIN "pg_attribute" "att2" ON "att2"."attrelid" = "con"."conrelid" AND "att2"."attnum" = "con"."parent" ORDER BY 1`,
    enums: `SELECT "n"."nspname", "t"."typname", string_agg("e"."enumlabel", '|' ORDER BY "e"."enumsortorder") FROM "pg_enum" "e" INNER JOIN "pg_type" "t" ON "t"."oid" = "e"."enumtypid" INNER JOIN "pg_namespace" "n" ON "n"."oid" = "t"."typnamespace" GROUP BY 1, 2`,
    "uuid extension": "SELECT * FROM pg_available_extensions WHERE name = 'uuid-ossp'",
    "a read": `SELECT "Customer"."id" AS "Customer_id", "Customer"."name" AS "Customer_name" FROM "customers" "Customer" WHERE (("Customer"."id" = 1)) LIMIT 1`,
    "a read with a page": `SELECT DISTINCT "distinctAlias"."Customer_id" AS "ids_Customer_id", "distinctAlias"."Customer_name" FROM (SELECT "Customer"."id" AS "Customer_id", "Customer"."name" AS "Customer_name", "o"."item" AS "o_item"
      FROM "customers" "Customer" LEFT JOIN "orders" "o" ON "o"."customer" = "Customer"."id") "distinctAlias" ORDER BY "distinctAlias"."Customer_name" ASC, "Customer_id" ASC LIMIT 10`,
  }),
  ...of("SQLAlchemy", {
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
  ...of("Hibernate and JDBC", {
    connect: "SET extra_float_digits = 3; SET application_name = 'app'",
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
  ...of("Metabase", {
    version: "select version(), current_setting('timezone')",
    tables: `SELECT n.nspname AS schema, c.relname AS name, CASE c.relkind WHEN 'r' THEN 'TABLE' WHEN 'p' THEN 'PARTITIONED TABLE' WHEN 'v' THEN 'VIEW' WHEN 'f' THEN 'FOREIGN TABLE' WHEN 'm' THEN 'MATERIALIZED VIEW' END AS type, d.description, c.reltuples::bigint >= -1 AS estimated
      FROM pg_catalog.pg_class c INNER JOIN pg_catalog.pg_namespace n ON c.relnamespace = n.oid LEFT JOIN pg_catalog.pg_description d ON c.oid = d.objoid AND d.objsubid = 0 AND d.classoid = 'pg_class'::regclass WHERE c.relkind IN ('r', 'p', 'v', 'f', 'm') AND ${USER_SCHEMAS} ORDER BY type, schema, name`,
    privileges: `with table_privileges as (select NULL as role, t.schemaname as schema, t.objectname as table, pg_catalog.has_any_column_privilege(current_user, '"' || replace(t.schemaname, '"', '""') || '"."' || replace(t.objectname, '"', '""') || '"', 'update') as update,
        pg_catalog.has_table_privilege(current_user, '"' || t.schemaname || '"."' || t.objectname || '"', 'SELECT') as select
      from (select schemaname, tablename as objectname from pg_catalog.pg_tables union select schemaname, viewname as objectname from pg_catalog.pg_views union select schemaname, matviewname as objectname from pg_catalog.pg_matviews) t
      where t.schemaname !~ '^pg_' and t.schemaname <> 'information_schema' and pg_catalog.has_schema_privilege(current_user, t.schemaname, 'USAGE')) select t.* from table_privileges t order by 2, 3`,
    fields: `SELECT c.column_name AS name, c.udt_name AS "database-type", c.ordinal_position - 1 AS "database-position", c.table_schema, c.table_name, pk.column_name IS NOT NULL AS "pk?", col_description(CAST(CAST(format('%I.%I', CAST(c.table_schema AS TEXT), CAST(c.table_name AS TEXT)) AS REGCLASS) AS OID), c.ordinal_position) AS comment,
        (column_default IS NULL OR lower(column_default) = 'null') AND is_nullable = 'NO' AND NOT (is_identity <> 'NO') AS required FROM information_schema.columns c LEFT JOIN (SELECT tc.table_schema, tc.table_name, kc.column_name FROM information_schema.table_constraints tc
        INNER JOIN information_schema.key_column_usage kc ON tc.constraint_name = kc.constraint_name AND tc.table_schema = kc.table_schema AND tc.table_name = kc.table_name WHERE tc.constraint_type = 'PRIMARY KEY') pk ON c.table_schema = pk.table_schema AND c.table_name = pk.table_name AND c.column_name = pk.column_name
      WHERE c.table_schema !~ '^information_schema|catalog_history|pg_' AND c.table_schema IN ('public') ORDER BY table_schema, table_name, 3`,
    "foreign keys":
      "SELECT fk_ns.nspname, fk_table.relname, fk_column.attname, pk_ns.nspname, pk_table.relname, pk_column.attname FROM pg_constraint c JOIN pg_class fk_table ON c.conrelid = fk_table.oid JOIN pg_namespace fk_ns ON c.connamespace = fk_ns.oid JOIN pg_attribute fk_column ON c.conrelid = fk_column.attrelid JOIN pg_class pk_table ON c.confrelid = pk_table.oid JOIN pg_namespace pk_ns ON pk_table.relnamespace = pk_ns.oid JOIN pg_attribute pk_column ON c.confrelid = pk_column.attrelid WHERE fk_ns.nspname !~ '^information_schema|catalog_history|pg_' AND c.contype = 'f' AND fk_column.attnum = ANY (c.conkey) AND pk_column.attnum = ANY (c.confkey) ORDER BY 1, 2",
    indexes:
      "SELECT ns.nspname, t.relname, a.attname FROM pg_index i JOIN pg_class t ON t.oid = i.indrelid JOIN pg_namespace ns ON ns.oid = t.relnamespace JOIN pg_attribute a ON a.attrelid = t.oid AND a.attnum = i.indkey[0] WHERE i.indisvalid AND i.indpred IS NULL AND ns.nspname = 'public' ORDER BY 1, 2, 3",
    enums:
      "SELECT nspname, typname FROM pg_type t JOIN pg_namespace n ON n.oid = t.typnamespace WHERE t.oid IN (SELECT DISTINCT enumtypid FROM pg_enum e) ORDER BY 1, 2",
    "a question": `SELECT DATE_TRUNC('month', "source"."at") AS "at", COUNT(*) AS "count", SUM("source"."amount") AS "sum" FROM (SELECT "public"."orders"."at" AS "at", "public"."orders"."amount" AS "amount" FROM "public"."orders") AS "source" GROUP BY DATE_TRUNC('month', "source"."at") ORDER BY DATE_TRUNC('month', "source"."at") ASC`,
    "a fingerprint of a masked column": `SELECT "public"."customers"."id" AS "id", SUBSTRING("public"."customers"."email", 1, 1234) AS "substring1" FROM "public"."customers" LIMIT 10000`,
    "values of a masked column": `SELECT "public"."customers"."email" AS "email" FROM "public"."customers" GROUP BY "public"."customers"."email" ORDER BY "public"."customers"."email" ASC LIMIT 1000`,
    "size of tables": "select relname, n_live_tup from pg_stat_user_tables order by 1",
  }),
];
