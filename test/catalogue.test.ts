import assert from "node:assert/strict";
import { after, before, describe, test } from "node:test";
import { createSocketTransport } from "../core/net/sockets.ts";
import type { Grant } from "../core/verdict.ts";
import { type Catalogue, createCatalogue } from "../protocols/postgres/catalogue.ts";
import { dial, type Upstream } from "../protocols/postgres/dial.ts";
import { query } from "../protocols/postgres/query.ts";
import { type PostgresServer, startPostgres } from "./helpers/postgres.ts";

const SCHEMA = `
  create schema hr; create schema other; create schema closed;
  create table public.customers (id int primary key, gone text, email text, ssn text);
  alter table public.customers drop column gone;
  create table hr.customers (id int, email text);
  create table closed.customers (id int);
  create table public.clean (id int, note text);
  create view public.v1 as select id, upper(email) as mail from public.customers;
  create view hr.v2 as select * from public.v1;
  create materialized view other.m as select count(*) as n from hr.v2;
  create view public.clean_view as select * from public.clean;
  create table public.events (at int, email text) partition by range (at);
  create table public.events_1 (email text, at int);
  alter table public.events attach partition public.events_1 for values from (0) to (10);
  create table public.events_2 partition of public.events for values from (10) to (20);
  create view public.events_view as select at from public.events;
  create view public.events_where as select at from public.events where email > 'm';
  create view public.events_rows as select count(e) from public.events e;
  create table public.tracked (id int, secret text, clear text, made text generated always as (upper(secret)) stored,
    both_made text generated always as (secret || clear) stored);
  create table public.tracked_child (more int) inherits (public.tracked);
  create view public.tracked_ids as select id, clear from public.tracked order by id;
  create view public.tracked_rows as select to_jsonb(t) as j from public.tracked t;
  create view public.tracked_counts as select count(*) as n from public.tracked group by made;
  create view public.tracked_over as select 1 as one from public.tracked_rows;
  create view public.tracked_number as select count(*) as n from public.tracked;
  create table public.ruled (id int);
  create rule answers as on update to public.ruled do instead select secret from public.tracked;
  create function public.upper(text) returns text language sql as 'select $1';
  create function other.only_here() returns int language sql as 'select 1';
  create table "odd.name"."x" ();
  create function harmless(int) returns int language plpgsql as $$ begin update clean set note = 'set' where id = $1; return 1; end $$;
  create function moves() returns void language plpgsql as $$ begin set local search_path = hr; end $$;
  create function Dynamic(text) returns void language plpgsql as $$ begin Execute $1; end $$;
  create function calls_it() returns int language plpgsql as $$ begin perform Moves(); return 1; end $$;
  create function calls_that() returns int language sql begin atomic select calls_it(); end;
  create function by_default(x text default set_config('search_path', 'hr', false)) returns int language sql as 'select 1';
  create aggregate sets(text, boolean) (sfunc = set_config, stype = text, initcond = 'search_path');
  create function on_change() returns trigger language plpgsql as $$ begin perform calls_it(); return new; end $$;
  create table triggered (id int) partition by range (id);
  create table triggered_1 partition of triggered for values from (0) to (10);
  create trigger t after insert on triggered_1 for each row execute function on_change();
  create table defaults (id int default calls_it(), note text);
  create table checked (path text check (set_config('search_path', path, false) is not null));
  create table parent (id int primary key);
  create table dependent (id int references parent on delete cascade, path text default set_config('search_path', 'hr', false));
  create view moving as select set_config('search_path', 'hr', false) as path;
  create view over_moving as select path from moving;
  create view settings as select * from pg_settings;
  create function writes() returns void language plpgsql as $$ begin insert into triggered values (1); end $$;
`;

/** The same in a database of which any statement may run such code. */
const EVERYWHERE = `
  create function "Odd name"() returns void language plpgsql as $$ begin reset all; end $$;
  create function is_odd(int, int) returns boolean language plpgsql as $$ begin execute 'select 1'; return true; end $$;
  create operator public.### (leftarg = int, rightarg = int, function = is_odd);
`;

