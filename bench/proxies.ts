import type { ChildProcess } from "node:child_process";
import { chownSync, closeSync, openSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import type { ServerCertificate } from "../test/helpers/certificates.ts";
import {
  accepts,
  freePort,
  nodeBinary,
  removeFolder,
  rootFolder,
  spawnTied,
  stopProcess,
  temporaryFolder,
  unprivileged,
  waitFor,
} from "../test/helpers/processes.ts";

/** Where a proxy forwards to. */
export interface Address {
  readonly host: string;
  readonly port: number;
}

/** A server on a loopback port. */
export interface Listening {
  readonly port: number;
  readonly pid: number;
  stop(): Promise<void>;
}

/**
 * HAProxy in TCP mode, one thread: like the other proxies here it has one loop.
 * @param sessions at once
 */
export async function startHaproxy(to: Address, sessions: number): Promise<Listening> {
  const port = await freePort();
  const config = `global
  nbthread 1
  maxconn ${sessions}
defaults
  mode tcp
  maxconn ${sessions}
  timeout connect 10s
  timeout client 1h
  timeout server 1h
listen bench
  bind 127.0.0.1:${port}
  server target ${to.host}:${to.port}
`;
  return startConfigured("HAProxy", port, "haproxy.cfg", config, (file) => ["/usr/sbin/haproxy", "-q", "-db", "-f", file]);
}

/**
 * PgBouncer for idle sessions: as many as asked for, and clients may give the password in clear text, as the sessions' client does.
 * No session remembers how it logged in.
 */
export async function startIdleBouncer(
  to: Address & { readonly superuser: string; readonly password: string },
  database: string,
  sessions: number,
  tls: ServerCertificate | undefined,
): Promise<Listening> {
  const port = await freePort();
  const files = {
    "users.txt": `"${to.superuser}" "${to.password}"\n`,
    ...(tls && { "server.crt": readFileSync(tls.certFile, "utf8"), "server.key": readFileSync(tls.keyFile, "utf8") }),
  };
  const config = (folder: string): string => `[databases]
${database} = host=${to.host} port=${to.port} dbname=${database}
[pgbouncer]
listen_addr = 127.0.0.1
listen_port = ${port}
unix_socket_dir =
pool_mode = session
auth_type = plain
auth_file = ${join(folder, "users.txt")}
max_client_conn = ${sessions}
default_pool_size = ${sessions}
log_connections = 0
log_disconnections = 0
${tls === undefined ? "" : tlsSettings(folder)}`;
  return startConfigured("PgBouncer", port, "pgbouncer.ini", config, (file) => ["/usr/sbin/pgbouncer", "-q", file], files);
}

const tlsSettings = (folder: string): string => `client_tls_sslmode = require
client_tls_cert_file = ${join(folder, "server.crt")}
client_tls_key_file = ${join(folder, "server.key")}
`;

async function startConfigured(
  what: string,
  port: number,
  name: string,
  config: string | ((folder: string) => string),
  command: (file: string) => readonly [string, ...string[]],
  others: Readonly<Record<string, string>> = {},
): Promise<Listening> {
  const account = unprivileged();
  const folder = temporaryFolder("proxy", account);
  const files = { ...others, [name]: typeof config === "string" ? config : config(folder) };
  for (const [file, text] of Object.entries(files)) {
    writeFileSync(join(folder, file), text, { mode: 0o600 });
    if (account !== undefined) chownSync(join(folder, file), account.uid, account.gid);
  }
  const logFile = join(folder, "server.log");
  const log = openSync(logFile, "a");
  const [program, ...args] = command(join(folder, name));
  const child = spawnTied(program, args, { account, cwd: folder, stdio: ["ignore", log, log] });
  closeSync(log);
  child.on("error", () => undefined); // waitFor below tells it
  try {
    await waitFor(
      `${what} listens`,
      () => {
        if (child.exitCode !== null) throw new Error(`it ended with ${child.exitCode}`);
        return accepts(port);
      },
      10_000,
    );
  } catch (error) {
    await stopProcess(child, "SIGKILL");
    const text = readFileSync(logFile, "utf8");
    removeFolder(folder);
    const why = error instanceof Error ? error.message : String(error);
    throw new Error(`${what} did not start: ${why} ${text.slice(-2_000)}`, { cause: error });
  }
  return listening(child, port, () => removeFolder(folder));
}

/** The gateway's transport alone, see relay.ts. */
export const startRelay = (to: Address): Promise<Listening> => startScript("relay.ts", [String(to.port)]);

/** A TypeScript file of this folder as a process of its own; it prints its port as soon as it listens. */
export async function startScript(name: string, args: readonly string[], env: Readonly<Record<string, string>> = {}): Promise<Listening> {
  const child = spawnTied(nodeBinary, [join(rootFolder, "bench", name), ...args], {
    stdio: ["ignore", "pipe", "inherit"],
    env: { ...process.env, ...env },
  });
  let printed = "";
  child.stdout?.on("data", (chunk: Buffer) => (printed += chunk.toString()));
  child.on("error", () => undefined);
  try {
    await waitFor(
      `${name} listens`,
      () => {
        if (child.exitCode !== null) throw new Error(`${name} ended with ${child.exitCode}`);
        return printed.includes("\n");
      },
      10_000,
    );
  } catch (error) {
    await stopProcess(child, "SIGKILL");
    throw error;
  }
  return listening(child, Number(printed), () => undefined);
}

function listening(child: ChildProcess, port: number, cleanUp: () => void): Listening {
  child.unref();
  const stop = async (): Promise<void> => {
    await stopProcess(child, "SIGTERM", 2_000);
    cleanUp();
  };
  return { port, pid: child.pid ?? 0, stop };
}
