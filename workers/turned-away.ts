import type { Logger } from "pino";
import type { Metrics, Refusal } from "../control/metrics.ts";

const TEXTS: Readonly<Record<Refusal, string>> = {
  descriptors: "out of file descriptors: connections were closed at once",
  sessions: "limits.sessions is reached: connections were closed at once",
  address: "limits.connectionsPerAddress is reached: connections were closed at once",
  proxy_header: "connections from a trusted proxy began without a valid PROXY header of version 2 and were closed",
};
const LOG_MILLIS = 1_000;

/** Connections that get no further: each is counted, but a crowd must not fill the log as well, so that gets one line a second and reason. */
export class TurnedAway {
  readonly #log: Logger;
  readonly #metrics: Metrics;
  readonly #untold = new Map<Refusal, number>();

  constructor(log: Logger, metrics: Metrics) {
    this.#log = log;
    this.#metrics = metrics;
  }

  /** @param example says of the first one in a line what is known about it; not asked for the others */
  add(reason: Refusal, count: number, example: () => Readonly<Record<string, unknown>> = () => ({})): void {
    this.#metrics.connectionsRefused(reason, count);
    const untold = this.#untold.get(reason);
    this.#untold.set(reason, (untold ?? 0) + count);
    if (untold !== undefined) return;
    const fields = example();
    setTimeout(() => {
      this.#log.warn({ count: this.#untold.get(reason), ...fields }, TEXTS[reason]);
      this.#untold.delete(reason);
    }, LOG_MILLIS).unref();
  }
}
