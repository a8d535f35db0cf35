import assert from "node:assert/strict";
import fs from "node:fs";
import { test } from "node:test";
import fc from "fast-check";
import { segmentPath, shardFolder } from "./folder.ts";
import { listSessions } from "./read.ts";
import { recoverShard } from "./recover.ts";
import { SegmentCursor } from "./segment.ts";
import { finishBlock } from "./start.ts";
import { allow, done, events, openSession, openTestRecorder, query, temporaryFolder } from "./testing.ts";
import { verifyStore } from "./verify.ts";

/** A shard as a killed process leaves it: two operations done, one running, the session open. `image` ends with the last block. */
async function killed(folder: string): Promise<{
  readonly allocated: Buffer;
  readonly image: Buffer;
  readonly blocks: readonly { readonly start: number; readonly end: number }[];
}> {
  const recorder = openTestRecorder(folder);
  const session = openSession(recorder, "s-1");
  const decision = allow();
  for (let number = 1; number <= 3; number += 1) {
    const request = query(session, decision, `select ${number}`);
    recorder.commit();
    if (number < 3) done(session, request);
  }
  const allocated = fs.readFileSync(segmentPath(shardFolder(folder, 1), 1));
  const blocks: { readonly start: number; readonly end: number }[] = [];
  const cursor = new SegmentCursor(segmentPath(shardFolder(folder, 1), 1), 1);
  for (let block = cursor.next(); block !== undefined; block = cursor.next())
    blocks.push({ start: cursor.position - block.bytes.length, end: cursor.position });
  cursor.close();
  await recorder.close();
  const image = allocated.subarray(0, blocks.at(-1)?.end);
  return { allocated, image, blocks };
}

function withoutZeros(bytes: Buffer): number {
  let length = bytes.length;
  while (bytes[length - 1] === 0) length -= 1;
  return length;
}

/** Put the journal back to what it was at the kill. */
function restore(folder: string, image: Buffer): void {
  for (const name of fs.readdirSync(shardFolder(folder, 1))) if (name.endsWith(".journal")) fs.rmSync(`${shardFolder(folder, 1)}/${name}`);
  fs.writeFileSync(segmentPath(shardFolder(folder, 1), 1), image);
}

test("after a crash a running operation is unknown and its session ends; recovery itself repeats safely", async () => {
  using folder = temporaryFolder();
  const { image } = await killed(folder.path);
  restore(folder.path, image);
  // So small a segment rotates at every write.
  for (let time = 0; time < 3; time += 1) await openTestRecorder(folder.path, 1, { segmentBytes: 1 }).close();
  const all = await events(folder.path);
  assert.deepEqual(
    all.filter((event) => event.type === "operation").map((event) => [event.statement, event.outcome]),
    [
      ["select 1", "done"],
      ["select 2", "done"],
      ["select 3", "unknown"],
    ],
  );
  const closes = all.filter((event) => event.type === "session.close");
  assert.deepEqual(
    closes.map((event) => [event.session, event.detail]),
    [["s-1", { reason: "gateway stopped", operations: 3 }]],
  );
  assert.equal(listSessions(folder.path)[0]?.reason, "gateway stopped");
});

test("every truncation of the last block loses that block only, and is reported as crash tail", async () => {
  using folder = temporaryFolder();
  const { image, blocks } = await killed(folder.path);
  const last = blocks.at(-1);
  assert.ok(last !== undefined && last.end === image.length);
  for (let length = last.start; length < last.end; length += 1) {
    restore(folder.path, image.subarray(0, length));
    const recovered = recoverShard(shardFolder(folder.path, 1), 0);
    assert.equal(recovered.previous?.end, last.start);
    // The last block held the second outcome and the third intent.
    assert.deepEqual(
      [...recovered.pending.values()].map((intent) => intent.request),
      [2],
    );
    assert.deepEqual(
      recovered.findings.map((finding) => [finding.what, finding.bytes]),
      length === last.start ? [] : [["crash tail cut", withoutZeros(image.subarray(last.start, length))]],
    );
    assert.equal(fs.statSync(segmentPath(shardFolder(folder.path, 1), 1)).size, last.start);
  }
});

test("the room behind the last block is no crash tail; whatever stands in it is", async () => {
  using folder = temporaryFolder();
  const { allocated, image, blocks } = await killed(folder.path);
  const file = segmentPath(shardFolder(folder.path, 1), 1);
  const last = blocks.at(-1);
  assert.ok(last !== undefined && allocated.length > image.length + 100_000);
  restore(folder.path, allocated);
  assert.deepEqual(verifyStore(folder.path).findings, []);
  assert.deepEqual(recoverShard(shardFolder(folder.path, 1), 0).findings, []);
  assert.equal(fs.statSync(file).size, image.length);

  // Killed in the middle of the copy: so much of the block is there, and its header's first word is not.
  for (let length = last.start + 5; length <= last.end; length += 1) {
    const torn = Buffer.concat([allocated.subarray(0, length), Buffer.alloc(allocated.length - length)]);
    torn.fill(0, last.start, last.start + 4);
    restore(folder.path, torn);
    assert.deepEqual(
      verifyStore(folder.path).findings.map((finding) => [finding.kind, finding.offset]),
      [["crash tail", last.start]],
    );
    const { findings, previous } = recoverShard(shardFolder(folder.path, 1), 0);
    assert.equal(previous?.end, last.start);
    assert.deepEqual(
      findings.map((finding) => [finding.what, finding.offset]),
      [["crash tail cut", last.start]],
    );
    assert.ok((findings[0]?.bytes ?? 0) <= length - last.start);
    assert.equal(fs.statSync(file).size, last.start);
  }

  // One byte far behind the end, and one at the file's last place.
  for (const at of [image.length, image.length + 70_000, allocated.length - 1]) {
    const strange = Buffer.from(allocated);
    strange[at] = 1;
    restore(folder.path, strange);
    assert.equal(verifyStore(folder.path).result, "crash tail");
    assert.equal(recoverShard(shardFolder(folder.path, 1), 0).findings[0]?.bytes, at + 1 - image.length);
  }
});

