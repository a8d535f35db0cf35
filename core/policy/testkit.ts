/** Shared by this folder's tests: an identity, a target, an operation, and a policy from its text. */
import assert from "node:assert/strict";
import { DEFAULT_RECORD } from "../config/build.ts";
import type { TargetConfig } from "../config/types.ts";
import type { Identity } from "../identity/types.ts";
import type { Verdict } from "../verdict.ts";
import { type CompiledPolicy, compilePolicy } from "./compile.ts";
import { parsePolicies } from "./parse.ts";
import type { Access, Moment, Operation, SessionPolicy } from "./types.ts";

export const ISSUERS = [{ name: "corp" }, { name: "partner" }];

export const target = (name: string, labels: Record<string, string> = {}): TargetConfig => ({
  name,
  protocol: "postgres",
  address: { host: "127.0.0.1", port: 5432 },
  database: name,
  user: "svc",
  password: "never-visible",
  tls: { mode: "disable", ca: undefined, serverName: undefined },
  labels,
  connections: { max: 1 },
  record: DEFAULT_RECORD,
});

export const ORDERS = target("orders", { env: "prod" });
export const TARGETS = [ORDERS, target("billing", { env: "test" })];

export const identity = (user: string, groups: string[] = [], claims: Record<string, unknown> = {}): Identity => ({
  issuer: user.split(":")[0] ?? "",
  user,
  subject: user.split(":")[1] ?? "",
  groups,
  claims,
  chain: [],
  expiresAtMillis: Number.MAX_SAFE_INTEGER,
});

export const ALICE = identity("corp:alice", ["corp:analytics"], { department: "sales", level: 3, roles: ["reader", "auditor"] });

/** `operation(["sql:select", "public.a"], ["sql:insert", "public.b"])`. */
export const operation = (...accesses: readonly (readonly string[])[]): Operation => ({
  protocol: "postgres",
  accesses: accesses.map(([action = "", ...resources]): Access => ({ action, resources })),
  unfiltered: false,
  statements: 1,
  tables: [],
  columns: [],
  functions: [],
});

export const MOMENT: Moment = {
  text: "select 1",
  parameters: [],
  transaction: "idle",
  clientAddress: "10.1.2.3:4711",
  // A Wednesday, 14:30 UTC.
  nowMillis: Date.UTC(2026, 0, 14, 14, 30),
};

export const policyOf = (...texts: string[]): CompiledPolicy =>
  compilePolicy(
    parsePolicies(texts.map((text, index) => ({ file: `policy${index || ""}.yaml`, text: `version: 1\n${text}` }))),
    TARGETS,
    ISSUERS,
  );

/** The session of somebody who may connect. */
export function sessionOf(policy: CompiledPolicy, who: Identity = ALICE, where: TargetConfig = ORDERS): SessionPolicy {
  const grant = policy.connect(who, where, MOMENT.clientAddress, MOMENT.nowMillis);
  assert(!("kind" in grant), `connect was refused: ${"kind" in grant ? grant.message : ""}`);
  return policy.session(grant);
}

/** `allow`, `allow by r`, `deny by r`, `deny`, `approve by r`, `allow by r, observed deny by d`. */
export function summary(verdict: Verdict): string {
  const by = (rule: string | undefined): string => (rule === undefined ? "" : ` by ${rule}`);
  if (verdict.kind === "held") return `approve${by(verdict.rule)}`;
  if (verdict.kind === "refused") return `${verdict.code === "SLUICE_APPROVAL_UNAVAILABLE" ? "approve" : "deny"}${by(verdict.rule)}`;
  const { observed } = verdict;
  return `allow${by(verdict.rule)}${observed === undefined ? "" : `, observed ${observed.effect}${by(observed.rule)}`}`;
}
