import assert from "node:assert/strict";
import { readdirSync, readFileSync, statSync } from "node:fs";
import { join } from "node:path";
import { after, before, describe, test } from "node:test";
import { bind, close, describe as describeMessage, execute, parse, query, sync } from "../../protocols/postgres/messages.ts";
import { DRIVERS } from "../adversarial/drivers.ts";
import { psql } from "../helpers/clients.ts";
import { removeFolder, temporaryFolder } from "../helpers/processes.ts";
import { Canaries } from "../lineage/canaries.ts";
import type { ValueType } from "../lineage/model.ts";
import { errors, type RawClient } from "./raw.ts";
import { rawAt, startWorld, VERSIONS, type World } from "./world.ts";

// More than a thousand canaries in masked columns of every common type. Whatever is asked, by whatever client, in text and in binary,
// with and without Describe, by cursor, COPY, RETURNING or EXPLAIN, in errors and notices: no piece of one may come back.

const canaries = new Canaries(20_260_301);
const ROWS = 60;

type Column = readonly [name: string, type: string, value: () => string];
const of = (type: ValueType) => () => canaries.literal(type);
const bare = (): string => canaries.literal("text").slice(1, -1);
const COLUMNS: readonly Column[] = [
  ["c_text", "text", of("text")],
  ["c_varchar", "varchar(60)", of("text")],
  ["c_char", "char(40)", of("text")],
  ["c_name", "name", of("text")],
  ["c_label", "label", of("text")],
  ["c_int", "int", of("int")],
  ["c_big", "bigint", of("int")],
  ["c_numeric", "numeric", of("num")],
  ["c_float", "float8", of("int")],
  ["c_money", "money", of("int")],
  ["c_date", "date", of("date")],
  ["c_timestamp", "timestamp", of("time")],
  ["c_timestamptz", "timestamptz", of("time")],
  ["c_uuid", "uuid", of("uuid")],
  ["c_jsonb", "jsonb", of("json")],
  ["c_json", "json", of("json")],
  ["c_bytes", "bytea", of("bytes")],
  ["c_list", "text[]", of("list")],
  ["c_numbers", "int[]", () => `array[${canaries.literal("int")}, ${canaries.literal("int")}]`],
  ["c_place", "place", of("place")],
  ["c_xml", "xml", () => `'<a>${bare()}</a>'`],
  ["c_words", "tsvector", () => `to_tsvector('simple', '${bare()}')`],
  ["c_range", "int8range", () => `int8range(null, ${canaries.literal("int")})`],
];

const SETUP = `
create type place as (street text, number int);
create domain label as text;
create table every (id int primary key, other text not null default 'o', ${COLUMNS.map(([name, type]) => `${name} ${type}`).join(", ")},
  c_made text generated always as (c_varchar || c_text) stored, check (other <> 'low' or length(c_text) < 1));
${Array.from({ length: ROWS }, (_, row) => `insert into every (id, ${COLUMNS.map(([name]) => name).join(", ")}) values (${row + 1}, ${COLUMNS.map(([, , value]) => value()).join(", ")});`).join("\n")}
create unique index on every (c_uuid);
create view v_every as select * from every;
create table beside (id int, note text);
insert into beside select n, 'note ' || n from generate_series(1, 20) n;
create function tells() returns trigger language plpgsql as $$ begin raise notice 'was % %', old.c_text, old.c_int using hint = old.c_varchar; return new; end $$;
create trigger tells before update of other on every for each row when (new.other = 'tell') execute function tells();
create function stops() returns trigger language plpgsql as $$ begin raise exception 'no %', old.c_text using detail = old.c_jsonb::text, column = old.c_varchar; end $$;
create trigger stops before update of other on every for each row when (new.other = 'stop') execute function stops();
create function notifies() returns trigger language plpgsql as $$ begin perform pg_notify('news', 'changed'); return new; end $$;
create trigger notifies after update on every for each row execute function notifies();
analyze every;
`;

