/** A process with a file size limit: fills a journal until it is refused, then waits until a new segment takes over. */
import { setTimeout as sleep } from "node:timers/promises";
import { SluiceError } from "../../core/errors.ts";
import { Journal } from "../../store/journal.ts";

const journal = new Journal(
  {
    folder: process.argv[2] ?? "",
    shard: 1,
    segmentBytes: 1 << 30,
    reserveBytes: 4_096,
    firstSegment: 1,
    previous: null,
    carry: () => Buffer.alloc(0),
    nextSession: () => 1,
    onRotate: () => {},
    onError: () => {},
  },
  { journalBytes: 0, commits: 0, failed: 0 },
);
const place = { segment: 0, offset: 0, lost: false };
function commit(): void {
  journal.track(journal.begin(1_000, 7, 0, 0), place);
  journal.commit();
}
let code = "";
for (let count = 0; count < 1_000 && code === ""; count += 1) {
  try {
    commit();
  } catch (error) {
    if (error instanceof SluiceError) code = `${error.code}: ${error.message}`;
  }
}
await sleep(2_500);
commit();
console.log(`${code}, later commits work`);
