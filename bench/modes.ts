import { mkdirSync } from "node:fs";
import { resolve } from "node:path";
import type { ServerCertificate } from "../test/helpers/certificates.ts";
import { createAuthority } from "../test/helpers/certificates.ts";
import type { Destination } from "../test/helpers/clients.ts";
import { type Gateway, postgresTarget, startGateway } from "../test/helpers/gateway.ts";
import { startTestIssuer, type TestIssuer } from "../test/helpers/issuer.ts";
import { startPgBouncer } from "../test/helpers/pgbouncer.ts";
import type { PostgresServer } from "../test/helpers/postgres.ts";
import { removeFolder, temporaryFolder } from "../test/helpers/processes.ts";
import { residentBytes } from "./cpu.ts";
import { DATABASE } from "./database.ts";
import type { BenchOptions, ModeName } from "./options.ts";
import { GROUPS, POLICY } from "./policy.ts";
import { proveGateway } from "./prove.ts";

/** One way from the client to the database. */
export interface Mode {
  readonly name: ModeName;
  /** Root of the proxy's process tree; undefined where there is none. */
  readonly pid: number | undefined;
  readonly to: Destination;
  /** Where content masks do not apply, so that COPY may pass. The same as `to` but in the gateway. */
  readonly unmasked: Destination;
  stop(): Promise<void>;
}

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

export async function startMode(
  name: ModeName,
  database: PostgresServer,
  tls: ServerCertificate | undefined,
  options: BenchOptions,
): Promise<Mode> {
  if (name === "direct") return direct(database);
  return name === "pgbouncer" ? pgbouncer(database, tls) : sluice(database, tls, options);
}

/** The client and the server without anything between; in plaintext also when the proxies' client side is TLS. */
function direct(database: PostgresServer): Mode {
  const to = { port: database.port, database: DATABASE, user: database.superuser, password: database.password };
  return { name: "direct", pid: undefined, to, unmasked: to, stop: async () => undefined };
}

async function pgbouncer(database: PostgresServer, tls: ServerCertificate | undefined): Promise<Mode> {
  const bouncer = await startPgBouncer({ upstream: database, database: DATABASE, ...(tls && { tls }) });
  const { port, user, password, pid } = bouncer;
  const to: Destination = { port, user, password, database: DATABASE, sslmode: tls === undefined ? "disable" : "require" };
  return { name: "pgbouncer", pid, to, unmasked: to, stop: () => bouncer.stop() };
}

async function sluice(database: PostgresServer, tls: ServerCertificate | undefined, options: BenchOptions): Promise<Mode> {
  const issuer = await startTestIssuer();
  let gateway: Gateway | undefined;
  const stop = async (): Promise<void> => {
    await gateway?.stop();
    await issuer.stop();
  };
  try {
    gateway = await startGateway({
      issuer,
      targets: [postgresTarget("bench", database, { database: DATABASE })],
      policy: POLICY,
      config: { workers: options.workers, record: { results: "head", headBytes: "1MB" } },
      ...(tls && { tls }),
      ...(options.profileFolder !== undefined && { env: profiled(options.profileFolder) }),
    });
    const sslmode = tls === undefined ? "disable" : "require";
    const destination = async (group: string): Promise<Destination> => ({
      port: gateway?.port ?? 0,
      database: "bench",
      password: await token(issuer, group),
      sslmode,
    });
    const to = await destination(GROUPS.masked);
    const unmasked = await destination(GROUPS.unmasked);
    await proveGateway(gateway, to, unmasked);
    return { name: "sluice", pid: gateway.pid, to, unmasked, stop };
  } catch (error) {
    await stop();
    throw error;
  }
}

const token = (issuer: TestIssuer, group: string): Promise<string> =>
  issuer.token({ sub: `bench-${group}`, groups: [group, "staff"], expiresInSeconds: 86_400 });

function profiled(folder: string): Record<string, string> {
  const path = resolve(folder);
  mkdirSync(path, { recursive: true });
  return { NODE_OPTIONS: `--cpu-prof --cpu-prof-dir=${path}` };
}

export const residentMegabytes = (mode: Mode): number | undefined => (mode.pid === undefined ? undefined : residentBytes(mode.pid) / 1e6);
