import { isIP } from "node:net";
import { SluiceError } from "../errors.ts";
import { type AcceptorAddon, loadAcceptor } from "./addons.ts";

/** A bound listening socket. `fd` names it in accept() and stop(). */
export interface ListeningSocket {
  readonly fd: number;
  /** The bound port, also when 0 was asked for. */
  readonly port: number;
}

/**
 * Receives accepted connections, at most 64 a call. From the call on it owns every descriptor in `fds`: each must be
 * adopted by a transport or given to closeFd. They are non-blocking, close-on-exec, with TCP_NODELAY and SO_KEEPALIVE.
 * @param exhausted connections that were accepted and closed at once because the descriptor limit is reached
 */
export type AcceptCallback = (fds: readonly number[], exhausted: number) => void;

let addon: AcceptorAddon | undefined;
const native = (): AcceptorAddon => (addon ??= loadAcceptor());

/**
 * Bind and listen; nothing is accepted until accept(). SO_REUSEADDR is set; `::` also takes IPv4.
 * @param host an IPv4 or IPv6 literal (names are for the caller to resolve)
 * @param port 0..65535; 0 lets the kernel choose
 * @param backlog at least 1; the kernel caps it at net.core.somaxconn
 * @throws SluiceError SLUICE_CONFIG_INVALID when the address cannot be bound; SLUICE_INTERNAL when the addon is not built
 */
export function listen(host: string, port: number, backlog = 511): ListeningSocket {
  // Not left to the addon alone: inet_pton and node agree, but this names the value.
  if (isIP(host) === 0) {
    throw new SluiceError("SLUICE_CONFIG_INVALID", `cannot listen on "${host}": not an IPv4 or IPv6 address`);
  }
  const acceptor = native();
  try {
    return acceptor.listen(host, port, backlog);
  } catch (cause) {
    const { code, message } = cause as Error & { code?: string };
    throw new SluiceError("SLUICE_CONFIG_INVALID", `cannot listen on ${host} port ${port}: ${code} (${message})`, {
      hint: "choose a free address of this machine in the listener's `listen`",
      cause,
    });
  }
}

/**
 * Start accepting on the calling thread's event loop. The loop stays alive until stop().
 * At the descriptor limit waiting peers see their connection closed; if even that fails, accepting rests for 50 ms.
 * An exception in `onBatch` becomes an uncaughtException; the listener keeps accepting.
 * @throws Error EBADF when `fd` is not an idle listening socket of this thread
 */
export function accept(fd: number, onBatch: AcceptCallback): void {
  native().accept(fd, onBatch);
}

/**
 * Stop accepting and close the listening socket at once; peers still in the backlog are reset.
 * @throws Error EBADF when `fd` is not a listening socket of this thread
 */
export function stop(fd: number): void {
  native().stop(fd);
}

/** Close an accepted descriptor that no transport took. @throws Error EBADF when it is not open, or is the acceptor's own */
export function closeFd(fd: number): void {
  native().closeFd(fd);
}

/** `192.0.2.1:5` or `[2001:db8::1]:5`; an IPv4-mapped address in IPv4 form. Empty once the peer has gone, and for Unix sockets. */
export function peerAddress(fd: number): string {
  return native().peerAddress(fd);
}

/** What holdPeer() and holdAddress() answer instead of a place. */
export const AT_LIMIT = -1;
export const NO_ADDRESS = -2;

/**
 * Count one more connection of this descriptor's peer: by IPv4 address, or by IPv6 /64.
 * @param most refuse where so many are counted already; 0: no limit
 * @returns a place for releaseHold(), which is owed exactly once; AT_LIMIT; or NO_ADDRESS: the peer has gone
 */
export function holdPeer(fd: number, most: number): number {
  return native().holdPeer(fd, most);
}

/** The same for an address that somebody told, without a port. NO_ADDRESS: it is not one. */
export function holdAddress(address: string, most: number): number {
  return native().holdAddress(address, most);
}

/** One connection fewer. @throws Error EBADF when nothing is counted at this place */
export function releaseHold(place: number): void {
  native().releaseHold(place);
}

/** RLIMIT_NOFILE of this process; Infinity-like large where unlimited. Node.js raises soft to hard when it starts. */
export function fdLimit(): { readonly soft: number; readonly hard: number } {
  return native().fdLimit();
}
