import assert from "node:assert/strict";
import { setTimeout as sleep } from "node:timers/promises";
import { PROTOCOL_3_0, PROTOCOL_3_2, passwordMessage, query, startupMessage, sync } from "../../protocols/postgres/messages.ts";
import { answerByte, errors, openSocket, rawCancel, rows } from "../clients/raw.ts";
import { type WireCase, type WireContext, wire } from "./case.ts";
import { allowed, isAlive, isEnded, isRefusal, message, refused } from "./messages.ts";
import { LONG_SCHEMA } from "./policy.ts";

// Messages that do not belong: lengths, types, startup packets, cancel requests.

/** Bytes after which nothing may happen; the statement behind them must not run. */
const fatal =
  (bytes: (context: WireContext) => Uint8Array, ...accepted: readonly string[]): WireCase["run"] =>
  async (context) => {
    const client = await context.open("all");
    client.send(bytes(context), query(refused(context, "select 1")));
    await isEnded(client, ...accepted);
  };

const startup =
  (parameters: Readonly<Record<string, string>>, ...accepted: readonly string[]): WireCase["run"] =>
  async (context) => {
    const client = await context.open("all", { parameters });
    assert.ok(client.ended, "was let in");
    assert.ok(accepted.includes(errors(client.startup)[0]?.C ?? ""), JSON.stringify(errors(client.startup)));
  };

/** Untyped first bytes: no answer but a refusal. */
const first =
  (bytes: (password: string) => Uint8Array): WireCase["run"] =>
  async (context) => {
    const to = await context.destination("all");
    const socket = await openSocket(to);
    const chunks: Buffer[] = [];
    socket.on("data", (chunk: Buffer) => chunks.push(chunk));
    socket.on("error", () => undefined);
    const closed = new Promise<void>((resolve) => socket.once("close", () => resolve()));
    socket.write(bytes(to.password ?? ""));
    await Promise.race([closed, sleep(5_000).then(() => Promise.reject(new Error("the connection stays open")))]);
    const answer = Buffer.concat(chunks).toString("latin1");
    assert.ok(!answer.includes("Z\0\0\0\x05"), "a session was opened");
    assert.ok(!answer.includes("R\0\0\0\x08\0\0\0\0"), "was authenticated");
  };

const int32 = (...values: readonly number[]): Buffer => {
  const bytes = Buffer.alloc(values.length * 4);
  values.forEach((value, index) => bytes.writeInt32BE(value | 0, index * 4));
  return bytes;
};

