import {
  bind,
  close,
  copyFail,
  describe,
  execute,
  flush,
  PROTOCOL_3_0,
  parse,
  passwordMessage,
  query,
  startupMessage,
  sync,
  terminate,
} from "../../protocols/postgres/messages.ts";

const typed = (type: string, body: Uint8Array): Buffer => {
  const message = Buffer.alloc(5 + body.length);
  message.write(type, 0, "latin1");
  message.writeInt32BE(4 + body.length, 1);
  message.set(body, 5);
  return message;
};

/** A session as a client sends it, one message each: simple and extended queries, COPY both ways, errors, a block, Terminate. Needs a table notes(id int, text text). */
export function conversation(token: string): Uint8Array[] {
  return [
    startupMessage(PROTOCOL_3_0, [
      ["user", "anyone"],
      ["database", "db"],
      ["application_name", "recorded"],
    ]),
    passwordMessage(token),
    ...statements(),
    terminate(),
  ];
}

/** What follows the startup, without Terminate. */
export function statements(): Uint8Array[] {
  return [
    query("select 1, 'two', null; select generate_series(1, 30)"),
    query("begin; insert into notes values (1, 'a'); savepoint s"),
    query("this does not parse"),
    query("rollback"),
    parse("s1", "select id, text from notes where id = $1 or text = $2", [23, 25]),
    describe("S", "s1"),
    sync(),
    bind("p1", "s1", ["1", "b"]),
    describe("P", "p1"),
    execute("p1", 1),
    execute("p1"),
    close("P", "p1"),
    sync(),
    bind("", "s1", [undefined, ""]),
    execute(""),
    flush(),
    bind("", "none"),
    execute(""),
    sync(),
    query("copy notes from stdin"),
    typed("d", Buffer.from("7\tseven\n8\t")),
    typed("d", Buffer.from("eight\n")),
    typed("c", Buffer.alloc(0)),
    query("copy notes from stdin"),
    typed("d", Buffer.from("9\tnine\n")),
    copyFail("changed my mind"),
    query("copy (select 1, 'x' from generate_series(1, 20)) to stdout"),
    query("set search_path = public; show search_path; declare c cursor with hold for select 1; fetch all c; close c"),
    query("prepare q(int) as select $1; execute q(5); deallocate q"),
    query("select pg_notify('c', 'x')"),
    query(""),
    close("S", "s1"),
    sync(),
  ];
}
