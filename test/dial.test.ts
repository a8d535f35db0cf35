import assert from "node:assert/strict";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, describe, test } from "node:test";
import type { TargetConfig } from "../core/config/types.ts";
import { createSocketTransport } from "../core/net/sockets.ts";
import type { Grant } from "../core/verdict.ts";
import { cancel, type DialStartup, dial } from "../protocols/postgres/dial.ts";
import { query, SideConnection } from "../protocols/postgres/query.ts";
import { createAuthority, type TestAuthority } from "./helpers/certificates.ts";
import { type PostgresAuth, type PostgresServer, type PostgresVersion, startPostgres } from "./helpers/postgres.ts";

const transport = createSocketTransport();
const STARTUP: DialStartup = { parameters: new Map(), protocolMinor: 0 };

/** Dialling demands a grant; here nobody decides. */
function grantFor(server: PostgresServer, changes: Partial<TargetConfig> = {}): Grant {
  const target: TargetConfig = {
    name: "t",
    protocol: "postgres",
    address: { host: server.host, port: server.port },
    database: "postgres",
    user: server.superuser,
    password: server.password,
    tls: { mode: "disable", ca: undefined, serverName: undefined },
    labels: {},
    connections: { max: 10 },
    record: { results: "digest", headBytes: 0 },
    ...changes,
  };
  return { target } as unknown as Grant;
}

const one = async (grant: Grant, sql: string, startup = STARTUP): Promise<(string | null)[]> =>
  (await query(await dial(grant, transport, startup), sql)).map((row) => row[0]!);

after(() => transport.close());

for (const version of [18, 15] as const satisfies readonly PostgresVersion[]) {
  for (const auth of ["scram-sha-256", "md5", "password", "trust"] as const satisfies readonly PostgresAuth[]) {
    test(`PostgreSQL ${version}, ${auth}: over TCP and the Unix socket`, { timeout: 60_000 }, async () => {
      const server = await startPostgres({ version, auth });
      try {
        for (const address of [{ host: server.host, port: server.port }, { path: server.socketPath }]) {
          const startup: DialStartup = { applicationName: "psql", parameters: new Map([["TimeZone", "Asia/Tokyo"]]), protocolMinor: 2 };
          const upstream = await dial(grantFor(server, { address }), transport, startup);
          assert.equal(upstream.protocolVersion, version === 18 ? 0x0003_0002 : 0x0003_0000);
          assert.equal(upstream.backendKey.length, version === 18 ? 32 : 4);
          assert.equal(upstream.transactionStatus, "I");
          assert.equal(upstream.parameters.get("client_encoding"), "UTF8");
          assert.equal(upstream.parameters.get("TimeZone"), "Asia/Tokyo");
          assert.equal(upstream.parameters.get("application_name"), "psql");
          const rows = await query(upstream, "select pg_backend_pid(), 'grün', null");
          assert.deepEqual(rows, [[String(upstream.backendPid), "grün", null]]);
          if (auth !== "trust") {
            const wrong = dial(grantFor(server, { address, password: "not-the-password" }), transport, STARTUP);
            await assert.rejects(wrong, (error: Error & { code: string }) => {
              assert.equal(error.code, "SLUICE_TARGET_REFUSED");
              assert.match(error.message, /password authentication failed.*28P01/);
              assert.ok(!error.message.includes("not-the-password"));
              return true;
            });
            const none = dial(grantFor(server, { address, password: undefined }), transport, STARTUP);
            await assert.rejects(none, /configuration has none/);
          }
        }
      } finally {
        await server.stop();
      }
    });
  }
}

