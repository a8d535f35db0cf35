import { readdirSync, readFileSync } from "node:fs";
import { request } from "node:http";
import type { LiveSession } from "../../control/types.ts";
import type { AuditEvent } from "../../store/types.ts";
import { type RawClient, type RawOptions, rawConnect } from "../clients/raw.ts";
import { type Gateway, type GatewayOptions, postgresTarget, startGateway } from "../helpers/gateway.ts";
import { startTestIssuer, type TestIssuer, type TokenRequest } from "../helpers/issuer.ts";
import { type PostgresOptions, type PostgresServer, startPostgres } from "../helpers/postgres.ts";
import { waitFor } from "../helpers/processes.ts";

export const ALLOW_ALL = "version: 1\nrules:\n  - { name: all, effect: allow }\n";

/** One server, one issuer, one gateway with target `db` and two workers. */
export interface Rig {
  readonly server: PostgresServer;
  readonly issuer: TestIssuer;
  readonly gateway: Gateway;
  /** A raw session through the gateway; `startup` says whether it was let in. */
  connect(request?: TokenRequest, options?: Partial<RawOptions>): Promise<RawClient>;
  stop(): Promise<void>;
}

export type RigOptions = Partial<Omit<GatewayOptions, "issuer">> & { readonly postgres?: PostgresOptions };

export async function startRig(options: RigOptions = {}): Promise<Rig> {
  const { postgres, ...rest } = options;
  const [server, issuer] = await Promise.all([startPostgres(postgres), startTestIssuer()]);
  const stopBoth = () => Promise.all([server.stop(), issuer.stop()]);
  const gateway = await startGateway({ policy: ALLOW_ALL, targets: [postgresTarget("db", server)], ...rest, issuer }).catch(
    async (error: unknown) => {
      await stopBoth();
      throw error;
    },
  );
  return {
    server,
    issuer,
    gateway,
    connect: async (request = {}, overrides = {}) =>
      rawConnect({ port: gateway.port, database: "db", password: await issuer.token(request), ...overrides }),
    stop: async () => {
      await gateway.stop();
      await stopBoth();
    },
  };
}

/** One request to the control API, over its socket. */
export function control<T>(gateway: Gateway, method: string, path: string, body?: unknown): Promise<{ status: number; body: T }> {
  return new Promise((resolve, reject) => {
    const call = request({
      socketPath: String(gateway.ready["socket"]),
      method,
      path,
      headers: { host: "localhost", "content-type": "application/json" },
    });
    call.once("error", reject);
    call.once("response", (answer) => {
      const chunks: Buffer[] = [];
      answer.on("data", (chunk: Buffer) => chunks.push(chunk));
      answer.once("error", reject);
      answer.once("end", () => {
        const text = Buffer.concat(chunks).toString();
        resolve({ status: answer.statusCode ?? 0, body: (text.startsWith("{") ? JSON.parse(text) : text) as T });
      });
    });
    call.end(body === undefined ? undefined : JSON.stringify(body));
  });
}

export const liveSessions = async (gateway: Gateway): Promise<readonly LiveSession[]> =>
  (await control<{ sessions: readonly LiveSession[] }>(gateway, "GET", "/v1/sessions")).body.sessions;

export interface Health {
  readonly ready: boolean;
  readonly workers: number;
  readonly sessions: number;
  readonly configGeneration: number;
  readonly reloadError?: string;
}

export const health = async (gateway: Gateway): Promise<Health> => (await control<Health>(gateway, "GET", "/v1/health")).body;

/** Value of one sample; `sample` is the name with its labels as it is printed. 0 where it is not printed. */
export async function metric(gateway: Gateway, sample: string): Promise<number> {
  const { body } = await control<string>(gateway, "GET", "/metrics");
  const line = body.split("\n").find((each) => each.startsWith(`${sample} `));
  return line === undefined ? 0 : Number(line.slice(sample.length + 1));
}

export const descriptors = (pid: number): number => readdirSync(`/proc/${pid}/fd`).length;

/** Resident memory in MiB. */
export const residentMiB = (pid: number): number => Number(/VmRSS:\s+(\d+)/.exec(readFileSync(`/proc/${pid}/status`, "utf8"))?.[1]) / 1024;

/** Audit events as `sluice audit tail` prints them. */
export async function auditEvents(gateway: Gateway, since?: string): Promise<AuditEvent[]> {
  const { stdout, stderr, code } = await gateway.cli(
    ["audit", "tail", "--format", "json", ...(since === undefined ? [] : ["--since", since])],
    { timeoutMillis: 60_000 },
  );
  if (code !== 0) throw new Error(`audit tail ended with ${code}: ${stderr}`);
  return stdout
    .split("\n")
    .filter((line) => line !== "")
    .map((line) => JSON.parse(line) as AuditEvent);
}

/** Server processes that work for clients, other than the gateway's catalogue connections and the asking one. */
export async function backends(server: PostgresServer): Promise<number> {
  const [row] = await server.query<{ count: number }>(
    "select count(*)::int from pg_stat_activity where backend_type = 'client backend' and pid <> pg_backend_pid()",
  );
  return row?.count ?? 0;
}

/** Nothing is left of earlier sessions, and a new one works. */
export async function assertHealthy(rig: Rig, baseline?: { descriptors: number; slack?: number }): Promise<void> {
  await waitFor("no session is left", async () => (await liveSessions(rig.gateway)).length === 0);
  await waitFor("no backend is left", async () => (await backends(rig.server)) === 0).catch(async (error: unknown) => {
    const left = await rig.server.query(
      "select application_name, state, wait_event, left(query, 80) as query, now() - backend_start as age from pg_stat_activity where backend_type = 'client backend'",
    );
    throw new Error(`backends are left: ${JSON.stringify(left)}`, { cause: error });
  });
  const client = await rig.connect();
  const answer = await client.query("select 42");
  if (answer.map((frame) => frame.type).join("") !== "TDCZ") throw new Error("the gateway does not serve");
  client.close();
  await waitFor("the last session is gone", async () => (await liveSessions(rig.gateway)).length === 0);
  if (baseline === undefined) return;
  const most = baseline.descriptors + (baseline.slack ?? 3);
  await waitFor(`descriptors are back at ${most}`, () => descriptors(rig.gateway.pid) <= most, 5_000).catch((error: unknown) => {
    throw new Error(`${descriptors(rig.gateway.pid)} descriptors, ${baseline.descriptors} before`, { cause: error });
  });
}

/** SQLSTATE of the error that ended or refused a connection, undefined when there was none. */
export function sqlStateOf(frames: readonly { readonly type: string; readonly body: Buffer }[]): string | undefined {
  const error = frames.find((frame) => frame.type === "E");
  return error === undefined ? undefined : /\0C([0-9A-Z]{5})\0/.exec(`\0${error.body.toString("latin1")}`)?.[1];
}
