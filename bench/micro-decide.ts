import type { TargetConfig } from "../core/config/types.ts";
import type { Identity } from "../core/identity/types.ts";
import { createMasker } from "../core/mask/masker.ts";
import { compilePolicy } from "../core/policy/compile.ts";
import { parsePolicies } from "../core/policy/parse.ts";
import type { Moment, Operation, SessionPolicy } from "../core/policy/types.ts";
import type { Grant } from "../core/verdict.ts";
import { DecisionContexts, UNKNOWN_RELATION } from "../protocols/postgres/decide.ts";
import { createClassifier } from "../protocols/postgres/sql/classify.ts";
import type { Classified } from "../protocols/postgres/sql/types.ts";
import type { MicroCases } from "./micro.ts";
import { catalogue } from "./micro-relay.ts";
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
  const classify = (text: Uint8Array): Classified => {
    const classified = classifier.classify(text, 0, text.length);
    if (!("accesses" in classified) || classified.accesses.length !== 1) throw new Error("a benchmark statement was not classified");
    return classified;
  };
  const { grant, session } = policyFor("staff");
  const masker = createMasker(
    parsePolicies([{ file: "policy.yaml", text: POLICY }]).masks.map(({ mask }) => mask),
    new Uint8Array(32),
    undefined,
  );
  const context = new DecisionContexts().get(grant, session, catalogue, ["public"], new Set(), masker, "bench");
  const decide = (text: Uint8Array): void => {
    const decision = context.decide(classify(text), () => moment, false);
    if (decision === UNKNOWN_RELATION || decision.verdict.kind !== "allowed") throw new Error("the benchmark's statement is refused");
  };
  return {
    cases: [
      {
        name: "classifier, known shape, another literal each time",
        operations: BATCH,
        unit: "statement",
        run: times((index) => void classify(known[index % BATCH] ?? Buffer.alloc(0))),
      },
      {
        name: "classifier, new shape (parsed)",
        operations: BATCH,
        unit: "statement",
        run: times((index) => void classify(Buffer.from(`SELECT abalance AS a${index} FROM pgbench_accounts WHERE aid = 1;`))),
      },
      {
        name: "decision, cached: shape, names and policy",
        operations: BATCH,
        unit: "statement",
        run: times((index) => decide(known[index % BATCH] ?? Buffer.alloc(0))),
      },
      {
        name: "decision, first: parsed, resolved, decided",
        operations: BATCH,
        unit: "statement",
        run: times((index) => decide(Buffer.from(`SELECT abalance AS b${index} FROM pgbench_accounts WHERE aid = 1;`))),
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

function policyFor(group: string): { grant: Grant; session: SessionPolicy } {
  const document = parsePolicies([{ file: "policy.yaml", text: POLICY }]);
  const policy = compilePolicy(document, [target], [{ name: "corp" }]);
  const groups = ["corp:analysts", `corp:${group}`];
  const identity: Identity = { issuer: "corp", user: "corp:alice", subject: "alice", groups, claims: {}, chain: [], expiresAtMillis: 4e12 };
  const grant = policy.connect(identity, target, moment.clientAddress, moment.nowMillis);
  if ("kind" in grant) throw new Error("the benchmark's policy lets nobody in");
  return { grant, session: policy.session(grant) };
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
      { name: "policy, two denies by expression", operations: BATCH, unit: "decision", run: decide(policyFor("staff").session) },
      { name: "policy, and one that reads the clock", operations: BATCH, unit: "decision", run: decide(policyFor("contractors").session) },
    ],
  };
}
