import type { TargetConfig } from "../core/config/types.ts";
import type { Identity } from "../core/identity/types.ts";
import { createMasker } from "../core/mask/masker.ts";
import { compilePolicy } from "../core/policy/compile.ts";
import { parsePolicies } from "../core/policy/parse.ts";
import type { Moment, Operation, SessionPolicy } from "../core/policy/types.ts";
import { createClassifier } from "../protocols/postgres/sql/classify.ts";
import type { MicroCases } from "./micro.ts";
import { POLICY } from "./policy.ts";

const BATCH = 100;

function times(run: (index: number) => void): () => void {
  let index = 0;
  return () => {
    for (let i = 0; i < BATCH; i++) run(index++);
  };
}

export async function sqlCases(): Promise<MicroCases> {
  const classifier = await createClassifier();
  const known = Array.from({ length: BATCH }, (_, index) =>
    Buffer.from(`SELECT abalance FROM pgbench_accounts WHERE aid = ${index * 7919};`),
  );
  const classify = (text: Uint8Array): void => {
    const classified = classifier.classify(text, 0, text.length);
    if (!("accesses" in classified) || classified.accesses.length !== 1) throw new Error("a benchmark statement was not classified");
  };
  return {
    cases: [
      {
        name: "classifier, known shape, another literal each time",
        operations: BATCH,
        unit: "statement",
        run: times((index) => classify(known[index % BATCH] ?? Buffer.alloc(0))),
      },
      {
        name: "classifier, new shape (parsed)",
        operations: BATCH,
        unit: "statement",
        run: times((index) => classify(Buffer.from(`SELECT abalance AS a${index} FROM pgbench_accounts WHERE aid = 1;`))),
      },
    ],
    close: () => classifier.close(),
  };
}

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

/** Some day at noon, UTC: one rule looks at the hour. */
const NOON_MILLIS = Date.UTC(2026, 0, 15, 12);

const moment: Moment = { text: "", parameters: [], transaction: "idle", clientAddress: "127.0.0.1:5000", nowMillis: NOON_MILLIS };

function sessionOf(group: string): SessionPolicy {
  const document = parsePolicies([{ file: "policy.yaml", text: POLICY }]);
  const policy = compilePolicy(document, [target], [{ name: "corp" }]);
  const groups = ["corp:analysts", `corp:${group}`];
  const identity: Identity = { issuer: "corp", user: "corp:alice", subject: "alice", groups, claims: {}, chain: [], expiresAtMillis: 4e12 };
  const grant = policy.connect(identity, target, moment.clientAddress, moment.nowMillis);
  if ("kind" in grant) throw new Error("the benchmark's policy lets nobody in");
  return policy.session(grant);
}

/** Verdicts that may be cached are cached by the data path: what it then pays is neither of these but a map's look-up. */
export function policyCases(): MicroCases {
  const operation: Operation = {
    protocol: "postgres",
    accesses: [{ action: "sql:select", resources: ["public.pgbench_accounts"] }],
    unfiltered: false,
    statements: 1,
    tables: ["public.pgbench_accounts"],
    columns: ["abalance", "aid"],
    functions: [],
  };
  const decide = (session: SessionPolicy) =>
    times(() => {
      if (session.decide(operation, { ...moment, nowMillis: NOON_MILLIS }).kind !== "allowed")
        throw new Error("the benchmark's statement is refused");
    });
  return {
    cases: [
      { name: "policy, two denies by expression", operations: BATCH, unit: "decision", run: decide(sessionOf("staff")) },
      { name: "policy, and one that reads the clock", operations: BATCH, unit: "decision", run: decide(sessionOf("contractors")) },
    ],
  };
}

/** DataRow (PostgreSQL, Message Formats): type, length, number of columns, then length and bytes of each. */
function dataRow(values: readonly string[]): Buffer {
  const fields = values.map((value) => {
    const field = Buffer.alloc(4 + Buffer.byteLength(value));
    field.writeInt32BE(field.length - 4);
    field.write(value, 4);
    return field;
  });
  const body = Buffer.concat(fields);
  const head = Buffer.from("D\0\0\0\0\0\0", "latin1");
  head.writeInt32BE(6 + body.length, 1);
  head.writeInt16BE(values.length, 5);
  return Buffer.concat([head, body]);
}

export function maskCases(): MicroCases {
  const masks = parsePolicies([{ file: "policy.yaml", text: POLICY }]).masks.map(({ mask }) => mask);
  const masker = createMasker(masks, new Uint8Array(32), undefined);
  const small = dataRow(["-1234"]);
  const rows: Buffer[] = [];
  for (let id = 0, bytes = 0; bytes < 65_536; id++) {
    const row = dataRow([
      String(id),
      String(480_000_000_000 + id),
      `customer ${id}`,
      "2024-01-01 00:00:13+00",
      "1234.56",
      "a sentence without secrets",
    ]);
    rows.push(row);
    bytes += row.length;
  }
  const chunk = Buffer.concat(rows);
  const note = Buffer.from("please write to user4711@example.com about it");
  const card = Buffer.from("480000004711");
  return {
    cases: [
      {
        name: "mask prefilter, one row of one short value",
        operations: BATCH,
        unit: "scan",
        run: times(() => masker.scan(small, 0, small.length)),
      },
      {
        name: "mask prefilter, 64 KiB of rows",
        operations: 1,
        unit: "scan",
        bytes: chunk.length,
        run: () => void masker.scan(chunk, 0, chunk.length),
      },
      {
        name: "mask, field with an e-mail address",
        operations: BATCH,
        unit: "field",
        run: times(() => masker.field(note, 0, note.length)),
      },
      {
        name: "mask, field of 12 digits, none of the kinds",
        operations: BATCH,
        unit: "field",
        run: times(() => masker.field(card, 0, card.length)),
      },
    ],
  };
}
