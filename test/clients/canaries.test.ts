import assert from "node:assert/strict";
import { randomBytes } from "node:crypto";
import { readdirSync, readFileSync, statSync } from "node:fs";
import { join } from "node:path";
import { after, before, describe, test } from "node:test";
import { bind, close, describe as describeMessage, execute, parse, query, sync } from "../../protocols/postgres/messages.ts";
import { errors, type RawClient, rows, states } from "./raw.ts";
import { rawAt, startWorld, VERSIONS, type World } from "./world.ts";

// Unique values stand in masked columns. Whatever a client asks, no byte of them may appear in what any client receives, in the
// gateway's logs, or in the data folder.

const CANARIES = Array.from({ length: 10 }, (_, index) => `canary${index}x${randomBytes(9).toString("hex")}`);
const [EMAIL, EMAIL2, SSN, PHONE, NOTE, JSON_VALUE, ARRAY_VALUE, BYTES, OTHER, CHILD] = CANARIES as [
  string,
  string,
  string,
  string,
  string,
  string,
  string,
  string,
  string,
  string,
];

const SETUP = `
create table customers (
  id int primary key, name text, email text unique, ssn varchar(60) check (ssn <> 'bad'), phone text, note text, doc jsonb, tags text[], photo bytea,
  region text default 'eu'
);
insert into customers values
  (1, 'Ann', '${EMAIL}', '${SSN}', '${PHONE}', '${NOTE}', '{"k": "${JSON_VALUE}"}', array['${ARRAY_VALUE}'], '${BYTES}'::bytea),
  (2, 'Bob', '${EMAIL2}', 'plain', null, null, null, null, null);
create table orders (id int primary key, customer int references customers, item text, email text);
insert into orders values (10, 1, 'lamp', 'not masked here');
create table extra (id int, email text);
insert into extra values (1, '${OTHER}');
create table child (more text) inherits (customers);
insert into child (id, name, email, more) values (3, 'Cy', '${CHILD}', 'm');
create view v_all as select * from customers;
create view v_email as select id, email as contact from customers;
create view v_safe as select id, name, region from customers;
create table made (id int, email text, copied text generated always as (email || '!') stored, number int, check (number is null or email::int > 0));
insert into made (id, email) values (1, '${OTHER}');
create table ruled (id int);
insert into ruled values (1);
create rule answers as on update to ruled do instead select email from customers;
create view v_made as select id, number from made;
create materialized view m_email as select id, email as contact from customers;
create function all_customers() returns setof customers language sql as 'select * from customers';
create function one_email(int) returns text language sql as 'select email from customers where id = $1';
create function email_of(customers) returns text language sql as 'select $1.email';
create procedure tell(inout x text) language plpgsql as $$ begin select email into x from customers where id = 1; end $$;
create function loud() returns trigger language plpgsql as $$ begin raise notice 'was %', old.email; return new; end $$;
create trigger loud before update of region on customers for each row execute function loud();
create function strict_one() returns trigger language plpgsql as $$ begin raise exception 'no: %', old.ssn using detail = old.email; end $$;
create trigger strict_one before update of name on customers for each row when (new.name = 'forbidden') execute function strict_one();
analyze customers; analyze extra;
`;

const POLICY = `version: 1
rules:
  # What they see would go on record as they see it.
  - { name: excepted, who: { groups: [dba] }, record: { results: digest }, effect: allow }
  - { name: all, effect: allow }
masks:
  - name: pii
    except: { groups: [dba] }
    columns: [public.customers.email, public.customers.ssn, public.customers.note, public.customers.doc, public.customers.tags, public.customers.photo]
    with: redact
    predicates: deny
  - name: numbers
    except: { groups: [dba] }
    columns: [public.customers.phone]
    with: hash
  - name: nothing-left
    except: { groups: [dba] }
    columns: [public.extra.email, public.made.email]
    with: "null"
`;

let world: World;
before(async () => {
  world = await startWorld({ setup: SETUP, policy: POLICY, config: { record: { results: "full" } } });
});
after(() => world.stop());

