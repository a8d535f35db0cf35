import assert from "node:assert/strict";
import { describe, it } from "node:test";
import type { RecordedBytes } from "./recorded.ts";
import { renderTranscript } from "./replay.ts";

type Direction = RecordedBytes["direction"];
const text = (value: string) => Buffer.from(`${value}\0`);
const int16 = (value: number) => Buffer.from([(value >> 8) & 255, value & 255]);
const int32 = (value: number) => {
  const bytes = Buffer.alloc(4);
  bytes.writeInt32BE(value);
  return bytes;
};
const message = (type: string, ...parts: Uint8Array[]) => {
  const body = Buffer.concat(parts);
  return Buffer.concat([Buffer.from(type, "latin1"), int32(body.length + 4), body]);
};
const query = (sql: string) => message("Q", text(sql));
const columns = (...list: (string | [name: string, type: number, format: number])[]) =>
  message(
    "T",
    int16(list.length),
    ...list.flatMap((entry) => {
      const [name, type, format] = typeof entry === "string" ? [entry, 25, 0] : entry;
      return [text(name), int32(0), int16(0), int32(type), int16(-1), int32(-1), int16(format)];
    }),
  );
const row = (...values: (string | Buffer | null)[]) =>
  message(
    "D",
    int16(values.length),
    ...values.flatMap((value) => (value === null ? [int32(-1)] : [int32(Buffer.from(value).length), Buffer.from(value)])),
  );
const complete = (tag: string) => message("C", text(tag));
const ready = message("Z", Buffer.from("I"));
const piece = (direction: Direction, micros: number, bytes: Uint8Array, request = 1): RecordedBytes => ({
  direction,
  micros,
  request,
  bytes,
});

async function render(pieces: readonly RecordedBytes[]): Promise<string> {
  let out = "";
  for await (const part of renderTranscript(pieces)) out += part;
  return out;
}

