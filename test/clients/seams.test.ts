import assert from "node:assert/strict";
import { after, before, describe, test } from "node:test";
import { bind, execute, flush, parse, query, sync } from "../../protocols/postgres/messages.ts";
import { postgresTarget } from "../helpers/gateway.ts";
import { errors, type Frame, type RawClient, rows, states, tags, types } from "./raw.ts";
import { rawAt, startWorld, VERSIONS, type World } from "./world.ts";

// Where parts of Sluice meet: limits that cut what is masked, questions of the gateway's own between messages without Sync, a policy
// that changes while results are on their way.

const SETUP = `
create role boss superuser;
create table people (id int primary key, email text, note text);
insert into people select n, 'canary-' || n, 'note ' || n from generate_series(1, 40) n;
create table log (what text);
`;
const RULES = `version: 1
rules:
  - { name: all, effect: allow }
`;
const MASKS = `masks:
  - { name: email, who: { groups: [masked] }, columns: [public.people.email] }
`;
const LIMITS = `limits:
  - { name: ten-rows, who: { groups: [ten] }, rows: 10, per: 1h }
  - { name: one-session, who: { groups: [single] }, sessions: 1 }
`;
const POLICY = RULES + MASKS + LIMITS;
const SET_ROLE = "do $$ begin perform set_config('role', 'boss', false); end $$";
const NOTHING = "do $$ begin end $$";
const extended = (sql: string): Buffer => Buffer.concat([parse("", sql), bind("", ""), execute("", 0)]);
const whole = (frames: readonly Frame[]): string => Buffer.concat(frames.map(({ body }) => body)).toString("latin1");
const count = (frames: readonly Frame[], type: string): number => frames.filter((frame) => frame.type === type).length;

let world: World;
before(async () => {
  world = await startWorld({
    setup: SETUP,
    policy: POLICY,
    targets: (servers) => servers.map((server) => postgresTarget(`down${server.version}`, server, { address: "127.0.0.1:1" })),
  });
});
after(() => world?.stop());

