/**
 * Every way Sluice says no, in one registry: a stable code that scripts may test for, and the exit
 * status of a command that ends with it. Protocol modules translate a code into their own form
 * (PostgreSQL: protocols/postgres/deny.ts).
 */
export const ERROR_CODES = {
  SLUICE_CONFIG_INVALID: 2,
  SLUICE_POLICY_INVALID: 2,
  SLUICE_CREDENTIAL_MISSING: 1,
  SLUICE_CREDENTIAL_INVALID: 1,
  SLUICE_CREDENTIAL_EXPIRED: 1,
  SLUICE_CREDENTIAL_NEEDS_TLS: 1,
  SLUICE_ISSUER_UNAVAILABLE: 1,
  SLUICE_TARGET_UNKNOWN: 1,
  SLUICE_TARGET_UNREACHABLE: 1,
  SLUICE_TARGET_REFUSED: 1,
  SLUICE_TARGET_BUSY: 1,
  SLUICE_LOCKED: 1,
  SLUICE_KILLED: 1,
  SLUICE_DENIED: 1,
  SLUICE_APPROVAL_UNAVAILABLE: 1,
  SLUICE_MASK_IMPOSSIBLE: 1,
  SLUICE_PROTOCOL_VIOLATION: 1,
  SLUICE_LIMIT_EXCEEDED: 1,
  SLUICE_QUOTA_EXCEEDED: 1,
  SLUICE_QUOTA_SESSIONS: 1,
  SLUICE_DEADLINE: 1,
  SLUICE_RECORD_FAILED: 1,
  SLUICE_STORE_UNUSABLE: 2,
  SLUICE_STORE_DAMAGED: 1,
  SLUICE_DRAINING: 1,
  SLUICE_SUBJECT_INVALID: 1,
  SLUICE_NOT_FOUND: 1,
  SLUICE_USAGE: 1,
  SLUICE_GATEWAY_UNREACHABLE: 1,
  SLUICE_DATA_IN_USE: 2,
  SLUICE_INTERNAL: 1,
} as const;

export type ErrorCode = keyof typeof ERROR_CODES;

/** An error whose message is safe to show to the client: it never carries a secret. */
export class SluiceError extends Error {
  readonly code: ErrorCode;
  /** What the reader can do about it; one sentence. */
  readonly hint: string | undefined;

  constructor(code: ErrorCode, message: string, options: { hint?: string; cause?: unknown } = {}) {
    super(message, options.cause === undefined ? undefined : { cause: options.cause });
    this.name = "SluiceError";
    this.code = code;
    this.hint = options.hint;
  }
}

/** Any thrown value as a SluiceError; what was not one becomes SLUICE_INTERNAL without its text. */
export function toSluiceError(thrown: unknown): SluiceError {
  if (thrown instanceof SluiceError) return thrown;
  return new SluiceError("SLUICE_INTERNAL", "internal error; the gateway's log has the details", { cause: thrown });
}
