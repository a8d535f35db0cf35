import { Problems } from "../config/problems.ts";
import type { TargetConfig } from "../config/types.ts";
import type { Identity } from "../identity/types.ts";
import type { Grant, Refused } from "../verdict.ts";
import { decideConnect } from "./connect.ts";
import { Decider } from "./decide.ts";
import type { PolicyDocument, PolicySource } from "./document.ts";
import { type CompiledLimit, compileLimit, limitsFor } from "./limits.ts";
import { POLICY_HINT } from "./parse.ts";
import { SessionRules } from "./plan.ts";
import { type CompiledMask, type CompiledRule, compileMask, compileRule } from "./rules.ts";
import { issuerNames } from "./subjects.ts";
import type { Policy, SessionPolicy } from "./types.ts";

/** Selections of rules that sessions share; beyond this many each session keeps its own. */
const MAX_SHARED_SELECTIONS = 1_000;

/**
 * Bind a policy to the configured targets and issuers.
 * @param issuers the first is the default: users and groups without a prefix are its
 * @throws SluiceError SLUICE_POLICY_INVALID where a rule names what is not configured
 */
export function compilePolicy(
  document: PolicyDocument,
  targets: readonly TargetConfig[],
  issuers: readonly { readonly name: string }[],
): CompiledPolicy {
  const problems = new Problems();
  const names = issuerNames(issuers);
  const rules = document.rules.map((rule) => compileRule(rule, document, targets, names, problems));
  const masks = document.masks.map((mask) => compileMask(mask, document, targets, names, problems));
  const limits = document.limits.map((limit) => compileLimit(limit, document, targets, names, problems));
  problems.throwIfAny("SLUICE_POLICY_INVALID", POLICY_HINT);
  return new CompiledPolicy(document, rules, masks, limits);
}

/** The same checks without the result. */
export const checkPolicy = (
  document: PolicyDocument,
  targets: readonly TargetConfig[],
  issuers: readonly { readonly name: string }[],
): void => {
  compilePolicy(document, targets, issuers);
};

/** Immutable but for the selections it remembers. */
export class CompiledPolicy implements Policy {
  readonly version: string;
  readonly rules: readonly CompiledRule[];
  readonly masks: readonly CompiledMask[];
  readonly limits: readonly CompiledLimit[];
  /** For line numbers. */
  readonly sources: readonly PolicySource[];
  /** Every policy file is in observe mode: then also what no rule allows passes. One file that enforces is enough to refuse it. */
  readonly observesDefault: boolean;
  readonly #selections = new Map<string, SessionRules>();

  constructor(document: PolicyDocument, rules: readonly CompiledRule[], masks: readonly CompiledMask[], limits: readonly CompiledLimit[]) {
    this.version = document.version;
    this.rules = rules;
    this.masks = masks;
    this.limits = limits;
    this.sources = document.sources;
    this.observesDefault = document.sources.length > 0 && document.sources.every((source) => source.mode === "observe");
  }

  connect(identity: Identity, target: TargetConfig, clientAddress: string, nowMillis: number): Grant | Refused {
    return decideConnect(this, identity, target, clientAddress, nowMillis);
  }

  session(grant: Grant): SessionPolicy {
    const { identity, target } = grant;
    const rules = this.rules.filter((rule) => rule.who(identity) && rule.on(target));
    const masks = this.masks
      .filter((mask) => mask.on(target) && mask.who(identity) && !mask.except(identity))
      .map((mask) => mask.document.mask);
    const limits = limitsFor(this.limits, identity, target);
    return new Decider(this.version, this.observesDefault, this.#share(rules), masks, limits, grant);
  }

  #share(rules: readonly CompiledRule[]): SessionRules {
    const key = rules.map((rule) => this.rules.indexOf(rule)).join();
    const known = this.#selections.get(key);
    if (known !== undefined) return known;
    const made = new SessionRules(rules);
    if (this.#selections.size < MAX_SHARED_SELECTIONS) this.#selections.set(key, made);
    return made;
  }
}
