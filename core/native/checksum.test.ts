import assert from "node:assert/strict";
import { randomBytes } from "node:crypto";
import { test } from "node:test";
import zlib from "node:zlib";
import { loadJournal } from "./addons.ts";
import { checksum } from "./checksum.ts";

test("a checksum is zlib's CRC-32, for every length and place", () => {
  assert.equal(typeof loadJournal().checksum(new Uint8Array(1), 0, 1), "number", "the addon has none here");
  const bytes = randomBytes(70_000);
  const same = (start: number, end: number): void =>
    assert.equal(checksum(bytes, start, end), zlib.crc32(bytes.subarray(start, end)), `[${start}, ${end})`);
  for (let length = 0; length <= 300; length += 1) for (let start = 0; start < 17; start += 1) same(start, start + length);
  for (const length of [65_536, 65_535, 4_095, 4_111, 69_999]) same(1, 1 + length);
  assert.equal(checksum(Buffer.alloc(4_096), 0, 4_096), zlib.crc32(Buffer.alloc(4_096)));
  assert.equal(checksum(Buffer.alloc(4_096, 255), 0, 4_096), zlib.crc32(Buffer.alloc(4_096, 255)));
});

test("what is outside of the bytes is refused", () => {
  for (const [start, end] of [
    [0, 5],
    [3, 2],
    [-1, 2],
  ] as const)
    assert.throws(() => loadJournal().checksum(new Uint8Array(4), start, end), /range/);
});
