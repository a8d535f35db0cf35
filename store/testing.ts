/** What the store's tests share. */
import fs from "node:fs";
import os from "node:os";
import path from "node:path";
import type { Identity } from "../core/identity/types.ts";
import type { WriteBuffers } from "./frame-file.ts";
import { openRecorder, type RecorderOptions } from "./recorder.ts";
import { tailEvents } from "./tail.ts";
import type { AuditEvent, DecisionRecord, Recorder, SessionRecorder, StatementRecord } from "./types.ts";

export const alice: Identity = {
  issuer: "corp",
  user: "corp:alice",
  subject: "alice",
  groups: ["corp:dba"],
  claims: {},
  chain: [],
  expiresAtMillis: 0,
};

export function temporaryFolder(): { readonly path: string; readonly [Symbol.dispose]: () => void } {
  const folder = fs.mkdtempSync(path.join(os.tmpdir(), "sluice-store-"));
  return { path: folder, [Symbol.dispose]: () => fs.rmSync(folder, { recursive: true, force: true }) };
}

/** A recorder that does without much free disk, so that tests run anywhere. */
export const openTestRecorder = (folder: string, shard = 1, options: RecorderOptions = {}): Recorder =>
  openRecorder(folder, shard, { minFreeBytes: 1024 * 1024, reserveBytes: 64 * 1024, ...options });

export const allow = (): DecisionRecord => ({
  action: "sql:select",
  resources: ["public.customers"],
  effect: "allow",
  rule: "analysts-read",
  policyVersion: "p1",
  observed: undefined,
  storeSlot: -1,
});
export const deny = (): DecisionRecord => ({ ...allow(), action: "sql:drop", effect: "deny", rule: "no-drop" });
export const statement = (text: string): StatementRecord => ({ text, storeSlot: -1 });

export const openSession = (
  recorder: Recorder,
  id: string,
  results: "full" | "head" | "digest" = "head",
  headBytes = 1_000,
): SessionRecorder =>
  recorder.open({
    id,
    identity: alice,
    clientAddress: "127.0.0.1:5000",
    application: "psql",
    target: "orders",
    protocol: "postgres",
    record: { results, headBytes },
    startedMillis: Date.now(),
  });

/** Stage a simple query's intent. */
export function query(session: SessionRecorder, decision: DecisionRecord, text: string): number {
  const bytes = Buffer.from(text);
  return session.intent(decision, undefined, bytes, 0, bytes.length);
}

export const done = (session: SessionRecorder, request: number, rows = 1, bytes = 10): void =>
  session.outcome(request, "done", rows, bytes, undefined, undefined);

export async function events(folder: string, since?: string): Promise<AuditEvent[]> {
  const all: AuditEvent[] = [];
  for await (const event of tailEvents(folder, { follow: false, since })) all.push(event);
  return all;
}

/** Whether what is written to a descriptor goes past the page cache (O_DIRECT). */
export const isDirect = (fd: number): boolean => {
  const flags = /^flags:\s*([0-7]+)$/m.exec(fs.readFileSync(`/proc/self/fdinfo/${fd}`, "latin1"))?.[1] ?? "0";
  return (Number.parseInt(flags, 8) & fs.constants.O_DIRECT) !== 0;
};

/** A write to a file system that refuses direct ones only when it comes to writing. */
export const cachedWrites: WriteBuffers = (fd, buffers, position, done) => {
  if (isDirect(fd)) setImmediate(done, Object.assign(new Error("EINVAL: made by the test"), { code: "EINVAL" }), 0);
  else fs.writev(fd, buffers, position, done);
};

/** Options of the journal of an empty shard that no recorder has. */
export const journalOptions = (folder: string, segmentBytes: number) => ({
  folder,
  shard: 1,
  segmentBytes,
  reserveBytes: 4_096,
  firstSegment: 1,
  previous: null,
  carry: () => Buffer.alloc(0),
  nextSession: () => 1,
  onRotate: () => {},
});
