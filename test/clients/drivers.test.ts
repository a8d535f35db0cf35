import assert from "node:assert/strict";
import { after, before, describe, test } from "node:test";
import pg from "pg";
import postgres from "postgres";
import { type Destination, java, python } from "../helpers/clients.ts";
import { waitFor } from "../helpers/processes.ts";
import { startWorld, VERSIONS, type World } from "./world.ts";

// What applications use: node-postgres, postgres.js, psycopg2, pgjdbc. Each script runs directly and through Sluice and must print the same.

let world: World;
const SETUP = `
create table items (id int primary key, name text, price numeric, at timestamptz, doc jsonb, raw bytea, tags text[]);
insert into items select n, 'item ' || n, n * 1.25, '2024-01-01'::timestamptz + n * interval '1 day', jsonb_build_object('n', n), decode('00ff', 'hex'), array['a', null]
from generate_series(1, 1000) n;
create table log (id serial primary key, what text unique);
create function shout(t text) returns text language plpgsql as $$ begin raise notice 'shouting %', t; return upper(t); end $$;
`;

before(async () => {
  world = await startWorld({ setup: SETUP });
});
after(() => world.stop());

async function nodePostgres(to: Destination): Promise<unknown[]> {
  const seen: unknown[] = [];
  const client = new pg.Client({ host: "127.0.0.1", port: to.port, user: to.user, password: to.password, database: to.database });
  client.on("notice", (notice) => seen.push(["notice", notice.message]));
  client.on("notification", (note) => seen.push(["notification", note.channel, note.payload]));
  await client.connect();
  try {
    seen.push((await client.query("select * from items where id < 4 order by id")).rows);
    seen.push((await client.query("select $1::int + $2::int as sum, $3::text as t", [1, 2, null])).rows);
    for (let round = 0; round < 3; round += 1) {
      seen.push(
        (
          await client.query({
            name: "by-id",
            text: "select name, price, at, doc, raw, tags from items where id = $1",
            values: [round + 1],
          })
        ).rows,
      );
    }
    seen.push((await client.query({ text: "select id, name from items order by id limit 3", rowMode: "array" })).rows);
    seen.push(
      ((await client.query("select 1 as a; select 2 as b; select 3 as c")) as unknown as { rows: unknown[] }[]).map(
        (result) => result.rows,
      ),
    );
    const all = (await client.query("select id, name from items order by id")).rows;
    seen.push([all.length, all.at(-1)]);
    await client.query("begin");
    await client.query("insert into log (what) values ($1)", ["kept"]);
    await client.query("savepoint s");
    seen.push(
      await client
        .query("insert into log (what) values ($1)", ["kept"])
        .catch((error: pg.DatabaseError) => [error.code, error.constraint, error.detail]),
    );
    await client.query("rollback to s");
    await client.query("rollback");
    seen.push(await client.query("select 1/0").catch((error: pg.DatabaseError) => [error.code, error.message]));
    seen.push((await client.query("select shout('hey')")).rows);
    await client.query("listen ch");
    await client.query("select pg_notify('ch', 'hi')");
    seen.push((await Promise.all([1, 2, 3].map((n) => client.query("select $1::int as n", [n])))).map((result) => result.rows));
    seen.push((await client.query("")).rows.length);
  } finally {
    await client.end();
  }
  return seen;
}

