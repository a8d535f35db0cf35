import assert from "node:assert/strict";
import fs from "node:fs";
import { test } from "node:test";
import fc from "fast-check";
import { segmentPath, shardFolder } from "./folder.ts";
import { listSessions } from "./read.ts";
import { recoverShard } from "./recover.ts";
import { SegmentCursor } from "./segment.ts";
import { allow, done, events, openSession, openTestRecorder, query, temporaryFolder } from "./testing.ts";

/** A shard as a killed process leaves it: two operations done, one running, the session open. */
async function killed(
  folder: string,
): Promise<{ readonly image: Buffer; readonly blocks: readonly { readonly start: number; readonly end: number }[] }> {
  const recorder = openTestRecorder(folder);
  const session = openSession(recorder, "s-1");
  const decision = allow();
  for (let number = 1; number <= 3; number += 1) {
    const request = query(session, decision, `select ${number}`);
    recorder.commit();
    if (number < 3) done(session, request);
  }
  const image = fs.readFileSync(segmentPath(shardFolder(folder, 1), 1));
  const blocks: { readonly start: number; readonly end: number }[] = [];
  const cursor = new SegmentCursor(segmentPath(shardFolder(folder, 1), 1), 1);
  for (let block = cursor.next(); block !== undefined; block = cursor.next())
    blocks.push({ start: cursor.position - block.bytes.length, end: cursor.position });
  cursor.close();
  await recorder.close();
  return { image, blocks };
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
      length === last.start ? [] : [["crash tail cut", length - last.start]],
    );
    assert.equal(fs.statSync(segmentPath(shardFolder(folder.path, 1), 1)).size, last.start);
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
