import assert from "node:assert/strict";
import fs from "node:fs";
import { test } from "node:test";
import zlib from "node:zlib";
import { openEnvironment } from "./environment.ts";
import { environmentFolder, framesPath, listFrames, shardFolder } from "./folder.ts";
import { FRAMES_HEADER_BYTES, FRAMES_MAGIC, PAGE_BYTES, pagesFor, type WriteBuffers } from "./frame-file.ts";
import { type BlockPlace, blocksAfter, readPlaces } from "./frame-index.ts";
import { readBlock } from "./frames.ts";
import { readFrames } from "./read.ts";
import type { RecorderOptions } from "./recorder.ts";
import { allow, cachedWrites, events, openSession, openTestRecorder, query, temporaryFolder } from "./testing.ts";
import type { Recorder, SessionRecorder } from "./types.ts";

const PIECE_BYTES = 10_000;
const piece = (number: number): Buffer => Buffer.alloc(PIECE_BYTES, `${number}.`);

function record(recorder: Recorder, session: SessionRecorder, from: number, to: number): void {
  const request = query(session, allow(), "select");
  for (let number = from; number < to; number += 1) {
    const bytes = piece(number);
    session.toClient(request, bytes, 0, bytes.length, 0, bytes.length);
  }
  recorder.commit();
}

/** All that reads back of a session. */
async function recorded(folder: string, id: string, damaged?: (error: Error) => void): Promise<Buffer> {
  const parts: Uint8Array[] = [];
  for await (const { bytes } of readFrames(folder, id, damaged)) parts.push(bytes);
  return Buffer.concat(parts);
}

const pieces = (from: number, to: number): Buffer => Buffer.concat(Array.from({ length: to - from }, (_, index) => piece(from + index)));

async function indexed(folder: string): Promise<BlockPlace[]> {
  const environment = openEnvironment(environmentFolder(shardFolder(folder, 1)), false);
  const places = [...environment.places.getRange({})].flatMap(({ value }) => readPlaces(value));
  await environment.root.close();
  return places;
}

/** A shard whose session `s-1` has 40 pieces on record. */
async function recordedShard(folder: string, options: RecorderOptions = {}): Promise<void> {
  const recorder = openTestRecorder(folder, 1, options);
  const session = openSession(recorder, "s-1", "full");
  record(recorder, session, 0, 40);
  await recorder.close();
}

test("frames segments rotate, numbers go on, and every byte reads back through the index", async () => {
  using folder = temporaryFolder();
  const recorder = openTestRecorder(folder.path, 1, { framesSegmentBytes: 256 * 1024 });
  const one = openSession(recorder, "s-1", "full");
  const other = openSession(recorder, "s-2", "full");
  for (let number = 0; number < 200; number += 20) {
    record(recorder, one, number, number + 20);
    record(recorder, other, 1_000 + number, 1_020 + number);
    await recorder.flush();
  }
  await recorder.close();
  assert.ok(listFrames(shardFolder(folder.path, 1)).length >= 5, `${listFrames(shardFolder(folder.path, 1)).length} segments`);
  assert.ok((await recorded(folder.path, "s-1")).equals(pieces(0, 200)));
  assert.ok((await recorded(folder.path, "s-2")).equals(pieces(1_000, 1_200)));
  const places = await indexed(folder.path);
  assert.deepEqual(
    places.map(({ number }) => number),
    places.map((_, index) => index + 1),
  );
  assert.deepEqual(
    [...blocksAfter(shardFolder(folder.path, 1), undefined)].map(({ number, segment, offset }) => ({ number, segment, offset })),
    places.map(({ number, segment, offset }) => ({ number, segment, offset })),
    "the files alone say the same",
  );
});

