import assert from "node:assert/strict";
import { test } from "node:test";
import { copyInto, copyOf, destination, Keep, Recent, Seen, zeroIn } from "./copy.ts";

const source = Uint8Array.from({ length: 500 }, (_, index) => index & 0xff);

test("copies of every length, from and to memory of any kind, are what a slice would be, and are their own", () => {
  for (const from of [source, Buffer.from(source), new Uint8Array([9, 9, 9, ...source]).subarray(3)]) {
    for (let length = 0; length <= 400; length += 1) {
      const copy = copyOf(from, 7, 7 + length);
      assert.deepEqual(copy, source.slice(7, 7 + length));
      assert.notEqual(copy.buffer, from.buffer);
      const target = new Uint8Array(500).fill(0xee);
      copyInto(from, 7, 7 + length, destination(target.subarray(10)), 50);
      assert.deepEqual(target.subarray(60, 60 + length), source.subarray(7, 7 + length));
      assert.ok(target.subarray(0, 60).every((byte) => byte === 0xee) && target.subarray(60 + length).every((byte) => byte === 0xee));
    }
  }
});

test("neither the source nor the destination is left", () => {
  const to = destination(new Uint8Array(1_000).subarray(0, 300));
  for (const length of [1, 7, 8, 9, 100, 256, 257, 290]) {
    assert.throws(() => copyInto(source.subarray(0, 300), 301 - length, 301, to, 0), RangeError, `source, ${length} bytes`);
    assert.throws(() => copyInto(source, 0, length, to, 301 - length), RangeError, `destination, ${length} bytes`);
    copyInto(source, 0, length, to, 300 - length);
  }
});

test("arrays that take turns, and share memory, are told apart", () => {
  const memory = Uint8Array.from({ length: 256 }, (_, index) => index);
  const arrays = [memory, memory.subarray(16), memory.subarray(32, 64), Buffer.from(memory.buffer, 48), Uint8Array.from(memory).reverse()];
  const large = new Uint8Array(3 * 1024 * 1024).fill(0x5a);
  const to = destination(new Uint8Array(16));
  for (let round = 0; round < 500; round += 1) {
    const from = round % 50 === 0 ? large : arrays[(round * 7 + (round >> 3)) % arrays.length]!;
    copyInto(from, 3, 15, to, 2);
    assert.deepEqual([...to.buffer.subarray(2, 14)], [...from.subarray(3, 15)]);
  }
});

test("a difference in length or in any byte is seen", () => {
  for (const length of [0, 1, 3, 4, 7, 40, 43]) {
    const seen = new Seen(source, 5, 5 + length);
    assert.ok(seen.is(Buffer.from(source), 5, 5 + length));
    assert.ok(!seen.is(source, 5, 6 + length));
    if (length > 0) assert.ok(!seen.is(source, 5, 4 + length));
    for (let index = 0; index < length; index += 1) {
      const other = source.slice(5, 5 + length);
      assert.ok(seen.is(other, 0, length));
      other[index]! ^= 0x80;
      assert.ok(!seen.is(other, 0, length));
    }
  }
});

test("what was seen is a copy", () => {
  const bytes = source.slice(0, 20);
  const seen = new Seen(bytes, 2, 12);
  bytes.fill(0);
  assert.ok(seen.is(source, 2, 12));
});

test("the first zero within the range is found, near or far, and none beyond it", () => {
  for (const at of [0, 1, 95, 96, 97, 200]) {
    const bytes = new Uint8Array(300).fill(1);
    bytes[at] = 0;
    bytes[250] = 0;
    assert.equal(zeroIn(bytes, 0, 240), at);
    assert.equal(zeroIn(bytes, at, at + 1), at);
    assert.equal(zeroIn(bytes, at + 1, 250), -1);
    assert.equal(zeroIn(bytes, at + 1, 251), 250);
  }
  assert.equal(zeroIn(new Uint8Array(4).fill(1), 0, 4), -1);
});

test("kept copies stay as they were, whatever is kept after them", () => {
  const keep = new Keep();
  const kept: { chunk: Uint8Array; at: number; expected: Uint8Array }[] = [];
  for (let round = 0; round < 200; round += 1) {
    const length = (round * 37) % 300;
    const expected = Uint8Array.from({ length }, () => round);
    kept.push({ at: keep.keep(expected, 0, length), chunk: keep.chunk, expected });
  }
  const large = new Uint8Array(5_000).fill(7);
  kept.push({ at: keep.keep(large, 0, 5_000), chunk: keep.chunk, expected: large });
  for (const { chunk, at, expected } of kept) assert.deepEqual(chunk.slice(at, at + expected.length), expected);
  assert.ok(new Set(kept.map(({ chunk }) => chunk)).size < 60);
});

test("what was made of recent bytes is had again for equal ones, and for no others", () => {
  let made = 0;
  const recent = new Recent((bytes, start, end) => {
    made += 1;
    if (bytes[start] === 0xff) throw new Error("not these");
    return Buffer.from(bytes.subarray(start, end)).toString("latin1");
  });
  const get = (text: string, before = 0) => {
    const bytes = Buffer.from(`${" ".repeat(before)}${text}behind`, "latin1");
    const of = recent.get(bytes, before, before + text.length);
    bytes.fill(0);
    return of;
  };
  const first = get("name");
  assert.equal(first.value, "name");
  assert.equal(get("name", 5), first);
  assert.equal(made, 1);
  for (const other of ["nam", "names", "Name", "namf", ""]) assert.equal(get(other).value, other);
  // More than there is room for: all of them right, the oldest made anew, the youngest not.
  for (let round = 0; round < 2; round += 1) for (let index = 0; index < 200; index += 1) assert.equal(get(`n${index}`).value, `n${index}`);
  made = 0;
  get("n199");
  assert.equal(made, 0);
  assert.notEqual(get("name"), first);
  assert.equal(get("name").value, "name");
  assert.equal(made, 1);
  // What cannot be made is tried again each time, and takes nobody's place.
  made = 0;
  for (let index = 0; index < 100; index += 1) assert.throws(() => get("\xff\xff"), /not these/);
  get("n199");
  assert.equal(made, 100);
  // What is long is not kept for others.
  const long = "x".repeat(5_000);
  made = 0;
  for (let index = 0; index < 50; index += 1) {
    const { bytes, value } = get(long);
    assert.ok(value === long && bytes.is(Buffer.from(long), 0, long.length));
  }
  get("n199");
  assert.equal(made, 50);
});