/** `masked`: carried out without an error. `refused`: SQLSTATE 42501. `either`: only the canaries count. */
type Expectation = "masked" | "refused" | "either";
const QUERIES: readonly (readonly [string, Expectation])[] = [
  ["select * from customers", "masked"],
  ["select email, ssn, phone, note, doc, tags, photo from customers order by id", "masked"],
  ["select c.email from customers c join orders o on o.customer = c.id", "masked"],
  ["select o.item, c.email as renamed from orders o, customers c where c.id = o.customer", "masked"],
  ["table customers", "masked"],
  ["select * from only customers", "masked"],
  ["select email from child", "masked"],
  ["select * from child", "masked"],
  ["select email from extra", "masked"],
  ["select email from (select email from customers) x", "either"],
  ["with c as (select email from customers) select email from c", "either"],
  ["select x from (select email as x from customers) s", "either"],
  ["select distinct id, name from customers", "masked"],
  ["select count(*) from customers", "masked"],
  ["select id, name from customers where id = 1", "masked"],
  ["update customers set region = 'us' where id = 1 returning email, ssn", "masked"],
  ["insert into customers (id, name) values (50, 'x') returning *", "masked"],
  ["delete from customers where id = 50 returning email", "masked"],
  ["select upper(email) from customers", "refused"],
  ["select email || '' from customers", "refused"],
  ["select email::varchar from customers", "refused"],
  ["select substring(email from 3) from customers", "refused"],
  ["select reverse(email) from customers", "refused"],
  ["select coalesce(email, '') from customers", "refused"],
  ["select case when true then email end from customers", "refused"],
  ["select md5(email), encode(email::bytea, 'hex') from customers", "refused"],
  ["select array_agg(email) from customers", "refused"],
  ["select string_agg(email, ',') from customers", "refused"],
  ["select min(email), max(email) from customers", "refused"],
  ["select first_value(email) over () from customers", "refused"],
  ["select doc->>'k' from customers", "refused"],
  ["select doc['k'] from customers", "refused"],
  ["select tags[1] from customers", "refused"],
  ["select unnest(tags) from customers", "refused"],
  ["select u from customers, unnest(tags) u", "refused"],
  ["select row(email) from customers", "refused"],
  ["select array[email] from customers", "refused"],
  ["select (select email)", "either"],
  ["select (select email from customers limit 1)", "refused"],
  ["select array(select email from customers)", "refused"],
  ["select customers from customers", "refused"],
  ["select c from customers c", "refused"],
  ["select c.*::text from customers c", "refused"],
  ["select (c).email from customers c", "either"],
  ["select (c.*).email from customers c", "either"],
  ["select to_jsonb(c) from customers c", "refused"],
  ["select row_to_json(customers) from customers", "refused"],
  ["select json_agg(c) from customers c", "refused"],
  ["select c::text from customers c", "refused"],
  ["select c.text from customers c", "either"],
  ["select c.email_of from customers c", "refused"],
  ["select email_of(c) from customers c", "refused"],
  ["select x.* from (select c from customers c) x", "refused"],
  ["select email from customers union all select 'x'", "refused"],
  ["select 'x' union all select email from customers", "refused"],
  ["select email from customers intersect select email from customers", "refused"],
  ["select id, name, email from customers where email like 'c%'", "refused"],
  ["select id from customers where ssn > 'c'", "refused"],
  ["select id from customers order by email", "refused"],
  ["select email from customers order by 1", "refused"],
  ["select count(*) from customers group by email", "refused"],
  ["select distinct email from customers", "refused"],
  ["select 1 from customers group by id having max(email) > 'a'", "refused"],
  ["select 1 from customers a join customers b using (email)", "refused"],
  ["select 1 from customers a natural join extra b", "refused"],
  ["select * from v_all", "masked"],
  ["select contact from v_email", "masked"],
  ["select upper(contact) from v_email", "refused"],
  ["select contact from m_email", "masked"],
  ["select id from m_email where contact > 'm'", "refused"],
  // A view is as masked as what it reads.
  ["select id, name from v_safe", "masked"],
  ["select upper(name) from v_safe where name > 'A' order by name", "masked"],
  ["update v_safe set region = null where id = 1", "either"],
  ["update v_safe set id = 2 where id = 1", "either"],
  ["update v_made set number = 7 where id = 1", "either"],
  ["insert into v_made values (1, 7)", "either"],
  ["copy (select upper(name) from v_safe) to stdout", "masked"],
  // What is computed from a masked column is masked.
  ["select copied from made", "masked"],
  ["select * from made", "masked"],
  ["select upper(copied) from made", "refused"],
  ["select id from made where copied > 'c'", "refused"],
  ["insert into made (id, email) values (2, 'x') returning copied", "masked"],
  // A rule answers with rows of another table.
  ["update ruled set id = 2", "refused"],
  // The conversion of a row to its own type, in attribute notation.
  ["select c.customers from customers c", "refused"],
  ["select k.customers from child k", "refused"],
  ["select s.row_to_json from (select email from customers) s", "refused"],
  ["select s.to_jsonb from (select * from (select email from customers) i) s", "refused"],
  // Names mean what they mean where they stand.
  ["select upper(o.email) from orders o join customers c on c.id = o.customer", "masked"],
  ["select id from customers c where exists (select 1 from orders o where o.customer = c.id and o.email like 'n%')", "masked"],
  ["select upper(s.email) from (select name as email from customers) s", "masked"],
  ["select count(o), to_jsonb(max(o.item)) from orders o join customers c on c.id = o.customer", "masked"],
  ["select 1 from customers b where exists (select 1 from orders b, (select b.email || '' as z) s where z > 'c')", "refused"],
  ["with recursive t as (select * from u), u as (select email from customers) select t.row_to_json from t", "refused"],
  ["select * from all_customers()", "refused"],
  ["select one_email(1)", "refused"],
  ["call tell('')", "refused"],
  ["do $$ begin raise notice '%', (select email from customers limit 1); end $$", "refused"],
  ["copy customers to stdout", "masked"],
  ["copy (select email from customers) to stdout", "refused"],
  ["copy customers (id, email) to stdout (format csv)", "masked"],
  ["copy customers (id, email) to stdout (format binary)", "masked"],
  ["create table stolen as select email from customers", "refused"],
  ["select email into stolen from customers", "refused"],
  ["create temp table stolen as select * from customers", "refused"],
  ["create view stolen as select email as e from customers", "refused"],
  ["create materialized view stolen as select * from customers", "refused"],
  ["insert into orders (id, email) select id + 100, email from customers", "refused"],
  ["insert into orders (id, email) values (99, (select email from customers limit 1))", "refused"],
  ["update orders set email = c.email from customers c", "refused"],
  ["update customers set name = email", "refused"],
  ["update customers set region = ssn where id = 1 returning region", "refused"],
  ["update customers set region = 'x' where id = 1 returning upper(email)", "refused"],
  ["merge into orders o using customers c on o.customer = c.id when matched then update set email = c.email", "refused"],
  ["merge into customers c using orders o on o.customer = c.id when matched then update set region = c.email", "refused"],
  ["explain analyze select * from customers where id = 1", "either"],
  ["explain (verbose) select email from customers", "either"],
  ["insert into customers (id, email) values (60, null), (1, null)", "either"],
  ["insert into customers select 70, 'n', null, 'bad'", "either"],
  ["update customers set ssn = 'bad' where id = 1", "either"],
  ["update customers set region = null where id = 1", "either"],
  ["update customers set name = 'forbidden' where id = 1", "either"],
  ["update customers set id = 2 where id = 1", "either"],
  ["update customers set email = null where id < 3 returning *", "either"],
  ["select id / 0, email from customers", "either"],
  ["select lpad(name, 10), email::int from customers", "refused"],
  ["select * from customers for update", "masked"],
  ["select most_common_vals from pg_stats where tablename = 'customers'", "refused"],
  ["select * from pg_statistic", "refused"],
  ["select histogram_bounds::text from pg_stats", "refused"],
  ["select chunk_data from pg_toast.pg_toast_1255", "refused"],
  ["select query from pg_stat_activity", "either"],
  ["select query_to_xml('select * from customers', true, true, '')", "refused"],
  ["select table_to_xml('customers', true, true, '')", "refused"],
  ["select database_to_xml(true, true, '')", "refused"],
  ["select schema_to_xml('public', true, true, '')", "refused"],
  ["select cursor_to_xml('k', 10, true, true, '')", "refused"],
  ["select ts_stat('select to_tsvector(email) from customers')", "refused"],
  ["select * from ts_stat('select to_tsvector(email) from customers')", "refused"],
  ["select pg_read_file('postgresql.conf')", "refused"],
  ["select pg_notify('x', email) from customers", "refused"],
  ["select set_config('my.x', email, false) from customers", "refused"],
  ["select get_raw_page('customers', 0)", "either"],
  [
    "select * from xmltable('/x' passing (select query_to_xml('select email from customers', true, true, '')) columns e text path '.')",
    "refused",
  ],
  ["select json_object_agg(id, email) from customers", "refused"],
  ["select xmlforest(email) from customers", "refused"],
  ["select json_object('e': email) from customers", "refused"],
  ["select greatest(email, 'a') from customers", "refused"],
  ["select email = 'x' from customers", "refused"],
  ["select email is null from customers", "refused"],
  ["select id from customers where (id, email) > (0, 'c')", "refused"],
  ["select id from customers c where c > row(0)", "refused"],
  ["select id from customers c order by c", "refused"],
  ["select id from customers where exists (select 1 where email like 'canary%')", "refused"],
  ["select id from customers where email in (select email from extra)", "refused"],
  ["select l.e from customers c, lateral (select c.email as e) l", "either"],
  ["select l.e from customers c cross join lateral (values (c.email)) l(e)", "either"],
  ["select e from (values ((select email from customers limit 1))) v(e)", "refused"],
  ["with recursive r as (select email from customers union select email from r) select * from r", "refused"],
  ["with d as (delete from customers where id = 3 returning *) select * from d", "either"],
  ["with u as (update customers set region = 'x' returning email as e) select e || '' from u", "either"],
  ["select a.e from customers as a(i, n, e)", "either"],
  ["select upper(a.e) from customers as a(i, n, e)", "refused"],
  ["select upper(e) from (select email as e from customers) s", "refused"],
  ["with s(e) as (select email from customers) select upper(e) from s", "refused"],
  ["with s as (select * from customers) select upper(email) from s", "refused"],
  ["select s.x from (select * from customers) as s(a, b, x)", "either"],
  ["select reverse(s.x) from (select * from customers) as s(a, b, x)", "refused"],
  ["alter table customers rename column email to mail", "refused"],
  ["alter table customers rename to clients", "refused"],
  ["alter table customers set schema other", "refused"],
  ["alter schema public rename to p2", "refused"],
  ["alter view v_email rename column contact to x", "refused"],
  ["alter table orders add column more text", "masked"],
  ["alter table customers add column copy text generated always as (email) stored", "refused"],
  ["create index on customers ((upper(email)))", "either"],
  ["create rule leak as on update to customers do also insert into orders (id, email) values (500, old.email)", "refused"],
  ["create function leak() returns text language sql as 'select email from customers limit 1'", "either"],
  ["create statistics leak on id, email from customers", "either"],
];

