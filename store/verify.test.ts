import assert from "node:assert/strict";
import fs from "node:fs";
import { test } from "node:test";
import zlib from "node:zlib";
import fc from "fast-check";
import { listSegments, segmentPath, shardFolder } from "./folder.ts";
import { SegmentCursor } from "./segment.ts";
import { allow, done, openSession, openTestRecorder, query, temporaryFolder } from "./testing.ts";
import { verifyStore } from "./verify.ts";

async function recorded(folder: string): Promise<void> {
  for (let run = 0; run < 2; run += 1) {
    const recorder = openTestRecorder(folder, 1, { segmentBytes: 8_192 });
    const session = openSession(recorder, `s-${run}`);
    const decision = allow();
    for (let count = 0; count < 150; count += 1) {
      done(session, query(session, decision, `select ${count}`));
      recorder.commit();
    }
    await recorder.close();
  }
}

test("what was written verifies; a changed byte anywhere, a missing segment or a cut one does not", { timeout: 60_000 }, async () => {
  using folder = temporaryFolder();
  await recorded(folder.path);
  const shard = shardFolder(folder.path, 1);
  const segments = listSegments(shard);
  assert.ok(segments.length > 4);
  const sound = verifyStore(folder.path);
  assert.deepEqual(sound.findings, []);
  assert.equal(sound.result, "sound");
  assert.equal(sound.segments, segments.length);

  fc.assert(
    fc.property(fc.nat(), fc.nat(), fc.integer({ min: 1, max: 255 }), (which, where, flip) => {
      const path = segmentPath(shard, segments[which % segments.length] ?? 1);
      const image = fs.readFileSync(path);
      const changed = Buffer.from(image);
      const at = where % image.length;
      changed[at] = (changed[at] ?? 0) ^ flip;
      fs.writeFileSync(path, changed);
      const { result } = verifyStore(folder.path);
      fs.writeFileSync(path, image);
      assert.notEqual(result, "sound");
    }),
    { numRuns: 60 },
  );

  // A forger who also mends the block's CRC is caught by the next seal.
  const first = segmentPath(shard, segments[0] ?? 1);
  const honest = fs.readFileSync(first);
  const forged = Buffer.from(honest);
  const cursor = new SegmentCursor(first, 1);
  for (let count = 0; count < 5; count += 1) cursor.next();
  const start = cursor.position;
  const length = cursor.next()?.bytes.length ?? 0;
  cursor.close();
  forged[start + length - 1] = (forged[start + length - 1] ?? 0) ^ 1;
  forged.writeUInt32LE(zlib.crc32(forged.subarray(start + 8, start + length)), start + 4);
  fs.writeFileSync(first, forged);
  assert.match(verifyStore(folder.path).findings[0]?.message ?? "", /seal does not match/);
  fs.writeFileSync(first, honest);

  const middle = segmentPath(shard, segments[2] ?? 1);
  const image = fs.readFileSync(middle);
  fs.rmSync(middle);
  assert.equal(verifyStore(folder.path).result, "tampered", "a segment is missing");
  fs.writeFileSync(middle, image.subarray(0, image.length - 3));
  assert.equal(verifyStore(folder.path).result, "tampered", "a segment was cut and the next does not continue it");
  fs.writeFileSync(middle, image);

  const last = segmentPath(shard, segments.at(-1) ?? 1);
  const tail = fs.readFileSync(last);
  fs.writeFileSync(last, tail.subarray(0, tail.length - 3));
  assert.deepEqual(
    verifyStore(folder.path).findings.map((finding) => finding.kind),
    ["crash tail"],
  );
});

test("a recovered crash tail verifies again", async () => {
  using folder = temporaryFolder();
  await recorded(folder.path);
  const shard = shardFolder(folder.path, 1);
  const last = segmentPath(shard, listSegments(shard).at(-1) ?? 1);
  fs.appendFileSync(last, Buffer.from([0x53, 0x42, 0x4c, 0x4b, 1, 2, 3, 4, 5]));
  assert.equal(verifyStore(folder.path).result, "crash tail");
  const recorder = openTestRecorder(folder.path);
  assert.equal(verifyStore(folder.path).result, "sound", "beside the running writer");
  await recorder.close();
  assert.equal(verifyStore(folder.path).result, "sound");
});
