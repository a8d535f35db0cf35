import { chownSync, closeSync, existsSync, openSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { freePort, removeFolder, run, spawnTied, stopProcess, temporaryFolder, unprivileged, waitFor } from "./processes.ts";

const BINARY = "/usr/sbin/haproxy";

export interface HaproxyOptions {
  /** Port on 127.0.0.1 that connections go to, with a PROXY header of version 2. */
  readonly to: number;
  /** Address that HAProxy connects from; on this machine. */
  readonly from: string;
  /**
   * One frontend each, on a port of its own: the client address that it tells; `as it is`: the real one; `socket`: a Unix
   * socket, so that there is none.
   */
  readonly tell: readonly string[];
  /** Keys that the `server` line has as well. */
  readonly server?: string;
}

export interface Haproxy {
  /** Where to connect to have this address told; for `socket` its folder is `folder`. */
  port(tell: string): number;
  readonly folder: string;
  stop(): Promise<void>;
}

/** Debian's HAProxy in TCP mode, as a load balancer in front of the gateway. */
export async function startHaproxy(options: HaproxyOptions): Promise<Haproxy> {
  if (!existsSync(BINARY)) throw new Error(`${BINARY} is missing: install it with apt-get install haproxy (or run tools/setup --test)`);
  const account = unprivileged();
  const folder = temporaryFolder("haproxy", account);
  const ports = new Map<string, number>();
  const lines = ["defaults", "mode tcp", "timeout connect 5s", "timeout client 60s", "timeout server 60s"];
  for (const [index, tell] of options.tell.entries()) {
    const port = await freePort();
    ports.set(tell, port);
    lines.push(
      `frontend f${index}`,
      `bind ${tell === "socket" ? `unix@${join(folder, `.s.PGSQL.${port}`)} mode 666` : `127.0.0.1:${port}`}`,
    );
    if (tell !== "socket" && tell !== "as it is") lines.push(`tcp-request connection set-src str(${tell})`);
    lines.push("default_backend gateway");
  }
  lines.push("backend gateway", `server gateway 127.0.0.1:${options.to} send-proxy-v2 source ${options.from} ${options.server ?? ""}`);
  const configFile = join(folder, "haproxy.cfg");
  writeFileSync(configFile, `${lines.join("\n")}\n`);
  if (account !== undefined) chownSync(configFile, account.uid, account.gid);
  const logFile = join(folder, "haproxy.log");
  const log = openSync(logFile, "a");
  const child = spawnTied(BINARY, ["-db", "-f", configFile], { account, cwd: folder, stdio: ["ignore", log, log] });
  closeSync(log);
  child.on("error", () => undefined); // waitFor below tells it
  const listens = async (): Promise<boolean> => {
    if (child.exitCode !== null) throw new Error("it has ended");
    // Without connecting: a connection would go on to the gateway.
    const { stdout } = await run("cat", ["/proc/net/tcp", "/proc/net/unix"]);
    return [...ports].every(([tell, port]) =>
      stdout.includes(tell === "socket" ? `.s.PGSQL.${port}` : `:${port.toString(16).toUpperCase().padStart(4, "0")} 00000000:0000 0A`),
    );
  };
  try {
    await waitFor("HAProxy listens", listens, 10_000);
  } catch (error) {
    await stopProcess(child, "SIGKILL");
    const text = readFileSync(logFile, "utf8");
    removeFolder(folder);
    throw new Error(`HAProxy did not start: ${text.slice(-2_000)}`, { cause: error });
  }
  child.unref();
  return {
    folder,
    port: (tell) => ports.get(tell) as number,
    stop: async () => {
      await stopProcess(child, "SIGTERM", 1_000);
      removeFolder(folder);
    },
  };
}
