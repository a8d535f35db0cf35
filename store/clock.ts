// The global of that name is a getter, which costs as much as reading the clock.
import { performance } from "node:perf_hooks";

/**
 * Wall-clock microseconds, read once a batch: what one turn of the event loop records happened, as far as the gateway
 * can tell, together; and reading a clock costs as much as staging a record.
 */
export class BatchClock {
  /** Set after a batch: the next reading is a new one. */
  stale = true;
  /** Of the last reading. */
  micros = 0;
  private originMicros = 0;

  constructor() {
    this.adjust();
  }

  read(): void {
    this.micros = this.originMicros + Math.round(performance.now() * 1000);
    this.stale = false;
  }

  /** Durations need a clock that does not jump, records need the wall's: follow the wall only where it was set. */
  adjust(): void {
    this.stale = true;
    const origin = (Date.now() - performance.now()) * 1000;
    if (Math.abs(origin - this.originMicros) > 50_000) this.originMicros = Math.round(origin);
  }
}
