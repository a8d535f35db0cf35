import assert from "node:assert/strict";
import { once } from "node:events";
import { after, before, describe, test } from "node:test";
import { setTimeout as sleep } from "node:timers/promises";
import { connect as connectTls } from "node:tls";
import { GSSENC_REQUEST, PROTOCOL_3_0, PROTOCOL_3_2, query } from "../../protocols/postgres/messages.ts";
import { createAuthority } from "../helpers/certificates.ts";
import { type Destination, psql } from "../helpers/clients.ts";
import { type Gateway, postgresTarget, startGateway, type TargetEntry } from "../helpers/gateway.ts";
import { startTestIssuer, type TestIssuer } from "../helpers/issuer.ts";
import { type PostgresAuth, type PostgresServer, startPostgres } from "../helpers/postgres.ts";
import { removeFolder, temporaryFolder, waitFor } from "../helpers/processes.ts";
import { answerByte, errors, type Frame, openSocket, type RawClient, rawCancel, rawConnect, rows, tags, types } from "./raw.ts";
import { ALLOW_ALL, VERSIONS } from "./world.ts";

// Every way in and every way out: TLS or not on both legs, each authentication method, sockets, protocol versions, cancel keys.

const AUTHS = ["scram-sha-256", "md5", "password", "trust"] as const satisfies readonly PostgresAuth[];
const folder = temporaryFolder("legs");
const servers: PostgresServer[] = [];
let issuer: TestIssuer;
let gateway: Gateway;
let ca = "";
let caFile = "";

before(async () => {
  const authority = await createAuthority(folder);
  ({ ca, caFile } = authority);
  const strangers = await createAuthority(temporaryFolder("legs-other"), "Somebody else's CA");
  const certificate = await authority.issue("server");
  const elsewhere = await authority.issue("elsewhere", { hosts: ["db.example.com"] });
  issuer = await startTestIssuer();
  const targets: TargetEntry[] = [];
  const start = async (version: 18 | 15, auth: PostgresAuth) => {
    const server = await startPostgres({ version, auth, tls: version === 18 && auth === "md5" ? elsewhere : certificate });
    servers.push(server);
    const name = `pg${version}-${auth}`;
    targets.push(postgresTarget(name, server));
    targets.push(postgresTarget(`${name}-socket`, server, { address: server.socketPath }));
    targets.push(postgresTarget(`${name}-require`, server, { tls: { mode: "require" } }));
    targets.push(postgresTarget(`${name}-full`, server, { tls: { mode: "verify-full", ca: caFile } }));
    if (auth === "scram-sha-256") {
      targets.push(postgresTarget(`${name}-stranger`, server, { tls: { mode: "verify-full", ca: strangers.caFile } }));
      targets.push(postgresTarget(`${name}-name`, server, { tls: { mode: "verify-full", ca: caFile, serverName: "db.example.com" } }));
    }
    if (auth === "md5")
      targets.push(postgresTarget(`${name}-name`, server, { tls: { mode: "verify-full", ca: caFile, serverName: "db.example.com" } }));
  };
  await Promise.all(VERSIONS.flatMap((version) => AUTHS.map((auth) => start(version, auth))));
  gateway = await startGateway({ issuer, targets, policy: ALLOW_ALL, tls: certificate });
});

after(async () => {
  await gateway.stop();
  await Promise.all([...servers.map((server) => server.stop()), issuer.stop()]);
  removeFolder(folder);
});

const to = async (target: string, changes: Partial<Destination> = {}): Promise<Destination> => ({
  port: gateway.port,
  database: target,
  password: await issuer.token(),
  ...changes,
});
const raw = async (target: string, options: Partial<Parameters<typeof rawConnect>[0]> = {}): Promise<RawClient> =>
  rawConnect({ port: gateway.port, database: target, password: await issuer.token(), ...options });

const HOW =
  "select coalesce(s.ssl, false), inet_client_addr() is null from (select 1) one left join pg_stat_ssl s on s.pid = pg_backend_pid()";

describe("the leg to the target", () => {
  for (const version of VERSIONS) {
    for (const auth of AUTHS) {
      test(`PostgreSQL ${version}, ${auth}: plain, socket, TLS required, TLS verified`, { timeout: 60_000 }, async () => {
        const name = `pg${version}-${auth}`;
        assert.equal((await psql(await to(name), HOW)).stdout, "f|f\n");
        assert.equal((await psql(await to(`${name}-socket`), HOW)).stdout, "f|t\n");
        assert.equal((await psql(await to(`${name}-require`), HOW)).stdout, "t|f\n");
        const verified = await psql(await to(`${name}-full`), HOW);
        if (version === 18 && auth === "md5")
          assert.match(verified.stderr, /TLS handshake failed: IP: 127.0.0.1 is not/, "its certificate is for another name");
        else assert.equal(verified.stdout, "t|f\n");
      });
    }
    test(`PostgreSQL ${version}: a certificate of somebody else, or for another name`, { timeout: 30_000 }, async () => {
      for (const wrong of ["stranger", "name"]) {
        const result = await psql(await to(`pg${version}-scram-sha-256-${wrong}`), HOW);
        assert.equal(result.code, 2);
        assert.match(result.stderr, /Sluice: .*TLS handshake failed/);
        assert.doesNotMatch(result.stderr, /sluice-test/, "the target's password stays out of errors");
      }
    });
  }
  test("serverName is what the certificate is checked against", async () => {
    assert.equal((await psql(await to("pg18-md5-name"), HOW)).stdout, "t|f\n");
  });
});

