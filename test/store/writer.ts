/**
 * A process for the crash tests: commits operations in a loop and reports each on stdout after its commit, as a
 * gateway would forward it. Arguments: data folder, shard, prefix of the statements.
 */
import fs from "node:fs";
import { openRecorder } from "../../store/recorder.ts";
import { alice } from "../../store/testing.ts";

const [folder = "", shard = "1", prefix = "x"] = process.argv.slice(2);
const recorder = openRecorder(folder, Number(shard), { minFreeBytes: 1024 * 1024, reserveBytes: 4_096, segmentBytes: 32 * 1024 });
const session = recorder.open({
  id: `session-${prefix}`,
  identity: alice,
  clientAddress: "127.0.0.1:1",
  application: undefined,
  target: "orders",
  protocol: "postgres",
  record: { results: "head", headBytes: 100 },
  startedMillis: Date.now(),
});
const decision = {
  action: "sql:select",
  resources: [],
  effect: "allow" as const,
  rule: "r",
  policyVersion: "p",
  observed: undefined,
  storeSlot: -1,
};
let count = 0;
function batch(): void {
  const requests: number[] = [];
  let forwarded = "";
  for (let index = 0; index < 5; index += 1) {
    count += 1;
    const text = Buffer.from(`${prefix}-${count}`);
    session.fromClient(text, 0, text.length);
    requests.push(session.intent(decision, undefined, text, 0, text.length));
    forwarded += `${prefix}-${count}\n`;
  }
  recorder.commit();
  fs.writeSync(1, forwarded);
  for (const request of requests) if (request % 3 !== 0) session.outcome(request, "done", 1, 1, undefined, undefined);
}
setInterval(() => {
  for (let index = 0; index < 10; index += 1) batch();
}, 1);
