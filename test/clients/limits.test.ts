import assert from "node:assert/strict";
import { after, before, describe, test } from "node:test";
import { setTimeout as sleep } from "node:timers/promises";
import pg from "pg";
import { bind, close, execute, flush, parse, query, sync } from "../../protocols/postgres/messages.ts";
import { psql } from "../helpers/clients.ts";
import { waitFor } from "../helpers/processes.ts";
import { auditEvents, liveSessions, metric } from "../resilience/rig.ts";
import { errors, type RawClient, rawCancel, states, tags, types } from "./raw.ts";
import { rawAt, startWorld, VERSIONS, type World } from "./world.ts";

// Limits of the policy: results cut in their middle, the transaction an error would leave, and what all sessions share.

const SETUP = `
create table numbers (n int primary key, filler text);
insert into numbers select n, repeat('x', 100) from generate_series(1, 20000) n;
create table log (what text);
create table parents (id int primary key);
create table children (id int references parents deferrable initially deferred);
create function noisy(n int) returns int language plpgsql as $$ begin insert into log values ('noisy'); return n; end $$;
`;
const policyOf = (...limits: string[]): string => `version: 1
rules:
  - { name: all, effect: allow }
masks:
  - { name: filler, who: { groups: [masked] }, columns: [public.numbers.filler] }
limits:
${limits.map((limit) => `  - ${limit}`).join("\n")}
`;
const POLICY = policyOf(
  "{ name: ten-rows, who: { groups: [ten] }, rows: 10, per: 1h }",
  "{ name: many-rows, who: { groups: [many] }, rows: 10000, per: 1h }",
  "{ name: some-bytes, who: { groups: [bytes] }, bytes: 2kB, per: 1h }",
  "{ name: short, who: { groups: [short] }, rows: 10, per: 1s }",
  "{ name: few, who: { groups: [few] }, statements: 3, per: 1h }",
  "{ name: one-session, who: { groups: [single] }, sessions: 1 }",
  "{ name: masked-bytes, who: { groups: [masked] }, bytes: 2kB, per: 1h }",
  "{ name: watched, mode: observe, who: { groups: [watched] }, rows: 5, statements: 2, per: 1h }",
);

let world: World;
before(async () => {
  world = await startWorld({ setup: SETUP, policy: POLICY, config: { workers: 2 } });
});
after(() => world.stop());

let users = 0;
const COPY_DONE = Buffer.from([0x63, 0, 0, 0, 4]);
function copyData(text: string): Buffer {
  const message = Buffer.alloc(5 + Buffer.byteLength(text));
  message.write("d", 0, "latin1");
  message.writeInt32BE(4 + Buffer.byteLength(text), 1);
  message.write(text, 5);
  return message;
}
const extended = (sql: string, maxRows = 0): Buffer => Buffer.concat([parse("", sql), bind("", ""), execute("", maxRows)]);

