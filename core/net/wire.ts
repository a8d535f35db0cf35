import type { Socket } from "node:net";
import { isIP } from "node:net";
import { checkServerIdentity, connect as connectTls, type PeerCertificate, TLSSocket } from "node:tls";
import { SluiceError } from "../errors.ts";
import { LIMITS } from "../limits.ts";
import type { Page, SocketTransport } from "./sockets.ts";
import type { TlsClientOptions, TlsServerOptions, Wire, WireHandler } from "./types.ts";

/** How long a connection may take to deliver its last words before it is cut. */
export const LINGER_MILLIS = 1_000;
const NOTHING = new Uint8Array(0);

/** Before a caller has set its own, and after the wire closed. */
export const NO_HANDLER: WireHandler = {
  onData: () => {
    throw new SluiceError("SLUICE_INTERNAL", "bytes arrived on a connection that nobody reads");
  },
  onDrain: () => {},
  onEnd: () => {},
  onClose: () => {},
  onUnrecorded: () => {},
};

/** One connection of the socket transport. */
export class SocketWire implements Wire {
  handler: WireHandler = NO_HANDLER;
  remoteAddress = "";
  isLoopback = false;

  readonly #transport: SocketTransport;
  /** The TCP or Unix socket. */
  #raw!: Socket;
  /** What is read and written: #raw, or the TLS socket around it. */
  #socket!: Socket;
  #tls: TLSSocket | undefined;
  /** open: in use. ending: FIN is ordered, reads go on. closing: nothing more is told or taken. closed: onClose was called. */
  #state: "open" | "ending" | "closing" | "closed" = "open";
  #unrecorded = false;
  #error: Error | undefined;
  #linger: NodeJS.Timeout | undefined;

  /** Runs of the batch's page that belong to this wire; nearly always one, the others are pairs in #moreRuns. */
  #runStart = 0;
  #runEnd = 0;
  readonly #moreRuns: number[] = [];
  #staged = 0;
  #isDirty = false;
  #endAfterBatch = false;
  /** Unsent bytes right after the last send; together with what was staged since, the most the backlog can have been. */
  #queuedAtSend = 0;
  #wasHigh = false;

  constructor(transport: SocketTransport) {
    this.#transport = transport;
  }

  attach(socket: Socket, isLocal: boolean): void {
    this.#raw = socket;
    this.#socket = socket;
    const address = socket.remoteAddress;
    // No address means a Unix socket, or a peer that has already gone: only the caller knows which.
    this.isLoopback = address === undefined ? isLocal : isLoopbackAddress(address);
    if (address !== undefined)
      this.remoteAddress = address.includes(":") ? `[${address}]:${socket.remotePort}` : `${address}:${socket.remotePort}`;
    this.#listen(socket);
  }

  get encrypted(): boolean {
    return this.#tls !== undefined;
  }

  get backlogBytes(): number {
    return this.#staged + this.#socket.writableLength;
  }

  get writable(): boolean {
    return this.#state === "open" && !this.#unrecorded;
  }

  get alpn(): string | undefined {
    return this.#tls?.alpnProtocol || undefined;
  }

  peerCertificate(): Uint8Array | undefined {
    return this.#tls?.getPeerX509Certificate()?.raw;
  }

  write(bytes: Uint8Array, start: number, end: number): void {
    this.#transport.stage(this, bytes, start, end);
  }

  pause(): void {
    this.#socket.pause();
  }

