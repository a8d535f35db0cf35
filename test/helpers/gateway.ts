import type { ChildProcess } from "node:child_process";
import { appendFileSync, closeSync, existsSync, openSync, readFileSync, writeFileSync } from "node:fs";
import { Socket } from "node:net";
import { join } from "node:path";
import { stringify } from "yaml";
import type { ServerCertificate } from "./certificates.ts";
import type { PostgresServer } from "./postgres.ts";
import {
  type CommandOptions,
  type CommandResult,
  ended,
  freePort,
  removeFolder,
  rootFolder,
  run,
  spawnTied,
  stopProcess,
  temporaryFolder,
  waitFor,
} from "./processes.ts";

/** An entry of `targets:` in sluice.yaml. */
export type TargetEntry = { readonly name: string; readonly protocol: string } & Readonly<Record<string, unknown>>;

export interface GatewayOptions {
  /** The default issuer, `corp` with audience `sluice`. */
  readonly issuer: { readonly issuer: string };
  readonly targets: readonly TargetEntry[];
  /** Text of policy.yaml. */
  readonly policy: string;
  /** Top-level keys of sluice.yaml, over the defaults; a value of undefined takes a default away. */
  readonly config?: Readonly<Record<string, unknown>>;
  /** TLS for the PostgreSQL listener. */
  readonly tls?: ServerCertificate;
  /** Further keys of the PostgreSQL listener. */
  readonly listener?: Readonly<Record<string, unknown>>;
  readonly env?: Readonly<Record<string, string>>;
  /** Put in front of the command, as `["taskset", "-c", "0"]`. */
  readonly wrap?: readonly string[];
  /** Default 20,000. */
  readonly readyMillis?: number;
}

export interface Gateway {
  readonly folder: string;
  readonly configFile: string;
  readonly policyFile: string;
  readonly dataFolder: string;
  /** Of the PostgreSQL listener, on 127.0.0.1. */
  readonly port: number;
  /** Of the control API, on 127.0.0.1. */
  readonly controlPort: number;
  /** The ready line of the latest start. */
  readonly ready: Readonly<Record<string, unknown>>;
  readonly pid: number;
  isRunning(): boolean;
  /** Exit status of the latest start once it has ended; null while it runs or where a signal ended it. */
  readonly exitCode: number | null;
  /** Run `./sluice … -c configFile`. */
  cli(args: readonly string[], options?: CommandOptions): Promise<CommandResult>;
  /** What all starts of this gateway have written to stderr so far. */
  logs(): string;
  /** What all starts of this gateway have written to stdout so far. */
  output(): string;
  writePolicy(text: string): void;
  /** Change top-level keys of sluice.yaml; the gateway notices by itself. */
  writeConfig(changes: Readonly<Record<string, unknown>>): void;
  /** SIGTERM, as a supervisor would; the folder goes too unless `keep` is set. */
  stop(options?: { keep?: boolean; graceMillis?: number }): Promise<void>;
  /** kill -9; resolves when the process is gone. Folder and ports stay for restart(). */
  kill9(): Promise<void>;
  /** Start again with the same files and ports, after kill9() or stop({ keep: true }); a running one is stopped first. */
  restart(): Promise<void>;
}

/** A target of sluice.yaml for a database of this server; `changes` go over the defaults. */
export function postgresTarget(name: string, server: PostgresServer, changes: Readonly<Record<string, unknown>> = {}): TargetEntry {
  const address = `${server.host}:${server.port}`;
  const entry = {
    name,
    protocol: "postgres",
    address,
    database: "postgres",
    user: server.superuser,
    password: server.password,
    tls: { mode: "disable" },
  };
  return { ...entry, ...changes };
}