async function postgresJs(to: Destination): Promise<unknown[]> {
  const seen: unknown[] = [];
  const sql = postgres({
    host: "127.0.0.1",
    port: to.port,
    user: to.user ?? "anyone",
    password: to.password,
    database: to.database,
    max: 3,
    onnotice: (notice) => seen.push(["notice", notice.message]),
  });
  try {
    for (let round = 0; round < 3; round += 1)
      seen.push([...(await sql`select id, name, price, at, doc, raw, tags from items where id = ${round + 1}`)]);
    seen.push(await Promise.all(Array.from({ length: 50 }, (_, n) => sql`select ${n}::int as n`.then((rows) => rows[0]?.n))));
    seen.push(
      await sql.begin(async (tx) => {
        await tx`insert into log (what) values ('in transaction')`;
        const inner = await tx.savepoint(async (point) => point`select 1/0`).catch((error: { code: string }) => error.code);
        const [row] = await tx`select count(*)::int as n from log`;
        await tx`delete from log`;
        return [inner, row?.n];
      }),
    );
    seen.push(await sql.begin((tx) => [tx`select 1 as a`, tx`select 2 as b`]).then((results) => results.map((rows) => [...rows])));
    seen.push(await sql`select nothing`.catch((error: { code: string; message: string }) => [error.code, error.message]));
    let rows = 0;
    for await (const batch of sql`select id from items order by id`.cursor(64)) rows += batch.length;
    seen.push(rows);
    const writable = await sql`copy log (what) from stdin`.writable();
    await new Promise<void>((resolve, reject) => {
      writable.on("error", reject);
      writable.on("finish", () => resolve());
      for (let n = 0; n < 2_000; n += 1) writable.write(`line ${n}\n`);
      writable.end();
    });
    const readable = await sql`copy (select what from log order by id) to stdout`.readable();
    let text = "";
    for await (const chunk of readable) text += chunk.toString();
    seen.push([text.length, text.slice(0, 20)]);
    await sql`delete from log`;
    const notes: string[] = [];
    const listening = await sql.listen("news", (payload) => notes.push(payload));
    await sql.notify("news", "first");
    await waitFor("the notification", () => notes.length === 1);
    await listening.unlisten();
    seen.push(notes);
    seen.push([...(await sql.unsafe("select shout('x') as x"))]);
    seen.push([...(await sql`select ${sql.json({ a: 1 })} as j, ${sql.array([1, 2])}::int[] as a`)]);
    const slow = sql`select pg_sleep(20)`;
    const timer = setTimeout(() => slow.cancel(), 300);
    seen.push(await slow.catch((error: { code: string }) => error.code));
    clearTimeout(timer);
  } finally {
    await sql.end({ timeout: 5 });
  }
  return seen;
}

const PYTHON = `
import io, psycopg2, psycopg2.extras, psycopg2.extensions, select, threading, time
c = psycopg2.connect("")
k = c.cursor()
k.execute("select id, name, price, at at time zone 'UTC', doc, raw, tags from items where id < %s order by id", (4,))
for row in k.fetchall(): print([bytes(v) if isinstance(v, memoryview) else v for v in row])
s = c.cursor("server_side"); s.itersize = 100
s.execute("select id from items order by id")
print(sum(r[0] for r in s)); s.close()
s = c.cursor("scrolling", scrollable=True); s.execute("select id from items order by id")
s.scroll(500); print(s.fetchone()); s.scroll(-10); print(s.fetchmany(3)); s.close()
h = c.cursor("held", withhold=True); h.execute("select id from items order by id limit 5"); c.commit(); print(h.fetchall()); h.close()
k.executemany("insert into log (what) values (%s)", [("m%d" % n,) for n in range(50)])
psycopg2.extras.execute_values(k, "insert into log (what) values %s", [("v%d" % n,) for n in range(50)])
psycopg2.extras.execute_batch(k, "insert into log (what) values (%s)", [("b%d" % n,) for n in range(50)])
k.execute("select count(*) from log"); print(k.fetchone()); c.rollback()
k.copy_expert("copy log (what) from stdin with csv", io.StringIO("".join("c%d\\n" % n for n in range(5000)))); print(k.rowcount)
out = io.StringIO(); k.copy_expert("copy (select what from log order by id) to stdout", out); print(len(out.getvalue()))
try: k.copy_expert("copy items (id) from stdin", io.StringIO("not a number\\n"))
except psycopg2.Error as e: print(e.pgcode, e.diag.message_primary, e.diag.context)
c.rollback()
try: k.execute("insert into items (id) values (1)")
except psycopg2.errors.UniqueViolation as e: print(e.pgcode, e.diag.constraint_name, e.diag.message_detail)
try: k.execute("select 1")
except psycopg2.errors.InFailedSqlTransaction as e: print(e.pgcode)
c.rollback()
k.execute("select shout('py')"); print(k.fetchone(), c.notices); c.commit()
c.set_session(isolation_level="SERIALIZABLE", readonly=True); k.execute("show transaction_isolation"); print(k.fetchone()); c.rollback()
c.set_session(autocommit=True)
k.execute("listen ch; notify ch, 'p'"); c.poll(); print([(n.channel, n.payload) for n in c.notifies])
def cancel(): time.sleep(0.3); c.cancel()
t = threading.Thread(target=cancel); t.start()
try: k.execute("select pg_sleep(20)")
except psycopg2.errors.QueryCanceled as e: print(e.pgcode)
t.join()
k.execute("select 'after'"); print(k.fetchone())
k.execute(""" prepare p (int) as select name from items where id = $1 """); k.execute("execute p (7)"); print(k.fetchone())
print(c.encoding, c.server_version > 150000, c.get_parameter_status("standard_conforming_strings"))
c.close()
try: psycopg2.connect("", password="nonsense")
except psycopg2.OperationalError as e: print("refused")
`;

