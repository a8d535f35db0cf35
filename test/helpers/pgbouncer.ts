import { chmodSync, chownSync, closeSync, copyFileSync, openSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import type { ServerCertificate } from "./certificates.ts";
import type { PostgresServer } from "./postgres.ts";
import { accepts, freePort, removeFolder, spawnTied, stopProcess, temporaryFolder, unprivileged, waitFor } from "./processes.ts";

export interface PgBouncerOptions {
  readonly upstream: PostgresServer;
  /** Default `postgres`. */
  readonly database?: string;
  /** Default session. */
  readonly poolMode?: "session" | "transaction";
  /** TLS towards clients, required. */
  readonly tls?: ServerCertificate;
  /** Default 200. */
  readonly poolSize?: number;
  /** Startup parameters that are left out on the way, besides extra_float_digits and options. */
  readonly ignoreParameters?: readonly string[];
  /** Put in front of the command, as `["taskset", "-c", "0"]`. */
  readonly wrap?: readonly string[];
}

export interface PgBouncer {
  readonly host: string;
  readonly port: number;
  readonly pid: number;
  readonly user: string;
  readonly password: string;
  readonly database: string;
  readLog(): string;
  stop(): Promise<void>;
}

/** Debian's PgBouncer in front of a server, for comparison: SCRAM on both sides, as the gateway has a credential on both sides. */
export async function startPgBouncer(options: PgBouncerOptions): Promise<PgBouncer> {
  const account = unprivileged();
  const folder = temporaryFolder("pgbouncer", account);
  const { upstream, database = "postgres" } = options;
  const port = await freePort();
  const own = (name: string, text: string) => {
    const file = join(folder, name);
    writeFileSync(file, text, { mode: 0o600 });
    if (account !== undefined) chownSync(file, account.uid, account.gid);
    return file;
  };
  const tls: string[] = [];
  if (options.tls !== undefined) {
    for (const [from, name] of [
      [options.tls.certFile, "server.crt"],
      [options.tls.keyFile, "server.key"],
    ] as const) {
      copyFileSync(from, join(folder, name));
      chmodSync(join(folder, name), 0o600);
      if (account !== undefined) chownSync(join(folder, name), account.uid, account.gid);
    }
    tls.push(
      "client_tls_sslmode = require",
      `client_tls_cert_file = ${join(folder, "server.crt")}`,
      `client_tls_key_file = ${join(folder, "server.key")}`,
    );
  }
  const users = own("users.txt", `"${upstream.superuser}" "${upstream.password}"\n`);
  const settings = [
    "[databases]",
    `${database} = host=${upstream.host} port=${upstream.port} dbname=${database}`,
    "[pgbouncer]",
    "listen_addr = 127.0.0.1",
    `listen_port = ${port}`,
    "unix_socket_dir =",
    `pool_mode = ${options.poolMode ?? "session"}`,
    "auth_type = scram-sha-256",
    `auth_file = ${users}`,
    "max_client_conn = 2000",
    `default_pool_size = ${options.poolSize ?? 200}`,
    `ignore_startup_parameters = ${["extra_float_digits", "options", ...(options.ignoreParameters ?? [])].join()}`,
    "log_connections = 0",
    "log_disconnections = 0",
    ...tls,
  ];
  const configFile = own("pgbouncer.ini", `${settings.join("\n")}\n`);
  const logFile = join(folder, "server.log");
  const log = openSync(logFile, "a");
  const [command = "", ...prefix] = [...(options.wrap ?? []), "/usr/sbin/pgbouncer"];
  const child = spawnTied(command, [...prefix, "-q", configFile], { account, cwd: folder, stdio: ["ignore", log, log] });
  closeSync(log);
  child.on("error", () => undefined); // waitFor below tells it
  try {
    await waitFor("PgBouncer listens", () => child.exitCode === null && accepts(port), 10_000);
  } catch (error) {
    await stopProcess(child, "SIGKILL");
    const text = readFileSync(logFile, "utf8");
    removeFolder(folder);
    throw new Error(`PgBouncer did not start: ${text.slice(-2_000)}`, { cause: error });
  }
  child.unref();
  return {
    host: "127.0.0.1",
    port,
    pid: child.pid ?? 0,
    user: upstream.superuser,
    password: upstream.password,
    database,
    readLog: () => readFileSync(logFile, "utf8"),
    stop: async () => {
      await stopProcess(child, "SIGTERM");
      removeFolder(folder);
    },
  };
}
