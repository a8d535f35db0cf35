import assert from "node:assert/strict";
import { bind, close, execute, parse, query, sync } from "../../protocols/postgres/messages.ts";
import { errors, rows, types } from "../clients/raw.ts";
import { type Case, type SqlCase, sql, type WireCase, wire } from "./case.ts";
import { allowed, extended, isAlive, isRefusal, refused } from "./messages.ts";

// What the gateway cannot see: code of the target's that changes search_path or the role, and messages that the server skips.

const READ = "select note from orders";

const moved = "search_path changed from within";
const MOVES: readonly SqlCase[] = [
  ...sql(moved, "mover", "policy", [
    ["do $$ begin perform set_config('search_path', 'hr', false); end $$", READ],
    ["do $$ begin set search_path = hr, public; end $$", "select n.note from orders n"],
    ["do $$ begin execute 'set schema ''hr'''; end $$", READ],
    ["call move_call()", READ],
    ["select move_in()", READ],
    ["select move_in() from generate_series(1, 2)", "set extra_float_digits = 2", "table orders"],
    ["select move_by_text('hr')", READ],
    ["select move_through()", READ],
    ["select public.move_through()", READ],
    ["select (m).move_field from moved m", READ],
    ["select move_all('hr', false)", READ],
    ["select * from v_moves", READ],
    ["insert into moved values (2)", READ],
    ["insert into moved_part values (3)", READ],
    ["update moved set id = 2 where id < 3", READ],
    ["begin", "select move_in()", READ],
    ["begin", "savepoint s", "select move_in()", "release s", READ],
    ["begin", "select move_in()", "commit", READ],
    ["explain analyze select move_in()", READ],
    ["prepare s as select move_in()", "execute s", READ],
    ["begin", "declare c cursor for select move_in()", "fetch c", READ],
    ["select move_in()", "create view w as select note from orders"],
    ["select move_in()", "update orders set note = 'x' where id = 1"],
    "select move_in(); select note from orders",
    "do $$ begin set search_path = hr; end $$; select note from orders",
    "insert into moved values (4); table orders",
    ["set search_path = hr", "begin", "set local search_path = public", "commit; select note from orders"],
    ["set search_path = hr", "begin", "savepoint s", "set search_path = public", "rollback to s; select note from orders"],
    ["begin", "savepoint s", "set search_path = hr", "savepoint t", "set search_path = public", "rollback to t; select note from orders"],
    ["select move_in()", "?rollback", "explain select note from orders"],
  ]),
  ...sql(moved, "mover", "runs sql:select", [
    // Undone with its transaction, asked for before and after.
    ["begin", "select move_in()", "rollback", READ],
    ["begin", "select move_in()", "?select note from orders", "rollback", READ],
    ["begin", "savepoint s", "select move_in()", "?select note from orders", "rollback to s", READ],
    ["begin", "select move_local()", "?select note from orders", "commit", READ],
    ["select move_and_back()", READ],
    ["select move_in()", "select move_out()", READ],
    ["select move_in()", "select note from public.orders"],
    ["select move_in()", "select what from readable"],
    ["select move_in()", "set search_path = public", READ],
    ["do $$ begin perform 1; end $$", READ],
    ["call move_call()", "select 1"],
    ["begin", "set local search_path = hr", "rollback", READ],
    ["begin isolation level repeatable read", "do $$ begin perform 1; end $$", READ],
    ["select stay()", READ],
    ["do $$ begin perform 1; end $$", "begin", "set transaction isolation level serializable", READ],
  ]),
];

/** The client learns why, and what it sent behind does not run. */
const endsBy =
  (setting: string, ...texts: readonly string[]): WireCase["run"] =>
  async (context) => {
    const client = await context.open("mover");
    for (const text of texts) client.send(query(allowed(context, text)));
    const frames = await client.until("Z", texts.length);
    if (!client.ended) client.send(query(refused(context, "select 1")));
    frames.push(...(await client.closed()));
    assert.ok(client.ended, "the session goes on");
    const said = errors(frames).at(-1);
    assert.match(said?.M ?? types(frames), new RegExp(`^Sluice: ${setting} changed to `));
  };

