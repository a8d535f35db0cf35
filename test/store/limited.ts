/** A process with a file size limit: fills a journal until it is refused, then waits until a new segment takes over. */
import { setTimeout as sleep } from "node:timers/promises";
import { SluiceError } from "../../core/errors.ts";
import { Journal } from "../../store/journal.ts";
import { journalOptions } from "../../store/testing.ts";

const journal = new Journal(
  {
    ...journalOptions(process.argv[2] ?? "", 1 << 30),
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
