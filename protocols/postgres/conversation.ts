import { SluiceError } from "../../core/errors.ts";
import { LIMITS } from "../../core/limits.ts";
import type { TlsClientOptions, TlsServerOptions, Wire } from "../../core/net/types.ts";

export interface ConversationOptions {
  /** Largest length field of one typed message; default LIMITS.handshakeMessageBytes. */
  readonly maxMessageBytes?: number;
  /** The whole conversation ends within this; then everything that waits fails with SLUICE_DEADLINE. */
  readonly deadlineMillis: number;
  /** What the errors call the other side; default `peer`. */
  readonly peer?: string;
  /** Bytes that an earlier reader of the wire left over. */
  readonly leftover?: Uint8Array;
}

export interface TypedMessage {
  readonly type: number;
  /** Without type and length; the reader's own copy. */
  readonly body: Uint8Array;
}

const HEADER_BYTES = 5;
/** Length field and protocol version or request code. */
const SHORTEST_STARTUP_BYTES = 8;

/**
 * Reads whole messages from a wire, one promise each. For handshakes and side connections only: the relay keeps to framers
 * without promises. One reader at a time. What arrives unasked is kept up to one message's size, then the wire is paused.
 */
export class Conversation {
  readonly wire: Wire;
  readonly #maxMessageBytes: number;
  readonly #peer: string;
  readonly #deadline: NodeJS.Timeout;
  #buffer: Buffer = Buffer.alloc(0);
  #start = 0;
  #end = 0;
  #paused = false;
  #released = false;
  /** Why nothing more can be read, once what is buffered has been. */
  #failure: SluiceError | undefined;
  #wanted = 0;
  #waiter: { readonly resolve: () => void; readonly reject: (error: SluiceError) => void } | undefined;