const MASKED = COLUMNS.map(([name]) => `public.every.${name}`);
const half = Math.ceil(MASKED.length / 2);
const POLICY = `version: 1
rules:
  - { name: excepted, who: { groups: [dba] }, record: { results: digest }, effect: allow }
  - { name: all, effect: allow }
masks:
  - { name: first, except: { groups: [dba] }, columns: [${MASKED.slice(0, half).join(", ")}], with: redact }
  - { name: second, except: { groups: [dba] }, columns: [${MASKED.slice(half).join(", ")}], with: "null" }
`;

/** One line each, as drivers take them. */
const PER_COLUMN: readonly ((column: string) => string)[] = [
  (c) => `select ${c} from every`,
  (c) => `select t.${c} as other, id from every t order by id limit 7`,
  (c) => `select s.x from (select ${c} as x, id from every) s where s.id > 3`,
  (c) => `with w as materialized (select ${c} from every) select * from w`,
  (c) => `update every set other = 'o' where id = 1 returning id, ${c}`,
  (c) => `select ${c}::text from every`,
  (c) => `select row(${c}, 1) from every`,
  (c) => `select to_json(${c}), json_build_array(${c}) from every`,
  (c) => `select array_agg(${c}) from every`,
  (c) => `select ${c} from every union all select ${c} from every`,
  (c) => `select (select ${c} from every limit 1), id from beside`,
  (c) => `select max(s.x::text) from (select ${c} as x from every) s`,
  (c) => `select id from every order by ${c}`,
  (c) => `select first_value(${c}) over (order by id) from every`,
  (c) => `explain (analyze, verbose, timing off) select ${c} from every where id = 1`,
  (c) => `insert into beside select id, ${c}::text from every`,
];
const OTHERS = [
  "select * from every",
  "table every",
  "select e from every e",
  "select e.every from every e",
  "select e.row_to_json from every e",
  "select to_jsonb(e) from every e",
  "select (e.c_place).street from every e",
  "select c_made from every",
  "select reverse(c_made) from every",
  "select * from v_every",
  "select c_text from v_every",
  "update every set other = 'tell' where id = 1",
  "update every set other = 'stop' where id = 1",
  "update every set other = 'low' where id = 1",
  "update every set other = null where id = 1",
  "update every set id = 2 where id = 1",
  "update every set c_uuid = (select c_uuid from every where id = 2) where id = 1",
  "insert into every (id, other) values (1, 'x')",
  "insert into every (id, c_int) values (900, 'not a number')",
  "delete from every where id > 1000 returning *",
  "select id / 0, c_text from every",
  "select 1 / (id - 7), c_text from every order by id",
  "listen news",
  "update every set other = 'o' where id < 4",
  "notify news, 'hello'",
  "begin",
  "declare k cursor for select * from every order by id",
  "fetch 3 from k",
  "fetch all from k",
  "commit",
  "prepare p as select c_text, c_int from every",
  "execute p",
  "explain analyze execute p",
  "deallocate p",
  "select most_common_vals from pg_stats where tablename = 'every'",
  "select query_to_xml('select * from every', true, true, '')",
  "select note from beside where id = 3",
];
const QUERIES = [...COLUMNS.flatMap(([name]) => PER_COLUMN.map((make) => make(name))), ...OTHERS];
const COPIES = [
  "copy every to stdout",
  "copy every (id, c_text, c_int) to stdout (format csv, header)",
  "copy every (id, c_text) to stdout (format binary)",
  "copy (select c_json, c_uuid from every) to stdout",
  "copy (select upper(c_text) from every) to stdout",
  "copy v_every to stdout",
];

