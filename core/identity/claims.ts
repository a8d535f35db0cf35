import type { IssuerConfig } from "../config/types.ts";
import type { Identity } from "./types.ts";

/** What a verified token may claim at most. */
const CLAIM_LIMITS = {
  nameCharacters: 256,
  groups: 2_000,
  /** Links of a delegation chain (RFC 8693 §4.1). */
  chainDepth: 8,
} as const;

/** A claim that makes the token unusable, in words that may be shown: they name claims, never values. */
export class ClaimError extends Error {}

type Claims = Readonly<Record<string, unknown>>;

/**
 * An identity from claims whose signature, issuer, audience and times have been verified.
 * @param issuers all configured issuers: an actor of another one is named after it
 * @throws ClaimError
 */
export function identityOf(claims: Claims, config: IssuerConfig, issuers: readonly IssuerConfig[]): Identity {
  const subject = name(claims.sub, "sub");
  const exp = claims.exp as number;
  return Object.freeze({
    issuer: config.name,
    user: `${config.name}:${userOf(claims, config, subject)}`,
    subject,
    groups: Object.freeze(groupsOf(claims, config)),
    claims: Object.freeze(claims),
    chain: Object.freeze(chainOf(claims, config, issuers)),
    // The latest instant a Date can hold keeps an absurd exp printable.
    expiresAtMillis: Math.min((exp + skewSeconds(config)) * 1000, 8.64e15),
  });
}

/** RFC 7519 §4.1.4: "no more than a few minutes"; here never more than one. */
export const skewSeconds = (config: IssuerConfig): number => Math.min(Math.max(config.clockSkewSeconds, 0), 60);

function userOf(claims: Claims, config: IssuerConfig, subject: string): string {
  if (config.userClaim === "sub") return subject;
  if (config.userClaim === "email" && claims.email_verified !== true) {
    throw new ClaimError("the token's e-mail address is not verified by its issuer (email_verified)");
  }
  return name(Object.hasOwn(claims, config.userClaim) ? claims[config.userClaim] : undefined, config.userClaim);
}

/** No claim, no groups. One string is one group. Anything else than strings is refused rather than half understood. */
function groupsOf(claims: Claims, config: IssuerConfig): string[] {
  const value = Object.hasOwn(claims, config.groupsClaim) ? claims[config.groupsClaim] : undefined;
  if (value === undefined || value === null) return [];
  const list = typeof value === "string" ? [value] : value;
  if (!Array.isArray(list)) throw new ClaimError(`the token's claim ${config.groupsClaim} is not a list of names`);
  if (list.length > CLAIM_LIMITS.groups) throw new ClaimError(`the token names more than ${CLAIM_LIMITS.groups} groups`);
  return [...new Set(list.map((group) => `${config.name}:${name(group, config.groupsClaim)}`))];
}

/** RFC 8693 §4.1: `act` is the current actor; an `act` inside it the one before. */
function chainOf(claims: Claims, config: IssuerConfig, issuers: readonly IssuerConfig[]): string[] {
  const chain: string[] = [];
  let act = claims.act;
  while (act !== undefined) {
    if (typeof act !== "object" || act === null || Array.isArray(act)) throw new ClaimError("the token's claim act is not an object");
    if (chain.length === CLAIM_LIMITS.chainDepth) throw new ClaimError(`the token's delegation is deeper than ${CLAIM_LIMITS.chainDepth}`);
    const actor = act as Claims;
    const by = actor.iss === undefined ? config.issuer : name(actor.iss, "act.iss");
    const issuer = by === config.issuer ? config.name : (issuers.find((other) => other.issuer === by)?.name ?? by);
    // An issuer is named by its URL; the name it has here would make a stranger look like one of its users, also to locks.
    if (issuer === by && issuers.some((other) => other.name === by)) {
      throw new ClaimError("the token's claim act.iss is not the URL of an issuer");
    }
    chain.push(`${issuer}:${name(actor.sub, "act.sub")}`);
    act = actor.act;
  }
  return chain;
}

/** A name that can stand in logs, tables and rules: no control or direction-changing characters. */
function name(value: unknown, claim: string): string {
  if (typeof value !== "string" || value === "") throw new ClaimError(`the token has no usable claim ${claim}`);
  if (value.length > CLAIM_LIMITS.nameCharacters)
    throw new ClaimError(`the token's claim ${claim} is longer than ${CLAIM_LIMITS.nameCharacters} characters`);
  if (/[\p{Cc}\p{Bidi_Control}\p{Zl}\p{Zp}]/u.test(value) || !value.isWellFormed()) {
    throw new ClaimError(`the token's claim ${claim} contains control characters`);
  }
  return value;
}
