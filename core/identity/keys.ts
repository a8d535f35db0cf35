import { type CryptoKey, createLocalJWKSet, errors, type JSONWebKeySet, type JWTHeaderParameters } from "jose";
import { Agent, type Dispatcher, request } from "undici";
import { isLoopbackHost } from "../config/address.ts";
import { SluiceError } from "../errors.ts";

/** Bounds of talking to an issuer. All times in milliseconds. */
export const ISSUER_LIMITS = {
  /** One refresh: discovery document and key set together. */
  fetchMillis: 5_000,
  documentBytes: 1024 * 1024,
  /** Keys older than this are asked for again before use; while the issuer is down the old ones go on being used. */
  freshMillis: 5 * 60_000,
  /** Keys older than this are not used at all: the issuer counts as unavailable. */
  staleMillis: 60 * 60_000,
  /** Least time between two refreshes of one issuer, whatever unknown key ids tokens name. */
  cooldownMillis: 10_000,
  keys: 100,
  /** Keys tried for a token without `kid`. */
  candidates: 8,
} as const;

interface KeySet {
  readonly find: ReturnType<typeof createLocalJWKSet>;
  readonly text: string;
  readonly fetchedMillis: number;
}

/**
 * The public keys of one issuer, found through OpenID Connect Discovery 1.0 §4 and kept while they are fresh.
 * A key id that is not in the set causes at most one refresh per cooldown, shared by all who wait for it.
 */
export class IssuerKeys {
  readonly issuer: string;
  /** Changes whenever a refresh brought a different key set. */
  generation = 0;
  #set: KeySet | undefined;
  #attemptMillis = Number.NEGATIVE_INFINITY;
  #failure = "it has not been reached yet";
  #refreshing: Promise<void> | undefined;
  readonly #now: () => number;
  readonly #dispatcher: Dispatcher;

  constructor(issuer: string, now: () => number, dispatcher: Dispatcher) {
    assertFetchable(issuer, undefined);
    this.issuer = issuer;
    this.#now = now;
    this.#dispatcher = dispatcher;
  }

  /**
   * Keys that may have signed a token with this header, best guess first.
   * @throws SluiceError SLUICE_ISSUER_UNAVAILABLE when no usable key set is at hand; SLUICE_CREDENTIAL_INVALID when the issuer has no such key
   */
  async candidates(header: JWTHeaderParameters): Promise<readonly CryptoKey[]> {
    const set = await this.#current();
    const found = await pick(set, header);
    if (found.length > 0) return found;
    return this.afterMiss(header);
  }

  /** The keys after a refresh, when the known ones did not do: rotation. Limited by the cooldown. */
  async afterMiss(header: JWTHeaderParameters): Promise<readonly CryptoKey[]> {
    const before = this.#set;
    await this.#refresh();
    const set = this.#usable();
    if (set !== before) {
      const found = await pick(set, header);
      if (found.length > 0) return found;
    }
    throw new SluiceError("SLUICE_CREDENTIAL_INVALID", "the token is signed with a key that its issuer does not publish", {
      hint: "Sign in again; if the issuer has just changed its keys, wait ten seconds first.",
    });
  }

  async #current(): Promise<KeySet> {
    const set = this.#set;
    if (set === undefined || this.#now() - set.fetchedMillis >= ISSUER_LIMITS.freshMillis) await this.#refresh();
    return this.#usable();
  }

  #usable(): KeySet {
    const set = this.#set;
    if (set !== undefined && this.#now() - set.fetchedMillis < ISSUER_LIMITS.staleMillis) return set;
    throw new SluiceError("SLUICE_ISSUER_UNAVAILABLE", `no keys of issuer ${this.issuer} are at hand: ${this.#failure}`, {
      hint: "Check that the gateway can reach the issuer's discovery document.",
    });
  }

