/**
 * A process that records results: a session writes numbered pieces and says on stdout how many it has written.
 * Arguments: data folder, bytes of a piece, pieces (0: without end), how it ends (close, or wait), and `cached` for no direct writes.
 */
import fs from "node:fs";
import { setTimeout as sleep } from "node:timers/promises";
import { openRecorder } from "../../store/recorder.ts";
import { allow, cachedWrites, openSession, query } from "../../store/testing.ts";

const [folder = "", bytes = "1000", pieces = "0", end = "wait", way = ""] = process.argv.slice(2);
const recorder = openRecorder(folder, 1, {
  minFreeBytes: 1024 * 1024,
  reserveBytes: 4_096,
  ...(way === "cached" && { writeBuffers: cachedWrites }),
  onError: (error) => fs.writeSync(1, `${error.message}\n`),
});
const session = openSession(recorder, `session-${process.pid}`, "full");
const request = query(session, allow(), "select");
recorder.commit();
let written = 0;
let refused = 0;
while (pieces === "0" || written < Number(pieces)) {
  while (recorder.congested) await sleep(5);
  const piece = Buffer.alloc(Number(bytes), `${written}.`);
  session.toClient(request, piece, 0, piece.length, 0, piece.length);
  try {
    recorder.commit();
    written += 1;
  } catch {
    refused += 1;
    await sleep(50);
  }
  if (written % 10 === 0) {
    fs.writeSync(1, `${written}\n`);
    await sleep(5);
  }
}
if (end === "close") {
  for (let flushed = false; !flushed; ) {
    flushed = await recorder.flush().then(
      () => true,
      () => sleep(100, false),
    );
  }
  await recorder.close();
  fs.writeSync(1, `closed after ${refused} refusals\n`);
} else setInterval(() => {}, 1_000);
