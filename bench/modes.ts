import { createAuthority, type ServerCertificate } from "../test/helpers/certificates.ts";
import type { Destination } from "../test/helpers/clients.ts";
import { startPgBouncer } from "../test/helpers/pgbouncer.ts";
import type { PostgresServer } from "../test/helpers/postgres.ts";
import { removeFolder, temporaryFolder } from "../test/helpers/processes.ts";
import { residentBytes } from "./cpu.ts";
import { DATABASE } from "./database.ts";
import { startGatewayMode } from "./gateway-mode.ts";
import type { ModePlan } from "./modes-list.ts";
import type { BenchOptions } from "./options.ts";
import { type Listening, startHaproxy, startRelay } from "./proxies.ts";

/** One way from the client to the database. */
export interface Mode {
  readonly id: string;
  /** Root of the proxy's process tree; undefined where there is none. */
  readonly pid: number | undefined;
  readonly to: Destination;
  /** Where content masks do not apply, so that COPY may pass. The same as `to` but in the gateway. */
  readonly unmasked: Destination;
  /** It keeps server connections of sessions that have ended for later ones. */
  readonly pools?: true;
  /** What it has written to stderr, where that is kept. */
  logs?(): string;
  stop(): Promise<void>;
}

/** What a proxy needs to know of the server behind it. */
export type Upstream = Pick<PostgresServer, "host" | "port" | "superuser" | "password">;

/** What all modes share, ended in reverse order. */
export class Servers {
  readonly #ends: (() => Promise<void> | void)[] = [];

  add<T extends { stop(): Promise<void> }>(server: T): T {
    this.#ends.push(() => server.stop());
    return server;
  }

  folder(label: string): string {
    const folder = temporaryFolder(label);
    this.#ends.push(() => removeFolder(folder));
    return folder;
  }

  async stop(): Promise<void> {
    for (const end of this.#ends.splice(0).reverse()) await end();
  }
}

/** A certificate for the proxies' client side where the run is with TLS. */
export async function makeCertificate(options: BenchOptions, servers: Servers): Promise<ServerCertificate | undefined> {
  if (!options.tls) return undefined;
  const authority = await createAuthority(servers.folder("tls"), "Sluice benchmark CA");
  return authority.issue("proxy");
}

/** Sessions at once that no workload exceeds, with room for those that are just ending. */
export const sessionsOf = (options: BenchOptions): number => Math.max(200, 2 * options.clients, options.activeClients + 100);

export async function startMode(
  plan: ModePlan,
  database: PostgresServer,
  tls: ServerCertificate | undefined,
  options: BenchOptions,
): Promise<Mode> {
  const sessions = sessionsOf(options);
  switch (plan.name) {
    case "direct":
      return direct(database);
    // Neither of these two ends TLS for PostgreSQL: their client side stays plaintext.
    case "haproxy":
      return forwarder(plan.id, await startHaproxy(database, sessions), database);
    case "relay":
      return forwarder(plan.id, await startRelay(database), database);
    case "pgbouncer":
      return pgbouncer(database, tls, sessions);
    default:
      return startGatewayMode(plan, { upstream: database, tls, sessions, prove: true }, options);
  }
}

/** The client and the server without anything between; in plaintext also when the proxies' client side is TLS. */
function direct(database: PostgresServer): Mode {
  const to = { port: database.port, database: DATABASE, user: database.superuser, password: database.password };
  return { id: "direct", pid: undefined, to, unmasked: to, stop: async () => undefined };
}

/** A proxy that passes bytes on: the client authenticates at the server itself. */
export function forwarder(id: string, { port, pid, stop }: Listening, upstream: Upstream): Mode {
  const to = { port, database: DATABASE, user: upstream.superuser, password: upstream.password };
  return { id, pid, to, unmasked: to, stop };
}

async function pgbouncer(database: PostgresServer, tls: ServerCertificate | undefined, poolSize: number): Promise<Mode> {
  const bouncer = await startPgBouncer({ upstream: database, database: DATABASE, poolSize, ...(tls && { tls }) });
  const { port, user, password, pid } = bouncer;
  const to: Destination = { port, user, password, database: DATABASE, sslmode: tls === undefined ? "disable" : "require" };
  return { id: "pgbouncer", pid, to, unmasked: to, pools: true, stop: () => bouncer.stop() };
}

export const residentMegabytes = (mode: Mode): number | undefined => (mode.pid === undefined ? undefined : residentBytes(mode.pid) / 1e6);
