import assert from "node:assert/strict";
import { after, before, describe, test } from "node:test";
import { bind, describe as describeMessage, execute, flush, parse, query, sync } from "../../protocols/postgres/messages.ts";
import { postgresTarget } from "../helpers/gateway.ts";
import { startPgBouncer } from "../helpers/pgbouncer.ts";
import { waitFor } from "../helpers/processes.ts";
import { errors, type RawClient, rows, states, tags, types } from "./raw.ts";
import { rawAt, startWorld, VERSIONS, type World } from "./world.ts";

// What a refused statement does to the statements around it, and what names mean when they are decided.

const SETUP = `
create table customers (id int primary key, name text);
insert into customers values (1, 'public');
create schema other;
create table other.customers (id int primary key, name text);
insert into other.customers values (1, 'other');
create table log (what text);
create table secret (what text);
insert into secret values ('hidden');
create role elsewhere;
`;
const rules = (extra = ""): string => `version: 1
rules:
  - { name: everything-else, effect: allow }
  - { name: no-secret, resources: [public.secret], effect: deny, message: Nobody reads this. }
  - { name: no-customers, resources: [public.customers], actions: [sql:delete, sql:update], effect: deny }
  - { name: not-at-13, actions: [sql:insert], resources: [public.log], when: "'13' in operation.parameters", effect: deny }
${extra}`;

let world: World;
before(async () => {
  world = await startWorld({ setup: SETUP, policy: rules() });
});
after(() => world.stop());

const extended = (sql: string, parameters: readonly string[] = []): Buffer =>
  Buffer.concat([parse("", sql), bind("", "", parameters), execute("")]);

