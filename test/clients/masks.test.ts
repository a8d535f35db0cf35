import assert from "node:assert/strict";
import { after, before, describe, test } from "node:test";
import { bind, describe as describeMessage, execute, parse, query, sync } from "../../protocols/postgres/messages.ts";
import { java, psql } from "../helpers/clients.ts";
import { errors, type RawClient, rows, types } from "./raw.ts";
import { rawAt, startWorld, VERSIONS, type World } from "./world.ts";

// What a masked value looks like, by column and by content, in each way of asking.

const CARD = "4111 1111 1111 1111";
const SETUP = `
create table customers (id int, a text, b text, c text, d text, n numeric, arr text[], note text);
insert into customers select n, 'first' || n, 'second' || n, 'third value ' || n, 'fourth' || n, n, array['x' || n],
  case when n % 10 = 0 then 'pay with ${CARD} please' else 'nothing here' end from generate_series(1, 3000) n;
create table notes (id int, body text, doc jsonb, list text[], raw bytea);
insert into notes values (1, 'card ${CARD}, mail a.person@corp.example', '{"card": "${CARD}"}', array['${CARD}', 'plain'], '${CARD}'), (2, 'nothing', '{}', null, null);
`;
const POLICY = `version: 1
rules:
  - { name: all, effect: allow }
masks:
  - { name: as-redact, columns: [public.customers.a], with: redact }
  - { name: as-partial, columns: [public.customers.b], with: partial }
  - { name: as-hash, columns: [public.customers.c, public.customers.n, public.customers.arr], with: hash }
  - { name: as-null, columns: [public.customers.d], with: "null" }
  - { name: content, detect: [payment_card, email], with: redact }
`;

let world: World;
before(async () => {
  world = await startWorld({ setup: SETUP, policy: POLICY });
});
after(() => world.stop());

const ONE = "select id, a, b, c, d, n, arr from customers where id = 7";
const bindFormats = (statement: string, ...formats: readonly number[]): Buffer => {
  const tail = Buffer.alloc(2 + formats.length * 2);
  tail.writeInt16BE(formats.length, 0);
  formats.forEach((format, index) => {
    tail.writeInt16BE(format, 2 + index * 2);
  });
  const body = Buffer.concat([Buffer.from(`\0${statement}\0`), Buffer.alloc(4), tail]);
  const head = Buffer.from([0x42, 0, 0, 0, 0]);
  head.writeInt32BE(body.length + 4, 1);
  return Buffer.concat([head, body]);
};

