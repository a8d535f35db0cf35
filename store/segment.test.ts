import assert from "node:assert/strict";
import { once } from "node:events";
import fs from "node:fs";
import path from "node:path";
import { test } from "node:test";
import { Worker } from "node:worker_threads";
import { BLOCK_HEADER_BYTES } from "./layout.ts";
import { SegmentCursor } from "./segment.ts";
import { finishBlock } from "./start.ts";
import { temporaryFolder } from "./testing.ts";

/** Blocks of one payload byte each, numbered from `from`. */
function blocks(from: number, count: number): Buffer {
  const length = BLOCK_HEADER_BYTES + 1;
  const bytes = Buffer.alloc(count * length);
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.length);
  for (let index = 0; index < count; index += 1) {
    bytes[(index + 1) * length - 1] = from + index;
    finishBlock(bytes, view, index * length, (index + 1) * length, from + index);
  }
  return bytes;
}

/** A segment with room behind its blocks. */
function segment(folder: string): { readonly file: string; readonly put: (from: number, count: number) => void } {
  const file = path.join(folder, "segment");
  fs.writeFileSync(file, Buffer.alloc(400_000));
  const put = (from: number, count: number): void => {
    const fd = fs.openSync(file, "r+");
    fs.writeSync(fd, blocks(from, count), 0, undefined, from * (BLOCK_HEADER_BYTES + 1));
    fs.closeSync(fd);
  };
  return { file, put };
}

test("a reader that met the zeros sees the blocks that come, those of what it had read already too", () => {
  using folder = temporaryFolder();
  const { file, put } = segment(folder.path);
  const cursor = new SegmentCursor(file, 1);
  const next = (): number | undefined => cursor.next()?.payload[0];
  assert.equal(next(), undefined);
  put(0, 3);
  // Everything is read at once, the zeros after the third with it.
  assert.deepEqual([next(), next()], [0, 1]);
  put(3, 2);
  assert.deepEqual([next(), next(), next()], [2, 3, 4]);
  for (let time = 0; time < 3; time += 1) assert.equal(cursor.next(), undefined);
  put(5, 1);
  assert.equal(cursor.next()?.payload[0], 5);
  assert.equal(cursor.next(), undefined);
  cursor.close();
});

test("what looks like a block within one that is being written is no damage once that one is complete", async () => {
  using folder = temporaryFolder();
  const { file, put } = segment(folder.path);
  put(0, 1);
  const start = BLOCK_HEADER_BYTES + 1;
  const outer = Buffer.alloc(100, 1);
  blocks(9, 1).copy(outer, 50);
  finishBlock(outer, new DataView(outer.buffer, outer.byteOffset, outer.length), 0, outer.length, 1);
  // A write has come past the inner block and not to its end.
  const fd = fs.openSync(file, "r+");
  fs.writeSync(fd, outer, 0, 90, start);
  const late = new Worker(
    `setTimeout(() => require("node:fs").writeSync(${fd}, Buffer.from("${outer.toString("hex", 90)}", "hex"), 0, 10, ${start + 90}), 30)`,
    {
      eval: true,
    },
  );
  await once(late, "online");
  const seen: number[] = [];
  const cursor = new SegmentCursor(file, 1);
  assert.equal(cursor.each(({ payload }) => seen.push(payload.length), true).kind, "allocated");
  assert.deepEqual(seen, [1, 84]);
  await once(late, "exit");
  cursor.close();
  fs.closeSync(fd);
});

test("blocks that a writer adds between two looks are no damage", (context) => {
  using folder = temporaryFolder();
  const { file, put } = segment(folder.path);
  put(0, 2);
  const seen: (number | undefined)[] = [];
  const cursor = new SegmentCursor(file, 1);
  // The file's size is asked when no more blocks were found and what follows them is to be looked at.
  const { fstatSync } = fs;
  let looks = 0;
  context.mock.method(fs, "fstatSync", (fd: number) => {
    looks += 1;
    if (looks < 4) put(looks * 2, 2);
    return fstatSync(fd);
  });
  const rest = cursor.each(({ payload }) => seen.push(payload[0]));
  assert.deepEqual(rest, { kind: "allocated", bytes: 0 });
  assert.deepEqual(seen, [0, 1, 2, 3, 4, 5, 6, 7]);
  cursor.close();
});
