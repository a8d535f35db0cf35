import assert from "node:assert/strict";
import { createHash } from "node:crypto";
import { readdirSync, readFileSync, statSync } from "node:fs";
import { join } from "node:path";
import { after, before, describe, test } from "node:test";
import { bind, execute, parse, query, sync } from "../../protocols/postgres/messages.ts";
import type { AuditEvent } from "../../store/types.ts";
import { psql, python } from "../helpers/clients.ts";
import { waitFor } from "../helpers/processes.ts";
import { errors, type Frame, type RawClient, rows, tags, types } from "./raw.ts";
import { rawAt, startWorld, VERSIONS, type World } from "./world.ts";

// COPY TO STDOUT under masks. PostgreSQL itself reads back what came through the gateway: it has to be what a masked SELECT shows.

const CARD = "4111111111111111";
const CANARIES = ["canary-name", "canary-nick", "canary-code", "canary-gone", CARD, "4111 1111", "canary@corp.example"];
const SETUP = `
create table people (id int, dropped text, name text, nick varchar(60), gone text, shout text generated always as (upper(name)) stored,
  n numeric, note text, doc jsonb, plain json, list text[], amount numeric, big bigint, raw bytea, born date);
alter table people drop column dropped;
insert into people (id, name, nick, gone, n, note, doc, plain, list, amount, big, raw, born) select i, 'canary-name' || i, 'canary-nick\t\\' || i, case when i % 3 = 0 then null else 'canary-gone' end, i,
  case i % 8 when 0 then E'a\\tb\\nc\\rd\\\\e "quoted", ''single''; | card ${CARD}' when 1 then E'\\b\\f\\v canary@corp.example,' when 2 then '' when 3 then null
    when 4 then '4111 1111 1111 1111' when 5 then '\\.' when 6 then '\\N' else 'nothing\tto see' end,
  jsonb_build_object('k', 'canary@corp.example', 'i', i), ('{"n": ' || ${CARD} || '}')::json, array['x', '${CARD}', null, E'q"\\\\'], ${CARD}, ${CARD}, 'plain', '2020-01-01'
  from generate_series(1, 60) i;
create table keyed (id int, code text);
insert into keyed values (1, 'canary-code'), (2, null), (3, ''), (4, 'NULL');
create table nothing ();
insert into nothing default values;
create table many (id int, note text);
insert into many select i, case when i % 100 = 0 then 'pay ${CARD}' else repeat('y', 80) end from generate_series(1, 20000) i;
create table parts (id int, name text) partition by range (id);
create table part_1 partition of parts for values from (0) to (100);
insert into parts values (1, 'canary-name');
create table points (p point, t text);
insert into points values ('(1,2)', 'x');
`;
const POLICY = `version: 1
rules:
  - { name: all, when: '!("corp:exempt" in identity.groups)', effect: allow }
  - { name: exempt, who: { groups: [exempt] }, record: { results: digest }, effect: allow }
masks:
  - { name: as-redact, columns: [public.people.name, public.people.shout, public.parts.name], with: redact, except: { groups: [dba, content] } }
  - { name: as-partial, columns: [public.people.nick], with: partial, except: { groups: [dba, content] } }
  - { name: as-hash, columns: [public.people.n, public.keyed.code], with: hash, except: { groups: [dba, content] } }
  - { name: as-null, columns: [public.people.gone], with: "null", except: { groups: [dba, content] } }
  - { name: content, detect: [payment_card, email], with: redact, except: { groups: [dba, columns] } }
`;

let world: World;
before(async () => {
  world = await startWorld({ setup: SETUP, policy: POLICY, config: { record: { results: "full" } } });
});
after(() => world.stop());

const copied = (frames: readonly Frame[]): Buffer => Buffer.concat(frames.filter(({ type }) => type === "d").map(({ body }) => body));
const COPY_DONE = Buffer.from([0x63, 0, 0, 0, 4]);
const copyData = (body: Buffer): Buffer => {
  const head = Buffer.from([0x64, 0, 0, 0, 0]);
  head.writeInt32BE(body.length + 4, 1);
  return Buffer.concat([head, body]);
};