test("a later writer begins a segment of its own, with the next number", async () => {
  using folder = temporaryFolder();
  await recordedShard(folder.path);
  const before = (await indexed(folder.path)).at(-1);
  const image = fs.readFileSync(framesPath(shardFolder(folder.path, 1), 1));
  const recorder = openTestRecorder(folder.path);
  record(recorder, openSession(recorder, "s-2", "full"), 40, 50);
  await recorder.close();
  const after = (await indexed(folder.path)).find(({ segment }) => segment === 2);
  assert.equal(after?.number, (before?.number ?? 0) + 1);
  assert.ok(fs.readFileSync(framesPath(shardFolder(folder.path, 1), 1)).equals(image));
  assert.ok((await recorded(folder.path, "s-1")).equals(pieces(0, 40)));
  assert.ok((await recorded(folder.path, "s-2")).equals(pieces(40, 50)));
});

test("a block's file has nothing in it but the block: what stood in the buffer before is not written", async () => {
  using folder = temporaryFolder();
  const recorder = openTestRecorder(folder.path);
  const session = openSession(recorder, "s-1", "full");
  const secret = Buffer.alloc(1_000_000, "stale");
  const request = query(session, allow(), "select");
  session.toClient(request, secret, 0, secret.length, 0, secret.length);
  await recorder.flush();
  const size = fs.statSync(framesPath(shardFolder(folder.path, 1), 1)).size;
  for (let count = 0; count < 20; count += 1) {
    session.toClient(request, Buffer.from("fresh"), 0, 5, 0, 5);
    await recorder.flush();
  }
  await recorder.close();
  const image = fs.readFileSync(framesPath(shardFolder(folder.path, 1), 1));
  assert.equal(image.length, size + 20 * PAGE_BYTES);
  assert.equal(image.indexOf("stale", size), -1);
  assert.ok(image.includes("fresh", size));
});

for (const [what, spoil, say] of [
  ["changed", (file: string, { offset }: BlockPlace) => flip(file, offset + FRAMES_HEADER_BYTES + 1_000), /checksum/],
  ["changed in its header", (file: string, { offset }: BlockPlace) => flip(file, offset + 16), /checksum/],
  ["cut off", (file: string, { offset }: BlockPlace) => fs.truncateSync(file, offset + 100), /ends at/],
  ["gone with its file", (file: string) => fs.rmSync(file), /ENOENT/],
] as const) {
  test(`a block that is ${what} is reported, and what stands after it is read`, async () => {
    using folder = temporaryFolder();
    await recordedShard(folder.path);
    const places = await indexed(folder.path);
    const victim = places[2] as BlockPlace;
    const file = framesPath(shardFolder(folder.path, 1), victim.segment);
    const whole = fs.readFileSync(file);
    spoil(file, victim);
    await assert.rejects(recorded(folder.path, "s-1"), { code: "SLUICE_STORE_DAMAGED", message: say });
    const found: string[] = [];
    const rest = await recorded(folder.path, "s-1", (error) => found.push(error.message));
    const lost = what === "cut off" ? places.length - 2 : what === "gone with its file" ? places.length : 1;
    assert.equal(found.length, lost, found.join("\n"));
    if (lost === 1) {
      assert.match(found[0] ?? "", /^block 3 of the recorded bytes of shard 1: /);
      const missing = readBlock(
        whole.subarray(victim.offset + FRAMES_HEADER_BYTES, victim.offset + FRAMES_HEADER_BYTES + victim.length),
        1,
      ).reduce((sum, frame) => sum + frame.bytes.length, 0);
      assert.equal(rest.length, 40 * PIECE_BYTES - missing);
    }
  });
}

test("a block that is lost before it was indexed is missed by its number", async () => {
  using folder = temporaryFolder();
  await recordedShard(folder.path);
  const shard = shardFolder(folder.path, 1);
  const places = await indexed(folder.path);
  const environment = openEnvironment(environmentFolder(shard), false);
  for (const key of [...environment.places.getKeys({})]) await environment.places.remove(key);
  await environment.root.close();
  flip(framesPath(shard, 1), (places[2]?.offset ?? 0) + 1_000);
  for (const when of ["by a reader", "after the next start"]) {
    await assert.rejects(recorded(folder.path, "s-1"), { code: "SLUICE_STORE_DAMAGED" }, when);
    const found: string[] = [];
    await recorded(folder.path, "s-1", (error) => found.push(error.message));
    assert.deepEqual(found, ["block 3 of the recorded bytes of shard 1: it is missing, and it may have held bytes of this session"], when);
    await openTestRecorder(folder.path).close();
  }
});

