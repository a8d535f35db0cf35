import { chmodSync, lstatSync, mkdirSync, renameSync, rmSync } from "node:fs";
import { createServer, type IncomingMessage, type RequestListener, type Server, type ServerResponse } from "node:http";
import { createServer as createTlsServer, type Server as TlsServer } from "node:https";
import { type AddressInfo, connect } from "node:net";
import { userInfo } from "node:os";
import { join } from "node:path";
import { isLoopbackHost } from "../core/config/address.ts";
import type { Config, ListenAddress, ServerTls } from "../core/config/types.ts";
import { type ErrorCode, SluiceError, toSluiceError } from "../core/errors.ts";
import { type Answer, dispatch, failure, readBody } from "./api.ts";
import { lockDataFolder, SOCKET_FILE } from "./data-lock.ts";
import type { GatewayControl } from "./types.ts";

/** Longest path of a Unix socket address: sun_path of unix(7) less its zero. */
const SOCKET_PATH_BYTES = 107;
const REQUEST_MILLIS = 10_000;
const CONNECTIONS_MAX = 256;
const CLOSE_MILLIS = 2_000;

export interface ControlServer {
  /** The socket's path and, where one is configured, host:port of the TCP address. */
  readonly addresses: { readonly socket: string; readonly tcp: string | undefined };
  /** Stops listening, ends connections, removes the socket, releases the data folder. Idempotent. */
  close(): Promise<void>;
}

/**
 * The control API. Over `<data>/control.sock` (0600 in a 0700 folder) everything: reaching it takes the gateway's own user
 * or root, and Node cannot ask which of the two it was, so the socket's owner is put on record. Over TCP only /healthz,
 * /readyz and /metrics.
 * @param config asked again at each connection over TLS, so that a renewed certificate comes into use
 * @throws SluiceError SLUICE_DATA_IN_USE when another gateway works on the data folder; SLUICE_CONFIG_INVALID when the address cannot be bound
 */
export async function startControl(control: GatewayControl, config: Pick<Config, "control">, dataFolder: string): Promise<ControlServer> {
  const lock = lockDataFolder(dataFolder);
  const servers: Server[] = [];
  const socket = join(dataFolder, SOCKET_FILE);
  const stopAll = async (): Promise<void> => {
    await Promise.all(servers.map(stop));
    // Node removes the name it bound, not the one the socket was moved to.
    if (servers.length > 0) rmSync(socket, { force: true });
    lock.release();
  };
  try {
    servers.push(await listenSocket(control, dataFolder, socket));
    const { listen } = config.control;
    let tcp: string | undefined;
    if (listen !== undefined) {
      const server = await listenTcp(control, listen, config);
      servers.push(server);
      const { address, family, port } = server.address() as AddressInfo;
      tcp = family === "IPv6" ? `[${address}]:${port}` : `${address}:${port}`;
    }
    let closing: Promise<void> | undefined;
    return {
      addresses: { socket, tcp },
      close: () => {
        closing ??= stopAll();
        return closing;
      },
    };
  } catch (thrown) {
    await stopAll();
    throw thrown;
  }
}

