import type { RecordConfig, TargetConfig } from "./config/types.ts";
import type { Identity } from "./identity/types.ts";

declare const proof: unique symbol;

/**
 * Permission to open one target. Dialling demands it. Only core/policy/mint.ts makes one, and a house
 * rule keeps that module to core/policy: "a connection without a decision" does not compile.
 */
export interface Grant {
  readonly [proof]: "grant";
  readonly identity: Identity;
  readonly target: TargetConfig;
  readonly rule: string;
  readonly policyVersion: string;
  /** What `mode: observe` let pass although a rule, or the lack of one, said otherwise. */
  readonly observed: Allowed["observed"];
}

interface VerdictBase {
  /** Name of the deciding rule; undefined where no rule matched (which refuses). */
  readonly rule: string | undefined;
  readonly policyVersion: string;
  /**
   * True: the same operation of the same identity at the same target under the same policy gets the same
   * verdict, so it may be cached. False: a rule read text, parameters, transaction, client or time.
   */
  readonly stable: boolean;
}

export interface Allowed extends VerdictBase {
  readonly [proof]: "allowed";
  readonly kind: "allowed";
  /** The rule's own `record:`, which goes before the target's. */
  readonly record: RecordConfig | undefined;
  /** What `mode: observe` let pass although a rule said otherwise. */
  readonly observed: { readonly effect: "deny" | "approve"; readonly rule: string | undefined } | undefined;
}

/** Refusing needs no proof: any step may do it. */
export interface Refused extends VerdictBase {
  readonly kind: "refused";
  readonly code: "SLUICE_DENIED" | "SLUICE_APPROVAL_UNAVAILABLE" | "SLUICE_LOCKED" | "SLUICE_MASK_IMPOSSIBLE" | "SLUICE_QUOTA_EXCEEDED";
  /** For the client: what was refused and by which rule. */
  readonly message: string;
  readonly hint: string | undefined;
}

export interface Held extends VerdictBase {
  readonly kind: "held";
  readonly approvers: readonly string[];
  readonly count: number;
  readonly holdForMillis: number;
}

export type Verdict = Allowed | Refused | Held;

export const refuse = (fields: Omit<Refused, "kind">): Refused => Object.freeze({ kind: "refused", ...fields });
