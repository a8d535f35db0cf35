import assert from "node:assert/strict";
import { once } from "node:events";
import { test } from "node:test";
import { setTimeout as sleep } from "node:timers/promises";
import { Worker } from "node:worker_threads";
import { SluiceError } from "../errors.ts";
import { allocateQuotas, forgetWorker, type Quota, QuotaTable } from "./table.ts";

const WORKERS = 8;
const HOUR = 3_600_000;

const held = (table: QuotaTable, key: string, windowMillis: number, max: number): Quota => {
  const quota = table.hold(key, windowMillis, max, Number.POSITIVE_INFINITY);
  assert.notEqual(quota, "full");
  return quota as Quota;
};

test("no more than the limit, over all holders; keys are apart", () => {
  const buffer = allocateQuotas(WORKERS);
  const [one, two] = [new QuotaTable(buffer, 1), new QuotaTable(buffer, 2)];
  const a = held(one, "alice", HOUR, 10);
  const b = held(two, "alice", HOUR, 10);
  const other = held(two, "bob", HOUR, 10);
  assert.ok(a.take(6, one.nowMillis()));
  assert.ok(!b.take(5, two.nowMillis()));
  assert.ok(b.take(4, two.nowMillis()));
  assert.ok(!a.take(1, one.nowMillis()));
  assert.ok(a.isExhausted(one.nowMillis()));
  assert.equal(b.used(two.nowMillis()), 10);
  assert.ok(other.take(10, two.nowMillis()));
  a.release();
  b.release();
  assert.ok(held(one, "alice", HOUR, 10).isExhausted(one.nowMillis()), "what was used stays counted");
  assert.ok(!held(one, "alice", HOUR, 11).isExhausted(one.nowMillis()), "under another limit");
});

test("what is used frees up one window later, and a sixteenth of it at most after that", () => {
  const table = new QuotaTable(allocateQuotas(WORKERS), 1);
  const quota = held(table, "alice", 16_000, 100);
  const start = Math.ceil(table.nowMillis() / 1_000) * 1_000;
  assert.ok(quota.take(60, start + 500));
  assert.ok(quota.take(40, start + 3_200));
  assert.equal(quota.freesInMillis(start + 3_200), 17_000 - 3_200);
  assert.ok(!quota.take(1, start + 16_499));
  assert.ok(!quota.take(1, start + 16_999));
  assert.ok(quota.take(60, start + 17_000));
  assert.ok(!quota.take(1, start + 19_999));
  assert.ok(quota.take(40, start + 20_000));
  assert.equal(quota.used(start + 20_000), 100);
  assert.equal(quota.used(start + 1_000_000), 0);
  assert.ok(quota.take(100, start + 1_000_000));
});

test("no stretch as long as the window sees more than the limit", () => {
  const table = new QuotaTable(allocateQuotas(WORKERS), 1);
  const window = 1_600;
  const quota = held(table, "alice", window, 50);
  const taken: number[] = [];
  let now = table.nowMillis();
  let seed = 1;
  for (let turn = 0; turn < 5_000; turn += 1) {
    seed = (seed * 48_271) % 2_147_483_647;
    now += seed % 97;
    if (quota.take(1, now)) taken.push(now);
  }
  assert.ok(taken.length > 1_000);
  for (let index = 50; index < taken.length; index += 1) assert.ok(taken[index]! - taken[index - 50]! >= window);
});

test("limits beyond 2^30 are counted in larger units, never past the limit", () => {
  const table = new QuotaTable(allocateQuotas(WORKERS), 1);
  const max = 50e9;
  const quota = held(table, "alice", HOUR, max);
  let taken = 0;
  while (quota.take(999_999_937, table.nowMillis())) {
    taken += 999_999_937;
    quota.settle();
  }
  assert.ok(taken <= max && taken > max - 2e9);
  assert.ok(quota.used(table.nowMillis()) >= taken);
  const small = held(table, "bob", HOUR, max);
  for (let turn = 0; turn < 1_000; turn += 1) assert.ok(small.take(7, table.nowMillis()));
  assert.ok(small.used(table.nowMillis()) < 7_000 + 64, "of one operation only the last unit is rounded up");
});

test("forced beyond the limit it does not overflow", () => {
  const table = new QuotaTable(allocateQuotas(WORKERS), 1);
  const quota = held(table, "alice", HOUR, 10);
  for (let turn = 0; turn < 10; turn += 1) assert.ok(quota.take(2 ** 30 - 1, table.nowMillis(), true));
  assert.ok(quota.isExhausted(table.nowMillis()));
  assert.ok(!quota.take(1, table.nowMillis()));
});