test("blocks that are missing in a row are one report, however many a damaged number makes them", { timeout: 10_000 }, async () => {
  using folder = temporaryFolder();
  await recordedShard(folder.path);
  const environment = openEnvironment(environmentFolder(shardFolder(folder.path, 1)), false);
  for (const { key, value } of [...environment.places.getRange({})]) {
    const damaged = Buffer.from(value);
    // The number of the run's second block; each has one owner.
    damaged.writeUInt32LE(3_000_000_000, 12 + 20);
    await environment.places.put(key, damaged);
  }
  for (const { key, value } of [...environment.sessions.getRange({})])
    await environment.sessions.put(key, { ...value, lastBlock: 4_000_000_000 });
  await environment.root.close();
  const found: string[] = [];
  await recorded(folder.path, "s-1", (error) => found.push(error.message));
  assert.match(found[0] ?? "", /^block 2 .*: it and all others before block 3000000000 are missing/);
  assert.ok(found.length < 5, `${found.length} reports`);
});

test("block numbers that are used up, or seem so, refuse the start: they do not wrap", async () => {
  using folder = temporaryFolder();
  await recordedShard(folder.path);
  const environment = openEnvironment(environmentFolder(shardFolder(folder.path, 1)), false);
  for (const { key, value } of [...environment.places.getRange({})]) {
    const damaged = Buffer.from(value);
    damaged.writeUInt32LE(0xffff_fffe, value.length - 20);
    await environment.places.put(key, damaged);
  }
  await environment.root.close();
  assert.throws(() => openTestRecorder(folder.path), { code: "SLUICE_STORE_UNUSABLE", message: /4294967294/ });
});

test("what was written is synced within a second or so; after a failed sync writing goes on in a new segment", async (context) => {
  using folder = temporaryFolder();
  const errors: Error[] = [];
  const recorder = openTestRecorder(folder.path, 1, { onError: (error) => errors.push(error) });
  const session = openSession(recorder, "s-1", "full");
  const real = fs.fdatasync;
  let synced = 0;
  let faulty = false;
  context.mock.method(fs, "fdatasync", (fd: number, done: (error: Error | null) => void) => {
    // The journal has a descriptor of its own.
    if (!fs.readlinkSync(`/proc/self/fd/${fd}`).endsWith(".frames")) return real(fd, done);
    synced += 1;
    if (faulty) setImmediate(done, Object.assign(new Error("EIO: made by the test"), { code: "EIO" }));
    else real(fd, done);
  });
  record(recorder, session, 0, 10);
  await new Promise((resolve) => setTimeout(resolve, 1_500));
  assert.equal(synced, 1);
  await new Promise((resolve) => setTimeout(resolve, 1_100));
  assert.equal(synced, 1, "nothing was written");
  record(recorder, session, 10, 20);
  await recorder.flush();
  assert.equal(synced, 2);
  faulty = true;
  record(recorder, session, 20, 30);
  await assert.rejects(recorder.flush(), { code: "SLUICE_RECORD_FAILED", message: /EIO/ });
  assert.throws(() => record(recorder, session, 1_000, 1_001), { code: "SLUICE_RECORD_FAILED" });
  faulty = false;
  await new Promise((resolve) => setTimeout(resolve, 1_200));
  record(recorder, session, 30, 40);
  await recorder.close();
  assert.equal(errors.length, 1);
  assert.deepEqual(listFrames(shardFolder(folder.path, 1)), [1, 2]);
  assert.ok((await recorded(folder.path, "s-1")).equals(pieces(0, 40)));
});

