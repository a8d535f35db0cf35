import type { WorkerDelta } from "../control/metrics.ts";
import type { LiveSession, Lock } from "../control/types.ts";
import type { Config } from "../core/config/types.ts";
import type { PolicyDocument } from "../core/policy/document.ts";

/** What a worker works by; replaced whole on reload. Plain data. */
export interface Snapshot {
  readonly generation: number;
  readonly config: Config;
  readonly policy: PolicyDocument;
  readonly locks: readonly Lock[];
  /** Place of each target in the shared table of upstream connections; a name keeps its place for the process's life. */
  readonly targetSlots: Readonly<Record<string, number>>;
}

export const TARGET_SLOTS = 1_024;
/** Slots of workers, live and ending ones together. */
export const WORKER_SLOTS = 130;

/** What every worker is started with. */
export interface WorkerData {
  readonly channel: string;
  /** Secret of `hash` masks, 32 bytes. */
  readonly maskKey: Uint8Array;
  readonly snapshot: Snapshot;
  /**
   * An Int32 per descriptor: the number of the offer that is on its way to a worker, or its negative once the worker has
   * taken the connection over. Whoever swaps the offer's number for another owns the descriptor.
   */
  readonly descriptors: SharedArrayBuffer;
  readonly upstreams: SharedArrayBuffer;
  /** What limits of the policy have counted; core/quota/table.ts has its layout. */
  readonly quotas: SharedArrayBuffer;
  /** One element a worker slot: thread that holds it, 0 when free. */
  readonly slots: SharedArrayBuffer;
}

/** One accepted connection: a Piscina task. */
export interface ConnectionTask {
  readonly fd: number;
  /** Positive; unlike that of any other offer under way. */
  readonly offer: number;
  /** Index of the listener in the configuration that the gateway started with. */
  readonly listener: number;
  /** The peer is a proxy that the listener trusts: the connection must begin with its header. Of others none is read. */
  readonly isProxied: boolean;
}

/** Main thread → all workers. */
export type Order =
  /** The answer to `ready`: what is in force now. Until it comes the worker serves nobody. */
  | { readonly kind: "start"; readonly thread: number; readonly snapshot: Snapshot }
  | { readonly kind: "snapshot"; readonly snapshot: Snapshot; readonly ticket: number }
  | { readonly kind: "kill"; readonly session: string; readonly reason: string; readonly ticket: number }
  | { readonly kind: "locks"; readonly locks: readonly Lock[]; readonly ticket: number }
  | { readonly kind: "drain"; readonly deadlineMillis: number }
  | { readonly kind: "catalogue"; readonly target: string; readonly from: number }
  /** Connections that came through a proxy, by their offers, whose clients have too many: close them. */
  | { readonly kind: "refuse"; readonly offers: readonly number[] }
  | { readonly kind: "cancel"; readonly processId: number; readonly key: Uint8Array }
  /** Close the store: the threads named are about to be ended. */
  | { readonly kind: "close"; readonly threads: readonly number[] };

/** Worker → main thread. */
export type Report =
  | { readonly kind: "ready"; readonly slot: number; readonly thread: number }
  | { readonly kind: "opened"; readonly session: LiveSession }
  | { readonly kind: "closed"; readonly session: string; readonly operations: number }
  | { readonly kind: "done"; readonly ticket: number; readonly slot: number; readonly count: number; readonly error: string | undefined }
  | { readonly kind: "stats"; readonly slot: number; readonly delta: WorkerDelta; readonly operations: Readonly<Record<string, number>> }
  | {
      readonly kind: "log";
      readonly level: "info" | "warn" | "error";
      readonly fields: Readonly<Record<string, unknown>>;
      readonly message: string;
    }
  /** A proxy has told for whom it made this connection. */
  | { readonly kind: "client"; readonly offer: number; readonly address: string }
  | { readonly kind: "bad-proxy-header"; readonly peer: string; readonly problem: string }
  | { readonly kind: "stored"; readonly thread: number }
  | { readonly kind: "relay-order"; readonly order: Order };
