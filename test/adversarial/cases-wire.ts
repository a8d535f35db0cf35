import assert from "node:assert/strict";
import { setTimeout as sleep } from "node:timers/promises";
import { bind, close, copyFail, describe, execute, flush, parse, query, sync } from "../../protocols/postgres/messages.ts";
import { errors, rows, states, tags, types } from "../clients/raw.ts";
import { type WireCase, wire } from "./case.ts";
import { allowed, bindFormats, copyData, extended, isAlive, isEnded, isRefusal, message, refused } from "./messages.ts";

// Messages, one by one: what is refused in a pipeline, names that change their meaning, results in other formats, COPY.

const pipelines = wire("pipelines", {
  "a refused statement in the middle: earlier ones roll back, later ones are skipped": async (context) => {
    const client = await context.open("all");
    const what = `${context.marker}-pipe`;
    const frames = await client.ask([
      extended(allowed(context, `insert into log values ('${what}')`)),
      extended(refused(context)),
      extended(refused(context, "select 1")),
      sync(),
    ]);
    assert.equal(types(frames), "12CEZ");
    assert.deepEqual(await context.direct(`select 1 from log where what = '${what}'`), []);
    await isAlive(client, context);
  },
  "Bind, Describe and Execute of a statement whose Parse was refused": async (context) => {
    const client = await context.open("all");
    isRefusal(await client.ask([parse("s", refused(context)), sync()]));
    for (const messages of [[bind("", "s")], [describe("S", "s")], [bind("p", "s"), execute("p")]]) {
      assert.equal(errors(await client.ask([...messages, sync()]))[0]?.C, "26000");
    }
    await isAlive(client, context);
  },
  "Parse refused under a name in use keeps the earlier statement": async (context) => {
    const client = await context.open("all");
    await client.ask([parse("s", allowed(context, "select 'kept'")), sync()]);
    isRefusal(await client.ask([parse("s", refused(context)), sync()]));
    assert.deepEqual(rows(await client.ask([bind("", "s"), execute(""), sync()])), [["kept"]]);
    await isAlive(client, context);
  },
  "Parse of a name in use without Close": async (context) => {
    const client = await context.open("reader");
    await client.ask([parse("s", allowed(context, "select 'first'")), sync()]);
    assert.equal(errors(await client.ask([parse("s", allowed(context, "select 'second'")), sync()]))[0]?.C, "42P05");
    assert.deepEqual(rows(await client.ask([bind("", "s"), execute(""), sync()])), [["first"]]);
    await isAlive(client, context);
  },
  "Close and Parse anew behind an error, then twice": async (context) => {
    const client = await context.open("masked");
    await client.ask([parse("s", allowed(context, "select note from orders")), sync()]);
    client.send(parse("bad", allowed(context, "select nothing from orders")), close("S", "s"), sync());
    client.send(close("S", "s"), parse("s", allowed(context, "select email from customers")), sync());
    await client.until("Z", 2);
    // Either the new statement, masked, or none.
    const frames = await client.ask([bind("", "s"), execute(""), sync()]);
    const seen = rows(frames).flat();
    assert.ok(
      errors(frames)[0]?.["C"] === "26000" || (seen.length === 3 && seen.every((value) => value === "[REDACTED]")),
      JSON.stringify(seen),
    );
    await isAlive(client, context);
  },
  "a portal keeps what it was bound to": async (context) => {
    const client = await context.open("all");
    await client.query(allowed(context, "begin"));
    await client.ask([parse("", allowed(context, "select 'old'")), bind("p", ""), parse("", allowed(context, "select 'new'")), sync()]);
    assert.deepEqual(rows(await client.ask([execute("p"), sync()])), [["old"]]);
    await isAlive(client, context);
  },
  "Execute of a portal bound before search_path moved": async (context) => {
    const client = await context.open("only");
    await client.query(allowed(context, "set search_path = hr"));
    await client.query(allowed(context, "begin"));
    isRefusal(await client.ask([parse("s", refused(context, "select note from orders")), bind("p", "s"), sync()]));
    await isAlive(client, context);
  },
  "a portal bound under one search_path, executed under another": async (context) => {
    const client = await context.open("only");
    await client.query(allowed(context, "begin"));
    await client.ask([parse("s", `/*${context.marker}-refused*/ select note from orders`), sync()]);
    await client.query(allowed(context, "set search_path = hr"));
    await client.ask([bind("p", "s"), sync()]);
    await client.query(allowed(context, "set search_path = public"));
    isRefusal(await client.ask([execute("p"), sync()]));
    await isAlive(client, context);
  },
  "a prepared FETCH whose cursor is declared anew": async (context) => {
    const client = await context.open("masked");
    await client.query(allowed(context, "begin"));
    await client.query(allowed(context, "declare k cursor for select 'plain'::text as email"));
    await client.ask([parse("f", allowed(context, "fetch all from k")), describe("S", "f"), sync()]);
    await client.query(allowed(context, "close k"));
    await client.query(allowed(context, "declare k cursor for select email from customers"));
    const frames = await client.ask([bind("", "f"), execute(""), sync()]);
    assert.ok(rows(frames).every((row) => row[0] === "[REDACTED]"));
    await isAlive(client, context);
  },
  "EXECUTE of what the protocol prepared": async (context) => {
    const client = await context.open("reader");
    isRefusal(await client.ask([parse("s", refused(context, "delete from orders")), sync()]));
    assert.equal(errors(await client.query(`/*${context.marker}-refused*/ execute s`))[0]?.C, "42501");
    await isAlive(client, context);
  },
  "FETCH of what the protocol bound": async (context) => {
    const client = await context.open("masked");
    await client.query(allowed(context, "begin"));
    await client.ask([parse("s", allowed(context, "select email from customers")), bind("p", "s"), sync()]);
    const frames = await client.query(allowed(context, "fetch all from p"));
    assert.ok(rows(frames).every((row) => row[0] === "[REDACTED]"));
    await isAlive(client, context);
  },
  "names that differ behind their 63rd byte": async (context) => {
    const client = await context.open("masked");
    const name = "n".repeat(63);
    await client.ask([parse(`${name}a`, allowed(context, "select 'plain'::text as email")), sync()]);
    await client.ask([close("S", `${name}b`), sync()]);
    await client.ask([parse(`${name}c`, allowed(context, "select email from customers")), sync()]);
    await client.ask([bind("", `${name}a`), execute(""), sync()]);
    await isAlive(client, context);
  },
  "a refusal, Flush, and messages behind it without Sync": async (context) => {
    const client = await context.open("all");
    client.send(parse("", refused(context)), flush());
    isRefusal(await client.until("E"));
    client.send(bind("", ""), execute(""), extended(refused(context, "select 1")), query(refused(context, "select 2")));
    assert.equal(types(await client.ask([sync()])), "Z");
    await isAlive(client, context);
  },
  "Sync after each message, and several in a row": async (context) => {
    const client = await context.open("all");
    const frames = await client.ask([parse("", refused(context)), sync(), bind("", ""), sync(), execute(""), sync(), sync(), sync()], 5);
    assert.ok(!types(frames).includes("D"));
    await isAlive(client, context);
  },
  "a refusal in an explicit block fails the block at the server": async (context) => {
    const client = await context.open("all");
    const what = `${context.marker}-block`;
    await client.query(allowed(context, "begin"));
    await client.query(allowed(context, `insert into log values ('${what}')`));
    const frames = await client.query(refused(context));
    isRefusal(frames);
    assert.equal(states(frames), "E");
    assert.deepEqual(tags(await client.query(allowed(context, "commit"))), ["ROLLBACK"]);
    assert.deepEqual(await context.direct(`select 1 from log where what = '${what}'`), []);
    await isAlive(client, context);
  },
  "Query and Parse mixed in one write": async (context) => {
    const client = await context.open("all");
    const frames = await client.ask(
      [
        query(allowed(context, "select 1")),
        extended(refused(context)),
        sync(),
        query(refused(context)),
        query(allowed(context, "select 2")),
      ],
      4,
    );
    assert.equal(types(frames), "TDCZEZEZTDCZ");
    await isAlive(client, context);
  },
  "SQL PREPARE and protocol names in one pipeline": async (context) => {
    const client = await context.open("reader");
    await client.query(allowed(context, "prepare p as select 1"));
    const frames = await client.ask([
      extended(allowed(context, "deallocate p")),
      extended(allowed(context, "prepare p as delete from orders")),
      extended(`/*${context.marker}-refused*/ execute p`),
      sync(),
    ]);
    isRefusal(frames);
    await isAlive(client, context);
  },
});