test("a sync that fails while a group is on its way: the group goes into the next segment, whole", async (context) => {
  using folder = temporaryFolder();
  let held: (() => void) | undefined;
  let hold = false;
  let synced = 0;
  const recorder = openTestRecorder(folder.path, 1, {
    writeBuffers: (fd, buffers, position, done) => {
      const go = (): void => fs.writev(fd, buffers, position, done);
      if (hold) held = go;
      else go();
    },
  });
  const real = fs.fdatasync;
  context.mock.method(fs, "fdatasync", (fd: number, done: (error: Error | null) => void) => {
    if (!hold || !fs.readlinkSync(`/proc/self/fd/${fd}`).endsWith(".frames")) return real(fd, done);
    synced += 1;
    setImmediate(done, new Error("EIO: made by the test"));
  });
  const session = openSession(recorder, "s-1", "full");
  record(recorder, session, 0, 200);
  await new Promise((resolve) => setTimeout(resolve, 200));
  hold = true;
  record(recorder, session, 200, 220);
  await new Promise((resolve) => setTimeout(resolve, 1_500));
  assert.equal(synced, 1);
  hold = false;
  assert.ok(held !== undefined);
  held();
  await new Promise((resolve) => setTimeout(resolve, 1_500));
  await recorder.close();
  assert.deepEqual(listFrames(shardFolder(folder.path, 1)), [1, 2]);
  assert.ok((await recorded(folder.path, "s-1")).equals(pieces(0, 220)));
});

function flip(file: string, at: number): void {
  const image = fs.readFileSync(file);
  image[at] = (image[at] ?? 0) ^ 1;
  fs.writeFileSync(file, image);
}

test("without the index's last entries blocks are found in the files; the next writer indexes them, and a torn tail is reported", async () => {
  using folder = temporaryFolder();
  await recordedShard(folder.path, { framesSegmentBytes: 128 * 1024 });
  const shard = shardFolder(folder.path, 1);
  const places = await indexed(folder.path);
  const environment = openEnvironment(environmentFolder(shard), false);
  for (const key of [...environment.places.getKeys({})]) await environment.places.remove(key);
  await environment.root.close();
  assert.ok((await recorded(folder.path, "s-1")).equals(pieces(0, 40)), "from the files alone");
  // A block that a kill tore: its first page, as a kernel leaves it.
  const last = places.at(-1) as BlockPlace;
  const file = framesPath(shard, last.segment);
  const image = fs.readFileSync(file);
  const torn = Buffer.from(image.subarray(places[0]?.offset ?? 0, PAGE_BYTES));
  torn.writeUInt32LE(last.number + 1, 12);
  last.mark.copy(torn, 16);
  fs.appendFileSync(file, torn);
  for (let time = 0; time < 2; time += 1) await openTestRecorder(folder.path).close();
  assert.deepEqual(await indexed(folder.path), places);
  assert.ok((await recorded(folder.path, "s-1")).equals(pieces(0, 40)));
  const findings = (await events(folder.path)).filter((event) => event.detail?.what === "recorded bytes torn or damaged");
  assert.deepEqual(
    findings.map(({ detail }) => [detail?.segment, detail?.offset, detail?.bytes]),
    [[last.segment, image.length, PAGE_BYTES]],
    "said once",
  );
});

test("wherever a segment is cut, the whole blocks before the cut are found", async () => {
  using folder = temporaryFolder();
  await recordedShard(folder.path);
  const shard = shardFolder(folder.path, 1);
  const file = framesPath(shard, 1);
  const places = await indexed(folder.path);
  const image = fs.readFileSync(file);
  const end = ({ offset, length }: BlockPlace): number => offset + FRAMES_HEADER_BYTES + length;
  for (let cut = image.length; cut >= 0; cut -= cut % PAGE_BYTES < 40 ? 1 : 997) {
    fs.truncateSync(file, cut);
    const skipped: number[] = [];
    const found = [...blocksAfter(shard, undefined, 0, (_, offset) => void skipped.push(offset))].map(({ number }) => number);
    const whole = places.filter((place) => end(place) <= cut).map(({ number }) => number);
    assert.deepEqual(found, whole, `cut at ${cut}`);
    const last = places[whole.length - 1];
    if (last !== undefined && cut > last.offset + pagesFor(last.length)) assert.ok(skipped.length > 0, `cut at ${cut}`);
  }
});

