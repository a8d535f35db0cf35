import assert from "node:assert/strict";
import { type ChildProcess, spawn, spawnSync } from "node:child_process";
import { once } from "node:events";
import fs from "node:fs";
import path from "node:path";
import { test } from "node:test";
import { setTimeout as sleep } from "node:timers/promises";
import { framesPath, listFrames, shardFolder } from "../../store/folder.ts";
import { readFrames } from "../../store/read.ts";
import { openTestRecorder, temporaryFolder } from "../../store/testing.ts";
import { killed } from "../helpers/processes.ts";

const WRITER = path.join(import.meta.dirname, "frames-writer.ts");
const PIECE_BYTES = 20_000;

/** How many whole pieces read back, each as it was written; what follows the last whole one must be its beginning. */
async function wholePieces(folder: string, id: string): Promise<number> {
  const parts: Uint8Array[] = [];
  for await (const { bytes } of readFrames(folder, id)) parts.push(bytes);
  const all = Buffer.concat(parts);
  for (let at = 0; at < all.length; at += PIECE_BYTES) {
    const want = Buffer.alloc(PIECE_BYTES, `${at / PIECE_BYTES}.`).subarray(0, all.length - at);
    assert.ok(all.subarray(at, at + PIECE_BYTES).equals(want), `piece ${at / PIECE_BYTES}`);
  }
  return Math.floor(all.length / PIECE_BYTES);
}

function startWriter(folder: string, way: "direct" | "cached"): { readonly child: ChildProcess; readonly written: () => number } {
  const child = spawn(process.execPath, [WRITER, folder, String(PIECE_BYTES), "0", "wait", way], { stdio: ["ignore", "pipe", "inherit"] });
  let text = "";
  child.stdout?.setEncoding("utf8").on("data", (chunk: string) => {
    text += chunk;
  });
  return { child, written: () => Number(text.trim().split("\n").at(-1) ?? 0) };
}

test("recorded bytes of a running gateway read back in another process, soon and whole", { timeout: 60_000 }, async () => {
  using folder = temporaryFolder();
  const { child, written } = startWriter(folder.path, "direct");
  try {
    await once(child.stdout ?? child, "data");
    for (let round = 0; round < 10; round += 1) {
      const before = written();
      await sleep(150);
      const found = await wholePieces(folder.path, `session-${child.pid}`);
      assert.ok(found >= before, `${found} pieces read, ${before} were written 150 ms before`);
    }
    assert.ok(written() > 200, `${written()} pieces`);
  } finally {
    await killed(child);
  }
});

test("kill -9: what was written before the last moments reads back, at once and after a restart", { timeout: 120_000 }, async () => {
  using folder = temporaryFolder();
  const sessions: { readonly id: string; readonly atLeast: number; found: number }[] = [];
  for (let round = 0; round < 6; round += 1) {
    const { child, written } = startWriter(folder.path, round % 2 === 0 ? "direct" : "cached");
    await once(child.stdout ?? child, "data");
    await sleep(300);
    const atLeast = written();
    // Longer than the 50 ms after which blocks are written, whatever the machine has to do besides.
    await sleep(400 + Math.random() * 400);
    await killed(child);
    const id = `session-${child.pid}`;
    const found = await wholePieces(folder.path, id);
    assert.ok(found >= atLeast, `${found} pieces read, ${atLeast} were written some time before the kill`);
    sessions.push({ id, atLeast, found });
  }
  for (let time = 0; time < 2; time += 1) await openTestRecorder(folder.path).close();
  for (const { id, found } of sessions) assert.equal(await wholePieces(folder.path, id), found, id);
});

for (const way of ["direct", "cached"])
  test(`a file size limit (EFBIG), ${way} writes: recording goes on in further segments, and nothing is lost`, {
    timeout: 60_000,
  }, async () => {
    using folder = temporaryFolder();
    // 3,000 blocks of 1,024 bytes; SIGXFSZ, which Node ignores, would otherwise end the process.
    const run = spawnSync(
      "sh",
      ["-c", 'ulimit -f 3000 && exec "$0" "$@"', process.execPath, WRITER, folder.path, String(PIECE_BYTES), "400", "close", way],
      { encoding: "utf8", timeout: 50_000 },
    );
    assert.equal(run.status, 0, run.stderr);
    assert.match(run.stdout, /cannot keep session recordings: (EFBIG|short write)/);
    assert.match(run.stdout, /closed after [1-9]/);
    const shard = shardFolder(folder.path, 1);
    assert.ok(listFrames(shard).length >= 3, `${listFrames(shard).length} segments`);
    for (const segment of listFrames(shard)) assert.ok(fs.statSync(framesPath(shard, segment)).size <= 3_000 * 1_024);
    assert.equal(await wholePieces(folder.path, `session-${run.pid}`), 400);
  });