test("bytes of a client that look like a block are no damage, in a block that a killed writer did not complete", async () => {
  using folder = temporaryFolder();
  const { allocated, image, blocks } = await killed(folder.path);
  const file = segmentPath(shardFolder(folder.path, 1), 1);
  const forged = Buffer.alloc(24);
  finishBlock(forged, new DataView(forged.buffer, forged.byteOffset, forged.length), 0, forged.length, 4_000_000_000);
  const torn = Buffer.from(allocated);
  torn.writeUInt32LE(1_000, image.length + 8);
  torn.writeUInt32LE(blocks.length, image.length + 12);
  forged.copy(torn, image.length + 100);
  restore(folder.path, torn);
  assert.equal(verifyStore(folder.path).result, "crash tail");
  // Something behind the block that was begun is not its.
  const strange = Buffer.from(torn);
  strange[image.length + 16 + 1_000] = 1;
  restore(folder.path, strange);
  assert.equal(verifyStore(folder.path).result, "tampered");
  // Nor can it be longer than what was allocated for it.
  torn.copy(strange);
  strange.writeUInt32LE(2 ** 31, image.length + 8);
  restore(folder.path, strange);
  assert.equal(verifyStore(folder.path).result, "tampered");
  restore(folder.path, torn);
  assert.equal(recoverShard(shardFolder(folder.path, 1), 0).findings[0]?.what, "crash tail cut");
  assert.equal(fs.statSync(file).size, image.length);
});

test("zeros that no writer left are reported: more than are allocated ahead, or a segment of nothing else", async () => {
  using folder = temporaryFolder();
  const { allocated, image } = await killed(folder.path);
  for (const [bytes, offset, zeros] of [
    [Buffer.concat([image, Buffer.alloc(1_200_000)]), image.length, 1_200_000],
    [Buffer.alloc(allocated.length), 0, allocated.length],
  ] as const) {
    restore(folder.path, bytes);
    const { result, findings } = verifyStore(folder.path);
    assert.equal(result, "crash tail");
    assert.equal(findings[0]?.offset, offset);
    assert.deepEqual(recoverShard(shardFolder(folder.path, 1), 0).findings, [{ what: "crash tail cut", segment: 1, offset, bytes: zeros }]);
  }
});

test("zeros where a block was are damage, not the end, while a block stands after them", async () => {
  using folder = temporaryFolder();
  const { allocated, blocks } = await killed(folder.path);
  const file = segmentPath(shardFolder(folder.path, 1), 1);
  const [hole, after] = blocks.slice(-2);
  assert.ok(hole !== undefined && after !== undefined);
  // Also where the block behind them comes only after more zeros than are looked at in one go, over the border of two looks.
  for (const moved of [0, 1024 * 1024 - (after.start - hole.start) + 8, 3_000_000]) {
    const copy = Buffer.alloc(allocated.length + moved);
    allocated.copy(copy, 0, 0, hole.start);
    allocated.copy(copy, after.start + moved, after.start, after.end);
    restore(folder.path, copy);
    const { result, findings } = verifyStore(folder.path);
    assert.equal(result, "tampered");
    assert.match(findings[0]?.message ?? "", /intact ones stand after it/);
    const recovered = recoverShard(shardFolder(folder.path, 1), 0);
    assert.deepEqual(
      recovered.findings.map((finding) => [finding.what.slice(0, 15), finding.offset]),
      [["journal damaged", hole.start]],
    );
    assert.equal(fs.statSync(file).size, copy.length, "nothing is cut");
  }
});

test("a damaged block before the last is reported and not cut", async () => {
  using folder = temporaryFolder();
  const { image, blocks } = await killed(folder.path);
  const damaged = blocks.at(-2);
  assert.ok(damaged !== undefined);
  fc.assert(
    fc.property(fc.integer({ min: damaged.start, max: damaged.end - 1 }), fc.integer({ min: 1, max: 255 }), (at, flip) => {
      const copy = Buffer.from(image);
      copy[at] = (copy[at] ?? 0) ^ flip;
      restore(folder.path, copy);
      const recovered = recoverShard(shardFolder(folder.path, 1), 0);
      assert.deepEqual(
        recovered.findings.map((finding) => [finding.what.slice(0, 15), finding.offset]),
        [["journal damaged", damaged.start]],
      );
      assert.equal(fs.statSync(segmentPath(shardFolder(folder.path, 1), 1)).size, image.length);
    }),
    { numRuns: 100 },
  );
});

test("a segment torn at its birth falls back to the one before", async () => {
  using folder = temporaryFolder();
  const { image } = await killed(folder.path);
  restore(folder.path, image);
  fs.writeFileSync(segmentPath(shardFolder(folder.path, 1), 2), image.subarray(0, 40));
  const recovered = recoverShard(shardFolder(folder.path, 1), 0);
  assert.equal(recovered.pending.size, 1);
  assert.equal(recovered.live.size, 1);
  assert.equal(recovered.nextSegment, 3);
});