describe("the leg from the client", () => {
  test("psql: disable, require, verify-full", { timeout: 30_000 }, async () => {
    for (const sslmode of ["disable", "require", "verify-full"] as const) {
      const result = await psql(await to("pg18-trust", { sslmode, host: "localhost", sslrootcert: caFile }), "select 1;\n\\conninfo");
      assert.match(result.stdout, /^1\n/, result.stderr);
      assert.equal(/SSL connection/.test(result.stdout), sslmode !== "disable");
    }
  });

  test("direct TLS with ALPN, and SSLRequest with and without ALPN", { timeout: 30_000 }, async () => {
    for (const options of [{ tls: "direct" }, { tls: "request" }, { tls: "request", alpn: [] }] as const) {
      const client = await raw("pg18-scram-sha-256", { ...options, ca });
      assert.deepEqual(rows(await client.query("select 41 + 1")), [["42"]]);
      client.close();
    }
  });

  test("direct TLS without ALPN, or with another protocol's name, is refused", { timeout: 30_000 }, async () => {
    for (const alpn of [[], ["http/1.1"]]) {
      await assert.rejects(async () => {
        const client = await raw("pg18-trust", { tls: "direct", ca, alpn });
        if (client.startup.at(-1)?.type !== "Z") throw new Error("refused");
      });
    }
  });

  test("GSSENCRequest is answered N, and the same connection goes on", { timeout: 30_000 }, async () => {
    const socket = await openSocket({ port: gateway.port });
    const request = Buffer.alloc(8);
    request.writeInt32BE(8, 0);
    request.writeInt32BE(GSSENC_REQUEST, 4);
    assert.equal(await answerByte(socket, request), "N");
    const ssl = Buffer.alloc(8);
    ssl.writeInt32BE(8, 0);
    ssl.writeInt32BE(80_877_103, 4);
    assert.equal(await answerByte(socket, ssl), "S");
    const secure = connectTls({ socket, ca, servername: "localhost" });
    await once(secure, "secureConnect");
    secure.destroy();
  });

  test("bytes sent together with SSLRequest end the connection", { timeout: 30_000 }, async () => {
    const socket = await openSocket({ port: gateway.port });
    const request = Buffer.alloc(8 + 20);
    request.writeInt32BE(8, 0);
    request.writeInt32BE(80_877_103, 4);
    let received = "";
    socket.on("data", (chunk) => {
      received += chunk.toString("latin1");
    });
    socket.write(request);
    await Promise.race([once(socket, "close"), once(socket, "end")]);
    assert.doesNotMatch(received, /^S/);
    socket.destroy();
  });
});

describe("protocol versions", () => {
  const negotiated = (frame: Frame | undefined) => {
    assert.equal(frame?.type, "v");
    const body = (frame as Frame).body;
    const options = body.toString("utf8", 8).split("\0").slice(0, -1);
    assert.equal(options.length, body.readInt32BE(4));
    return { version: body.readInt32BE(0), options };
  };
  for (const version of VERSIONS) {
    const target = `pg${version}-scram-sha-256`;
    test(`PostgreSQL ${version}: 3.0 and 3.2`, { timeout: 30_000 }, async () => {
      const old = await raw(target, { version: PROTOCOL_3_0 });
      assert.equal(old.key.length, 4);
      assert.ok(!types(old.startup).includes("v"));
      assert.equal(types(await old.query("select 1")), "TDCZ");
      old.close();
      const recent = await raw(target, { version: PROTOCOL_3_2 });
      assert.equal(recent.key.length, 32);
      assert.ok(!types(recent.startup).includes("v"));
      assert.equal(types(await recent.query("select 1")), "TDCZ");
      recent.close();
    });
    test(`PostgreSQL ${version}: grease (3.9999 and unknown options) is negotiated down`, { timeout: 30_000 }, async () => {
      const parameters = { "_pq_.test_protocol_negotiation": "1", "_pq_.other": "x" };
      const client = await raw(target, { version: 0x0003_0000 + 9999, parameters });
      const { version: offered, options } = negotiated(client.startup[0]);
      assert.equal(offered, PROTOCOL_3_2);
      assert.deepEqual(options.toSorted(), Object.keys(parameters).toSorted());
      assert.equal(client.key.length, 32);
      assert.equal(types(await client.query("select 1")), "TDCZ");
      client.close();
      const modest = await raw(target, { version: PROTOCOL_3_0, parameters: { "_pq_.x": "1" } });
      assert.deepEqual(negotiated(modest.startup[0]), { version: PROTOCOL_3_0, options: ["_pq_.x"] });
      modest.close();
    });
  }
  test("version 2, replication, options, odd encodings and unknown parameters are refused", { timeout: 30_000 }, async () => {
    const refused = async (options: Parameters<typeof raw>[1], pattern: RegExp) => {
      const client = await raw("pg18-trust", options);
      const error = errors(client.startup).at(-1);
      assert.equal(error?.S, "FATAL", JSON.stringify(client.startup));
      assert.match(error?.M ?? "", pattern);
      client.destroy();
    };
    await refused({ version: 0x0002_0000 }, /unsupported frontend protocol 2\.0/);
    await refused({ parameters: { replication: "database" } }, /replication/);
    await refused({ parameters: { options: "-c search_path=other" } }, /options/);
    await refused({ parameters: { client_encoding: "SJIS" } }, /client_encoding/);
    await refused({ parameters: { search_path: "a", SEARCH_PATH: "b" } }, /search_path was sent twice/);
    await refused({ parameters: { role: "other" } }, /role/);
    await refused({ parameters: { standard_conforming_strings: "off" } }, /standard_conforming_strings/);
  });
});