const outOfPlace = wire("message types and lengths", {
  FunctionCall: async (context) => {
    const client = await context.open("all");
    const body = Buffer.concat([int32(2_093), Buffer.from([0, 0, 0, 0, 0, 0])]);
    isRefusal(await client.ask([message("F", body)]));
    isRefusal(await client.ask([message("F", Buffer.alloc(0))]));
    await isAlive(client, context);
  },
  "a second StartupMessage": fatal(() => startupMessage(PROTOCOL_3_0, [["user", "svc"]]), "08P01", "54000"),
  "a password after authentication": fatal(() => passwordMessage("x"), "08P01", "54000"),
  "a Parse with a zero in its text": fatal(
    (context) => message("P", Buffer.from(`s\0select 1\0${refused(context, "select 2")}\0\0\0`)),
    "08P01",
  ),
  "an unknown type": fatal(() => message("!", Buffer.from("x")), "08P01", "54000"),
  "a type of the server": fatal(() => message("Z", Buffer.from("I")), "08P01", "54000"),
  CopyBoth: fatal(() => message("W", Buffer.from([0, 0, 0])), "08P01", "54000"),
  "a length of three": fatal(() => message("Q", Buffer.alloc(0), 3), "08P01", "54000"),
  "a length of zero": fatal(() => message("S", Buffer.alloc(0), 0), "08P01", "54000"),
  "a negative length": fatal(() => message("Q", Buffer.from("select 1\0"), -1), "08P01", "54000"),
  "the smallest length": fatal(() => message("P", Buffer.from("x"), -0x8000_0000), "08P01", "54000"),
  "a length of two gigabytes": fatal(() => message("Q", Buffer.from("select 1\0"), 0x7fff_ffff), "08P01", "54000"),
  "a Sync of a megabyte": fatal(() => message("S", Buffer.alloc(0), 1_048_576), "08P01", "54000"),
  "a Query without its zero": fatal((context) => message("Q", Buffer.from(refused(context, "select 1"))), "08P01"),
  "an empty Query body": fatal(() => message("Q", Buffer.alloc(0)), "08P01"),
  "a Parse without its zero": fatal(() => message("P", Buffer.from("s")), "08P01"),
  "a Parse with too many types": fatal(() => message("P", Buffer.from("s\0select 1\0\x7f\xff", "latin1")), "08P01"),
  "a Parse with bytes behind its types": fatal(
    (context) => message("P", Buffer.from(`s\0${refused(context, "select 1")}\0\0\0x`)),
    "08P01",
  ),
  "a Bind with more parameters than it has": fatal(() => message("B", Buffer.from("\0\0\0\0\x7f\xff", "latin1")), "08P01"),
  "a Bind with a parameter longer than the message": fatal(
    () => message("B", Buffer.from("\0\0\0\0\0\x01\x7f\xff\xff\xff", "latin1")),
    "08P01",
  ),
  "a Bind with a parameter of length -2": fatal(() => message("B", Buffer.from("\0\0\0\0\0\x01\xff\xff\xff\xfe\0\0", "latin1")), "08P01"),
  "an Execute that is too short": fatal(() => message("E", Buffer.from("p\0\0")), "08P01"),
  "a Describe of neither": fatal(() => message("D", Buffer.from("Xp\0")), "08P01"),
  "a Close without its zero": fatal(() => message("C", Buffer.from("Sp")), "08P01"),
  "a zero in a Query": async (context) => {
    const client = await context.open("all");
    isRefusal(await client.ask([message("Q", Buffer.from(`select 1\0/*${context.marker}-refused*/ delete from orders\0`))]));
    isRefusal(await client.ask([message("Q", Buffer.from(`${refused(context, "select 'a")}\0b'\0`))]));
    await isAlive(client, context);
  },
  "bytes that are not UTF-8": async (context) => {
    const client = await context.open("all");
    for (const bytes of [[0x95, 0x5c], [0xc0, 0x80], [0xed, 0xa0, 0x80], [0xf8, 0x88, 0x80, 0x80, 0x80], [0xc3]]) {
      const text = Buffer.concat([
        Buffer.from(`${refused(context, "select '")}`),
        Buffer.from(bytes),
        Buffer.from("'; delete from orders; --'\0"),
      ]);
      isRefusal(await client.ask([message("Q", text)]), bytes.join(" "));
      isRefusal(await client.ask([message("P", Buffer.concat([Buffer.from("\0"), text, Buffer.alloc(2)])), sync()]), bytes.join(" "));
    }
    await isAlive(client, context);
  },
  "byte by byte": async (context) => {
    const client = await context.open("all");
    for (const byte of query(refused(context))) {
      client.send(Uint8Array.of(byte));
      await new Promise(setImmediate);
    }
    isRefusal(await client.until("Z"));
    await isAlive(client, context);
  },
});