const masked = wire("masked results: formats and parameters", {
  "binary results of a described statement": async (context) => {
    const client = await context.open("masked");
    const frames = await client.ask([
      parse("b", allowed(context, "select email, ssn, tags, photo, phone from customers")),
      describe("S", "b"),
      bindFormats("", "b", 1),
      execute(""),
      sync(),
    ]);
    assert.ok(rows(frames).every((row) => row.every((value) => value === null)));
    await isAlive(client, context);
  },
  "binary results without a Describe": async (context) => {
    const client = await context.open("masked");
    await client.ask([parse("b", allowed(context, "select email, id from customers")), bindFormats("", "b", 1), execute(""), sync()]);
    await isAlive(client, context);
  },
  "one format a column": async (context) => {
    const client = await context.open("masked");
    const text = allowed(context, "select id, email, name from customers");
    await client.ask([parse("b", text), describe("S", "b"), bindFormats("", "b", 1, 0, 1), execute(""), sync()]);
    await client.ask([bindFormats("", "b", 0, 1, 0), execute(""), sync()]);
    await isAlive(client, context);
  },
  "Describe after Execute, in two parts": async (context) => {
    const client = await context.open("masked");
    const frames = await client.ask(
      [
        query(allowed(context, "begin")),
        parse("", allowed(context, "select email from customers")),
        bind("p", ""),
        execute("p", 1),
        describe("P", "p"),
        execute("p"),
        sync(),
      ],
      2,
    );
    assert.ok(rows(frames).every((row) => row[0] === "[REDACTED]"));
    await isAlive(client, context);
  },
  "a value in a parameter that decides about rows": async (context) => {
    const client = await context.open("masked");
    isRefusal(
      await client.ask([
        parse("", refused(context, "select id from customers where email = $1")),
        bind("", "", ["x"]),
        execute(""),
        sync(),
      ]),
    );
    await isAlive(client, context);
  },
  "detected values in binary": async (context) => {
    const client = await context.open("watched");
    for (const columns of ["number", "big", "amount", "doc", "list", "note, id"]) {
      const text = allowed(context, `select ${columns} from cards`);
      await client.ask([close("S", "b"), parse("b", text), describe("S", "b"), bindFormats("", "b", 1), execute(""), sync()]);
      await client.ask([close("S", "u"), parse("u", text), bindFormats("", "u", 1), execute(""), sync()]);
    }
    await isAlive(client, context);
  },
  "a binary cursor over detected values": async (context) => {
    const client = await context.open("watched");
    await client.query(allowed(context, "begin"));
    await client.query(allowed(context, "declare k binary cursor for select number, doc, list, amount from cards"));
    await client.query(allowed(context, "fetch all from k"));
    await isAlive(client, context);
  },
  "a statement whose temporary table goes away": async (context) => {
    const client = await context.open("masked");
    await client.query(allowed(context, "create temp table customers (id int, email text)"));
    const text = allowed(context, "select email from customers");
    await client.ask([parse("t", text), describe("S", "t"), bind("", "t"), execute(""), sync()]);
    await client.query(allowed(context, "drop table pg_temp.customers"));
    await client.ask([bind("", "t"), execute(""), sync()]);
    await client.ask([bindFormats("", "t", 1), execute(""), sync()]);
    await isAlive(client, context);
  },
  "a notification for another session": async (context) => {
    const [listener, speaker] = [await context.open("watched"), await context.open("watched")];
    await listener.query(allowed(context, "listen news"));
    await speaker.query(allowed(context, "select pg_notify('news', note) from cards"));
    await sleep(50);
    const frames = await listener.query(allowed(context, "select 1"));
    assert.ok(types(frames).includes("A"), types(frames));
    speaker.close();
    await isAlive(listener, context);
  },
});