for (const version of VERSIONS) {
  describe(`PostgreSQL ${version}`, () => {
    const open = async (): Promise<RawClient> => rawAt(await world.through(version));

    test("by column: redact, partial, hash, null; other types become NULL", { timeout: 30_000 }, async () => {
      const client = await open();
      const simple = rows(await client.query(ONE))[0] ?? [];
      const [id, a, b, c, d, n, arr] = simple;
      assert.equal(id, "7");
      assert.equal(a, "[REDACTED]");
      assert.ok(b !== null && b !== undefined && b !== "second7" && !b.includes("second"), `partial: ${b}`);
      assert.ok(c !== null && c !== undefined && !c.includes("third"), `hash: ${c}`);
      assert.deepEqual([d, n, arr], [null, null, null]);
      const again = rows(await client.query(ONE))[0];
      assert.deepEqual(again, simple, "a hash is stable");
      assert.notEqual(rows(await client.query("select c from customers where id = 8"))[0]?.[0], c);
      for (const messages of [
        [parse("", ONE), bind("", ""), describeMessage("P", ""), execute(""), sync()],
        [parse("", ONE), bind("", ""), execute(""), sync()],
        [parse("", ONE), bindFormats("", 0), execute(""), sync()],
      ]) {
        assert.deepEqual(rows(await client.ask(messages))[0], simple);
      }
      client.close();
    });

    test("binary results: text as in text, other types NULL, JSON and arrays valid, never in plain", { timeout: 30_000 }, async () => {
      const client = await open();
      await client.ask([parse("m", "select id, a, c, d, n, arr from customers where id = 7"), describeMessage("S", "m"), sync()]);
      const shown = rows(await client.query("select a, c from customers where id = 7"))[0];
      for (const formats of [[1], [1, 0, 0, 0, 0, 0], [0, 1, 1, 1, 1, 1]]) {
        const frames = await client.ask([bindFormats("m", ...formats), execute(""), sync()]);
        assert.equal(types(frames), "2DCZ", JSON.stringify(errors(frames)));
        const [id, ...others] = rows(frames)[0] ?? [];
        assert.equal(id, formats[0] === 1 ? "\0\0\0\x07" : "7");
        assert.deepEqual(others, [...(shown ?? []), null, null, null]);
      }
      await client.ask([
        parse(
          "c",
          "select body, doc, list, raw, '4111111111111111'::numeric, 4111111111111111::int8, 1.5::numeric from notes where id = 1",
        ),
        describeMessage("S", "c"),
        sync(),
      ]);
      const found = await client.ask([bindFormats("c", 1), execute(""), sync()]);
      assert.deepEqual(errors(found), []);
      const [body, doc, list, ...numbers] = rows(found)[0] ?? [];
      assert.equal(body, "card [REDACTED:payment_card], mail [REDACTED:email]");
      assert.equal(doc, '\x01{"card": "[REDACTED:payment_card]"}');
      assert.ok(list?.includes("[REDACTED:payment_card]") && list.endsWith("\0\0\0\x05plain"), JSON.stringify(list));
      assert.deepEqual(numbers.slice(0, 3), [null, null, null]);
      assert.notEqual(numbers[3], null);
      assert.ok(!Buffer.concat(found.map((frame) => frame.body)).includes("1111"));
      client.close();
    });

    test("binary results whose form is not known are refused, in a cursor NULL", { timeout: 30_000 }, async () => {
      const client = await open();
      const sql = "select id, point(1, 2), row(id) from customers where id = 7";
      await client.ask([parse("p", sql), describeMessage("S", "p"), sync()]);
      for (const formats of [[1], [0, 1, 0], [0, 0, 1]]) {
        const frames = await client.ask([bindFormats("p", ...formats), execute(""), sync()]);
        assert.equal(errors(frames)[0]?.C, "42501", types(frames));
        assert.match(errors(frames)[0]?.M ?? "", /binary/);
      }
      assert.equal(types(await client.ask([bindFormats("p", 1, 0, 0), execute(""), sync()])), "2DCZ");
      await client.query(`begin; declare k binary cursor for ${sql}`);
      assert.deepEqual(rows(await client.query("fetch all from k"))[0], ["\0\0\0\x07", null, null]);
      await client.query("rollback");
      client.close();
    });

    test("three thousand rows, in one read and in parts", { timeout: 60_000 }, async () => {
      const client = await open();
      for (const messages of [
        [query("select a, note from customers order by id")],
        [
          parse("", "select a, note from customers order by id"),
          bind("", ""),
          execute("", 1_000),
          execute("", 1_000),
          execute("", 5_000),
          sync(),
        ],
      ]) {
        const found = rows(await client.ask(messages));
        assert.equal(found.length, 3_000);
        assert.ok(found.every(([a]) => a === "[REDACTED]"));
        assert.ok(
          found.every(([, note], index) =>
            index % 10 === 9 ? note !== null && !note?.includes("1111 1111") && note?.startsWith("pay with ") : note === "nothing here",
          ),
        );
      }
      client.close();
    });

    test("by content: text, JSON, arrays; in expressions too; other types become NULL", { timeout: 30_000 }, async () => {
      const client = await open();
      const found = rows(await client.query("select body, doc, list, upper(body) from notes order by id"));
      assert.ok(
        !JSON.stringify(found).includes("1111") && !JSON.stringify(found).toLowerCase().includes("a.person"),
        JSON.stringify(found),
      );
      assert.match(found[0]?.[0] ?? "", /^card .*, mail /);
      assert.doesNotThrow(() => JSON.parse(found[0]?.[1] ?? ""));
      assert.deepEqual(found[1], ["nothing", "{}", null, "NOTHING"]);
      assert.ok(
        !JSON.stringify(rows(await client.query(`select '${CARD}' as typed, point(1,2), 4111111111111111::numeric`))).includes("1111"),
      );
      client.close();
    });

    test("errors and notices are searched as well", { timeout: 30_000 }, async () => {
      const client = await open();
      const frames = [
        ...(await client.query(`select '${CARD}'::int`)),
        ...(await client.query(`do $$ begin raise notice '${CARD}'; raise exception 'a.person@corp.example'; end $$`)),
        ...(await client.query(
          "create temp table u (x text unique); insert into u select body from notes where id = 1; insert into u select body from notes where id = 1",
        )),
      ];
      const text = frames.map((frame) => frame.body.toString("latin1")).join("\n");
      assert.ok(!text.includes("1111 1111") && !text.includes("a.person"), text);
      client.close();
    });

    test("COPY TO is searched where a content mask applies, COPY FROM is not", { timeout: 30_000 }, async () => {
      const to = await world.through(version);
      const copied = await psql(to, "copy notes (id, body) to stdout");
      assert.equal(copied.stdout, "1\tcard [REDACTED:payment_card], mail [REDACTED:email]\n2\tnothing\n", copied.stderr);
      assert.equal((await psql(to, "copy (select 1) to stdout")).stdout, "1\n");
      const filled = await psql(to, "create temp table t (a int);\ncopy t from stdin;\n1\n2\n\\.\nselect count(*) from t;\n");
      assert.equal(filled.stdout, "2\n", filled.stderr);
    });

    test("JDBC behind its fifth execution, where it switches to named statements and binary", { timeout: 60_000 }, async () => {
      const source = `
import java.sql.*;
public class Masked { public static void main(String[] x) throws Exception {
  try (Connection c = DriverManager.getConnection(x[0], x[1], x[2]); PreparedStatement p = c.prepareStatement("select id, a, c, n, note from customers where id = ?")) {
    for (int i = 1; i <= 12; i++) { p.setInt(1, i * 10); try (ResultSet r = p.executeQuery()) { r.next(); System.out.println(r.getInt(1) + "|" + r.getString(2) + "|" + r.getString(4) + "|" + r.getString(5)); }
      catch (SQLException e) { System.out.println(e.getSQLState()); } }
  } } }`;
      const { stdout, stderr, code } = await java(await world.through(version), "Masked", source);
      assert.equal(code, 0, stderr);
      assert.ok(!stdout.includes("first") && !stdout.includes("1111"), stdout);
      assert.equal(
        stdout.split("\n").filter((line) => /^\d+\|\[REDACTED\]\|null\|pay with /.test(line) || line === "42501").length,
        12,
        stdout,
      );
      assert.match(stdout, /^10\|\[REDACTED\]/);
    });
  });
}
