import assert from "node:assert/strict";
import { createHash } from "node:crypto";
import { after, before, describe, test } from "node:test";
import {
  bind,
  close,
  copyFail,
  describe as describeMessage,
  execute,
  flush,
  parse,
  query,
  sync,
} from "../../protocols/postgres/messages.ts";
import { errors, type Frame, type RawClient, states, tags, types } from "./raw.ts";
import { rawAt, startWorld, VERSIONS, type World } from "./world.ts";

let world: World;

const SETUP = `
create table items (id int primary key, name text not null, price numeric);
insert into items select n, 'item ' || n, n * 1.5 from generate_series(1, 50) n;
create function announce(what text) returns text language plpgsql as $$
begin raise notice 'about to return %', what using detail = 'a detail', hint = 'a hint'; return what; end $$;
`;

before(async () => {
  world = await startWorld({ setup: SETUP });
});
after(() => world.stop());

const copyData = (text: string): Buffer => {
  const body = Buffer.from(text);
  const message = Buffer.alloc(5 + body.length);
  message.write("d");
  message.writeInt32BE(body.length + 4, 1);
  body.copy(message, 5);
  return message;
};
const COPY_DONE = Buffer.from([0x63, 0, 0, 0, 4]);
const parseBindExecute = (sql: string, parameters: readonly string[] = [], maxRows = 0): Buffer =>
  Buffer.concat([parse("", sql), bind("", "", parameters), describeMessage("P", ""), execute("", maxRows)]);
/** Bind with every parameter as text and every result column in binary. */
const bindBinary = (portal: string, statement: string): Buffer => {
  const body = Buffer.concat([Buffer.from(`${portal}\0${statement}\0`), Buffer.from([0, 0, 0, 0, 0, 1, 0, 1])]);
  const head = Buffer.from([0x42, 0, 0, 0, 0]);
  head.writeInt32BE(body.length + 4, 1);
  return Buffer.concat([head, body]);
};

type Script = (client: RawClient) => Promise<Frame[]>;