for (const version of [18, 15] as const) {
  describe(`catalogue of PostgreSQL ${version}`, () => {
    const transport = createSocketTransport();
    let server: PostgresServer;
    let catalogue: Catalogue;
    let opened = 0;
    const oid = async (name: string): Promise<number> =>
      Number((await server.query<{ o: string }>(`select '${name}'::regclass::oid::text as o`))[0]!.o);

    const open = async (): Promise<Upstream> => {
      opened += 1;
      const target = {
        name: "t",
        protocol: "postgres",
        address: { path: server.socketPath },
        database: "postgres",
        user: "svc",
        password: "pw",
        tls: { mode: "disable", ca: undefined, serverName: undefined },
        labels: {},
        connections: { max: 10 },
        record: { results: "digest", headBytes: 0 },
      };
      return dial({ target } as unknown as Grant, transport, { parameters: new Map(), protocolMinor: 0 });
    };

    before(async () => {
      server = await startPostgres({ version });
      await server.execute("create role svc login password 'pw'; create schema \"odd.name\"; create schema svc");
      await server.execute(SCHEMA);
      await server.execute("grant usage on schema hr, other, svc to svc; create table svc.mine (id int)");
      catalogue = createCatalogue(open);
    });
    after(async () => {
      transport.close();
      await server?.stop();
    });

    test("is empty until it was read, and one reading serves all who ask at once", { timeout: 20_000 }, async () => {
      assert.equal(catalogue.loaded, false);
      assert.deepEqual(catalogue.resolve(undefined, "customers", ["public"]), []);
      await Promise.all([catalogue.refresh(), catalogue.refresh(), catalogue.refresh()]);
      assert.equal(opened, 1);
      assert.equal(catalogue.loaded, true);
      assert.equal(catalogue.generation, 1);
    });

    test("names resolve as the server resolves them", () => {
      assert.deepEqual(catalogue.resolve("hr", "customers", undefined), ["hr.customers"]);
      assert.deepEqual(catalogue.resolve("hr", "nothing", ["public"]), []);
      assert.deepEqual(catalogue.resolve(undefined, "customers", ["public", "hr"]), ["public.customers"]);
      assert.deepEqual(catalogue.resolve(undefined, "customers", ["hr", "public"]), ["hr.customers"]);
      // No USAGE on it: the server looks further.
      assert.deepEqual(catalogue.resolve(undefined, "customers", ["closed", "hr"]), ["hr.customers"]);
      assert.deepEqual([...catalogue.resolve(undefined, "customers", undefined)].sort(), [
        "closed.customers",
        "hr.customers",
        "public.customers",
      ]);
      assert.deepEqual(catalogue.resolve(undefined, "pg_class", ["public"]), ["pg_catalog.pg_class"]);
      assert.deepEqual(catalogue.resolve(undefined, "mine", ["$user", "public"]), ["svc.mine"]);
      assert.deepEqual(catalogue.resolve(undefined, "tables", ["public"]), []);
      assert.deepEqual(catalogue.resolve("information_schema", "tables", []), ["information_schema.tables"]);
      assert.deepEqual(catalogue.resolve("odd.name", "x", []), ['"odd.name".x']);
    });

    test("an explicit pg_catalog takes its place in the path", { timeout: 20_000 }, async () => {
      await server.execute("create table public.pg_class (id int)");
      catalogue.invalidate();
      assert.equal(catalogue.loaded, false);
      await catalogue.refresh();
      assert.equal(catalogue.generation, 2);
      assert.deepEqual(catalogue.resolve(undefined, "pg_class", ["public"]), ["pg_catalog.pg_class"]);
      assert.deepEqual(catalogue.resolve(undefined, "pg_class", ["public", "pg_catalog"]), ["public.pg_class"]);
    });

    test("the generation stands while nothing changes", { timeout: 20_000 }, async () => {
      const { generation } = catalogue;
      catalogue.invalidate();
      await catalogue.refresh();
      assert.equal(catalogue.generation, generation);
      assert.equal(catalogue.loaded, true);
    });

    test("column origins, with dropped and system columns", async () => {
      const customers = await oid("public.customers");
      assert.deepEqual(catalogue.columnOrigin(customers, 3), { schema: "public", table: "customers", column: "email", kind: "r" });
      assert.equal(catalogue.columnOrigin(customers, 2), undefined);
      assert.equal(catalogue.columnOrigin(customers, 99), undefined);
      assert.equal(catalogue.columnOrigin(customers, 0), undefined);
      assert.equal(catalogue.columnOrigin(customers, -1)?.column, "ctid");
      assert.equal(catalogue.columnOrigin(4_000_000_000, 1), undefined);
      assert.equal(catalogue.columnOrigin(await oid("public.v1"), 2)?.kind, "v");
    });

    test("masked columns reach views of views and materialized views", async () => {
      const masked = catalogue.maskedRelations(["public.customers.ssn", "*.customers.email"]);
      const customers = await oid("public.customers");
      assert.deepEqual(
        masked.columns.get(customers),
        new Map([
          [3, 1],
          [4, 0],
        ]),
      );
      assert.deepEqual([...masked.columns.get(await oid("hr.customers"))!], [[2, 1]]);
      assert.deepEqual([...masked.relations].sort(), ["hr.customers", "hr.v2", "other.m", "public.customers", "public.v1"]);
      assert.deepEqual([...masked.untraced].sort(), ["hr.v2", "other.m", "public.v1"]);
      assert.equal(catalogue.maskedRelations(["public.customers.ssn", "*.customers.email"]), masked);
      assert.equal(catalogue.maskedRelations(["public.nothing.*"]).relations.size, 0);
      assert.throws(() => catalogue.maskedRelations(["customers.email"]), { code: "SLUICE_POLICY_INVALID" });
    });

    test("partitions: the parent's mask covers children under their own numbers, a child's covers the parent, not its siblings", async () => {
      const [parent, first, second] = [await oid("public.events"), await oid("public.events_1"), await oid("public.events_2")];
      const down = catalogue.maskedRelations(["public.events.email"]);
      assert.deepEqual([...down.columns.get(parent)!], [[2, 0]]);
      assert.deepEqual([...down.columns.get(first)!], [[1, 0]]);
      assert.deepEqual([...down.columns.get(second)!], [[2, 0]]);
      assert.deepEqual([...down.untraced].sort(), ["public.events_rows", "public.events_where"]);
      const up = catalogue.maskedRelations(["public.events_1.email"]);
      assert.deepEqual([...up.columns.get(parent)!], [[2, 0]]);
      assert.equal(up.columns.has(second), false);
      assert.deepEqual([...up.untraced].sort(), ["public.events_rows", "public.events_where"]);
    });

    test("views count where they read a masked column, a row, or such a view; tables with a rule that does", async () => {
      const masked = catalogue.maskedRelations(["public.tracked.secret"]);
      assert.deepEqual([...masked.untraced].sort(), [
        "public.ruled",
        "public.tracked_counts",
        "public.tracked_over",
        "public.tracked_rows",
      ]);
    });

    test("a generated column is masked as what it is computed from, in children too", async () => {
      const masked = catalogue.maskedRelations(["public.tracked.clear", "public.tracked.secret"]);
      assert.deepEqual(
        masked.columns.get(await oid("public.tracked")),
        new Map([
          [2, 1],
          [3, 0],
          [4, 1],
          [5, 0],
        ]),
      );
      assert.equal(masked.columns.get(await oid("public.tracked_child"))?.get(4), 1);
    });

    test("built-in functions", () => {
      assert.equal(catalogue.isBuiltinFunction("lower"), true);
      assert.equal(catalogue.isBuiltinFunction("upper"), false, "public.upper can stand in for it");
      assert.equal(catalogue.isBuiltinFunction("pg_catalog.upper"), true);
      assert.equal(catalogue.isBuiltinFunction("public.upper"), false);
      assert.equal(catalogue.isBuiltinFunction("only_here"), false);
      assert.equal(catalogue.isBuiltinFunction("no_such_function"), false);
    });

    test("code that may change search_path or the role, as far as it is written down", () => {
      const calls = (name: string) => catalogue.mayMove([name], [], false);
      for (const name of ["lower", "pg_catalog.lower", "harmless", "public.harmless", "only_here", "other.only_here"])
        assert.equal(calls(name), false, name);
      for (const name of ["moves", "public.moves", "dynamic", "calls_it", "calls_that", "by_default", "sets", "on_change", "writes"])
        assert.equal(calls(name), true, name);
      assert.equal(calls("made_since"), true, "what is not known may");
      const works = (name: string) => catalogue.mayMove([], [name], false);
      for (const name of ["public.customers", "public.clean", "hr.v2", "public.events", "pg_catalog.pg_class"])
        assert.equal(works(name), false, name);
      for (const name of ["triggered", "triggered_1", "defaults", "checked", "dependent", "parent", "moving", "over_moving", "settings"])
        assert.equal(works(`public.${name}`), true, name);
      assert.equal(works("pg_temp.x"), true, "a temporary view is not read");
      assert.equal(catalogue.mayMove([], [], true), false);
      assert.equal(catalogue.role, "none");
    });

    test("an operator, an odd name, an event trigger", { timeout: 20_000 }, async () => {
      await server.execute("create function f() returns event_trigger language plpgsql as $$ begin execute 'select 1'; end $$");
      await server.execute("create event trigger e on ddl_command_end execute function f()");
      catalogue.invalidate();
      await catalogue.refresh();
      assert.equal(catalogue.mayMove([], [], true), true);
      assert.equal(catalogue.mayMove([], ["public.clean"], false), false);
      await server.execute(EVERYWHERE);
      catalogue.invalidate();
      await catalogue.refresh();
      assert.equal(catalogue.mayMove(["harmless"], [], false), true, "its body might hold the odd name");
      assert.equal(catalogue.mayMove([], ["public.clean"], false), true, "any statement may use the operator");
      await server.execute('drop event trigger e; drop operator public.### (int, int); drop function is_odd, f, "Odd name"');
      catalogue.invalidate();
      await catalogue.refresh();
      assert.equal(catalogue.mayMove(["harmless"], ["public.clean"], true), false);
    });

    test("a change while a reading is under way leads to another one", { timeout: 20_000 }, async () => {
      catalogue.invalidate();
      const before = opened;
      const first = catalogue.refresh();
      while (opened === before) await new Promise((resolve) => setTimeout(resolve, 1));
      await server.execute("create table public.late (id int)");
      catalogue.invalidate();
      await catalogue.refresh();
      await first;
      assert.equal(opened, before + 2);
      assert.equal(catalogue.loaded, true);
      assert.deepEqual(catalogue.resolve(undefined, "late", ["public"]), ["public.late"]);
    });

    test("a target that cannot be read is an error, and what was read before stays", { timeout: 20_000 }, async () => {
      let fails = false;
      const fragile = createCatalogue(async () => {
        if (fails) throw new Error("no connection");
        return open();
      });
      await fragile.refresh();
      fails = true;
      await assert.rejects(fragile.refresh(), { code: "SLUICE_INTERNAL" });
      assert.equal(fragile.loaded, true);
      fragile.invalidate();
      assert.equal(fragile.loaded, false);
      assert.deepEqual(fragile.resolve("hr", "customers", undefined), ["hr.customers"]);
    });

    if (version === 18) {
      test("ten thousand relations", { timeout: 60_000 }, async () => {
        await server.execute(
          "do $$ begin for i in 1..10 loop execute (select string_agg(format('create table other.t%s_%s (a int, b text, c text, d text, e text, f text, email text)', i, k), ';') from generate_series(1, 500) k); commit; end loop; end $$",
        );
        await server.execute(
          "do $$ begin for i in 1..10 loop execute (select string_agg(format('create view other.v%s_%s as select * from other.t%s_%s', i, k, i, k), ';') from generate_series(1, 500) k); commit; end loop; end $$",
        );
        catalogue.invalidate();
        const began = performance.now();
        await catalogue.refresh();
        const read = performance.now() - began;
        const start = performance.now();
        const masked = catalogue.maskedRelations(["other.*.email", "public.customers.ssn"]);
        const found = performance.now() - start;
        assert.ok(masked.relations.size >= 10_000);
        assert.ok(read < 10_000, `read in ${Math.round(read)} ms`);
        assert.ok(found < 500, `found in ${found} ms`);
      });
    }

    test("rows come back whole from the query helper", { timeout: 20_000 }, async () => {
      const rows = await query(await open(), "select i, repeat('x', 5000) from generate_series(1, 2000) i");
      assert.equal(rows.length, 2_000);
      assert.ok(rows.every((row, i) => row[0] === String(i + 1) && row[1]!.length === 5_000));
    });
  });
}