/** Several messages in one session; a statement may fail, what comes back may not hold a canary. */
const SESSIONS: readonly (readonly string[])[] = [
  ["begin", "declare k cursor for select email, ssn from customers", "fetch 1 from k", "fetch all from k", "commit"],
  ["begin; declare k cursor for select email from customers; fetch all from k; commit"],
  ["begin", "declare k cursor for select email from customers", "select 1; fetch all from k", "commit"],
  ["begin", "declare k cursor for select 1", "close k", "declare k cursor for select email from customers", "fetch all from k", "rollback"],
  [
    "begin",
    "declare k cursor for select email from customers",
    "savepoint s",
    "declare k cursor for select 1",
    "rollback to s",
    "fetch all from k",
    "commit",
  ],
  ["begin", "declare k binary cursor for select email from customers", "fetch all from k", "commit"],
  ["declare h cursor with hold for select email from customers", "fetch all from h", "close h"],
  ["prepare p as select email from customers", "execute p", "deallocate p"],
  ["prepare p as select upper(email) from customers", "execute p"],
  ["prepare p as select 1", "deallocate p", "prepare p as select email, note from customers", "execute p", "explain analyze execute p"],
  ["prepare p as select email from customers", "create table stolen as execute p"],
  ["begin", "create view v1 as select email as e from customers", "select e from v1", "select upper(e) from v1", "rollback"],
  ["begin; create view v1 as select email as e from customers; select e from v1; rollback"],
  [
    "begin",
    "alter table customers rename column email to mail",
    "select mail from customers",
    "select upper(mail) from customers",
    "rollback",
  ],
  ["begin; alter table customers rename column email to mail; select upper(mail) from customers; rollback"],
  ["begin", "create table heirs () inherits (customers)", "select email from heirs", "rollback"],
  ["begin", "create temp table t (like customers)", "insert into t select * from customers", "select * from t", "rollback"],
  ["create temp table t (e text)", "insert into t select email from customers", "select * from t"],
  [
    "create temp table customers (id int, email text)",
    "select email from customers",
    "drop table pg_temp.customers",
    "select email from customers",
    "select upper(email) from public.customers",
  ],
  [
    "begin",
    "create function f(customers) returns text language sql as 'select $1.email'",
    "select c.f from customers c",
    "select f(c) from customers c",
    "rollback",
  ],
  ["begin; create function f(customers) returns text language sql as 'select $1.email'; select c.f from customers c; rollback"],
  ["create function pg_temp.f() returns text language sql as 'select email from public.customers limit 1'", "select pg_temp.f()"],
  [
    "begin",
    "create operator === (leftarg = text, rightarg = text, function = texteq)",
    "select id from customers where email === 'x'",
    "rollback",
  ],
  ["begin", "create rule r as on update to orders do also select email from customers", "update orders set item = 'x'", "rollback"],
  ["begin", "create policy p on orders using ((select email from customers limit 1) > 'a')", "rollback"],
  ["begin", "alter table orders alter column email set default (now()::text)", "rollback"],
  ["set search_path = pg_temp, public", "create temp view customers2 as select * from public.customers", "select * from customers2"],
  ["begin", "create schema s2", "alter table customers set schema s2", "select email from s2.customers", "rollback"],
  ["begin", "alter schema public rename to p2", "select email from p2.customers", "rollback"],
  ["listen news", "select pg_notify('news', (select email from customers limit 1))", "select 1"],
  ["set my.leak = 'x'", "select set_config('application_name', (select email from customers limit 1), false)", "show application_name"],
];

