/**
 * The transport: everything that moves session bytes, behind one interface. Two implementations:
 * the native batched pump (core/net/pump.ts) and node:net/node:tls sockets (core/net/sockets.ts); core/net/transport.ts chooses.
 *
 * Bytes handed to onData are valid only until it returns. write() copies into the batch; the batch of one
 * event-loop turn is sent after beforeSend() returned, so whatever must be on record first is.
 */
export interface Transport {
  /** Take over an accepted TCP connection. The descriptor belongs to the wire from here on. */
  adopt(fd: number): Wire;
  /** @throws SluiceError SLUICE_TARGET_UNREACHABLE, SLUICE_DEADLINE */
  connect(address: { readonly host: string; readonly port: number } | { readonly path: string }, deadlineMillis: number): Promise<Wire>;
  /**
   * Called once before the staged bytes of a batch are sent. When it throws, nothing of that batch is sent and every
   * wire with staged bytes gets onUnrecorded.
   */
  beforeSend: () => void;
  /** Told of every exception that a handler threw; its wire was destroyed, the others go on. */
  onFault: (error: unknown) => void;
  /** Close every wire. */
  close(): void;
}

export interface Wire {
  handler: WireHandler;
  /** `address:port` of the peer; empty for Unix sockets. */
  readonly remoteAddress: string;
  readonly isLoopback: boolean;
  readonly encrypted: boolean;
  /** Bytes accepted by write() and not yet taken by the kernel. */
  readonly backlogBytes: number;
  /**
   * Stage a copy of bytes[start, end) for this batch. A batch that fills up is sent from inside this call, so what must be
   * on record before these bytes has to be staged with the recorder first. Ignored after end(), lastWords() and onUnrecorded.
   */
  write(bytes: Uint8Array, start: number, end: number): void;
  pause(): void;
  resume(): void;
  /** Half-close (FIN) after everything staged. */
  end(): void;
  /** Try to send these bytes at once, without a record, and close. For fatal errors only. */
  lastWords(bytes: Uint8Array): void;
  destroy(): void;
  /**
   * Act as TLS server. The handler must stand before: bytes that came with the end of the handshake may be delivered before the
   * promise's continuation runs. The same holds for startTls().
   * @param options a context made once per certificate generation */
  acceptTls(options: TlsServerOptions): Promise<void>;
  /** Act as TLS client. */
  startTls(options: TlsClientOptions): Promise<void>;
  /** Application protocol chosen by ALPN, or undefined. */
  readonly alpn: string | undefined;
  /** DER of the peer's certificate after startTls (channel binding, RFC 5929 tls-server-end-point). */
  peerCertificate(): Uint8Array | undefined;
}

export interface TlsServerOptions {
  readonly cert: string;
  readonly key: string;
  readonly alpn: readonly string[];
  /** Refuse a handshake that negotiates none of `alpn` (direct TLS). */
  readonly requireAlpn: boolean;
  /** Bytes of the ClientHello that were already read from the wire, if any. */
  readonly alreadyRead?: Uint8Array;
}

export interface TlsClientOptions {
  readonly ca: string | undefined;
  readonly serverName: string;
  /** Verify chain and host name; false only where the configuration says `require`. */
  readonly verify: boolean;
  readonly alpn: readonly string[];
}

export interface WireHandler {
  onData(bytes: Uint8Array, start: number, end: number): void;
  /** backlogBytes fell under the low mark after having been above the high one. */
  onDrain(): void;
  /** The peer sent FIN. */
  onEnd(): void;
  /** Exactly once; after it no other call comes. */
  onClose(error: Error | undefined): void;
  /** The batch could not be recorded; its bytes were dropped. */
  onUnrecorded(error: Error): void;
}
