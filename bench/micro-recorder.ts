import { mkdirSync } from "node:fs";
import { join } from "node:path";
import { openRecorder } from "../store/recorder.ts";
import type { DecisionRecord, StatementRecord } from "../store/types.ts";
import { removeFolder, temporaryFolder } from "../test/helpers/processes.ts";
import type { MicroCases } from "./micro.ts";

/** Intents that go out together, as when sixteen clients are ready at once. */
const BATCH = 16;

export function recorderCases(): MicroCases {
  const folder = temporaryFolder("micro-recorder");
  const data = join(folder, "data");
  mkdirSync(data, { mode: 0o700 });
  const recorder = openRecorder(data, 1);
  const session = recorder.open({
    id: "bench",
    identity: { issuer: "corp", user: "corp:alice", subject: "alice", groups: [], claims: {}, chain: [], expiresAtMillis: 4e12 },
    clientAddress: "127.0.0.1:5000",
    application: "bench",
    target: "bench",
    protocol: "postgres",
    record: { results: "head", headBytes: 1_000_000 },
    startedMillis: Date.now(),
  });
  const decision: DecisionRecord = {
    action: "sql:select",
    resources: ["public.pgbench_accounts"],
    effect: "allow",
    rule: "analysts-read",
    policyVersion: "0123456789abcdef",
    observed: undefined,
    storeSlot: -1,
  };
  const statement: StatementRecord = { text: "SELECT abalance FROM pgbench_accounts WHERE aid = $1;", storeSlot: -1 };
  // Bind's parameter section: no formats, one value of four bytes, no result formats.
  const parameters = Buffer.from("\0\0\0\x01\0\0\0\x044711\0\0", "latin1");
  const answer = Buffer.alloc(70);
  const run = (recordsAnswer: boolean) => async () => {
    for (let i = 0; i < BATCH; i++) {
      const request = session.intent(decision, statement, parameters, 0, parameters.length);
      if (recordsAnswer) session.toClient(request, answer, 0, answer.length, 0, answer.length);
      session.outcome(request, "done", 1, answer.length, undefined, undefined);
    }
    recorder.commit();
    // As a session would: it waits while the disk is behind.
    if (recorder.congested) await recorder.flush();
  };
  return {
    cases: [
      { name: "recorder, intent and outcome, 16 a commit", operations: BATCH, unit: "operation", run: run(false) },
      { name: "recorder, and 70 bytes of answer", operations: BATCH, unit: "operation", run: run(true) },
    ],
    close: async () => {
      await recorder.close();
      removeFolder(folder);
    },
  };
}
