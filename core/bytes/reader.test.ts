import assert from "node:assert/strict";
import { test } from "node:test";
import { Reader } from "./reader.ts";
import { Writer } from "./writer.ts";

const violation = { code: "SLUICE_PROTOCOL_VIOLATION" };

test("what was written is read back", () => {
  const bytes = new Writer(1)
    .byte(255)
    .int16(-2)
    .int32(-3)
    .int32(0x7fff_ffff)
    .cstring("grün")
    .bytes(Buffer.from([1, 2, 3]))
    .int16(0)
    .done();
  const reader = new Reader(bytes);
  assert.equal(reader.byte(), 255);
  assert.equal(reader.int16(), -2);
  assert.equal(reader.int32(), -3);
  assert.equal(reader.int32(), 0x7fff_ffff);
  assert.equal(reader.cstring(), "grün");
  assert.deepEqual([...reader.take(3)], [1, 2, 3]);
  assert.throws(() => reader.finish(), violation);
  assert.equal(reader.uint16(), 0);
  reader.finish();
});

test("no method reads past the end, wherever the bytes are cut", () => {
  const reads: ((reader: Reader) => unknown)[] = [(r) => r.byte(), (r) => r.int16(), (r) => r.uint16(), (r) => r.int32(), (r) => r.take(5)];
  const sizes = [1, 2, 2, 4, 5];
  const bytes = Uint8Array.from({ length: 20 }, () => 1);
  reads.forEach((read, i) => {
    for (let length = 0; length < sizes[i]!; length++) assert.throws(() => read(new Reader(bytes, 3, 3 + length)), violation);
    read(new Reader(bytes, 3, 3 + sizes[i]!));
  });
  assert.throws(() => new Reader(bytes).take(-1), violation);
});

test("a string ends inside its range or not at all", () => {
  const bytes = Buffer.from("abc\0");
  assert.throws(() => new Reader(bytes, 0, 3).cstring(), violation);
  assert.equal(new Reader(bytes).cstring(), "abc");
  assert.throws(() => new Writer().cstring("a\0b"), violation);
});
