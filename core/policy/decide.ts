import type { RecordConfig } from "../config/types.ts";
import { type Allowed, type Grant, type Refused, refuse, type Verdict } from "../verdict.ts";
import { WhenContext } from "./context.ts";
import type { ResourceMatcher } from "./globs.ts";
import { INTROSPECTION, INTROSPECTION_ACTION } from "./introspection.ts";
import { mintAllowed } from "./mint.ts";
import type { Candidate, SessionRules } from "./plan.ts";
import { describeAccess, describeOperation, refusalOf } from "./refusals.ts";
import type { CompiledRule } from "./rules.ts";
import type { Access, LimitRule, MaskRule, Moment, Operation, SessionPolicy } from "./types.ts";

const isIntrospection = (resource: string): boolean => INTROSPECTION.has(resource);

/** A loop, because it runs for every candidate of every operation. */
function countMatches(matcher: ResourceMatcher, resources: readonly string[]): number {
  let count = 0;
  for (const resource of resources) if (matcher(resource)) count++;
  return count;
}

/**
 * Decides the operations of one session. Nothing is remembered between calls but the rules' arrangement: a verdict
 * that may be cached says so (`stable`).
 */
export class Decider implements SessionPolicy {
  readonly policyVersion: string;
  readonly masks: readonly MaskRule[];
  readonly limits: readonly LimitRule[];
  readonly #observesDefault: boolean;
  readonly #rules: SessionRules;
  readonly #grant: Grant;
  #context: WhenContext | undefined;

  // State of one call of decide; it is synchronous, so one set is enough.
  #isFilled = false;
  #isStable = true;
  #allow: CompiledRule | undefined;
  #record: RecordConfig | undefined;

  constructor(
    policyVersion: string,
    observesDefault: boolean,
    rules: SessionRules,
    masks: readonly MaskRule[],
    limits: readonly LimitRule[],
    grant: Grant,
  ) {
    this.policyVersion = policyVersion;
    this.masks = masks;
    this.limits = limits;
    this.#observesDefault = observesDefault;
    this.#rules = rules;
    this.#grant = grant;
  }

  decide(operation: Operation, moment: Moment): Verdict {
    this.#isFilled = false;
    this.#isStable = true;
    this.#allow = undefined;
    this.#record = undefined;
    let approve: CompiledRule | undefined;
    let observed: CompiledRule | undefined;
    let uncovered: Access | undefined;
    const { accesses } = operation;
    // Nothing was asked for that could be decided: refuse rather than guess.
    if (accesses.length === 0) return this.#refuseUncovered(operation, undefined);
    for (const access of accesses) {
      const plan = this.#rules.plan(access.action);
      for (const candidate of plan.deny) {
        const { rule } = candidate;
        if (rule.observe && observed?.document.effect === "deny") continue;
        if (!this.#touches(candidate, access, operation, moment)) continue;
        if (!rule.observe) return refuse(refusalOf(rule, describeAccess(access), this.policyVersion, this.#isStable));
        observed = rule;
      }
      for (const candidate of plan.approve) {
        const { rule } = candidate;
        if (rule.observe ? observed !== undefined : approve !== undefined) continue;
        if (!this.#touches(candidate, access, operation, moment)) continue;
        if (rule.observe) observed = rule;
        else approve = rule;
      }
      if (uncovered === undefined && !this.#covers(plan.grant, access, operation, moment)) uncovered = access;
    }
    if (uncovered !== undefined && !this.#observesDefault) return this.#refuseUncovered(operation, uncovered);
    // Under observe mode an enforced approve can only come from a rule of its own mode.
    if (approve !== undefined) return refuse(refusalOf(approve, describeOperation(operation), this.policyVersion, this.#isStable));
    return this.#allowed(observed, uncovered !== undefined);
  }

  /** deny, approve: one resource is enough; a `when` that fails counts as true. */
  #touches(candidate: Candidate, access: Access, operation: Operation, moment: Moment): boolean {
    const { rule, resources } = candidate;
    if (resources !== undefined && !access.resources.some(resources)) return false;
    return rule.when === undefined || this.#when(rule, access, operation, moment) !== false;
  }

  /** allow: every resource must be covered, by one rule or by several together; a `when` that fails counts as false. */
  #covers(candidates: readonly Candidate[], access: Access, operation: Operation, moment: Moment): boolean {
    const { action, resources: all } = access;
    let open = all;
    if (action === INTROSPECTION_ACTION && all.some(isIntrospection)) {
      open = all.filter((resource) => !isIntrospection(resource));
      if (open.length === 0) return true;
    }
    for (const { rule, resources } of candidates) {
      const covered = resources === undefined ? open.length : countMatches(resources, open);
      // Without resources every allow of the action covers; otherwise one that covers none of them is left out.
      if (covered === 0 && open.length > 0) continue;
      if (rule.when !== undefined && this.#when(rule, access, operation, moment) !== true) continue;
      this.#use(rule);
      if (resources === undefined || covered === open.length) return true;
      open = open.filter((resource) => !resources(resource));
    }
    return false;
  }

  #use(rule: CompiledRule): void {
    this.#allow ??= rule;
    const { record } = rule.document;
    if (record !== undefined && (this.#record === undefined || weight(record) > weight(this.#record))) this.#record = record;
  }

  #when(rule: CompiledRule, access: Access, operation: Operation, moment: Moment): boolean | undefined {
    if (rule.when === undefined) return true;
    if (!rule.when.isStable) this.#isStable = false;
    this.#context ??= new WhenContext(this.#grant.identity, this.#grant.target);
    if (!this.#isFilled) this.#context.fill(operation, moment);
    this.#isFilled = true;
    this.#context.judge(access.action);
    return rule.when.evaluate(this.#context);
  }

  #allowed(observed: CompiledRule | undefined, isUncovered: boolean): Allowed {
    const allow = this.#allow;
    // The common case needs no new object.
    if (
      allow !== undefined &&
      observed === undefined &&
      !isUncovered &&
      allow.allowed.record === this.#record &&
      allow.allowed.stable === this.#isStable
    ) {
      return allow.allowed;
    }
    const isDenied = isUncovered || observed?.document.effect === "deny";
    return mintAllowed({
      // Introspection alone needs no rule; then the one that opened the target allows it.
      rule: isUncovered ? undefined : (allow?.name ?? this.#grant.rule),
      policyVersion: this.policyVersion,
      stable: this.#isStable,
      record: this.#record,
      observed:
        observed === undefined && !isUncovered
          ? undefined
          : {
              effect: isDenied ? "deny" : "approve",
              rule: isUncovered && observed?.document.effect !== "deny" ? undefined : observed?.name,
            },
    });
  }

  #refuseUncovered(operation: Operation, access: Access | undefined): Refused {
    const what = access === undefined ? describeOperation(operation) : describeAccess(access);
    return refuse({
      rule: undefined,
      policyVersion: this.policyVersion,
      stable: this.#isStable,
      code: "SLUICE_DENIED",
      message: `${what} is not allowed`,
      hint: `No rule of the policy allows ${what} for this user on target ${this.#grant.target.name}.`,
    });
  }
}

/** Where several rules cover an operation together, the one that keeps most decides. */
const weight = (record: RecordConfig): number =>
  record.results === "full" ? Number.POSITIVE_INFINITY : record.results === "head" ? record.headBytes + 1 : 0;