describe("a transcript", () => {
  it("shows a simple query with its result and time", async () => {
    const out = await render([
      piece("fromClient", 1_000_000, query("select id, name from t")),
      piece("toClient", 1_002_500, Buffer.concat([columns("id", "name"), row("1", "Ann"), row("22", null), complete("SELECT 2"), ready])),
      piece("fromClient", 3_500_000, message("X")),
    ]);
    assert.equal(
      out,
      [
        "",
        "[+0.000 s] select id, name from t",
        " id | name",
        "----+------",
        " 1  | Ann",
        " 22 | NULL",
        "SELECT 2 (2.5 ms)",
        "",
        "-- the client ended the session",
        "",
      ].join("\n"),
    );
  });

  it("is the same however the bytes are split", async () => {
    const client = Buffer.concat([query("select 1"), query("select 2")]);
    const server = Buffer.concat([
      columns("a"),
      row("1"),
      complete("SELECT 1"),
      ready,
      columns("b"),
      row("2"),
      complete("SELECT 1"),
      ready,
    ]);
    const whole = await render([piece("fromClient", 0, client), piece("toClient", 0, server)]);
    assert.match(whole, / a\n---\n 1\nSELECT 1[^]* b\n---\n 2\nSELECT 1/);
    for (let at = 1; at < server.length; at++) {
      assert.equal(
        await render([
          piece("fromClient", 0, client),
          piece("toClient", 0, server.subarray(0, at)),
          piece("toClient", 0, server.subarray(at)),
        ]),
        whole,
        String(at),
      );
    }
  });

  it("follows the extended protocol: parameters, described statements, binary results, errors up to Sync", async () => {
    const parse = message("P", text("s1"), text("select n from t where id = $1 and x = $2"), int16(0));
    const describeStatement = message("D", Buffer.from("S"), text("s1"));
    const bind = message("B", text(""), text("s1"), int16(0), int16(2), int32(1), Buffer.from("7"), int32(-1), int16(1), int16(1));
    const execute = message("E", text(""), int32(0));
    const failing = Buffer.concat([message("E", Buffer.from("C"), text("42501"), Buffer.from("M"), text("no"), Buffer.from([0])), ready]);
    const out = await render([
      piece("fromClient", 0, Buffer.concat([parse, describeStatement, message("S")])),
      piece("toClient", 10, Buffer.concat([message("1"), message("t", int16(0)), columns(["n", 23, 0]), ready])),
      piece("fromClient", 1000, Buffer.concat([bind, execute, message("S"), bind, execute, execute, message("S"), query("select 3")]), 2),
      piece(
        "toClient",
        3000,
        Buffer.concat([
          message("2"),
          row(int32(-5)),
          complete("SELECT 1"),
          ready,
          failing,
          columns("c"),
          row("3"),
          complete("SELECT 1"),
          ready,
        ]),
        2,
      ),
    ]);
    assert.match(out, /select n from t where id = \$1 and x = \$2\n {2}\$1 = '7'\n {2}\$2 = NULL/);
    assert.match(out, / n\n----\n -5\nSELECT 1 \(2\.0 ms\)/);
    assert.match(out, /ERROR 42501: no/);
    assert.match(out, / c\n---\n 3\nSELECT 1 \(2\.0 ms\)\n$/);
  });

  it("makes terminal sequences and direction marks harmless everywhere", async () => {
    const evil = "\u001b]52;c;aGk=\u0007\u009b31m\u202eabc\u2028\r\n\u200b";
    const out = await render([
      piece("fromClient", 0, query(`select '${evil}'`)),
      piece(
        "toClient",
        0,
        Buffer.concat([
          message("N", Buffer.from("M"), text(evil), Buffer.from([0])),
          message("A", int32(1), text(evil), text(evil)),
          columns(evil),
          row(evil),
          complete(evil),
          message("E", Buffer.from("M"), text(evil), Buffer.from("D"), text(evil), Buffer.from([0])),
          ready,
        ]),
      ),
      piece(
        "fromClient",
        0,
        Buffer.concat([
          message("P", text(evil), text(evil), int16(0)),
          message("B", text(""), text(evil), int16(0), int16(1), int32(Buffer.byteLength(evil)), Buffer.from(evil), int16(0)),
          message("E", text(""), int32(0)),
          message("f", text(evil)),
        ]),
      ),
    ]);
    assert.doesNotMatch(out, /(?!\n)[\p{Cc}\p{Cf}\p{Zl}\p{Zp}]/u);
    assert.ok(out.includes("\\u{1b}]52"));
  });

  it("goes on after an answer of which only the head was kept", async () => {
    const first = Buffer.concat([columns("a"), row("x".repeat(1000))]);
    const out = await render([
      piece("fromClient", 0, query("select 1")),
      piece("toClient", 0, first.subarray(0, 200), 1),
      piece("fromClient", 1, query("select 2"), 1),
      piece("toClient", 1, Buffer.concat([columns("b"), row("2"), complete("SELECT 1"), ready]), 2),
    ]);
    assert.match(out, / b\n---\n 2\nSELECT 1/);
  });

  it("says where a recording is damaged, reads past no end, and counts what is too large", async () => {
    const damaged: [Uint8Array, RegExp][] = [
      [Buffer.from("D\0\0\0\x03"), /cannot be read further/],
      [message("D", int16(500), int32(4)), /cannot be read further/],
      [message("D", int16(1), int32(0x7fff_ffff)), /cannot be read further/],
      [message("T", int16(1), Buffer.from("no end")), /cannot be read further/],
      [Buffer.concat([Buffer.from("D"), int32(0x2000_0000)]), /a message of 536870908 bytes/],
    ];
    for (const [bytes, expected] of damaged) assert.match(await render([piece("toClient", 0, bytes)]), expected);
  });

  it("counts copied bytes and rows beyond those shown", async () => {
    const rows = Array.from({ length: 1_003 }, () => row("1"));
    const out = await render([
      piece("fromClient", 0, query("copy t to stdout")),
      piece(
        "toClient",
        0,
        Buffer.concat([message("d", Buffer.alloc(10)), message("d", Buffer.alloc(5)), message("c"), complete("COPY 2"), ready]),
      ),
      piece("fromClient", 0, query("select")),
      piece("toClient", 0, Buffer.concat([columns("a"), ...rows, complete("SELECT 1003"), ready])),
    ]);
    assert.match(out, /received 15 bytes\nCOPY 2/);
    assert.match(out, /and 3 more rows/);
  });
});
