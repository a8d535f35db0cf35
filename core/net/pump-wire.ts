import { constants } from "node:os";
import { getSystemErrorName } from "node:util";
import { copyOf } from "../bytes/copy.ts";
import { SluiceError } from "../errors.ts";
import { LIMITS } from "../limits.ts";
import type { NativeTlsContext } from "../native/addons.ts";
import { CONTROL, EVENT, type NativePump, RUN_WORDS, SLOT, SLOT_WORDS, type TlsSettings } from "../native/pump.ts";
import type { PumpTransport } from "./pump.ts";
import { encodeAlpn, type PumpContexts } from "./pump-tls.ts";
import type { TlsClientOptions, TlsServerOptions, Wire, WireHandler } from "./types.ts";
import { isLoopbackAddress, LINGER_MILLIS, NO_HANDLER } from "./wire.ts";

const { EPROTO } = constants.errno;
const NO_BYTES = new Uint8Array(0);

/** One connection of the pump. Behaves as SocketWire does; the tests hold both to the same. */
export class PumpWire implements Wire {
  // What every read and write looks at stands together: with thousands of sessions each cache line of one is a miss.
  /** Place in the pump's tables, -1 when the pump has no part in this wire; an event with another generation is not its own. */
  slot = -1;
  generation = -1;
  handler: WireHandler = NO_HANDLER;
  /** As in SocketWire, with connecting before open. */
  #state: "connecting" | "open" | "ending" | "closing" | "closed" = "open";
  #paused = false;
  /** Takes over when TLS starts and the pump has none. */
  #secure: Wire | undefined;
  readonly #transport: PumpTransport;
  readonly #native: NativePump;
  #unrecorded = false;
  /** Runs of the batch's page that belong to this wire; nearly always one, the others are pairs in #moreRuns. */
  #runStart = 0;
  #runEnd = 0;
  /** Numbers in #moreRuns. */
  #more = 0;
  #staged = 0;
  #isDirty = false;
  #wasHigh = false;
  #endAfterBatch = false;

  readonly #moreRuns: number[] = [];
  remoteAddress = "";
  isLoopback = false;
  #isTls = false;
  /** While TLS is being agreed on. */
  #handshake: Handshake | undefined;
  #alpn: string | undefined;
  #onConnected: ((errno: number) => void) | undefined;
  #error: Error | undefined;
  #linger: NodeJS.Timeout | undefined;
  /** Read in the batch in which the wire was paused: kept for resume(). */
  #held: Uint8Array | undefined;
  #heldEnd = false;
  /** The peer's FIN was told; ours has gone out. */
  #peerEnded = false;
  #finSent = false;

  constructor(transport: PumpTransport, native: NativePump) {
    this.#transport = transport;
    this.#native = native;
  }

  /** @param slot the pump's, just taken. @param isLocal a Unix socket that this side connected */
  attach(slot: number, isLocal: boolean): void {
    this.#attach(slot);
    this.#name(isLocal);
  }