for (const version of VERSIONS) {
  describe(`PostgreSQL ${version}`, () => {
    /** Somebody new, who has used nothing so far. */
    const destination = async (group: string, user = `user${users++}`) => {
      const password = await world.issuer.token({ sub: user, groups: [group] });
      return { ...(await world.through(version)), password };
    };
    const open = async (group: string, user?: string): Promise<RawClient> => rawAt(await destination(group, user));
    const logged = async () => (await world.server(version).query("select what from log")).map((row) => row.what);
    const clear = () => world.server(version).execute("truncate log; truncate children, parents");
    const data = (frames: readonly { type: string }[]) => frames.filter(({ type }) => type === "D").length;

    test("exactly so many rows, then an error; what comes later is refused before it runs; the rest works", {
      timeout: 30_000,
    }, async () => {
      const client = await open("ten");
      const frames = await client.query("select n from numbers order by n");
      assert.equal(types(frames), "TDDDDDDDDDDEZ");
      const [error] = errors(frames);
      assert.equal(error?.["C"], "53400");
      assert.equal(error?.["S"], "ERROR");
      assert.match(
        error?.["M"] ?? "",
        /^Sluice: limit "ten-rows" does not allow more: 10 of 10 rows within 1 h are used; it frees up in 1 h[^,]*, at 20.*Z$/,
      );
      assert.match(error?.["D"] ?? "", /rule "limit:ten-rows"/);
      assert.match(error?.["H"] ?? "", /^10 rows of this result came before\.$/);
      assert.equal(states(frames), "I");
      assert.equal(types(await client.query("select 1")), "EZ");
      assert.equal(types(await client.ask([extended("select 1"), sync()])), "12EZ");
      assert.deepEqual(tags(await client.query("insert into log values ('x')")), ["INSERT 0 1"]);
      assert.equal(types(await client.query("begin")), "CZ");
      const refused = await client.query("select 1");
      assert.equal(types(refused) + states(refused), "EZE");
      assert.equal(states(await client.query("rollback")), "I");
      client.close();
    });

    test("the rows of several statements and sessions add up, in every worker", { timeout: 60_000 }, async () => {
      const user = `user${users++}`;
      const clients = await Promise.all(Array.from({ length: 6 }, () => open("many", user)));
      const live = (await liveSessions(world.gateway)).filter((session) => session.user.endsWith(user));
      const workers = new Set(live.map(({ worker }) => worker));
      assert.ok(workers.size >= 2, `sessions in ${workers.size} workers`);
      const results = await Promise.all(clients.map((client) => client.query("select n, filler from numbers limit 4000")));
      assert.equal(
        results.reduce((sum, frames) => sum + data(frames), 0),
        10_000,
      );
      for (const frames of results) assert.match(types(frames).replace(/D+/, "D"), /^(TDCZ|TD?EZ|EZ)$/);
      for (const client of clients) {
        assert.equal(types(await client.query("select 1")), "EZ");
        assert.equal(types(await client.query("set work_mem to '1MB'")), "CZ");
        client.close();
      }
    });

    test("the window frees up", { timeout: 30_000 }, async () => {
      const client = await open("short");
      assert.equal(data(await client.query("select n from numbers limit 7")), 7);
      assert.equal(data(await client.query("select n from numbers limit 7")), 3);
      assert.equal(types(await client.query("select 1")), "EZ");
      await sleep(1_100);
      assert.equal(data(await client.query("select n from numbers limit 12")), 10);
      client.close();
    });

    test("rows count when they come, not when they were asked for", { timeout: 30_000 }, async () => {
      const client = await open("short");
      assert.equal(data(await client.query("select pg_sleep(1.5)")), 1);
      assert.equal(data(await client.query("select n from numbers limit 20")), 9);
      client.close();
    });

    test("a transaction is failed, whether the server had finished or not", { timeout: 60_000 }, async () => {
      await clear();
      for (const text of ["select n from numbers order by n limit 15", "select n, filler from numbers"]) {
        for (const ask of [(sql: string) => [query(sql)], (sql: string) => [extended(sql), sync()]]) {
          const client = await open("ten");
          await client.query("begin");
          await client.query("insert into log values ('lost')");
          const frames = await client.ask(ask(text));
          assert.equal(data(frames), 10);
          assert.match(types(frames), /D{10}EZ$/);
          assert.equal(states(frames), "E", text);
          assert.equal(errors(await client.query("insert into log values ('also lost')"))[0]?.["C"], "25P02");
          assert.deepEqual(tags(await client.query("commit")), ["ROLLBACK"]);
          assert.deepEqual(tags(await client.query("insert into log values ('kept')")), ["INSERT 0 1"]);
          client.close();
        }
      }
      assert.deepEqual(await logged(), ["kept", "kept", "kept", "kept"]);
    });

    test("what an implicit transaction did is rolled back: one statement, several, a function, COPY, EXECUTE", {
      timeout: 60_000,
    }, async () => {
      await clear();
      const insert = "insert into log select 'lost' from generate_series(1, 15) returning what";
      for (const text of [
        insert,
        `insert into log values ('lost'); select n from numbers limit 15; insert into log values ('lost')`,
        `insert into log values ('lost'); ${insert}`,
        `with i as (${insert}) select * from i`,
        "select noisy(n) from generate_series(1, 15) n",
        `copy (${insert}) to stdout`,
      ]) {
        const client = await open("ten");
        const frames = await client.query(text);
        assert.match(types(frames).replaceAll("N", ""), /^(CT|T|H|)[Dd]{10}EZ$/, text);
        assert.equal(states(frames), "I");
        assert.deepEqual(await logged(), [], text);
        assert.deepEqual(tags(await client.query("set work_mem to '1MB'")), ["SET"]);
        client.close();
        if (text.includes(";")) continue;
        const other = await open("ten");
        const piped = await other.ask([extended(text), sync()]);
        assert.match(types(piped), /^12H?[Dd]{10}EZ$/, text);
        assert.equal(states(piped), "I");
        assert.deepEqual(await logged(), [], text);
        other.close();
      }
    });

    test("a statement that stays within the limit commits as ever, and a deferred constraint speaks up", { timeout: 30_000 }, async () => {
      await clear();
      const client = await open("ten");
      const fine = await client.query("insert into log values ('a'); insert into log values ('b') returning what");
      assert.equal(types(fine), "CTDCZ");
      assert.deepEqual(tags(fine), ["INSERT 0 1", "INSERT 0 1"]);
      assert.equal(states(fine), "I");
      client.send(query("insert into log values ('c') returning what; copy log from stdin; select 1"));
      assert.equal(types(await client.until("G")), "TDCG");
      assert.equal(types(await client.ask([copyData("d\n"), COPY_DONE])), "CTDCZ");
      const orphan = await client.query("insert into children values (1) returning id");
      assert.equal(types(orphan), "TDEZ");
      assert.equal(errors(orphan)[0]?.["C"], "23503");
      assert.equal(states(orphan), "I");
      const broken = await client.query("insert into log values ('e') returning 1/0");
      assert.match(types(broken), /^T?EZ$/);
      assert.equal(states(broken), "I");
      assert.deepEqual(await logged(), ["a", "b", "c", "d"]);
      assert.equal(types(await client.query("select 1")), "TDCZ");
      client.close();
    });

    test("pipelines: what comes behind a cut is skipped, the next Sync begins anew", { timeout: 30_000 }, async () => {
      await clear();
      const client = await open("ten");
      const change = extended("insert into log values ('lost')");
      const frames = await client.ask(
        [extended("select n from numbers limit 15"), change, sync(), extended("insert into log values ('kept')"), sync()],
        2,
      );
      assert.match(types(frames), /^12D{10}EZ12CZ$/);
      assert.equal(states(frames), "II");
      assert.deepEqual(await logged(), ["kept"]);
      const other = await open("ten");
      const before = await other.ask([change, extended("select n from numbers limit 15"), sync()]);
      assert.match(types(before), /^12C12D{10}EZ$/);
      assert.deepEqual(await logged(), ["kept"]);
      const mixed = await open("ten");
      const unsynced = await mixed.ask([change, query("select n from numbers limit 15")]);
      assert.match(types(unsynced), /^12CTD{10}EZ$/);
      assert.equal(states(unsynced), "I");
      assert.deepEqual(await logged(), ["kept"]);
      mixed.close();
      const unclear = await open("ten");
      const behind = await unclear.ask([extended("begin"), query("insert into log values ('lost') returning what")]);
      assert.equal(types(behind), "12CEZ");
      assert.match(errors(behind)[0]?.["M"] ?? "", /behind a transaction command without Sync cannot be held/);
      assert.equal(states(behind), "E");
      unclear.close();
      const ending = await open("ten");
      await ending.query("begin; insert into log values ('lost')");
      const ended = await ending.query("select n from numbers limit 15; commit");
      assert.equal(types(ended) + states(ended), "EZE");
      assert.match(errors(ended)[0]?.["M"] ?? "", /returns rows and ends a transaction cannot be held to limit "ten-rows"/);
      ending.close();
      assert.deepEqual(await logged(), ["kept"]);
      const flushed = await open("ten");
      flushed.send(extended("select n from numbers limit 15"), flush());
      assert.match(types(await flushed.until("E")), /^12D{10}E$/);
      assert.equal(types(await flushed.ask([sync()])), "Z");
      const queries = await open("ten");
      const both = await queries.ask([query("select n from numbers limit 15"), query("insert into log values ('second')")], 2);
      assert.match(types(both), /^TD{10}EZCZ$/);
      for (const each of [client, other, flushed, queries]) each.close();
    });

    test("portals with row limits, cursors, COPY out, large rows", { timeout: 60_000 }, async () => {
      const client = await open("ten");
      await client.query("begin");
      client.send(parse("", "select n from numbers order by n"), bind("p", ""), execute("p", 7), flush());
      assert.equal(types(await client.until("s")), "12DDDDDDDs");
      const second = await client.ask([execute("p", 7), close("P", "p"), sync()]);
      assert.equal(types(second), "DDDEZ");
      assert.equal(states(second), "E");
      assert.equal(states(await client.query("rollback")), "I");
      client.close();

      const reader = await open("ten");
      await reader.query("begin");
      await reader.query("declare c cursor for select n from numbers order by n");
      assert.equal(data(await reader.query("fetch 6 from c")), 6);
      const fetched = await reader.query("fetch 6 from c");
      assert.equal(types(fetched), "TDDDDEZ");
      assert.equal(states(fetched), "E");
      reader.close();

      const copier = await open("ten");
      const copied = await copier.query("copy numbers to stdout");
      assert.equal(types(copied), "HddddddddddEZ");
      assert.equal(errors(copied)[0]?.["C"], "53400");
      assert.equal(types(await copier.query("copy numbers to stdout")), "EZ");
      assert.deepEqual(tags(await copier.query("insert into log values ('x')")), ["INSERT 0 1"]);
      copier.close();

      const heavy = await open("bytes");
      const large = await heavy.query("select repeat('y', 3000000)");
      assert.equal(types(large), "TEZ");
      assert.equal(errors(large)[0]?.["C"], "53400");
      assert.deepEqual(tags(await heavy.query("set work_mem to '1MB'")), ["SET"]);
      heavy.close();
    });

    test("bytes count the response", { timeout: 30_000 }, async () => {
      const client = await open("bytes");
      client.received = [];
      const frames = await client.query("select filler from numbers");
      const rowBytes = frames.filter(({ type }) => type === "D").map(({ body }) => body.length + 5);
      const total = rowBytes.reduce((sum, bytes) => sum + bytes, 0);
      assert.ok(total <= 2_000 && total + (rowBytes[0] ?? 0) > 2_000, `${total} bytes of rows`);
      assert.match(errors(frames)[0]?.["M"] ?? "", /of 2000 bytes within 1 h are used/);
      client.close();
    });

    test("statements: refused and on record", { timeout: 30_000 }, async () => {
      const user = `user${users++}`;
      const client = await open("few", user);
      assert.equal(types(await client.query("select 1; select 2")), "TDCTDCZ");
      assert.equal(types(await client.ask([extended("select 3"), sync()])), "12DCZ");
      const frames = await client.query("select 4");
      assert.equal(types(frames), "EZ");
      assert.equal(errors(frames)[0]?.["C"], "53400");
      assert.match(errors(frames)[0]?.["M"] ?? "", /limit "few" does not allow more: 3 of 3 statements within 1 h/);
      client.close();
      await waitFor("the metric", async () => (await metric(world.gateway, 'sluice_limit_hits_total{limit="few"}')) > 0);
      await waitFor("the record", async () => {
        const events = await auditEvents(world.gateway);
        return events.some(
          ({ identity, decision, outcome, error }) =>
            identity?.user.endsWith(user) === true &&
            decision?.effect === "deny" &&
            decision.rule === "limit:few" &&
            outcome === "denied" &&
            error?.code === "53400",
        );
      });
    });

    test("sessions: one too many is refused, and its place is free again afterwards", { timeout: 30_000 }, async () => {
      const user = `user${users++}`;
      const first = await open("single", user);
      const second = await open("single", user);
      const [refused] = errors(second.startup);
      assert.equal(refused?.["S"], "FATAL");
      assert.equal(refused?.["C"], "53300");
      assert.match(refused?.["M"] ?? "", /limit "one-session" allows 1 session at one time/);
      const other = await open("single");
      assert.deepEqual(errors(other.startup), []);
      other.close();
      first.close();
      await waitFor("the place", async () => {
        const again = await open("single", user);
        again.close();
        return errors(again.startup).length === 0;
      });
    });

    test("statements right behind a cut never meet its CancelRequest", { timeout: 60_000 }, async () => {
      await clear();
      const user = `user${users++}`;
      for (let round = 0; round < 30; round += 1) {
        const client = await open("ten", `${user}-${round}`);
        const text = `select n from numbers limit ${round % 3 === 0 ? 11 : round % 3 === 1 ? 1_000 : 20_000}`;
        const frames = await client.ask(
          [
            round % 2 === 0 ? query(text) : Buffer.concat([extended(text), sync()]),
            query("set work_mem to '1MB'"),
            query("insert into log values ('x')"),
          ],
          3,
        );
        assert.match(types(frames), /^(T|12)D{10}EZCZCZ$/);
        assert.equal(errors(frames)[0]?.["C"], "53400");
        client.close();
      }
      assert.equal((await logged()).length, 30);
    });

    test("psql and node-postgres", { timeout: 60_000 }, async () => {
      const shell = await psql(await destination("ten"), "select n from numbers order by n; select 'unreached'; ", [
        "-A",
        "-t",
        "-v",
        "ON_ERROR_STOP=1",
      ]);
      assert.notEqual(shell.code, 0);
      assert.match(shell.stderr, /limit "ten-rows" does not allow more: 10 of 10 rows/);
      assert.doesNotMatch(shell.stdout, /unreached|^11$/m);
      const to = await destination("ten");
      const client = new pg.Client({ host: "127.0.0.1", port: to.port, user: to.user, password: to.password, database: to.database });
      await client.connect();
      assert.equal((await client.query("select n from numbers where n <= $1", [6])).rows.length, 6);
      await assert.rejects(client.query("select n from numbers where n <= $1", [6]), { code: "53400" });
      await assert.rejects(client.query({ name: "named", text: "select 1" }), { code: "53400" });
      assert.equal((await client.query("insert into log values ($1)", ["x"])).rowCount, 1);
      await client.end();
    });

    test("masked rows are counted as the client sees them", { timeout: 30_000 }, async () => {
      const client = await open("masked");
      const frames = await client.query("select filler, n from numbers");
      const sizes = frames.filter(({ type }) => type === "D").map(({ body }) => body.length + 5);
      assert.ok(sizes.length > 20, `${sizes.length} rows`);
      assert.ok(sizes.reduce((sum, bytes) => sum + bytes, 0) <= 2_000);
      assert.match(types(frames), /^TD+EZ$/);
      assert.doesNotMatch(JSON.stringify(frames.map(({ body }) => body.toString("latin1"))), /xxx/);
      const piped = await (await open("masked")).ask([extended("select filler, n from numbers"), sync()]);
      assert.match(types(piped), /^12D{20,}EZ$/);
      client.close();
    });

    test("a client's own cancel, and leaving in the middle", { timeout: 30_000 }, async () => {
      await clear();
      const to = await destination("many");
      const client = await rawAt(to);
      client.send(query("insert into log values ('lost'); select pg_sleep(20)"));
      await sleep(300);
      await rawCancel({ port: to.port }, client.processId, client.key);
      const frames = await client.until("Z");
      assert.equal(types(frames) + states(frames), "CTEZI".replace("T", types(frames).includes("T") ? "T" : ""));
      assert.equal(errors(frames)[0]?.["C"], "57014");
      assert.deepEqual(tags(await client.query("set work_mem to '1MB'")), ["SET"]);
      client.send(query("insert into log values ('lost'); select pg_sleep(20)"));
      await sleep(300);
      client.destroy();
      await sleep(300);
      assert.deepEqual(await logged(), []);
    });

    test("a reload changes limits of live sessions; what an entry has counted stays", { timeout: 60_000 }, async () => {
      const changed = (rows: number, extra = "") =>
        POLICY.replace("rows: 10, per: 1h", `rows: ${rows}, per: 1h`).replace("rows: 10000", "rows: 10001") + extra;
      const client = await open("ten");
      const free = await open("nobody");
      assert.equal(data(await client.query("select n from numbers limit 6")), 6);
      await world.reload(changed(8));
      assert.equal(data(await client.query("select n from numbers limit 6")), 2);
      await world.reload(changed(12));
      assert.equal(data(await client.query("select n from numbers limit 6")), 4);
      await world.reload(changed(12, "  - { name: new, rows: 3, per: 1h }\n"));
      assert.equal(data(await free.query("select n from numbers limit 6")), 3);
      await world.reload(policyOf("{ name: other, who: { groups: [else] }, sessions: 1 }"));
      assert.equal(data(await client.query("select n from numbers limit 60")), 60);
      assert.equal(data(await free.query("select n from numbers limit 60")), 60);
      await world.reload(POLICY);
      assert.equal(types(await client.query("select 1")), "EZ", "taken out and put back, it still knows");
      client.close();
      free.close();
    });

    test("observe lets pass and records", { timeout: 30_000 }, async () => {
      const client = await open("watched");
      assert.equal(data(await client.query("select n from numbers limit 12")), 12);
      assert.equal(data(await client.query("select n from numbers limit 12")), 12);
      assert.equal(data(await client.query("select n from numbers limit 12")), 12);
      client.close();
      await waitFor("the record", async () => {
        const events = await auditEvents(world.gateway);
        return events.some(
          ({ detail }) => detail?.["action"] === "limit" && detail["observed"] === "deny" && detail["rule"] === "limit:watched",
        );
      });
    });
  });
}
