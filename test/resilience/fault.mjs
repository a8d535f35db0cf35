// Loaded with `node --import` into every thread of a gateway under test. A worker thread that finds one of the trigger
// files takes it away, so that exactly one acts, and then fails in the way that the file's name says.
import { existsSync, unlinkSync } from "node:fs";
import { isMainThread } from "node:worker_threads";

const folder = process.env.SLUICE_TEST_FAULTS;
const held = [];

function take(name) {
  const file = `${folder}/${name}`;
  if (!existsSync(file)) return false;
  try {
    unlinkSync(file);
    return true;
  } catch {
    return false;
  }
}

if (folder !== undefined && !isMainThread) {
  setInterval(() => {
    if (take("throw")) throw new Error("a planted fault");
    if (take("reject")) void Promise.reject(new Error("a planted rejection"));
    if (take("heap")) for (;;) held.push(Array.from({ length: 1_000_000 }, () => 0.5));
    if (take("exit")) process.exit(3);
  }, 20).unref();
}
