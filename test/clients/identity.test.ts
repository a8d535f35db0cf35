import assert from "node:assert/strict";
import { after, before, describe, test } from "node:test";
import { setTimeout as sleep } from "node:timers/promises";
import { query } from "../../protocols/postgres/messages.ts";
import { psql } from "../helpers/clients.ts";
import { type Gateway, postgresTarget, startGateway } from "../helpers/gateway.ts";
import { freePort, waitFor } from "../helpers/processes.ts";
import { errors, type RawClient, rawConnect, rows, types } from "./raw.ts";
import { ALLOW_ALL, startWorld, type World } from "./world.ts";

// Who may open a session, and until when.

const POLICY = `version: 1
rules:
  - { name: staff, who: { groups: [staff] }, effect: allow }
  - { name: only-alice, who: { users: [alice] }, on: { targets: [pg15] }, effect: allow }
`;

let world: World;
let cutting: Gateway;
let finishing: Gateway;
before(async () => {
  const dead = await freePort();
  world = await startWorld({
    policy: POLICY,
    targets: (servers) => [
      postgresTarget("dead", servers[0] as (typeof servers)[number], { address: `127.0.0.1:${dead}` }),
      postgresTarget("wrong-password", servers[0] as (typeof servers)[number], { password: "not the password" }),
      postgresTarget("no-database", servers[0] as (typeof servers)[number], { database: "nowhere" }),
    ],
  });
  const corp = { name: "corp", type: "oidc", issuer: world.issuer.issuer, audience: "sluice", groups: "groups", userClaim: "sub" };
  // Without leeway, so that a session ends when its token says.
  const strict = (onExpiry: string) =>
    startGateway({
      issuer: world.issuer,
      targets: [postgresTarget("pg18", world.server(18))],
      policy: ALLOW_ALL,
      config: { identity: { onExpiry, issuers: [{ ...corp, clockSkewSeconds: 0 }] } },
    });
  cutting = await strict("cut");
  finishing = await strict("finish");
});
after(async () => {
  await cutting.stop();
  await finishing.stop();
  await world.stop();
});

const open = (password: string, options: { database?: string; port?: number; user?: string } = {}): Promise<RawClient> =>
  rawConnect({ port: world.gateway.port, database: "pg18", password, ...options });

async function refusedWith(password: string, options: Parameters<typeof open>[1], sqlState: string, message: RegExp): Promise<void> {
  const client = await open(password, options);
  const error = errors(client.startup).at(-1);
  assert.equal(error?.S, "FATAL", types(client.startup));
  assert.equal(error?.C, sqlState, error?.M);
  assert.match(error?.M ?? "", message);
  assert.ok(client.ended || (await client.closed()).length === 0);
  const text = JSON.stringify(error);
  assert.ok(password === "" || !text.includes(password), "the credential is not repeated");
  assert.ok(!text.includes("sluice-test"), "the target's password is not told");
}

describe("the credential", () => {
  const staff = { groups: ["staff"] };
  test("good: whatever the startup user says, the token says who it is", { timeout: 30_000 }, async () => {
    const client = await open(await world.issuer.token({ ...staff, sub: "bob" }), { user: "postgres" });
    assert.deepEqual(rows(await client.query("select current_user")), [["postgres"]]);
    const listed = await world.gateway.cli(["sessions", "list", "-o", "json"]);
    assert.match(listed.stdout, /"bob"/);
    client.close();
  });
  test("no token at all", { timeout: 30_000 }, () => refusedWith("nonsense", {}, "28P01", /^Sluice: /));
  test("empty", { timeout: 30_000 }, () => refusedWith("", {}, "28000", /the password is empty/));
  test("signed by somebody else", { timeout: 30_000 }, async () =>
    refusedWith(await world.issuer.forgedToken(staff), {}, "28P01", /^Sluice: /),
  );
  test("altered", { timeout: 30_000 }, async () => {
    const [head, , signature] = (await world.issuer.token(staff)).split(".");
    const [, body] = (await world.issuer.token({ groups: ["staff"], sub: "root" })).split(".");
    await refusedWith(`${head}.${body}.${signature}`, {}, "28P01", /^Sluice: /);
  });
  test("without a signature", { timeout: 30_000 }, async () => {
    const [, body] = (await world.issuer.token(staff)).split(".");
    const head = Buffer.from('{"alg":"none","typ":"JWT"}').toString("base64url");
    await refusedWith(`${head}.${body}.`, {}, "28P01", /^Sluice: /);
  });
  test("expired", { timeout: 30_000 }, async () =>
    refusedWith(await world.issuer.token({ ...staff, expiresInSeconds: -120 }), {}, "28000", /expired/),
  );
  test("for another audience", { timeout: 30_000 }, async () =>
    refusedWith(await world.issuer.token({ ...staff, audience: "another" }), {}, "28P01", /audience/),
  );
  test("not yet valid", { timeout: 30_000 }, async () =>
    refusedWith(await world.issuer.token({ ...staff, claims: { nbf: Math.floor(Date.now() / 1_000) + 600 } }), {}, "28P01", /^Sluice: /),
  );
  test("of another issuer", { timeout: 30_000 }, async () =>
    refusedWith(await world.issuer.token({ ...staff, claims: { iss: "http://127.0.0.1:9" } }), {}, "28P01", /issuer/),
  );
  test("without a subject", { timeout: 30_000 }, async () =>
    refusedWith(await world.issuer.token({ ...staff, claims: { sub: undefined } }), {}, "28P01", /^Sluice: /),
  );
  test("too long for a password message", { timeout: 30_000 }, async () => {
    const client = await open("x".repeat(70_000));
    assert.equal(errors(client.startup).at(-1)?.S, "FATAL");
  });
});

