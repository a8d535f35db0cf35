import { existsSync, mkdtempSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { cacheFolder, keyOf, publish } from "./cache.ts";
import { type CommandOptions, type CommandResult, mustRun, run } from "./processes.ts";

/** Where a native client connects to, as the libpq environment names it. */
export interface Destination {
  readonly port: number;
  /** Default 127.0.0.1. */
  readonly host?: string;
  /** The target's name when it goes through the gateway. */
  readonly database: string;
  /** Default `anyone`: a label only, as the token says who it is. */
  readonly user?: string;
  /** The token, or the password. */
  readonly password: string;
  /** Default `disable`. */
  readonly sslmode?: "disable" | "require" | "verify-ca" | "verify-full";
  readonly sslrootcert?: string;
}

/** libpq's environment variables (PostgreSQL documentation, 34.15); none of the caller's own get through. */
export function libpqEnvironment(to: Destination): Record<string, string | undefined> {
  return {
    PGHOST: to.host ?? "127.0.0.1",
    PGPORT: String(to.port),
    PGDATABASE: to.database,
    PGUSER: to.user ?? "anyone",
    PGPASSWORD: to.password,
    PGSSLMODE: to.sslmode ?? "disable",
    PGSSLROOTCERT: to.sslrootcert,
    PGGSSENCMODE: "disable",
    PGCONNECT_TIMEOUT: "10",
    PGOPTIONS: undefined,
    PGSERVICE: undefined,
    PGPASSFILE: undefined,
    PGAPPNAME: undefined,
    LC_ALL: "C.UTF-8",
  };
}

const withEnvironment = (to: Destination, options: CommandOptions): CommandOptions => ({
  ...options,
  env: { ...libpqEnvironment(to), ...options.env },
});

/** psql on a script from stdin, unaligned and without headings; `args` come after the usual ones. */
export const psql = (to: Destination, sql: string, args: readonly string[] = [], options: CommandOptions = {}): Promise<CommandResult> =>
  run("psql", ["-X", "-A", "-t", "-q", ...args], { ...withEnvironment(to, options), input: sql });

export const pgbench = (to: Destination, args: readonly string[], options: CommandOptions = {}): Promise<CommandResult> =>
  run("pgbench", args, withEnvironment(to, options));

export const pgDump = (to: Destination, args: readonly string[], options: CommandOptions = {}): Promise<CommandResult> =>
  run("pg_dump", args, withEnvironment(to, options));

/** Debian's python3, which finds Debian's python3-psycopg2. `psycopg2.connect("")` takes the destination from the environment. */
export const python = (
  to: Destination,
  script: string,
  args: readonly string[] = [],
  options: CommandOptions = {},
): Promise<CommandResult> => run("/usr/bin/python3", ["-I", "-", ...args], { ...withEnvironment(to, options), input: script });

const jdbcJar = "/usr/share/java/postgresql.jar";

/**
 * Compile and run one Java class against pgjdbc. The class is compiled once and kept.
 * It gets the JDBC URL, the user and the password as its first three arguments, then `args`.
 * @param properties connection properties of pgjdbc, as `prepareThreshold`
 */
export async function java(
  to: Destination,
  className: string,
  source: string,
  args: readonly string[] = [],
  properties: Readonly<Record<string, string>> = {},
): Promise<CommandResult> {
  const classes = join(cacheFolder(), `java-${keyOf(className, source)}`);
  if (!existsSync(classes)) {
    const draft = mkdtempSync(join(cacheFolder(), "draft-"));
    writeFileSync(join(draft, `${className}.java`), source);
    await mustRun("javac", ["-cp", jdbcJar, "-d", draft, join(draft, `${className}.java`)], { timeoutMillis: 60_000 });
    publish(draft, classes);
  }
  const tls = { sslmode: to.sslmode ?? "disable", ...(to.sslrootcert === undefined ? {} : { sslrootcert: to.sslrootcert }) };
  const query = new URLSearchParams({ ...tls, ...properties }).toString();
  const url = `jdbc:postgresql://${to.host ?? "127.0.0.1"}:${to.port}/${to.database}?${query}`;
  const flags = ["-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-cp", `${jdbcJar}:${classes}`, className];
  return run("java", [...flags, url, to.user ?? "anyone", to.password, ...args], { timeoutMillis: 60_000 });
}
