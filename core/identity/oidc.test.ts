import assert from "node:assert/strict";
import { createServer, type Server } from "node:http";
import type { AddressInfo } from "node:net";
import { after, before, beforeEach, describe, it } from "node:test";
import { type CryptoKey, exportJWK, exportSPKI, generateKeyPair, type JWK, type JWTPayload, SignJWT, UnsecuredJWT } from "jose";
import type { IssuerConfig } from "../config/types.ts";
import { ISSUER_LIMITS } from "./keys.ts";
import { type AuthenticatorOptions, createAuthenticator, type OidcAuthenticator } from "./oidc.ts";

interface Key {
  readonly kid: string;
  readonly alg: string;
  readonly secret: CryptoKey;
  readonly jwk: JWK;
  readonly pem: string;
}

async function makeKey(kid: string, alg: string): Promise<Key> {
  const pair = await generateKeyPair(alg, { extractable: true });
  return {
    kid,
    alg,
    secret: pair.privateKey,
    jwk: { ...(await exportJWK(pair.publicKey)), kid, alg, use: "sig" },
    pem: await exportSPKI(pair.publicKey),
  };
}

/** A local issuer whose documents a test may change; it counts what it is asked for. */
const issuer = {
  server: undefined as Server | undefined,
  url: "",
  published: [] as JWK[],
  discovery: {} as Record<string, unknown>,
  status: 200,
  fetches: 0,
};

let rsa: Key;
let ec: Key;
let other: Key;
let clockMillis: number;
let opened: OidcAuthenticator[] = [];

const config = (changes: Partial<IssuerConfig> = {}): IssuerConfig => ({
  name: "corp",
  type: "oidc",
  issuer: issuer.url,
  audience: ["sluice"],
  groupsClaim: "groups",
  userClaim: "sub",
  algorithms: ["RS256", "ES256"],
  clockSkewSeconds: 30,
  ...changes,
});

function make(changes: Partial<IssuerConfig> = {}, options: AuthenticatorOptions = {}): OidcAuthenticator {
  const made = createAuthenticator([config(changes)], { now: () => clockMillis, ...options });
  opened.push(made);
  return made;
}

function token(
  changes: JWTPayload = {},
  options: { key?: Key; header?: Record<string, unknown>; omit?: readonly string[] } = {},
): Promise<string> {
  const key = options.key ?? rsa;
  const seconds = Math.floor(clockMillis / 1000);
  const claims: JWTPayload = {
    iss: issuer.url,
    aud: "sluice",
    sub: "alice",
    iat: seconds,
    exp: seconds + 300,
    groups: ["analytics"],
    ...changes,
  };
  for (const claim of options.omit ?? []) delete claims[claim];
  return new SignJWT(claims).setProtectedHeader({ alg: key.alg, kid: key.kid, ...options.header }).sign(key.secret);
}

const refused = (code: string, text?: RegExp) => (thrown: unknown) => {
  assert.ok(thrown instanceof Error);
  assert.equal((thrown as { code?: string }).code, code, thrown.message);
  if (text !== undefined) assert.match(thrown.message, text);
  return true;
};
const INVALID = "SLUICE_CREDENTIAL_INVALID";

before(async () => {
  [rsa, ec, other] = await Promise.all([makeKey("r1", "RS256"), makeKey("e1", "ES256"), makeKey("o1", "RS256")]);
  issuer.server = createServer((request, response) => {
    issuer.fetches++;
    const body = request.url === "/keys" ? { keys: issuer.published } : issuer.discovery;
    response.writeHead(issuer.status, { "content-type": "application/json", location: `${issuer.url}/keys` }).end(JSON.stringify(body));
  });
  await new Promise<void>((resolve) => issuer.server?.listen(0, "127.0.0.1", resolve));
  issuer.url = `http://127.0.0.1:${(issuer.server.address() as AddressInfo).port}`;
});

beforeEach(() => {
  issuer.published = [rsa.jwk, ec.jwk];
  issuer.discovery = { issuer: issuer.url, jwks_uri: `${issuer.url}/keys` };
  issuer.status = 200;
  issuer.fetches = 0;
  clockMillis = Date.now();
});

after(async () => {
  await Promise.all(opened.map((made) => made.close()));
  opened = [];
  issuer.server?.closeAllConnections();
  await new Promise((resolve) => issuer.server?.close(resolve));
});

