import assert from "node:assert/strict";
import { test } from "node:test";
import { OffThread } from "./off-thread.ts";

/** A thread that works (or only sleeps) as many milliseconds as a text says, and then refuses it as "done". */
const ENTRY = new URL(
  `data:text/javascript,${encodeURIComponent(`
    import { parentPort } from "node:worker_threads";
    const waited = new Int32Array(new SharedArrayBuffer(4));
    parentPort.on("message", (text) => {
      const [what, millis] = Buffer.from(text).toString().split(" ");
      if (what === "sleep") Atomics.wait(waited, 0, 0, Number(millis));
      else {
        const used = () => { const { user, system } = process.threadCpuUsage(); return (user + system) / 1000; };
        for (const before = used(); used() - before < Number(millis); );
      }
      parentPort.postMessage({ classified: { refusal: "done" }, cacheable: false, keep: undefined });
    });
    parentPort.postMessage("ready");
  `)}`,
);

test("the deadline is one of processor time, and the clock ends what does not use any", { timeout: 60_000 }, async () => {
  const deadlineMillis = 400;
  const thread = new OffThread(ENTRY, deadlineMillis);
  const judged = async (text: string): Promise<readonly [refusal: string, millis: number]> => {
    const began = performance.now();
    const { classified } = await thread.judge(Buffer.from(text));
    return [classified.refusal ?? "", performance.now() - began];
  };
  await judged("work 1");
  // As if the machine gave the thread no time.
  assert.equal((await judged(`sleep ${2.5 * deadlineMillis}`))[0], "done");
  assert.equal((await judged(`work ${deadlineMillis / 2}`))[0], "done");
  // What was used for the text before does not count.
  assert.equal((await judged(`work ${0.6 * deadlineMillis}`))[0], "done");
  // Well before the clock would: unless the machine is busy, in every attempt.
  const workedMillis: number[] = [];
  while (workedMillis.length < 4 && !workedMillis.some((millis) => millis < 4 * deadlineMillis)) {
    const [tooMuch, millis] = await judged(`work ${20 * deadlineMillis}`);
    assert.match(tooMuch, /took too long/);
    workedMillis.push(millis);
  }
  assert.ok(Math.min(...workedMillis) < 4 * deadlineMillis, `${workedMillis} ms`);
  const [tooLong, sleptMillis] = await judged(`sleep ${20 * deadlineMillis}`);
  assert.match(tooLong, /took too long/);
  assert.ok(sleptMillis >= 5 * deadlineMillis - 5 && sleptMillis < 15 * deadlineMillis, `${sleptMillis} ms`);
  assert.equal((await judged("work 1"))[0], "done");
  await thread.close();
});
