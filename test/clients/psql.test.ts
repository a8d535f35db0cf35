import assert from "node:assert/strict";
import { mkdtempSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { after, before, describe, test } from "node:test";
import { type Destination, pgbench, pgDump, psql } from "../helpers/clients.ts";
import { removeFolder, run, temporaryFolder } from "../helpers/processes.ts";
import { startWorld, VERSIONS, type World } from "./world.ts";

// psql, pgbench and pg_dump do not notice that Sluice stands in between: same statements, same bytes.

let world: World;
const folder = temporaryFolder("psql");

const SETUP = `
create schema hr;
create type mood as enum ('sad', 'ok');
create domain positive as int check (value > 0);
create table customers (id serial primary key, name text not null default 'x', mood mood, amount positive, at timestamptz);
create table orders (id bigint generated always as identity primary key, customer int references customers on delete cascade, item text unique);
create index on customers (lower(name));
create table hr.people (id int, boss int) partition by range (id);
create table hr.people_1 partition of hr.people for values from (0) to (100);
create view v_names as select name from customers;
create materialized view m_names as select name from customers;
create sequence counter start 5;
create function add(a int, b int default 1) returns int language sql immutable as $$ select a + b $$;
create procedure nothing() language plpgsql as $$ begin end $$;
create function touched() returns trigger language plpgsql as $$ begin return new; end $$;
create trigger touch before update on customers for each row execute function touched();
create rule r_orders as on delete to orders where false do nothing;
create role reader;
grant select on customers to reader;
alter default privileges in schema hr grant select on tables to reader;
comment on table customers is 'who pays';
create statistics s_customers on id, name from customers;
create publication everything for all tables;
create extension if not exists plpgsql;
create collation german (provider = libc, locale = 'C');
create operator === (leftarg = int, rightarg = int, function = int4eq);
create policy p on orders using (true);
alter table orders enable row level security;
insert into customers (name, mood, at) select 'name ' || n, 'ok', '2024-01-01' from generate_series(1, 20) n;
insert into orders (customer, item) select n, 'item ' || n from generate_series(1, 10) n;
insert into hr.people values (1, null);
refresh materialized view m_names;
analyze;
`;

before(async () => {
  world = await startWorld({ setup: SETUP });
});
after(async () => {
  await world.stop();
  removeFolder(folder);
});

const BACKSLASH = [
  "\\d",
  "\\d customers",
  "\\d+ customers",
  "\\d orders",
  "\\d+ v_names",
  "\\d m_names",
  "\\d hr.people",
  "\\d+ hr.people",
  "\\d counter",
  "\\d customers_pkey",
  "\\dS+ pg_class",
  "\\da",
  "\\dA+",
  "\\dAc btree int4",
  "\\db+",
  "\\dc",
  "\\dC",
  "\\dd",
  "\\dD+",
  "\\ddp",
  "\\dE",
  "\\des",
  "\\deu",
  "\\dew",
  "\\det",
  "\\df+",
  "\\df add",
  "\\dfp",
  "\\dft",
  "\\dF",
  "\\dFp",
  "\\dFd",
  "\\dFt",
  "\\dg+",
  "\\di+",
  "\\dl",
  "\\dL+",
  "\\dm+",
  "\\dn+",
  "\\do ===",
  "\\dO+ german",
  "\\dp",
  "\\dP+",
  "\\drds",
  "\\dRp+",
  "\\dRs",
  "\\ds+",
  "\\dt",
  "\\dt+ hr.*",
  "\\dtvmsE+",
  "\\dT+",
  "\\du",
  "\\du+",
  "\\dv+",
  "\\dx",
  "\\dx+ plpgsql",
  "\\dX",
  "\\dy+",
  "\\l",
  "\\l+",
  "\\sf add",
  "\\sf+ add",
  "\\sv v_names",
  "\\sv+ v_names",
  "\\z",
  "\\encoding",
  "\\dconfig work_mem",
];

const STATEMENTS = `
select * from customers order by id limit 5;
table v_names limit 2;
\\x
select * from orders where id = 1;
\\x
\\pset null '∅'
select null, 'ä', E'a\\nb';
begin; insert into customers (name) values ('gone') returning name; rollback;
\\set v 'name 3'
select id from customers where name = :'v';
select 'select ' || n || ' as n' from generate_series(1, 3) n \\gexec
select 1 as a, 2 as b \\gset
\\echo :a :b
select 1 as one \\gdesc
explain (costs off) select * from customers where id = 3;
prepare q as select $1::int + 1; execute q(2); deallocate q;
select * from no_such_table;
select 1/0;
do $$ begin raise notice 'a notice'; raise warning 'a warning'; end $$;
\\copy (select id, name from customers order by id limit 3) to stdout csv header
create temp table t (a int, b text);
\\copy t from program 'printf "1\\\\tx\\\\n2\\\\ty\\\\n"'
select * from t order by a;
copy t from stdin;
3	z
\\.
select count(*) from t;
copy t to stdout;
\\lo_list
listen ch; notify ch, 'hello';
select 1 \\; select 2 \\; select 3;
\\timing off
\\set AUTOCOMMIT off
select 1;
commit;
\\set FETCH_COUNT 3
select id from customers order by id;
`;

/** What names a port, a process or the gateway's own database name differs by nature. */
const shown = (result: { stdout: string; stderr: string }, to: Destination): string =>
  `${result.stdout}\n--\n${result.stderr}`
    .replaceAll(String(to.port), "PORT")
    .replaceAll(/server process with PID \d+/g, "server process with PID N")
    .replaceAll(/psql:<stdin>:\d+/g, "psql");

for (const version of VERSIONS) {
  describe(`PostgreSQL ${version}`, () => {
    const both = async (script: string, args: readonly string[] = []) => {
      const direct = world.direct(version);
      const through = await world.through(version);
      return [shown(await run2(through, script, args), through), shown(await run2(direct, script, args), direct)] as const;
    };
    const run2 = (to: Destination, script: string, args: readonly string[]) => psql(to, script, args, { env: { PAGER: "", TZ: "UTC" } });

    test(`${BACKSLASH.length} backslash commands`, { timeout: 120_000 }, async () => {
      const script = BACKSLASH.map((command) => `\\echo -- ${command.slice(1)}\n${command}\n`).join("");
      const [got, expected] = await both(script, ["-P", "format=aligned"]);
      const lines = expected.split("\n");
      const different = got.split("\n").filter((line, index) => line !== lines[index]);
      assert.deepEqual(different.slice(0, 10), []);
      assert.equal(got.length, expected.length);
      assert.match(got, /who pays/);
      assert.doesNotMatch(got, /Sluice/);
    });

    test("statements, variables, \\copy, \\gexec, FETCH_COUNT", { timeout: 60_000 }, async () => {
      const [got, expected] = await both(STATEMENTS, ["-P", "format=aligned"]);
      assert.equal(got, expected);
      assert.match(got, /Asynchronous notification "ch" with payload "hello"/);
    });

    test("tab completion's kind of queries and \\watch do not end the session; Ctrl-C does not either", { timeout: 60_000 }, async () => {
      const [got, expected] = await both("set statement_timeout = 200;\nselect pg_sleep(5);\nselect 'still here';\n");
      assert.equal(got, expected);
      assert.match(got, /statement timeout[\s\S]*|still here/);
    });

    test("pgbench: initialise, simple, extended, prepared, and with pipelines", { timeout: 120_000 }, async () => {
      const to = await world.through(version);
      const made = await pgbench(to, ["-i", "-q", "-s", "1"], { timeoutMillis: 60_000 });
      assert.equal(made.code, 0, made.stderr);
      assert.deepEqual(await world.server(version).query("select count(*)::int from pgbench_accounts"), [{ count: 100_000 }]);
      for (const mode of ["simple", "extended", "prepared"]) {
        const result = await pgbench(to, ["-n", "-M", mode, "-c", "4", "-j", "2", "-t", "100"]);
        assert.equal(result.code, 0, result.stderr);
        assert.match(result.stdout, /number of transactions actually processed: 400\/400/);
        assert.match(result.stdout, /number of failed transactions: 0/);
      }
      const history = await world.server(version).query("select count(*)::int from pgbench_history");
      assert.deepEqual(history, [{ count: 1_200 }]);
      const script = join(folder, `pipeline-${version}.sql`);
      writeFileSync(script, "\\startpipeline\nselect 1;\nselect abalance from pgbench_accounts where aid = 7;\nselect 2;\n\\endpipeline\n");
      const piped = await pgbench(to, ["-n", "-M", "prepared", "-f", script, "-c", "2", "-t", "100"]);
      assert.equal(piped.code, 0, piped.stderr);
      assert.match(piped.stdout, /actually processed: 200\/200/);
      await world.server(version).execute("drop table pgbench_accounts, pgbench_branches, pgbench_tellers, pgbench_history");
    });
  });
}

test("pg_dump 15 of PostgreSQL 15: plain and custom format, the same as without Sluice", { timeout: 120_000 }, async () => {
  const direct = world.direct(15);
  const through = await world.through(15);
  // Since 2025 dumps begin with a random \\restrict key; --restrict-key is younger than some versions.
  const plain = (text: string) => text.replaceAll(/^\\(un)?restrict \S+$/gm, "\\restrict");
  for (const args of [[], ["--inserts"], ["--schema-only"], ["-t", "customers", "-a"]]) {
    const [got, expected] = [await pgDump(through, args), await pgDump(direct, args)];
    assert.equal(got.code, 0, got.stderr);
    assert.equal(plain(got.stdout), plain(expected.stdout));
    assert.ok(expected.stdout.length > 500);
  }
  const files = await Promise.all(
    [through, direct].map(async (to, index) => {
      const file = join(mkdtempSync(join(folder, "dump-")), `${index}.dump`);
      const made = await pgDump(to, ["-Fc", "-f", file]);
      assert.equal(made.code, 0, made.stderr);
      return (await run("pg_restore", ["-f", "-", file])).stdout;
    }),
  );
  assert.equal(plain(files[0] ?? ""), plain(files[1] ?? ""));
});
