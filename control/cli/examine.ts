import { X509Certificate } from "node:crypto";
import { accessSync, constants, lstatSync, readFileSync, statfsSync } from "node:fs";
import { dirname } from "node:path";
import { request } from "undici";
import { type LoadedConfig, loadConfig } from "../../core/config/load.ts";
import type { Config, ServerTls } from "../../core/config/types.ts";
import { loadAcceptor, loadJournal, loadMatcher, loadPump } from "../../core/native/addons.ts";
import { dataFolderHolder } from "../data-lock.ts";

export interface Finding {
  readonly check: string;
  /** fail: the gateway will not work; warn: unwise or slower than need be. */
  readonly status: "ok" | "warn" | "fail";
  readonly detail: string;
}

const NODE_MAJOR = 24;
const FREE_BYTES = 1024 ** 3;
const CERTIFICATE_DAYS = 14;
const CLOCK_SECONDS = 30;
const ISSUER_MILLIS = 5_000;

export async function examine(file: string): Promise<Finding[]> {
  const findings = [
    node(),
    addon("acceptor", loadAcceptor, "fail"),
    addon("journal", loadJournal, "warn"),
    addon("matcher", loadMatcher, "warn"),
    addon("pump", loadPump, "warn"),
  ];
  let loaded: LoadedConfig;
  try {
    loaded = loadConfig(file);
  } catch (thrown) {
    findings.push({ check: "configuration", status: "fail", detail: (thrown as Error).message });
    return findings;
  }
  const { config } = loaded;
  findings.push({
    check: "configuration",
    status: "ok",
    detail: `${file}, ${config.targets.length} targets, ${loaded.policy.rules.length} rules`,
  });
  findings.push(
    descriptors(config),
    ...folder("data folder", config.data),
    ...folder("keys folder", config.keys),
    space(config.data),
    running(config.data),
  );
  findings.push(...certificates(config));
  findings.push(...(await Promise.all(config.issuers.map(({ name, issuer }) => issuerAndClock(name, issuer)))));
  return findings;
}

function node(): Finding {
  const major = Number(process.versions.node.split(".")[0]);
  const detail = `${process.versions.node} at ${process.execPath}`;
  return major >= NODE_MAJOR
    ? { check: "node", status: "ok", detail }
    : { check: "node", status: "fail", detail: `${detail}; version ${NODE_MAJOR} is needed: run npm install` };
}

const INSTEAD: Readonly<Record<string, string>> = {
  journal: "every block of the journal takes a system call; ",
  matcher: "masking uses its slower portable engine; ",
  pump: "connections go over Node's own sockets, which cost more; ",
};

function addon(name: string, load: () => object, missing: "warn" | "fail"): Finding {
  const check = `native ${name}`;
  try {
    load();
    return { check, status: "ok", detail: "built" };
  } catch (thrown) {
    const { cause } = thrown as Error;
    const why = cause instanceof Error ? cause.message.split("\n")[0] : (thrown as Error).message;
    return { check, status: missing, detail: `${why}; ${INSTEAD[name] ?? ""}set the project up again` };
  }
}

function descriptors(config: Config): Finding {
  const check = "open files";
  // A session has two sockets; the rest is the store's and Node's own.
  const needed = config.limits.sessions * 2 + 256;
  const limit = openFilesLimit();
  if (limit === undefined) return { check, status: "warn", detail: "the limit cannot be read on this system" };
  if (limit >= needed) return { check, status: "ok", detail: `limit ${limit}` };
  return {
    check,
    status: "warn",
    detail: `limit ${limit}, but limits.sessions ${config.limits.sessions} needs ${needed}: raise it (ulimit -n, LimitNOFILE)`,
  };
}

function openFilesLimit(): number | undefined {
  try {
    const soft = /^Max open files\s+(\d+|unlimited)/m.exec(readFileSync("/proc/self/limits", "utf8"))?.[1];
    return soft === "unlimited" ? Number.MAX_SAFE_INTEGER : soft === undefined ? undefined : Number(soft);
  } catch {
    return undefined;
  }
}

