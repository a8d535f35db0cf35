import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import fs from "node:fs";
import path from "node:path";
import { test } from "node:test";
import { setTimeout as sleep } from "node:timers/promises";
import { loadJournal } from "../core/native/addons.ts";
import { setDirect } from "../core/native/direct.ts";
import { framesPath, listFrames, shardFolder } from "./folder.ts";
import { PAGE_BYTES, type WriteBuffers } from "./frame-file.ts";
import { readFrames } from "./read.ts";
import { allow, cachedWrites, isDirect, openSession, openTestRecorder, query, temporaryFolder } from "./testing.ts";
import type { Recorder, SessionRecorder } from "./types.ts";

const MEGABYTE = 1_000_000;

/** Record so many megabytes that say which they are. */
function record(recorder: Recorder, session: SessionRecorder, from: number, to: number): void {
  const request = query(session, allow(), "select");
  for (let number = from; number < to; number += 1) {
    const bytes = Buffer.alloc(MEGABYTE, `${number}.`);
    session.toClient(request, bytes, 0, bytes.length, 0, bytes.length);
  }
  recorder.commit();
}

async function assertRecorded(folder: string, megabytes: number): Promise<void> {
  const parts: Uint8Array[] = [];
  for await (const { bytes } of readFrames(folder, "s-1")) parts.push(bytes);
  const found = Buffer.concat(parts);
  assert.equal(found.length, megabytes * MEGABYTE);
  for (let number = 0; number < megabytes; number += 1)
    assert.ok(
      found.subarray(number * MEGABYTE, (number + 1) * MEGABYTE).equals(Buffer.alloc(MEGABYTE, `${number}.`)),
      `megabyte ${number}`,
    );
}

/** Whether files in there can be written past the page cache: what is tested here, and not so everywhere. */
function offersDirect(folder: string): boolean {
  const name = path.join(folder, "try");
  const fd = fs.openSync(name, "wx");
  // Not alignedBuffer(): that is tested here, too.
  const memory = Buffer.allocUnsafeSlow(2 * PAGE_BYTES);
  const start = (PAGE_BYTES - loadJournal().misalignment(memory, PAGE_BYTES)) % PAGE_BYTES;
  try {
    return setDirect(fd, true) && fs.writevSync(fd, [memory.subarray(start, start + PAGE_BYTES)], 0) === PAGE_BYTES;
  } catch {
    return false;
  } finally {
    fs.closeSync(fd);
    fs.rmSync(name);
  }
}

test("recorded bytes go past the page cache, whatever the blocks' lengths; a reader sees them at once", async (context) => {
  using folder = temporaryFolder();
  if (!offersDirect(folder.path)) return context.skip("no direct writes on this file system");
  const ways: boolean[] = [];
  const recorder = openTestRecorder(folder.path, 1, {
    writeBuffers: (fd, buffers, position, done) => {
      ways.push(isDirect(fd));
      // Many a disk asks for less; none for more.
      for (const buffer of buffers) assert.equal(loadJournal().misalignment(buffer, PAGE_BYTES) + (buffer.length % PAGE_BYTES), 0);
      assert.equal(position % PAGE_BYTES, 0);
      fs.writev(fd, buffers, position, done);
    },
  });
  const session = openSession(recorder, "s-1", "full");
  for (let number = 0; number < 6; number += 2) {
    record(recorder, session, number, number + 2);
    await recorder.flush();
    await assertRecorded(folder.path, number + 2);
  }
  await recorder.close();
  assert.ok(ways.length >= 6 && ways.every(Boolean), ways.join());
});