test("recorded bytes that look like a block are none, even behind a damaged one", async () => {
  using folder = temporaryFolder();
  const shard = shardFolder(folder.path, 1);
  // As somebody forges it who does not know the mark of the segment that it will stand in.
  const forged = Buffer.alloc(FRAMES_HEADER_BYTES + 100);
  forged.writeUInt32LE(FRAMES_MAGIC, 0);
  forged.writeUInt32LE(100, 8);
  forged.writeUInt32LE(1_000, 12);
  forged.writeUInt32LE(zlib.crc32(forged.subarray(8)), 4);
  const recorder = openTestRecorder(folder.path);
  const session = openSession(recorder, "s-1", "full");
  const request = query(session, allow(), "select");
  const bytes = Buffer.concat([Buffer.alloc(PAGE_BYTES - FRAMES_HEADER_BYTES - 26), forged, Buffer.alloc(70_000)]);
  session.toClient(request, bytes, 0, bytes.length, 0, bytes.length);
  await recorder.close();
  const file = framesPath(shard, 1);
  assert.ok(fs.readFileSync(file).subarray(PAGE_BYTES).subarray(0, forged.length).equals(forged), "it lies at a page's start");
  const [first, second] = await indexed(folder.path);
  assert.ok(first !== undefined && second !== undefined);
  // Now the block around it is damaged.
  flip(file, FRAMES_HEADER_BYTES + 3);
  const before = { ...first, offset: -PAGE_BYTES, length: 0, number: 0 };
  assert.deepEqual(
    [...blocksAfter(shard, before)].map(({ number }) => number),
    [second.number],
  );
  // The mark itself is lost, and the forger guessed what stands in its place.
  const image = fs.readFileSync(file);
  image.fill(0, 0, FRAMES_HEADER_BYTES);
  fs.writeFileSync(file, image);
  assert.deepEqual([...blocksAfter(shard, undefined)], []);
});

const FAULTS = [
  ["ENOSPC", (real: WriteBuffers): WriteBuffers => failing(real, "ENOSPC")],
  ["EIO", (real: WriteBuffers): WriteBuffers => failing(real, "EIO")],
  [
    "short write",
    (real: WriteBuffers): WriteBuffers =>
      (fd, buffers, position, done) =>
        real(fd, [buffers[0]?.subarray(0, 5_000) ?? Buffer.alloc(0)], position, done),
  ],
] as const;
for (const [way, real] of [
  ["past", fs.writev as WriteBuffers],
  ["through", cachedWrites],
] as const)
  for (const [what, fault] of FAULTS)
    test(`${what}, writing ${way} the page cache: sessions are refused meanwhile, what was taken is kept and written later, in a segment of its own`, {
      timeout: 30_000,
    }, async () => {
      using folder = temporaryFolder();
      const errors: Error[] = [];
      let faulty = false;
      const bad = fault(real);
      const recorder = openTestRecorder(folder.path, 1, {
        onError: (error) => errors.push(error),
        writeBuffers: (fd, buffers, position, done) => (faulty ? bad : real)(fd, buffers, position, done),
      });
      const session = openSession(recorder, "s-1", "full");
      record(recorder, session, 0, 40);
      await recorder.flush();
      const known = fs.statSync(framesPath(shardFolder(folder.path, 1), 1)).size;
      faulty = true;
      record(recorder, session, 40, 100);
      await assert.rejects(recorder.flush(), { code: "SLUICE_RECORD_FAILED", message: new RegExp(what) });
      assert.equal(errors.length, 1);
      assert.throws(() => record(recorder, session, 1_000, 1_001), { code: "SLUICE_RECORD_FAILED" });
      assert.throws(() => openSession(recorder, "s-2"), { code: "SLUICE_RECORD_FAILED" });
      const size = (): number => fs.statSync(framesPath(shardFolder(folder.path, 1), 1)).size;
      for (let count = 0; count < 40 && size() !== known; count += 1) await new Promise((resolve) => setTimeout(resolve, 20));
      assert.equal(size(), known, "the torn tail is cut");
      faulty = false;
      for (let count = 0; count < 100; count += 1) {
        await new Promise((resolve) => setTimeout(resolve, 50));
        if (
          await recorder.flush().then(
            () => true,
            () => false,
          )
        )
          break;
      }
      record(recorder, session, 100, 120);
      await recorder.close();
      assert.ok((await recorded(folder.path, "s-1")).equals(pieces(0, 120)));
      assert.ok(listFrames(shardFolder(folder.path, 1)).length >= 2);
      for (const { mode } of listFrames(shardFolder(folder.path, 1)).map((segment) =>
        fs.statSync(framesPath(shardFolder(folder.path, 1), segment)),
      ))
        assert.equal(mode & 0o777, 0o600);
    });

