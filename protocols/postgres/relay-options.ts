import type { Masker } from "../../core/mask/types.ts";
import type { Wire } from "../../core/net/types.ts";
import type { SessionPolicy } from "../../core/policy/types.ts";
import type { Allowance, Exceeded } from "../../core/quota/allowance.ts";
import type { Grant } from "../../core/verdict.ts";
import type { Recorder, SessionRecorder } from "../../store/types.ts";
import type { Catalogue } from "./catalogue.ts";
import type { DecisionContexts } from "./decide.ts";
import type { Relay } from "./relay.ts";
import type { Classifier } from "./sql/types.ts";

/** What a relay needs of its worker. */
export interface RelayRoom {
  readonly classifier: Classifier;
  readonly contexts: DecisionContexts;
  readonly recorder: Recorder;
  readonly counters: RelayCounters;
  /** A schema change went through: every worker's knowledge of this target's catalogue is stale. */
  catalogueChanged(target: string): void;
  /** A limit in observe mode let something pass. */
  limitObserved(relay: Relay, exceeded: Exceeded): void;
  fault(where: string, error: unknown): void;
}

/** What a relay counts; the worker's Counters. */
export interface RelayCounters {
  fromClientBytes: number;
  toClientBytes: number;
  decided(target: string, effect: "allow" | "deny", rule: string | undefined): void;
  maskedBy(rule: string, count: number): void;
  limitHit(limit: string): void;
}

export interface RelayOptions {
  readonly room: RelayRoom;
  readonly id: string;
  readonly grant: Grant;
  readonly policy: SessionPolicy;
  readonly masker: Masker | undefined;
  /** Limits of the policy; left out or undefined: none. The session's owner closes it. */
  readonly allowance?: Allowance | undefined;
  readonly catalogue: Catalogue;
  readonly recorder: SessionRecorder;
  readonly client: Wire;
  readonly upstream: Wire;
  readonly clientAddress: string;
  /** search_path at the start, as far as known. */
  readonly searchPath: readonly string[] | undefined;
  /** What the target reported of itself at the start (ParameterStatus). */
  readonly statuses: ReadonlyMap<string, string>;
  /** Ask the target to cancel what runs in this session (CancelRequest). A promise resolves once it can strike nothing more. */
  readonly cancelUpstream: () => unknown;
  readonly onExpiry: "cut" | "finish";
  readonly idleMillis: number;
}
