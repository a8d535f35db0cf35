import { createRequire } from "node:module";
import { join } from "node:path";
import { SluiceError } from "../errors.ts";
import type { PatternSet } from "./matcher.ts";

/** What the C++ side exports; see acceptor.cc, journal.cc, matcher.cc and pump.cc. The typed wrappers are acceptor.ts, window.ts, checksum.ts, direct.ts, matcher.ts and pump.ts. */
export interface AcceptorAddon {
  listen(host: string, port: number, backlog: number): { fd: number; port: number };
  accept(fd: number, callback: (fds: readonly number[], exhausted: number) => void): void;
  stop(fd: number): void;
  closeFd(fd: number): void;
  peerAddress(fd: number): string;
  holdPeer(fd: number, most: number): number;
  holdAddress(address: string, most: number): number;
  releaseHold(place: number): void;
  fdLimit(): { soft: number; hard: number };
}

/** Appends the block that the page describes; it is the window for the other calls as well. */
export type NativeWindow = () => void;

export interface JournalAddon {
  open(page: Uint32Array): NativeWindow | undefined;
  attach(window: NativeWindow, buffer: Uint8Array): void;
  move(window: NativeWindow, fd: number, position: number, bytes: number, spareBytes: number): number;
  release(window: NativeWindow): void;
  checksum(bytes: Uint8Array, start: number, end: number): number | undefined;
  direct(fd: number, wanted: boolean): number;
  misalignment(bytes: Uint8Array, unit: number): number;
}

export interface MatcherAddon {
  compile(set: PatternSet): object;
  scan(database: object, bytes: Uint8Array, start: number, end: number, flags: Uint32Array): number;
}

export interface PumpAddon {
  open(
    slab: Uint8Array,
    page: Uint8Array,
    events: Int32Array,
    runs: Int32Array,
    slots: Int32Array,
    lowBytes: number,
    callback: (eventCount: number) => void,
  ): number;
  adopt(pump: number, fd: number): number;
  connect(pump: number, hostOrPath: string, portOrMinusOne: number): number;
  peer(pump: number, slot: number): string;
  send(pump: number, runCount: number): number;
  sendNow(pump: number, slot: number, bytes: Uint8Array): number;
  finish(pump: number, slot: number): boolean;
  rearm(pump: number, slot: number): number;
  close(pump: number, slot: number): void;
  release(pump: number, slot: number): { fd: number; unsent: Uint8Array };
  tlsVersion(): string;
  serverContext(cert: string, key: string, ciphers: string, suites: string): NativeTlsContext;
  clientContext(roots: string, ciphers: string, suites: string): NativeTlsContext;
  secure(
    pump: number,
    slot: number,
    context: NativeTlsContext,
    isServer: boolean,
    name: string,
    verify: boolean,
    alpn: Uint8Array,
    early: Uint8Array,
  ): void;
  tlsState(pump: number, slot: number): { alpn: string; problem: string };
  certificate(pump: number, slot: number): Uint8Array | undefined;
}

/** An SSL_CTX; freed when it is collected and no connection uses it any more. */
export type NativeTlsContext = { readonly __nativeTlsContext: never };

const require = createRequire(import.meta.url);

function load<Addon>(name: string): Addon {
  const file = join(import.meta.dirname, "build", "Release", `${name}.node`);
  try {
    return require(file) as Addon;
  } catch (cause) {
    throw new SluiceError("SLUICE_INTERNAL", `the native addon ${name} is not built or does not load on this machine`, {
      hint: "run tools/setup",
      cause,
    });
  }
}

/** The only place that loads native code. @throws SluiceError SLUICE_INTERNAL when it is not built */
export const loadAcceptor = (): AcceptorAddon => load<AcceptorAddon>("sluice_acceptor");

/** @throws SluiceError SLUICE_INTERNAL when it is not built */
export const loadJournal = (): JournalAddon => load<JournalAddon>("sluice_journal");

let journal: JournalAddon | null | undefined;

/** The same for those who can do without it; null: it is not built. */
export function journalIfBuilt(): JournalAddon | null {
  if (journal === undefined) {
    try {
      journal = loadJournal();
    } catch {
      journal = null;
    }
  }
  return journal;
}

/** @throws SluiceError SLUICE_INTERNAL when it is not built */
export const loadMatcher = (): MatcherAddon => load<MatcherAddon>("sluice_matcher");

/** @throws SluiceError SLUICE_INTERNAL when it is not built */
export const loadPump = (): PumpAddon => load<PumpAddon>("sluice_pump");
