import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { after, before, test } from "node:test";
import type { Node } from "./ast.ts";
import { createClassifier } from "./classify.ts";
import { splitSearchPath } from "./settings.ts";
import { newWalk, statement } from "./statements.ts";
import { summary } from "./summary.ts";
import type { Classified, Classifier } from "./types.ts";

/** Executable specification: spec/*.txt hold a statement a line, and below it what it is classified as. */

let classifier: Classifier;
before(async () => {
  classifier = await createClassifier();
});
after(() => classifier.close());

const encoder = new TextEncoder();

async function classify(sql: string): Promise<Classified> {
  const bytes = encoder.encode(sql);
  return classifier.classify(bytes, 0, bytes.length);
}

for (const name of ["queries", "definitions", "session"]) {
  test(`spec/${name}.txt`, async () => {
    const lines = readFileSync(new URL(`./spec/${name}.txt`, import.meta.url), "utf8")
      .split("\n")
      .filter((line) => line !== "");
    assert.ok(lines.length > 100);
    for (let i = 0; i < lines.length; i += 2) {
      const classified = await classify(lines[i]);
      assert.equal(`    -> ${summary(classified, encoder.encode(lines[i]))}`, lines[i + 1], lines[i]);
    }
  });
}

test("attribute notation calls functions too", async () => {
  for (const sql of [
    "select ('/etc/passwd'::text).pg_read_file",
    "select (('select 1'::text).ts_stat).word",
    "select x.pg_read_file from unnest(array['/etc/passwd']) x",
    "select * from t where (a).lo_get is null",
  ])
    assert.match((await classify(sql)).refusal ?? "", /^Function \w+ is refused/, sql);
  assert.equal(summary(await classify("select (0).pg_cancel_backend")), "select; other function:pg_cancel_backend");
  assert.equal(summary(await classify("select ('hr.ids'::regclass).nextval")), "select; update function:nextval");
});

test("set_config is refused in what only a later statement runs", async () => {
  for (const sql of [
    "prepare p as select set_config('search_path', 'hr', false)",
    "declare c cursor for select set_config('search_path', 'hr', false)",
    "create view v as select set_config('search_path', 'hr', false)",
    "create temp table t (a text default set_config('search_path', 'hr', false))",
  ])
    assert.match((await classify(sql)).refusal ?? "", /^set_config is refused/, sql);
  assert.equal((await classify("select set_config('work_mem', '1MB', false)")).refusal, undefined);
});

test("white space in names is what the server takes for it", () => {
  assert.deepEqual(splitSearchPath(' a ,\n"b c"\t, $user '), ["a", "b c", "$user"]);
  assert.deepEqual(splitSearchPath("\u00a0public, hr"), ["\u00a0public", "hr"]);
});

test("long lists take a time in proportion to their length", async () => {
  const millis = async (sql: string): Promise<number> => {
    const start = performance.now();
    assert.equal((await classify(sql)).refusal, undefined);
    return performance.now() - start;
  };
  const columns = "a,".repeat(7_000);
  await millis(`select ${columns}a from warm`);
  // Per position the whole select list would be looked at, per reference the whole query: some thirty times as long.
  const order = (item: string, table: string): Promise<number> =>
    millis(`select ${columns}a from ${table} order by ${`${item},`.repeat(3_000)}b`);
  assert.ok((await order("5000", "c")) < 12 * (await order("email", "d")));
  const references = (alias: string, name: string): Promise<number> =>
    millis(`with ${name} as (select ${columns}a) select 1 from d${`,${name} ${alias}`.repeat(2_000)}`);
  assert.ok((await references("x(a)", "c")) < 12 * (await references("xxxx", "e")));
});

test("a node kind without a handler is refused", () => {
  const walk = newWalk();
  assert.throws(() => statement(walk, { FutureStmt: {} } as unknown as Node, true), /FutureStmt\) is not understood/);
  assert.throws(() => walk.visit({ FutureExpr: {} } as unknown as Node, "plain"), /FutureExpr\) that is not understood/);
});

test("what clients send for introspection reads catalogues only", async () => {
  const queries = [
    "SELECT n.nspname, c.relname, CASE c.relkind WHEN 'r' THEN 'table' WHEN 'v' THEN 'view' END AS kind, pg_catalog.pg_get_userbyid(c.relowner) FROM pg_catalog.pg_class c LEFT JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace WHERE c.relkind IN ('r','p','') AND n.nspname !~ '^pg_toast' AND pg_catalog.pg_table_is_visible(c.oid) ORDER BY 1,2",
    "SELECT a.attname, pg_catalog.format_type(a.atttypid, a.atttypmod), (SELECT pg_catalog.pg_get_expr(d.adbin, d.adrelid, true) FROM pg_catalog.pg_attrdef d WHERE d.adrelid = a.attrelid AND d.adnum = a.attnum AND a.atthasdef) FROM pg_catalog.pg_attribute a WHERE a.attrelid = '16384' AND a.attnum > 0 AND NOT a.attisdropped ORDER BY a.attnum",
    "SELECT rolname, ARRAY(SELECT b.rolname FROM pg_catalog.pg_auth_members m JOIN pg_catalog.pg_roles b ON (m.roleid = b.oid) WHERE m.member = r.oid) AS memberof FROM pg_catalog.pg_roles r WHERE r.rolname !~ '^pg_' ORDER BY 1",
    "SELECT conname, conrelid::pg_catalog.regclass AS ontable FROM pg_catalog.pg_constraint c WHERE confrelid IN (SELECT pg_catalog.pg_partition_ancestors('16384') UNION ALL VALUES ('16384'::pg_catalog.regclass)) AND contype = 'f' ORDER BY conname",
    "WITH RECURSIVE w AS (SELECT d1.refobjid, d1.objid, 1 AS level FROM pg_depend d1 UNION ALL SELECT d2.refobjid, d2.objid, w.level + 1 FROM w JOIN pg_depend d2 ON d2.refobjid = w.objid) SELECT * FROM w ORDER BY level",
  ];
  for (const sql of queries) {
    const classified = await classify(sql);
    assert.equal(classified.refusal, undefined, sql);
    assert.deepEqual(
      classified.accesses.map((access) => access.action),
      ["sql:select"],
      sql,
    );
    for (const relation of classified.accesses[0].relations) assert.match(relation.name, /^pg_/);
  }
});