  /** Takes over the wire's handler. */
  constructor(wire: Wire, options: ConversationOptions) {
    this.wire = wire;
    this.#maxMessageBytes = options.maxMessageBytes ?? LIMITS.handshakeMessageBytes;
    this.#peer = options.peer ?? "peer";
    if (options.leftover !== undefined) {
      this.#buffer = Buffer.from(options.leftover);
      this.#end = this.#buffer.length;
    }
    this.#deadline = setTimeout(() => {
      // Late is late: bytes that arrived meanwhile do not count.
      this.#start = this.#end;
      this.#fail(new SluiceError("SLUICE_DEADLINE", `the ${this.#peer} did not finish its part in time`));
    }, options.deadlineMillis);
    wire.handler = {
      onData: (bytes, start, end) => this.#received(bytes, start, end),
      onDrain: () => {},
      onEnd: () => this.#fail(this.#closed()),
      onClose: () => this.#fail(this.#closed()),
      onUnrecorded: (error) => this.#fail(new SluiceError("SLUICE_RECORD_FAILED", "the event could not be recorded", { cause: error })),
    };
  }

  /** Bytes that arrived and were not read. */
  get bufferedBytes(): number {
    return this.#end - this.#start;
  }

  /**
   * What stands in front of the protocol itself, as a proxy's header.
   * @param read gets everything that has arrived and answers how many bytes it takes, or undefined for more; it must bound itself
   * @throws what `read` throws; SluiceError SLUICE_DEADLINE, SLUICE_PROTOCOL_VIOLATION (closed before)
   */
  async prologue<Found extends { readonly bytes: number }>(read: (bytes: Uint8Array) => Found | undefined): Promise<Found> {
    for (;;) {
      const found = read(this.#buffer.subarray(this.#start, this.#end));
      if (found !== undefined) {
        this.#start += found.bytes;
        return found;
      }
      await this.#need(this.bufferedBytes + 1);
    }
  }

  /** The next byte, left in place: tells direct TLS from a startup packet. */
  async firstByte(): Promise<number> {
    await this.#need(1);
    return this.#buffer[this.#start]!;
  }

  /** One byte, taken: the answer to SSLRequest. */
  async byte(): Promise<number> {
    const value = await this.firstByte();
    this.#start += 1;
    return value;
  }

  /** An untyped first packet (SSLRequest, StartupMessage, CancelRequest) without its length field. */
  async startupPacket(): Promise<Uint8Array> {
    await this.#need(4);
    const length = this.#buffer.readInt32BE(this.#start);
    if (length < SHORTEST_STARTUP_BYTES || length > LIMITS.startupPacketBytes)
      throw this.#violation(`a startup packet with length ${length}`);
    await this.#need(length);
    return this.#take(length, 4);
  }

  /**
   * @param limitBytes largest length field accepted; default: the conversation's own limit
   * @throws SluiceError SLUICE_PROTOCOL_VIOLATION, SLUICE_DEADLINE, SLUICE_RECORD_FAILED
   */
  async message(limitBytes: number = this.#maxMessageBytes): Promise<TypedMessage> {
    await this.#need(HEADER_BYTES);
    const type = this.#buffer[this.#start]!;
    const length = this.#buffer.readInt32BE(this.#start + 1);
    if (length < 4 || length > limitBytes) throw this.#violation(`a message of type 0x${type.toString(16)} with length ${length}`);
    await this.#need(length + 1);
    return { type, body: this.#take(length + 1, HEADER_BYTES) };
  }

  send(bytes: Uint8Array): void {
    this.wire.write(bytes, 0, bytes.length);
  }

  /**
   * Become the TLS server. Bytes that arrived before the handshake could begin would be taken for encrypted ones afterwards
   * (CVE-2021-23214), so they are fatal, except in direct TLS, where they are the ClientHello.
   */
  async acceptTls(options: Omit<TlsServerOptions, "alreadyRead">, direct: boolean): Promise<void> {
    if (direct) return this.#untilDeadline(this.wire.acceptTls({ ...options, alreadyRead: this.#take(this.bufferedBytes, 0) }));
    this.#refuseEarlyBytes();
    return this.#untilDeadline(this.wire.acceptTls(options));
  }

  /** Become the TLS client; early bytes are fatal (CVE-2021-23222). */
  async startTls(options: TlsClientOptions): Promise<void> {
    this.#refuseEarlyBytes();
    return this.#untilDeadline(this.wire.startTls(options));
  }

  /**
   * Detach from the wire, which the caller must give its own handler before it lets go of the event loop.
   * @returns the bytes that were received and not read
   * @throws when the wire failed meanwhile
   */
  release(): Uint8Array {
    clearTimeout(this.#deadline);
    if (this.#failure !== undefined) throw this.#failure;
    this.#released = true;
    const rest = this.#take(this.bufferedBytes, 0);
    if (this.#paused) this.wire.resume();
    return rest;
  }

  /** Stop clock and reading and leave the wire as it is: before last words, or when the other leg failed. */
  abandon(): void {
    this.#start = this.#end;
    this.#fail(this.#closed());
  }

  #refuseEarlyBytes(): void {
    if (this.bufferedBytes > 0) throw this.#violation("bytes sent before the TLS handshake");
  }

  #received(bytes: Uint8Array, start: number, end: number): void {
    if (this.#released) throw new SluiceError("SLUICE_INTERNAL", "bytes arrived on a connection that nobody reads");
    if (this.#failure !== undefined) return;
    const count = end - start;
    this.#makeRoom(count);
    this.#buffer.set(bytes.subarray(start, end), this.#end);
    this.#end += count;
    this.#settle();
    if (!this.#paused && this.bufferedBytes > Math.max(this.#wanted, this.#maxMessageBytes)) {
      this.#paused = true;
      this.wire.pause();
    }
  }

  /** Room behind #end; grows with what has arrived, not with what a length field announces. */
  #makeRoom(count: number): void {
    if (this.#end + count <= this.#buffer.length) return;
    const kept = this.#end - this.#start;
    const target = kept + count <= this.#buffer.length ? this.#buffer : Buffer.allocUnsafe(Math.max(1_024, 2 * kept, kept + count));
    this.#buffer.copy(target, 0, this.#start, this.#end);
    this.#buffer = target;
    this.#start = 0;
    this.#end = kept;
  }

  #need(count: number): Promise<void> {
    if (this.#end - this.#start >= count) return Promise.resolve();
    if (this.#failure !== undefined) return Promise.reject(this.#failure);
    this.#wanted = count;
    if (this.#paused) {
      this.#paused = false;
      this.wire.resume();
    }
    return new Promise((resolve, reject) => {
      this.#waiter = { resolve, reject };
    });
  }

  #settle(): void {
    if (this.#waiter === undefined || this.#end - this.#start < this.#wanted) return;
    const { resolve } = this.#waiter;
    this.#waiter = undefined;
    resolve();
  }

  #take(count: number, skip: number): Uint8Array {
    const taken = new Uint8Array(this.#buffer.subarray(this.#start + skip, this.#start + count));
    this.#start += count;
    return taken;
  }

  #fail(error: SluiceError): void {
    if (this.#failure !== undefined) return;
    this.#failure = error;
    clearTimeout(this.#deadline);
    const waiter = this.#waiter;
    this.#waiter = undefined;
    waiter?.reject(error);
  }

  #closed(): SluiceError {
    return new SluiceError("SLUICE_PROTOCOL_VIOLATION", `the ${this.#peer} closed the connection during the handshake`);
  }

  #violation(what: string): SluiceError {
    const error = new SluiceError("SLUICE_PROTOCOL_VIOLATION", `protocol violation: the ${this.#peer} sent ${what}`);
    this.#fail(error);
    return error;
  }

  async #untilDeadline(handshake: Promise<void>): Promise<void> {
    const late = new Promise<never>((_, reject) => {
      if (this.#failure !== undefined) reject(this.#failure);
      this.#waiter = { resolve: () => {}, reject };
    });
    try {
      await Promise.race([handshake, late]);
    } catch (error) {
      // A handshake that did not finish leaves nothing that either side could still say.
      this.wire.destroy();
      handshake.catch(() => {});
      throw error;
    } finally {
      this.#waiter = undefined;
    }
  }
}