for (const version of VERSIONS) {
  describe(`PostgreSQL ${version}`, () => {
    const open = async (): Promise<RawClient> => rawAt(await world.through(version));
    const logged = async () => (await world.server(version).query("select what from log order by what")).map((row) => row.what);
    const clear = () =>
      world.server(version).execute("truncate log; truncate other.customers; insert into other.customers values (1, 'other')");
    const customers = async () => (await world.server(version).query("select name from customers")).map((row) => row.name);

    test("alone: SQLSTATE, message, detail, hint; the session goes on", { timeout: 30_000 }, async () => {
      const client = await open();
      for (const frames of [await client.query("select * from secret"), await client.ask([extended("select * from secret"), sync()])]) {
        assert.equal(types(frames), "EZ");
        const error = errors(frames)[0];
        assert.equal(error?.S, "ERROR");
        assert.equal(error?.V, "ERROR");
        assert.equal(error?.C, "42501");
        assert.match(error?.M ?? "", /^Sluice: Nobody reads this\.$/);
        assert.match(error?.D ?? "", /^Decided by rule "no-secret" of policy [0-9a-f]{16}; request [0-9a-f]+\/\d+\.$/);
        assert.equal(states(frames), "I");
      }
      assert.deepEqual(rows(await client.query("select 'fine'")), [["fine"]]);
      client.close();
    });

    test("in a transaction block: the block fails, upstream too", { timeout: 30_000 }, async () => {
      await clear();
      const client = await open();
      await client.query("begin");
      await client.query("insert into log values ('before')");
      assert.equal(states(await client.query("select * from secret")), "E");
      assert.equal(errors(await client.query("select 1"))[0]?.C, "25P02");
      assert.deepEqual(tags(await client.query("commit")), ["ROLLBACK"]);
      assert.deepEqual(await logged(), []);
      await client.query("begin; savepoint s; insert into log values ('kept')");
      await client.query("savepoint t");
      assert.equal(states(await client.query("select * from secret")), "E");
      await client.query("rollback to t");
      assert.deepEqual(tags(await client.query("commit")), ["COMMIT"]);
      assert.deepEqual(await logged(), ["kept"]);
      client.close();
    });

    test("in a multi-statement query: nothing of it happens", { timeout: 30_000 }, async () => {
      await clear();
      const client = await open();
      for (const text of [
        "insert into log values ('a'); select * from secret; insert into log values ('b')",
        "insert into log values ('c'); begin; insert into log values ('d'); commit; select * from secret",
        "select * from secret; insert into log values ('e')",
      ]) {
        assert.equal(types(await client.query(text)), "EZ");
      }
      assert.deepEqual(await logged(), []);
      client.close();
    });

    test("in the middle of a pipeline: the implicit transaction rolls back, answers keep their order, Sync answers", {
      timeout: 30_000,
    }, async () => {
      await clear();
      const client = await open();
      const frames = await client.ask(
        [
          extended("insert into log values ('one')"),
          extended("select * from secret"),
          extended("insert into log values ('two')"),
          sync(),
          extended("insert into log values ('three')"),
          sync(),
          extended("select * from secret"),
          sync(),
          query("insert into log values ('four')"),
        ],
        4,
      );
      assert.equal(types(frames), "12CEZ12CZEZCZ");
      assert.deepEqual(await logged(), ["four", "three"]);
      // Where only Execute can tell, the same.
      const later = await client.ask([
        extended("insert into log values ($1)", ["12"]),
        extended("insert into log values ($1)", ["13"]),
        extended("insert into log values ('never')"),
        sync(),
      ]);
      assert.equal(types(later), "12C12EZ");
      assert.equal(errors(later)[0]?.C, "42501");
      assert.deepEqual(await logged(), ["four", "three"]);
      client.close();
    });

    test("in a pipeline inside an explicit block", { timeout: 30_000 }, async () => {
      await clear();
      const client = await open();
      const frames = await client.ask([
        extended("begin"),
        extended("insert into log values ('x')"),
        extended("select * from secret"),
        extended("commit"),
        sync(),
      ]);
      assert.equal(types(frames), "12C12CEZ");
      assert.equal(states(frames), "E");
      assert.deepEqual(tags(await client.query("commit")), ["ROLLBACK"]);
      assert.deepEqual(await logged(), []);
      client.close();
    });

    test("Flush, and messages that come after the refusal was read", { timeout: 30_000 }, async () => {
      await clear();
      const client = await open();
      client.send(parse("", "select * from secret"), flush());
      assert.equal(types(await client.until("E")), "E");
      client.send(bind("", ""), execute(""), extended("insert into log values ('late')"), query("insert into log values ('later')"));
      assert.equal(types(await client.ask([sync()])), "Z");
      assert.deepEqual(await logged(), []);
      assert.deepEqual(tags(await client.query("insert into log values ('now')")), ["INSERT 0 1"]);
      client.close();
    });

    test("a refused named Parse leaves no statement of that name", { timeout: 30_000 }, async () => {
      const client = await open();
      assert.equal(types(await client.ask([parse("n", "select * from secret"), describeMessage("S", "n"), sync()])), "EZ");
      for (const message of [bind("", "n"), describeMessage("S", "n")]) {
        assert.equal(errors(await client.ask([message, sync()]))[0]?.C, "26000");
      }
      assert.equal(types(await client.ask([parse("n", "select 1"), bind("", "n"), execute(""), sync()])), "12DCZ");
      // Refused under a name that is in use: the earlier statement stays.
      assert.equal(types(await client.ask([parse("n", "select * from secret"), sync()])), "EZ");
      assert.deepEqual(rows(await client.ask([bind("", "n"), execute(""), sync()])), [["1"]]);
      client.close();
    });

    test("SQL PREPARE, EXECUTE, DECLARE, FETCH, EXPLAIN, CTEs, DO: no way around", { timeout: 30_000 }, async () => {
      const client = await open();
      const hidden: string[] = [];
      for (const text of [
        "prepare p as select * from secret",
        "execute p",
        "begin; declare k cursor for select * from secret; fetch all from k; commit",
        "begin",
        "declare k cursor for select * from secret",
        "fetch all from k",
        "rollback",
        "explain analyze select * from secret",
        "with x as (select * from secret) select * from x",
        "select (select what from secret)",
        "select * from customers where exists (select 1 from public.secret)",
        "select * from only secret",
        'select * from "secret"',
        "select * from SECRET",
        "select * from public . secret",
        'select * from U&"\\0073ecret"',
        "table secret",
        "copy secret to stdout",
        "copy (table secret) to stdout",
        "create table copy_of as table secret",
        "insert into log table secret",
        "create view v as table secret",
        "with d as (delete from secret returning *) select * from d",
        "truncate secret",
        "drop table secret",
        "lock table secret",
        "analyze secret",
        "comment on table secret is 'x'",
        "grant select on secret to public",
        "alter table secret rename to open",
        "select * from secret s join customers c on true",
        "merge into secret s using customers c on false when not matched then insert values ('x')",
        "values ((select max(what) from secret))",
        "set role elsewhere",
        "set session authorization elsewhere",
        "reset role; select * from secret",
        "select set_config('role', 'elsewhere', false)",
        "select query_to_xml('table secret', true, true, '')",
        "set standard_conforming_strings = off",
        "set client_encoding = 'sjis'",
      ]) {
        const frames = await client.query(text);
        if (JSON.stringify(rows(frames)).includes("hidden") || frames.some((frame) => frame.type === "d")) hidden.push(text);
        const sqlState = errors(frames)[0]?.C;
        const fine = ["begin", "rollback", "prepare p as select * from secret"].includes(text);
        if (!fine && sqlState === undefined) hidden.push(`${text}: carried out`);
        if (states(frames) !== "I" && text !== "begin")
          await client
            .query("rollback")
            .then(() => (text.startsWith("declare") || text.startsWith("fetch") ? client.query("begin") : undefined));
      }
      assert.deepEqual(hidden, []);
      assert.deepEqual(await world.server(version).query("select what from secret"), [{ what: "hidden" }]);
      client.close();
    });

    test("search_path: what a name means at each moment", { timeout: 60_000 }, async () => {
      // Updates of public.customers are refused, those of other.customers are not; `expected` says which one the server means.
      const scripts: readonly (readonly [readonly string[], "public" | "other"])[] = [
        [[], "public"],
        [["set search_path = other"], "other"],
        [["set search_path = other, public"], "other"],
        [["set search_path = public, other"], "public"],
        [["set search_path to other", "reset search_path"], "public"],
        [["set search_path to other", "reset all"], "public"],
        [["set search_path to other", "discard all"], "public"],
        [["set search_path to default"], "public"],
        [["set schema 'other'"], "other"],
        [["select set_config('search_path', 'other', false)"], "other"],
        [["begin", "set search_path = other", "rollback"], "public"],
        [["begin", "set search_path = other", "commit"], "other"],
        [["begin", "set local search_path = other", "commit"], "public"],
        [["begin", "set local search_path = other"], "other"],
        [["begin", "set search_path = other", "select 1/0", "rollback"], "public"],
        [["set local search_path = other"], "public"],
        [["set search_path = other", "begin", "set search_path = public", "rollback"], "other"],
        [["set search_path = other", "begin", "savepoint s", "set search_path = public", "rollback to s"], "other"],
        [["begin", "savepoint s", "set search_path = other", "rollback to s"], "public"],
        [["begin", "savepoint s", "set search_path = other", "release s", "commit"], "other"],
        [["set search_path = other; select 1/0"], "public"],
        [["begin; set search_path = other; rollback"], "public"],
        [["begin; set search_path = other; commit"], "other"],
        [["begin", "set search_path = other", "commit; insert into public.log values ('x')"], "other"],
        [["begin", "set search_path = other", "commit; begin", "rollback"], "other"],
        [["begin", "set search_path = other", "commit and chain", "rollback"], "other"],
        [["begin", "set search_path = other", "rollback and chain", "commit"], "public"],
        [["set search_path = other", "begin", "set search_path = public", "commit; insert into public.log values ('x')"], "public"],
        [["set search_path = other", "begin", "set search_path = public", "commit and chain", "rollback"], "public"],
        [["set search_path = other", "begin", "set search_path = public", "commit; begin", "rollback"], "public"],
        [["set search_path = other", "set search_path = nowhere, public"], "public"],
        [["create temp table customers (id int, name text)", "drop table pg_temp.customers"], "public"],
        [["set search_path = other", "select nothing; set search_path = public"], "other"],
      ];
      const wrong: string[] = [];
      for (const messages of [(sql: string) => [query(sql)], (sql: string) => [extended(sql), sync()]]) {
        for (const [script, means] of scripts) {
          await clear();
          const client = await open();
          for (const sql of script) await client.ask(messages(sql));
          // A multi-statement text does not go into a Parse: then the script is another one.
          const known = messages("x").length === 1 || script.every((sql) => !sql.includes(";"));
          const frames = await client.ask(messages("update customers set name = 'changed'"));
          if ((await customers()).includes("changed")) wrong.push(`${script.join(" / ")}: public.customers was changed`);
          await client.query("commit");
          if ((await customers()).includes("changed")) wrong.push(`${script.join(" / ")}: public.customers was changed at commit`);
          // Where the value is not known for certain, the stricter reading may refuse what means other.customers.
          const uncertain = version === 15 && script.some((sql) => /;|chain|rollback to|set_config/.test(sql));
          if (known && means === "other" && !uncertain && errors(frames).length > 0)
            wrong.push(`${script.join(" / ")}: ${errors(frames)[0]?.M}`);
          await world.server(version).execute("update customers set name = 'public'");
          client.close();
        }
      }
      assert.deepEqual(wrong, []);
    });

    test("search_path of the startup message", { timeout: 60_000 }, async () => {
      await clear();
      const to = await world.through(version);
      // As Prisma sends it. `means` is the customers table that the server takes, once the script has run.
      const cases: readonly (readonly [Readonly<Record<string, string>>, readonly string[], "public" | "other"])[] = [
        [{ search_path: '"other"' }, [], "other"],
        [{ search_path: "other, public" }, [], "other"],
        [{ SEARCH_path: "other" }, [], "other"],
        [{ search_path: "public, other" }, [], "public"],
        [{ search_path: '"$user", public' }, [], "public"],
        [{ search_path: "nowhere,public" }, ["select 1"], "public"],
        [{ search_path: "other" }, ["set search_path = public"], "public"],
        [{ search_path: "other" }, ["set search_path = public", "reset search_path"], "other"],
        [{ search_path: "other" }, ["set search_path = public", "discard all"], "other"],
        [{ search_path: "other" }, ["begin", "set search_path = public", "rollback"], "other"],
        [{ search_path: "public" }, ["set search_path = other", "reset all"], "public"],
      ];
      for (const messages of [(sql: string) => [query(sql)], (sql: string) => [extended(sql), sync()]]) {
        for (const [parameters, script, means] of cases) {
          const client = await rawAt(to, { parameters });
          for (const sql of script) await client.ask(messages(sql));
          const why = JSON.stringify([parameters, script]);
          const [error] = errors(await client.ask(messages("update customers set name = 'changed'")));
          assert.equal(error?.C, means === "public" ? "42501" : undefined, `${why} ${error?.M}`);
          assert.deepEqual(
            rows(await client.ask(messages("select name from customers"))),
            [[means === "public" ? "public" : "changed"]],
            why,
          );
          client.close();
          await clear();
        }
      }
      // A vertical tab is white space to PostgreSQL 16 and later, and before a part of the name: here it stands for either.
      for (const path of ["\vother, public", "other\v, public"]) {
        const byParameter = await rawAt(to, { parameters: { search_path: path } });
        const byFunction = await rawAt(to);
        await byFunction.query(`select set_config('search_path', '${path}', false)`);
        for (const client of [byParameter, byFunction]) {
          assert.equal(errors(await client.query("update customers set name = 'changed'"))[0]?.C, "42501", JSON.stringify(path));
          client.close();
        }
      }
      assert.deepEqual(await customers(), ["public"]);
      const { stdout } = await world.gateway.cli(["audit", "tail", "--format", "json"]);
      assert.match(stdout, /"action":"connect","searchPath":"nowhere,public","rule":"everything-else"/);
      for (const [parameters, code] of [
        [{ search_path: "other", SEARCH_PATH: "public" }, "08P01"],
        [{ search_path: "a,,b" }, undefined],
      ] as const) {
        const client = await rawAt(to, { parameters });
        assert.ok(client.ended && (code === undefined || errors(client.startup)[0]?.C === code), JSON.stringify(errors(client.startup)));
      }
    });

    test("search_path of the startup message that a pooler leaves out", { timeout: 60_000 }, async () => {
      const bouncer = await startPgBouncer({ upstream: world.server(version), ignoreParameters: ["search_path"] });
      const name = `pooled${version}`;
      const pooled = postgresTarget(name, world.server(version), { address: `127.0.0.1:${bouncer.port}` });
      try {
        world.gateway.writeConfig({ targets: [...VERSIONS.map((each) => postgresTarget(`pg${each}`, world.server(each))), pooled] });
        const to = { ...(await world.through(version)), database: name };
        let client: RawClient | undefined;
        const opens = async (parameters: Readonly<Record<string, string>>) => {
          client = await rawAt(to, { parameters });
          return !client.ended;
        };
        await waitFor("the new target", () => opens({ search_path: "other" }));
        for (const parameters of [{ search_path: "other" }, { search_path: '"other", public' }]) {
          assert.ok(await opens(parameters));
          const [error] = errors((await client?.query("update customers set name = 'changed'")) ?? []);
          assert.equal(error?.C, "42501", `${JSON.stringify(parameters)} ${error?.M}`);
          client?.close();
        }
        assert.deepEqual(await customers(), ["public"]);
      } finally {
        await bouncer.stop();
      }
    });

    test("search_path of the startup message where SET may not set it", { timeout: 60_000 }, async () => {
      const refusing = '  - { name: no-path, actions: [set], resources: ["setting:search_path"], effect: deny }\n';
      await world.reload(rules(refusing));
      try {
        const client = await rawAt(await world.through(version), { parameters: { search_path: "other" } });
        assert.ok(client.ended);
        assert.match(errors(client.startup)[0]?.M ?? "", /search_path is not let through/);
        const plain = await open();
        assert.equal(errors(await plain.query("set search_path = other"))[0]?.C, "42501");
        plain.close();
      } finally {
        await world.reload(rules());
      }
    });

    test("search_path by pipelines that fail half way", { timeout: 30_000 }, async () => {
      const scripts = [
        [parse("", "select nothing"), query("set search_path = other"), sync()],
        [parse("", "select nothing"), extended("set search_path = other"), sync()],
        [extended("set search_path = other"), extended("select 1/0"), sync()],
        [extended("set search_path = other"), extended("select * from secret"), sync()],
        [extended("begin"), extended("set search_path = other"), extended("rollback"), sync()],
      ];
      for (const script of scripts) {
        const client = await open();
        const wanted = script.filter((message) => message.length === 5 && message[0] === 0x53).length;
        await client.ask(script, wanted);
        await client.query("update customers set name = 'changed'");
        assert.deepEqual(await customers(), ["public"]);
        client.close();
      }
    });

    test("ALTER ROLE … SET search_path holds for the sessions to come", { timeout: 30_000 }, async () => {
      await clear();
      const first = await open();
      assert.deepEqual(tags(await first.query("alter role postgres set search_path = other")), ["ALTER ROLE"]);
      const second = await open();
      assert.deepEqual(rows(await second.query("select name from customers")), [["other"]]);
      assert.deepEqual(tags(await second.query("update customers set name = 'fine'")), ["UPDATE 1"]);
      assert.deepEqual(
        errors(await first.query("update customers set name = 'changed'"))[0]?.C,
        "42501",
        "the session that set it keeps its own",
      );
      await first.query("alter role postgres reset search_path");
      const third = await open();
      assert.equal(errors(await third.query("update customers set name = 'changed'"))[0]?.C, "42501");
      for (const client of [first, second, third]) client.close();
    });

    test("temporary tables: a name that may mean either is refused, one that cannot is not", { timeout: 30_000 }, async () => {
      const client = await open();
      await client.query("create temp table customers (id int, name text)");
      assert.deepEqual(tags(await client.query("update pg_temp.customers set name = 'x'")), ["UPDATE 0"]);
      assert.equal(errors(await client.query("update public.customers set name = 'changed'"))[0]?.C, "42501");
      await client.query("update customers set name = 'changed'");
      await client.query("drop table pg_temp.customers");
      await client.query("update customers set name = 'changed'");
      assert.deepEqual(await customers(), ["public"]);
      await client.query("create temp table mine (a int)");
      assert.deepEqual(tags(await client.query("insert into mine values (1); select * from mine")), ["INSERT 0 1", "SELECT 1"]);
      client.close();
    });

    test("create, rename, drop, and use at once, in and out of transactions", { timeout: 60_000 }, async () => {
      const client = await open();
      for (const [begin, end] of [
        ["select 1", "select 1"],
        ["begin", "commit"],
      ] as const) {
        await client.query(begin);
        assert.deepEqual(tags(await client.query("create table fresh (a int)")), ["CREATE TABLE"]);
        assert.deepEqual(tags(await client.query("insert into fresh values (1)")), ["INSERT 0 1"]);
        assert.deepEqual(tags(await client.query("alter table fresh rename to newer")), ["ALTER TABLE"]);
        assert.deepEqual(rows(await client.ask([extended("select * from newer"), sync()])), [["1"]]);
        assert.equal(errors(await client.query("savepoint s"))[0]?.C, begin === "begin" ? undefined : "25P01");
        assert.equal(errors(await client.query("select * from fresh"))[0]?.C, "42P01");
        await client.query("rollback to s");
        assert.deepEqual(tags(await client.query("drop table newer")), ["DROP TABLE"]);
        await client.query(end);
      }
      // A new table of a name that a rule speaks of.
      await world.server(version).execute("drop table if exists public.ledger");
      await client.query("create table public.ledger (a int)");
      assert.deepEqual(tags(await client.query("insert into ledger values (1)")), ["INSERT 0 1"]);
      const other = await open();
      assert.deepEqual(rows(await other.query("select * from ledger")), [["1"]]);
      await client.query("drop table ledger");
      assert.equal(errors(await other.query("select * from ledger"))[0]?.C, "42P01");
      client.close();
      other.close();
    });

    test("a policy that is tightened: prepared statements, open cursors and the next transaction", { timeout: 30_000 }, async () => {
      const client = await open();
      await client.ask([parse("s", "select name from other.customers"), sync()]);
      await client.query("prepare q as select name from other.customers");
      assert.equal(rows(await client.ask([bind("", "s"), execute(""), sync()])).length, 1);
      assert.equal(rows(await client.query("execute q")).length, 1);
      await client.query("begin; declare k cursor for select name from other.customers");
      try {
        await world.reload(rules("  - { name: closed, resources: [other.customers], effect: deny }\n"));
        assert.equal(errors(await client.query("fetch all from k"))[0]?.C, "42501");
        await client.query("rollback");
        const frames = await client.ask([bind("", "s"), execute(""), sync()]);
        assert.equal(types(frames), "2EZ");
        assert.match(errors(frames)[0]?.D ?? "", /rule "closed"/);
        assert.equal(errors(await client.query("execute q"))[0]?.C, "42501");
      } finally {
        await world.reload(rules());
      }
      assert.equal(rows(await client.ask([bind("", "s"), execute(""), sync()])).length, 1);
      client.close();
    });
  });
}
