import { mkdirSync } from "node:fs";
import { join } from "node:path";
import type { TargetConfig } from "../core/config/types.ts";
import type { Identity } from "../core/identity/types.ts";
import { createMasker } from "../core/mask/masker.ts";
import type { Wire, WireHandler } from "../core/net/types.ts";
import { compilePolicy } from "../core/policy/compile.ts";
import { parsePolicies } from "../core/policy/parse.ts";
import type { LimitRule } from "../core/policy/types.ts";
import { Allowance } from "../core/quota/allowance.ts";
import { allocateQuotas, QuotaTable } from "../core/quota/table.ts";
import type { Catalogue } from "../protocols/postgres/catalogue.ts";
import { DecisionContexts } from "../protocols/postgres/decide.ts";
import { bind, describe, execute, parse, query, sync } from "../protocols/postgres/messages.ts";
import { Relay } from "../protocols/postgres/relay.ts";
import type { RelayCounters } from "../protocols/postgres/relay-options.ts";
import { createClassifier } from "../protocols/postgres/sql/classify.ts";
import { openRecorder } from "../store/recorder.ts";
import { removeFolder, temporaryFolder } from "../test/helpers/processes.ts";
import type { MicroCases } from "./micro.ts";
import { POLICY } from "./policy.ts";

/** Sessions whose messages go out together, as when sixteen clients are ready at once. */
const SESSIONS = 16;
const ACCOUNTS_OID = 16_400;

/** A wire that goes nowhere: what it is given is counted. */
class NoWire implements Wire {
  handler: WireHandler = { onData() {}, onDrain() {}, onEnd() {}, onClose() {}, onUnrecorded() {} };
  readonly remoteAddress = "127.0.0.1:5000";
  readonly isLoopback = true;
  readonly encrypted = false;
  readonly backlogBytes = 0;
  readonly alpn = undefined;
  written = 0;
  write(_bytes: Uint8Array, start: number, end: number): void {
    this.written += end - start;
  }
  pause(): void {}
  resume(): void {}
  end(): void {}
  lastWords(bytes: Uint8Array): void {
    throw new Error(`the benchmark's session ended: ${Buffer.from(bytes).toString("latin1")}`);
  }
  destroy(): void {}
  acceptTls(): Promise<void> {
    return Promise.reject(new Error("no TLS here"));
  }
  startTls(): Promise<void> {
    return Promise.reject(new Error("no TLS here"));
  }
  peerCertificate(): undefined {
    return undefined;
  }
}

/** What the target's catalogue is for the statements below. */
export const catalogue: Catalogue = {
  serial: 1,
  searchPath: ["public"],
  generation: 1,
  loaded: true,
  refresh: () => Promise.resolve(),
  invalidate() {},
  resolve: (schema, name) => ((schema ?? "public") === "public" && name === "pgbench_accounts" ? ["public.pgbench_accounts"] : []),
  schemas: () => ["public"],
  hasColumn: (_relation, column) => ["aid", "abalance"].includes(column),
  relation: () => undefined,
  hasSchema: (schema) => schema === "public",
  columnOrigin: (oid) =>
    oid === ACCOUNTS_OID ? { schema: "public", table: "pgbench_accounts", column: "abalance", kind: "r" } : undefined,
  maskedRelations: () => ({ columns: new Map(), computed: new Map(), relations: new Set(), untraced: new Set(), besides: new Set() }),
  isBuiltinFunction: () => true,
  hasOwnEquality: false,
  hasOtherFunction: () => false,
  role: "none",
  mayMove: () => false,
};

/** Never reached. */
const LIMIT: LimitRule = {
  name: "bench",
  key: "bench",
  observe: false,
  rows: 1e12,
  bytes: 1e15,
  statements: 1e12,
  sessions: 100,
  perMillis: 3_600_000,
};
/** Rows of one read. */
const ROWS = 1_000;

const target: TargetConfig = {
  name: "bench",
  protocol: "postgres",
  address: { host: "127.0.0.1", port: 5432 },
  database: "bench",
  user: "bench",
  password: undefined,
  tls: { mode: "disable", ca: undefined, serverName: undefined },
  labels: {},
  connections: { max: 100 },
  record: { results: "head", headBytes: 1_000_000 },
};

const backend = (type: string, body: Buffer): Buffer => {
  const head = Buffer.alloc(5);
  head.write(type, 0, "latin1");
  head.writeInt32BE(body.length + 4, 1);
  return Buffer.concat([head, body]);
};

const rowDescription = (): Buffer => {
  const body = Buffer.alloc(2 + 9 + 18);
  body.writeInt16BE(1, 0);
  body.write("abalance\0", 2, "latin1");
  body.writeUInt32BE(ACCOUNTS_OID, 11);
  body.writeInt16BE(3, 15);
  body.writeUInt32BE(23, 17);
  body.writeInt16BE(4, 21);
  body.writeInt32BE(-1, 23);
  return backend("T", body);
};
const dataRow = backend("D", Buffer.from("\0\x01\0\0\0\x010", "latin1"));
const complete = backend("C", Buffer.from("SELECT 1\0"));
const ready = backend("Z", Buffer.from("I"));
const parseComplete = backend("1", Buffer.alloc(0));
const parameterDescription = backend("t", Buffer.from("\0\x01\0\0\0\x17", "latin1"));
const bindComplete = backend("2", Buffer.alloc(0));