  /** Never rejects: a failure leaves the old set in place and its reason in #failure. */
  #refresh(): Promise<void> {
    if (this.#refreshing !== undefined) return this.#refreshing;
    const now = this.#now();
    if (now - this.#attemptMillis < ISSUER_LIMITS.cooldownMillis) return Promise.resolve();
    this.#attemptMillis = now;
    this.#refreshing = this.#fetch().finally(() => {
      this.#refreshing = undefined;
    });
    return this.#refreshing;
  }

  async #fetch(): Promise<void> {
    try {
      const signal = AbortSignal.timeout(ISSUER_LIMITS.fetchMillis);
      const discovery = await this.#json(`${this.issuer.replace(/\/$/, "")}/.well-known/openid-configuration`, signal);
      if (discovery.value.issuer !== this.issuer) throw new Refusal("its discovery document names another issuer");
      const address = discovery.value.jwks_uri;
      if (typeof address !== "string") throw new Refusal("its discovery document has no jwks_uri");
      assertFetchable(address, this.issuer);
      const keys = await this.#json(address, signal);
      const list = keys.value.keys;
      if (!Array.isArray(list)) throw new Refusal("its key set has no list of keys");
      if (list.length > ISSUER_LIMITS.keys) throw new Refusal(`its key set has more than ${ISSUER_LIMITS.keys} keys`);
      const find = createLocalJWKSet({ keys: list } as JSONWebKeySet);
      if (this.#set?.text !== keys.text) this.generation++;
      this.#set = { find, text: keys.text, fetchedMillis: this.#now() };
    } catch (thrown) {
      this.#failure = reasonOf(thrown);
    }
  }

  async #json(address: string, signal: AbortSignal): Promise<{ value: Record<string, unknown>; text: string }> {
    // undici's request() follows no redirect: a 3xx ends here as a status other than 200.
    const response = await request(address, { dispatcher: this.#dispatcher, signal, headers: { accept: "application/json" } });
    // destroy() below reports itself as an error event, which nobody else listens to.
    response.body.on("error", () => {});
    if (response.statusCode !== 200) {
      response.body.destroy();
      throw new Refusal(`it answered with status ${response.statusCode}`);
    }
    const chunks: Buffer[] = [];
    let bytes = 0;
    for await (const chunk of response.body) {
      bytes += (chunk as Buffer).length;
      if (bytes > ISSUER_LIMITS.documentBytes) {
        response.body.destroy();
        throw new Refusal(`a document of it is larger than ${ISSUER_LIMITS.documentBytes} bytes`);
      }
      chunks.push(chunk as Buffer);
    }
    const text = Buffer.concat(chunks).toString("utf8");
    let value: unknown;
    try {
      value = JSON.parse(text);
    } catch {
      throw new Refusal("a document of it is not JSON");
    }
    if (typeof value !== "object" || value === null || Array.isArray(value)) throw new Refusal("a document of it is not a JSON object");
    return { value: value as Record<string, unknown>, text };
  }
}

/** A reason in words that may be shown. */
class Refusal extends Error {}

function reasonOf(thrown: unknown): string {
  if (thrown instanceof Refusal || thrown instanceof SluiceError) return thrown.message;
  if (thrown instanceof errors.JOSEError) return "its key set is malformed";
  if (thrown instanceof Error) {
    if (thrown.name === "TimeoutError") return `it did not answer within ${ISSUER_LIMITS.fetchMillis / 1000} seconds`;
    const { code } = thrown as { code?: unknown };
    if (typeof code === "string") return `the connection failed (${code})`;
  }
  return "the connection failed";
}

/** Symmetric keys and keys for encryption never leave here: the header's algorithm was pinned before, and jose filters by type and use. */
async function pick(set: KeySet, header: JWTHeaderParameters): Promise<readonly CryptoKey[]> {
  // Only alg and kid take part: jwk, jku, x5u and x5c of the header are the sender's word and are not read.
  const hint = { alg: header.alg, ...(header.kid === undefined ? {} : { kid: header.kid }) };
  try {
    return [await set.find(hint)];
  } catch (thrown) {
    if (!(thrown instanceof errors.JWKSMultipleMatchingKeys)) return [];
    const keys: CryptoKey[] = [];
    for await (const key of thrown) {
      keys.push(key);
      if (keys.length === ISSUER_LIMITS.candidates) break;
    }
    return keys;
  }
}

/**
 * Plain http is for loopback only, and a remote issuer cannot send the gateway to a loopback address.
 * @throws SluiceError SLUICE_CONFIG_INVALID for an issuer, SLUICE_ISSUER_UNAVAILABLE for what its document names
 */
function assertFetchable(address: string, issuer: string | undefined): void {
  const url = URL.canParse(address) ? new URL(address) : undefined;
  const loopback = url !== undefined && isLoopbackHost(url.hostname);
  const allowed =
    url !== undefined &&
    url.username === "" &&
    url.password === "" &&
    (url.protocol === "https:" || (url.protocol === "http:" && loopback)) &&
    !(issuer !== undefined && loopback && !isLoopbackHost(new URL(issuer).hostname));
  if (allowed) return;
  const which = issuer === undefined ? "identity.issuers: issuer" : "its jwks_uri";
  throw new SluiceError(
    issuer === undefined ? "SLUICE_CONFIG_INVALID" : "SLUICE_ISSUER_UNAVAILABLE",
    `${which} must be an https URL (plain http only on loopback): ${url?.origin ?? "not a URL"}`,
  );
}

/** The connections to issuers of one authenticator: few, and closed soon after use. */
export const issuerDispatcher = (): Agent =>
  new Agent({
    connections: 4,
    connect: { timeout: ISSUER_LIMITS.fetchMillis },
    headersTimeout: ISSUER_LIMITS.fetchMillis,
    bodyTimeout: ISSUER_LIMITS.fetchMillis,
    keepAliveTimeout: 1_000,
    maxHeaderSize: 16 * 1024,
  });
