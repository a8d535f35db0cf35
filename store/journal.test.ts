import assert from "node:assert/strict";
import fs from "node:fs";
import { test } from "node:test";
import { setTimeout as sleep } from "node:timers/promises";
import { SealChain } from "./chain.ts";
import { segmentPath } from "./folder.ts";
import { type IntentPlace, Journal, nextSlot } from "./journal.ts";
import { EFFECTS, eachRecord, INTENT_BYTES, NO_STATEMENT, RECORD } from "./layout.ts";
import { recoverShard } from "./recover.ts";
import { SegmentCursor } from "./segment.ts";
import { journalOptions, temporaryFolder } from "./testing.ts";
import { SegmentWindow } from "./window.ts";

type Fault = { code: string } | { short: number } | undefined;
/** How blocks reach the file: each by a system call, or by a window that is mapped. A fault takes the window away as well. */
type Way = "written" | "mapped";
const WAYS: readonly Way[] = ["written", "mapped"];

/** A journal whose writes fail on demand. */
function faultyJournal(
  folder: string,
  way: Way,
  segmentBytes = 1 << 26,
): { readonly journal: Journal; fault: Fault; readonly errors: Error[]; windowsAsked: number } {
  const errors: Error[] = [];
  const state = { fault: undefined as Fault, errors, windowsAsked: 0 };
  const window = new SegmentWindow();
  const journal = new Journal(
    {
      ...journalOptions(folder, segmentBytes),
      onError: (error) => errors.push(error),
      window: {
        append: (...block) => {
          state.windowsAsked += 1;
          return way === "mapped" && state.fault === undefined && window.append(...block);
        },
        retry: () => window.retry(),
        release: () => window.release(),
      },
      writeSync: (fd, buffer, offset, length, position) => {
        const { fault } = state;
        if (fault === undefined) return fs.writeSync(fd, buffer, offset, length, position);
        if ("short" in fault) return fs.writeSync(fd, buffer, offset, Math.min(length, fault.short), position);
        throw Object.assign(new Error(`${fault.code}: made by the test`), { code: fault.code });
      },
    },
    { journalBytes: 0, commits: 0, failed: 0 },
  );
  return Object.assign(state, { journal });
}

function intent(journal: Journal, text: string, effect: "allow" | "deny" = "allow"): IntentPlace {
  const place: IntentPlace = { segment: 0, offset: 0, lost: false };
  const at = journal.begin(INTENT_BYTES + text.length, RECORD.intent, EFFECTS.indexOf(effect), 0);
  journal.staging.view.setUint32(at + 20, NO_STATEMENT, true);
  journal.staging.buffer.write(text, at + INTENT_BYTES);
  journal.track(at, place);
  return place;
}

function texts(folder: string, segment = 1): string[] {
  const found: string[] = [];
  const cursor = new SegmentCursor(segmentPath(folder, segment), segment);
  for (let block = cursor.next(); block !== undefined; block = cursor.next()) {
    const { payload, offset } = block;
    eachRecord(payload, (type, at, length) => {
      if (type === RECORD.intent) found.push(`${payload.toString("utf8", at + INTENT_BYTES, at + length)}@${offset + at}`);
    });
  }
  cursor.close();
  return found;
}

/** Where the segment's last complete block ends. */
function endOf(folder: string, segment = 1): number {
  const cursor = new SegmentCursor(segmentPath(folder, segment), segment);
  cursor.each(() => {});
  cursor.close();
  return cursor.position;
}