/** The gateway as operators run it: `./sluice serve` as a process of its own, with its files in a temporary folder. */
export async function startGateway(options: GatewayOptions): Promise<Gateway> {
  const folder = temporaryFolder("gateway");
  const configFile = join(folder, "sluice.yaml");
  const policyFile = join(folder, "policy.yaml");
  const outputFile = join(folder, "stdout.log");
  const logFile = join(folder, "stderr.log");
  const port = await freePort();
  const controlPort = await freePort();
  let config: Record<string, unknown> = {
    version: 1,
    data: "./data",
    keys: "./keys",
    workers: 2,
    control: { listen: `127.0.0.1:${controlPort}` },
    listeners: [
      {
        protocol: "postgres",
        listen: `127.0.0.1:${port}`,
        ...(options.tls && { tls: { cert: options.tls.certFile, key: options.tls.keyFile } }),
        ...options.listener,
      },
    ],
    identity: {
      issuers: [{ name: "corp", type: "oidc", issuer: options.issuer.issuer, audience: "sluice", groups: "groups", userClaim: "sub" }],
    },
    targets: options.targets,
    policies: ["./policy.yaml"],
    ...options.config,
  };
  const saveConfig = () => writeFileSync(configFile, stringify(config), { mode: 0o600 });
  saveConfig();
  writeFileSync(policyFile, options.policy);

  const launch = () => serve(configFile, { ...options, cwd: folder, logFile, onOutput: (chunk) => appendFileSync(outputFile, chunk) });
  let current = await launch().catch((error: unknown) => {
    removeFolder(folder);
    throw error;
  });
  const isRunning = () => current.child.exitCode === null && current.child.signalCode === null;

  return {
    folder,
    configFile,
    policyFile,
    dataFolder: join(folder, "data"),
    port,
    controlPort,
    get ready() {
      return current.ready;
    },
    get pid() {
      return current.child.pid ?? 0;
    },
    isRunning,
    get exitCode() {
      return current.child.exitCode;
    },
    cli: (args, commandOptions = {}) => {
      // What comes after `--` belongs to the program that `connect` starts.
      const end = args.includes("--") ? args.indexOf("--") : args.length;
      const words = [...args.slice(0, end), "-c", configFile, ...args.slice(end)];
      return run(join(rootFolder, "sluice"), words, { cwd: folder, ...commandOptions, env: { ...options.env, ...commandOptions.env } });
    },
    logs: () => read(logFile),
    output: () => read(outputFile),
    writePolicy: (text) => writeFileSync(policyFile, text),
    writeConfig: (changes) => {
      config = { ...config, ...changes };
      saveConfig();
    },
    stop: async (stopOptions = {}) => {
      await stopProcess(current.child, "SIGTERM", stopOptions.graceMillis ?? 10_000);
      if (stopOptions.keep !== true) removeFolder(folder);
    },
    kill9: async () => {
      current.child.kill("SIGKILL");
      await ended(current.child);
    },
    restart: async () => {
      if (isRunning()) await stopProcess(current.child, "SIGTERM", 10_000);
      current = await launch();
    },
  };
}

const read = (file: string): string => (existsSync(file) ? readFileSync(file, "utf8") : "");

/** What a run of tests gives every gateway's environment: JSON in SLUICE_TEST_GATEWAY_ENV. */
const everyGateway = (): Record<string, string> => JSON.parse(process.env["SLUICE_TEST_GATEWAY_ENV"] ?? "{}") as Record<string, string>;

export interface ServeOptions {
  readonly cwd: string;
  /** Takes what the gateway writes to stderr. */
  readonly logFile: string;
  readonly onOutput?: (chunk: Buffer) => void;
  readonly env?: Readonly<Record<string, string>>;
  readonly wrap?: readonly string[];
  readonly readyMillis?: number;
}

/** Start `./sluice serve` and wait for its ready line. @throws when it ends before, or takes longer than readyMillis (default 20,000) */
export async function serve(
  configFile: string,
  options: ServeOptions,
): Promise<{ child: ChildProcess; ready: Readonly<Record<string, unknown>> }> {
  const [command = "", ...prefix] = [...(options.wrap ?? []), join(rootFolder, "sluice")];
  const log = openSync(options.logFile, "a");
  const env: NodeJS.ProcessEnv = { ...process.env, ...everyGateway(), ...options.env };
  const child = spawnTied(command, [...prefix, "serve", "-c", configFile], { cwd: options.cwd, stdio: ["ignore", "pipe", log], env });
  closeSync(log);
  const ready = await new Promise<Readonly<Record<string, unknown>>>((resolve, reject) => {
    let text = "";
    const fail = (why: string) => reject(new Error(`the gateway ${why}: ${(text + read(options.logFile)).slice(-4_000)}`));
    const timer = setTimeout(() => {
      child.kill("SIGKILL");
      fail("was not ready in time");
    }, options.readyMillis ?? 20_000);
    child.once("error", reject);
    child.once("exit", (code, signal) => {
      clearTimeout(timer);
      fail(`ended with ${code ?? signal} before it was ready`);
    });
    child.stdout?.on("data", (chunk: Buffer) => {
      options.onOutput?.(chunk);
      text = (text + chunk.toString()).slice(-64_000);
      for (const line of text.split("\n").slice(0, -1)) {
        if (!line.includes('"ready"')) continue;
        clearTimeout(timer);
        resolve(JSON.parse(line) as Record<string, unknown>);
      }
    });
  });
  // A run that asks for a transport is to be one.
  const transport = env["SLUICE_TRANSPORT"];
  if (transport) {
    // The log is another file than the line that says ready, and may be later.
    const says = (): boolean => read(options.logFile).includes(`"transport":"${transport}"`);
    await waitFor(`the gateway's log says ${transport}`, says, 5_000).catch(() => {
      child.kill("SIGKILL");
      throw new Error(`the gateway does not use ${transport}: ${read(options.logFile)}`);
    });
  }
  // Neither the process nor its output is to keep a test runner alive.
  child.unref();
  if (child.stdout instanceof Socket) child.stdout.unref();
  return { child, ready };
}
