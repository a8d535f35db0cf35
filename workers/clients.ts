import { networkTest } from "../core/config/networks.ts";
import type { Config } from "../core/config/types.ts";
import { AT_LIMIT, holdAddress, holdPeer, NO_ADDRESS, peerAddress, releaseHold } from "../core/native/acceptor.ts";
import { withoutPort } from "../core/policy/context.ts";

/** Instead of a place: the connection came through a proxy that has not told yet for whom. */
const UNTOLD = -3;

/**
 * How many connections each client address has, for limits.connectionsPerAddress. Lives on the main thread, where the
 * connections of all workers meet. Counted also without a limit: a reload can set one.
 */
export class Clients {
  /** Place of its address among the counts, by the number of the connection's offer to a worker. */
  readonly #places = new Map<number, number>();
  #config: Config;
  #proxies: readonly (((address: string) => boolean) | undefined)[] = [];

  constructor(config: Config) {
    this.#config = config;
    this.configure(config);
  }

  /** Another configuration is in force. Connections stay counted, and none is closed. */
  configure(config: Config): void {
    this.#config = config;
    this.#proxies = config.listeners.map(({ proxyProtocol }) =>
      proxyProtocol === undefined ? undefined : networkTest(proxyProtocol.from),
    );
  }

  /** The peer is one of the listener's proxies, so its connection begins with a header. */
  isProxy(fd: number, listener: number): boolean {
    const test = this.#proxies[listener];
    return test?.(withoutPort(peerAddress(fd))) ?? false;
  }

  /**
   * Count an accepted connection.
   * @returns a place for placed(); `refused`: its address is at the limit; `gone`: it has none any more
   */
  admit(fd: number, isProxied: boolean): number | "refused" | "gone" {
    if (isProxied) return UNTOLD;
    const place = holdPeer(fd, this.#config.limits.connectionsPerAddress);
    return place === AT_LIMIT ? "refused" : place === NO_ADDRESS ? "gone" : place;
  }

  /** Must follow admit() before anything else is awaited. */
  placed(offer: number, place: number): void {
    this.#places.set(offer, place);
  }

  /**
   * Count a connection that came through a proxy, now that the proxy has told the client's address.
   * @returns false: that address is at the limit
   */
  told(offer: number, address: string): boolean {
    // It may have ended before this was heard, or tell twice.
    if (this.#places.get(offer) !== UNTOLD) return true;
    const place = holdAddress(withoutPort(address), this.#config.limits.connectionsPerAddress);
    if (place === AT_LIMIT) return false;
    this.#places.set(offer, place);
    return true;
  }

  ended(offer: number): void {
    const place = this.#places.get(offer);
    this.#places.delete(offer);
    if (place !== undefined && place >= 0) releaseHold(place);
  }
}