const copying = wire("COPY in both directions, by message", {
  "a Query right behind COPY FROM STDIN": async (context) => {
    const client = await context.open("writer");
    client.send(query(allowed(context, "copy log from stdin")), query(refused(context, "delete from log")));
    const frames = await client.closed().catch(() => []);
    assert.ok(!tags(frames).includes("DELETE 1"));
    assert.equal((await context.direct("select 1 from log where what = 'first'")).length, 1);
  },
  "a refused Query among COPY data": async (context) => {
    const client = await context.open("writer");
    client.send(query(allowed(context, "copy log from stdin")));
    await client.until("G");
    client.send(copyData(`${context.marker}-row\t1\n`), query(refused(context, "delete from log")));
    await isEnded(client, "08P01");
    assert.deepEqual(await context.direct(`select 1 from log where what = '${context.marker}-row'`), []);
  },
  "Sync among COPY data that fail": async (context) => {
    const client = await context.open("writer");
    client.send(query(allowed(context, "copy log (n) from stdin")));
    await client.until("G");
    client.send(copyData("not a number\n"), sync(), query(refused(context, "delete from log")));
    const frames = await client.closed().catch(() => []);
    assert.ok(!tags(frames).some((tag) => tag.startsWith("DELETE")));
  },
  "CopyFail, then the session goes on": async (context) => {
    const client = await context.open("writer");
    client.send(query(allowed(context, "copy log from stdin")));
    await client.until("G");
    assert.equal(errors(await client.ask([copyData("x\t1\n"), copyFail("no")]))[0]?.C, "57014");
    await isAlive(client, context);
  },
  "CopyData and CopyDone without a COPY": async (context) => {
    const client = await context.open("all");
    client.send(copyData("x"), message("c", Buffer.alloc(0)));
    await client.query(allowed(context, "select 1"));
    await isAlive(client, context);
  },
  "a refused COPY FROM, with its data behind it": async (context) => {
    const client = await context.open("all");
    client.send(query(refused(context, "copy secret from stdin")), copyData("x\n"), message("c", Buffer.alloc(0)));
    isRefusal(await client.until("Z"));
    await isAlive(client, context);
  },
});

export const WIRE: readonly WireCase[] = [...pipelines, ...masked, ...copying];