const binary = Buffer.from([0x42, 0, 0, 0, 15, 0, 0x62, 0, 0, 0, 0, 0, 0, 1, 0, 1]);
const MODES: Readonly<Record<string, (sql: string) => Uint8Array[]>> = {
  "simple query": (sql) => [query(sql)],
  "extended query": (sql) => [parse("", sql), describeMessage("S", ""), bind("", ""), describeMessage("P", ""), execute(""), sync()],
  "extended query without Describe, in parts": (sql) => [parse("", sql), bind("", ""), execute("", 2), execute("", 2), execute(""), sync()],
  "binary results": (sql) => [close("S", "b"), parse("b", sql), describeMessage("S", "b"), binary, execute(""), sync()],
};

const folder = temporaryFolder("channels");
let world: World;
before(async () => {
  world = await startWorld({ setup: SETUP, policy: POLICY, config: { record: { results: "full" } } });
});
after(async () => {
  await world.stop();
  removeFolder(folder);
});

test(`${QUERIES.length} queries, ${canaries.count} canaries`, async () => {
  assert.ok(new Set(QUERIES).size >= 300 && canaries.count >= 1_000);
  const client = await rawAt(await world.through(15, ["dba"]));
  client.received = [];
  for (const [name] of COLUMNS) {
    client.received = [];
    await client.query(`select ${name} from every`);
    // Money is shown with separators between its digits.
    if (name !== "c_money")
      assert.notEqual(canaries.find(Buffer.concat(client.received)), undefined, `${name} of an excepted identity is found`);
  }
  client.close();
});

for (const version of VERSIONS) {
  describe(`PostgreSQL ${version}`, () => {
    for (const [mode, messages] of Object.entries(MODES)) {
      test(`as ${mode}`, { timeout: 120_000 }, async () => {
        let client: RawClient | undefined;
        const leaks: string[] = [];
        let carriedOut = 0;
        let refused = 0;
        for (const sql of [...QUERIES, ...COPIES]) {
          if (client === undefined || client.ended) client = await rawAt(await world.through(version));
          client.received = [];
          const [error] = errors(await client.ask(messages(sql)).catch(() => []));
          if (error === undefined) carriedOut += 1;
          else if (error.C === "42501") refused += 1;
          const found = canaries.find(Buffer.concat(client.received));
          if (found !== undefined) leaks.push(`${sql}: ${found}`);
        }
        client?.close();
        assert.deepEqual(leaks, []);
        assert.ok(carriedOut > 5 && refused > 200, `${carriedOut} carried out, ${refused} refused`);
      });
    }
  });
}

for (const [name, driver] of Object.entries(DRIVERS)) {
  test(`through ${name}`, { timeout: 180_000 }, async () => {
    const to = await world.through(15);
    const tasks = QUERIES.map((text) => ({ group: "all", password: to.password, text }));
    const { states, seen } = await driver(to, tasks, folder);
    const found = canaries.find(seen);
    assert.equal(found, undefined, `${name} was told ${found}`);
    const count = (state: string) => [...states.values()].filter((each) => each === state).length;
    assert.ok(
      states.size === QUERIES.length && count("00000") > 80 && count("42501") > 200,
      `${count("00000")} and ${count("42501")} of ${states.size}`,
    );
  });
}

test("COPY through psql", { timeout: 30_000 }, async () => {
  const { stdout, stderr } = await psql(await world.through(15), COPIES.map((sql) => `${sql};\n\\${sql}\n`).join(""));
  assert.equal(canaries.find(Buffer.from(stdout + stderr)), undefined);
});

test("nothing is in the logs and in the data folder", { timeout: 60_000 }, async () => {
  await world.gateway.stop({ keep: true });
  assert.equal(canaries.find(Buffer.from(world.gateway.logs() + world.gateway.output())), undefined);
  const walk = (path: string): void => {
    if (statSync(path).isDirectory()) for (const entry of readdirSync(path)) walk(join(path, entry));
    else assert.equal(canaries.find(readFileSync(path)), undefined, path);
  };
  walk(world.gateway.dataFolder);
});
