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

/** `e:t/c`: column c of t in an expression, p: in a condition, =: in one that only compares for equality, with `u/d` or constants; `unless u/d`: only where u has no column d. */
const dotted = ({ schema, name }: { readonly schema: string | undefined; readonly name: string }): string =>
  schema === undefined ? name : `${schema}.${name}`;

const text = (found: ColumnUse): string =>
  [
    `plain ${found.plain.join(",")}`,
    `expressions ${found.expressions.join(",")}`,
    `predicates ${found.predicates.join(",")}`,
    found.star ? "star" : "",
    ...found.origins.map(({ use: how, relation, column, unless, partner }) => {
      const of = relation === undefined ? "?" : dotted(relation);
      const beside = partner === undefined ? "" : ` with ${dotted(partner.relation)}/${partner.column}`;
      return `${how === "equality" ? "=" : how[0]}:${of}/${column}${beside}${unless === undefined ? "" : ` unless ${unless.of.map(dotted).join("+")}/${unless.column}`}`;
    }),
  ]
    .filter((part) => part !== "" && !part.endsWith(" "))
    .join("; ");

const CASES: readonly (readonly [sql: string, expected: string])[] = [
  ["select email from c", "plain email"],
  [
    "select a from c where 'x' = email and (a = 1 or email in ('x', $1, 'y'::text) or email = any ($2::text[]))",
    "plain a; predicates email,a; =:c/email; =:c/a",
  ],
  ["select a from c where email = any ('{x,y}') or email = any (array['x', $1])", "plain a; predicates email; =:c/email"],
  ["select a from c group by a having email = $1", "plain a; predicates a,email; p:c/a; =:c/email"],
  ["select 1 from (select email as e from c) s where e = $1", "plain email; predicates e; =:c/email"],
  ["update c set a = 1 where email = $1", "predicates email; =:c/email"],
  ["delete from c where email = $1::pg_catalog.varchar", "predicates email; =:c/email"],
  [
    "insert into c (a) values (1) on conflict (a) do update set b = 2 where c.email = 'x'",
    "predicates a,email; p:c/a; =:c/email; p:c/* unless c/email",
  ],
  [
    "select 1 from c join d on c.email = d.mail",
    "predicates email,mail; =:c/email with d/mail; p:c/* unless c/email; =:d/mail with c/email; p:d/* unless d/mail",
  ],
  // EXISTS computes its select list where the server cannot drop it: an error, or a row less, tells the value.
  ["select exists(select email::int from c offset 0)", "predicates email; p:c/email"],
  ["select exists(select generate_series(1, length(email)) from c)", "predicates email; p:c/email"],
  ["select a from c where exists(values (c.email::int))", "plain a; predicates email; p:c/email; p:c/* unless c/email"],
  ["select exists(select email from c)", ""],
  ["select c.hash_record from c", "plain hash_record; e:c/* unless c/hash_record"],
  ["create index on c (email)", ""],
  ["create index on c ((email::int))", "expressions email; e:?/email"],
  ["create table d (e text references c (email))", "predicates email; p:?/email"],
  ["select a, b, email from c order by 3, 1", "plain a,b,email; p:c/email; p:c/a"],
  ["select c.email as x from hr.c", "plain email; e:hr.c/* unless hr.c/email"],
  ["select * from c", "star"],
  ["select c.* from c", "star"],
  ["select upper(email) from c", "expressions email; e:c/email"],
  ["select email::text from c", "expressions email; e:c/email"],
  ["select email || 'x' from c", "expressions email; e:c/email"],
  ['select email collate "C" from c', "expressions email; e:c/email"],
  ["select case when a then email end from c", "expressions a,email; e:c/a; e:c/email"],
  ["select array[email] from c", "expressions email; e:c/email"],
  ["select (select email from c limit 1)", "expressions email; e:c/email"],
  ["select array(select email from c)", "expressions email; e:c/email"],
  ["select array(select * from c)", "e:c/*"],
  ["select a from c where email = 'x'", "plain a; predicates email; =:c/email"],
  ["select a from c order by email", "plain a; predicates email; p:c/email"],
  ["select a from c group by a, email", "plain a; predicates a,email; p:c/a; p:c/email"],
  ["select a from c group by a having max(email) > 'x'", "plain a; predicates a,email; p:c/a; p:c/email"],
  ["select a, row_number() over (order by email) from c", "plain a; predicates email; p:c/email"],
  ["select a, first_value(email) over (order by b) from c", "plain a; expressions email; predicates b; e:c/email; p:c/b"],
  ["select a, email from c order by 2", "plain a,email; p:c/email"],
  ["select a, email from c group by 1, 2", "plain a,email; p:c/a; p:c/email"],
  ["select * from c order by 2", "star; p:c/*"],
  ["select email as e from c order by e", "plain email; predicates e; p:c/email; p:c/e"],
  ["select distinct email from c", "plain email; p:c/email"],
  ["select distinct * from c", "star; p:c/*"],
  ["select distinct on (email) a from c", "plain a; predicates email; p:c/email"],
  ["select a from c join d using (email)", "plain a; p:c/email; p:d/email"],
  ["select email from c full join d using (email)", "plain email; p:c/email; p:d/email; e:c/email; e:d/email"],
  [
    "select a from c join d on c.email = d.x",
    "plain a; predicates email,x; =:c/email with d/x; p:c/* unless c/email; =:d/x with c/email; p:d/* unless d/x",
  ],
  ["select a from c natural join d", "plain a; p:c/*; p:d/*"],
  ["select email from c union select a from d", "expressions email,a; e:c/email; e:d/a"],
  ["select * from c union all select * from d", "e:c/*; e:d/*"],
  ["insert into d select email from c", "expressions email; e:c/email"],
  ["insert into d select * from c", "e:c/*"],
  ["insert into d (email) values ('x')", ""],
  ["insert into d values ((select email from c))", "expressions email; e:c/email"],
  [
    "insert into d values (1) on conflict (email) do update set a = excluded.email where d.b > 1",
    "expressions email; predicates email,b; p:d/email; e:d/email; e:d/* unless d/email; p:d/b; p:d/* unless d/b",
  ],
  ["insert into d values (1) returning email", "plain email"],
  ["update c set a = email", "expressions email; e:c/email"],
  ["update c set email = 'x' where b = 1 returning *", "predicates b; star; =:c/b"],
  ["delete from c where email = 'x' returning a", "plain a; predicates email; =:c/email"],
  ["delete from c returning old", "plain old; e:c/*"],
  [
    "merge into d using c on d.a = c.email when matched and c.ssn > 1 then update set x = c.y",
    "expressions y; predicates a,email,ssn; p:d/a; p:d/* unless d/a; p:c/email; p:c/* unless c/email; p:c/ssn; p:c/* unless c/ssn; e:c/y; e:c/* unless c/y",
  ],
  ["create table d as select email from c", "expressions email; e:c/email"],
  ["select email into d from c", "expressions email; e:c/email"],
  ["create view v as select email from c", "expressions email; e:c/email"],
  ["copy (select email from c) to stdout", "expressions email; e:c/email"],
  ["copy (select * from c) to stdout", "e:c/*"],
  ["copy c (a, email) to stdout", "plain a,email"],
  ["copy c to stdout", "star"],
  // A renamed column is still that column.
  ["select upper(e) from (select email as e from c) s", "plain email; expressions e; e:c/email"],
  ["select a from (select a, email as e from c) s where e = 'x'", "plain a,email; predicates e; =:c/email"],
  ["select upper(x) from (select email from c) s(x)", "plain email; expressions x; e:c/email"],
  ["with s as (select email as e from c), t as (select e as f from s) select f || '' from t", "plain email,e; expressions f; e:c/email"],
  ["with s(x) as (select email from c) select x || '' from s", "plain email; expressions x; e:c/email"],
  ["with s as (select email from c) select z || '' from s t(z)", "plain email; expressions z; e:c/email"],
  ["with d as (delete from c returning email as e) select upper(e) from d", "plain email; expressions e; e:c/email"],
  ["select x from c as t(w, x)", "plain x"],
  ["select x from (select * from c) s(w, x)", "plain x; star"],
  [
    "select x from (c join d on c.a = d.a) as j(x)",
    "plain x; predicates a; =:c/a with d/a; p:c/* unless c/a; =:d/a with c/a; p:d/* unless d/a",
  ],
  // Whole rows.
  ["select c from c", "plain c; e:c/*"],
  ["select x from hr.c x", "plain x; e:hr.c/*"],
  ["select row_to_json(c) from c", "expressions c; e:c/c; e:c/*"],
  ["select c.row_to_json from c", "plain row_to_json; e:c/* unless c/row_to_json"],
  ["select c.name, c.text from c", "plain name,text; e:c/* unless c/name; e:c/* unless c/text"],
  ["select (c).email from c", "expressions c,email; e:c/c; e:c/*"],
  ["select count(c.*) from c", "e:c/*"],
  ["select row(c.*) from c", "e:c/*"],
  ["select to_jsonb(s) from (select email from c) s", "plain email; expressions s; e:c/email"],
  ["select a from c where c is not null", "plain a; predicates c; p:c/c; p:c/*"],
  // Subqueries in conditions.
  ["select a from c where b in (select email from d)", "plain a; predicates b,email; p:c/b; p:d/email; p:c/email unless d/email"],
  [
    "select a from c where exists (select email from d where d.x = c.y)",
    "plain a; predicates x,y; =:d/x with c/y; p:d/* unless d/x; =:c/y with d/x; p:c/* unless c/y",
  ],
  ["select a from c where exists (select * from d)", "plain a"],
  ["select a from c, lateral (select c.email) s", "plain email,a; e:c/* unless c/email"],
  [
    "with recursive t as (select a, email from c union all select t.a, c.email from t, c) select * from t",
    "expressions a,email; star; e:c/a; e:c/email; e:c/* unless c/email",
  ],
  ["with recursive t as (select * from c union all select * from t) select a from t", "plain a; e:c/*"],
  ["select string_agg(a, ',' order by email) from c", "expressions a; predicates email; e:c/a; p:c/email"],
  ["select percentile_disc(0.5) within group (order by salary) from c", "expressions salary; e:c/salary"],
  ["select count(*) filter (where email = 'x') from c", "predicates email; p:c/email"],
  ["select xmlforest(email), json_object('a': ssn) from c", "expressions email,ssn; e:c/email; e:c/ssn"],
  ["select * from f((select email from c))", "expressions email; star; e:c/email"],
  ["explain select a from c where email = 'x'", "plain a; predicates email; =:c/email"],
  ["alter table c add column x text generated always as (email) stored", "expressions email; e:?/email"],
  ["create index on c (email)", ""],
  // A name means what is in sight, in this query or around it; where the server would look is not always told by the grammar.
  ["select upper(d.email) from c join d on true", "expressions email; e:d/email; e:d/* unless d/email"],
  ["select upper(email) from c join d on true", "expressions email; e:c/email; e:d/email"],
  ["select a from c x where exists (select 1 from d y where y.email = 'x')", "plain a; predicates email; =:d/email; p:d/* unless d/email"],
  ["select (select upper(b.email) from (select b.email) s) from c b", "plain email; expressions email; e:c/* unless c/email; e:c/email"],
  [
    "select 1 from c b where exists (select 1 from d b, (select b.email || '' as z) s where z > 'a')",
    "expressions email; predicates z; e:c/email; e:d/email; e:c/* unless c/email; e:d/* unless d/email; p:d/z",
  ],
  [
    "select 1 from c b where exists (select 1 from d b, (e join f on b.email = 'x'))",
    "predicates email; =:c/email; =:d/email; p:c/* unless c/email; p:d/* unless d/email",
  ],
  ["select upper(s.email) from (select id as email from c) s", "plain id; expressions email; e:c/id"],
  ["select upper(s.email) from (select *, id as email from c) s", "plain id; expressions email; star; e:c/email; e:c/id"],
  ["select s.row_to_json from (select email from c) s", "plain email,row_to_json; e:c/email unless /row_to_json"],
  ["select s.row_to_json from (select * from c) s", "plain row_to_json; star; e:c/* unless c/row_to_json"],
  ["select s.row_to_json from (select * from (select email from c) i) s", "plain email,row_to_json; star; e:c/email unless /row_to_json"],
  [
    "select s.row_to_json from (select d.*, c.email from d, c) s",
    "plain email,row_to_json; star; e:c/* unless c/email; e:d/* unless d/row_to_json; e:c/email unless d/row_to_json",
  ],
  [
    "with recursive t as (select * from u), u as (select email from c) select t.row_to_json from t",
    "plain email,row_to_json; star; e:?/* unless /row_to_json",
  ],
  [
    "select j.row_to_json from (c join (select email from d) s on true) j",
    "plain email,row_to_json; e:c/* unless c/row_to_json; e:d/email unless c/row_to_json; e:c/email unless d/email",
  ],
  ["select s.email from (select * from c join d on true) s", "plain email; star; e:c/* unless c+d/email; e:d/* unless c+d/email"],
  ["select s.email from c s (x)", "plain email; e:c/* unless /email"],
  ["select c.c from c", "plain c; e:c/* unless c/c"],
  ["insert into c (a) select d.email || '' from d", "expressions email; e:d/email; e:d/* unless d/email"],
  ["insert into c (a) select email || '' from d", "expressions email; e:d/email"],
  ["with c as (select a as email from d) select upper(email) from c", "plain a; expressions email; e:d/a"],
  ["with c as (select a as email from d) select upper(email) from public.c", "plain a; expressions email; e:public.c/email"],
  [
    "with recursive t as (select x as y from u), u as (select email as x from c) select upper(y) from t",
    "plain x,email; expressions y; e:?/*",
  ],
  [
    "with recursive t as (select a from c union all select c.a from c join t on t.a = c.b) select upper(a) from t",
    "expressions a; predicates a,b; e:c/a; p:c/b; p:c/* unless c/b; e:c/* unless c/a",
  ],
  ["select a from c union select b from d order by a", "expressions a,b; e:c/a; e:d/b"],
  ["select e.x || '' from (c join d on true) as e (x)", "expressions x; e:c/*; e:d/*"],
  [
    "select j.email || '' from (c join d using (id)) j",
    "expressions email; p:c/id; p:d/id; e:c/email; e:d/email; e:c/* unless c+d/email; e:d/* unless c+d/email",
  ],
  [
    "select j.email || '' from c join d using (email) as j",
    "expressions email; p:c/email; p:d/email; e:c/email; e:d/email; e:c/* unless c+d/email; e:d/* unless c+d/email",
  ],
  ["select u || '' from c, unnest(c.tags) u", "expressions tags,u; e:c/tags; e:c/* unless c/tags; e:c/u"],
  ["create rule r as on update to c do also insert into d values (old.email)", "expressions email; e:c/email; e:c/* unless c/email"],
  [
    "update d set a = 1 from c where c.id = d.id returning c.email || ''",
    "expressions email; predicates id; =:c/id with d/id; p:c/* unless c/id; =:d/id with c/id; p:d/* unless d/id; e:c/email; e:c/* unless c/email",
  ],
  ["delete from d returning upper(old.email), new.a", "plain a; expressions email; e:d/email; e:d/* unless d/email; e:d/* unless d/a"],
  ["select upper(hr.c.email) from hr.c", "expressions email; e:hr.c/email; e:hr.c/* unless hr.c/email"],
  [
    "select f.email from (select lower(email) as email from c) f order by f.email",
    "plain email; expressions email; predicates email; e:c/email",
  ],
  ["select s.row_to_json from (select email as row_to_json from c) s (x)", "plain email,row_to_json; e:c/email unless /row_to_json"],
  ["select (select upper(email) from (d join e on true) j (x, email2)) from c", "expressions email; e:d/email; e:e/email; e:c/email"],
  ["select (select upper(email) from (d join e on true) j) from c", "expressions email; e:d/email; e:e/email; e:c/email unless d+e/email"],
  ["select (select j.d from (c join d on true) j) from e d", "expressions d; e:c/d; e:d/d; e:c/* unless c+d/d; e:d/* unless c+d/d"],
  ["select (c.home).street from c", "expressions home,street; e:c/home; e:c/* unless c/home"],
  // A bare name means the innermost query's column where that one has it, and surely sees it.
  ["select (select upper(email) from d) from c", "expressions email; e:d/email; e:c/email unless d/email"],
  [
    "select (select upper(email) from d join e on email = 'x') from c",
    "expressions email; predicates email; =:d/email; =:e/email; =:c/email; e:d/email; e:e/email; e:c/email unless d+e/email",
  ],
  ["select (select upper(email) from (select 1 as email) s) from c", "expressions email"],
  ["select (select 1 from d, lateral (select upper(email)) s) from c", "expressions email; e:d/email; e:c/email unless d/email"],
  ["select (select 1 from d, (select upper(email)) s) from c", "expressions email; e:d/email; e:c/email"],
  ["select (select 1 from d, unnest(tags) u) from c", "expressions tags; e:d/tags; e:c/tags unless d/tags"],
];