for (const [name, fault, way] of WAYS.flatMap(
  (way) =>
    [
      ["ENOSPC", { code: "ENOSPC" }, way],
      ["EIO", { code: "EIO" }, way],
      ["a short write", { short: 10 }, way],
    ] as const,
)) {
  test(`${way}, ${name}: the batch is refused, denials stay, later commits work again`, async () => {
    using folder = temporaryFolder();
    const faulty = faultyJournal(folder.path, way);
    const { journal } = faulty;
    intent(journal, "before");
    journal.commit();
    const size = endOf(folder.path);
    assert.equal(fs.statSync(segmentPath(folder.path, 1)).size > size, way === "mapped");
    faulty.fault = fault;
    const refused = intent(journal, "refused");
    const denied = intent(journal, "denied", "deny");
    assert.throws(() => journal.commit(), { code: "SLUICE_RECORD_FAILED" });
    assert.equal(refused.lost, true);
    assert.equal(denied.lost, false);
    assert.equal(fs.statSync(segmentPath(folder.path, 1)).size, size, "nothing torn is left in the file");
    assert.equal(faulty.errors.length, 1);
    faulty.windowsAsked = 0;
    const again = intent(journal, "refused again");
    assert.throws(() => journal.commit(), { code: "SLUICE_RECORD_FAILED" });
    assert.equal(again.lost, true);
    journal.commit();
    assert.equal(faulty.windowsAsked, 0, "no room is taken ahead while writing fails");
    faulty.fault = undefined;
    await sleep(1_300);
    const after = intent(journal, "after");
    journal.commit();
    const inFirst = texts(folder.path).map((text) => text.replace(/@.*/, ""));
    assert.deepEqual(texts(folder.path)[1], `denied@${denied.offset}`);
    // A file that failed is not trusted any more: writing goes on in the next segment.
    assert.deepEqual(inFirst, name === "EIO" ? ["before", "denied"] : ["before", "denied", "after"]);
    assert.equal(texts(folder.path, name === "EIO" ? 2 : 1).at(-1), `after@${after.offset}`);
    await journal.close();
  });
}

test("a segment that somebody cuts under its writer refuses the batch; the next one takes over", async () => {
  using folder = temporaryFolder();
  const { journal, errors } = faultyJournal(folder.path, "mapped");
  intent(journal, "before");
  journal.commit();
  fs.truncateSync(segmentPath(folder.path, 1), 0);
  const refused = intent(journal, "refused");
  assert.throws(() => journal.commit(), { code: "SLUICE_RECORD_FAILED", message: /EIO/ });
  assert.equal(refused.lost, true);
  assert.equal(errors.length, 1);
  await sleep(1_300);
  const after = intent(journal, "after");
  journal.commit();
  assert.deepEqual(texts(folder.path, 2), [`after@${after.offset}`]);
  await journal.close();
});

test("a segment that another gateway recovers under its writer loses nothing that was acknowledged", async () => {
  using folder = temporaryFolder();
  const { journal } = faultyJournal(folder.path, "mapped");
  intent(journal, "before");
  journal.commit();
  recoverShard(folder.path, 0);
  const place = intent(journal, "after");
  try {
    journal.commit();
  } catch {
    assert.equal(place.lost, true);
  }
  // Whatever only the mapping held would be gone now.
  await journal.flush().catch(() => {});
  assert.equal(texts(folder.path).includes(`after@${place.offset}`), !place.lost);
  await journal.close().catch(() => {});
});

test("windows come and go at any block: every record stands where it was said to, and the segments end with their last block", async () => {
  using folder = temporaryFolder();
  const faulty = faultyJournal(folder.path, "mapped", 1_000_000);
  const { journal } = faulty;
  const said: string[] = [];
  for (let count = 0; count < 1_000; count += 1) {
    // Without a window, but with no fault of the file: blocks are written for a while.
    faulty.fault = count % 13 < 5 ? { short: Number.MAX_SAFE_INTEGER } : undefined;
    const text = `${count} ${"y".repeat(count % 101 === 0 ? 300_000 + count * 3_000 : (count * 37) % 3_000)}`;
    const place = intent(journal, text);
    journal.commit();
    said.push(`${place.segment} ${text}@${place.offset}`);
    if (count % 50 === 0) await sleep(1);
  }
  await journal.close();
  const found: string[] = [];
  assert.ok(journal.segment > 4);
  for (let segment = 1; segment <= journal.segment; segment += 1) {
    for (const text of texts(folder.path, segment)) found.push(`${segment} ${text}`);
    assert.equal(fs.statSync(segmentPath(folder.path, segment)).size, endOf(folder.path, segment));
  }
  assert.ok(found.length === said.length && found.every((text, index) => text === said[index]));
});

