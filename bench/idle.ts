import { type ChildProcess, fork } from "node:child_process";
import { once } from "node:events";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import type { PostgresServer } from "../test/helpers/postgres.ts";
import { rootFolder } from "../test/helpers/processes.ts";
import { treeMemoryBytes } from "./cpu.ts";
import { DATABASE } from "./database.ts";
import type { Figures } from "./figures.ts";
import { startGatewayMode } from "./gateway-mode.ts";
import type { IdleOrder } from "./idle-client.ts";
import { forwarder, type Mode, makeCertificate, Servers, type Upstream } from "./modes.ts";
import type { ModePlan } from "./modes-list.ts";
import type { BenchOptions } from "./options.ts";
import { startHaproxy, startIdleBouncer, startRelay, startScript } from "./proxies.ts";

/** Connections that a proxy makes for itself, and those that are just ending. */
const SPARE_SESSIONS = 50;
/** Sessions that are open at the first measurement: what comes once, as code that is compiled at its first use, is not a session's. */
const BASE_SESSIONS = 100;
const WAVE_SESSIONS = 100;
const SETTLE_MILLIS = 2_000;

/**
 * What a session costs a proxy that has nothing to do for it. Each run has a proxy of its own, so that its memory is not what earlier
 * workloads left behind, and a server that holds sessions cheaply (idle-server.ts). Each session has run one query.
 */
export async function runIdle(plan: ModePlan, sessions: number, options: BenchOptions, database: PostgresServer): Promise<Figures> {
  const servers = new Servers();
  try {
    const server = servers.add(
      await startScript("idle-server.ts", [], {
        PGPORT: String(database.port),
        PGDATABASE: DATABASE,
        PGUSER: database.superuser,
        PGPASSWORD: database.password,
      }),
    );
    const upstream: Upstream = { host: "127.0.0.1", port: server.port, superuser: database.superuser, password: database.password };
    const mode = servers.add(await startIdleMode(plan, sessions + BASE_SESSIONS + SPARE_SESSIONS, upstream, options, servers));
    const client = servers.add(new IdleClient(mode));
    const base = options.tiny ? 20 : BASE_SESSIONS;
    const settle = options.tiny ? 200 : SETTLE_MILLIS;
    // The first one alone: the server then knows every answer that the others will ask for.
    await client.open(1, 1);
    await client.open(base, WAVE_SESSIONS);
    await sleep(settle);
    const before = treeMemoryBytes(mode.pid ?? 0);
    const seconds = await client.open(base + sessions, WAVE_SESSIONS);
    await sleep(settle);
    const after = treeMemoryBytes(mode.pid ?? 0);
    return { kilobytesPerSession: (after - before) / sessions / 1_000, megabytesAtBase: before / 1e6, opensPerSecond: sessions / seconds };
  } finally {
    await servers.stop();
  }
}

async function startIdleMode(plan: ModePlan, sessions: number, upstream: Upstream, options: BenchOptions, servers: Servers): Promise<Mode> {
  const tls = await makeCertificate(options, servers);
  switch (plan.name) {
    case "direct":
      throw new Error("there is no proxy whose memory could be measured");
    case "haproxy":
      return forwarder(plan.id, await startHaproxy(upstream, sessions), upstream);
    case "relay":
      return forwarder(plan.id, await startRelay(upstream), upstream);
    case "pgbouncer": {
      const mode = forwarder(plan.id, await startIdleBouncer(upstream, DATABASE, sessions, tls), upstream);
      return tls === undefined ? mode : { ...mode, to: { ...mode.to, sslmode: "require" } };
    }
    default:
      return startGatewayMode(plan, { upstream, tls, sessions, prove: false }, options);
  }
}

/** The sessions' other end, a process of its own: thousands of sockets are not to slow the measuring process down. */
class IdleClient {
  readonly #child: ChildProcess;
  readonly #mode: Mode;

  constructor(mode: Mode) {
    this.#mode = mode;
    this.#child = fork(join(rootFolder, "bench/idle-client.ts"), { stdio: ["ignore", "inherit", "inherit", "ipc"] });
  }

  /** @returns seconds. @throws Error when one of them does not open */
  async open(upTo: number, wave: number): Promise<number> {
    const { port, database, user, password, sslmode } = this.#mode.to;
    const tls = sslmode === undefined || sslmode === "disable" ? {} : { tls: "request" as const };
    const order: IdleOrder = { to: { port, database, user: user ?? "anyone", password, ...tls }, upTo, wave };
    const answered = once(this.#child, "message");
    const ended = once(this.#child, "exit").then(() => Promise.reject(new Error("the client of the idle sessions ended")));
    ended.catch(() => undefined);
    this.#child.send(order);
    const [report] = (await Promise.race([answered, ended])) as [number | string];
    if (typeof report === "string") throw new Error(`${report}; the proxy's log ends with: ${this.#mode.logs?.().slice(-1_000) ?? ""}`);
    return report;
  }

  async stop(): Promise<void> {
    this.#child.kill("SIGKILL");
    if (this.#child.exitCode === null && this.#child.signalCode === null) await once(this.#child, "exit");
  }
}
