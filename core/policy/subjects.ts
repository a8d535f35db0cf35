import type { TargetConfig } from "../config/types.ts";
import type { Identity } from "../identity/types.ts";
import { FAMILY_OF_PROTOCOL } from "./actions.ts";
import type { ClaimValue, OnDocument, WhoDocument } from "./document.ts";

export type IdentityTest = (identity: Identity) => boolean;
export type TargetTest = (target: TargetConfig) => boolean;
type Complain = (path: readonly (string | number)[], text: string) => void;

/** The issuers that names may belong to; the first is the default. */
export interface IssuerNames {
  readonly names: ReadonlySet<string>;
  readonly default: string | undefined;
}

export const issuerNames = (issuers: readonly { readonly name: string }[]): IssuerNames => ({
  names: new Set(issuers.map((issuer) => issuer.name)),
  default: issuers[0]?.name,
});

/** `alice` → `corp:alice` of the default issuer; `other:bob` stays. A value that holds a colon itself needs its prefix. */
export function qualify(value: string, issuers: IssuerNames): { readonly name: string } | { readonly error: string } {
  if (value.includes("*")) return { error: `expected a name (there are no patterns here), got ${JSON.stringify(value)}` };
  const colon = value.indexOf(":");
  if (colon < 0) {
    return issuers.default === undefined
      ? { error: "expected issuer:name, because no issuer is configured" }
      : { name: `${issuers.default}:${value}` };
  }
  const prefix = value.slice(0, colon);
  if (issuers.names.has(prefix) && colon < value.length - 1) return { name: value };
  return { error: `expected a configured issuer before the colon (${[...issuers.names].join(", ")}), got ${JSON.stringify(value)}` };
}

/** Keys are joined by AND, values by OR; undefined: everyone. */
export function compileWho(who: WhoDocument | undefined, issuers: IssuerNames, complain: Complain): IdentityTest {
  if (who === undefined) return () => true;
  const tests: IdentityTest[] = [];
  const names = (key: "users" | "groups"): ReadonlySet<string> => {
    const set = new Set<string>();
    who[key]?.forEach((value, index) => {
      const result = qualify(value, issuers);
      if ("name" in result) set.add(result.name);
      else complain([key, index], result.error);
    });
    return set;
  };
  if (who.users !== undefined) {
    const users = names("users");
    tests.push((identity) => users.has(identity.user));
  }
  if (who.groups !== undefined) {
    const groups = names("groups");
    tests.push((identity) => identity.groups.some((group) => groups.has(group)));
  }
  if (who.issuers !== undefined) {
    const wanted = new Set(who.issuers);
    who.issuers.forEach((issuer, index) => {
      if (!issuers.names.has(issuer))
        complain(["issuers", index], `expected one of ${[...issuers.names].join(", ")}, got ${JSON.stringify(issuer)}`);
    });
    tests.push((identity) => wanted.has(identity.issuer));
  }
  for (const [claim, values] of Object.entries(who.claims ?? {})) tests.push((identity) => claimMatches(identity.claims, claim, values));
  return (identity) => tests.every((test) => test(identity));
}

/** Exact, types included: the claim 7 is not "7". A claim that is a list matches when it contains one of the values. */
function claimMatches(claims: Readonly<Record<string, unknown>>, claim: string, values: readonly ClaimValue[]): boolean {
  if (!Object.hasOwn(claims, claim)) return false;
  const value = claims[claim];
  const items: readonly unknown[] = Array.isArray(value) ? value : [value];
  return items.some((item) => values.includes(item as ClaimValue));
}

export function compileOn(on: OnDocument | undefined, targets: readonly TargetConfig[], complain: Complain): TargetTest {
  if (on === undefined) return () => true;
  const tests: TargetTest[] = [];
  if (on.targets !== undefined) {
    const known = new Set(targets.map((target) => target.name));
    const names = new Set(on.targets);
    on.targets.forEach((name, index) => {
      if (!known.has(name)) complain(["targets", index], `expected the name of a configured target, got ${JSON.stringify(name)}`);
    });
    tests.push((target) => names.has(target.name));
  }
  for (const [label, values] of Object.entries(on.labels ?? {})) {
    tests.push((target) => Object.hasOwn(target.labels, label) && values.includes(target.labels[label] ?? ""));
  }
  if (on.protocols !== undefined) {
    const protocols = new Set(on.protocols);
    on.protocols.forEach((protocol, index) => {
      if (Object.hasOwn(FAMILY_OF_PROTOCOL, protocol)) return;
      const known = Object.keys(FAMILY_OF_PROTOCOL).join(", ");
      complain(["protocols", index], `expected a protocol of this version (${known}), got ${JSON.stringify(protocol)}`);
    });
    tests.push((target) => protocols.has(target.protocol));
  }
  return (target) => tests.every((test) => test(target));
}