/** What comes out must not depend on whether Sluice stands in between. */
const SCRIPTS: Record<string, Script> = {
  "a simple query": (c) => c.query("select id, name, price from items order by id"),
  "a query without rows": (c) => c.query("select id from items where false"),
  "a multi-statement query": (c) =>
    c.query("begin; insert into items values (100, 'x', 1); select count(*) from items; rollback; select 1"),
  "an empty query": (c) => c.query(""),
  "a query of comments and semicolons": (c) => c.query(" ; -- nothing\n ; /* at all */ "),
  "empty extended query": (c) => c.ask([parseBindExecute(""), sync()]),
  "errors at run time": async (c) => [...(await c.query("select 1/0")), ...(await c.query("insert into items values (1, 'twice', 0)"))],
  "errors of the parse analysis": async (c) => [
    ...(await c.query("select nothing_such from items")),
    ...(await c.query("select * from no_such_table")),
  ],
  "a syntax error in a string that the server reads too": (c) => c.query("select 'abc'::int"),
  "an error in the middle of a multi-statement query": (c) =>
    c.query("insert into items values (200, 'gone', 1); select 1/0; insert into items values (201, 'never', 1)"),
  "that error rolled everything back": (c) => c.query("select count(*) from items where id >= 200"),
  "extended, described by portal": (c) => c.ask([parseBindExecute("select id, name from items where id < $1 order by id", ["5"]), sync()]),
  "extended, described by statement": (c) =>
    c.ask([
      parse("s", "select id, name from items where name = $1 and id = $2", [25]),
      describeMessage("S", "s"),
      bind("", "s", ["item 3", "3"]),
      execute(""),
      close("S", "s"),
      sync(),
    ]),
  "extended, binary results": (c) =>
    c.ask([
      parse("b", "select id, name, price from items order by id"),
      bindBinary("", "b"),
      describeMessage("P", ""),
      execute(""),
      close("S", "b"),
      sync(),
    ]),
  "extended without Describe": (c) => c.ask([parse("", "select id from items order by id"), bind("", ""), execute(""), sync()]),
  "extended, no data": (c) => c.ask([parseBindExecute("update items set price = price where id = 3"), sync()]),
  "extended, null parameters": (c) =>
    c.ask([parse("", "select $1::text is null, $2::int"), bind("", "", [undefined, "4"]), execute(""), sync()]),
  "a suspended portal": (c) =>
    c.ask(
      [
        query("begin"),
        parse("", "select id from items order by id"),
        bind("p", ""),
        describeMessage("P", "p"),
        execute("p", 20),
        execute("p", 20),
        execute("p", 20),
        execute("p", 20),
        close("P", "p"),
        sync(),
        query("rollback"),
      ],
      3,
    ),
  "Flush instead of Sync": async (c) => {
    c.send(parse("f", "select 1 as one"), describeMessage("S", "f"), flush());
    const first = await c.until("T");
    c.send(bind("", "f"), execute(""), flush());
    const second = await c.until("C");
    return [...first, ...second, ...(await c.ask([close("S", "f"), sync()]))];
  },
  "two Syncs": (c) => c.ask([sync(), sync()], 2),
  "a pipeline of three transactions": (c) =>
    c.ask(
      [1, 2, 3].flatMap((n) => [parseBindExecute("select $1::int", [String(n)]), sync()]),
      3,
    ),
  "a pipeline with an error in the middle": (c) =>
    c.ask(
      [
        parseBindExecute("insert into items values (300, 'rolled back', 1)"),
        parseBindExecute("select 1/0"),
        parseBindExecute("insert into items values (301, 'skipped', 1)"),
        sync(),
        parseBindExecute("select count(*) from items where id >= 300"),
        sync(),
      ],
      2,
    ),
  "an error, then messages that come late, then Sync": async (c) => {
    c.send(parseBindExecute("select 1/0"), flush());
    const first = await c.until("E");
    return [
      ...first,
      ...(await c.ask([
        parse("late", "select 2"),
        bind("", "late"),
        describeMessage("S", "late"),
        execute(""),
        close("S", "late"),
        sync(),
      ])),
      ...(await c.query("select 3")),
    ];
  },
  "a Query that is skipped because it comes before Sync": async (c) => {
    const first = await c.ask([parse("", "select nothing_such"), query("select 'skipped'"), sync()]);
    return [...first, ...(await c.query("select 'carried out'"))];
  },
  "a Query sent late before Sync": async (c) => {
    c.send(parse("", "select nothing_such"), flush());
    const first = await c.until("E");
    return [...first, ...(await c.ask([query("select 'skipped'"), sync()])), ...(await c.query("select 'carried out'"))];
  },
  "a Parse that fails leaves its name free": (c) =>
    c.ask([parse("n", "select nothing_such"), sync(), parse("n", "select 1"), bind("", "n"), execute(""), close("S", "n"), sync()], 2),
  "a pipeline of schema changes and what uses them": (c) =>
    c.ask([
      parseBindExecute("create table piped (a int)"),
      parseBindExecute("insert into piped values (1), (2)"),
      // Not the bare column: its description names the table, by a number that is new each time.
      parseBindExecute("select a + 0 as a from piped order by a"),
      parseBindExecute("alter table piped rename to piped2"),
      parseBindExecute("select count(*) from piped2"),
      parseBindExecute("drop table piped2"),
      sync(),
    ]),
  "a name that is taken": (c) =>
    c.ask([parse("t", "select 1"), sync(), parse("t", "select 2"), sync(), bind("", "t"), execute(""), close("S", "t"), sync()], 3),
  "names longer than the server keeps": (c) => {
    const long = "n".repeat(63);
    return c.ask(
      [
        parse(`${long}a`, "select 1"),
        close("S", `${long}b`),
        parse(`${long}c`, "select 2"),
        bind(`${long}p`, `${long}d`),
        execute(`${long}q`),
        close("S", long),
        sync(),
        parse(`${long}e`, "select 3"),
        close("S", long),
        sync(),
      ],
      2,
    );
  },
  "closing what was never there": (c) => c.ask([close("S", "never"), close("P", "never"), sync()]),
  "a transaction that fails": async (c) => [
    ...(await c.query("begin")),
    ...(await c.query("select 1/0")),
    ...(await c.query("select 1")),
    ...(await c.ask([parseBindExecute("select 2"), sync()])),
    ...(await c.query("commit")),
    ...(await c.query("select 3")),
  ],
  savepoints: async (c) => [
    ...(await c.query("begin; savepoint a")),
    ...(await c.query("select 1/0")),
    ...(await c.query("rollback to a")),
    ...(await c.query("select 1")),
    ...(await c.query("commit")),
  ],
  notices: async (c) => [
    ...(await c.query("select announce('x')")),
    ...(await c.ask([parseBindExecute("select announce($1)", ["y"]), sync()])),
  ],
  "LISTEN and NOTIFY": async (c) => [
    ...(await c.query("listen news")),
    ...(await c.query("notify news, 'a payload'")),
    ...(await c.ask([parseBindExecute("select pg_notify('news', $1)", ["another"]), sync()])),
    ...(await c.query("unlisten *")),
  ],
  "ParameterStatus in the middle": async (c) => [
    ...(await c.query("set application_name to 'renamed'")),
    ...(await c.query("set timezone to 'Asia/Tokyo'")),
    ...(await c.query("select '2024-01-01 00:00:00+00'::timestamptz")),
    ...(await c.query("reset timezone")),
  ],
  "COPY out": (c) => c.query("copy (select id, name from items order by id) to stdout"),
  "COPY out in an extended query": (c) => c.ask([parseBindExecute("copy items (id) to stdout (format csv, header)"), sync()]),
  "COPY out in binary": (c) => c.query("copy (select id from items where id < 4 order by id) to stdout (format binary)"),
  "COPY in": async (c) => {
    c.send(query("copy items from stdin"));
    const ready = await c.until("G");
    return [
      ...ready,
      ...(await c.ask([copyData("400\tfour"), copyData(" hundred\t1\n401\tnext\t\\N\n"), COPY_DONE])),
      ...(await c.query("delete from items where id >= 400")),
    ];
  },
  "COPY in within a multi-statement query": async (c) => {
    c.send(query("begin; copy items from stdin; select count(*) from items; rollback"));
    const ready = await c.until("G");
    return [...ready, ...(await c.ask([copyData("410\tx\t1\n"), COPY_DONE]))];
  },
  "COPY in, extended, Sync after CopyDone": async (c) => {
    c.send(parseBindExecute("copy items from stdin"), flush());
    const ready = await c.until("G");
    return [
      ...ready,
      ...(await c.ask([copyData("420\tx\t1\n"), COPY_DONE, sync()])),
      ...(await c.query("delete from items where id >= 400")),
    ];
  },
  "a Sync that comes once the server waits for rows": async (c) => {
    c.send(parseBindExecute("copy items from stdin"), flush());
    const ready = await c.until("G");
    return [
      ...ready,
      ...(await c.ask([sync(), copyData("425\tx\t1\n"), sync(), COPY_DONE, sync()])),
      ...(await c.query("delete from items where id >= 400")),
    ];
  },
  "COPY in, extended, with the Sync that libpq pipelines before": async (c) => {
    c.send(parseBindExecute("copy items from stdin"), sync());
    const ready = await c.until("G");
    return [
      ...ready,
      ...(await c.ask([copyData("430\tx\t1\n"), COPY_DONE, sync()])),
      ...(await c.query("delete from items where id >= 400")),
    ];
  },
  "COPY in that the client gives up": async (c) => {
    c.send(query("copy items from stdin"));
    const ready = await c.until("G");
    return [
      ...ready,
      ...(await c.ask([copyData("440\tx\t1\n"), copyFail("changed my mind")])),
      ...(await c.query("select count(*) from items where id >= 400")),
    ];
  },
  "COPY in, extended, that the client gives up": async (c) => {
    c.send(parseBindExecute("copy items from stdin"), sync());
    const ready = await c.until("G");
    return [...ready, ...(await c.ask([copyFail("changed my mind"), sync()])), ...(await c.query("select 1"))];
  },
  "COPY in of what the server does not take": async (c) => {
    c.send(query("copy items from stdin"));
    const ready = await c.until("G");
    return [...ready, ...(await c.ask([copyData("not a number\tx\t1\n"), COPY_DONE])), ...(await c.query("select 1"))];
  },
  "COPY in, extended, of what the server does not take": async (c) => {
    c.send(parseBindExecute("copy items from stdin"), sync());
    const ready = await c.until("G");
    c.send(copyData("not a number\tx\t1\n"), COPY_DONE, sync());
    return [...ready, ...(await c.until("Z")), ...(await c.query("select 1"))];
  },
  "SQL PREPARE and EXECUTE": async (c) => [
    ...(await c.query("prepare q (int) as select id, name from items where id = $1")),
    ...(await c.query("execute q (7)")),
    ...(await c.ask([bind("", "q", ["8"]), describeMessage("P", ""), execute(""), sync()])),
    ...(await c.query("deallocate q")),
  ],
  "SQL cursors": async (c) => [
    ...(await c.query("begin; declare k scroll cursor for select id from items order by id")),
    ...(await c.query("fetch 3 from k")),
    ...(await c.query("fetch backward 2 from k")),
    ...(await c.query("move forward all in k")),
    ...(await c.ask([parseBindExecute("fetch prior from k"), sync()])),
    ...(await c.query("close k; commit")),
  ],
  EXPLAIN: (c) => c.query("explain (costs off) select * from items where id = 3"),
  "wide rows and odd values": (c) =>
    c.query("select repeat('ä€😀', 1000), '', null, E'\\n\\t\\\\', '\\x00ff'::bytea, array[1,null], '{\"a\":1}'::jsonb, row(1,'x')"),
  "no columns at all": (c) => c.query("select from items where id < 3"),
};

