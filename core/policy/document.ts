import type { Path, Positions } from "../config/problems.ts";
import type { RecordConfig } from "../config/types.ts";
import type { LimitRule, MaskRule } from "./types.ts";

/** The policy files after validation, not yet bound to targets and issuers. Plain data: it crosses threads. */
export interface PolicyDocument {
  /** First 16 hex digits of the SHA-256 over the files' texts, in their order. */
  readonly version: string;
  readonly sources: readonly PolicySource[];
  readonly rules: readonly RuleDocument[];
  readonly masks: readonly MaskDocument[];
  readonly limits: readonly LimitDocument[];
}

export interface PolicySource {
  readonly file: string;
  readonly mode: "enforce" | "observe";
  /** For error messages that only targets and issuers can bring out. */
  readonly positions: Positions;
}

/** Index into PolicyDocument.sources, and where in that file. */
interface Located {
  readonly source: number;
  readonly path: Path;
}

export type ClaimValue = string | number | boolean;

export interface WhoDocument {
  readonly users?: readonly string[];
  readonly groups?: readonly string[];
  readonly issuers?: readonly string[];
  readonly claims?: Readonly<Record<string, readonly ClaimValue[]>>;
}

export interface OnDocument {
  readonly targets?: readonly string[];
  readonly labels?: Readonly<Record<string, readonly string[]>>;
  readonly protocols?: readonly string[];
}

export interface ApproveDocument {
  readonly count: number;
  readonly from: WhoDocument | undefined;
  readonly holdForMillis: number;
  readonly expiresAfterMillis: number;
}

export type Effect = "allow" | "deny" | "approve";

export interface RuleDocument extends Located {
  readonly name: string;
  /** The rule's own mode, or its file's. */
  readonly mode: "enforce" | "observe";
  readonly who: WhoDocument | undefined;
  readonly on: OnDocument | undefined;
  readonly actions: readonly string[] | undefined;
  readonly resources: readonly string[] | undefined;
  readonly when: string | undefined;
  readonly effect: Effect;
  readonly message: string | undefined;
  readonly approve: ApproveDocument | undefined;
  readonly grants: boolean;
  readonly record: RecordConfig | undefined;
}

export interface MaskDocument extends Located {
  readonly who: WhoDocument | undefined;
  readonly except: WhoDocument | undefined;
  readonly on: OnDocument | undefined;
  readonly mask: MaskRule;
}

export interface LimitDocument extends Located {
  readonly who: WhoDocument | undefined;
  readonly on: OnDocument | undefined;
  readonly limit: LimitRule;
}
