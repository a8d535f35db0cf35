import { randomUUID } from "node:crypto";
import { createServer } from "node:http";
import { type CryptoKey, exportJWK, generateKeyPair, type JWK, SignJWT } from "jose";

export interface TokenRequest {
  readonly sub?: string;
  readonly groups?: readonly string[];
  /** Default `sluice`. */
  readonly audience?: string | readonly string[];
  /** From now; negative: expired. Default 600. */
  readonly expiresInSeconds?: number;
  /** Further claims; a value of undefined takes a claim away that would be there otherwise. */
  readonly claims?: Readonly<Record<string, unknown>>;
  /** Members of the protected header, over the defaults. */
  readonly header?: Readonly<Record<string, unknown>>;
}

export interface TestIssuer {
  /** The issuer's URL: `http://127.0.0.1:port`. */
  readonly issuer: string;
  /** A signed token with exactly the claims that were asked for. */
  token(request?: TokenRequest): Promise<string>;
  /** A token in this issuer's name, but signed with a key that it does not publish. */
  forgedToken(request?: TokenRequest): Promise<string>;
  /** Sign with a new key from now on. The old one stays published until forget() is called. */
  rotate(): Promise<void>;
  /** Publish the newest key alone. */
  forget(): void;
  /** Answer 503 from now on, or again as usual. */
  setOutage(down: boolean): void;
  /** How often the key set was fetched. */
  keyFetches(): number;
  stop(): Promise<void>;
}

interface SigningKey {
  readonly kid: string;
  readonly privateKey: CryptoKey;
  readonly publicJwk: JWK;
}

/** An issuer for tests: discovery, a key set, and any token a test wants, good or bad. */
export async function startTestIssuer(options: { algorithm?: "RS256" | "ES256" | "EdDSA" } = {}): Promise<TestIssuer> {
  const algorithm = options.algorithm ?? "ES256";
  let keys: readonly SigningKey[] = [await makeKey(algorithm)];
  let isDown = false;
  let keyFetches = 0;
  const server = createServer((request, response) => {
    const answer = (status: number, body: unknown) =>
      response.writeHead(status, { "content-type": "application/json" }).end(JSON.stringify(body));
    if (isDown) return answer(503, { error: "temporarily_unavailable" });
    if (request.url === "/.well-known/openid-configuration") return answer(200, discovery(issuer, algorithm));
    if (request.url === "/jwks") {
      keyFetches++;
      return answer(200, { keys: keys.map((key) => key.publicJwk) });
    }
    return answer(404, { error: "not_found" });
  });
  await new Promise<void>((resolve) => {
    server.listen(0, "127.0.0.1", resolve);
  });
  server.unref();
  const address = server.address();
  if (address === null || typeof address === "string") throw new Error("the test issuer has no port");
  const issuer = `http://127.0.0.1:${address.port}`;
  const newest = (): SigningKey => keys[keys.length - 1] as SigningKey;
  return {
    issuer,
    token: (request = {}) => sign(newest(), issuer, algorithm, request),
    forgedToken: async (request = {}) => sign({ ...(await makeKey(algorithm)), kid: newest().kid }, issuer, algorithm, request),
    rotate: async () => {
      keys = [...keys, await makeKey(algorithm)];
    },
    forget: () => {
      keys = [newest()];
    },
    setOutage: (down) => {
      isDown = down;
    },
    keyFetches: () => keyFetches,
    stop: () =>
      new Promise((resolve) => {
        server.close(() => resolve());
        server.closeAllConnections();
      }),
  };
}

async function makeKey(algorithm: string): Promise<SigningKey> {
  const pair = await generateKeyPair(algorithm, { extractable: true });
  const kid = randomUUID();
  return { kid, privateKey: pair.privateKey, publicJwk: { ...(await exportJWK(pair.publicKey)), kid, alg: algorithm, use: "sig" } };
}

function sign(key: SigningKey, issuer: string, algorithm: string, request: TokenRequest): Promise<string> {
  const nowSeconds = Math.floor(Date.now() / 1_000);
  const claims: Record<string, unknown> = {
    iss: issuer,
    sub: request.sub ?? "alice",
    aud: request.audience ?? "sluice",
    iat: nowSeconds,
    exp: nowSeconds + (request.expiresInSeconds ?? 600),
    jti: randomUUID(),
    groups: request.groups,
    ...request.claims,
  };
  for (const [name, value] of Object.entries(claims)) if (value === undefined) delete claims[name];
  return new SignJWT(claims).setProtectedHeader({ alg: algorithm, kid: key.kid, typ: "JWT", ...request.header }).sign(key.privateKey);
}

/** OpenID Connect Discovery 1.0, section 3. */
function discovery(issuer: string, algorithm: string): Record<string, unknown> {
  return {
    issuer,
    jwks_uri: `${issuer}/jwks`,
    authorization_endpoint: `${issuer}/authorize`,
    token_endpoint: `${issuer}/token`,
    response_types_supported: ["code"],
    subject_types_supported: ["public"],
    id_token_signing_alg_values_supported: [algorithm],
  };
}
