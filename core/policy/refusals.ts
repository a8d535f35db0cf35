import type { Refused } from "../verdict.ts";
import type { CompiledRule } from "./rules.ts";
import type { Access, Operation } from "./types.ts";

const SHOWN_RESOURCES = 5;
const SHOWN_CHARACTERS = 128;

/** Names come from the client's text: on one line, bounded, without control or bidirectional formatting characters. */
const clean = (text: string): string => {
  const plain = text.replace(/[\p{Cc}\p{Cf}\p{Zl}\p{Zp}]/gu, "?");
  return plain.length > SHOWN_CHARACTERS ? `${plain.slice(0, SHOWN_CHARACTERS - 1)}…` : plain;
};

/** `sql:drop on public.a, public.b and 3 more`. */
export function describeAccess(access: Access): string {
  const shown = access.resources.slice(0, SHOWN_RESOURCES).map(clean).join(", ");
  const more = access.resources.length - SHOWN_RESOURCES;
  return `${access.action}${shown === "" ? "" : ` on ${shown}`}${more > 0 ? ` and ${more} more` : ""}`;
}

export function describeOperation(operation: Operation): string {
  const [first] = operation.accesses;
  if (first === undefined) return "an operation without a known action";
  return describeAccess({
    action: [...new Set(operation.accesses.map((access) => access.action))].join(", "),
    resources: [...new Set(operation.accesses.flatMap((access) => access.resources))],
  });
}

/** What a deny or an approve says to the client. */
export function refusalOf(rule: CompiledRule, what: string, policyVersion: string, stable: boolean): Omit<Refused, "kind"> {
  const { effect, message } = rule.document;
  const common = { rule: rule.name, policyVersion, stable };
  if (effect === "approve") {
    return {
      ...common,
      code: "SLUICE_APPROVAL_UNAVAILABLE",
      message: message ?? `${what} needs an approval`,
      hint: `The rule ${rule.name} demands an approval, and approvals are not available in this version.`,
    };
  }
  return {
    ...common,
    code: "SLUICE_DENIED",
    message: message ?? `${what} is denied`,
    hint: `The rule ${rule.name} of the policy denies this.`,
  };
}