/** One query of `pgbench -S` from the client's bytes to the server's answer, everything but the sockets. */
export async function relayCases(): Promise<MicroCases> {
  const folder = temporaryFolder("micro-relay");
  const data = join(folder, "data");
  mkdirSync(data, { mode: 0o700 });
  const recorder = openRecorder(data, 1);
  const classifier = await createClassifier();
  const document = parsePolicies([{ file: "policy.yaml", text: POLICY }]);
  const policy = compilePolicy(document, [target], [{ name: "corp" }]);
  const groups = ["corp:analysts"];
  const identity: Identity = { issuer: "corp", user: "corp:alice", subject: "alice", groups, claims: {}, chain: [], expiresAtMillis: 4e12 };
  const grant = policy.connect(identity, target, "127.0.0.1:5000", Date.now());
  if ("kind" in grant) throw new Error("the benchmark's policy lets nobody in");
  const masker = createMasker(
    document.masks.map(({ mask }) => mask),
    new Uint8Array(32),
    undefined,
  );
  const counters: RelayCounters = { fromClientBytes: 0, toClientBytes: 0, decided() {}, maskedBy() {}, limitHit() {} };
  const room = { classifier, contexts: new DecisionContexts(), recorder, counters, catalogueChanged() {}, limitObserved() {}, fault() {} };
  const quotas = new QuotaTable(allocateQuotas(2), 1);
  const session = (index: number, limits: readonly LimitRule[], record = target.record) => {
    const client = new NoWire();
    const upstream = new NoWire();
    const relay = new Relay({
      room,
      id: `bench${index}`,
      grant,
      policy: policy.session(grant),
      masker,
      allowance: limits.length === 0 ? undefined : new Allowance(quotas, identity, limits, true),
      catalogue,
      recorder: recorder.open({
        id: `bench${index}`,
        identity,
        clientAddress: "127.0.0.1:5000",
        application: "bench",
        target: "bench",
        protocol: "postgres",
        record,
        startedMillis: Date.now(),
      }),
      client,
      upstream,
      clientAddress: "127.0.0.1:5000",
      searchPath: ["public"],
      statuses: new Map(),
      cancelUpstream: () => {},
      onExpiry: "finish",
      idleMillis: 0,
    });
    relay.start(new Uint8Array(0), new Uint8Array(0));
    return { client, upstream, relay };
  };
  const sessions = Array.from({ length: SESSIONS }, (_, index) => session(index, []));
  const limited = sessions.map((_, index) => session(SESSIONS + index, [LIMIT]));
  // Rows without end would be more than a disk takes: only the first of each result are recorded.
  const [free, counted] = [[], [LIMIT]].map((limits, index) =>
    session(2 * SESSIONS + index, limits, { results: "head", headBytes: 1_000 }),
  );
  const deliver = (wire: NoWire, bytes: Buffer): void => wire.handler.onData(bytes, 0, bytes.length);
  const prepared = { ask: Buffer.concat([bind("", "P_0", ["4711"]), describe("P", ""), execute(""), sync()]) };
  const answer = Buffer.concat([bindComplete, rowDescription(), dataRow, complete, ready]);
  const simple = Array.from({ length: 100 }, (_, index) =>
    Buffer.from(query(`SELECT abalance FROM pgbench_accounts WHERE aid = ${index * 7919};`)),
  );
  const simpleAnswer = Buffer.concat([rowDescription(), dataRow, complete, ready]);
  for (const { client, upstream } of sessions) {
    deliver(client, Buffer.concat([parse("P_0", "SELECT abalance FROM pgbench_accounts WHERE aid = $1;"), sync()]));
    // The relay asks for the description of a named statement itself, for the masks.
    deliver(upstream, Buffer.concat([parseComplete, parameterDescription, rowDescription(), ready]));
  }
  const passed = (): number => sessions.reduce((sum, { client }) => sum + client.written, 0);
  const before = passed();
  deliver(sessions[0]!.client, prepared.ask);
  deliver(sessions[0]!.upstream, answer);
  if (passed() - before !== answer.length) throw new Error("the benchmark's query was not answered");
  let turn = 0;
  const rows = Buffer.concat([rowDescription(), ...Array.from({ length: ROWS }, () => dataRow), complete, ready]);
  // As wires that are paused: they wait while the disk is behind.
  const answered = async () => {
    recorder.commit();
    if (recorder.congested) await recorder.flush();
  };
  const result = ({ client, upstream }: ReturnType<typeof session>) => {
    deliver(client, simple[0]!);
    recorder.commit();
    deliver(upstream, rows);
    return answered();
  };
  const simpleQueries = (all: typeof sessions) => {
    for (const { client } of all) deliver(client, simple[turn++ % simple.length]!);
    recorder.commit();
    for (const { upstream } of all) deliver(upstream, simpleAnswer);
    return answered();
  };
  return {
    cases: [
      {
        name: "relay, one prepared query, 16 a commit",
        operations: SESSIONS,
        unit: "query",
        run: () => {
          for (const { client } of sessions) deliver(client, prepared.ask);
          recorder.commit();
          for (const { upstream } of sessions) deliver(upstream, answer);
          return answered();
        },
      },
      {
        name: "relay, one simple query, 16 a commit",
        operations: SESSIONS,
        unit: "query",
        run: () => simpleQueries(sessions),
      },
      { name: "relay, a row of a result", operations: ROWS, unit: "row", run: () => result(free!) },
      { name: "relay, a row of a result under limits of rows and bytes", operations: ROWS, unit: "row", run: () => result(counted!) },
      { name: "relay, one simple query under limits, 16 a commit", operations: SESSIONS, unit: "query", run: () => simpleQueries(limited) },
    ],
    close: async () => {
      await recorder.close();
      classifier.close();
      removeFolder(folder);
    },
  };
}