const OPTIONS = [
  "",
  "(header)",
  "(delimiter '|')",
  "(delimiter '-')",
  "(delimiter ' ')",
  "(delimiter '@', null '')",
  "(format csv)",
  "(format csv, header on, delimiter ';')",
  "(format csv, quote '''', escape '\\', null 'NULL')",
  "(format csv, delimiter '1', force_quote *)",
  "(format csv, quote '4', escape '-')",
  "(format csv, force_quote (note), encoding 'utf-8')",
  "with csv header quote '\"' escape '\\'",
  "(format binary)",
] as const;

const COLUMNS = "id, name, nick, gone, n, note, doc, plain, list, amount, big, raw, born";

for (const version of VERSIONS) {
  describe(`PostgreSQL ${version}`, () => {
    const open = async (groups: readonly string[] = []): Promise<RawClient> => {
      const client = await rawAt(await world.through(version, groups));
      client.received = [];
      return client;
    };
    const assertClean = (client: RawClient, what: string) => {
      const bytes = Buffer.concat(client.received ?? []);
      for (const canary of CANARIES) assert.ok(!bytes.includes(canary), `${what} let ${canary} out`);
      client.received = [];
    };

    for (const groups of [[], ["columns", "exempt"], ["content", "exempt"]] as const) {
      test(`a table comes back as a masked SELECT shows it, in ${OPTIONS.length} formats (${groups[0] ?? "all masks"})`, {
        timeout: 90_000,
      }, async () => {
        const client = await open(groups);
        const reader = await rawAt(world.direct(version));
        for (const list of [COLUMNS, undefined, "note, gone, amount, name"]) {
          const expected = rows(await client.query(`select ${list ?? COLUMNS} from people order by id`));
          assert.equal(expected.length, 60);
          await reader.query(
            `drop table if exists back; create table back as select ${list ?? COLUMNS} from people limit 0; alter table back add column o serial`,
          );
          for (const options of OPTIONS) {
            const frames = await client.query(`copy people${list === undefined ? "" : ` (${list})`} to stdout ${options}`);
            const what = `${list ?? "all columns"} ${options} ${JSON.stringify(errors(frames))}`;
            assert.deepEqual(tags(frames), ["COPY 60"], what);
            if (groups.length === 0) assertClean(client, what);
            reader.send(
              query(
                `truncate back restart identity; copy back (${list ?? COLUMNS}) from stdin ${options.replace(/, force_quote (?:\*|\(note\))/, "")}`,
              ),
            );
            await reader.until("G");
            const taken = await reader.ask([copyData(copied(frames)), COPY_DONE]);
            assert.deepEqual(errors(taken), [], what);
            const found = rows(await reader.query(`select ${list ?? COLUMNS} from back order by o`));
            // An empty string and NULL cannot be told apart under NULL ''.
            const blurred = (cells: (string | null)[][]) =>
              options.includes("null ''")
                ? cells.map((row) => row.map((cell) => (cell === null || cell === "" ? "" : cell === "[REDACTED]" ? "" : cell)))
                : cells;
            assert.deepEqual(blurred(found), blurred(expected), what);
          }
        }
        client.close();
        reader.close();
      });
    }

    test("who is excepted gets the bytes of the server", { timeout: 30_000 }, async () => {
      const client = await open(["dba", "exempt"]);
      const direct = await rawAt(world.direct(version));
      for (const options of OPTIONS) {
        const sql = `copy people to stdout ${options}`;
        assert.deepEqual(copied(await client.query(sql)), copied(await direct.query(sql)));
      }
      client.close();
      direct.close();
    });

    test("rows of a query are searched, those of masked columns refused", { timeout: 30_000 }, async () => {
      const client = await open();
      const found = copied(
        await client.query(
          `copy (select note, '[' || note || ']', 1, doc, plain, amount from (values ('a\tb ${CARD}', '{"a": "${CARD}"}'::json, '{"n": ${CARD}}'::json, ${CARD}::numeric)) v (note, doc, plain, amount)) to stdout`,
        ),
      ).toString();
      assert.equal(
        found,
        'a\\tb [REDACTED:payment_card]\t[a\\tb [REDACTED:payment_card]]\t1\t{"a": "[REDACTED:payment_card]"}\t\\N\t[REDACTED:payment_card]\n',
      );
      assert.equal(copied(await client.query("copy (select id, born from people where id = 1) to stdout")).toString(), "1\t2020-01-01\n");
      for (const sql of [
        "copy (select name from people) to stdout",
        "copy (select * from people) to stdout",
        "copy (select id from people where name like 'c%') to stdout",
        "copy (select p from people p) to stdout",
        "copy (delete from people returning name) to stdout",
        "copy (select 1 as a) to stdout (format binary)",
        "copy points to stdout (format binary)",
        "copy people to stdout (encoding 'latin1')",
        "copy people to stdout (null '\\n')",
        "copy (select note from people) to stdout (null 'x\\')",
      ]) {
        const frames = await client.query(sql);
        assert.equal(errors(frames)[0]?.C, "42501", `${sql}: ${types(frames)}`);
      }
      assertClean(client, "COPY (query)");
      client.close();
    });

    test("where the columns are not certain it is refused", { timeout: 60_000 }, async () => {
      const client = await open();
      const refusedNow = async (sql: string) => {
        const frames = await client.query(sql);
        assert.equal(errors(frames)[0]?.C, "42501", `${sql}: ${types(frames)} ${JSON.stringify(errors(frames))}`);
        assertClean(client, sql);
      };
      await client.query("create schema if not exists shadow");
      await client.query("begin");
      await client.query("create table shadow.keyed (code text, id int)");
      await refusedNow("copy keyed to stdout");
      await client.query("rollback");
      assert.match(copied(await client.query("copy keyed to stdout")).toString(), /^1\th:[a-z2-7]{16}\n2\t\\N\n3\th:/);
      await refusedNow("create table shadow.u (a int); copy keyed to stdout");
      await client.query("create temp table keyed (code text, id int)");
      await refusedNow("copy keyed to stdout");
      assert.match(copied(await client.query("copy public.keyed to stdout")).toString(), /^1\th:/);
      await client.query("drop schema shadow cascade");
      // Someone changes the table past the gateway, so that another column stands in the masked one's place.
      const direct = await rawAt(world.direct(version));
      await direct.query("create table moved (id int, name text); insert into moved values (1, 'harmless')");
      await world.reload(POLICY.replace("public.parts.name", "public.parts.name, public.moved.name"));
      assert.equal(copied(await client.query("copy moved to stdout")).toString(), "1\t[REDACTED]\n");
      await direct.query("drop table moved; create table moved (name text, id int); insert into moved values ('canary-name', 1)");
      assert.equal(copied(await client.query("copy moved to stdout")).toString(), "[REDACTED]\t1\n");
      await direct.query("alter table moved add column x int default 7; alter table moved drop column id");
      assert.equal(copied(await client.query("copy moved to stdout")).toString(), "[REDACTED]\t7\n");
      await direct.query("drop table moved");
      direct.close();
      assertClean(client, "moved");
      client.close();
    });

    test("marks of NULL do not tell who has them", { timeout: 30_000 }, async () => {
      const client = await open(["columns", "exempt"]);
      const text = async (options: string) => copied(await client.query(`copy keyed to stdout ${options}`)).toString();
      const hash = /^h:[a-z2-7]{16}$/;
      const fieldsOf = async (options: string) => (await text(options)).split("\n").map((line) => line.split(/[\t,]/)[1]);
      for (const guess of ["canary-code", "", "NULL"]) {
        const fields = await fieldsOf(`(null '${guess}')`);
        assert.ok(
          fields.slice(0, 4).every((field) => hash.test(field ?? "")),
          JSON.stringify(fields),
        );
      }
      const csv = await fieldsOf("(format csv, null 'NULL')");
      assert.match(csv[0] ?? "", hash);
      assert.equal(csv[1], "NULL");
      assert.match(csv[2] ?? "", hash);
      assert.match((csv[3] ?? "").replaceAll('"', ""), hash);
      client.close();
    });

    test("extended query, EXECUTE, several in one message, no columns, partitions", { timeout: 30_000 }, async () => {
      const client = await open();
      const ask = parse("", "copy keyed (code) to stdout");
      const one = await client.ask([ask, bind("", ""), execute(""), sync()]);
      assert.equal(types(one), "12HddddcCZ", JSON.stringify(errors(one)));
      assert.match(copied(one).toString(), /^h:/);
      // Result formats of Bind say nothing about COPY.
      const binary = Buffer.from([0x42, 0, 0, 0, 14, 0, 0, 0, 0, 0, 0, 0, 1, 0, 1]);
      assert.equal(types(await client.ask([ask, binary, execute(""), sync()])), "12HddddcCZ");
      await client.ask([parse("named", "copy keyed to stdout"), sync()]);
      const executed = await client.query("execute named");
      assert.ok(types(executed) === "HddddcCZ" || errors(executed).length === 1, types(executed));
      const several = await client.query(
        "copy keyed (code) to stdout; select 1; copy (select '4111 1111 1111 1111') to stdout (format csv); copy people (name) to stdout (format csv, header)",
      );
      assert.equal(types(several).replace(/d+/g, "d"), "HdcCTDCHdcCHdcCZ");
      assert.ok(copied(several).toString().includes("\n[REDACTED:payment_card]\nname\n[REDACTED]\n"));
      assert.equal(types(await client.query("copy nothing to stdout; copy nothing to stdout (format csv)")), "HdcCHdcCZ");
      assert.equal(copied(await client.query("copy part_1 to stdout")).toString(), "1\t[REDACTED]\n");
      const failed = await client.query("copy (select 1 / (5 - n), '4111 1111 1111 1111' from generate_series(1, 10) n) to stdout");
      assert.equal(errors(failed)[0]?.C, "22012");
      assert.equal(types(await client.query("select 1")), "TDCZ");
      assertClean(client, "COPY");
      client.close();
    });

    test("rows and COPY in turns in one read: what the prefilter found in one is not taken for the other's", {
      timeout: 30_000,
    }, async () => {
      const client = await open();
      // Spelt so that only results hold a card number.
      const card = "'4111 ' || '1111 1111 ' || '1111'";
      const rowsOf = (count: number) => `select ${card} || n from (select ' x' as n from generate_series(1, ${count})) s`;
      for (const [before, copied, behind] of [
        [1, 0, 2],
        [3, 1, 5],
        [2, 2, 2],
        [0, 1, 3],
      ] as const) {
        for (const format of ["text", "csv"]) {
          const copy = `copy (${rowsOf(copied)}) to stdout (format ${format})`;
          const frames = await client.query([rowsOf(before), copy, rowsOf(behind), copy, rowsOf(behind)].join("; "));
          assert.equal(frames.filter(({ type }) => type === "D" || type === "d").length, before + 2 * copied + 2 * behind);
          for (const { type, body } of frames)
            if (type === "D" || type === "d")
              assert.ok(!body.includes("1111"), `${before} ${copied} ${behind} ${format}: ${body.toString()}`);
        }
        const binary = "copy keyed to stdout (format binary)";
        const frames = await client.query([rowsOf(before), binary, rowsOf(behind)].join("; "));
        for (const { type, body } of frames) if (type === "D") assert.ok(!body.includes("1111"), body.toString());
      }
      client.close();
    });

    test("row-level security makes COPY a query of the server's own", { timeout: 30_000 }, async () => {
      const direct = await rawAt(world.direct(version));
      await direct.query("alter table keyed enable row level security; alter table keyed force row level security");
      const client = await open();
      assert.match(copied(await client.query("copy keyed to stdout")).toString(), /^1\th:/);
      await direct.query("alter table keyed disable row level security; alter table keyed no force row level security");
      direct.close();
      assertClean(client, "keyed");
      client.close();
    });

    test("psql \\copy and psycopg2", { timeout: 60_000 }, async () => {
      const to = await world.through(version);
      const out = await psql(to, "\\copy many to stdout csv header\n\\copy (select note from many where id = 100) to stdout\n");
      assert.equal(out.stderr, "");
      const lines = out.stdout.split("\n");
      assert.equal(lines[0], "id,note");
      assert.equal(lines[100], "100,pay [REDACTED:payment_card]");
      assert.equal(lines.filter((line) => line.includes("[REDACTED:payment_card]")).length, 201);
      assert.equal(lines[20_001], "pay [REDACTED:payment_card]");
      assert.ok(!out.stdout.includes(CARD));
      const script = `
import io, psycopg2
c = psycopg2.connect("")
k = c.cursor()
for o in ["", "with csv", "with binary"]:
    out = io.BytesIO(); k.copy_expert("copy people (id, name, note) to stdout " + o, out); b = out.getvalue()
    print(b.count(b"[REDACTED]"), b.count(b"canary"), b.count(b"4111"))
`;
      const drive = await python(to, script);
      assert.equal(drive.stdout, "60 0 0\n60 0 0\n60 0 0\n", drive.stderr);
    });

    test("the record holds what the client saw, and counts it", { timeout: 30_000 }, async () => {
      const client = await open();
      for (const [name, sql, count, masked] of [
        ["text", "copy people (id, name, note) to stdout", 60, { "as-redact": 60, content: 23 }],
        ["csv", "copy people (id, name, note) to stdout (format csv, header)", 60, { "as-redact": 60, content: 23 }],
        ["binary", "copy people (id, name, note) to stdout (format binary)", 60, { "as-redact": 60, content: 23 }],
        ["many", "copy many to stdout", 20_000, { content: 200 }],
      ] as const) {
        const marker = `/* copied ${name} ${version} */`;
        const frames = await client.query(`${marker} ${sql}`);
        let event: AuditEvent | undefined;
        await waitFor(`${marker} on record`, async () => {
          const { stdout } = await world.gateway.cli(["audit", "tail", "--format", "json"]);
          const line = stdout.split("\n").find((each) => each.includes('"operation"') && each.includes(marker));
          if (line !== undefined) event = JSON.parse(line) as AuditEvent;
          return line !== undefined;
        });
        const bytes = Buffer.concat(
          frames.map(({ type, body }) => {
            const head = Buffer.alloc(5);
            head.write(type, 0, "latin1");
            head.writeInt32BE(body.length + 4, 1);
            return Buffer.concat([head, body]);
          }),
        );
        assert.equal(event?.outcome, "done");
        assert.deepEqual(event?.masked, masked, name);
        assert.deepEqual(event?.response, { rows: count, bytes: bytes.length, sha256: createHash("sha256").update(bytes).digest("hex") });
      }
      client.close();
    });
  });
}

test("nothing of it is in the logs and in the data folder", { timeout: 60_000 }, async () => {
  await world.gateway.stop({ keep: true });
  let sawMasked = false;
  const clean = (content: Buffer, where: string) => {
    // The others stand in statements of this file, which go on record as they are.
    for (const canary of ["canary-name", "canary-nick", "canary-gone", "canary@corp.example"])
      assert.ok(!content.includes(canary), `${where} holds ${canary}`);
    sawMasked ||= content.includes("[REDACTED]");
  };
  clean(Buffer.from(world.gateway.logs() + world.gateway.output()), "the log");
  const walk = (folder: string): void => {
    for (const entry of readdirSync(folder)) {
      const path = join(folder, entry);
      if (statSync(path).isDirectory()) walk(path);
      else clean(readFileSync(path), path);
    }
  };
  walk(world.gateway.dataFolder);
  assert.ok(sawMasked, "the folder holds what was recorded");
});
