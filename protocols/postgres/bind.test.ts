import assert from "node:assert/strict";
import { test } from "node:test";
import { NameReader, readBind, readParameters } from "./bind.ts";
import { bind, close } from "./messages.ts";

test("names, parameters and result formats of a Bind", () => {
  const message = bind("portal", "statement", ["one", undefined, ""]);
  const read = readBind(message, 0, message.length, new NameReader());
  assert.equal(read.portal, "portal");
  assert.equal(read.statement, "statement");
  assert.deepEqual(readParameters(message.subarray(read.parametersStart, read.parametersEnd)), ["one", undefined, ""]);
  assert.equal(read.resultFormats, "text");
});

test("every truncation and every wrong count is refused", () => {
  const message = bind("p", "s", ["one", "two"]);
  for (let end = 5; end < message.length; end += 1)
    assert.throws(() => readBind(message, 0, end, new NameReader()), /malformed Bind/, `cut at ${end}`);
  for (let at = 9; at < message.length; at += 1) {
    const bad = Buffer.from(message);
    bad[at] ^= 0x80;
    try {
      const read = readBind(bad, 0, bad.length, new NameReader());
      assert.ok(read.parametersEnd <= bad.length);
    } catch (error) {
      assert.match(String(error), /malformed Bind/);
    }
  }
});

test("binary parameters have no text form", () => {
  const section = Buffer.from([0, 1, 0, 1, 0, 1, 0, 0, 0, 2, 1, 2]);
  assert.deepEqual(readParameters(section), [undefined]);
});

test("names are the server's: 63 bytes, and the one read last is not taken for another", () => {
  const names = new NameReader();
  const read = (text: string): string => names.read(Buffer.from(text), 0, Buffer.byteLength(text));
  for (const name of ["a", "b", "a", "a", "ab", "a", "", "b", "ä"]) assert.equal(read(name), name);
  assert.equal(read("n".repeat(70)), "n".repeat(63));
  assert.equal(read("n".repeat(63)), "n".repeat(63));
  assert.throws(() => read(`${"n".repeat(62)}ää`), /cannot be cut between two characters/);
});

test("of a name that is longer than the server's nothing is kept", () => {
  const names = new NameReader();
  const message = close("S", "n".repeat(32 * 1024 * 1024));
  const before = process.memoryUsage().arrayBuffers;
  assert.equal(names.read(message, 6, message.length - 1), "n".repeat(63));
  assert.ok(process.memoryUsage().arrayBuffers - before < 1024 * 1024);
  assert.equal(names.read(message, 6, message.length - 1), "n".repeat(63));
});
