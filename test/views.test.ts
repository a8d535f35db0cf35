import assert from "node:assert/strict";
import { after, before, describe, test } from "node:test";
import { createSocketTransport } from "../core/net/sockets.ts";
import type { Grant } from "../core/verdict.ts";
import { type Catalogue, createCatalogue } from "../protocols/postgres/catalogue.ts";
import { dial, type Upstream } from "../protocols/postgres/dial.ts";
import { type PostgresServer, startPostgres } from "./helpers/postgres.ts";

/** Which columns of views show masked columns, and which views do anything else with them. */
const SCHEMA = String.raw`
  create table people (id int primary key, email text, name text, phone text, boss int);
  create table notes (id int, person int, email text, body text);
  create function own(text) returns text language sql as 'select $1';
  create domain yes as bool;
  create schema shown;
  set search_path = shown, public;
  create view plain (a, b, c) as select email, name, id from people;
  create view starred as select p.*, 1 as one from people p;
  create view renamed as select p.x as id, p.y as mail from people p (x, y);
  create view nested as select a as contact, c from plain where c > 1 order by c;
  create materialized view kept as select c, contact from nested;
  create view over_kept as select * from kept;
  create view joined as select n.body, p.email, n.email as other from notes n left join people p on p.id = n.person;
  create view using_id as select id, p.email, p.name from people p join notes n using (id);
  create view in_subquery as select s.e as e, s.n from (select email as e, name as n from people where boss = 3) s;
  create view in_with as with w as (select email as e, id from people), v as (select e, id from w where id > 0) select v.e, v.id, upper(o.name) as o from v join people o on o.id = v.id;
  create view in_lateral as select l.e from notes n, lateral (select p.email as e from people p where p.id = n.person) l;
  create view named_outside as select p.id, (select n.body from notes n where n.person = p.id limit 1) as b, p.email from people p;
  create view aggregated_beside as select p.email, c.n from people p join (select person, count(*) as n from notes group by person) c on c.person = p.id;
  create view barrier with (security_barrier) as select id, email from people where name <> 'x';
  create view checked as select id, email from people where id > 0 with check option;
  create view tricky (":expr", "a)b", "c{d", ":resno", "e f", "g""h", "i\j", "<>", "1", "(", "éé") as
    select email, id, "x y", id, "x y", id, "x y", id, "x y", id, email from people ":relid" (id, email, "x y");
  create view doubled as select email as a, email as b from people;
  create view same_masked as select a, b from doubled;
  create view clean_of_shown as select b, c from plain;
  create view clean_over as select one, name from starred where name > 'a';
  create view computed as select id, upper(email) as e from people;
  create view cast_ as select email::varchar as e from people;
  create view filtered as select id, email from people where email > 'm';
  create view compared as select id, email from people where email = 'm';
  create view ordered as select id, email from people order by email;
  create view made_distinct as select distinct email from people;
  create view distinct_on as select distinct on (email) id, email from people;
  create view grouped as select email, count(*) as n from people group by email;
  create view grouped_by_id as select id, email, count(*) as n from people group by id;
  create view having_ as select id, email from people group by id having max(email) > 'a';
  create view windowed as select email, row_number() over (order by email) as n from people;
  create view window_named as select id, email, count(*) over w as n from people window w as (partition by email);
  create view united as select email from people union all select name from people;
  create view excepted as select id, email from people except select id, name from people;
  create view join_on as select p.id, p.email from people p join notes n on n.email = p.email;
  create view join_using as select email, p.id from people p join notes n using (email);
  create view join_full as select email, p.id from people p full join notes n using (email);
  create view join_natural as select email, body from people natural join notes;
  create view with_own as select id, email, own(name) as o from people;
  create view row_used as select p.email, to_jsonb(p) as j from people p;
  create view row_in_subquery as select s.email, s::text as whole from (select email, id from people) s;
  create view row_compared as select p.email from people p where p is not null;
  create view in_exists as select n.id, n.body from notes n where exists (select p.email from people p where p.id = n.person);
  create view in_in as select id, email from people where email in (select body from notes);
  create view of_sublink as select (select p.email from people p where p.id = n.person) as e from notes n;
  create view of_array as select array(select email from people) as e;
  create view of_values as select v.x from people p, lateral (values (p.email)) v (x);
  create view of_function as select u.u from people p, lateral unnest(array[p.email]) u;
  create view of_case as select email, case when email is null then 1 end as c from people;
  create view recursed as with recursive r (e, n) as (select email, 1 from people union all select e, n + 1 from r where n < 3) select e from r;
  create view unused_inside as select s.id from (select id, email from people offset 0) s;
  create view limited as select id, email from people limit (select length(max(email)) from people);
  create view sampled as select id, email from people tablesample bernoulli (length((select max(email) from people)));
  create view over_computed as select id from computed;
  create view over_nested_filter as select contact from nested where contact like 'a%';
  create view by_rule as select id, email from people;
  create rule r as on update to by_rule do instead update people set name = 'x' where id = old.id returning id, email;
  create view coalesced as select coalesce(p.email, n.body) as e, p.id from people p join notes n on n.id = p.id;
  create view cross_level as select n.id, (select max(q.name) from people q where q.email = n.email) as m, n.email from notes n;
  create view bool_out as select id, email = 'x' as is_x, email from people;
  create view null_test as select id, email from people where email is not null;
  create view aggregate_of as select max(email) as m from people;
  create view within_group as select mode() within group (order by email) as m from people;
  create view filtered_aggregate as select count(*) filter (where email > 'a') as n from people;
  create view json_of as select json_build_object('e', email) as j from people;
  create view xml_of as select xmlforest(email) as x from people;
  create view subscripted as select (string_to_array(email, '@'))[1] as x from people;
  create view collated as select email collate "C" as e from people;
  create view locked as select id, email from people for update;
  create view rows_from as select a, b from people p, rows from (upper(p.email), lower(p.name)) as f (a, b);
  create view grouping_sets as select email, name, count(*) from people group by grouping sets ((email), (name));
  create view shown_and_in_arm as select p.email, s.x from people p join (select id, name as x from people union all select id, email from people) s on s.id = p.id;
  create view shown_and_first_arm as select p.email, s.x from people p join (select id, email as x from people union all select id, name from people) s on s.id = p.id;
  create view shown_and_sublink as select p.email, (select q.email from people q where q.id = p.id + 1) as x from people p;
  create view shown_and_in_array as select p.email, array(select q.email from people q) as x from people p;
  create view shown_and_recursed as with recursive r (e, n) as (select email, 1 from people union all select e, n + 1 from r where n < 3) select r.e, p.email from r join people p on p.id = r.n;
  create view shown_and_used_in_with as with w as (select id from people where email > 'm') select p.email from people p join w on w.id = p.id;
  create view shown_and_used_unread as with w as materialized (select max(email) as m from people) select p.email from people p;
  create view shown_and_join as select p.email from people p join notes n on p.email > n.body;
  create view shown_and_alias as select j.email, upper(j.email) as u from (people p join notes n (nid, person, nmail, body) on n.person = p.id) as j;
  create view shown_through_alias as select j.email, j.nid from (people p join notes n (nid, person, nmail, body) on n.person = p.id) as j;
  create view shown_and_outer as select p.email, (select max(n.body) from notes n where n.body > p.email) as x from people p;
  create view shown_and_lateral as select p.email, l.x from people p, lateral (select p.email || '!' as x) l;
  create view shown_and_values as select p.email, v.x from people p, lateral (values (p.email)) v (x);
  create view shown_and_limit as select p.email from people p limit (select length(max(email)) from people);
  create view shown_and_partition as select p.email, sum(id) over (partition by email) from people p;
  create view shown_and_frame as select p.email, sum(id) over (order by id rows (select length(max(email)) from people) preceding) from people p;
  create view shown_and_filter as select p.email, (select count(*) filter (where q.email > 'm') from people q) as n from people p;
  create view shown_and_xml as select p.email, x.v from people p, xmltable('/a' passing xmlelement(name a, p.email) columns v text path '.') x;
  create view shown_and_whole as select p.email, p::text as x from people p;
  create view setop_inside as select s.e, s.id from (select email as e, id from people union all select name, id from people) s;
  create view cte_of_set as with w as (select id, email from people union select id, name from people) select id from w;
`;

