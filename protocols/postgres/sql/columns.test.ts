import assert from "node:assert/strict";
import { after, before, test } from "node:test";
import { createClassifier } from "./classify.ts";
import type { Classifier, ColumnUse } from "./types.ts";

/** How columns are used: a name that is missing from expressions or predicates would let a masked value through. */

let classifier: Classifier;
before(async () => {
  classifier = await createClassifier();
});
after(() => classifier.close());

async function use(sql: string): Promise<ColumnUse> {
  const bytes = new TextEncoder().encode(sql);
  const classified = await classifier.classify(bytes, 0, bytes.length);
  assert.equal(classified.refusal, undefined, sql);
  return classified.columnUse;
}

const text = (found: ColumnUse): string =>
  [
    `plain ${found.plain.join(",")}`,
    `expressions ${found.expressions.join(",")}`,
    `predicates ${found.predicates.join(",")}`,
    found.star ? "star" : "",
    found.wholeRows ? "rows" : "",
    found.untraceable ? "untraceable" : "",
  ]
    .filter((part) => part !== "" && !part.endsWith(" "))
    .join("; ");

const CASES: readonly (readonly [sql: string, expected: string])[] = [
  ["select email from c", "plain email"],
  // EXISTS computes its select list where the server cannot drop it: an error, or a row less, tells the value.
  ["select exists(select email::int from c offset 0)", "predicates email"],
  ["select exists(select generate_series(1, length(email)) from c)", "predicates email"],
  ["select a from c where exists(values (c.email::int))", "plain a; predicates email"],
  ["select exists(select email from c)", ""],
  ["select c.hash_record from c", "plain hash_record; rows"],
  ["create index on c (email)", ""],
  ["create index on c ((email::int))", "expressions email"],
  ["create table d (e text references c (email))", "predicates email"],
  ["select a, b, email from c order by 3, 1", "plain a,b,email; predicates email,a"],
  ["select c.email as x from hr.c", "plain email"],
  ["select * from c", "star"],
  ["select c.* from c", "star"],
  ["select upper(email) from c", "expressions email"],
  ["select email::text from c", "expressions email"],
  ["select email || 'x' from c", "expressions email"],
  ['select email collate "C" from c', "expressions email"],
  ["select case when a then email end from c", "expressions a,email"],
  ["select array[email] from c", "expressions email"],
  ["select (select email from c limit 1)", "expressions email"],
  ["select array(select email from c)", "expressions email"],
  ["select array(select * from c)", "untraceable"],
  ["select a from c where email = 'x'", "plain a; predicates email"],
  ["select a from c order by email", "plain a; predicates email"],
  ["select a from c group by a, email", "plain a; predicates a,email"],
  ["select a from c group by a having max(email) > 'x'", "plain a; predicates a,email"],
  ["select a, row_number() over (order by email) from c", "plain a; predicates email"],
  ["select a, first_value(email) over (order by b) from c", "plain a; expressions email; predicates b"],
  ["select a, email from c order by 2", "plain a,email; predicates email"],
  ["select a, email from c group by 1, 2", "plain a,email; predicates a,email"],
  ["select * from c order by 2", "star; untraceable"],
  ["select email as e from c order by e", "plain email; predicates e,email"],
  ["select distinct email from c", "plain email; predicates email"],
  ["select distinct * from c", "star; untraceable"],
  ["select distinct on (email) a from c", "plain a; predicates email"],
  ["select a from c join d using (email)", "plain a; predicates email"],
  ["select email from c full join d using (email)", "plain email; expressions email; predicates email"],
  ["select a from c join d on c.email = d.x", "plain a; predicates email,x"],
  ["select a from c natural join d", "plain a; untraceable"],
  ["select email from c union select a from d", "expressions email,a"],
  ["select * from c union all select * from d", "untraceable"],
  ["insert into d select email from c", "expressions email"],
  ["insert into d select * from c", "untraceable"],
  ["insert into d (email) values ('x')", ""],
  ["insert into d values ((select email from c))", "expressions email"],
  ["insert into d values (1) on conflict (email) do update set a = excluded.email where d.b > 1", "expressions email; predicates email,b"],
  ["insert into d values (1) returning email", "plain email"],
  ["update c set a = email", "expressions email"],
  ["update c set email = 'x' where b = 1 returning *", "predicates b; star"],
  ["delete from c where email = 'x' returning a", "plain a; predicates email"],
  ["delete from c returning old", "plain old; rows"],
  ["merge into d using c on d.a = c.email when matched and c.ssn > 1 then update set x = c.y", "expressions y; predicates a,email,ssn"],
  ["create table d as select email from c", "expressions email"],
  ["select email into d from c", "expressions email"],
  ["create view v as select email from c", "expressions email"],
  ["copy (select email from c) to stdout", "expressions email"],
  ["copy (select * from c) to stdout", "untraceable"],
  ["copy c (a, email) to stdout", "plain a,email"],
  ["copy c to stdout", "star"],
  // A renamed column is still that column.
  ["select upper(e) from (select email as e from c) s", "plain email; expressions e,email"],
  ["select a from (select a, email as e from c) s where e = 'x'", "plain a,email; predicates e,email"],
  ["select upper(x) from (select email from c) s(x)", "plain email; expressions x,email"],
  ["with s as (select email as e from c), t as (select e as f from s) select f || '' from t", "plain email,e; expressions f,e,email"],
  ["with s(x) as (select email from c) select x || '' from s", "plain email; expressions x,email"],
  ["with s as (select email from c) select z || '' from s t(z)", "plain email; expressions z,email"],
  ["with d as (delete from c returning email as e) select upper(e) from d", "plain email; expressions e,email"],
  ["select x from c as t(w, x)", "plain x; untraceable"],
  ["select x from (select * from c) s(w, x)", "plain x; star; untraceable"],
  ["select x from (c join d on c.a = d.a) as j(x)", "plain x; predicates a; untraceable"],
  // Whole rows.
  ["select c from c", "plain c; rows"],
  ["select x from hr.c x", "plain x; rows"],
  ["select row_to_json(c) from c", "expressions c; rows"],
  ["select c.row_to_json from c", "plain row_to_json; rows"],
  ["select c.name, c.text from c", "plain name,text"],
  ["select (c).email from c", "expressions c,email; rows"],
  ["select count(c.*) from c", "rows"],
  ["select row(c.*) from c", "rows"],
  ["select to_jsonb(s) from (select email from c) s", "plain email; expressions s; rows"],
  ["select a from c where c is not null", "plain a; predicates c; rows"],
  // Subqueries in conditions.
  ["select a from c where b in (select email from d)", "plain a; predicates b,email"],
  ["select a from c where exists (select email from d where d.x = c.y)", "plain a; predicates x,y"],
  ["select a from c where exists (select * from d)", "plain a"],
  ["select a from c, lateral (select c.email) s", "plain email,a"],
  ["with recursive t as (select a, email from c union all select t.a, c.email from t, c) select * from t", "expressions a,email; star"],
  ["with recursive t as (select * from c union all select * from t) select a from t", "plain a; untraceable"],
  ["select string_agg(a, ',' order by email) from c", "expressions a; predicates email"],
  ["select percentile_disc(0.5) within group (order by salary) from c", "expressions salary"],
  ["select count(*) filter (where email = 'x') from c", "predicates email"],
  ["select xmlforest(email), json_object('a': ssn) from c", "expressions email,ssn"],
  ["select * from f((select email from c))", "expressions email; star"],
  ["explain select a from c where email = 'x'", "plain a; predicates email"],
  ["alter table c add column x text generated always as (email) stored", "expressions email"],
  ["create index on c (email)", ""],
];

test("column use", async () => {
  for (const [sql, expected] of CASES) assert.equal(text(await use(sql)), expected, sql);
});