async function listenSocket(control: GatewayControl, dataFolder: string, socket: string): Promise<Server> {
  // Bound under another name inside a folder of mode 0700, made 0600, then moved: at no time is it open to others, whatever the umask.
  const folder = join(dataFolder, ".control");
  const first = join(folder, "s");
  if (Buffer.byteLength(first) > SOCKET_PATH_BYTES || Buffer.byteLength(socket) > SOCKET_PATH_BYTES) {
    throw new SluiceError(
      "SLUICE_CONFIG_INVALID",
      `data: the path of the control socket is longer than ${SOCKET_PATH_BYTES} bytes: ${socket}`,
      {
        hint: "Choose a data folder with a shorter path.",
      },
    );
  }
  await removeStaleSocket(socket);
  rmSync(folder, { recursive: true, force: true });
  mkdirSync(folder, { mode: 0o700 });
  const by = `local:${localUser()}`;
  const server = harden(createServer(serverOptions, listener(control, { admin: true, by, host: (name) => name === "localhost" })));
  try {
    await bound(server, { path: first }, socket);
    chmodSync(first, 0o600);
    renameSync(first, socket);
  } catch (thrown) {
    await stop(server);
    throw thrown;
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
  return server;
}

/** The data folder's lock has been taken, but the lock file may have been deleted by hand: whoever answers stays. */
async function removeStaleSocket(socket: string): Promise<void> {
  const kind = lstatSync(socket, { throwIfNoEntry: false });
  if (kind === undefined) return;
  if (!kind.isSocket())
    throw new SluiceError("SLUICE_STORE_UNUSABLE", `${socket} exists and is not a socket`, { hint: "Move it out of the data folder." });
  const answered = await new Promise<boolean>((resolve) => {
    const probe = connect(socket);
    probe.setTimeout(1_000, () => finish(true));
    probe.once("connect", () => finish(true));
    probe.once("error", (error) => finish((error as NodeJS.ErrnoException).code !== "ECONNREFUSED"));
    const finish = (answer: boolean) => {
      probe.destroy();
      resolve(answer);
    };
  });
  if (answered) {
    throw new SluiceError("SLUICE_DATA_IN_USE", `another gateway answers on ${socket}`, {
      hint: "Stop that gateway, or give this one another data folder (key data).",
    });
  }
  rmSync(socket, { force: true });
}

async function listenTcp(control: GatewayControl, listen: ListenAddress, config: Pick<Config, "control">): Promise<Server> {
  const { tls } = config.control;
  const loopback = isLoopbackHost(listen.host);
  const name = `${listen.host}:${listen.port}`;
  if (tls === undefined && !loopback) {
    throw new SluiceError("SLUICE_CONFIG_INVALID", `control.listen: ${name} is reachable from elsewhere and has no tls`, {
      hint: "Add control.tls, or listen on 127.0.0.1.",
    });
  }
  // On loopback a browser can be made to come here under a foreign name (DNS rebinding); elsewhere scrapers use names we do not know.
  const handler = listener(control, { admin: false, by: "tcp", host: (host) => !loopback || isLoopbackHost(host) });
  let server: Server;
  try {
    server =
      tls === undefined
        ? createServer(serverOptions, handler)
        : renewing(createTlsServer({ ...serverOptions, ...tlsOptions(tls), handshakeTimeout: REQUEST_MILLIS }, handler), tls, config);
  } catch {
    throw new SluiceError("SLUICE_CONFIG_INVALID", "control.tls: certificate and key cannot be used together", {
      hint: "Check that both are PEM and belong together.",
    });
  }
  return bound(harden(server), { host: listen.host, port: listen.port }, `control.listen: ${name}`);
}

const tlsOptions = ({ cert, key }: ServerTls) => ({ cert, key, minVersion: "TLSv1.2" as const });

/** Take up a certificate that was renewed since the last connection. */
function renewing(server: TlsServer, first: ServerTls, config: Pick<Config, "control">): TlsServer {
  let used = first;
  // Before the server's own listener, which begins the handshake.
  return server.prependListener("connection", () => {
    const { tls } = config.control;
    if (tls === undefined || (tls.cert === used.cert && tls.key === used.key)) return;
    used = tls;
    try {
      server.setSecureContext(tlsOptions(tls));
    } catch {
      // OpenSSL refuses what the load let through (a key that is too short, for one): the earlier certificate serves on.
    }
  });
}

const serverOptions = {
  headersTimeout: REQUEST_MILLIS,
  requestTimeout: REQUEST_MILLIS,
  keepAliveTimeout: REQUEST_MILLIS,
  connectionsCheckingInterval: 1_000,
  maxHeaderSize: 16 * 1024,
  requireHostHeader: true,
};

function harden(server: Server): Server {
  server.maxConnections = CONNECTIONS_MAX;
  server.maxRequestsPerSocket = 1_000;
  server.maxHeadersCount = 64;
  server.on("connect", (_, socket) => socket.destroy());
  server.on("upgrade", (_, socket) => socket.destroy());
  return server;
}

function bound(server: Server, where: { path: string } | { host: string; port: number }, name: string): Promise<Server> {
  return new Promise((resolve, reject) => {
    server.once("error", (error: NodeJS.ErrnoException) => {
      reject(
        new SluiceError("SLUICE_CONFIG_INVALID", `cannot listen on ${name} (${error.code ?? "unknown error"})`, {
          hint: "Is the address free, and does it belong to this machine?",
        }),
      );
    });
    server.listen(where, () => {
      server.removeAllListeners("error");
      server.on("error", () => {});
      resolve(server);
    });
  });
}

function stop(server: Server): Promise<void> {
  return new Promise((resolve) => {
    const deadline = setTimeout(() => server.closeAllConnections(), CLOSE_MILLIS);
    server.close(() => {
      clearTimeout(deadline);
      resolve();
    });
    server.closeIdleConnections();
  });
}

interface Door {
  readonly admin: boolean;
  readonly by: string;
  /** Whether a request may name this host. */
  readonly host: (name: string) => boolean;
}

function listener(control: GatewayControl, door: Door): RequestListener {
  return (request, response) => {
    answer(request, control, door).then(
      (result) => send(request, response, result),
      (thrown: unknown) => send(request, response, failureOf(thrown)),
    );
  };
}

async function answer(request: IncomingMessage, control: GatewayControl, door: Door): Promise<Answer> {
  const target = request.url ?? "/";
  if (!URL.canParse(target, "http://localhost")) return failure(400, "SLUICE_USAGE", "the request's target is not a path");
  const url = new URL(target, "http://localhost");
  const host = request.headers.host ?? "";
  if (!URL.canParse(`http://${host}`) || !door.host(new URL(`http://${host}`).hostname))
    return failure(421, "SLUICE_DENIED", "the request is meant for another host");
  // Pages of browsers have no business here, and every browser says where a changing request comes from.
  if (request.headers.origin !== undefined) return failure(403, "SLUICE_DENIED", "requests from web pages are not accepted");
  let path: string[];
  try {
    path = url.pathname.slice(1).split("/").map(decodeURIComponent);
  } catch {
    return failure(400, "SLUICE_USAGE", "the path is not encoded correctly");
  }
  const body = door.admin ? await readBody(request) : {};
  return dispatch({ method: request.method ?? "", path, body, by: door.by }, control, door.admin);
}

const STATUS: Partial<Readonly<Record<ErrorCode, number>>> = {
  SLUICE_USAGE: 400,
  SLUICE_SUBJECT_INVALID: 400,
  SLUICE_NOT_FOUND: 404,
  SLUICE_LIMIT_EXCEEDED: 413,
  SLUICE_CONFIG_INVALID: 409,
  SLUICE_POLICY_INVALID: 409,
  SLUICE_DRAINING: 503,
};

function failureOf(thrown: unknown): Answer {
  const error = toSluiceError(thrown);
  return failure(STATUS[error.code] ?? 500, error.code, error.message, error.hint);
}

function send(request: IncomingMessage, response: ServerResponse, { status, body }: Answer): void {
  if (response.destroyed) return;
  const isText = typeof body === "string";
  const bytes = Buffer.from(isText ? body : `${JSON.stringify(body)}\n`);
  // A body that was not read to its end cannot be followed by another request.
  if (!request.complete) response.setHeader("connection", "close");
  response.writeHead(status, {
    "content-type": isText ? "text/plain; version=0.0.4; charset=utf-8" : "application/json",
    "content-length": bytes.length,
    "cache-control": "no-store",
    "x-content-type-options": "nosniff",
  });
  response.end(request.method === "HEAD" ? undefined : bytes);
}

function localUser(): string {
  try {
    return userInfo().username;
  } catch {
    // No entry in the user database, as in many containers.
    return `uid-${process.getuid?.() ?? "unknown"}`;
  }
}