describe("the target", () => {
  const good = () => world.issuer.token({ groups: ["staff"] });
  test("unknown", { timeout: 30_000 }, async () =>
    refusedWith(await good(), { database: "nothing-such" }, "3D000", /target "nothing-such" is not configured/),
  );
  test("not for this user", { timeout: 30_000 }, async () => {
    const token = await world.issuer.token({ sub: "carol", groups: [] });
    await refusedWith(token, { database: "pg18" }, "42501", /pg18/);
    await refusedWith(token, { database: "pg15" }, "42501", /pg15/);
    const alice = await open(await world.issuer.token({ sub: "alice", groups: [] }), { database: "pg15" });
    assert.deepEqual(rows(await alice.query("select 1")), [["1"]]);
    alice.close();
  });
  test("a bad credential learns nothing about targets", { timeout: 30_000 }, () =>
    refusedWith("nonsense", { database: "nothing-such" }, "28P01", /^Sluice: (?!.*nothing-such)/),
  );
  test("dead", { timeout: 30_000 }, async () => refusedWith(await good(), { database: "dead" }, "08001", /dead/));
  test("whose password is wrong, or whose database is missing", { timeout: 30_000 }, async () => {
    await refusedWith(await good(), { database: "wrong-password" }, "08004", /wrong-password/);
    await refusedWith(await good(), { database: "no-database" }, "08004", /no-database/);
  });
  test("that ends in the middle of a session", { timeout: 30_000 }, async () => {
    const client = await open(await good());
    client.send(query("select pg_terminate_backend(pg_backend_pid())"));
    const frames = await client.closed();
    assert.equal(errors(frames).at(-1)?.C, "57P01");
    assert.equal((await psql({ port: world.gateway.port, database: "pg18", password: await good() }, "select 'again'")).stdout, "again\n");
  });
});

describe("a token that expires during the session", () => {
  const shortLived = (seconds: number) => world.issuer.token({ groups: ["staff"], expiresInSeconds: seconds });

  test("cut: idle and busy sessions end at once, the statement is cancelled", { timeout: 30_000 }, async () => {
    const token = await shortLived(3);
    const at = { port: cutting.port };
    const idle = await open(token, at);
    const busy = await open(token, at);
    busy.send(query("select pg_sleep(20) /* cut at expiry */"));
    for (const client of [idle, busy]) {
      const error = errors(await client.closed()).at(-1);
      assert.equal(error?.C, "28000");
      assert.match(error?.M ?? "", /your credential has expired/);
    }
    await waitFor(
      "the statement to end upstream",
      async () =>
        (
          await world
            .server(18)
            .query(
              "select 1 from pg_stat_activity where state = 'active' and query like '%/* cut at expiry */' and pid <> pg_backend_pid()",
            )
        ).length === 0,
    );
  });

  test("finish: what runs may end, nothing more may start", { timeout: 30_000 }, async () => {
    const token = await shortLived(3);
    const at = { port: finishing.port };
    const idle = await open(token, at);
    const busy = await open(token, at);
    const next = await open(token, at);
    busy.send(query("select pg_sleep(5), 'finished'"));
    next.send(query("select pg_sleep(5)"));
    await sleep(3_500);
    next.send(query("select 'must not run'"));
    assert.match(errors(await idle.closed()).at(-1)?.M ?? "", /expired/);
    const frames = await busy.closed();
    assert.equal(rows(frames)[0]?.[1], "finished");
    assert.match(errors(frames).at(-1)?.M ?? "", /expired/);
    assert.doesNotMatch(JSON.stringify(rows(await next.closed())), /must not run/);
  });
});
