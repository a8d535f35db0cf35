import { FAMILIES } from "./actions.ts";
import type { ResourceMatcher } from "./globs.ts";
import { type CompiledRule, matchAction } from "./rules.ts";

/** A rule that can match one action. */
export interface Candidate {
  readonly rule: CompiledRule;
  /** undefined: any resource, also none. */
  readonly resources: ResourceMatcher | undefined;
}

/** What can match one action, by effect, each in the order of the files. */
export interface ActionPlan {
  readonly deny: readonly Candidate[];
  readonly approve: readonly Candidate[];
  /** Allows, then approves that grant. */
  readonly grant: readonly Candidate[];
}

/** The rules whose who and on match a session, arranged by action; shared by sessions with the same selection. */
export class SessionRules {
  readonly rules: readonly CompiledRule[];
  readonly #plans = new Map<string, ActionPlan>();

  constructor(rules: readonly CompiledRule[]) {
    this.rules = rules;
  }

  plan(action: string): ActionPlan {
    return this.#plans.get(action) ?? this.#make(action);
  }

  #make(action: string): ActionPlan {
    const candidates = this.rules.flatMap((rule) => {
      const match = matchAction(rule, action);
      // Session commands touch settings and channels, which an allow of read, write or schema does not name.
      return match === undefined ? [] : [{ rule, resources: match === "implied" ? undefined : rule.resources }];
    });
    const having = (effect: string): Candidate[] => candidates.filter(({ rule }) => rule.document.effect === effect);
    const approve = having("approve");
    const plan: ActionPlan = {
      deny: having("deny"),
      approve,
      // An approve that is only observed must not grant: nobody would be asked.
      grant: [...having("allow"), ...approve.filter(({ rule }) => rule.document.grants && !rule.observe)],
    };
    // Actions come from the protocols' tables; anything else is not remembered, so that the map stays bounded.
    const [family = "", verb = ""] = action.split(":");
    if (Object.hasOwn(FAMILIES, family) && Object.hasOwn(FAMILIES[family] ?? {}, verb)) this.#plans.set(action, plan);
    return plan;
  }
}
