import assert from "node:assert/strict";
import { test } from "node:test";
import { copyInto, copyOf, Keep, sameBytes, zeroIn } from "./copy.ts";

const source = Uint8Array.from({ length: 500 }, (_, index) => index & 0xff);

test("copies of every length are what a slice would be, and are their own", () => {
  for (let length = 0; length <= 300; length += 1) {
    const copy = copyOf(source, 7, 7 + length);
    assert.deepEqual(copy, source.slice(7, 7 + length));
    assert.notEqual(copy.buffer, source.buffer);
    const target = new Uint8Array(400).fill(0xee);
    copyInto(source, 7, 7 + length, target, 50);
    assert.deepEqual(target.subarray(50, 50 + length), source.subarray(7, 7 + length));
    assert.ok(target.subarray(0, 50).every((byte) => byte === 0xee) && target.subarray(50 + length).every((byte) => byte === 0xee));
  }
});

test("a difference in length or in any byte is seen", () => {
  const bytes = source.slice(0, 40);
  assert.ok(sameBytes(source, 0, 40, bytes));
  assert.ok(!sameBytes(source, 0, 39, bytes) && !sameBytes(source, 0, 41, bytes));
  for (let index = 0; index < 40; index += 1) {
    const other = bytes.slice();
    other[index]! ^= 1;
    assert.ok(!sameBytes(source, 0, 40, other));
  }
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