  /** The same for a connection under way. @param onConnected called once, with errno or 0 */
  attachConnecting(slot: number, isLocal: boolean, onConnected: (errno: number) => void): void {
    this.#state = "connecting";
    this.#attach(slot);
    this.#onConnected = (errno) => {
      if (errno === 0) {
        this.#state = "open";
        this.#name(isLocal);
      }
      onConnected(errno);
    };
  }

  get encrypted(): boolean {
    return this.#isTls;
  }

  get backlogBytes(): number {
    if (this.#secure !== undefined) return this.#secure.backlogBytes;
    return this.slot < 0 ? 0 : this.#staged + this.#native.slots[this.slot * SLOT_WORDS + SLOT.pending]!;
  }

  get writable(): boolean {
    return this.#state === "open" && !this.#unrecorded;
  }

  get alpn(): string | undefined {
    return this.#secure === undefined ? this.#alpn : this.#secure.alpn;
  }

  peerCertificate(): Uint8Array | undefined {
    if (this.#secure !== undefined) return this.#secure.peerCertificate();
    return this.#isTls && this.slot >= 0 ? this.#native.certificate(this.slot) : undefined;
  }

  write(bytes: Uint8Array, start: number, end: number): void {
    if (this.#secure !== undefined) this.#secure.write(bytes, start, end);
    else this.#transport.stage(this, bytes, start, end);
  }

  pause(): void {
    if (this.#secure !== undefined) return this.#secure.pause();
    if (this.#paused) return;
    this.#paused = true;
    // The pump looks at this before it reads; epoll is told only if bytes come meanwhile. A handshake goes on.
    if (this.slot >= 0 && this.#handshake === undefined) this.#native.slots[this.slot * SLOT_WORDS + SLOT.control]! |= CONTROL.paused;
  }

  resume(): void {
    if (this.#secure !== undefined) return this.#secure.resume();
    if (!this.#paused || (this.#state !== "open" && this.#state !== "ending")) return;
    this.#paused = false;
    if (this.#held !== undefined || this.#heldEnd) this.#transport.resumed(this);
    else this.#rearm();
  }

  end(): void {
    if (this.#secure !== undefined) return this.#secure.end();
    if (this.#state !== "open") return;
    this.#state = "ending";
    this.#endAfterBatch = true;
    this.#dirty();
  }

  lastWords(bytes: Uint8Array): void {
    if (this.#secure !== undefined) return this.#secure.lastWords(bytes);
    if (this.slot < 0) return;
    if (this.#state !== "open") return this.#state === "closing" ? undefined : this.destroy();
    // What is staged comes first, so that a message begun there is whole; if it cannot be recorded it is dropped.
    this.#transport.flush();
    if (this.slot < 0) return;
    this.#state = "closing";
    this.#dropRuns();
    const errno = this.#native.sendNow(this.slot, bytes);
    if (errno !== 0) return this.destroy();
    this.#finish();
    if (this.slot < 0) return;
    // Reading on keeps the kernel from answering the peer's late bytes with a reset, which would take the last words with it.
    this.#rearm();
    this.#linger = setTimeout(() => this.destroy(), LINGER_MILLIS);
  }

  destroy(): void {
    if (this.#secure !== undefined) return this.#secure.destroy();
    if (this.#state === "closed" || this.slot < 0) return;
    this.#state = "closing";
    this.#dropRuns();
    this.#held = undefined;
    this.#native.close(this.slot);
    this.#detach();
    this.#handshake?.failed("the connection was closed");
    this.#handshake = undefined;
    this.#transport.closed(this);
  }

  acceptTls(options: TlsServerOptions): Promise<void> {
    if (this.#secure !== undefined) return this.#secure.acceptTls(options);
    return this.#upgrade({
      code: "SLUICE_PROTOCOL_VIOLATION",
      context: (contexts) => contexts.server(options),
      settings: { isServer: true, name: "", verify: false },
      alpn: options.alpn,
      early: options.alreadyRead ?? NO_BYTES,
      check: (alpn) =>
        options.requireAlpn && alpn === "" ? "the client did not ask for any of the application protocols offered here" : undefined,
      handOver: (wire, early) => wire.acceptTls({ ...options, alreadyRead: early }),
    });
  }

  startTls(options: TlsClientOptions): Promise<void> {
    if (this.#secure !== undefined) return this.#secure.startTls(options);
    return this.#upgrade({
      code: "SLUICE_TARGET_UNREACHABLE",
      context: (contexts) => contexts.client(options),
      settings: { isServer: false, name: options.serverName.replace(/\.$/, ""), verify: options.verify },
      alpn: options.alpn,
      early: NO_BYTES,
      check: () => undefined,
      handOver: (wire, early) => {
        if (early.length === 0) return wire.startTls(options);
        wire.destroy();
        throw new SluiceError("SLUICE_TARGET_UNREACHABLE", "TLS handshake failed: the peer sent bytes before it");
      },
    });
  }

  /** Bytes that the pump read for this wire, valid until this returns. */
  received(bytes: Uint8Array, start: number, end: number): void {
    if (this.#state !== "open" && this.#state !== "ending") return;
    if (this.#paused) {
      this.#held = copyOf(bytes, start, end);
      return;
    }
    try {
      this.handler.onData(bytes, start, end);
    } catch (error) {
      this.#fault(error);
    }
  }

  /** Everything else that the pump has to tell. */
  happened(flags: number, errno: number): void {
    if (this.#onConnected !== undefined) {
      const tell = this.#onConnected;
      this.#onConnected = undefined;
      return tell((flags & EVENT.error) === 0 ? 0 : errno);
    }
    if ((flags & EVENT.secured) !== 0) return this.#secured();
    if ((flags & EVENT.drained) !== 0) this.tellDrained();
    if ((flags & EVENT.finished) !== 0) this.#finSent = true;
    if ((flags & EVENT.end) !== 0) {
      if (this.#paused && this.#state !== "closing") this.#heldEnd = true;
      else this.#tellEnd();
    }
    if ((flags & EVENT.error) !== 0) return this.fail("read", errno);
    this.#closeWhenDone();
  }

  /** What was held while the wire was paused, outside any batch. */
  tellHeld(): void {
    if (this.#paused || this.slot < 0) return;
    const bytes = this.#held;
    this.#held = undefined;
    if (bytes !== undefined) this.received(bytes, 0, bytes.length);
    if (this.#paused || this.slot < 0) return;
    if (this.#heldEnd) {
      this.#heldEnd = false;
      this.#tellEnd();
      this.#closeWhenDone();
    }
    if (!this.#paused && this.slot >= 0) this.#rearm();
  }

  /** @returns true when the wire was not among those to be sent yet */
  addRun(start: number, end: number): boolean {
    if (this.#staged === 0) {
      this.#runStart = start;
      this.#runEnd = end;
    } else if (this.#more === 0 && this.#runEnd === start) {
      this.#runEnd = end;
    } else if (this.#more > 0 && this.#moreRuns[this.#more - 1] === start) {
      this.#moreRuns[this.#more - 1] = end;
    } else {
      this.#moreRuns[this.#more++] = start;
      this.#moreRuns[this.#more++] = end;
    }
    this.#staged += end - start;
    // Noted as soon as it shows: by the time of the send some may have left, and a peer that was paused would wait for ever.
    if (this.backlogBytes >= LIMITS.backlogHighBytes) this.#wasHigh = true;
    if (this.#isDirty) return false;
    this.#isDirty = true;
    return true;
  }

  /** Put the staged runs behind the `count` that are in the table. @returns the new count */
  putRuns(runs: Int32Array, count: number): number {
    this.#isDirty = false;
    if (this.#staged === 0 || this.slot < 0) return count;
    this.#staged = 0;
    let at = count * RUN_WORDS;
    runs[at] = this.slot;
    runs[at + 1] = this.#runStart;
    runs[at + 2] = this.#runEnd;
    if (this.#more === 0) return count + 1;
    const more = this.#moreRuns;
    for (let i = 0; i < this.#more; i += 2) {
      at += RUN_WORDS;
      runs[at] = this.slot;
      runs[at + 1] = more[i]!;
      runs[at + 2] = more[i + 1]!;
    }
    this.#dropRuns();
    return at / RUN_WORDS + 1;
  }

  /** The runs were sent, or are in the backlog, or failed. */
  sent(): void {
    if (this.slot < 0) return;
    const at = this.slot * SLOT_WORDS;
    const { slots } = this.#native;
    if (slots[at + SLOT.error] !== 0) return this.fail("write", slots[at + SLOT.error]!);
    if (this.#wasHigh && slots[at + SLOT.pending]! < LIMITS.backlogLowBytes) this.#transport.drained(this);
    if (this.#endAfterBatch) this.#finish();
  }

  /** The batch was not recorded: its bytes never leave, and nothing may follow the gap. */
  drop(error: Error): void {
    this.#isDirty = false;
    const hadBytes = this.#staged > 0;
    this.#dropRuns();
    if (!hadBytes) {
      if (this.#endAfterBatch && this.slot >= 0) this.#finish();
      return;
    }
    this.#endAfterBatch = false;
    if (this.#state === "ending") this.#state = "open";
    this.#unrecorded = true;
    // Not from here: the flush may stand inside a handler's write().
    queueMicrotask(() => {
      if (this.#state === "open") this.#guard(() => this.handler.onUnrecorded(error));
    });
  }

  tellDrained(): void {
    if (!this.#wasHigh || this.backlogBytes >= LIMITS.backlogLowBytes) return;
    this.#wasHigh = false;
    if (this.#state === "open") this.#guard(() => this.handler.onDrain());
  }

  /** Last call to the handler, outside any batch. */
  tellClosed(): void {
    if (this.#state === "closed") return;
    this.#state = "closed";
    clearTimeout(this.#linger);
    const { handler } = this;
    this.handler = NO_HANDLER;
    try {
      handler.onClose(this.#error);
    } catch (error) {
      this.#transport.onFault(error);
    }
  }

  fail(call: string, errno: number): void {
    const problem = this.#isTls && errno === EPROTO && this.slot >= 0 ? this.#native.tlsState(this.slot).problem : undefined;
    const error = problem === undefined ? systemError(call, errno) : new Error(problem);
    this.#error ??= error;
    this.#handshake?.failed(problem ?? getSystemErrorName(-errno));
    this.#handshake = undefined;
    this.destroy();
  }

  #attach(slot: number): void {
    this.slot = slot;
    this.generation = this.#native.slots[slot * SLOT_WORDS + SLOT.generation]!;
    this.#transport.attached(this);
  }

  #detach(): void {
    this.#transport.detached(this);
    this.slot = -1;
  }

  #name(isLocal: boolean): void {
    this.remoteAddress = this.#native.peer(this.slot);
    // No address means a Unix socket, or a peer that has already gone: only the caller knows which.
    this.isLoopback = this.remoteAddress === "" ? isLocal : isLoopbackAddress(this.remoteAddress.replace(/^\[?(.*?)\]?:\d+$/, "$1"));
  }

  #rearm(): void {
    const at = this.slot * SLOT_WORDS + SLOT.control;
    const { slots } = this.#native;
    const control = slots[at]!;
    slots[at] = control & ~CONTROL.paused;
    if ((control & CONTROL.disarmed) === 0) return;
    const errno = this.#native.rearm(this.slot);
    if (errno !== 0) this.fail("epoll_ctl", errno);
  }

  #finish(): void {
    this.#endAfterBatch = false;
    if (this.#native.finish(this.slot)) this.#finSent = true;
    this.#closeWhenDone();
  }

  #closeWhenDone(): void {
    if (this.#finSent && this.#peerEnded) this.destroy();
  }

  #tellEnd(): void {
    this.#peerEnded = true;
    if (this.#state === "open" || this.#state === "ending") this.#guard(() => this.handler.onEnd());
  }

  #dirty(): void {
    if (this.#isDirty) return;
    this.#isDirty = true;
    this.#transport.markDirty(this);
  }

  #dropRuns(): void {
    this.#staged = 0;
    if (this.#more > 0) this.#moreRuns.length = this.#more = 0;
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

  #secured(): void {
    const handshake = this.#handshake;
    this.#handshake = undefined;
    if (handshake === undefined) return;
    const { alpn } = this.#native.tlsState(this.slot);
    const refusal = handshake.check(alpn);
    if (refusal !== undefined) {
      this.#error ??= new Error(refusal);
      handshake.failed(refusal);
      return this.destroy();
    }
    this.#alpn = alpn === "" ? undefined : alpn;
    if (this.#paused) this.#native.slots[this.slot * SLOT_WORDS + SLOT.control]! |= CONTROL.paused;
    // What was written during the handshake may have left at once, without a backlog that could fall.
    if (this.#wasHigh) this.#transport.drained(this);
    handshake.done();
  }

  async #upgrade(start: TlsStart): Promise<void> {
    const { code } = start;
    if (this.#state !== "open" || this.#isTls) throw new SluiceError(code, "TLS cannot start on this connection now");
    this.#transport.flush();
    if (!this.writable || this.slot < 0 || this.#peerEnded || this.#heldEnd) {
      this.destroy();
      throw new SluiceError(code, "the connection closed before TLS started");
    }
    this.#isTls = true;
    const early = this.#held === undefined ? start.early : Buffer.concat([start.early, this.#held]);
    this.#held = undefined;
    const contexts = this.#transport.tls;
    if (contexts === undefined) return this.#handOver(start, early);
    try {
      this.#native.secure(this.slot, start.context(contexts), { ...start.settings, alpn: encodeAlpn(start.alpn), early });
    } catch (thrown) {
      this.destroy();
      throw new SluiceError("SLUICE_INTERNAL", "TLS cannot start: certificate, key or trusted roots are unusable", { cause: thrown });
    }
    // From here on the socket's bytes are TLS records, and have to be read.
    this.#paused = false;
    this.#rearm();
    await new Promise<void>((resolve, reject) => {
      this.#handshake = {
        check: start.check,
        done: resolve,
        failed: (reason) => reject(new SluiceError(code, `TLS handshake failed: ${reason}`)),
      };
    });
  }

  #handOver(start: TlsStart, early: Uint8Array): Promise<void> {
    const { fd, unsent } = this.#native.release(this.slot);
    this.#detach();
    const wire = this.#transport.sockets.adopt(fd);
    this.#secure = wire;
    wire.handler = {
      onData: (bytes, from, to) => this.handler.onData(bytes, from, to),
      onDrain: () => this.handler.onDrain(),
      onEnd: () => this.handler.onEnd(),
      onClose: (error) => {
        this.#error ??= error;
        this.tellClosed();
      },
      onUnrecorded: (error) => this.handler.onUnrecorded(error),
    };
    if (unsent.length > 0) wire.write(unsent, 0, unsent.length);
    return start.handOver(wire, early);
  }
}

interface Handshake {
  /** Why the finished handshake is refused all the same. */
  check(alpn: string): string | undefined;
  done(): void;
  failed(reason: string): void;
}

interface TlsStart {
  readonly code: "SLUICE_PROTOCOL_VIOLATION" | "SLUICE_TARGET_UNREACHABLE";
  readonly context: (contexts: PumpContexts) => NativeTlsContext;
  readonly settings: Pick<TlsSettings, "isServer" | "name" | "verify">;
  readonly alpn: readonly string[];
  readonly early: Uint8Array;
  readonly check: Handshake["check"];
  /** The same over node:tls. */
  readonly handOver: (wire: Wire, early: Uint8Array) => Promise<void>;
}

/** An error as node:net makes it: the system's code, and which call failed. */
export function systemError(call: string, errno: number): Error {
  const code = getSystemErrorName(-errno);
  return Object.assign(new Error(`${call} ${code}`), { code, errno: -errno, syscall: call });
}