for (const way of WAYS) {
  test(`${way}: a full disk releases the reserve for the denial of the same batch`, async () => {
    using folder = temporaryFolder();
    const faulty = faultyJournal(folder.path, way);
    const { journal } = faulty;
    const reserve = `${folder.path}/reserve`;
    assert.equal(fs.statSync(reserve).size, 4_096);
    // Space is there again as soon as the reserve is gone.
    Object.defineProperty(faulty, "fault", { get: () => (fs.existsSync(reserve) ? { code: "ENOSPC" } : undefined) });
    intent(journal, "refused");
    intent(journal, "denied", "deny");
    assert.throws(() => journal.commit(), { code: "SLUICE_RECORD_FAILED" });
    assert.deepEqual(
      texts(folder.path).map((text) => text.replace(/@.*/, "")),
      ["denied"],
    );
    await journal.close().catch(() => {});
  });
}

for (const way of WAYS) {
  test(`${way}: a refusal that a timer's write met is told to the next commit`, async () => {
    using folder = temporaryFolder();
    const faulty = faultyJournal(folder.path, way);
    intent(faulty.journal, "refused");
    faulty.fault = { code: "ENOSPC" };
    faulty.journal.push();
    assert.throws(() => faulty.journal.commit(), { code: "SLUICE_RECORD_FAILED" });
    faulty.journal.commit();
    await faulty.journal.close().catch(() => {});
  });
}

for (const way of WAYS) {
  test(`${way}: a definition and the intent that uses it share a segment, wherever the buffer is full`, async () => {
    using folder = temporaryFolder();
    const { journal } = faultyJournal(folder.path, way, 20_000);
    let slot = -1;
    for (let count = 0; count < 20_000; count += 1) {
      if (slot < journal.slotBase) {
        slot = nextSlot();
        journal.define(RECORD.decision, 0, slot, "{}");
      }
      const at = journal.begin(INTENT_BYTES + 100, RECORD.intent, 0, 0);
      journal.staging.view.setUint32(at + 16, slot, true);
      journal.track(at, { segment: 0, offset: 0, lost: false });
      if (count % 2_500 === 0) journal.commit();
    }
    await journal.close();
    for (let segment = 1; segment <= journal.segment; segment += 1) {
      const cursor = new SegmentCursor(segmentPath(folder.path, segment), segment);
      const defined = new Set<number>();
      for (let block = cursor.next(); block !== undefined; block = cursor.next()) {
        const { payload } = block;
        eachRecord(payload, (type, at) => {
          if (type === RECORD.decision) defined.add(payload.readUInt32LE(at + 8));
          if (type === RECORD.intent) assert.ok(defined.has(payload.readUInt32LE(at + 16)), `segment ${segment}`);
        });
      }
      cursor.close();
    }
    assert.ok(journal.segment > 3, `${journal.segment} segments`);
  });
}

for (const way of WAYS) {
  test(`${way}: seals chain over blocks and segments`, async () => {
    using folder = temporaryFolder();
    const { journal } = faultyJournal(folder.path, way, 100_000);
    for (let count = 0; count < 4_000; count += 1) {
      intent(journal, "x".repeat(100));
      if (count % 5 === 0) journal.commit();
      if (count % 1_000 === 999) await journal.flush();
    }
    await journal.close();
    let previous: string | undefined;
    const check = (segment: number, path: string): number | undefined => {
      const cursor = new SegmentCursor(path, segment);
      const chain = new SealChain();
      for (let block = cursor.next(); block !== undefined; block = cursor.next()) chain.add(block);
      assert.equal(chain.info?.previous?.seal, previous);
      previous = chain.end();
      cursor.close();
      return chain.brokenAt;
    };
    assert.ok(journal.segment > 2);
    for (let segment = 1; segment <= journal.segment; segment += 1)
      assert.equal(check(segment, segmentPath(folder.path, segment)), undefined);
  });
}