const JAVA = `
import java.io.*; import java.sql.*; import java.util.*;
import org.postgresql.PGConnection; import org.postgresql.copy.CopyManager; import org.postgresql.PGStatement;
public class Driver {
  static void rows(ResultSet r) throws Exception {
    int n = r.getMetaData().getColumnCount(); int count = 0; StringBuilder b = new StringBuilder();
    while (r.next()) { count++; if (count > 12) continue; for (int i = 1; i <= n; i++) b.append(r.getString(i)).append('|'); b.append(';'); }
    System.out.println(count + " " + b); r.close();
  }
  public static void main(String[] a) throws Exception {
    try (Connection c = DriverManager.getConnection(a[0], a[1], a[2])) {
      System.out.println(c.isValid(5) + " " + c.getMetaData().getDatabaseMajorVersion());
      try (PreparedStatement p = c.prepareStatement("select id, name, price, at at time zone 'UTC', doc, raw, tags, true, 1.5::float8, id::bigint, '2024-02-03'::date, gen from items, lateral (select '00000000-0000-0000-0000-000000000001'::uuid as gen) g where id = ?")) {
        for (int i = 1; i <= 10; i++) { p.setInt(1, i); rows(p.executeQuery()); }
        System.out.println(((PGStatement) p).isUseServerPrepare());
      }
      c.setAutoCommit(false);
      try (Statement s = c.createStatement()) {
        s.setFetchSize(64); try (ResultSet r = s.executeQuery("select id from items order by id")) { long sum = 0; while (r.next()) sum += r.getInt(1); System.out.println(sum); }
      }
      try (PreparedStatement p = c.prepareStatement("insert into log (what) values (?)")) {
        for (int i = 0; i < 500; i++) { p.setString(1, "j" + i); p.addBatch(); }
        System.out.println(Arrays.stream(p.executeBatch()).sum());
      }
      try (PreparedStatement p = c.prepareStatement("insert into log (what) values (?)", Statement.RETURN_GENERATED_KEYS)) {
        p.setString(1, "key"); p.executeUpdate(); try (ResultSet r = p.getGeneratedKeys()) { System.out.println(r.next()); }
      }
      Savepoint point = c.setSavepoint();
      try (PreparedStatement p = c.prepareStatement("insert into log (what) values (?)")) {
        for (String w : new String[] {"ok", "key", "never"}) { p.setString(1, w); p.addBatch(); }
        try { p.executeBatch(); } catch (BatchUpdateException e) { System.out.println(e.getSQLState() + " " + Arrays.toString(e.getUpdateCounts())); }
      }
      c.rollback(point);
      try (Statement s = c.createStatement()) { rows(s.executeQuery("select count(*) from log")); }
      c.rollback();
      DatabaseMetaData m = c.getMetaData();
      rows(m.getTables(null, "public", "%", new String[] {"TABLE", "VIEW"}));
      rows(m.getColumns(null, "public", "items", "%"));
      rows(m.getPrimaryKeys(null, "public", "items"));
      rows(m.getIndexInfo(null, "public", "log", false, false));
      rows(m.getSchemas()); rows(m.getTypeInfo().getStatement().getResultSet() == null ? m.getSchemas() : m.getSchemas());
      rows(m.getFunctions(null, "public", "%")); rows(m.getImportedKeys(null, "public", "items")); rows(m.getTablePrivileges(null, "public", "log"));
      c.commit(); c.setAutoCommit(true);
      CopyManager copy = ((PGConnection) c).getCopyAPI();
      StringBuilder text = new StringBuilder(); for (int i = 0; i < 3000; i++) text.append("copied ").append(i).append('\\n');
      System.out.println(copy.copyIn("copy log (what) from stdin", new StringReader(text.toString())));
      StringWriter out = new StringWriter(); System.out.println(copy.copyOut("copy (select what from log order by id) to stdout", out) + " " + out.toString().length());
      try (Statement s = c.createStatement()) {
        System.out.println(s.executeUpdate("delete from log"));
        boolean more = s.execute("select 1; select 2; update items set name = name where id < 3"); System.out.println(more); rows(s.getResultSet());
        while (s.getMoreResults() || s.getUpdateCount() != -1) { if (s.getResultSet() != null) rows(s.getResultSet()); else System.out.println("updated " + s.getUpdateCount()); if (s.getUpdateCount() != -1 && !s.getMoreResults() && s.getUpdateCount() == -1) break; }
        rows(s.executeQuery("select shout('java')")); System.out.println(s.getWarnings().getMessage());
        Thread t = new Thread(() -> { try { Thread.sleep(300); s.cancel(); } catch (Exception e) { } }); t.start();
        try { s.execute("select pg_sleep(20)"); } catch (SQLException e) { System.out.println(e.getSQLState()); } t.join();
        s.setQueryTimeout(1); try { s.execute("select pg_sleep(20)"); } catch (SQLException e) { System.out.println(e.getSQLState()); } s.setQueryTimeout(0);
        try { s.execute("select nothing"); } catch (SQLException e) { System.out.println(e.getSQLState() + " " + e.getMessage()); }
        rows(s.executeQuery("select 'after'"));
      }
    }
  }
}
`;

