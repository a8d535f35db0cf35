import { spawn } from "node:child_process";
import { readFileSync } from "node:fs";
import { constants } from "node:os";
import type { Command } from "commander";
import { isLoopbackHost, parseHostPort } from "../../core/config/address.ts";
import { SluiceError } from "../../core/errors.ts";
import { LIMITS } from "../../core/limits.ts";
import { type Common, command, type Places, print, printJson, readPlaces, run, wantsJson } from "./context.ts";

interface ConnectOptions extends Common {
  readonly print?: boolean;
  readonly tokenFile?: string;
  readonly host?: string;
  readonly port?: string;
  readonly ca?: string;
}

export function addConnectCommand(program: Command): void {
  command(program, "connect <target> [arguments...]", "start psql through the gateway; arguments after -- go to psql")
    .option("--print", "print the command instead of starting it")
    .option("--token-file <file>", "file that holds the token; otherwise the variable SLUICE_TOKEN")
    .option("--host <name>", "gateway's name, where it differs from the listener's address")
    .option("--port <number>", "gateway's port, where it differs from the listener's")
    .option("--ca <file>", "certificate authority of the gateway's certificate (PEM)")
    .action(run(connect));
}

async function connect(target: string, extra: readonly string[], options: ConnectOptions): Promise<void> {
  const places = readPlaces(options.config);
  if (!places.targets.includes(target)) {
    throw new SluiceError("SLUICE_TARGET_UNKNOWN", `no target is named ${JSON.stringify(target)}`, {
      hint: `There are: ${places.targets.join(", ") || "none"}.`,
    });
  }
  const settings = connectionSettings(places, target, options);
  const parameters = [
    Object.entries(settings)
      .map(([key, value]) => `${key}=${conninfoValue(value)}`)
      .join(" "),
    ...extra,
  ];
  if (options.print === true) {
    // The token itself is never printed, and never an argument: every user of the machine can read those.
    const token = options.tokenFile === undefined ? '"$SLUICE_TOKEN"' : `"$(cat ${shellWord(options.tokenFile)})"`;
    if (wantsJson(options))
      printJson({
        command: ["psql", ...parameters],
        environment: { PGPASSWORD: options.tokenFile === undefined ? "SLUICE_TOKEN" : options.tokenFile },
        settings,
      });
    else print(`PGPASSWORD=${token} psql ${parameters.map(shellWord).join(" ")}`);
    return;
  }
  await start(parameters, readToken(options.tokenFile));
}

/** libpq's parameters (PostgreSQL manual, Parameter Key Words). */
function connectionSettings(places: Places, target: string, options: Pick<ConnectOptions, "host" | "port" | "ca">): Record<string, string> {
  const listener = places.listeners.find((candidate) => candidate.protocol === "postgres");
  const address = parseHostPort(listener?.listen ?? "");
  if (listener === undefined || address === undefined)
    throw new SluiceError("SLUICE_CONFIG_INVALID", "the configuration has no listener for postgres");
  const port = options.port ?? String(address.port);
  if (!/^\d{1,5}$/.test(port) || Number(port) === 0 || Number(port) > 65_535) {
    throw new SluiceError("SLUICE_USAGE", "the listener's port is not fixed in the configuration", {
      hint: "Name it with --port; `sluice serve` prints it when it is ready.",
    });
  }
  const any: Readonly<Record<string, string>> = { "0.0.0.0": "127.0.0.1", "::": "::1" };
  const host = options.host ?? any[address.host] ?? address.host;
  // A token must not go to a stranger: beyond this machine the server has to prove its name.
  const sslmode = !listener.tls ? "disable" : isLoopbackHost(host) && options.ca === undefined ? "require" : "verify-full";
  if (sslmode === "disable" && !isLoopbackHost(host)) {
    throw new SluiceError(
      "SLUICE_CREDENTIAL_NEEDS_TLS",
      `the listener on ${host} has no tls, and a token travels without it only on this machine`,
      { hint: "Add tls to the listener." },
    );
  }
  const roots: Record<string, string> = sslmode === "verify-full" ? { sslrootcert: options.ca ?? "system" } : {};
  return { host, port, dbname: target, user: "sluice", sslmode, ...roots, gssencmode: "disable" };
}

/** libpq conninfo: values in single quotes, with backslash before quote and backslash. */
const conninfoValue = (value: string): string => (/^[\w.:/-]+$/.test(value) ? value : `'${value.replace(/[\\']/g, "\\$&")}'`);
const shellWord = (word: string): string => (/^[\w@%+=:,./-]+$/.test(word) ? word : `'${word.replaceAll("'", "'\\''")}'`);

function readToken(file: string | undefined): string {
  let token: string | undefined;
  if (file === undefined) token = process.env.SLUICE_TOKEN;
  else {
    try {
      token = readFileSync(file, "utf8");
    } catch (thrown) {
      throw new SluiceError(
        "SLUICE_CREDENTIAL_MISSING",
        `the token file ${file} cannot be read (${(thrown as NodeJS.ErrnoException).code ?? "unknown error"})`,
      );
    }
  }
  const trimmed = token?.trim() ?? "";
  if (trimmed === "")
    throw new SluiceError("SLUICE_CREDENTIAL_MISSING", "there is no token", {
      hint: "Put it in the variable SLUICE_TOKEN, or in a file named with --token-file.",
    });
  if (/\s/.test(trimmed) || trimmed.length > LIMITS.credentialBytes)
    throw new SluiceError("SLUICE_CREDENTIAL_INVALID", "what stands in place of the token is not one");
  return trimmed;
}

function start(parameters: readonly string[], token: string): Promise<void> {
  const { SLUICE_TOKEN: _, ...environment } = process.env;
  return new Promise((resolve, reject) => {
    const child = spawn("psql", parameters, { stdio: "inherit", env: { ...environment, PGPASSWORD: token } });
    // Ctrl-C belongs to psql, which cancels the statement with it.
    const ignore = (): void => {};
    process.on("SIGINT", ignore);
    child.once("error", (error: NodeJS.ErrnoException) => {
      const missing = error.code === "ENOENT";
      reject(
        new SluiceError("SLUICE_USAGE", missing ? "psql is not installed" : `psql cannot be started (${error.code ?? "unknown error"})`, {
          hint: "Install PostgreSQL's client, or use --print and another client.",
        }),
      );
    });
    child.once("exit", (code, signal) => {
      process.off("SIGINT", ignore);
      process.exitCode = code ?? 128 + (signal === null ? 0 : constants.signals[signal]);
      resolve();
    });
  });
}
