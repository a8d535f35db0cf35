import type { IncomingMessage } from "node:http";
import { SluiceError } from "../core/errors.ts";
import type { GatewayControl } from "./types.ts";

/** A request's body at most. */
export const BODY_BYTES = 64 * 1024;
const REASON_CHARACTERS = 1_000;
/** A lock's time to live at most: ten years, in seconds. */
const TTL_SECONDS_MAX = 315_360_000;

export interface Answer {
  readonly status: number;
  /** A string is sent as text, anything else as JSON. */
  readonly body: unknown;
}

/** One request, read and checked as far as every route needs it. */
export interface Call {
  readonly method: string;
  /** Decoded segments of the path. */
  readonly path: readonly string[];
  readonly body: Readonly<Record<string, unknown>>;
  /** Who is recorded for it. */
  readonly by: string;
}

type Route = (call: Call, control: GatewayControl) => Answer | Promise<Answer>;

/** Method and path shape → handler; `*` stands for one segment. What is not listed is refused. */
const ROUTES: Readonly<Record<string, Readonly<Record<string, Route>>>> = {
  "v1/health": { GET: (_, control) => ({ status: 200, body: control.health() }) },
  "v1/sessions": { GET: (_, control) => ({ status: 200, body: { sessions: control.sessions() } }) },
  "v1/sessions/*": { GET: showSession },
  "v1/sessions/*/kill": { POST: killSession },
  "v1/locks": { GET: (_, control) => ({ status: 200, body: { locks: control.locks() } }), POST: addLock },
  "v1/locks/*": { DELETE: removeLock },
  "v1/reload": { POST: reload },
};

/** What anybody who reaches the address may ask: it names no user, target address or statement text. */
const PUBLIC_ROUTES: typeof ROUTES = {
  healthz: { GET: () => ({ status: 200, body: "ok\n" }) },
  readyz: { GET: ready },
  metrics: { GET: async (_, control) => ({ status: 200, body: await control.metrics() }) },
};

/** @throws SluiceError for what the caller did wrong; anything else is a fault of the gateway */
export function dispatch(call: Call, control: GatewayControl, admin: boolean): Answer | Promise<Answer> {
  const methods = match(PUBLIC_ROUTES, call.path) ?? match(ROUTES, call.path);
  if (methods === undefined) return failure(404, "SLUICE_NOT_FOUND", "there is nothing at this path");
  if (!admin && match(PUBLIC_ROUTES, call.path) === undefined) {
    return failure(
      403,
      "SLUICE_DENIED",
      "administration goes through the Unix socket control.sock in the data folder; this address serves /healthz, /readyz and /metrics",
    );
  }
  // HEAD is GET whose body the server leaves out (RFC 9110 §9.3.2).
  const route = methods[call.method === "HEAD" ? "GET" : call.method];
  if (route === undefined) return failure(405, "SLUICE_USAGE", `this path takes ${Object.keys(methods).join(" and ")}`);
  return route(call, control);
}

export const failure = (status: number, code: string, message: string, hint?: string): Answer => ({
  status,
  body: { error: { code, message, hint } },
});

function match(routes: typeof ROUTES, path: readonly string[]): Readonly<Record<string, Route>> | undefined {
  for (const [shape, methods] of Object.entries(routes)) {
    const parts = shape.split("/");
    if (parts.length === path.length && parts.every((part, index) => (part === "*" ? path[index] !== "" : part === path[index])))
      return methods;
  }
  return undefined;
}

function ready(_: Call, control: GatewayControl): Answer {
  const health = control.health();
  if (health.ready && !health.draining) return { status: 200, body: "ready\n" };
  return { status: 503, body: health.draining ? "draining\n" : "not ready\n" };
}

function showSession({ path }: Call, control: GatewayControl): Answer {
  const session = control.sessions().find((candidate) => candidate.id === path[2]);
  return session === undefined ? noSession(path[2]) : { status: 200, body: { session } };
}

