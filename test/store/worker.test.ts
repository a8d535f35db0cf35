import assert from "node:assert/strict";
import { once } from "node:events";
import path from "node:path";
import { test } from "node:test";
import { Worker } from "node:worker_threads";
import { events, openTestRecorder, temporaryFolder } from "../../store/testing.ts";

const THREAD = path.join(import.meta.dirname, "thread.ts");

test("the thread that replaces a crashed worker takes over its shard in the same process", { timeout: 60_000 }, async () => {
  using folder = temporaryFolder();
  const main = openTestRecorder(folder.path, 0);
  for (let round = 0; round < 6; round += 1) {
    const worker = new Worker(THREAD, { workerData: { folder: folder.path, shard: 1, round } });
    worker.on("error", () => {});
    const exited = new Promise((resolve) => worker.on("exit", resolve));
    await once(worker, "message");
    worker.postMessage(round % 2 === 0 ? "exit" : "throw");
    await exited;
  }
  main.event({ type: "control", detail: { what: "still here" } });
  await main.close();
  await openTestRecorder(folder.path, 1).close();
  const all = await events(folder.path);
  assert.equal(all.filter((event) => event.type === "session.close").length, 6);
  for (let round = 0; round < 6; round += 1) {
    const outcomes = all.filter((event) => event.statement?.startsWith(`${round}-`)).map((event) => event.outcome);
    assert.ok(outcomes.length >= 1_000, `${outcomes.length} in round ${round}`);
    assert.ok(outcomes.includes("done"));
  }
});
