import { createHash } from "node:crypto";
import { compactVerify, errors, type JWTHeaderParameters } from "jose";
import type { IssuerConfig } from "../config/types.ts";
import { SluiceError } from "../errors.ts";
import { LIMITS } from "../limits.ts";
import { ClaimError, identityOf, skewSeconds } from "./claims.ts";
import { IssuerKeys, issuerDispatcher } from "./keys.ts";
import type { Authenticator, Identity } from "./types.ts";

/** Signature algorithms with a public key (RFC 7518 §3.1, RFC 8037, RFC 9864); what else a configuration names is refused. */
const SIGNATURE_ALGORITHMS = ["RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA", "Ed25519"] as const;

/** Verified tokens that are remembered, so that a storm of reconnections with the same token costs one signature check. */
const VERIFIED_TOKENS = 10_000;
const VERIFIED_MILLIS = 60_000;

export interface AuthenticatorOptions {
  /** Milliseconds of the Unix epoch; the clock by default. */
  readonly now?: () => number;
}

/** A refused credential; `issuer` is the configured issuer's name where the token named one. */
class AuthenticationError extends SluiceError {
  readonly issuer: string | undefined;
  constructor(
    code: "SLUICE_CREDENTIAL_INVALID" | "SLUICE_CREDENTIAL_EXPIRED" | "SLUICE_ISSUER_UNAVAILABLE",
    message: string,
    issuer: string | undefined,
    hint?: string,
  ) {
    super(code, message, hint === undefined ? {} : { hint });
    this.issuer = issuer;
  }
}

export interface OidcAuthenticator extends Authenticator {
  /**
   * Take another list of issuers. Remembered tokens are forgotten; keys of issuers that stay are kept.
   * @throws SluiceError SLUICE_CONFIG_INVALID; the old list then stays in force
   */
  reconfigure(issuers: readonly IssuerConfig[]): void;
  /** Forget remembered tokens. */
  flush(): void;
  /** End connections to issuers. */
  close(): Promise<void>;
}

interface Remembered {
  readonly identity: Identity;
  readonly untilMillis: number;
  readonly keys: IssuerKeys;
  readonly generation: number;
}

/**
 * Verifies OpenID Connect ID tokens and JWT access tokens (RFC 9068) of configured issuers, in JWS compact form,
 * following the JWT best current practices (RFC 8725). Whatever is not understood refuses.
 * @throws SluiceError SLUICE_CONFIG_INVALID for an algorithm without a public key or a repeated issuer
 */
export function createAuthenticator(initial: readonly IssuerConfig[], options: AuthenticatorOptions = {}): OidcAuthenticator {
  const now = options.now ?? Date.now;
  const dispatcher = issuerDispatcher();
  const remembered = new Map<string, Remembered>();
  let issuers = initial;
  let keys = keysOf(initial, new Map());

  function keysOf(list: readonly IssuerConfig[], old: ReadonlyMap<string, IssuerKeys>): Map<string, IssuerKeys> {
    const made = new Map<string, IssuerKeys>();
    for (const config of list) {
      if (made.has(config.issuer)) throw new SluiceError("SLUICE_CONFIG_INVALID", `identity.issuers: ${config.issuer} stands there twice`);
      for (const algorithm of config.algorithms) {
        if (!(SIGNATURE_ALGORITHMS as readonly string[]).includes(algorithm)) {
          throw new SluiceError("SLUICE_CONFIG_INVALID", `identity.issuers: ${config.name}: algorithm ${algorithm} is not accepted`);
        }
      }
      made.set(config.issuer, old.get(config.issuer) ?? new IssuerKeys(config.issuer, now, dispatcher));
    }
    return made;
  }

  function recall(digest: string): Identity | undefined {
    const entry = remembered.get(digest);
    if (entry === undefined) return undefined;
    const nowMillis = now();
    if (nowMillis >= entry.untilMillis || nowMillis >= entry.identity.expiresAtMillis || entry.keys.generation !== entry.generation) {
      remembered.delete(digest);
      return undefined;
    }
    return entry.identity;
  }

  async function authenticate(credential: string): Promise<Identity> {
    const { header, claims } = peek(credential);
    const digest = createHash("sha256").update(credential).digest("base64url");
    const known = recall(digest);
    if (known !== undefined) return known;

    const list = issuers;
    const config = list.find((candidate) => candidate.issuer === claims.iss);
    const issuerKeys = config && keys.get(config.issuer);
    if (config === undefined || issuerKeys === undefined) {
      throw invalid("the token comes from an issuer that is not configured here", undefined);
    }
    if (!config.algorithms.includes(header.alg))
      throw invalid("the token's signature algorithm is not accepted for its issuer", config.name);
    checkHeader(header, config.name);
    try {
      await verify(credential, header, config, issuerKeys);
      checkClaims(claims, config, now());
      const identity = identityOf(claims, config, list);
      // A reload while the keys were being fetched may have taken the issuer away.
      if (issuers !== list) return await authenticate(credential);
      if (remembered.size >= VERIFIED_TOKENS) remembered.delete(remembered.keys().next().value as string);
      remembered.set(digest, { identity, untilMillis: now() + VERIFIED_MILLIS, keys: issuerKeys, generation: issuerKeys.generation });
      return identity;
    } catch (thrown) {
      throw toAuthenticationError(thrown, config.name);
    }
  }

  return {
    authenticate,
    reconfigure(next) {
      keys = keysOf(next, keys);
      issuers = next;
      remembered.clear();
    },
    flush: () => remembered.clear(),
    close: () => dispatcher.close(),
  };
}

