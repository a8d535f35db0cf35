import { randomBytes } from "node:crypto";
import { createServer } from "node:http";
import { exportJWK, generateKeyPair } from "jose";
import { Provider } from "oidc-provider";

/** The demo's identities and the groups that the issuer vouches for. */
export const people = {
  analyst: ["analytics"],
  dba: ["dba"],
  ci: ["machines"],
} as const satisfies Readonly<Record<string, readonly string[]>>;

export type PersonName = keyof typeof people;
export const personNames = Object.keys(people) as PersonName[];

export interface DemoIssuer {
  readonly issuer: string;
  /** A fresh access token, valid for an hour. */
  token(name: PersonName): Promise<string>;
  stop(): Promise<void>;
}

const audience = "sluice";
export const tokenLifeSeconds = 3_600;

/**
 * A local OpenID provider. `sluice-cli` is the public client for signing in through a browser, where any password
 * is taken; for scripts each identity is also a client of its own that gets its token by client credentials.
 */
export async function startDemoIssuer(port: number): Promise<DemoIssuer> {
  const issuer = `http://127.0.0.1:${port}`;
  const secrets = Object.fromEntries(personNames.map((name) => [name, randomBytes(24).toString("base64url")]));
  const groupsOf = (name: string | undefined): readonly string[] =>
    name !== undefined && Object.hasOwn(people, name) ? people[name as PersonName] : [];
  const { privateKey } = await generateKeyPair("ES256", { extractable: true });
  const restoreConsole = silenceNotices();
  const provider = new Provider(issuer, {
    clients: [
      ...personNames.map((name) => ({
        client_id: name,
        client_secret: secrets[name],
        grant_types: ["client_credentials"],
        redirect_uris: [],
        response_types: [],
        id_token_signed_response_alg: "ES256",
      })),
      {
        client_id: "sluice-cli",
        application_type: "native",
        token_endpoint_auth_method: "none",
        grant_types: ["authorization_code", "refresh_token", "urn:ietf:params:oauth:grant-type:device_code"],
        redirect_uris: ["http://127.0.0.1/callback"],
        response_types: ["code"],
        id_token_signed_response_alg: "ES256",
      },
    ],
    jwks: { keys: [{ ...(await exportJWK(privateKey)), kid: randomBytes(8).toString("hex"), alg: "ES256", use: "sig" }] },
    cookies: { keys: [randomBytes(32).toString("base64url")] },
    claims: { openid: ["sub"], groups: ["groups"] },
    scopes: ["openid", "offline_access", "groups"],
    features: {
      clientCredentials: { enabled: true },
      deviceFlow: { enabled: true },
      resourceIndicators: {
        enabled: true,
        defaultResource: () => "urn:sluice:gateway",
        useGrantedResource: () => true,
        getResourceServerInfo: () => ({
          scope: "groups",
          audience,
          accessTokenTTL: tokenLifeSeconds,
          accessTokenFormat: "jwt",
          jwt: { sign: { alg: "ES256" } },
        }),
      },
    },
    ttl: {
      ClientCredentials: tokenLifeSeconds,
      AccessToken: tokenLifeSeconds,
      Session: 86_400,
      Grant: 86_400,
      Interaction: 600,
      DeviceCode: 600,
      AuthorizationCode: 60,
      RefreshToken: 86_400,
      IdToken: 3_600,
    },
    extraTokenClaims: (_context, token) => ({ groups: groupsOf(token.accountId ?? token.clientId) }),
    findAccount: (_context, sub) =>
      Object.hasOwn(people, sub) ? { accountId: sub, claims: () => ({ sub, groups: groupsOf(sub) }) } : undefined,
    pkce: { required: () => true },
  });
  const server = createServer(provider.callback());
  await new Promise<void>((resolve, reject) => {
    server.once("error", reject);
    server.listen(port, "127.0.0.1", resolve);
  });
  restoreConsole();
  return {
    issuer,
    token: async (name) => {
      const response = await fetch(`${issuer}/token`, {
        method: "POST",
        headers: { authorization: `Basic ${Buffer.from(`${name}:${secrets[name]}`).toString("base64")}` },
        body: new URLSearchParams({ grant_type: "client_credentials", resource: "urn:sluice:gateway", scope: "groups" }),
      });
      const body = (await response.json()) as { access_token?: string; error_description?: string };
      if (body.access_token === undefined)
        throw new Error(`the issuer gave no token for ${name}: ${body.error_description ?? response.status}`);
      return body.access_token;
    },
    stop: () =>
      new Promise((resolve) => {
        server.close(() => resolve());
        server.closeAllConnections();
      }),
  };
}

/** oidc-provider warns on the console that its defaults (in-memory store, quick login pages) are not for production; a demo is not. */
function silenceNotices(): () => void {
  const { warn, info } = console;
  console.warn = () => undefined;
  console.info = () => undefined;
  return () => Object.assign(console, { warn, info });
}