/** Masked by number, under a mask on people.email and notes.email. */
const SHOWN: Readonly<Record<string, readonly number[]>> = {
  plain: [1],
  starred: [2],
  renamed: [2],
  nested: [1],
  kept: [2],
  over_kept: [2],
  joined: [2, 3],
  using_id: [2],
  in_subquery: [1],
  in_with: [1],
  in_lateral: [1],
  named_outside: [3],
  aggregated_beside: [1],
  barrier: [2],
  checked: [2],
  tricky: [1, 11],
  doubled: [1, 2],
  same_masked: [1, 2],
  grouped_by_id: [2],
  locked: [2],
  shown_through_alias: [1],
};
const CLEAN = ["clean_of_shown", "clean_over"];

for (const version of [15, 18] as const) {
  describe(`views of PostgreSQL ${version}`, () => {
    const transport = createSocketTransport();
    let server: PostgresServer;
    let catalogue: Catalogue;
    let open: () => Promise<Upstream>;
    before(async () => {
      server = await startPostgres({ version });
      await server.execute(SCHEMA);
      const target = {
        name: "t",
        protocol: "postgres",
        address: { path: server.socketPath },
        database: "postgres",
        user: server.superuser,
        password: server.password,
        tls: { mode: "disable", ca: undefined, serverName: undefined },
        labels: {},
        connections: { max: 10 },
        record: { results: "digest", headBytes: 0 },
      };
      open = () => dial({ target } as unknown as Grant, transport, { parameters: new Map(), protocolMinor: 0 });
      catalogue = createCatalogue(open);
      await catalogue.refresh();
    });
    after(async () => {
      transport.close();
      await server?.stop();
    });

    test("each column shows what it shows, everything else counts as masked altogether", async () => {
      const views = await server.query<{ oid: number; name: string }>(
        "select c.oid::int, c.relname as name from pg_class c where relnamespace = 'shown'::regnamespace and relkind in ('v', 'm')",
      );
      const masked = catalogue.maskedRelations(["public.people.email", "public.notes.email"]);
      assert.ok(views.length > 70);
      for (const { oid, name } of views) {
        const columns = [...(masked.columns.get(oid)?.keys() ?? [])].sort((a, b) => a - b);
        const qualified = `shown.${name}`;
        const expected = SHOWN[name];
        if (expected !== undefined || CLEAN.includes(name)) {
          assert.deepEqual(columns, expected ?? [], name);
          assert.equal(masked.untraced.has(qualified), false, name);
          assert.equal(masked.relations.has(qualified), expected !== undefined, name);
          assert.equal(masked.besides.has(qualified), expected === undefined, name);
        } else assert.equal(masked.untraced.has(qualified), true, name);
      }
    });

    test("operators named = and implicit casts of somebody's own", async () => {
      const after = async (sql: string): Promise<boolean> => {
        await server.execute(sql);
        // Another one need not rest between two readings.
        const fresh = createCatalogue(open);
        await fresh.refresh();
        return fresh.hasOwnEquality;
      };
      assert.equal(catalogue.hasOwnEquality, false);
      // = of a type of its own cannot be meant where one side is a column of PostgreSQL's own type.
      const own =
        "create type shown.own as (a int); create function shown.same(shown.own, shown.own) returns bool language sql as 'select true'";
      assert.equal(
        await after(`${own}; create operator shown.= (leftarg = shown.own, rightarg = shown.own, function = shown.same)`),
        false,
      );
      for (const [make, remove] of [
        ["operator shown.= (leftarg = text, rightarg = text, function = text_lt)", "operator shown.= (text, text)"],
        ["operator shown.= (leftarg = varchar, rightarg = int, function = shown.mixed)", "operator shown.= (varchar, int)"],
        ["operator shown.= (leftarg = yes, rightarg = yes, function = shown.domains)", "operator shown.= (yes, yes)"],
        ["operator shown.= (leftarg = anyelement, rightarg = text, function = shown.any)", "operator shown.= (anyelement, text)"],
        ["cast (text as shown.own) with inout as implicit", "cast (text as shown.own)"],
      ]) {
        if (make?.includes("mixed")) await after("create function shown.mixed(varchar, int) returns bool language sql as 'select true'");
        if (make?.includes("domains")) await after("create function shown.domains(yes, yes) returns bool language sql as 'select true'");
        if (make?.includes("any")) await after("create function shown.any(anyelement, text) returns bool language sql as 'select true'");
        assert.equal(await after(`create ${make}`), true, make);
        assert.equal(await after(`drop ${remove}`), false, remove);
      }
    });

    test("a mask on a view's own column goes beside those of what it shows", async () => {
      const [row] = await server.query<{ oid: number }>("select 'shown.plain'::regclass::oid::int as oid");
      const masked = catalogue.maskedRelations(["shown.*.b", "public.people.email"]);
      assert.deepEqual([...masked.columns.get(row?.oid ?? 0)!].sort(), [
        [1, 1],
        [2, 0],
      ]);
      assert.deepEqual(
        [...catalogue.maskedRelations(["shown.computed.id", "public.people.email"]).untraced].includes("shown.computed"),
        true,
      );
    });
  });
}