async function killSession({ path, body, by }: Call, control: GatewayControl): Promise<Answer> {
  known(body, ["reason"]);
  const id = path[2] ?? "";
  const killed = await control.kill(id, text(body, "reason", REASON_CHARACTERS) ?? "ended by an operator", by);
  return killed ? { status: 200, body: { killed: true, session: id } } : noSession(id);
}

const noSession = (id: string | undefined): Answer => failure(404, "SLUICE_NOT_FOUND", `no live session has the id ${JSON.stringify(id)}`);

async function addLock({ body, by }: Call, control: GatewayControl): Promise<Answer> {
  known(body, ["subject", "reason", "ttlSeconds"]);
  const subject = text(body, "subject", REASON_CHARACTERS);
  if (subject === undefined) throw usage("subject is missing; write for example user:corp:alice");
  const { ttlSeconds } = body;
  if (ttlSeconds !== undefined && !(typeof ttlSeconds === "number" && ttlSeconds > 0 && ttlSeconds <= TTL_SECONDS_MAX)) {
    throw usage(`ttlSeconds must be a number above 0 and at most ${TTL_SECONDS_MAX}`);
  }
  const added = await control.addLock({
    subject,
    reason: text(body, "reason", REASON_CHARACTERS) ?? "",
    by,
    expiresMillis: ttlSeconds === undefined ? undefined : Date.now() + ttlSeconds * 1000,
  });
  return { status: 201, body: added };
}

async function removeLock({ path, by }: Call, control: GatewayControl): Promise<Answer> {
  const id = path[2] ?? "";
  if (await control.removeLock(id, by)) return { status: 200, body: { removed: true, lock: id } };
  return failure(404, "SLUICE_NOT_FOUND", `no lock has the id ${JSON.stringify(id)}`);
}

async function reload({ by }: Call, control: GatewayControl): Promise<Answer> {
  const result = await control.reload(by);
  return result.ok
    ? { status: 200, body: result }
    : failure(409, "SLUICE_CONFIG_INVALID", result.error, "The old configuration stays in force.");
}

const usage = (message: string): SluiceError => new SluiceError("SLUICE_USAGE", message);

function known(body: Call["body"], keys: readonly string[]): void {
  const stranger = Object.keys(body).find((key) => !keys.includes(key));
  if (stranger !== undefined)
    throw usage(`the body has an unknown key ${JSON.stringify(stranger.slice(0, 60))}; known are ${keys.join(", ")}`);
}

function text(body: Call["body"], key: string, charactersMax: number): string | undefined {
  const value = body[key];
  if (value === undefined) return undefined;
  if (typeof value !== "string") throw usage(`${key} must be a string`);
  if (value.length > charactersMax) throw usage(`${key} is longer than ${charactersMax} characters`);
  return value;
}

/** Read a JSON object, or `{}` where there is no body. @throws SluiceError SLUICE_USAGE, SLUICE_LIMIT_EXCEEDED */
export async function readBody(request: IncomingMessage): Promise<Readonly<Record<string, unknown>>> {
  const chunks: Buffer[] = [];
  let bytes = 0;
  // Leaving the loop must not destroy the connection: the answer still has to go out.
  for await (const chunk of request.iterator({ destroyOnReturn: false })) {
    bytes += (chunk as Buffer).length;
    if (bytes > BODY_BYTES) throw new SluiceError("SLUICE_LIMIT_EXCEEDED", `the body is larger than ${BODY_BYTES} bytes`);
    chunks.push(chunk as Buffer);
  }
  if (bytes === 0) return {};
  if (!/^application\/json\b/i.test(request.headers["content-type"] ?? "")) throw usage("a body must be of type application/json");
  try {
    const value: unknown = JSON.parse(Buffer.concat(chunks).toString("utf8"));
    if (typeof value === "object" && value !== null && !Array.isArray(value)) return value as Readonly<Record<string, unknown>>;
  } catch {
    // Falls through to the same answer as another kind of JSON value.
  }
  throw usage("the body is not a JSON object");
}