const recoded = (canary: string): string[] => {
  const bytes = Buffer.from(canary);
  return [canary, [...canary].reverse().join(""), bytes.toString("hex"), canary.slice(-14), bytes.toString("base64").slice(2, -4)];
};
const holdsCanary = (bytes: Buffer): string | undefined => {
  const text = bytes.toString("latin1").toLowerCase();
  return CANARIES.find((canary) => recoded(canary).some((form) => text.includes(form.toLowerCase())));
};

const bindBinary = (statement: string): Buffer => {
  const body = Buffer.concat([Buffer.from(`\0${statement}\0`), Buffer.from([0, 0, 0, 0, 0, 1, 0, 1])]);
  const head = Buffer.from([0x42, 0, 0, 0, 0]);
  head.writeInt32BE(body.length + 4, 1);
  return Buffer.concat([head, body]);
};
const extended = (sql: string): Uint8Array[] => [parse("", sql), bind("", ""), describeMessage("P", ""), execute(""), sync()];
const undescribed = (sql: string): Uint8Array[] => [close("S", "u"), parse("u", sql), bind("", "u"), execute("", 1), execute(""), sync()];
const binary = (sql: string): Uint8Array[] => [
  close("S", "b"),
  parse("b", sql),
  describeMessage("S", "b"),
  bindBinary("b"),
  execute(""),
  sync(),
];

