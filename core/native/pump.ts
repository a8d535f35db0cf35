import { loadPump, type NativeTlsContext, type PumpAddon } from "./addons.ts";

/** Words of one event: slot, its generation, flags, start (errno of an error), end. */
export const EVENT_WORDS = 5;
/** Bits of an event's flags; pump.h has the same. */
export const EVENT = { data: 1, end: 2, error: 4, drained: 8, finished: 16, connected: 32, secured: 64 } as const;
/** Words of one run: slot, start, end. */
export const RUN_WORDS = 3;
/** Words of one slot, and what they are. */
export const SLOT_WORDS = 4;
export const SLOT = { pending: 0, control: 1, generation: 2, error: 3 } as const;
/** Bits of a slot's control word: paused is set here, disarmed by the addon. */
export const CONTROL = { paused: 1, disarmed: 2 } as const;

const SLAB_BYTES = 1024 * 1024;
const PAGE_BYTES = 256 * 1024;
const EVENTS_MAX = 5 * 128;
const RUNS_MAX = 8 * 1024;
/** Connections of one transport at a time. */
const SLOTS_MAX = 256 * 1024;

let addon: PumpAddon | undefined;

/** The addon is there and loads. */
export function isPumpBuilt(): boolean {
  try {
    addon ??= loadPump();
    return true;
  } catch {
    return false;
  }
}

/** One native pump: its epoll set and the memory that C++ and JavaScript share. It lives as long as the environment. */
export class NativePump {
  /** What was read; an event says where. Valid within one batch. */
  readonly slab: Uint8Array = new Uint8Array(SLAB_BYTES);
  /** What is to be sent; a run says where. */
  readonly page: Uint8Array = new Uint8Array(PAGE_BYTES);
  readonly events: Int32Array = new Int32Array(EVENTS_MAX * EVENT_WORDS);
  readonly runs: Int32Array = new Int32Array(RUNS_MAX * RUN_WORDS);
  readonly slots: Int32Array = new Int32Array(SLOTS_MAX * SLOT_WORDS);
  readonly #addon: PumpAddon;
  readonly #pump: number;

  /**
   * @param lowBytes a backlog that falls under it is an event
   * @param onBatch called with the number of events whenever something is ready
   * @throws SluiceError SLUICE_INTERNAL when the addon is not built
   */
  constructor(lowBytes: number, onBatch: (eventCount: number) => void) {
    this.#addon = addon ??= loadPump();
    this.#pump = this.#addon.open(this.slab, this.page, this.events, this.runs, this.slots, lowBytes, onBatch);
  }

  get runsMax(): number {
    return RUNS_MAX;
  }

  /** @returns the slot. @throws Error with the system's code; the descriptor is then closed, if it was a socket */
  adopt(fd: number): number {
    return this.#addon.adopt(this.#pump, fd);
  }

  /** Begin to connect to an address; connected or error is an event. @throws Error with the system's code */
  connectTcp(address: string, port: number): number {
    return this.#addon.connect(this.#pump, address, port);
  }

  /** The same for a Unix socket. @throws Error with the system's code */
  connectUnix(path: string): number {
    return this.#addon.connect(this.#pump, path, -1);
  }

  /** `192.0.2.1:5` or `[2001:db8::1]:5`; empty for Unix sockets and when the peer has gone. */
  peer(slot: number): string {
    return this.#addon.peer(this.#pump, slot);
  }

  /** Send the first `runCount` runs. @returns how many connections failed: their slots' error word says why */
  send(runCount: number): number {
    return this.#addon.send(this.#pump, runCount);
  }

  /** Send these bytes behind the backlog. @returns errno or 0 */
  sendNow(slot: number, bytes: Uint8Array): number {
    return this.#addon.sendNow(this.#pump, slot, bytes);
  }

  /** FIN behind the backlog. @returns true when it has gone out; otherwise the finished event tells */
  finish(slot: number): boolean {
    return this.#addon.finish(this.#pump, slot);
  }

  /** Read again after a pause that reached the kernel. @returns errno or 0 */
  rearm(slot: number): number {
    return this.#addon.rearm(this.#pump, slot);
  }

  close(slot: number): void {
    this.#addon.close(this.#pump, slot);
  }

  /** Let go of the descriptor and of the bytes that were not sent. */
  release(slot: number): { readonly fd: number; readonly unsent: Uint8Array } {
    return this.#addon.release(this.#pump, slot);
  }

  /** The OpenSSL that secure() uses; empty where this process has none that the addon was built for. */
  get tlsVersion(): string {
    return this.#addon.tlsVersion();
  }

  /** @param cert,key PEM; the chain after the certificate. @throws Error when they are unusable or do not match */
  serverContext(cert: string, key: string, ciphers: string, suites: string): NativeTlsContext {
    return this.#addon.serverContext(cert, key, ciphers, suites);
  }

  /** @param roots PEM. @throws Error when there is none */
  clientContext(roots: string, ciphers: string, suites: string): NativeTlsContext {
    return this.#addon.clientContext(roots, ciphers, suites);
  }

  /** Start TLS; secured or error is an event. @throws Error when it cannot start */
  secure(slot: number, context: NativeTlsContext, settings: TlsSettings): void {
    const { isServer, name, verify, alpn, early } = settings;
    this.#addon.secure(this.#pump, slot, context, isServer, name, verify, alpn, early);
  }

  /** The application protocol agreed on, and why TLS failed; each may be empty. */
  tlsState(slot: number): { readonly alpn: string; readonly problem: string } {
    return this.#addon.tlsState(this.#pump, slot);
  }

  /** DER of the peer's certificate. */
  certificate(slot: number): Uint8Array | undefined {
    return this.#addon.certificate(this.#pump, slot);
  }
}

export interface TlsSettings {
  readonly isServer: boolean;
  /** Client: whom the certificate has to name, an address or a host name; goes into SNI. */
  readonly name: string;
  readonly verify: boolean;
  /** Protocols in the form of the ALPN extension, RFC 7301 §3.1: each preceded by its length. */
  readonly alpn: Uint8Array;
  /** Bytes that were read before. */
  readonly early: Uint8Array;
}