const invalid = (message: string, issuer: string | undefined): AuthenticationError =>
  new AuthenticationError(
    "SLUICE_CREDENTIAL_INVALID",
    message,
    issuer,
    "Use a token that one of the configured issuers made for this gateway.",
  );

interface Peeked {
  readonly header: JWTHeaderParameters;
  readonly claims: Readonly<Record<string, unknown>>;
}

/** The token's parts, not yet verified: good for choosing the issuer, nothing else. */
function peek(credential: string): Peeked {
  if (credential.length > LIMITS.credentialBytes) throw invalid(`the token is longer than ${LIMITS.credentialBytes} bytes`, undefined);
  const parts = /^([\w-]+)\.([\w-]+)\.([\w-]*)$/.exec(credential);
  const header = part(parts?.[1]);
  const claims = part(parts?.[2]);
  if (header === undefined || claims === undefined || typeof header.alg !== "string") {
    throw invalid("the credential is not a signed JSON Web Token", undefined);
  }
  return { header: header as JWTHeaderParameters, claims };
}

function part(encoded: string | undefined): Record<string, unknown> | undefined {
  if (encoded === undefined) return undefined;
  try {
    const text = new TextDecoder("utf-8", { fatal: true }).decode(Buffer.from(encoded, "base64url"));
    const value: unknown = JSON.parse(text);
    return typeof value === "object" && value !== null && !Array.isArray(value) ? (value as Record<string, unknown>) : undefined;
  } catch {
    return undefined;
  }
}

function checkHeader(header: JWTHeaderParameters, issuer: string): void {
  // RFC 7515 §4.1.11: extensions that must be understood; none is.
  if (Object.hasOwn(header, "crit")) throw invalid("the token demands header extensions (crit) that are not supported", issuer);
  if (header.kid !== undefined && typeof header.kid !== "string") throw invalid("the token's key id is not a string", issuer);
  if (header.typ === undefined) return;
  const type = typeof header.typ === "string" ? header.typ.toLowerCase().replace(/^application\//, "") : "";
  // RFC 8725 §3.11: logout tokens, DPoP proofs and other kinds of JWT are not credentials.
  if (type !== "jwt" && type !== "at+jwt") throw invalid("the token is of a type (typ) that is not a credential", issuer);
}

async function verify(credential: string, header: JWTHeaderParameters, config: IssuerConfig, keys: IssuerKeys): Promise<void> {
  const algorithms = [...config.algorithms];
  const tryKeys = async (candidates: Awaited<ReturnType<IssuerKeys["candidates"]>>): Promise<boolean> => {
    for (const key of candidates) {
      try {
        await compactVerify(credential, key, { algorithms });
        return true;
      } catch (thrown) {
        if (!(thrown instanceof errors.JWSSignatureVerificationFailed)) throw thrown;
      }
    }
    return false;
  };
  if (await tryKeys(await keys.candidates(header))) return;
  // Without a key id a rotation shows only as a signature that no known key made.
  if (header.kid === undefined && (await tryKeys(await keys.afterMiss(header)))) return;
  throw new ClaimError("the token's signature is wrong");
}

/** RFC 7519 §4.1, OpenID Connect Core §3.1.3.7. The bytes were the signed ones: compactVerify took the same string. */
function checkClaims(claims: Peeked["claims"], config: IssuerConfig, nowMillis: number): void {
  const nowSeconds = nowMillis / 1000;
  const skew = skewSeconds(config);
  const { aud, azp, exp } = claims;
  const audiences = typeof aud === "string" ? [aud] : aud;
  if (!Array.isArray(audiences) || !audiences.every((entry) => typeof entry === "string"))
    throw new ClaimError("the token has no usable audience (aud)");
  if (!audiences.some((entry) => config.audience.includes(entry))) throw new ClaimError("the token was made for another audience (aud)");
  if (audiences.length > 1 && !(typeof azp === "string" && config.audience.includes(azp))) {
    throw new ClaimError("the token has several audiences, and its authorized party (azp) is not an accepted one");
  }
  if (typeof exp !== "number" || !Number.isFinite(exp)) throw new ClaimError("the token has no end of validity (exp)");
  if (exp + skew <= nowSeconds) {
    throw new AuthenticationError("SLUICE_CREDENTIAL_EXPIRED", "the token has expired", config.name, "Sign in again to get a new one.");
  }
  for (const claim of ["nbf", "iat"] as const) {
    const value = claims[claim];
    if (value === undefined) continue;
    if (typeof value !== "number" || !Number.isFinite(value)) throw new ClaimError(`the token's claim ${claim} is not a number`);
    if (value > nowSeconds + skew) throw new ClaimError(`the token is not valid yet (${claim}); compare the clocks of issuer and gateway`);
  }
  // RFC 8417 security events (logout tokens among them) may come without a typ of their own.
  if (claims.events !== undefined) throw new ClaimError("the token is a security event, not a credential");
  // RFC 7800: bound to a key whose possession a password message cannot prove.
  if (claims.cnf !== undefined) throw new ClaimError("the token is bound to a key (cnf), which this gateway cannot check");
}

/** Errors of libraries may carry claims; only words from here go on. */
function toAuthenticationError(thrown: unknown, issuer: string): AuthenticationError {
  if (thrown instanceof AuthenticationError) return thrown;
  if (thrown instanceof ClaimError) return invalid(thrown.message, issuer);
  if (thrown instanceof SluiceError) {
    const code = thrown.code === "SLUICE_ISSUER_UNAVAILABLE" ? thrown.code : "SLUICE_CREDENTIAL_INVALID";
    return new AuthenticationError(code, thrown.message, issuer, thrown.hint);
  }
  return invalid("the token could not be verified", issuer);
}
