/** A worker thread for the takeover test: records without end until it is told to throw or to end at once. */
import { parentPort, workerData } from "node:worker_threads";
import { allow, done, openSession, openTestRecorder, query } from "../../store/testing.ts";

const { folder, shard, round } = workerData as { folder: string; shard: number; round: number };
const recorder = openTestRecorder(folder, shard);
const session = openSession(recorder, `s-${round}`, "full");
const decision = allow();
const bytes = Buffer.alloc(10_000);
let count = 0;
let failing = false;
function batch(): void {
  if (failing) throw new Error("made by the test");
  for (let index = 0; index < 20; index += 1) {
    count += 1;
    const request = query(session, decision, `${round}-${count}`);
    recorder.commit();
    if (!recorder.congested) session.toClient(request, bytes, 0, bytes.length, 0, bytes.length);
    done(session, request);
  }
  if (count === 1_000) parentPort?.postMessage("busy");
  setImmediate(batch);
}
parentPort?.on("message", (how: "throw" | "exit") => {
  // Not terminate() from outside: where that strikes inside a call into LMDB's binding, the binding aborts the process.
  if (how === "exit") process.exit(1);
  failing = true;
});
batch();