let users = 0;
for (const version of VERSIONS) {
  describe(`PostgreSQL ${version}`, () => {
    const destination = async (groups: readonly string[], user = `user${users++}`) => ({
      ...(await world.through(version)),
      password: await world.issuer.token({ sub: user, groups: [...groups] }),
    });
    const open = async (...groups: readonly string[]): Promise<RawClient> => rawAt(await destination(groups));

    test("what was sent along with DO does not run under another role", { timeout: 30_000 }, async () => {
      for (const behind of [query("select current_user"), Buffer.concat([extended("select current_user"), sync()])]) {
        for (const first of [query(SET_ROLE), Buffer.concat([extended(SET_ROLE), sync()])]) {
          for (const groups of [[], ["ten"]]) {
            const client = await open(...groups);
            client.send(first, behind);
            const frames = await client.closed();
            assert.match(errors(frames)[0]?.["M"] ?? "", /role changed to boss in this session/);
            assert.deepEqual(rows(frames), []);
          }
        }
      }
    });

    test("nor what comes behind a simple query that no Sync goes before", { timeout: 30_000 }, async () => {
      for (const groups of [[], ["ten"]]) {
        const client = await open(...groups);
        client.send(extended("select 1"), flush());
        await client.until("C");
        assert.deepEqual(errors(await client.query(SET_ROLE)), []);
        client.send(query("select current_user"));
        const frames = await client.closed();
        assert.match(errors(frames)[0]?.["M"] ?? "", /role changed to boss in this session/);
        assert.deepEqual(rows(frames), []);
      }
    });

    test("asking there ends nothing that is open", { timeout: 30_000 }, async () => {
      await world.server(version).execute("truncate log");
      const client = await open();
      client.send(extended("insert into log values ('piped')"), flush());
      await client.until("C");
      // Servers differ in whether a simple query ends the implicit transaction before it.
      const isOpen = states(await client.query(NOTHING)) === "T";
      const asked = await client.query("select 1");
      assert.equal(types(asked), "TDCZ");
      assert.equal(states(asked), isOpen ? "T" : "I");
      assert.equal(types(await client.query("select 1/0")).replace("T", ""), "EZ");
      assert.deepEqual(
        (await world.server(version).query("select what from log")).map((row) => row.what),
        isOpen ? [] : ["piped"],
      );
      assert.equal(types(await client.ask([extended("select 1"), sync()])), "12DCZ");
      assert.equal(types(await client.ask([query(NOTHING), extended("select 1"), sync()], 2)), "CZ12DCZ");
      client.close();
    });

    test("a limit cuts masked COPY: nothing gets past the mask, and the next COPY begins anew", { timeout: 60_000 }, async () => {
      for (const text of [
        "copy people to stdout",
        "copy people (email) to stdout (format binary)",
        "copy people to stdout (format csv, header, force_quote *)",
        "select 1; copy people to stdout; select email from people",
        "copy people (id) to stdout; copy people (email) to stdout",
        "insert into log values ('x'); copy people to stdout; copy people (email) to stdout",
        "begin; select email from people limit 3; copy people to stdout",
      ]) {
        const client = await open("ten", "masked");
        const frames = await client.query(text);
        assert.match(types(frames), /EZ$/, text);
        assert.ok(count(frames, "D") + count(frames, "d") <= 11, text);
        assert.doesNotMatch(whole(frames), /canary/, text);
        if (text.startsWith("begin")) assert.deepEqual(tags(await client.query("rollback")), ["ROLLBACK"]);
        await world.reload(POLICY.replace("rows: 10,", `rows: ${1_000 + users},`));
        const next = await client.query("copy people (email) to stdout; select email from people; copy people to stdout (format binary)");
        assert.match(types(next).replaceAll(/d+|D+/g, "+"), /^H\+cCT\+CH\+cCZ$/, text);
        assert.doesNotMatch(whole(next), /canary/, text);
        await world.reload(POLICY);
        client.close();
      }
    });

    test("what frames the rows of COPY is no row", { timeout: 30_000 }, async () => {
      for (const groups of [["ten"], ["ten", "masked"]]) {
        for (const options of ["format binary", "format csv, header", "format text, header"]) {
          const client = await open(...groups);
          await client.query("create temp table few as select id from people limit 10");
          const table = groups.includes("masked") ? "(select id from few)" : "few";
          const frames = await client.query(`copy ${table} to stdout (${options})`);
          assert.match(types(frames).replace(/d+/, "+"), /^H\+cCZ$/, options);
          assert.match(types(await client.query("select 1")), /^EZ$/);
          client.close();
        }
      }
    });

    test("a result goes through the masks under which it was asked for", { timeout: 60_000 }, async () => {
      for (const ask of [(sql: string) => [query(sql)], (sql: string) => [extended(sql), sync()]]) {
        const client = await open("masked");
        client.send(...ask("select pg_sleep(1.5), email from people limit 2"));
        await world.reload(RULES);
        const under = await client.until("Z");
        assert.deepEqual(
          rows(under).map((row) => row[1]),
          ["[REDACTED]", "[REDACTED]"],
        );
        assert.equal(rows(await client.ask(ask("select email from people where id = 1")))[0]?.[0], "canary-1");
        client.send(...ask("select pg_sleep(1.5), email from people where id = 1"));
        await world.reload(POLICY);
        assert.equal(rows(await client.until("Z"))[0]?.[1], "canary-1");
        assert.equal(rows(await client.ask(ask("select email from people where id = 1")))[0]?.[0], "[REDACTED]");
        client.close();
      }
    });

    test("prepared, bound and declared without a mask, carried out under it", { timeout: 30_000 }, async () => {
      await world.reload(RULES + LIMITS);
      const client = await open("masked");
      await client.ask([parse("rows", "select email from people limit 2"), parse("copy", "copy people (email) to stdout"), sync()]);
      await client.ask([parse("hidden", "select upper(email) from people"), sync()]);
      await client.query("prepare named as select email from people limit 2");
      await client.query("begin");
      await client.query("declare cur cursor for select email from people");
      await client.ask([bind("portal", "rows"), execute("portal", 1), sync()]);
      await world.reload(POLICY);
      const frames = [
        ...(await client.ask([execute("portal", 0), sync()])),
        ...(await client.query("fetch 2 from cur")),
        ...(await client.query("execute named")),
        ...(await client.ask([bind("", "rows"), execute("", 0), sync()])),
        ...(await client.ask([bind("", "copy"), execute("", 0), sync()])),
      ];
      assert.deepEqual(errors(frames), []);
      assert.deepEqual([count(frames, "D"), count(frames, "d")], [7, 40]);
      assert.doesNotMatch(whole(frames), /canary/);
      assert.match(errors(await client.ask([bind("", "hidden"), execute("", 0), sync()]))[0]?.["M"] ?? "", /used inside an expression/);
      client.close();
    });

    test("places of sessions that never came to be are free again", { timeout: 30_000 }, async () => {
      const user = `user${users++}`;
      const to = await destination(["single"], user);
      for (let attempt = 0; attempt < 3; attempt += 1) {
        const refused = await rawAt({ ...to, database: `down${version}` });
        assert.match(errors(refused.startup)[0]?.["M"] ?? "", /cannot be reached|refused|unreachable/i);
      }
      const client = await rawAt(to);
      assert.equal(types(await client.query("select 1")), "TDCZ");
      const second = await rawAt(to);
      assert.match(errors(second.startup)[0]?.["M"] ?? "", /limit "one-session" allows 1 session at one time/);
      client.close();
    });
  });
}
