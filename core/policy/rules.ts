import type { Path } from "../config/problems.ts";
import { type Problems, positionOf } from "../config/problems.ts";
import type { TargetConfig } from "../config/types.ts";
import type { Allowed } from "../verdict.ts";
import { type ActionSet, CONNECT, classOf, expandActions } from "./actions.ts";
import { type CompiledWhen, compileWhen } from "./cel.ts";
import type { MaskDocument, PolicyDocument, RuleDocument } from "./document.ts";
import { compileGlobs, type ResourceMatcher } from "./globs.ts";
import { mintAllowed } from "./mint.ts";
import { compileOn, compileWho, type IdentityTest, type IssuerNames, type TargetTest } from "./subjects.ts";

/** A rule as closures. */
export interface CompiledRule {
  readonly document: RuleDocument;
  readonly name: string;
  readonly observe: boolean;
  readonly who: IdentityTest;
  readonly on: TargetTest;
  /** undefined: any action. */
  readonly actions: ActionSet | undefined;
  /** undefined: any resource, also none. */
  readonly resources: ResourceMatcher | undefined;
  readonly when: CompiledWhen | undefined;
  /** The verdict when this allow alone decides and nothing was observed; shared, because it is immutable. */
  readonly allowed: Allowed;
}

export interface CompiledMask {
  readonly document: MaskDocument;
  readonly who: IdentityTest;
  readonly except: IdentityTest;
  readonly on: TargetTest;
}

/** How an action meets a rule's `actions:`; `implied`: an allow of read, write or schema covers the session class. */
export function matchAction(rule: CompiledRule, action: string): "named" | "implied" | undefined {
  const { actions } = rule;
  if (
    action !== CONNECT &&
    rule.document.effect === "allow" &&
    (actions === undefined || actions.impliesSession) &&
    classOf(action) === "session"
  ) {
    return "implied";
  }
  if (actions === undefined || actions.names.has(action)) return "named";
  return undefined;
}

/** Does an allow open the target? Every allow does, for its who and on; one that names connect does so under its own `when`. */
export const namesConnect = (rule: CompiledRule): boolean => rule.actions?.names.has(CONNECT) === true;

export function compileRule(
  document: RuleDocument,
  policy: PolicyDocument,
  targets: readonly TargetConfig[],
  issuers: IssuerNames,
  problems: Problems,
): CompiledRule {
  const complain = complainer(document, policy, problems);
  const on = compileOn(document.on, targets, (path, text) => complain(["on", ...path], text));
  const protocols = new Set(targets.filter(on).map((target) => target.protocol as string));
  // A rule for targets that come later still means this version's only protocol.
  if (protocols.size === 0) protocols.add("postgres");
  const when = document.when === undefined ? undefined : compileWhen(document.when);
  if (when !== undefined && "error" in when) complain(["when"], `expected a CEL expression that gives true or false: ${when.error}`);
  if (document.approve?.from !== undefined)
    compileWho(document.approve.from, issuers, (path, text) => complain(["approve", "from", ...path], text));
  const compiledWhen = when === undefined || "error" in when ? undefined : when;
  return {
    document,
    name: document.name,
    observe: document.mode === "observe",
    who: compileWho(document.who, issuers, (path, text) => complain(["who", ...path], text)),
    on,
    actions: document.actions && expandActions(document.actions, protocols, (index, text) => complain(["actions", index], text)),
    resources: document.resources && compileGlobs(document.resources),
    when: compiledWhen,
    allowed: mintAllowed({
      rule: document.name,
      policyVersion: policy.version,
      stable: compiledWhen?.isStable ?? true,
      record: document.record,
      observed: undefined,
    }),
  };
}

export function compileMask(
  document: MaskDocument,
  policy: PolicyDocument,
  targets: readonly TargetConfig[],
  issuers: IssuerNames,
  problems: Problems,
): CompiledMask {
  const complain = complainer(document, policy, problems);
  return {
    document,
    who: compileWho(document.who, issuers, (path, text) => complain(["who", ...path], text)),
    except:
      document.except === undefined
        ? () => false
        : compileWho(document.except, issuers, (path, text) => complain(["except", ...path], text)),
    on: compileOn(document.on, targets, (path, text) => complain(["on", ...path], text)),
  };
}

export function complainer(
  item: { source: number; path: Path },
  policy: PolicyDocument,
  problems: Problems,
): (path: Path, text: string) => void {
  const source = policy.sources[item.source];
  return (path, text) => {
    if (source === undefined) return;
    const whole = [...item.path, ...path];
    problems.add(source.file, positionOf(source.positions, whole), whole, text);
  };
}
