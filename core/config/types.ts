/** The configuration after validation: paths absolute, secrets resolved, defaults filled in. Plain data: it crosses threads. */
export interface Config {
  readonly file: string;
  /** Data folder, absolute; created 0700. */
  readonly data: string;
  /** Signing keys' folder, absolute; never inside data. */
  readonly keys: string;
  /** Number of workers, `auto` already resolved. */
  readonly workers: number;
  readonly control: ControlConfig;
  readonly listeners: readonly ListenerConfig[];
  readonly issuers: readonly IssuerConfig[];
  readonly targets: readonly TargetConfig[];
  readonly record: RecordConfig;
  /** What happens to a session whose credential expires: `cut` ends it at once, `finish` lets running statements end. */
  readonly onExpiry: "cut" | "finish";
  readonly limits: ConfiguredLimits;
  readonly log: { readonly level: "debug" | "info" | "warn" | "error" };
}

export interface ConfiguredLimits {
  /** Live sessions of the whole gateway. */
  readonly sessions: number;
  /** Connections of one client address (IPv6: of one /64) at a time; 0: no limit. */
  readonly connectionsPerAddress: number;
  /** A session without traffic in either direction is closed after this; 0: never. */
  readonly idleMillis: number;
}

export interface ListenAddress {
  readonly host: string;
  /** 0 asks the system for a free port. */
  readonly port: number;
}

/** PEM texts, read when the configuration is loaded. */
export interface ServerTls {
  readonly cert: string;
  readonly key: string;
}

export interface ControlConfig {
  readonly listen: ListenAddress | undefined;
  readonly tls: ServerTls | undefined;
}

export interface ListenerConfig {
  readonly protocol: "postgres";
  readonly listen: ListenAddress;
  readonly tls: ServerTls | undefined;
  /** Connections from these networks (CIDR, or a single address) begin with a PROXY header of version 2; others never do. */
  readonly proxyProtocol: { readonly from: readonly string[] } | undefined;
}

export interface IssuerConfig {
  readonly name: string;
  readonly type: "oidc";
  readonly issuer: string;
  readonly audience: readonly string[];
  readonly groupsClaim: string;
  readonly userClaim: string;
  /** Accepted signature algorithms (RFC 7518 names); never `none` and never HS*. */
  readonly algorithms: readonly string[];
  /** RFC 7519 leeway, at most 60. */
  readonly clockSkewSeconds: number;
}

export interface TargetTls {
  readonly mode: "disable" | "require" | "verify-full";
  /** PEM text of the trusted roots; undefined: the system's. */
  readonly ca: string | undefined;
  readonly serverName: string | undefined;
}

export interface TargetConfig {
  readonly name: string;
  readonly protocol: "postgres";
  readonly address: { readonly host: string; readonly port: number } | { readonly path: string };
  readonly database: string;
  readonly user: string;
  /** Resolved secret; never logged, never in an error, never recorded. */
  readonly password: string | undefined;
  readonly tls: TargetTls;
  readonly labels: Readonly<Record<string, string>>;
  readonly connections: { readonly max: number };
  readonly record: RecordConfig;
}

export interface RecordConfig {
  /** How much of results is kept: all, the first headBytes of each operation, or only a digest. */
  readonly results: "full" | "head" | "digest";
  readonly headBytes: number;
}