const PRIVILEGES = wire("role changed from within", {
  "to another role, by DO": endsBy("is_superuser", "do $$ begin set role elsewhere; end $$"),
  "to another superuser, by DO": endsBy("role", "do $$ begin set role twin; end $$"),
  "to another superuser, by a procedure": endsBy("role", "call become_twin()"),
  "to another superuser, by DO inside a block": endsBy("role", "begin", "do $$ begin set local role twin; end $$"),
  "session_authorization, by DO": endsBy("session_authorization", "do $$ begin set session authorization twin; end $$"),
  "and back, by DO": async (context) => {
    const client = await context.open("mover");
    await client.query(allowed(context, "do $$ begin set role twin; reset role; end $$"));
    assert.deepEqual(rows(await client.query(allowed(context, "select current_user"))), [["svc"]]);
    await isAlive(client, context);
  },
});

const PIPELINES = wire("names and settings behind what the server skipped", {
  "DO and a statement in one read": async (context) => {
    const client = await context.open("mover");
    client.send(
      query(allowed(context, "do $$ begin perform set_config('search_path', 'hr', false); end $$")),
      query(refused(context, READ)),
      query(allowed(context, "select 'behind'")),
    );
    const frames = await client.until("Z", 3);
    isRefusal(frames);
    assert.deepEqual(rows(frames), [["behind"]]);
    await isAlive(client, context);
  },
  "the end of a block and a statement in one read": async (context) => {
    for (const end of ["commit", "rollback"]) {
      const client = await context.open("mover");
      await client.query(allowed(context, "set search_path = hr"));
      await client.query(allowed(context, "begin"));
      await client.query(allowed(context, "set local search_path = public"));
      client.send(query(allowed(context, end)), query(refused(context, READ)));
      isRefusal(await client.until("Z", 2));
      await client.query(allowed(context, "begin"));
      await client.query(allowed(context, "set local search_path = public"));
      isRefusal(await client.ask([extended(allowed(context, end)), extended(refused(context, READ)), sync()]));
      await client.query(allowed(context, "set search_path = public"));
      await isAlive(client, context);
    }
  },
  "a savepoint gone back to and a statement in one read": async (context) => {
    const client = await context.open("mover");
    await client.query(allowed(context, "begin"));
    await client.query(allowed(context, "set search_path = hr"));
    await client.query(allowed(context, "savepoint s"));
    await client.query(allowed(context, "set search_path = public"));
    client.send(query(allowed(context, "rollback to s")), query(refused(context, READ)));
    isRefusal(await client.until("Z", 2));
    await isAlive(client, context);
  },
  "what a deferred trigger does at the end of a block": async (context) => {
    const client = await context.open("mover");
    await client.query(allowed(context, "begin"));
    await client.query(allowed(context, "insert into deferred values (1)"));
    assert.deepEqual(rows(await client.query(allowed(context, READ)))[0], ["one"]);
    client.send(query(allowed(context, "commit")), query(refused(context, READ)));
    isRefusal(await client.until("Z", 2));
    await isAlive(client, context);
  },
  "DO and a statement in one pipeline": async (context) => {
    const client = await context.open("mover");
    const text = "do $$ begin perform set_config('search_path', 'hr', false); end $$";
    isRefusal(await client.ask([extended(allowed(context, text)), extended(refused(context, READ)), sync()]));
    await isAlive(client, context);
  },
  "a prepared statement bound behind a function that moves": async (context) => {
    const client = await context.open("mover");
    await client.ask([parse("s", `/*${context.marker}-refused*/ ${READ}`), sync()]);
    await client.ask([extended(allowed(context, "select move_in()")), sync()]);
    isRefusal(await client.ask([bind("", "s"), execute(""), sync()]));
    await client.ask([extended(allowed(context, "select move_out()")), sync()]);
    assert.equal(rows(await client.ask([bind("", "s"), close("S", "x"), sync()])).length, 0);
    await isAlive(client, context);
  },
  "the unnamed statement, the suspended portal and the transaction are still there behind the question": async (context) => {
    const client = await context.open("mover");
    await client.query(allowed(context, "begin"));
    await client.ask([parse("", allowed(context, "select n from generate_series(1, 3) n")), bind("", ""), execute("", 1), sync()]);
    await client.ask([parse("s", allowed(context, "select move_out()")), bind("p", "s"), execute("p"), sync()]);
    assert.deepEqual(rows(await client.ask([parse("t", allowed(context, READ)), bind("q", "t"), execute("q", 1), sync()])), [["one"]]);
    assert.deepEqual(rows(await client.ask([execute("", 1), sync()])), [["2"]]);
    await isAlive(client, context);
  },
  "nothing that Sluice asks is left in the session": async (context) => {
    const client = await context.open("mover");
    await client.query(allowed(context, "select move_in()"));
    isRefusal(await client.query(refused(context, READ)));
    assert.deepEqual(rows(await client.query(allowed(context, "select name from pg_prepared_statements"))), []);
    await isAlive(client, context);
  },
  "Bind of a statement whose replacement was skipped": async (context) => {
    const client = await context.open("masked");
    await client.ask([parse("s", allowed(context, "select email from customers")), sync()]);
    client.send(
      parse("bad", allowed(context, "select nothing from orders")),
      close("S", "s"),
      parse("s", allowed(context, "select '1'")),
      sync(),
    );
    client.send(bind("", "s"), execute(""), sync());
    const seen = rows(await client.until("Z", 2)).flat();
    assert.deepEqual(seen, ["[REDACTED]", "[REDACTED]", "[REDACTED]"]);
    await isAlive(client, context);
  },
  "EXECUTE of a statement that was not prepared anew": async (context) => {
    const client = await context.open("masked");
    await client.query(allowed(context, "prepare s as select email from customers"));
    client.send(query(allowed(context, "prepare s as select '1'")), query(allowed(context, "execute s")));
    assert.deepEqual(rows(await client.until("Z", 2)).flat(), ["[REDACTED]", "[REDACTED]", "[REDACTED]"]);
    await isAlive(client, context);
  },
  "FETCH from a cursor that was not declared anew": async (context) => {
    const client = await context.open("masked");
    await client.query(allowed(context, "begin"));
    await client.query(allowed(context, "declare c cursor for select email from customers"));
    client.send(query(allowed(context, "declare c cursor for select '1'")), query(allowed(context, "fetch all c")));
    assert.deepEqual(rows(await client.until("Z", 2)), []);
    await isAlive(client, context);
  },
  "Describe of a statement whose Close was skipped": async (context) => {
    const client = await context.open("masked");
    await client.ask([parse("s", allowed(context, "select email from customers")), sync()]);
    client.send(parse("bad", allowed(context, "select nothing from orders")), close("S", "s"), sync());
    client.send(bind("", "s"), execute(""), sync());
    assert.deepEqual(rows(await client.until("Z", 2)).flat(), ["[REDACTED]", "[REDACTED]", "[REDACTED]"]);
    await isAlive(client, context);
  },
  "DEALLOCATE ALL behind a Close that was skipped": async (context) => {
    const client = await context.open("masked");
    await client.ask([parse("s", allowed(context, "select email from customers")), sync()]);
    client.send(parse("bad", allowed(context, "select nothing from orders")), close("S", "s"), sync());
    client.send(query(allowed(context, "deallocate all")), bind("", "s"), execute(""), sync());
    assert.equal(errors(await client.until("Z", 3)).at(-1)?.C, "26000");
    await isAlive(client, context);
  },
});

/** Each must be on record with its masked values (witness.ts). */
export const COUNTED = "masked and withheld fields are counted";
const COUNTS: readonly SqlCase[] = [
  ...sql(COUNTED, "watched", "fails 22P02", ["select number::uuid from cards"]),
  ...sql(COUNTED, "watched", "fails 23505", ["insert into cards (id, number) select 2, number from cards"]),
  ...sql(COUNTED, "watched", "runs", ["do $$ begin raise notice '%', (select number from cards); end $$"]),
  ...sql(COUNTED, "masked", "runs", ["update customers set region = region where id = 1"]),
  ...sql(COUNTED, "masked", "fails P0001", ["update customers set name = 'forbidden' where id = 1"]),
];

export const DOUBT: readonly Case[] = [...MOVES, ...PRIVILEGES, ...PIPELINES, ...COUNTS];
