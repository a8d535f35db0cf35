import assert from "node:assert/strict";
import { once } from "node:events";
import type { AddressInfo, Server, Socket } from "node:net";
import { connect, createServer } from "node:net";
import { connect as connectTls } from "node:tls";
import { forward } from "./forward.ts";
import { createPumpTransport } from "./pump.ts";
import { createTransport, type TransportName } from "./transport.ts";
import type { TlsServerOptions, Transport, Wire, WireHandler } from "./types.ts";

/** What the transport's tests share. A wire's events as a test sees them: */
export class Events implements WireHandler {
  readonly received: Buffer[] = [];
  drains = 0;
  ends = 0;
  closes = 0;
  unrecorded = 0;
  error: Error | undefined;
  onBytes: (bytes: Buffer) => void = () => {};
  onEnded: () => void = () => {};
  onDrained: () => void = () => {};
  readonly closed: Promise<void>;
  #tellClosed: () => void = () => {};

  constructor() {
    this.closed = new Promise((resolve) => {
      this.#tellClosed = resolve;
    });
  }
  onData(bytes: Uint8Array, start: number, end: number): void {
    const copy = Buffer.from(bytes.subarray(start, end));
    this.received.push(copy);
    this.onBytes(copy);
  }
  onDrain(): void {
    this.drains += 1;
    this.onDrained();
  }
  onEnd(): void {
    this.ends += 1;
    this.onEnded();
  }
  onClose(error: Error | undefined): void {
    this.closes += 1;
    this.error = error;
    this.#tellClosed();
  }
  onUnrecorded(): void {
    this.unrecorded += 1;
  }
  get text(): string {
    return Buffer.concat(this.received).toString();
  }
}

export const servers: Server[] = [];
const transports: Transport[] = [];
/** Accepting handles; their descriptors belong to the transport, so they must never be closed or collected. */
const accepted: Socket[] = [];

/** End what newTransport() and listen() made. */
export function closeAll(): void {
  for (const transport of transports) transport.close();
  for (const server of servers) server.close();
}

/** What the tests run over: the transports, and the pump that leaves TLS to node:tls. */
export type Kind = TransportName | "pump with node:tls";

export function newTransport(kind: Kind): Transport {
  const transport = kind === "pump with node:tls" ? createPumpTransport({ withoutTls: true }) : createTransport(kind);
  transports.push(transport);
  return transport;
}

export async function listen(onSocket: (socket: Socket) => void, options: object = { allowHalfOpen: true }): Promise<number> {
  const server = createServer(options, onSocket);
  servers.push(server);
  await once(server.listen(0, "127.0.0.1"), "listening");
  return (server.address() as AddressInfo).port;
}

/** A listener whose connections the transport adopts by descriptor, as the acceptor hands them over. */
export async function listenAdopting(transport: Transport, onWire: (wire: Wire) => void): Promise<number> {
  return listen(
    (socket) => {
      accepted.push(socket);
      onWire(transport.adopt((socket as unknown as { _handle: { fd: number } })._handle.fd));
    },
    { pauseOnConnect: true, allowHalfOpen: true },
  );
}

export interface WirePair {
  readonly wire: Wire;
  readonly events: Events;
  readonly peer: Socket;
}

/** Wires whose peers are plain sockets of this process, in the order in which they were connected. */
export async function wirePairs(transport: Transport, count: number): Promise<WirePair[]> {
  const adopted: Wire[] = [];
  const port = await listenAdopting(transport, (wire) => adopted.push(wire));
  const pairs: WirePair[] = [];
  for (let i = 0; i < count; i++) {
    const peer = connect({ port, host: "127.0.0.1", allowHalfOpen: true });
    peer.on("error", () => {});
    peer.setNoDelay(true);
    await once(peer, "connect");
    await until(() => adopted.length === i + 1, "the connection");
    const events = new Events();
    const wire = adopted[i] as Wire;
    wire.handler = events;
    pairs.push({ wire, events, peer });
  }
  return pairs;
}

/** TLS between both ends, which are connected. @returns the peer's end; the certificate names localhost */
export async function secured(wire: Wire, peer: Socket, certificate: Pick<TlsServerOptions, "cert" | "key">): Promise<Socket> {
  const tls = connectTls({ socket: peer, ca: certificate.cert, servername: "localhost" });
  tls.on("error", () => {});
  await Promise.all([wire.acceptTls({ ...certificate, alpn: [], requireAlpn: false }), once(tls, "secureConnect")]);
  return tls;
}

export async function until(condition: () => boolean, what: string, millis = 5_000): Promise<void> {
  const end = Date.now() + millis;
  while (!condition()) {
    if (Date.now() > end) assert.fail(`not within ${millis} ms: ${what}`);
    await new Promise((resolve) => setTimeout(resolve, 2));
  }
}

export const bytesOf = (text: string): Uint8Array => Buffer.from(text);
export const send = (wire: Wire, text: string): void => wire.write(bytesOf(text), 0, Buffer.byteLength(text));

/** client ↔ adopted wire ↔ connected wire ↔ server: the shape of a session. @param tls with the client */
export async function relay(transport: Transport, serverPort: number, tls?: TlsServerOptions): Promise<number> {
  return listenAdopting(transport, async (front) => {
    if (tls !== undefined) await front.acceptTls(tls);
    const back = new Promise<Wire>((resolve) => {
      void transport.connect({ host: "127.0.0.1", port: serverPort }, 1_000).then(resolve);
    });
    const early: Buffer[] = [];
    front.handler = { ...forward(front, front), onData: (bytes, start, end) => void early.push(Buffer.from(bytes.subarray(start, end))) };
    const other = await back;
    front.handler = forward(front, other);
    other.handler = forward(other, front);
    for (const bytes of early) other.write(bytes, 0, bytes.length);
  });
}

/** A server that pours `total` bytes over whoever comes, as fast as they are taken. */
export function listenPouring(total: number): Promise<number> {
  const chunk = Buffer.alloc(256 * 1024, "0123456789abcdef-");
  return listen((socket) => {
    let poured = 0;
    const pour = (): void => {
      while (poured < total && socket.write(chunk)) poured += chunk.length;
      if (poured >= total) socket.end();
      else poured += chunk.length;
    };
    socket.on("drain", pour).on("error", () => {});
    pour();
  });
}
