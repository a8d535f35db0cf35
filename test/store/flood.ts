/** A process for the journal's tests: commits blocks as fast as it can and says how far it came. Arguments: folder, bytes of a segment. */
import fs from "node:fs";
import { Journal } from "../../store/journal.ts";
import { INTENT_BYTES, RECORD } from "../../store/layout.ts";
import { journalOptions } from "../../store/testing.ts";

const [folder = "", segmentBytes = "1000000"] = process.argv.slice(2);
const journal = new Journal(
  {
    ...journalOptions(folder, Number(segmentBytes)),
    onError: (error) => console.error(error),
  },
  { journalBytes: 0, commits: 0, failed: 0 },
);
const place = { segment: 0, offset: 0, lost: false };
let count = 0;
function turn(): void {
  for (let time = 0; time < 200; time += 1) {
    count += 1;
    const at = journal.begin(INTENT_BYTES + (count % 600), RECORD.intent, 0, 0);
    // The buffer holds earlier blocks, of another segment as well; a piece of one within a torn block would look like a block behind it.
    journal.staging.buffer.fill(0, at + 8, at + INTENT_BYTES + (count % 600));
    journal.staging.view.setUint32(at + 8, count, true);
    journal.track(at, place);
    journal.commit();
    // The number of the last block that may have been acknowledged.
    fs.writeSync(1, `${count}\n`);
  }
  setImmediate(turn);
}
turn();