describe("the FunctionCall message", () => {
  test("is refused, and the session goes on", { timeout: 30_000 }, async () => {
    const client = await raw("pg18-trust");
    // Function 1610 (pi), no argument, result as text.
    const call = Buffer.from([0x46, 0, 0, 0, 14, 0, 0, 6, 0x4a, 0, 0, 0, 0, 0, 0]);
    const frames = await client.ask([call]);
    assert.equal(types(frames), "EZ");
    assert.equal(errors(frames)[0]?.C, "42501");
    assert.equal(types(await client.query("select 1")), "TDCZ");
    client.close();
  });
});

describe("cancel requests", () => {
  for (const version of VERSIONS) {
    test(`PostgreSQL ${version}: cancels the one that it names`, { timeout: 60_000 }, async () => {
      const cancelled = async (target: string, tls: "request" | "direct" | undefined) => {
        const one = await raw(target, { version: PROTOCOL_3_2 });
        const other = await raw(target);
        one.send(query("select pg_sleep(20)"));
        other.send(query("select pg_sleep(2), 'unharmed'"));
        await sleep(300);
        const before = Date.now();
        await rawCancel({ port: gateway.port, ca, ...(tls === undefined ? {} : { tls }) }, one.processId, one.key);
        const frames = await one.until("Z");
        assert.equal(errors(frames)[0]?.C, "57014", types(frames));
        assert.ok(Date.now() - before < 5_000);
        assert.equal(rows(await other.until("Z"))[0]?.[1], "unharmed");
        assert.equal(types(await one.query("select 1")), "TDCZ");
        one.close();
        other.close();
      };
      const targets = [`pg${version}-scram-sha-256`, `pg${version}-scram-sha-256-require`];
      await Promise.all(targets.flatMap((target) => ([undefined, "request", "direct"] as const).map((tls) => cancelled(target, tls))));
    });
  }

  test("a wrong key, another session's key, the server's own key and an idle session: nothing happens", { timeout: 60_000 }, async () => {
    const one = await raw("pg18-trust", { version: PROTOCOL_3_2 });
    const other = await raw("pg18-trust");
    const backend = Number(rows(await one.query("select pg_backend_pid()"))[0]?.[0]);
    assert.notEqual(backend, one.processId, "clients are not told the server's own process id");
    one.send(query("select pg_sleep(1), 'done'"));
    await sleep(150);
    const almost = Buffer.from(one.key);
    almost[31] = (almost[31] ?? 0) ^ 1;
    const at = { port: gateway.port };
    await rawCancel(at, one.processId, almost);
    await rawCancel(at, one.processId, one.key.subarray(0, 4));
    await rawCancel(at, one.processId, Buffer.alloc(0));
    await rawCancel(at, one.processId, other.key);
    await rawCancel(at, other.processId, one.key);
    await rawCancel(at, backend, one.key);
    await rawCancel(at, other.processId, other.key);
    assert.equal(rows(await one.until("Z"))[0]?.[1], "done");
    assert.deepEqual(tags(await other.query("select pg_sleep(0.2)")), ["SELECT 1"]);
    one.close();
    other.close();
  });

  test("a client that goes away takes its running statement with it", { timeout: 30_000 }, async () => {
    const client = await raw("pg18-trust");
    client.send(query("select pg_sleep(30) /* abandoned */"));
    const server = servers.find((each) => each.version === 18) as PostgresServer;
    const running = async () => {
      const found = await Promise.all(
        servers.map((each) =>
          each.query("select 1 from pg_stat_activity where query like '%/* abandoned */' and state = 'active' and pid <> pg_backend_pid()"),
        ),
      );
      return found.some((each) => each.length > 0);
    };
    assert.ok(server);
    await waitFor("the statement to run", running);
    client.destroy();
    await waitFor("the statement to be cancelled", async () => !(await running()));
  });
});
