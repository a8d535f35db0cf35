import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { existsSync } from "node:fs";
import { test } from "node:test";
import { createAuthority } from "./helpers/certificates.ts";
import { psql } from "./helpers/clients.ts";
import { startPgBouncer } from "./helpers/pgbouncer.ts";
import { startPostgres } from "./helpers/postgres.ts";
import { isAlive, nodeBinary, removeFolder, rootFolder, temporaryFolder, waitFor } from "./helpers/processes.ts";

test("a server ends with the process that started it, even when that is killed", async () => {
  const script = `
    import { startPostgres } from ${JSON.stringify(`${rootFolder}/test/helpers/postgres.ts`)};
    const server = await startPostgres();
    console.log(JSON.stringify({ pid: server.pid, folder: server.folder }));
    setInterval(() => undefined, 1_000);`;
  const child = spawn(nodeBinary, ["--input-type=module", "-e", script], { stdio: ["ignore", "pipe", "inherit"] });
  const line = await new Promise<string>((resolve) => {
    child.stdout.once("data", (chunk: Buffer) => resolve(chunk.toString()));
  });
  const { pid, folder } = JSON.parse(line) as { pid: number; folder: string };
  assert.ok(isAlive(pid));
  child.kill("SIGKILL");
  await waitFor("PostgreSQL is gone", () => !isAlive(pid), 10_000);
  removeFolder(folder);
});

for (const version of [18, 15] as const) {
  test(`PostgreSQL ${version} over TLS, and PgBouncer in front of it`, async (context) => {
    const folder = temporaryFolder("tls");
    context.after(() => removeFolder(folder));
    const authority = await createAuthority(folder);
    const certificate = await authority.issue("server");
    const server = await startPostgres({ version, logStatements: true, tls: { ...certificate, required: true } });
    const bouncer = await startPgBouncer({ upstream: await startedWithoutTls(context), tls: certificate });
    context.after(() => bouncer.stop());
    const secure = { sslmode: "verify-full", sslrootcert: authority.caFile } as const;
    const direct = { port: server.port, database: "postgres", user: server.superuser, password: server.password };

    const answer = await psql(
      { ...direct, ...secure },
      "select ssl, current_setting('server_version_num')::int / 10000 from pg_stat_ssl where pid = pg_backend_pid()",
    );
    assert.equal(answer.stdout, `t|${version}\n`, answer.stderr);
    assert.notEqual((await psql(direct, "select 1")).code, 0, "a client without TLS gets in");
    assert.notEqual((await psql({ ...direct, ...secure, password: "wrong" }, "select 1")).code, 0, "a wrong password gets in");
    assert.match(server.readLog(), /pg_stat_ssl/);

    const pooled = { port: bouncer.port, database: bouncer.database, user: bouncer.user, password: bouncer.password };
    assert.equal((await psql({ ...pooled, ...secure }, "select 1")).stdout, "1\n");
    assert.notEqual((await psql({ ...pooled, ...secure, password: "wrong" }, "select 1")).code, 0);
    await server.stop();
    assert.ok(!isAlive(server.pid) && !existsSync(server.folder), "stop() leaves something behind");
  });
}

async function startedWithoutTls(context: { after: (end: () => Promise<void>) => void }) {
  const server = await startPostgres();
  context.after(() => server.stop());
  return server;
}