for (const version of VERSIONS) {
  describe(`PostgreSQL ${version}`, () => {
    const same = async <T>(script: (to: Destination) => Promise<T>): Promise<T> => {
      const expected = await script(world.direct(version));
      const got = await script(await world.through(version));
      assert.deepEqual(got, expected);
      return got;
    };

    test("node-postgres", { timeout: 60_000 }, async () => {
      const seen = await same(nodePostgres);
      assert.ok(seen.length >= 15 && JSON.stringify(seen).includes("shouting hey"));
    });

    test("postgres.js", { timeout: 60_000 }, async () => {
      const seen = await same(postgresJs);
      assert.equal(seen.at(-1), "57014");
    });

    test("psycopg2", { timeout: 60_000 }, async () => {
      const { stdout, stderr } = await same((to) => python(to, PYTHON));
      assert.equal(stderr, "");
      assert.match(stdout, /refused\n$/);
    });

    for (const [how, properties] of [
      ["as it comes", {}],
      ["named statements and binary from the first execution", { prepareThreshold: "-1", binaryTransfer: "true" }],
      ["simple protocol", { preferQueryMode: "simple" }],
      ["autosave, rewritten batches", { autosave: "always", reWriteBatchedInserts: "true", defaultRowFetchSize: "10" }],
    ] as const) {
      test(`JDBC, ${how}`, { timeout: 120_000 }, async () => {
        const { stdout, stderr, code } = await same((to) => java(to, "Driver", JAVA, [], properties));
        assert.equal(code, 0, stderr);
        assert.match(stdout, /after\|;\n$/);
      });
    }
  });
}