describe("a good token", () => {
  it("gives a namespaced identity (RS256 and ES256)", async () => {
    const authenticator = make();
    for (const key of [rsa, ec]) {
      const identity = await authenticator.authenticate(await token({}, { key }));
      assert.equal(identity.user, "corp:alice");
      assert.equal(identity.subject, "alice");
      assert.deepEqual(identity.groups, ["corp:analytics"]);
      assert.deepEqual(identity.chain, []);
      assert.equal(identity.expiresAtMillis, (Math.floor(clockMillis / 1000) + 330) * 1000);
    }
  });

  it("may be of type JWT or at+jwt, or say none", async () => {
    const authenticator = make();
    for (const typ of ["JWT", "jwt", "at+jwt", "application/at+jwt", undefined]) {
      await authenticator.authenticate(await token({}, { header: typ === undefined ? {} : { typ } }));
    }
  });

  it("without a key id is tried with every fitting key", async () => {
    issuer.published = [other.jwk, rsa.jwk];
    const identity = await make().authenticate(await token({}, { header: { kid: undefined } }));
    assert.equal(identity.user, "corp:alice");
  });

  it("ignores key addresses and keys in its header", async () => {
    const authenticator = make();
    const forged = await token(
      {},
      { key: other, header: { kid: "r1", jwk: other.jwk, jku: "http://127.0.0.1:1/", x5u: "http://127.0.0.1:1/" } },
    );
    await assert.rejects(authenticator.authenticate(forged), refused(INVALID, /signature/));
  });
});

describe("groups and users", () => {
  it("no claim, null: no groups; a string: one group; anything else is refused", async () => {
    const authenticator = make();
    assert.deepEqual((await authenticator.authenticate(await token({}, { omit: ["groups"] }))).groups, []);
    assert.deepEqual((await authenticator.authenticate(await token({ groups: null }))).groups, []);
    assert.deepEqual((await authenticator.authenticate(await token({ groups: "ops" }))).groups, ["corp:ops"]);
    for (const groups of [{ ops: true }, [1], [["ops"]], 7, ["o\u001bps"], [""]]) {
      await assert.rejects(authenticator.authenticate(await token({ groups })), refused(INVALID, /groups/), JSON.stringify(groups));
    }
  });

  it("takes an e-mail address only when it is verified", async () => {
    const authenticator = make({ userClaim: "email" });
    assert.equal(
      (await authenticator.authenticate(await token({ email: "a@example.com", email_verified: true }))).user,
      "corp:a@example.com",
    );
    for (const claims of [{ email: "a@example.com" }, { email: "a@example.com", email_verified: "true" }, { email_verified: true }]) {
      await assert.rejects(authenticator.authenticate(await token(claims)), refused(INVALID, /email|e-mail/));
    }
  });

  it("reads a delegation chain, outermost first, to a bounded depth", async () => {
    const authenticator = make();
    const identity = await authenticator.authenticate(
      await token({ act: { sub: "agent", act: { sub: "portal", iss: "https://elsewhere" } } }),
    );
    assert.deepEqual(identity.chain, ["corp:agent", "https://elsewhere:portal"]);
    let act: Record<string, unknown> = { sub: "x" };
    for (let depth = 0; depth < 8; depth++) act = { sub: "x", act };
    // Named like an issuer here, the actor of a stranger would look like one of that issuer's users.
    for (const bad of [act, "agent", { iss: "x" }, { sub: "a", act: [] }, { iss: "corp", sub: "alice" }]) {
      await assert.rejects(authenticator.authenticate(await token({ act: bad })), refused(INVALID, /act|delegation/));
    }
  });
});