for (const [what, refuse] of [
  ["EINVAL", cachedWrites],
  ["EOPNOTSUPP", failingDirect((done) => done(Object.assign(new Error("EOPNOTSUPP"), { code: "EOPNOTSUPP" }), 0))],
  ["a part of it", failingDirect((done) => done(null, PAGE_BYTES))],
] as const)
  test(`a direct write that ends with ${what} is done through the page cache: nothing is refused, no segment is given up`, async () => {
    using folder = temporaryFolder();
    const errors: Error[] = [];
    const recorder = openTestRecorder(folder.path, 1, {
      onError: (error) => errors.push(error),
      framesSegmentBytes: 4 * MEGABYTE,
      writeBuffers: refuse,
    });
    const session = openSession(recorder, "s-1", "full");
    for (let number = 0; number < 10; number += 1) {
      record(recorder, session, number, number + 1);
      await recorder.flush();
    }
    await recorder.close();
    assert.deepEqual(errors, []);
    assert.equal(listFrames(shardFolder(folder.path, 1)).length, 3, "10 MB in segments of 4 MB and what a group has more");
    await assertRecorded(folder.path, 10);
  });

function failingDirect(fail: (done: Parameters<WriteBuffers>[3]) => void): WriteBuffers {
  return (fd, buffers, position, done) => {
    if (isDirect(fd)) fs.writev(fd, buffers.slice(0, 1), position, () => fail(done));
    else fs.writev(fd, buffers, position, done);
  };
}

test("a direct write that the disk could not do is not put into the page cache instead", async (context) => {
  using folder = temporaryFolder();
  if (!offersDirect(folder.path)) return context.skip("no direct writes on this file system");
  let faulty = true;
  const seen: boolean[] = [];
  const recorder = openTestRecorder(folder.path, 1, {
    writeBuffers: (fd, buffers, position, done) => {
      seen.push(isDirect(fd));
      if (faulty) setImmediate(done, Object.assign(new Error("EIO: made by the test"), { code: "EIO" }), 0);
      else fs.writev(fd, buffers, position, done);
    },
  });
  const session = openSession(recorder, "s-1", "full");
  record(recorder, session, 0, 1);
  await assert.rejects(recorder.flush(), { code: "SLUICE_RECORD_FAILED", message: /EIO/ });
  assert.deepEqual(seen, [true]);
  faulty = false;
  await recorder.close();
  await assertRecorded(folder.path, 1);
});

test("on a file system without direct writes everything goes through the page cache", async (context) => {
  using folder = temporaryFolder();
  if (spawnSync("mount", ["-t", "ramfs", "-o", "mode=0700", "ramfs", folder.path]).status !== 0)
    return context.skip("mounting a ramfs needs privileges");
  try {
    const fd = fs.openSync(path.join(folder.path, "try"), "w");
    assert.equal(setDirect(fd, true), false);
    assert.equal(setDirect(fd, false), true);
    fs.closeSync(fd);
    // Its file system says that it has no free space at all.
    const recorder = openTestRecorder(folder.path, 1, { minFreeBytes: 0 });
    record(recorder, openSession(recorder, "s-1", "full"), 0, 5);
    await recorder.close();
    await assertRecorded(folder.path, 5);
  } finally {
    spawnSync("umount", ["-l", folder.path]);
  }
});

test("while the disk is behind, the page cache takes what is waiting; then writes are direct again", {
  timeout: 30_000,
}, async (context) => {
  using folder = temporaryFolder();
  if (!offersDirect(folder.path)) return context.skip("no direct writes on this file system");
  const ways: boolean[] = [];
  let held: (() => void) | undefined;
  let hold = true;
  const recorder = openTestRecorder(folder.path, 1, {
    writeBuffers: (fd, buffers, position, done) => {
      ways.push(isDirect(fd));
      const go = (): void => fs.writev(fd, buffers, position, done);
      if (hold) held = go;
      else go();
    },
  });
  const session = openSession(recorder, "s-1", "full");
  record(recorder, session, 0, 8);
  await sleep(100);
  assert.deepEqual(ways, [true]);
  hold = false;
  held?.();
  await recorder.flush();
  // 8 MB are 123 blocks: 16 of them went before, 64 more must not wait.
  assert.deepEqual(ways, [true, ...Array.from({ length: 6 }, () => false), true]);
  record(recorder, session, 8, 9);
  await recorder.flush();
  assert.deepEqual(ways.slice(8), [true]);
  await recorder.close();
  await assertRecorded(folder.path, 9);
  assert.equal(fs.statSync(framesPath(shardFolder(folder.path, 1), 1)).size % PAGE_BYTES, 0);
});