function failing(real: WriteBuffers, code: string): WriteBuffers {
  return (fd, buffers, position, done) =>
    // As a file system does it: a part arrives, then the error.
    real(fd, buffers.slice(0, 1), position, () => done(Object.assign(new Error(`${code}: made by the test`), { code }), 0));
}

test("a refusal holds for the whole turn: a commit between a session's record and its write does not use it up", async () => {
  using folder = temporaryFolder();
  let faulty = false;
  const recorder = openTestRecorder(folder.path, 1, {
    writeBuffers: (fd, buffers, position, done) => (faulty ? failing(fs.writev, "EIO") : fs.writev)(fd, buffers, position, done),
  });
  const session = openSession(recorder, "s-1", "full");
  record(recorder, session, 0, 1);
  faulty = true;
  await assert.rejects(recorder.flush(), { code: "SLUICE_RECORD_FAILED" });
  const refused = { code: "SLUICE_RECORD_FAILED", message: /EIO/ };
  assert.throws(() => record(recorder, session, 1, 2), refused);
  assert.throws(() => recorder.commit(), refused, "what another wire sends has been refused; the session's own write comes now");
  await new Promise((resolve) => setImmediate(resolve));
  assert.throws(() => recorder.commit(), refused, "written outside a batch, so sent in the check phase");
  await new Promise((resolve) => setTimeout(resolve, 5));
  recorder.commit();
  faulty = false;
  await recorder.close();
});

test("closing while writing fails tries once more before it gives up what was taken", async () => {
  for (const recovers of [true, false]) {
    using folder = temporaryFolder();
    let faulty = false;
    const recorder = openTestRecorder(folder.path, 1, {
      writeBuffers: (fd, buffers, position, done) => (faulty ? failing(fs.writev, "EIO") : fs.writev)(fd, buffers, position, done),
    });
    const session = openSession(recorder, "s-1", "full");
    record(recorder, session, 0, 20);
    await recorder.flush();
    faulty = true;
    record(recorder, session, 20, 200);
    await assert.rejects(recorder.flush(), { code: "SLUICE_RECORD_FAILED" });
    faulty = !recovers;
    if (recovers) await recorder.close();
    else await assert.rejects(recorder.close(), { code: "SLUICE_RECORD_FAILED", message: /EIO/ });
    assert.ok((await recorded(folder.path, "s-1")).equals(pieces(0, recovers ? 200 : 20)));
  }
});

test("the index is never ahead of the files, and one group is written at a time", async () => {
  using folder = temporaryFolder();
  const held: (() => void)[] = [];
  const real: WriteBuffers = fs.writev;
  const recorder = openTestRecorder(folder.path, 1, {
    writeBuffers: (fd, buffers, position, done) => void held.push(() => real(fd, buffers, position, done)),
  });
  record(recorder, openSession(recorder, "s-1", "full"), 0, 80);
  await new Promise((resolve) => setTimeout(resolve, 1_200));
  assert.equal(held.length, 1);
  assert.deepEqual(await indexed(folder.path), []);
  assert.equal((await recorded(folder.path, "s-1")).length, 0);
  const timer = setInterval(() => {
    for (const go of held.splice(0)) go();
  }, 1);
  await recorder.flush();
  assert.equal((await indexed(folder.path)).length, 13);
  assert.ok((await recorded(folder.path, "s-1")).equals(pieces(0, 80)));
  await recorder.close();
  clearInterval(timer);
});
