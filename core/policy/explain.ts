import { type Path, positionOf } from "../config/problems.ts";
import type { TargetConfig } from "../config/types.ts";
import type { Identity } from "../identity/types.ts";
import type { Grant, Verdict } from "../verdict.ts";
import { CONNECT } from "./actions.ts";
import type { CompiledPolicy } from "./compile.ts";
import { WhenContext } from "./context.ts";
import { INTROSPECTION, INTROSPECTION_ACTION } from "./introspection.ts";
import { type CompiledRule, matchAction } from "./rules.ts";
import type { Access, LimitRule, Moment, Operation } from "./types.ts";

export interface RuleExplanation {
  readonly rule: string;
  readonly effect: "allow" | "deny" | "approve";
  readonly mode: "enforce" | "observe";
  /** `policy.yaml:12`. */
  readonly at: string;
  readonly matched: boolean;
  /** The first key that does not fit; undefined when matched. */
  readonly failed: "who" | "on" | "actions" | "resources" | "when" | undefined;
  /** In words: what matched, or why not. */
  readonly detail: string;
}

export interface Explanation {
  readonly policyVersion: string;
  /** Whether the target may be opened at all. */
  readonly connect: { readonly allowed: boolean; readonly rule: string | undefined; readonly message: string | undefined };
  readonly effect: "allow" | "deny" | "approve";
  /** The deciding rule. */
  readonly rule: string | undefined;
  /** What a refused client is told. */
  readonly message: string | undefined;
  readonly hint: string | undefined;
  /** What observe mode let pass. */
  readonly observed: { readonly effect: "deny" | "approve"; readonly rule: string | undefined } | undefined;
  /** Every rule, in the order of the files. */
  readonly rules: readonly RuleExplanation[];
  /** Names of the masks in force. */
  readonly masks: readonly string[];
  /** The limits that apply; what of them is used up only the running gateway knows. */
  readonly limits: readonly Omit<LimitRule, "key">[];
  /** Resources that need no rule, because they are introspection catalogues. */
  readonly introspection: readonly string[];
}

/** Why an operation gets its verdict. The verdict is the real one, made on the way that sessions take. */
export function explain(
  policy: CompiledPolicy,
  identity: Identity,
  target: TargetConfig,
  operation: Operation,
  moment: Moment,
): Explanation {
  const opened = policy.connect(identity, target, moment.clientAddress, moment.nowMillis);
  const grant = "kind" in opened ? undefined : opened;
  const session = grant === undefined ? undefined : policy.session(grant);
  const isConnect = operation.accesses.every((access) => access.action === CONNECT);
  const verdict = session === undefined || (isConnect && operation.accesses.length > 0) ? opened : session.decide(operation, moment);
  const context = new WhenContext(identity, target);
  context.fill(operation, moment);
  return {
    policyVersion: policy.version,
    connect: { allowed: grant !== undefined, rule: opened.rule, message: "kind" in opened ? opened.message : undefined },
    effect: effectOf(verdict),
    rule: verdict.rule,
    message: "kind" in verdict && verdict.kind === "refused" ? verdict.message : undefined,
    hint: "kind" in verdict && verdict.kind === "refused" ? verdict.hint : undefined,
    observed: "observed" in verdict ? verdict.observed : undefined,
    rules: policy.rules.map((rule) => explainRule(policy, rule, identity, target, operation, context)),
    masks: session?.masks.map((mask) => mask.name) ?? [],
    limits: session?.limits.map(({ key: _key, ...limit }) => limit) ?? [],
    introspection: operation.accesses.flatMap((access) =>
      access.action === INTROSPECTION_ACTION ? access.resources.filter((resource) => INTROSPECTION.has(resource)) : [],
    ),
  };
}

export function effectOf(verdict: Verdict | Grant): "allow" | "deny" | "approve" {
  if (!("kind" in verdict) || verdict.kind === "allowed") return "allow";
  return verdict.kind === "held" || verdict.code === "SLUICE_APPROVAL_UNAVAILABLE" ? "approve" : "deny";
}

type Judged = Pick<RuleExplanation, "matched" | "failed" | "detail">;

function explainRule(
  policy: CompiledPolicy,
  rule: CompiledRule,
  identity: Identity,
  target: TargetConfig,
  operation: Operation,
  context: WhenContext,
): RuleExplanation {
  const { document } = rule;
  const line = (path: Path): number => {
    const source = policy.sources[document.source];
    return source === undefined ? 0 : positionOf(source.positions, path)[0];
  };
  const judged = judge(rule, identity, target, operation, context);
  return {
    rule: rule.name,
    effect: document.effect,
    mode: document.mode,
    at: `${policy.sources[document.source]?.file ?? ""}:${line([...document.path, ...(judged.failed === undefined ? [] : [judged.failed])])}`,
    ...judged,
  };
}

function judge(rule: CompiledRule, identity: Identity, target: TargetConfig, operation: Operation, context: WhenContext): Judged {
  const failed = (key: RuleExplanation["failed"], detail: string): Judged => ({ matched: false, failed: key, detail });
  if (!rule.who(identity)) return failed("who", `${identity.user} with the groups ${identity.groups.join(", ") || "(none)"} is not meant`);
  if (!rule.on(target)) return failed("on", `target ${target.name} is not meant`);
  const byAction = operation.accesses.filter((access) => matchAction(rule, access.action) !== undefined);
  const names = [...new Set(operation.accesses.map((access) => access.action))].join(", ");
  if (byAction.length === 0) return failed("actions", `${names || "no action"} is not among the actions`);
  const byResource = byAction.filter((access) => touched(rule, access).length > 0 || isFree(rule, access));
  if (byResource.length === 0)
    return failed("resources", `${byAction.flatMap((access) => access.resources).join(", ") || "no resource"} does not match`);
  if (rule.when === undefined)
    return { matched: true, failed: undefined, detail: byResource.map((access) => words(rule, access)).join("; ") };
  const results = byResource.map((access) => {
    context.judge(access.action);
    return { access, value: rule.when?.evaluate(context) };
  });
  const isAllow = rule.document.effect === "allow";
  const holding = results.filter(({ value }) => value ?? !isAllow);
  if (holding.length === 0)
    return failed(
      "when",
      results.some(({ value }) => value === undefined) ? "the expression failed, so the allow does not match" : "the expression is false",
    );
  const failing = holding.some(({ value }) => value === undefined) ? " (the expression failed, so the rule matches)" : "";
  return { matched: true, failed: undefined, detail: holding.map(({ access }) => words(rule, access)).join("; ") + failing };
}

/** Matches whatever the resources: none are named, or the session class is implied. */
const isFree = (rule: CompiledRule, access: Access): boolean =>
  rule.resources === undefined ||
  matchAction(rule, access.action) === "implied" ||
  (rule.document.effect === "allow" && access.resources.length === 0);

const touched = (rule: CompiledRule, access: Access): readonly string[] =>
  rule.resources === undefined ? [] : access.resources.filter(rule.resources);

function words(rule: CompiledRule, access: Access): string {
  const resources = isFree(rule, access) ? access.resources : touched(rule, access);
  return resources.length === 0 ? access.action : `${access.action} on ${resources.join(", ")}`;
}