  resume(): void {
    if (this.#state === "open" || this.#state === "ending") this.#socket.resume();
  }

  end(): void {
    if (this.#state !== "open") return;
    this.#state = "ending";
    this.#endAfterBatch = true;
    this.#dirty();
  }

  lastWords(bytes: Uint8Array): void {
    if (this.#state === "closing" || this.#state === "closed") return;
    // What is staged comes first, so that a message begun there is whole; if it cannot be recorded it is dropped.
    this.#transport.flush();
    const canWrite = this.#state === "open" && !this.#socket.destroyed;
    this.#state = "closing";
    if (!canWrite) return this.destroy();
    this.#socket.end(Buffer.from(bytes));
    // Reading on keeps the kernel from answering the peer's late bytes with a reset, which would take the last words with it.
    this.#socket.resume();
    this.#linger = setTimeout(() => this.#socket.destroy(), LINGER_MILLIS);
  }

  destroy(): void {
    if (this.#state === "closed") return;
    this.#state = "closing";
    this.#dropRuns();
    this.#socket.destroy();
  }

  acceptTls(options: TlsServerOptions): Promise<void> {
    return this.#upgrade("SLUICE_PROTOCOL_VIOLATION", () => {
      if (options.alreadyRead !== undefined && options.alreadyRead.length > 0) this.#raw.unshift(Buffer.from(options.alreadyRead));
      return {
        event: "secure",
        socket: new TLSSocket(this.#raw, {
          isServer: true,
          secureContext: this.#transport.contexts.server(options),
          ALPNProtocols: [...options.alpn],
          ...{ highWaterMark: LIMITS.backlogLowBytes },
        }),
        check: (socket) =>
          options.requireAlpn && !socket.alpnProtocol
            ? "the client did not ask for any of the application protocols offered here"
            : undefined,
      };
    });
  }

  startTls(options: TlsClientOptions): Promise<void> {
    return this.#upgrade("SLUICE_TARGET_UNREACHABLE", () => ({
      event: "secureConnect",
      socket: connectTls({
        socket: this.#raw,
        host: options.serverName,
        // RFC 6066: server_name never carries an address; identity is then checked against the certificate's IP entries.
        servername: isIP(options.serverName) === 0 ? options.serverName : "",
        secureContext: this.#transport.contexts.client(options),
        rejectUnauthorized: options.verify,
        checkServerIdentity: (_host, certificate) => checkName(options.serverName, certificate),
        ALPNProtocols: [...options.alpn],
        ...{ highWaterMark: LIMITS.backlogLowBytes },
      }),
      check: () => undefined,
    }));
  }

  /** Bytes that the transport read for this wire. */
  received(bytes: Uint8Array, count: number): void {
    if (this.#tls === undefined) this.#deliver(bytes, count);
  }

  /** @returns true when the wire was not among those to be sent yet */
  addRun(start: number, end: number): boolean {
    if (this.#staged > 0 && this.#moreRuns.length === 0 && this.#runEnd === start) {
      this.#runEnd = end;
    } else if (this.#staged === 0) {
      this.#runStart = start;
      this.#runEnd = end;
    } else {
      const last = this.#moreRuns.length - 1;
      if (last > 0 && this.#moreRuns[last] === start) this.#moreRuns[last] = end;
      else this.#moreRuns.push(start, end);
    }
    this.#staged += end - start;
    // Noted as soon as backlogBytes shows it: by the time of the send some may have left, and a peer that was paused would wait for ever.
    if (this.#staged + this.#queuedAtSend >= LIMITS.backlogHighBytes) this.#wasHigh = true;
    if (this.#isDirty) return false;
    this.#isDirty = true;
    return true;
  }

  /** Hand the staged runs to the socket. @returns true when the socket goes on using the page */
  send(page: Page): boolean {
    this.#isDirty = false;
    const { buffer: bytes } = page;
    let usesPage = false;
    if (this.#staged > 0) {
      const more = this.#moreRuns;
      // A TLS socket may keep a chunk until earlier records have left. A plain socket that is already blocked gets its own copy
      // too: otherwise every small write to a slow reader would hold a whole page.
      const copies = this.#tls !== undefined || this.#socket.writableLength > 0;
      this.#staged = 0;
      if (more.length === 0) {
        this.#socket.write(
          copies ? Buffer.from(bytes.subarray(this.#runStart, this.#runEnd)) : bytes.subarray(this.#runStart, this.#runEnd),
        );
      } else {
        this.#socket.cork();
        more.unshift(this.#runStart, this.#runEnd);
        for (let i = 0; i < more.length; i += 2) {
          const run = bytes.subarray(more[i]!, more[i + 1]!);
          this.#socket.write(copies ? Buffer.from(run) : run);
        }
        more.length = 0;
        this.#socket.uncork();
      }
      this.#queuedAtSend = this.#socket.writableLength;
      usesPage = !copies && this.#queuedAtSend > 0;
      // Its callback comes when everything before it has been taken, or never will be.
      if (usesPage) this.#socket.write(NOTHING, () => this.#transport.release(page));
      if (this.#wasHigh && this.#queuedAtSend < LIMITS.backlogLowBytes) this.#transport.drained(this);
    }
    if (this.#endAfterBatch) {
      this.#endAfterBatch = false;
      this.#socket.end();
    }
    return usesPage;
  }

  /** The batch was not recorded: its bytes never leave, and nothing may follow the gap. */
  drop(error: Error): void {
    this.#isDirty = false;
    const hadBytes = this.#staged > 0;
    this.#dropRuns();
    const endsToo = this.#endAfterBatch;
    this.#endAfterBatch = false;
    if (!hadBytes) {
      if (endsToo) this.#socket.end();
      return;
    }
    if (this.#state === "ending") this.#state = "open";
    this.#unrecorded = true;
    // Not from here: the flush may stand inside a handler's write().
    queueMicrotask(() => {
      if (this.#state !== "open") return;
      this.#guard(() => this.handler.onUnrecorded(error));
    });
  }

  tellDrained(): void {
    if (!this.#wasHigh || this.backlogBytes >= LIMITS.backlogLowBytes) return;
    this.#wasHigh = false;
    if (this.#state === "open") this.#guard(() => this.handler.onDrain());
  }

  #dirty(): void {
    if (this.#isDirty) return;
    this.#isDirty = true;
    this.#transport.markDirty(this);
  }

  #dropRuns(): void {
    this.#staged = 0;
    this.#moreRuns.length = 0;
  }

  #deliver(bytes: Uint8Array, count: number): void {
    if (this.#state === "closing" || this.#state === "closed") return;
    try {
      this.handler.onData(bytes, 0, count);
    } catch (error) {
      this.#fault(error);
    }
  }

  #guard(call: () => void): void {
    try {
      call();
    } catch (error) {
      this.#fault(error);
    }
  }

  #fault(error: unknown): void {
    this.#error ??= error instanceof Error ? error : new Error("a handler failed");
    this.destroy();
    this.#transport.onFault(error);
  }

  #listen(socket: Socket): void {
    socket.on("error", (error) => {
      this.#error ??= error;
    });
    socket.on("drain", () => {
      this.#queuedAtSend = 0;
      this.tellDrained();
    });
    socket.on("end", () => {
      if (this.#socket !== socket) return;
      if (this.#state === "open" || this.#state === "ending") this.#guard(() => this.handler.onEnd());
    });
    socket.on("close", () => {
      if (this.#socket === socket) this.#closed();
    });
  }

  #closed(): void {
    if (this.#state === "closed") return;
    this.#state = "closed";
    clearTimeout(this.#linger);
    this.#dropRuns();
    this.#transport.forget(this);
    try {
      this.handler.onClose(this.#error);
    } catch (error) {
      this.#transport.onFault(error);
    }
    this.handler = NO_HANDLER;
  }

  async #upgrade(code: "SLUICE_PROTOCOL_VIOLATION" | "SLUICE_TARGET_UNREACHABLE", begin: () => Upgrade): Promise<void> {
    if (this.#tls !== undefined || this.#state !== "open") throw new SluiceError(code, "TLS cannot start on this connection now");
    // From here on the socket's bytes are TLS records.
    this.#raw.pause();
    this.#transport.flush();
    if (!this.writable || this.#raw.destroyed || this.#raw.readableEnded) {
      this.destroy();
      throw new SluiceError(code, "the connection closed before TLS started");
    }
    const { socket, event, check } = this.#begin(begin);
    this.#tls = socket;
    this.#socket = socket;
    this.#listen(socket);
    await new Promise<void>((resolve, reject) => {
      let settled = false;
      const fail = (reason: string): void => {
        settled = true;
        reject(new SluiceError(code, `TLS handshake failed: ${reason}`));
        this.destroy();
      };
      const onFirst = (name: string, listener: (error: NodeJS.ErrnoException) => void): void => {
        socket.once(name, (error) => {
          if (!settled) listener(error);
        });
      };
      onFirst(event, () => {
        const refusal = check(socket);
        if (refusal !== undefined) return fail(refusal);
        settled = true;
        // A TLS socket without a tls.Server only reports its later errors; acting on them is ours.
        socket.on("_tlsError", (error: Error) => socket.destroy(error));
        socket.on("data", (chunk: Buffer) => this.#deliver(chunk, chunk.length));
        resolve();
      });
      onFirst("error", (error) => fail(reasonOf(error)));
      onFirst("_tlsError", (error) => fail(reasonOf(error)));
      onFirst("end", () => fail("the peer closed the connection"));
      onFirst("close", () => fail("the peer closed the connection"));
    });
  }

  #begin(begin: () => Upgrade): Upgrade {
    try {
      return begin();
    } catch (thrown) {
      this.destroy();
      throw new SluiceError("SLUICE_INTERNAL", "TLS cannot start: certificate, key or trusted roots are unusable", { cause: thrown });
    }
  }
}

interface Upgrade {
  readonly socket: TLSSocket;
  readonly event: "secure" | "secureConnect";
  /** Why the finished handshake is refused all the same. */
  readonly check: (socket: TLSSocket) => string | undefined;
}

/** OpenSSL's reason without its library and file names, or the system's code. */
function reasonOf(error: NodeJS.ErrnoException & { reason?: string }): string {
  return error.reason ?? error.code ?? error.message;
}

export function isLoopbackAddress(address: string): boolean {
  return address.startsWith("127.") || address === "::1" || address.startsWith("::ffff:127.");
}

/** To node:tls an empty name is localhost, and a wildcard stands for the nothing before a name's first dot. */
function checkName(name: string, certificate: PeerCertificate): Error | undefined {
  if (/^$|^\.|\.\./.test(name)) return new Error(`"${name}" is no host name`);
  return checkServerIdentity(name, certificate);
}
