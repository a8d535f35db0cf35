import type { TargetConfig } from "../config/types.ts";
import type { Identity } from "../identity/types.ts";
import type { Grant, Verdict } from "../verdict.ts";

/** One kind of access inside an operation. `insert into a select from b` has two: insert on a, select on b. */
export interface Access {
  /** `sql:select`, `sql:update`, … always qualified. */
  readonly action: string;
  /** `schema.relation`; every candidate where a name is ambiguous. Empty: covered by every allow of the action. */
  readonly resources: readonly string[];
}

/** What one client message asks for. Made by a protocol's inspect step, judged by policy. */
export interface Operation {
  readonly protocol: string;
  readonly accesses: readonly Access[];
  /** An UPDATE or DELETE without WHERE is among the statements. */
  readonly unfiltered: boolean;
  /** Number of statements in the message. */
  readonly statements: number;
  readonly tables: readonly string[];
  readonly columns: readonly string[];
  readonly functions: readonly string[];
}

/** What is true at one execution and not part of the operation's shape. Read only by rules with `when`. */
export interface Moment {
  readonly text: string;
  /** Values of Bind in text form; undefined for NULL, or where a binary value could not be read. */
  readonly parameters: readonly (string | undefined)[];
  readonly transaction: "idle" | "block" | "failed";
  readonly clientAddress: string;
  readonly nowMillis: number;
}

export type DetectorName = "payment_card" | "us_ssn" | "email" | "iban" | "phone" | "jwt" | "private_key" | "cloud_key";
export type MaskMethod = "redact" | "partial" | "hash" | "null";

export interface MaskRule {
  readonly name: string;
  /** `schema.table.column`, by origin; `*` may stand for one part. */
  readonly columns: readonly string[];
  readonly detect: readonly DetectorName[];
  readonly with: MaskMethod;
  readonly predicates: "deny" | "equality" | "allow";
}

/** How much one identity may have, over all its sessions. What is undefined is not limited. */
export interface LimitRule {
  /** As in the policy, or `limits[3]`. */
  readonly name: string;
  /** Equal as long as the entry is the same one: what was counted under it goes on counting. */
  readonly key: string;
  readonly observe: boolean;
  readonly rows: number | undefined;
  /** Of responses, as response.bytes in the audit. */
  readonly bytes: number | undefined;
  readonly statements: number | undefined;
  /** At one time. */
  readonly sessions: number | undefined;
  /** Length of the window; there whenever rows, bytes or statements are. */
  readonly perMillis: number | undefined;
}

/** The compiled policy set: immutable; replaced whole on reload. */
export interface Policy {
  /** First 16 hex digits of the SHA-256 over the policy files' contents. */
  readonly version: string;
  /** May this identity open this target at all (`connect`)? A Refused says which rule, or that none matched. */
  connect(
    identity: Identity,
    target: TargetConfig,
    clientAddress: string,
    nowMillis: number,
  ): Grant | Extract<Verdict, { kind: "refused" }>;
  /** The rules, masks and limits that can apply to this grant, picked out once for a session. */
  session(grant: Grant): SessionPolicy;
}

export interface SessionPolicy {
  readonly policyVersion: string;
  /** Masks in force for this identity at this target (`except` already applied). */
  readonly masks: readonly MaskRule[];
  readonly limits: readonly LimitRule[];
  decide(operation: Operation, moment: Moment): Verdict;
}