function folder(check: string, path: string): Finding[] {
  const status = lstatSync(path, { throwIfNoEntry: false });
  if (status === undefined) {
    try {
      accessSync(dirname(path), constants.W_OK);
      return [{ check, status: "ok", detail: `${path} will be created` }];
    } catch {
      return [{ check, status: "fail", detail: `${path} does not exist and cannot be created here` }];
    }
  }
  const uid = process.getuid?.();
  if (!status.isDirectory()) return [{ check, status: "fail", detail: `${path} is not a folder` }];
  if (uid !== undefined && status.uid !== uid)
    return [
      {
        check,
        status: "warn",
        detail: `${path} belongs to uid ${status.uid}, this is uid ${uid}: run the gateway and this command as its owner`,
      },
    ];
  const mode = status.mode & 0o777;
  if ((mode & 0o077) !== 0)
    return [{ check, status: "warn", detail: `${path} has mode ${mode.toString(8)}: others can enter it; chmod 700` }];
  return [{ check, status: "ok", detail: path }];
}

function space(path: string): Finding {
  const check = "free space";
  try {
    const existing = lstatSync(path, { throwIfNoEntry: false }) === undefined ? dirname(path) : path;
    const { bavail, bsize } = statfsSync(existing);
    const free = bavail * bsize;
    const detail = `${(free / 1e9).toFixed(1)} GB below ${existing}`;
    return free >= FREE_BYTES
      ? { check, status: "ok", detail }
      : { check, status: "warn", detail: `${detail}: nothing moves when recordings find no room` };
  } catch {
    return { check, status: "warn", detail: `cannot be read for ${path}` };
  }
}

function running(data: string): Finding {
  const holder = dataFolderHolder(data);
  return { check: "gateway", status: "ok", detail: holder === undefined ? "not running" : `running, process ${holder}` };
}

function certificates(config: Config): Finding[] {
  const served: (readonly [string, ServerTls | undefined])[] = [
    ["control", config.control.tls],
    ...config.listeners.map((listener, index) => [`listeners[${index}]`, listener.tls] as const),
  ];
  return served.flatMap(([where, tls]) => (tls === undefined ? [] : [certificate(where, tls)]));
}

function certificate(where: string, tls: ServerTls): Finding {
  const check = "certificate";
  try {
    const { validFrom, validTo } = new X509Certificate(tls.cert);
    const days = (Date.parse(validTo) - Date.now()) / 86_400_000;
    if (Date.parse(validFrom) > Date.now()) return { check, status: "fail", detail: `${where}: not valid before ${validFrom}` };
    if (days <= 0) return { check, status: "fail", detail: `${where}: expired on ${validTo}` };
    return { check, status: days < CERTIFICATE_DAYS ? "warn" : "ok", detail: `${where}: valid until ${validTo}` };
  } catch {
    return { check, status: "fail", detail: `${where}: the certificate cannot be read` };
  }
}

/** The issuer's own clock decides when its tokens expire: its Date header is compared with ours. */
async function issuerAndClock(name: string, issuer: string): Promise<Finding> {
  const check = "issuer and clock";
  try {
    const { statusCode, headers, body } = await request(`${issuer.replace(/\/$/, "")}/.well-known/openid-configuration`, {
      signal: AbortSignal.timeout(ISSUER_MILLIS),
    });
    body.on("error", () => {});
    body.destroy();
    if (statusCode !== 200) return { check, status: "fail", detail: `${name}: its discovery document answers with status ${statusCode}` };
    const apart = Math.round((Date.now() - Date.parse(String(headers.date))) / 1000);
    if (Number.isNaN(apart)) return { check, status: "ok", detail: `${name}: reachable` };
    if (Math.abs(apart) > CLOCK_SECONDS)
      return { check, status: "warn", detail: `${name}: this clock is ${apart} seconds apart from the issuer's; synchronise it` };
    return { check, status: "ok", detail: `${name}: reachable, clocks agree` };
  } catch (thrown) {
    return {
      check,
      status: "fail",
      detail: `${name}: cannot be reached (${(thrown as NodeJS.ErrnoException).code ?? (thrown as Error).name}); nobody can sign in with it`,
    };
  }
}
