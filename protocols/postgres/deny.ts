import type { ErrorCode, SluiceError } from "../../core/errors.ts";
import type { Refused } from "../../core/verdict.ts";
import { errorResponse } from "./messages.ts";

/** SQLSTATE of each of Sluice's own errors (PostgreSQL documentation, Appendix A). */
const SQLSTATES: Partial<Record<ErrorCode, string>> = {
  SLUICE_CONFIG_INVALID: "F0000",
  SLUICE_POLICY_INVALID: "F0000",
  SLUICE_CREDENTIAL_MISSING: "28000",
  SLUICE_CREDENTIAL_INVALID: "28P01",
  SLUICE_CREDENTIAL_EXPIRED: "28000",
  SLUICE_CREDENTIAL_NEEDS_TLS: "28000",
  SLUICE_ISSUER_UNAVAILABLE: "08006",
  SLUICE_TARGET_UNKNOWN: "3D000",
  SLUICE_TARGET_UNREACHABLE: "08001",
  SLUICE_TARGET_REFUSED: "08004",
  SLUICE_TARGET_BUSY: "53300",
  SLUICE_LOCKED: "57P01",
  SLUICE_KILLED: "57P01",
  SLUICE_DENIED: "42501",
  SLUICE_APPROVAL_UNAVAILABLE: "42501",
  SLUICE_MASK_IMPOSSIBLE: "42501",
  SLUICE_PROTOCOL_VIOLATION: "08P01",
  SLUICE_LIMIT_EXCEEDED: "54000",
  SLUICE_QUOTA_EXCEEDED: "53400",
  SLUICE_QUOTA_SESSIONS: "53300",
  SLUICE_DEADLINE: "08006",
  SLUICE_RECORD_FAILED: "58030",
  SLUICE_STORE_UNUSABLE: "58030",
  SLUICE_DRAINING: "57P01",
  SLUICE_INTERNAL: "XX000",
};

export const sqlState = (code: ErrorCode): string => SQLSTATES[code] ?? "XX000";

/** The ErrorResponse that ends a connection. */
export function fatalResponse(error: SluiceError): Uint8Array {
  return errorResponse({ severity: "FATAL", sqlState: sqlState(error.code), message: `Sluice: ${error.message}`, hint: error.hint });
}

/** The ErrorResponse that refuses one statement; the session stays usable. */
export function refusalResponse(verdict: Refused, request: string): Uint8Array {
  const rule = verdict.rule === undefined ? "no rule" : `rule "${verdict.rule}"`;
  return errorResponse({
    severity: "ERROR",
    sqlState: sqlState(verdict.code),
    message: `Sluice: ${verdict.message}`,
    detail: `Decided by ${rule} of policy ${verdict.policyVersion}; request ${request}.`,
    hint: verdict.hint,
  });
}
