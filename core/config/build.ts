import { createPrivateKey, X509Certificate } from "node:crypto";
import { realpathSync } from "node:fs";
import { availableParallelism } from "node:os";
import { basename, dirname, join, relative, sep } from "node:path";
import { isLoopbackHost, parseHostPort, parseTargetAddress } from "./address.ts";
import type { Inputs } from "./inputs.ts";
import { networkProblem } from "./networks.ts";
import { type Path, type Problems, positionOf } from "./problems.ts";
import type { Config, IssuerConfig, ListenAddress, ListenerConfig, RecordConfig, ServerTls, TargetConfig, TargetTls } from "./types.ts";
import { parseBytes, parseDurationMillis } from "./units.ts";
import type { YamlFile } from "./yaml.ts";

/** What core/config/sluice.schema.json lets through. */
interface RawTls {
  cert: string;
  key: string;
}
export interface RawRecord {
  results?: RecordConfig["results"];
  headBytes?: string;
}
interface RawIssuer {
  name: string;
  type: "oidc";
  issuer: string;
  audience: string | string[];
  groups?: string;
  userClaim?: string;
  algorithms?: string[];
  clockSkewSeconds?: number;
}
interface RawTarget {
  name: string;
  protocol: "postgres";
  address: string;
  database: string;
  user: string;
  password?: string;
  tls?: { mode: TargetTls["mode"]; ca?: string; serverName?: string };
  labels?: Record<string, string>;
  connections?: { max?: number };
  record?: RawRecord;
}
interface RawConfig {
  data: string;
  keys: string;
  workers?: "auto" | number;
  control?: { listen: string; tls?: RawTls };
  listeners: { protocol: "postgres"; listen: string; tls?: RawTls; proxyProtocol?: { from: string[] } }[];
  identity: { onExpiry?: "cut" | "finish"; issuers: RawIssuer[] };
  targets: RawTarget[];
  record?: RawRecord;
  limits?: { sessions?: number; connectionsPerAddress?: number; idle?: string | 0 };
  log?: { level?: Config["log"]["level"] };
}

export const DEFAULT_RECORD: RecordConfig = { results: "head", headBytes: 1_000_000 };
/** As in the schema. Another number of workers is put to work beside the present one, so twice as many need a slot. */
const WORKERS_MAX = 64;
const DEFAULT_ALGORITHMS = ["RS256", "ES256", "PS256", "EdDSA"];

/** Fill in a `record:` block over what holds without it. */
export const mergeRecord = (raw: RawRecord | undefined, base: RecordConfig): RecordConfig => ({
  results: raw?.results ?? base.results,
  headBytes: raw?.headBytes === undefined ? base.headBytes : (parseBytes(raw.headBytes) ?? base.headBytes),
});

