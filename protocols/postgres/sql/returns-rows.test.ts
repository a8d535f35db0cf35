import assert from "node:assert/strict";
import { after, test } from "node:test";
import { createClassifier } from "./classify.ts";

const classifier = await createClassifier();
after(() => classifier.close());

const returnsRows = async (sql: string): Promise<boolean> => {
  const bytes = Buffer.from(sql);
  const classified = await classifier.classify(bytes, 0, bytes.length);
  assert.equal(classified.refusal, undefined, sql);
  return classified.returnsRows;
};

for (const sql of [
  "select 1",
  "values (1)",
  "table t",
  "with x as (select 1) select * from x",
  "insert into t values (1) returning a",
  "update t set a = 1 where b = 2 returning 1",
  "delete from t where a = 1 returning *",
  "merge into t using s on t.a = s.a when matched then delete returning t.a",
  "with d as (delete from t where a = 1 returning a) insert into s select a from d returning a",
  "explain select 1",
  "show work_mem",
  "fetch 5 from c",
  "copy t to stdout",
  "copy (select 1) to stdout",
  "call p(1)",
  "execute s",
  "insert into t values (1); select 1",
]) {
  test(`rows: ${sql}`, async () => assert.equal(await returnsRows(sql), true));
}

for (const sql of [
  "",
  "insert into t values (1)",
  "insert into t select a from s",
  "update t set a = 1 where b = 2",
  "delete from t where a = 1",
  "with d as (delete from t where a = 1 returning a) insert into s select a from d",
  "select a into s from t",
  "create table s as select a from t",
  "create view v as select a from t",
  "begin",
  "commit",
  "set work_mem = '1MB'",
  "move 5 from c",
  "declare c cursor for select 1",
  "prepare s as select 1",
  "copy t from stdin",
  "do $$ begin end $$",
]) {
  test(`no rows: ${sql}`, async () => assert.equal(await returnsRows(sql), false));
}