const opening = wire("startup and cancel", {
  "replication=true": startup({ replication: "true" }, "42501"),
  "replication=database": startup({ replication: "database" }, "42501"),
  "replication=1": startup({ replication: "1" }, "42501"),
  "options=-c": startup({ options: "-c search_path=hr" }, "42501"),
  "options=--search_path": startup({ options: "--search_path=hr" }, "42501"),
  search_path: async (context) => {
    for (const search_path of ["hr", '"hr", public', `${LONG_SCHEMA}zz`]) {
      const client = await context.open("only", { parameters: { search_path } });
      isRefusal(await client.query(refused(context, "select * from orders")), search_path);
      client.close();
    }
    const client = await context.open("all", { parameters: { SEARCH_PATH: "pg_temp, hr, public" } });
    isRefusal(await client.query(refused(context)));
    await isAlive(client, context);
  },
  role: startup({ role: "elsewhere" }, "42501"),
  session_authorization: startup({ session_authorization: "elsewhere" }, "42501"),
  standard_conforming_strings: startup({ standard_conforming_strings: "off" }, "42501"),
  STANDARD_CONFORMING_STRINGS: startup({ STANDARD_CONFORMING_STRINGS: "off" }, "42501"),
  client_encoding: startup({ client_encoding: "SJIS" }, "08P01"),
  CLIENT_ENCODING: startup({ CLIENT_ENCODING: "SJIS" }, "42501", "08P01"),
  session_preload_libraries: startup({ session_preload_libraries: "auto_explain" }, "42501"),
  "a user that is not the target's": async (context) => {
    const client = await context.open("all", { user: "postgres" });
    assert.deepEqual(rows(await client.query(allowed(context, "select current_user, session_user"))), [["svc", "svc"]]);
    client.close();
  },
  "a password that is no token": async (context) => {
    const client = await context.open("all", { password: "svc-password" });
    assert.ok(client.ended);
    assert.equal(errors(client.startup)[0]?.C, "28P01");
  },
  "a parameter sent twice": first(() =>
    startupMessage(PROTOCOL_3_0, [
      ["user", "a"],
      ["database", "pg18"],
      ["database", "pg15"],
    ]),
  ),
  "protocol 2": first(() => startupMessage(0x0002_0000, [["user", "a"]])),
  "protocol 4": first(() => startupMessage(0x0004_0000, [["user", "a"]])),
  "a length of two gigabytes": first(() => int32(0x7fff_ffff, PROTOCOL_3_0)),
  "a negative length": first(() => int32(-5, PROTOCOL_3_0)),
  "a length of four": first(() => int32(4)),
  "no terminating zero": first(() => Buffer.concat([int32(13, PROTOCOL_3_0), Buffer.from("user\0")])),
  "bytes behind the parameters": first(() => Buffer.concat([int32(20, PROTOCOL_3_0), Buffer.from("user\0a\0\0xyzw")])),
  "a Query before the password": first(() =>
    Buffer.concat([
      startupMessage(PROTOCOL_3_0, [
        ["user", "a"],
        ["database", "pg18"],
      ]),
      query("select 1"),
    ]),
  ),
  HTTP: first(() => Buffer.from("GET / HTTP/1.1\r\nHost: x\r\n\r\n")),
  "a second SSLRequest": async (context) => {
    const socket = await openSocket(await context.destination("all"));
    assert.equal(await answerByte(socket, int32(8, 80_877_103)), "N");
    const closed = new Promise<void>((resolve) => socket.once("close", () => resolve()));
    socket.on("error", () => undefined).resume();
    socket.write(int32(8, 80_877_103));
    await closed;
  },
  "GSSENCRequest is answered N": async (context) => {
    const socket = await openSocket(await context.destination("all"));
    assert.equal(await answerByte(socket, int32(8, 80_877_104)), "N");
    socket.destroy();
  },
  "a cancel request with a wrong key does nothing, with the right one it cancels": async (context) => {
    const to = await context.destination("all");
    const [victim, other] = [await context.open("all"), await context.open("all")];
    victim.send(query(allowed(context, "select pg_sleep(0.6)")));
    const wrong = Buffer.from(victim.key.map((byte, index) => (index === 0 ? byte ^ 1 : byte)));
    for (const [id, key] of [
      [victim.processId, wrong],
      [victim.processId, other.key],
      [victim.processId + 1, victim.key],
      [0, Buffer.alloc(4)],
      [victim.processId, Buffer.concat([victim.key, Buffer.alloc(1)])],
    ] as const) {
      await rawCancel(to, id, key);
    }
    assert.equal(errors(await victim.until("Z")).length, 0);
    victim.send(query(allowed(context, "select pg_sleep(5)")));
    await sleep(50);
    await rawCancel(to, victim.processId, victim.key);
    assert.equal(errors(await victim.until("Z"))[0]?.C, "57014");
    other.close();
    await isAlive(victim, context);
  },
  "a cancel key of protocol 3.2": async (context) => {
    const client = await context.open("all", { version: PROTOCOL_3_2 });
    assert.ok(client.key.length >= 4);
    client.send(query(allowed(context, "select pg_sleep(0.2)")));
    await rawCancel(await context.destination("all"), client.processId, Buffer.alloc(client.key.length));
    assert.equal(errors(await client.until("Z")).length, 0);
    await isAlive(client, context);
  },
});

export const MESSAGES: readonly WireCase[] = [...outOfPlace, ...opening];