/** Turn a document that passed the schema into a Config; what only the whole can show goes to `problems`. */
export function buildConfig(document: YamlFile, inputs: Inputs, problems: Problems): { config: Config } {
  const raw = document.value as RawConfig;
  const add = (path: Path, text: string): void => problems.add(document.file, positionOf(document.positions, path), path, text);
  const data = inputs.absolute(raw.data);
  const keys = inputs.absolute(raw.keys);
  if (isInside(realPath(keys), realPath(data))) add(["keys"], `expected a folder outside data, got ${inputs.show(["keys"], raw.keys)}`);
  const record = buildRecord(raw.record, DEFAULT_RECORD, ["record"]);
  const control = {
    listen: raw.control === undefined ? undefined : listen(raw.control.listen, ["control", "listen"]),
    tls: serverTls(raw.control?.tls, ["control", "tls"]),
  };
  if (control.listen !== undefined && control.tls === undefined && !isLoopbackHost(control.listen.host)) {
    add(["control"], "expected tls (cert, key), got none: without it the control API may listen on a loopback address only");
  }
  const listeners = raw.listeners.map((listener, index) => ({
    protocol: listener.protocol,
    listen: listen(listener.listen, ["listeners", index, "listen"]),
    tls: serverTls(listener.tls, ["listeners", index, "tls"]),
    proxyProtocol: proxyProtocol(listener.proxyProtocol, ["listeners", index, "proxyProtocol"]),
  }));
  const config: Config = {
    file: join(inputs.folder, basename(document.file)),
    data,
    keys,
    workers: typeof raw.workers === "number" ? raw.workers : Math.min(WORKERS_MAX, availableParallelism()),
    control,
    listeners,
    issuers: raw.identity.issuers.map((issuer, index) => buildIssuer(issuer, ["identity", "issuers", index])),
    targets: raw.targets.map((target, index) => buildTarget(target, ["targets", index])),
    record,
    onExpiry: raw.identity.onExpiry ?? "finish",
    limits: {
      sessions: raw.limits?.sessions ?? 10_000,
      connectionsPerAddress: raw.limits?.connectionsPerAddress ?? 0,
      idleMillis: typeof raw.limits?.idle === "string" ? (parseDurationMillis(raw.limits.idle) ?? 0) : 0,
    },
    log: { level: raw.log?.level ?? "info" },
  };
  unique(
    config.issuers.map((issuer) => issuer.name),
    (index) => ["identity", "issuers", index, "name"],
    "name",
  );
  unique(
    config.issuers.map((issuer) => issuer.issuer),
    (index) => ["identity", "issuers", index, "issuer"],
    "issuer",
  );
  unique(
    config.targets.map((target) => target.name),
    (index) => ["targets", index, "name"],
    "name",
  );
  const addresses = [control.listen, ...listeners.map((listener) => listener.listen)];
  unique(
    addresses.map((address) => (address === undefined || address.port === 0 ? undefined : `${address.host}:${address.port}`)),
    (index) => (index === 0 ? ["control", "listen"] : ["listeners", index - 1, "listen"]),
    "address",
  );
  return { config };

  function unique(values: readonly (string | undefined)[], path: (index: number) => Path, what: string): void {
    values.forEach((value, index) => {
      if (value === undefined || values.indexOf(value) === index) return;
      add(
        path(index),
        `expected ${what === "address" ? "an" : "a"} ${what} of its own, got ${inputs.show(path(index), value)} a second time`,
      );
    });
  }

  function listen(text: string, path: Path): ListenAddress {
    const address = parseHostPort(text);
    if (address === undefined) add(path, `expected a port from 0 to 65535, got ${inputs.show(path, text)}`);
    return address ?? { host: "", port: 0 };
  }

  function proxyProtocol(value: { from: string[] } | undefined, path: Path): ListenerConfig["proxyProtocol"] {
    value?.from.forEach((text, index) => {
      const problem = networkProblem(text);
      const where = [...path, "from", index];
      if (problem !== undefined) add(where, `expected ${problem}, got ${inputs.show(where, text)}`);
    });
    return value;
  }

  function buildRecord(value: RawRecord | undefined, base: RecordConfig, path: Path): RecordConfig {
    if (value?.headBytes !== undefined && parseBytes(value.headBytes) === undefined) {
      add([...path, "headBytes"], `expected a whole number of bytes, got ${inputs.show([...path, "headBytes"], value.headBytes)}`);
    }
    return mergeRecord(value, base);
  }

  function serverTls(value: RawTls | undefined, path: Path): ServerTls | undefined {
    if (value === undefined) return undefined;
    const cert = inputs.read(document, [...path, "cert"], value.cert);
    const key = inputs.read(document, [...path, "key"], value.key);
    if (cert === undefined || key === undefined) return undefined;
    if (!isCertificate(cert)) {
      add([...path, "cert"], "expected a PEM file with a certificate, got something else");
      return undefined;
    }
    try {
      if (!new X509Certificate(cert).checkPrivateKey(createPrivateKey(key))) {
        add([...path, "key"], "expected the private key that belongs to cert, got another");
      }
    } catch {
      add([...path, "key"], "expected a PEM file with a private key that is not encrypted, got something else");
    }
    return { cert, key };
  }

  function buildIssuer(issuer: RawIssuer, path: Path): IssuerConfig {
    const url = URL.canParse(issuer.issuer) ? new URL(issuer.issuer) : undefined;
    const shown = inputs.show([...path, "issuer"], issuer.issuer);
    if (url === undefined || url.username !== "" || url.password !== "") {
      // Credentials in the URL are not repeated.
      add([...path, "issuer"], `expected the issuer's URL without user and password${url === undefined ? `, got ${shown}` : ""}`);
    } else if (url.protocol === "http:" && !isLoopbackHost(url.hostname)) {
      add([...path, "issuer"], `expected https (plain http is accepted for loopback hosts only), got ${shown}`);
    }
    return {
      name: issuer.name,
      type: issuer.type,
      issuer: issuer.issuer,
      audience: typeof issuer.audience === "string" ? [issuer.audience] : issuer.audience,
      groupsClaim: issuer.groups ?? "groups",
      userClaim: issuer.userClaim ?? "sub",
      algorithms: issuer.algorithms ?? DEFAULT_ALGORITHMS,
      clockSkewSeconds: issuer.clockSkewSeconds ?? 30,
    };
  }

  function buildTarget(target: RawTarget, path: Path): TargetConfig {
    const address = parseTargetAddress(target.address, inputs.folder);
    if (address === undefined) {
      const got = inputs.show([...path, "address"], target.address);
      add([...path, "address"], `expected host:port, [IPv6]:port or the path of a PostgreSQL socket (at most 107 bytes), got ${got}`);
    }
    const isLocal = address !== undefined && ("path" in address || isLoopbackHost(address.host));
    const mode = target.tls?.mode ?? (isLocal ? "disable" : "verify-full");
    if (address !== undefined && "path" in address && mode !== "disable") {
      add([...path, "tls", "mode"], `expected disable (PostgreSQL has no TLS on sockets), got ${mode}`);
    }
    const ca = target.tls?.ca === undefined ? undefined : inputs.read(document, [...path, "tls", "ca"], target.tls.ca);
    if (ca !== undefined && !isCertificate(ca)) add([...path, "tls", "ca"], "expected a PEM file with certificates, got something else");
    if (ca !== undefined && mode !== "verify-full")
      add([...path, "tls", "ca"], `expected mode verify-full where a ca is named, got ${mode}`);
    return {
      name: target.name,
      protocol: target.protocol,
      address: address ?? { host: "", port: 0 },
      database: target.database,
      user: target.user,
      password: target.password,
      tls: { mode, ca, serverName: target.tls?.serverName },
      labels: target.labels ?? {},
      connections: { max: target.connections?.max ?? 100 },
      record: buildRecord(target.record, record, [...path, "record"]),
    };
  }
}

/** True when every certificate of a PEM file can be read. */
function isCertificate(pem: string): boolean {
  const blocks = pem.match(/-----BEGIN CERTIFICATE-----[^-]+-----END CERTIFICATE-----/g) ?? [];
  try {
    return blocks.length > 0 && blocks.every((block) => new X509Certificate(block).subject !== null);
  } catch {
    return false;
  }
}

/** With symbolic links of the part that exists resolved: a link must not hide where a folder lies. */
function realPath(path: string): string {
  try {
    return realpathSync(path);
  } catch {
    const parent = dirname(path);
    return parent === path ? path : join(realPath(parent), basename(path));
  }
}

function isInside(path: string, folder: string): boolean {
  const way = relative(folder, path);
  return way !== ".." && !way.startsWith(`..${sep}`);
}