/** Notifications carry the process that sent them. */
const shown = (frame: Frame): string => {
  const body = frame.type === "A" ? frame.body.subarray(4) : frame.body;
  return `${frame.type} ${body.toString("latin1").replaceAll(/[^\x20-\x7e]/g, (c) => `\\x${c.charCodeAt(0).toString(16).padStart(2, "0")}`)}`;
};

for (const version of VERSIONS) {
  describe(`PostgreSQL ${version}: frames are the same directly and through Sluice`, () => {
    for (const [name, script] of Object.entries(SCRIPTS)) {
      test(name, { timeout: 60_000 }, async () => {
        const straight = await rawAt(world.direct(version));
        const expected = await script(straight);
        straight.close();
        const client = await rawAt(await world.through(version));
        assert.equal(client.startup.at(-1)?.type, "Z", JSON.stringify(errors(client.startup)));
        const got = await script(client);
        assert.deepEqual(got.map(shown), expected.map(shown));
        // The session is in step: the next question gets its own answer.
        assert.deepEqual(tags(await client.query("select 1")), ["SELECT 1"]);
        client.close();
      });
    }

    test("all scripts in one session, frames cut into single bytes", { timeout: 60_000 }, async () => {
      const straight = await rawAt(world.direct(version));
      const client = await rawAt(await world.through(version));
      for (const [name, script] of Object.entries(SCRIPTS)) {
        const expected = await script(straight);
        assert.deepEqual((await script(client)).map(shown), expected.map(shown), name);
      }
      const message = query("select id from items order by id limit 2");
      for (const byte of message) {
        client.send(Uint8Array.of(byte));
        await new Promise((resolve) => setImmediate(resolve));
      }
      assert.equal(types(await client.until("Z")), "TDDCZ");
      straight.close();
      client.close();
    });

    test("50 MB of rows, and one row of 20 MB", { timeout: 120_000 }, async () => {
      const big = "select n, repeat(md5(n::text), 32) from generate_series(1, 50000) n";
      const wide = "select repeat('0123456789abcdef', 1280 * 1024)";
      const digests: string[] = [];
      for (const to of [world.direct(version), await world.through(version)]) {
        const client = await rawAt(to);
        const digest = createHash("sha256");
        for (const frame of await client.ask([query(big), query(wide)], 2)) digest.update(frame.type).update(frame.body);
        digests.push(digest.digest("hex"));
        client.close();
      }
      assert.equal(digests[1], digests[0]);
    });

    test("a million small messages are not a problem: 3,000 pipelined statements", { timeout: 60_000 }, async () => {
      const client = await rawAt(await world.through(version));
      const count = 3_000;
      const one = Buffer.concat([parse("", "select $1::int"), bind("", "", ["7"]), execute(""), sync()]);
      const frames = await client.ask(
        Array.from({ length: count }, () => one),
        count,
      );
      assert.equal(types(frames), "12DCZ".repeat(count));
      assert.equal(states(frames), "I".repeat(count));
      client.close();
    });
  });
}
