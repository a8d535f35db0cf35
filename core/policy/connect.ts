import type { TargetConfig } from "../config/types.ts";
import type { Identity } from "../identity/types.ts";
import { type Grant, type Refused, refuse } from "../verdict.ts";
import { CONNECT } from "./actions.ts";
import type { CompiledPolicy } from "./compile.ts";
import { WhenContext } from "./context.ts";
import { mintGrant } from "./mint.ts";
import { refusalOf } from "./refusals.ts";
import { type CompiledRule, matchAction, namesConnect } from "./rules.ts";
import type { Moment, Operation } from "./types.ts";

/** How connect looks to policy: one action, no resources. */
export const connectOperation = (protocol: string): Operation => ({
  protocol,
  accesses: [{ action: CONNECT, resources: [] }],
  unfiltered: false,
  statements: 0,
  tables: [],
  columns: [],
  functions: [],
});

/**
 * May this identity open this target? An allow implies connect for its who and on, whatever its actions, resources and
 * `when`: each operation is still decided. Only an allow that names connect is bound by its `when`.
 */
export function decideConnect(
  policy: CompiledPolicy,
  identity: Identity,
  target: TargetConfig,
  clientAddress: string,
  nowMillis: number,
): Grant | Refused {
  const rules = policy.rules.filter((rule) => rule.who(identity) && rule.on(target));
  const context = new WhenContext(identity, target);
  const moment: Moment = { text: "", parameters: [], transaction: "idle", clientAddress, nowMillis };
  context.fill(connectOperation(target.protocol), moment);
  context.judge(CONNECT);
  let isStable = true;
  const holds = (rule: CompiledRule, ifItFails: boolean): boolean => {
    if (rule.when === undefined) return true;
    if (!rule.when.isStable) isStable = false;
    return rule.when.evaluate(context) ?? ifItFails;
  };
  const matching = (effect: string, observe: boolean): CompiledRule | undefined =>
    rules.find(
      (rule) =>
        rule.document.effect === effect &&
        rule.observe === observe &&
        rule.resources === undefined &&
        matchAction(rule, CONNECT) !== undefined &&
        holds(rule, true),
    );
  const what = `connect to ${target.name}`;
  const deny = matching("deny", false);
  if (deny !== undefined) return refuse(refusalOf(deny, what, policy.version, isStable));
  const allow = rules.find((rule) => rule.document.effect === "allow" && (!namesConnect(rule) || holds(rule, false)));
  const approve = matching("approve", false);
  // Somebody who could only get in with an approval learns that, not that no rule knows them.
  const grants = rules.find((rule) => rule.document.effect === "approve" && rule.document.grants && !rule.observe);
  const wanting = approve ?? (allow === undefined ? grants : undefined);
  if (wanting !== undefined && (allow !== undefined || wanting.document.grants))
    return refuse(refusalOf(wanting, what, policy.version, isStable));
  const observed = matching("deny", true) ?? (allow === undefined ? undefined : matching("approve", true));
  if (allow === undefined && !policy.observesDefault) {
    return refuse({
      rule: undefined,
      policyVersion: policy.version,
      stable: isStable,
      code: "SLUICE_DENIED",
      message: `${what} is not allowed`,
      hint: `No rule of the policy allows this user anything on target ${target.name}.`,
    });
  }
  const wouldRefuse =
    observed === undefined && allow !== undefined
      ? undefined
      : ({ effect: observed?.document.effect === "approve" ? "approve" : "deny", rule: observed?.name } as const);
  return mintGrant({ identity, target, rule: allow?.name ?? "(observe mode)", policyVersion: policy.version, observed: wouldRefuse });
}