describe("a bad token", () => {
  const seconds = () => Math.floor(clockMillis / 1000);
  const cases: readonly (readonly [string, () => Promise<string> | string, string, RegExp])[] = [
    ["not a token", () => "hunter2", INVALID, /not a signed/],
    ["too long", () => "a".repeat(70_000), INVALID, /longer than/],
    ["alg none", () => new UnsecuredJWT({ iss: issuer.url, aud: "sluice", sub: "a" }).encode(), INVALID, /algorithm/],
    [
      "HS256 over the RSA public key",
      () => {
        const secret = new TextEncoder().encode(rsa.pem);
        return new SignJWT({ iss: issuer.url, aud: "sluice", sub: "a", exp: seconds() + 60 })
          .setProtectedHeader({ alg: "HS256", kid: "r1" })
          .sign(secret);
      },
      INVALID,
      /algorithm/,
    ],
    ["another issuer", () => token({ iss: "https://evil.example" }), INVALID, /not configured/],
    ["the issuer with a slash more", () => token({ iss: `${issuer.url}/` }), INVALID, /not configured/],
    ["no issuer", () => token({}, { omit: ["iss"] }), INVALID, /not configured/],
    ["another audience", () => token({ aud: "billing" }), INVALID, /audience/],
    ["no audience", () => token({}, { omit: ["aud"] }), INVALID, /audience/],
    ["several audiences, no azp", () => token({ aud: ["sluice", "billing"] }), INVALID, /azp/],
    ["several audiences, azp of another", () => token({ aud: ["sluice", "billing"], azp: "billing" }), INVALID, /azp/],
    ["type logout+jwt", () => token({}, { header: { typ: "logout+jwt" } }), INVALID, /typ/],
    ["type not a string", () => token({}, { header: { typ: 7 } }), INVALID, /typ/],
    ["a logout event", () => token({ events: { "http://schemas.openid.net/event/backchannel-logout": {} } }), INVALID, /event/],
    ["bound to a key", () => token({ cnf: { jkt: "x" } }), INVALID, /cnf/],
    ["expired", () => token({ exp: seconds() - 31 }), "SLUICE_CREDENTIAL_EXPIRED", /expired/],
    ["no exp", () => token({}, { omit: ["exp"] }), INVALID, /exp/],
    ["not yet valid", () => token({ nbf: seconds() + 40 }), INVALID, /nbf/],
    ["made in the future", () => token({ iat: seconds() + 40 }), INVALID, /iat/],
    ["no sub", () => token({}, { omit: ["sub"] }), INVALID, /sub/],
    ["another's signature", () => token({}, { key: other, header: { kid: "r1" } }), INVALID, /signature/],
    [
      "changed",
      async () => {
        const [head, , tail] = (await token()).split(".");
        const claims = { iss: issuer.url, aud: "sluice", sub: "root", exp: seconds() + 60 };
        return `${head}.${Buffer.from(JSON.stringify(claims)).toString("base64url")}.${tail}`;
      },
      INVALID,
      /signature/,
    ],
    [
      "crit",
      async () => {
        const [, claims, tail] = (await token()).split(".");
        return `${Buffer.from(JSON.stringify({ alg: "RS256", kid: "r1", crit: ["exp"], exp: 1 })).toString("base64url")}.${claims}.${tail}`;
      },
      INVALID,
      /crit/,
    ],
  ];
  for (const [name, build, code, text] of cases) {
    it(name, async () => {
      const credential = await build();
      await assert.rejects(make().authenticate(credential), (thrown) => {
        refused(code, text)(thrown);
        const shown = `${(thrown as Error).stack} ${JSON.stringify(thrown)} ${String((thrown as Error).cause)}`;
        assert.ok(!shown.includes(credential) && !shown.includes("alice"), "the error shows the token");
        return true;
      });
    });
  }

  it("within the skew of 30 seconds passes", async () => {
    await make().authenticate(await token({ exp: seconds() - 20, nbf: seconds() + 20, iat: seconds() + 20 }));
  });

  it("skew is never more than 60 seconds", async () => {
    await assert.rejects(
      make({ clockSkewSeconds: 3600 }).authenticate(await token({ exp: seconds() - 61 })),
      refused("SLUICE_CREDENTIAL_EXPIRED"),
    );
  });

  it("several audiences with an accepted azp pass", async () => {
    await make().authenticate(await token({ aud: ["sluice", "billing"], azp: "sluice" }));
  });
});

