import { createAuthority, type ServerCertificate, type TestAuthority } from "../helpers/certificates.ts";
import type { Destination } from "../helpers/clients.ts";
import { type Gateway, type GatewayOptions, postgresTarget, startGateway, type TargetEntry } from "../helpers/gateway.ts";
import { startTestIssuer, type TestIssuer } from "../helpers/issuer.ts";
import { type PostgresOptions, type PostgresServer, type PostgresVersion, startPostgres } from "../helpers/postgres.ts";
import { removeFolder, temporaryFolder, waitFor } from "../helpers/processes.ts";
import { type RawClient, type RawOptions, rawConnect } from "./raw.ts";

export const VERSIONS = [18, 15] as const satisfies readonly PostgresVersion[];

/** Whoever connects may do everything. */
export const ALLOW_ALL = `version: 1
rules:
  - { name: all, effect: allow }
`;

/** Both servers, an issuer and the gateway in front of them. */
export interface World {
  readonly issuer: TestIssuer;
  readonly authority: TestAuthority;
  readonly certificate: ServerCertificate;
  readonly gateway: Gateway;
  server(version: PostgresVersion): PostgresServer;
  /** Straight to the server, as its superuser. */
  direct(version: PostgresVersion): Destination;
  /** The same database through the gateway. */
  through(version: PostgresVersion, groups?: readonly string[]): Promise<Destination>;
  /** Put a policy in force and wait until every worker has it. */
  reload(policy: string): Promise<void>;
  stop(): Promise<void>;
}

export interface WorldOptions {
  readonly policy?: string;
  readonly postgres?: PostgresOptions;
  /** Statements that both servers start with. */
  readonly setup?: string;
  readonly config?: GatewayOptions["config"];
  /** Further targets, and changes to `pg18` and `pg15`. */
  readonly targets?: (servers: readonly PostgresServer[], certificate: ServerCertificate, ca: string) => readonly TargetEntry[];
  readonly targetChanges?: Readonly<Record<string, unknown>>;
  /** TLS at the listener. */
  readonly tls?: boolean;
}

export async function startWorld(options: WorldOptions = {}): Promise<World> {
  const folder = temporaryFolder("world");
  const authority = await createAuthority(folder);
  const certificate = await authority.issue("server");
  const issuer = await startTestIssuer();
  const servers = await Promise.all(VERSIONS.map((version) => startPostgres({ auth: "password", ...options.postgres, version })));
  const byVersion = new Map(servers.map((server) => [server.version, server]));
  const server = (version: PostgresVersion) => byVersion.get(version) as PostgresServer;
  if (options.setup !== undefined) await Promise.all(servers.map((each) => each.execute(options.setup as string)));
  const targets = [
    ...servers.map((each) => postgresTarget(`pg${each.version}`, each, options.targetChanges ?? {})),
    ...(options.targets?.(servers, certificate, authority.caFile) ?? []),
  ];
  const gateway = await startGateway({
    issuer,
    targets,
    policy: options.policy ?? ALLOW_ALL,
    config: { policies: ["./policy.yaml"], ...options.config },
    ...(options.tls === true ? { tls: certificate } : {}),
  });
  return {
    issuer,
    authority,
    certificate,
    gateway,
    server,
    direct: (version) => {
      const { port, superuser, password } = server(version);
      return { port, database: "postgres", user: superuser, password };
    },
    through: async (version, groups = []) => ({
      port: gateway.port,
      database: `pg${version}`,
      user: server(version).superuser,
      password: await issuer.token({ groups }),
    }),
    reload: async (policy) => {
      const reloads = () => gateway.logs().split('"configuration reloaded"').length;
      const before = reloads();
      gateway.writePolicy(policy);
      await waitFor("the new policy", () => reloads() > before);
    },
    stop: async () => {
      await gateway.stop();
      await Promise.all([...servers.map((each) => each.stop()), issuer.stop()]);
      removeFolder(folder);
    },
  };
}

/** A raw client at a destination. */
export const rawAt = (to: Destination, options: Partial<RawOptions> = {}): Promise<RawClient> =>
  rawConnect({
    host: to.host ?? "127.0.0.1",
    port: to.port,
    user: to.user ?? "anyone",
    database: to.database,
    password: to.password,
    ...options,
  });
