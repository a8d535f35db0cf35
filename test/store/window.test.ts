import assert from "node:assert/strict";
import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import fs from "node:fs";
import path from "node:path";
import { test } from "node:test";
import { setTimeout as sleep } from "node:timers/promises";
import { claimShard, listSegments, releaseShard, segmentPath } from "../../store/folder.ts";
import { eachRecord, RECORD } from "../../store/layout.ts";
import { recoverShard } from "../../store/recover.ts";
import { type Rest, SegmentCursor } from "../../store/segment.ts";
import { temporaryFolder } from "../../store/testing.ts";
import { verifyStore } from "../../store/verify.ts";
import { WINDOW_BYTES } from "../../store/window.ts";
import { killed } from "../helpers/processes.ts";

/** Windows begin and end with a page. */
const PAGE_BYTES = 65_536;

interface Flood {
  readonly child: ChildProcess;
  /** The last number that the child has told after its commit. */
  readonly told: () => number;
}

async function flood(folder: string, segmentBytes: number): Promise<Flood> {
  const script = path.join(import.meta.dirname, "flood.ts");
  const child = spawn(process.execPath, [script, folder, String(segmentBytes)], { stdio: ["ignore", "pipe", "inherit"] });
  let text = "";
  child.stdout?.setEncoding("latin1").on("data", (chunk: string) => {
    text = text.slice(-20) + chunk;
  });
  await once(child.stdout ?? child, "data");
  return { child, told: () => Number(text.split("\n").at(-2)) };
}

/** Numbers of all intents, and what stands after the last block. */
function numbers(folder: string, segment: number): { readonly found: number[]; readonly rest: Rest; readonly end: number } {
  const found: number[] = [];
  const cursor = new SegmentCursor(segmentPath(folder, segment), segment);
  const rest = cursor.each(({ payload }) =>
    eachRecord(payload, (type, at) => {
      if (type === RECORD.intent) found.push(payload.readUInt32LE(at + 8));
    }),
  );
  cursor.close();
  return { found, rest, end: cursor.position };
}

test("kill -9 in the middle of blocks: what was acknowledged is there, finished segments end with their last block", {
  timeout: 120_000,
}, async () => {
  for (let round = 0; round < 8; round += 1) {
    using folder = temporaryFolder();
    const shard = claimShard(folder.path, 1);
    try {
      const writer = await flood(shard, round % 2 === 0 ? 200_000 : 1 << 26);
      await sleep(100 + Math.random() * 300);
      await killed(writer.child);
      const segments = listSegments(shard);
      const all: number[] = [];
      for (const segment of segments) {
        const { found, rest, end } = numbers(shard, segment);
        for (const number of found) all.push(number);
        assert.notEqual(rest.kind, "damaged");
        if (segment !== segments.at(-1)) assert.equal(rest.kind, "nothing");
        else assert.ok(fs.statSync(segmentPath(shard, segment)).size - end <= WINDOW_BYTES + PAGE_BYTES);
      }
      assert.ok(all.length >= writer.told() && writer.told() > 100, `${all.length} on record, ${writer.told()} acknowledged`);
      assert.deepEqual(
        all,
        all.map((_, index) => index + 1),
        "all of them, in their order, none twice",
      );
      const { previous } = recoverShard(shard, 0);
      const last = segments.at(-1) ?? 1;
      assert.equal(fs.statSync(segmentPath(shard, last)).size, numbers(shard, last).end, "recovery cuts what was allocated");
      assert.equal(previous?.end, numbers(shard, last).end);
      assert.equal(verifyStore(folder.path).result, "sound");
    } finally {
      releaseShard(shard);
    }
  }
});

test("readers in another process than the writer see every block once it stands, and no damage", { timeout: 60_000 }, async () => {
  using folder = temporaryFolder();
  const shard = claimShard(folder.path, 1);
  const writer = await flood(shard, 3_000_000);
  try {
    let segment = 1;
    let cursor = new SegmentCursor(segmentPath(shard, segment), segment);
    let last = 0;
    let zeros = 0;
    const visit = ({ payload }: { readonly payload: Buffer }): void => {
      eachRecord(payload, (type, at) => {
        if (type !== RECORD.intent) return;
        assert.equal(payload.readUInt32LE(at + 8), last + 1);
        last += 1;
      });
    };
    const until = performance.now() + 4_000;
    for (let round = 0; performance.now() < until; round += 1) {
      const told = writer.told();
      for (;;) {
        for (let block = cursor.next(); block !== undefined; block = cursor.next()) visit(block);
        if (listSegments(shard).at(-1) === segment) break;
        for (let block = cursor.next(); block !== undefined; block = cursor.next()) visit(block);
        cursor.close();
        segment += 1;
        cursor = new SegmentCursor(segmentPath(shard, segment), segment);
      }
      assert.ok(last >= told, `read ${last}, acknowledged ${told}`);
      if (fs.statSync(segmentPath(shard, segment)).size > cursor.position + 10_000) zeros += 1;
      // The writer runs on while it is verified.
      if (round % 5 === 0) assert.deepEqual(verifyStore(folder.path).findings, []);
      await sleep(1);
    }
    cursor.close();
    assert.ok(zeros > 10 && segment > 1, `${zeros} looks at allocated room, ${segment} segments`);
  } finally {
    await killed(writer.child);
    releaseShard(shard);
  }
});