test("column use", async () => {
  for (const [sql, expected] of CASES) assert.equal(text(await use(sql)), expected, sql);
});

const NO_EQUALITY: readonly string[] = [
  ...[
    "not email = 'x'",
    "email <> 'x'",
    "email not in ('x')",
    "email is null",
    "email is not distinct from 'x'",
    "email = all ('{x}')",
    "'x' = any (email)",
    "email operator(s.=) 'x'",
    "email operator(pg_catalog.=) 'x'",
    "(email = 'x') is true",
    "(email = 'x') = true",
    "case when email = 'x' then true end",
    "coalesce(email = 'x', false)",
    "email = lower('x')",
    "email = current_user",
    "email = 'x' || ''",
    "email = 'x' collate c",
    "email = 'x'::own",
    "email = 'x'::s.text",
    "email = 'x'::float8",
    "email = 'x'::text[]",
    "email::text = 'x'",
    "email collate c = 'x'",
    "email in ('x', lower('y'))",
    "email = (select 'x')",
    "email in (select 'x')",
    "(email, 1) = ('x', 1)",
    "(email, 1) in (('x', 1))",
    "row(email) = row('x')",
    "email = any (array['x', lower('y')])",
    "email = any (string_to_array('x', ','))",
    "email = any ('{x}'::s.text[])",
    "email like 'x'",
    "email in ('x') is not false",
    "email = array['x']",
    "email[1] = 'x'",
  ].map((where) => `select from c where ${where}`),
  // What it is compared with must be certain, or it could be a list of guesses.
  ...[
    "from c, generate_series(1, 9) email where c.email = email",
    "from c, (values ('x')) v (e) where c.email = v.e",
    "from c join d on c.email = mail",
    "from c where exists (select from unnest(array['x']) email where c.email = email)",
    "from c json_table where exists (select from c x, json_table('[]', '$' columns (email text path '$')) where x.email = json_table.email)",
    "from c xmltable where exists (select from c x, xmltable('/a' passing '<a/>' columns email text path '.') where x.email = xmltable.email)",
    "from c g where exists (select from c x, rows from (g(1), h(2)) where x.email = g.email)",
    "from c x where exists (select from d x, c where c.email = x.email)",
    "from c, d x (email) where c.email = x.email",
    "from c, (select 'x' as email) d where c.email = d.email",
    "from c, lateral (select c.email) d where c.email = d.email",
  ].map((from) => `select ${from}`),
  "create view v as select a from c where email = 'x'",
  "create rule r as on insert to d do also delete from c where email = 'x'",
  "insert into c (a, email) values (1, 'x') on conflict (a) do update set b = 2 where c.email = excluded.email",
  "insert into c (a, email) values (1, 'x') returning (select a from c x where x.email = c.email)",
  "update c set email = 'x' returning (select a from c x where x.email = new.email)",
  "select from c join d using (email)",
  "select from c natural join d",
  "merge into c using d on c.email = 'x' when matched then delete",
  "select email = 'x' from c",
  "select count(*) filter (where email = 'x') from c",
  "select from c order by email = 'x'",
  "select from c group by email = 'x'",
  "copy c from stdin where email = 'x'",
];

test("what is no comparison for equality with what the client gives", async () => {
  for (const sql of NO_EQUALITY) {
    const { origins } = await use(sql);
    assert.ok(!origins.some((origin) => origin.use === "equality" && ["email", "*"].includes(origin.column)), sql);
    assert.ok(
      origins.some((origin) => ["email", "*"].includes(origin.column)),
      sql,
    );
  }
});
