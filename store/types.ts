import type { RecordConfig } from "../core/config/types.ts";
import type { Identity } from "../core/identity/types.ts";

export type Outcome = "done" | "denied" | "failed" | "cancelled" | "killed" | "unknown";

/** One audit event, as `audit tail --format json` prints it, one a line. Contract: docs/REFERENCE.md. */
export interface AuditEvent {
  readonly id: string;
  readonly cursor: string;
  /** RFC 3339, UTC, microseconds where known. */
  readonly time: string;
  readonly type:
    | "session.open"
    | "session.close"
    | "operation"
    | "approval.requested"
    | "approval.decided"
    | "lock"
    | "config"
    | "control"
    | "auth.failed"
    | "mask.failed";
  readonly session?: string;
  readonly request?: string;
  readonly identity?: {
    readonly issuer: string;
    readonly user: string;
    readonly subject: string;
    readonly groups: readonly string[];
    readonly chain: readonly string[];
  };
  readonly client?: { readonly address: string; readonly application?: string };
  readonly target?: string;
  readonly protocol?: string;
  readonly action?: string;
  readonly resources?: readonly string[];
  readonly statement?: string;
  readonly parameters?: readonly (string | null)[];
  readonly decision?: {
    readonly effect: "allow" | "deny" | "approve";
    readonly rule?: string;
    readonly policyVersion: string;
    readonly observed?: string;
    readonly approval?: string;
    readonly approvers?: readonly string[];
  };
  readonly response?: { readonly rows?: number; readonly bytes: number; readonly sha256?: string };
  readonly masked?: Readonly<Record<string, number>>;
  readonly outcome?: Outcome;
  readonly error?: { readonly code: string; readonly message: string };
  readonly durationMicros?: number;
  readonly hash?: string;
  /** config, lock and control events: what was done. */
  readonly detail?: Readonly<Record<string, unknown>>;
}

/**
 * What was decided about one kind of operation; interned by the caller and reused for every execution, so that the
 * hot path writes a number. `storeSlot` belongs to the store (−1 until it has written the definition).
 */
export interface DecisionRecord {
  readonly action: string;
  readonly resources: readonly string[];
  readonly effect: "allow" | "deny" | "approve";
  readonly rule: string | undefined;
  readonly policyVersion: string;
  readonly observed: string | undefined;
  storeSlot: number;
}

/** A prepared statement's text, written to the journal once and referred to by number afterwards. */
export interface StatementRecord {
  readonly text: string;
  storeSlot: number;
}

/** One worker's recorder; owns that worker's shard of the data folder. */
export interface Recorder {
  /** @throws SluiceError SLUICE_RECORD_FAILED when the session's start cannot be put on record */
  open(session: {
    readonly id: string;
    readonly identity: Identity;
    readonly clientAddress: string;
    readonly application: string | undefined;
    readonly target: string;
    readonly protocol: string;
    readonly record: RecordConfig;
    readonly startedMillis: number;
  }): SessionRecorder;
  /** auth.failed, mask.failed, lock, config, control: durable soon, not part of a batch. */
  event(event: Omit<AuditEvent, "id" | "cursor" | "time" | "hash">): void;
  /**
   * Write the staged intents to the kernel in one call; nothing when none are staged.
   * @throws SluiceError SLUICE_RECORD_FAILED (ENOSPC, EIO, short write); the staged intents count as not forwarded
   */
  commit(): void;
  /**
   * More recorded bytes wait for the disk than should: sessions pause reading, both sides, until onRelieved. Who goes on
   * regardless meets the bound after which commit() throws.
   */
  readonly congested: boolean;
  /** Called when `congested` has turned false again; set by the owner. */
  onRelieved: () => void;
  /**
   * Everything durable.
   * @throws SluiceError SLUICE_RECORD_FAILED while recording fails
   */
  flush(): Promise<void>;
  /** Close every session that is still open (reason `gateway stopped`), write everything, release the shard. */
  close(): Promise<void>;
  readonly stats: { operations: number; journalBytes: number; frameBytes: number; commits: number; failed: number };
}

/** Records of one session. Calls copy what they are given; none of them waits. */
export interface SessionRecorder {
  /**
   * Stage the intent of an operation; it reaches the kernel with the next commit().
   * @param statement the prepared statement executed, or undefined when bytes carry the text (simple query)
   * @param bytes text of a simple query, or the Bind message's parameter section (from the count of parameter formats
   * to the end of the values; what follows is ignored); [start, end)
   * @returns request number, unique in the session, ascending from 1
   */
  intent(decision: DecisionRecord, statement: StatementRecord | undefined, bytes: Uint8Array, start: number, end: number): number;
  /** The operation's end. `masked` maps mask rule to number of values. */
  outcome(
    request: number,
    outcome: Outcome,
    rows: number,
    bytes: number,
    error: { readonly code: string; readonly message: string } | undefined,
    masked: ReadonlyMap<string, number> | undefined,
  ): void;
  /** Bytes as the client sent them (after redaction of secrets). Kept in every mode. */
  fromClient(bytes: Uint8Array, start: number, end: number): void;
  /**
   * Bytes as the client receives them (after masking).
   * @param request the operation that they answer, for head and digest; 0: none. Its outcome must come later
   * @param from bytes[from, to) of them are that operation's response, which the digest is of
   */
  toClient(request: number, bytes: Uint8Array, start: number, end: number, from: number, to: number): void;
  /** A rule's own record mode for one operation. */
  override(request: number, record: RecordConfig): void;
  close(reason: string): void;
}