describe("one server with TLS", () => {
  let folder = "";
  let authority: TestAuthority;
  let server: PostgresServer;
  before(async () => {
    folder = mkdtempSync(join(tmpdir(), "sluice-dial-"));
    authority = await createAuthority(folder);
    const { certFile, keyFile } = await authority.issue("server", { hosts: ["localhost", "127.0.0.1"], keyType: "rsa" });
    server = await startPostgres({ tls: { certFile, keyFile, required: true }, logStatements: true });
  });
  after(async () => {
    await server?.stop();
    rmSync(folder, { recursive: true, force: true });
  });
  const tls = (changes: Partial<TargetConfig["tls"]>): Partial<TargetConfig> => ({
    tls: { mode: "verify-full", ca: authority.ca, serverName: undefined, ...changes },
  });

  test("verify-full, with channel binding; require; disable is refused by the server", { timeout: 20_000 }, async () => {
    const grant = grantFor(server, tls({}));
    for (let i = 0; i < 2; i++) {
      assert.deepEqual(await one(grant, "select ssl from pg_stat_ssl where pid = pg_backend_pid()"), ["t"]);
    }
    await one(grantFor(server, tls({ mode: "require", ca: undefined })), "select 1");
    await assert.rejects(one(grantFor(server), "select 1"), { code: "SLUICE_TARGET_REFUSED" });
    await assert.rejects(one(grantFor(server, tls({ serverName: "other.example" })), "select 1"), { code: "SLUICE_TARGET_UNREACHABLE" });
    await assert.rejects(one(grantFor(server, tls({ ca: undefined })), "select 1"), { code: "SLUICE_TARGET_UNREACHABLE" });
    assert.match(server.readLog(), /connection authenticated/);
  });

  test("a server without TLS is refused where TLS is demanded", { timeout: 20_000 }, async () => {
    const plain = await startPostgres({ auth: "trust" });
    try {
      await assert.rejects(one(grantFor(plain, tls({})), "select 1"), /does not offer TLS/);
    } finally {
      await plain.stop();
    }
  });

  test("pinned settings win over the role's and the database's own", { timeout: 20_000 }, async () => {
    await server.execute(
      "create role strange login superuser password 'pw'; alter role strange set standard_conforming_strings = off; alter role strange set client_encoding = 'SJIS'",
    );
    const grant = grantFor(server, { ...tls({}), user: "strange", password: "pw" });
    assert.deepEqual(await one(grant, "select current_setting('standard_conforming_strings') || current_setting('client_encoding')"), [
      "onUTF8",
    ]);
  });

  test("startup parameters that are not on the list are refused", { timeout: 20_000 }, async () => {
    for (const name of ["options", "replication", "client_encoding", "user", "_pq_.x", "standard_conforming_strings", "role"]) {
      const startup: DialStartup = { parameters: new Map([[name, "x"]]), protocolMinor: 0 };
      await assert.rejects(dial(grantFor(server, tls({})), transport, startup), { code: "SLUICE_PROTOCOL_VIOLATION" });
    }
  });

  // Whether the client may set it is decided before anybody dials.
  test("search_path goes to the server as it was given", { timeout: 20_000 }, async () => {
    const startup: DialStartup = { parameters: new Map([["search_path", 'other, "Odd one"']]), protocolMinor: 0 };
    const rows = await query(await dial(grantFor(server, tls({})), transport, startup), "show search_path");
    assert.deepEqual(rows, [['other, "Odd one"']]);
  });

  test("cancel ends the running statement, with the short and the long key", { timeout: 20_000 }, async () => {
    for (const protocolMinor of [0, 2] as const) {
      const upstream = await dial(grantFor(server, tls({})), transport, { parameters: new Map(), protocolMinor });
      const side = new SideConnection(upstream, 10_000, 65_536);
      const running = side.query("select pg_sleep(8)");
      const began = Date.now();
      setTimeout(() => void cancel(upstream, transport), 100);
      await assert.rejects(running, /57014/);
      assert.ok(Date.now() - began < 4_000);
      side.close();
    }
  });

  test("an unreachable target, an unknown database", { timeout: 20_000 }, async () => {
    await assert.rejects(one(grantFor(server, { address: { host: "127.0.0.1", port: 1 } }), "select 1"), {
      code: "SLUICE_TARGET_UNREACHABLE",
      message: "target t: cannot connect to 127.0.0.1:1: ECONNREFUSED",
    });
    await assert.rejects(one(grantFor(server, { ...tls({}), database: "nowhere" }), "select 1"), /"nowhere" does not exist.*3D000/);
  });
});