describe("the issuer's keys", () => {
  it("a storm of unknown key ids causes one refresh in ten seconds", async () => {
    const authenticator = make();
    await authenticator.authenticate(await token());
    assert.equal(issuer.fetches, 2);
    clockMillis += ISSUER_LIMITS.cooldownMillis + 1;
    const storm = await Promise.all(Array.from({ length: 50 }, (_, index) => token({}, { header: { kid: `x${index}` } })));
    const results = await Promise.allSettled(storm.map((credential) => authenticator.authenticate(credential)));
    assert.ok(results.every((result) => result.status === "rejected"));
    assert.equal(issuer.fetches, 4);
  });

  it("a rotated key is taken after the cooldown, and the old one no longer", async () => {
    const authenticator = make();
    const old = await token();
    await authenticator.authenticate(old);
    issuer.published = [other.jwk];
    await assert.rejects(authenticator.authenticate(await token({}, { key: other })), refused(INVALID, /does not publish/));
    clockMillis += ISSUER_LIMITS.cooldownMillis + 1;
    await authenticator.authenticate(await token({}, { key: other }));
    await assert.rejects(authenticator.authenticate(old), refused(INVALID), "a remembered token outlived its key");
  });

  it("rotation is also seen by tokens without a key id", async () => {
    const authenticator = make();
    const header = { kid: undefined };
    await authenticator.authenticate(await token({}, { header }));
    issuer.published = [other.jwk];
    clockMillis += ISSUER_LIMITS.cooldownMillis + 1;
    await authenticator.authenticate(await token({}, { key: other, header }));
  });

  it("an outage: cached keys for an hour, then closed; afterwards open again", async () => {
    const authenticator = make();
    await authenticator.authenticate(await token());
    issuer.status = 503;
    clockMillis += ISSUER_LIMITS.staleMillis - 1000;
    await authenticator.authenticate(await token());
    clockMillis += 2000;
    await assert.rejects(authenticator.authenticate(await token()), refused("SLUICE_ISSUER_UNAVAILABLE", /503/));
    issuer.status = 200;
    clockMillis += ISSUER_LIMITS.cooldownMillis + 1;
    await authenticator.authenticate(await token());
  });

  const broken: readonly (readonly [string, () => void, RegExp])[] = [
    [
      "a discovery document of another issuer",
      () => {
        issuer.discovery.issuer = "https://evil.example";
      },
      /another issuer/,
    ],
    [
      "a redirect",
      () => {
        issuer.status = 302;
      },
      /302/,
    ],
    [
      "no jwks_uri",
      () => {
        delete issuer.discovery.jwks_uri;
      },
      /jwks_uri/,
    ],
    [
      "a plain http jwks_uri elsewhere",
      () => {
        issuer.discovery.jwks_uri = "http://idp.example/keys";
      },
      /https/,
    ],
    [
      "a document over the limit",
      () => {
        issuer.discovery.padding = "x".repeat(ISSUER_LIMITS.documentBytes);
      },
      /larger/,
    ],
    [
      "symmetric keys only",
      () => {
        issuer.published = [{ kty: "oct", kid: "r1", k: "AAAA" }];
      },
      /does not publish/,
    ],
  ];
  for (const [name, arrange, text] of broken) {
    it(`${name} is refused`, async () => {
      arrange();
      await assert.rejects(
        make().authenticate(await token()),
        refused(name.startsWith("symmetric") ? INVALID : "SLUICE_ISSUER_UNAVAILABLE", text),
      );
    });
  }

  it("nobody listening is an unavailable issuer", async () => {
    const gone = createServer();
    await new Promise<void>((resolve) => gone.listen(0, "127.0.0.1", resolve));
    const url = `http://127.0.0.1:${(gone.address() as AddressInfo).port}`;
    await new Promise((resolve) => gone.close(resolve));
    await assert.rejects(
      make({ issuer: url }).authenticate(await token({ iss: url })),
      refused("SLUICE_ISSUER_UNAVAILABLE", /ECONNREFUSED/),
    );
  });
});

describe("remembered tokens", () => {
  it("are the same identity for a minute, end with exp, and are forgotten on reload", async () => {
    const authenticator = make();
    const credential = await token({ exp: Math.floor(clockMillis / 1000) + 10 });
    const first = await authenticator.authenticate(credential);
    assert.equal(await authenticator.authenticate(credential), first);
    authenticator.reconfigure([config({ groupsClaim: "roles" })]);
    assert.deepEqual((await authenticator.authenticate(credential)).groups, []);
    clockMillis += 41_000;
    await assert.rejects(authenticator.authenticate(credential), refused("SLUICE_CREDENTIAL_EXPIRED"));
  });

  it("of a removed issuer are refused", async () => {
    const authenticator = make();
    const credential = await token();
    await authenticator.authenticate(credential);
    authenticator.reconfigure([]);
    await assert.rejects(authenticator.authenticate(credential), refused(INVALID, /not configured/));
  });
});

describe("configuration", () => {
  it("refuses algorithms without a public key, and plain http elsewhere", () => {
    assert.throws(() => make({ algorithms: ["HS256"] }), refused("SLUICE_CONFIG_INVALID", /HS256/));
    assert.throws(() => make({ algorithms: ["none"] }), refused("SLUICE_CONFIG_INVALID", /none/));
    assert.throws(() => make({ issuer: "http://idp.example" }), refused("SLUICE_CONFIG_INVALID", /https/));
  });
});