test("holders at one time; a worker that dies lets go", () => {
  const buffer = allocateQuotas(WORKERS);
  const [one, two] = [new QuotaTable(buffer, 1), new QuotaTable(buffer, 2)];
  const first = one.hold("s", 0, 1, 2);
  const second = two.hold("s", 0, 1, 2);
  assert.ok(first !== "full" && second !== "full");
  assert.equal(one.hold("s", 0, 1, 2), "full");
  second.release();
  second.release();
  assert.notEqual(one.hold("s", 0, 1, 2), "full");
  assert.equal(two.hold("s", 0, 1, 2), "full");
  forgetWorker(buffer, 1);
  assert.equal(first.holders(), 0);
  assert.notEqual(two.hold("s", 0, 1, 2), "full");
});

test("a lock that a dead worker holds is freed", () => {
  const buffer = allocateQuotas(WORKERS);
  new Int32Array(buffer)[0] = 3;
  assert.throws(() => new QuotaTable(buffer, 1).hold("x", HOUR, 1, 1), /table of limits is locked/);
  forgetWorker(buffer, 3);
  new QuotaTable(buffer, 1).hold("x", HOUR, 1, 1);
});

test("a full table refuses newcomers, serves who is in, and takes back what is over", { timeout: 60_000 }, async () => {
  const table = new QuotaTable(allocateQuotas(WORKERS), 1);
  const first = held(table, "user 0", 160, 5);
  assert.ok(first.take(5, table.nowMillis()));
  const quotas: Quota[] = [];
  assert.throws(
    () => {
      for (let index = 1; index < 20_000; index += 1) quotas.push(held(table, `user ${index}`, HOUR, 5));
    },
    (error: unknown) => error instanceof SluiceError && error.code === "SLUICE_QUOTA_SESSIONS" && /all 16384 counters/.test(error.message),
  );
  assert.equal(quotas.length, 16_383);
  held(table, "user 7", HOUR, 5).release();
  // Used and over, but held.
  await sleep(200);
  assert.throws(() => held(table, "late", HOUR, 5), /in use/);
  first.release();
  const late = held(table, "late", HOUR, 5);
  assert.equal(late.used(table.nowMillis()), 0);
  // Free of holders, but its window is not over.
  assert.ok(quotas[0]!.take(1, table.nowMillis()));
  quotas[0]!.release();
  assert.throws(() => held(table, "later", HOUR, 5), /in use/);
  assert.equal(held(table, "user 1", HOUR, 5).used(table.nowMillis()), 1);
});

test("threads that take at once, over moves of the window", { timeout: 60_000 }, async () => {
  const buffer = allocateQuotas(WORKERS);
  const source = `
    import { parentPort, workerData } from "node:worker_threads";
    import { QuotaTable } from ${JSON.stringify(new URL("./table.ts", import.meta.url).href)};
    const { buffer, slot } = workerData;
    const table = new QuotaTable(buffer, slot);
    const long = table.hold("long", 3_600_000, 100_000, Infinity);
    const short = table.hold("short", 32, 5_000, Infinity);
    let taken = 0;
    const times = [];
    const end = table.nowMillis() + 700;
    while (table.nowMillis() < end) {
      for (let turn = 0; turn < 100; turn += 1) if (long.take(1, table.nowMillis())) taken += 1;
      const before = table.nowMillis();
      if (short.take(500, before)) times.push([before, table.nowMillis()]);
    }
    parentPort.postMessage({ taken, times });
  `;
  const workers = [1, 2, 3].map(
    (slot) => new Worker(new URL(`data:text/javascript,${encodeURIComponent(source)}`), { workerData: { buffer, slot } }),
  );
  const results = (await Promise.all(workers.map((worker) => once(worker, "message")))).map(
    ([message]) => message as { taken: number; times: [number, number][] },
  );
  assert.equal(
    results.reduce((sum, { taken }) => sum + taken, 0),
    100_000,
  );
  const times = results.flatMap((result) => result.times).sort((a, b) => a[0] - b[0]);
  assert.ok(times.length > 30, `${times.length} times`);
  // 10 × 500 is the limit, so eleven of them take a window at least. When each took place is known to within its two times only.
  for (let index = 10; index < times.length; index += 1) {
    const eleven = times.slice(index - 10, index + 1);
    const took = Math.max(...eleven.map(([, after]) => after)) - eleven[0]![0];
    assert.ok(
      took >= 32,
      `eleven within ${took} ms: ${eleven.map(([before, after]) => `${before.toFixed(2)}-${after.toFixed(2)}`).join(" ")}`,
    );
  }
});