for (const version of VERSIONS) {
  describe(`PostgreSQL ${version}`, () => {
    const fresh = async (): Promise<RawClient> => {
      const client = await rawAt(await world.through(version));
      client.received = [];
      return client;
    };
    const assertClean = (client: RawClient, sql: string) => {
      const found = holdsCanary(Buffer.concat(client.received ?? []));
      assert.equal(found, undefined, `${sql} let ${found} out`);
      client.received = [];
    };

    test("the canaries are there, and who is excepted sees them", { timeout: 30_000 }, async () => {
      const client = await rawAt(await world.through(version, ["dba"]));
      const seen = rows(await client.query("select email, ssn, phone, note, doc, tags from only customers where id = 1"))[0];
      assert.deepEqual(seen, [EMAIL, SSN, PHONE, NOTE, `{"k": "${JSON_VALUE}"}`, `{${ARRAY_VALUE}}`]);
      client.close();
    });

    for (const [how, messages] of [
      ["simple query", (sql: string) => [query(sql)]],
      ["extended query", extended],
      ["extended query without Describe, in two parts", undescribed],
      ["extended query with binary results", binary],
    ] as const) {
      test(`${QUERIES.length} statements as ${how}`, { timeout: 120_000 }, async () => {
        let client = await fresh();
        const wrong: string[] = [];
        for (const [sql, expected] of QUERIES) {
          if (client.ended) client = await fresh();
          // Everything is undone; an error in the block says nothing about the next statement.
          await client.query("begin");
          const frames = await client.ask(messages(sql)).catch(() => []);
          const [error] = errors(frames);
          // What returns no rows cannot be run in two parts (55000); not every type can be searched in binary.
          const mayFail = how.includes("binary") || error?.C === "55000";
          if (expected === "masked" && !mayFail && error !== undefined) wrong.push(`${sql}: ${error.C} ${error.M}`);
          if (expected === "refused" && error?.C !== "42501")
            wrong.push(`${sql}: ${error === undefined ? "was carried out" : `${error.C} ${error.M}`}`);
          const leaked = holdsCanary(Buffer.concat(client.received ?? []));
          if (leaked !== undefined) wrong.push(`${sql}: LEAKED ${leaked}`);
          client.received = [];
          if (client.ended) wrong.push(`${sql}: ended the session: ${JSON.stringify(error)}`);
          else assert.equal(states(await client.query("rollback")), "I", sql);
          client.received = [];
        }
        client.close();
        assert.deepEqual(wrong, []);
      });
    }

    test("sessions of several statements, simple and extended", { timeout: 120_000 }, async () => {
      const wrong: string[] = [];
      for (const messages of [(sql: string) => [query(sql)], extended]) {
        for (const session of SESSIONS) {
          const client = await fresh();
          for (const sql of session) {
            if (client.ended) break;
            await client.ask(messages(sql)).catch(() => []);
            const leaked = holdsCanary(Buffer.concat(client.received ?? []));
            if (leaked !== undefined) wrong.push(`${session.join(" / ")}: at ${sql} ${leaked}`);
            client.received = [];
          }
          client.destroy();
        }
      }
      assert.deepEqual(wrong, []);
    });

    test("statements and portals whose meaning changes after they were described", { timeout: 60_000 }, async () => {
      const leak = "select email from customers";
      const scripts: Record<string, Uint8Array[][]> = {
        "a prepared FETCH whose cursor is declared anew": [
          [query("begin")],
          [query("declare k cursor for select 'harmless'::text as email")],
          [parse("f", "fetch all from k"), describeMessage("S", "f"), sync()],
          [query("close k")],
          [query(`declare k cursor for ${leak}`)],
          [bind("", "f"), execute(""), sync()],
        ],
        "a prepared EXECUTE whose statement is prepared anew": [
          [query("prepare p as select 'harmless'::text as email")],
          [parse("e", "execute p"), describeMessage("S", "e"), sync()],
          [query("deallocate p")],
          [query(`prepare p as ${leak}`)],
          [bind("", "e"), execute(""), sync()],
        ],
        "a portal that gave its name to a cursor": [
          [query("begin")],
          [parse("", "select 'harmless'::text as email"), bind("k", ""), describeMessage("P", "k"), sync()],
          [query("close k")],
          [query(`declare k cursor for ${leak}`)],
          [execute("k"), sync()],
        ],
        "a portal, closed by SQL in a statement that fails later": [
          [query("begin; savepoint s")],
          [parse("", leak), bind("k", ""), sync()],
          [query("close k; declare k cursor for select 'harmless'::text; select 1/0")],
          [query("rollback to s")],
          [execute("k"), sync()],
          [query("fetch all from k")],
        ],
        "a statement whose temporary table goes away": [
          [query("create temp table customers (id int, email text); insert into customers values (1, 'harmless')")],
          [parse("t", leak), describeMessage("S", "t"), bind("", "t"), execute(""), sync()],
          [query("drop table pg_temp.customers")],
          [bind("", "t"), execute(""), sync()],
          [bindBinary("t"), execute(""), sync()],
        ],
        "a statement whose search_path moves": [
          [query("create schema if not exists harmless; create table if not exists harmless.customers (id int, email text)")],
          [query("set search_path = harmless, public")],
          [parse("t", leak), describeMessage("S", "t"), bind("", "t"), execute(""), sync()],
          [query("set search_path = public")],
          [bind("", "t"), execute(""), sync()],
          [bindBinary("t"), execute(""), sync()],
          [query("drop schema harmless cascade")],
        ],
        "names that differ only behind their 63rd byte": [
          [parse(`${"n".repeat(63)}a`, "select 'harmless'::text as email"), sync()],
          [close("S", `${"n".repeat(63)}b`), sync()],
          [parse(`${"n".repeat(63)}c`, leak), sync()],
          [bind("", `${"n".repeat(63)}a`), execute(""), sync()],
        ],
        "a Query behind a failed Parse is not what set the search_path": [
          [query("create schema if not exists harmless; create table if not exists harmless.customers (id int, email text)")],
          [parse("", "select nothing_such"), query("set search_path = harmless, public"), sync()],
          [query(leak)],
          [query("select upper(email) from customers")],
          [query("drop schema harmless cascade")],
        ],
      };
      for (const [name, steps] of Object.entries(scripts)) {
        const client = await fresh();
        for (const step of steps) {
          if (step.length === 0 || client.ended) continue;
          await client.ask(step).catch(() => []);
        }
        assertClean(client, name);
        client.destroy();
      }
    });
  });
}

test("nothing is in the logs and in the data folder", { timeout: 60_000 }, async () => {
  const client = await rawAt(await world.through(18));
  await client.query("select * from customers");
  client.close();
  // Everything recorded is flushed when the gateway has stopped.
  await world.gateway.stop({ keep: true });
  assert.equal(holdsCanary(Buffer.from(world.gateway.logs())), undefined, "the log");
  assert.equal(holdsCanary(Buffer.from(world.gateway.output())), undefined, "the output");
  let bytes = 0;
  let sawCustomers = false;
  const walk = (folder: string): void => {
    for (const entry of readdirSync(folder)) {
      const path = join(folder, entry);
      if (statSync(path).isDirectory()) walk(path);
      else {
        const content = readFileSync(path);
        bytes += content.length;
        sawCustomers ||= content.includes("customers");
        assert.equal(holdsCanary(content), undefined, path);
      }
    }
  };
  walk(world.gateway.dataFolder);
  assert.ok(bytes > 10_000 && sawCustomers, "the folder holds what was recorded");
});
