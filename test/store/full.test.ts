import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import fs from "node:fs";
import path from "node:path";
import { test } from "node:test";
import { setTimeout as sleep } from "node:timers/promises";
import { allow, deny, done, events, openSession, openTestRecorder, query, temporaryFolder } from "../../store/testing.ts";
import { SegmentWindow } from "../../store/window.ts";

/** A file system of its own, or undefined where this process may not mount one. */
function smallDisk(folder: string, size: string): { readonly [Symbol.dispose]: () => void } | undefined {
  if (spawnSync("mount", ["-t", "tmpfs", "-o", `size=${size},mode=0700`, "tmpfs", folder]).status !== 0) return undefined;
  return { [Symbol.dispose]: () => void spawnSync("umount", ["-l", folder]) };
}

test("a full disk refuses batches, keeps denials, and recovers when there is room", { timeout: 60_000 }, async (context) => {
  using folder = temporaryFolder();
  const disk = smallDisk(folder.path, "16m");
  if (disk === undefined) return context.skip("mounting a tmpfs needs privileges");
  using _disk = disk;
  // LMDB is told that there is always room: here the journal must meet the full disk. It gets no frames and no sessions meanwhile.
  const recorder = openTestRecorder(folder.path, 1, { minFreeBytes: 0, reserveBytes: 256 * 1024 });
  const session = openSession(recorder, "s-1", "digest");
  const allowed = allow();
  const denied = deny();
  done(session, query(session, allowed, "select 'before'"));
  recorder.commit();
  await recorder.flush();
  const filler = path.join(folder.path, "filler");
  const fd = fs.openSync(filler, "w");
  try {
    for (;;) fs.writeSync(fd, Buffer.alloc(4_096));
  } catch {
    // Full.
  }
  fs.closeSync(fd);

  let refused = 0;
  for (let count = 0; count < 400; count += 1) {
    const request = query(session, allowed, `select ${count} -- ${"x".repeat(40_000)}`);
    const denial = query(session, denied, `drop ${count}`);
    try {
      recorder.commit();
      done(session, request);
    } catch (error) {
      assert.equal((error as { code?: string }).code, "SLUICE_RECORD_FAILED");
      refused += 1;
    }
    session.outcome(denial, "denied", 0, 0, undefined, undefined);
  }
  assert.ok(refused > 370, `${refused} refused`);
  await sleep(60);
  const during = await events(folder.path);
  assert.equal(during.filter((event) => event.outcome === "denied").length, 400);
  assert.equal(during.filter((event) => event.outcome === "done").length, 401 - refused);

  fs.rmSync(filler);
  await sleep(1_200);
  done(session, query(session, allowed, "select 'after'"));
  recorder.commit();
  await recorder.close();
  const all = await events(folder.path);
  assert.ok(all.some((event) => event.statement === "select 'after'"));
  const notice = all.find((event) => event.detail?.what === "recording failed and works again");
  assert.equal(notice?.detail?.refusedOperations, refused);
});

test("near a full disk no room is taken ahead from what other shards keep back for denials", (context) => {
  using folder = temporaryFolder();
  const disk = smallDisk(folder.path, "16m");
  if (disk === undefined) return context.skip("mounting a tmpfs needs privileges");
  using _disk = disk;
  const window = new SegmentWindow();
  const fd = fs.openSync(path.join(folder.path, "segment"), "wx+");
  assert.equal(window.append(fd, Buffer.alloc(100), 0, 100, 0, 0), false, "the block has to be written");
  assert.equal(fs.fstatSync(fd).blocks, 0);
  window.release();
  fs.closeSync(fd);
});

test("too little free space stops sessions before LMDB meets a full disk", { timeout: 60_000 }, async (context) => {
  using folder = temporaryFolder();
  const disk = smallDisk(folder.path, "16m");
  if (disk === undefined) return context.skip("mounting a tmpfs needs privileges");
  using _disk = disk;
  const recorder = openTestRecorder(folder.path, 1, { minFreeBytes: 4 * 1024 * 1024, congestedBytes: 1024 * 1024 });
  const session = openSession(recorder, "s-1", "full");
  const request = query(session, allow(), "select");
  recorder.commit();
  const chunk = Buffer.alloc(65_536);
  let thrown: unknown;
  for (let count = 0; count < 1_000 && thrown === undefined; count += 1) {
    session.toClient(request, chunk, 0, chunk.length, 0, chunk.length);
    try {
      recorder.commit();
    } catch (error) {
      thrown = error;
    }
    await sleep(1);
  }
  assert.match(String(thrown), /bytes are free/);
  assert.throws(() => openSession(recorder, "s-2"), { code: "SLUICE_RECORD_FAILED" });
  await recorder.close().catch(() => {});
});

test("a file size limit (EFBIG) refuses the batch and the process lives on", { timeout: 30_000 }, () => {
  using folder = temporaryFolder();
  const script = path.join(import.meta.dirname, "limited.ts");
  // 64 blocks of 1,024 bytes; SIGXFSZ, which Node ignores, would otherwise end the process.
  const run = spawnSync("sh", ["-c", 'ulimit -f 64 && exec "$0" "$@"', process.execPath, script, folder.path], { encoding: "utf8" });
  assert.equal(run.status, 0, run.stderr);
  assert.match(run.stdout, /^SLUICE_RECORD_FAILED: cannot record: (EFBIG|short write).*, later commits work\n$/);
});
