import { type Refused, refuse } from "../../core/verdict.ts";
import type { Decision } from "./decide.ts";
import { errorResponse, parse, query } from "./messages.ts";
import type { Classified } from "./sql/types.ts";

/**
 * What is sent to the target in place of a refused message. It fails there in the raw parser, so the server itself
 * does what an error does: it rolls an implicit transaction back, fails an explicit one, skips to Sync, and answers in
 * order. Its ErrorResponse is then replaced by Sluice's own.
 */
const REFUSED_TEXT = "/* a statement was refused by Sluice */ refused";
export const REFUSED_QUERY = query(REFUSED_TEXT);
export const REFUSED_PARSE = parse("sluice_refused", REFUSED_TEXT);

/** What the server says of a name that it does not hold. */
export const unknownName = (what: "prepared statement" | "portal", name: string): Uint8Array =>
  errorResponse({ severity: "ERROR", sqlState: what === "portal" ? "34000" : "26000", message: `${what} "${name}" does not exist` });

/** The result of a statement that may run cannot be masked. */
export function maskRefusal(
  decision: Decision,
  policyVersion: string,
  why: string,
  hint = "Ask for the result in text format, or select other columns.",
): Refused {
  return refuse({
    code: "SLUICE_MASK_IMPOSSIBLE",
    rule: decision.verdict.rule,
    policyVersion,
    stable: false,
    message: why,
    hint,
  });
}

/** Until approvals exist, what would be held is refused. */
export function heldRefusal(rule: string | undefined, policyVersion: string): Refused {
  return refuse({
    code: "SLUICE_APPROVAL_UNAVAILABLE",
    rule,
    policyVersion,
    stable: true,
    message: "this operation needs an approval, and this version has none",
    hint: undefined,
  });
}

/** What a FunctionCall message is taken for. */
export const FUNCTION_CALL: Classified = {
  accesses: [{ action: "sql:function_call", relations: [], others: [] }],
  statements: 1,
  unfiltered: false,
  columns: [],
  functions: [],
  effects: [],
  columnUse: {
    plain: [],
    star: false,
    expressions: [],
    predicates: [],
    origins: [{ use: "expression", relation: undefined, column: "*", unless: undefined }],
  },
  copy: "none",
  copies: [],
  explains: false,
  returnsRows: true,
  secrets: [],
  refusal: "the FunctionCall message is not let through; call the function in a statement",
  empty: false,
};

/** The text with each secret replaced; lengths change. */
export function redact(bytes: Uint8Array, secrets: readonly (readonly [number, number])[]): Uint8Array {
  const parts: Uint8Array[] = [];
  let at = 0;
  for (const [start, end] of secrets) {
    parts.push(bytes.subarray(at, start), REDACTED);
    at = end;
  }
  parts.push(bytes.subarray(at));
  return Buffer.concat(parts);
}

const REDACTED = Buffer.from("'[REDACTED]'");
