import { copyInto, type Destination, destination } from "../bytes/copy.ts";
import { LIMITS } from "../limits.ts";
import { EVENT, EVENT_WORDS, NativePump } from "../native/pump.ts";
import { dialFirst } from "./pump-dial.ts";
import { PumpContexts } from "./pump-tls.ts";
import { PumpWire } from "./pump-wire.ts";
import { createSocketTransport } from "./sockets.ts";
import type { Transport, Wire } from "./types.ts";

/**
 * The transport over the native pump. One per worker.
 * @throws SluiceError SLUICE_INTERNAL when the addon is not built
 */
export function createPumpTransport(options: PumpOptions = {}): Transport {
  return new PumpTransport(options);
}

export interface PumpOptions {
  /** Leave TLS to node:tls although the pump can do it; for tests of what happens where it cannot. */
  readonly withoutTls?: boolean;
}

/**
 * The pump reads everything that is ready into one slab and calls #onBatch once. Handlers stage what they send in one page;
 * after the last of them beforeSend() is called once, and one native call sends it all. What is written outside a batch
 * leaves in the check phase of the same turn of the event loop.
 */
export class PumpTransport implements Transport {
  beforeSend: () => void = () => {};
  onFault: (error: unknown) => void = () => {};

  /** undefined where the runtime's OpenSSL is not one that the addon was built for. */
  readonly tls: PumpContexts | undefined;
  /** Carries connections with TLS then. */
  readonly sockets: Transport = createSocketTransport();
  readonly #native: NativePump;
  readonly #page: Destination;
  readonly #wires: (PumpWire | undefined)[] = [];
  #used = 0;
  #runs = 0;
  #flushing = false;
  /** Wires with something to send, in the order of their first write. Emptied by its count: setting a length is a slow call. */
  readonly #dirty: PumpWire[] = [];
  #dirtyCount = 0;
  #resumed: PumpWire[] = [];
  #drained: PumpWire[] = [];
  #closed: PumpWire[] = [];
  #scheduled = false;
  /** Between the first event of a batch and its flush. */
  #inBatch = false;

  constructor(options: PumpOptions) {
    this.#native = new NativePump(LIMITS.backlogLowBytes, this.#onBatch);
    this.#page = destination(this.#native.page);
    if (this.#native.tlsVersion !== "" && options.withoutTls !== true) this.tls = new PumpContexts(this.#native);
    this.sockets.beforeSend = () => this.beforeSend();
    this.sockets.onFault = (error) => this.onFault(error);
  }

  adopt(fd: number): Wire {
    const wire = new PumpWire(this, this.#native);
    wire.attach(this.#native.adopt(fd), false);
    return wire;
  }

  connect(address: { readonly host: string; readonly port: number } | { readonly path: string }, deadlineMillis: number): Promise<Wire> {
    return dialFirst(this, this.#native, address, deadlineMillis);
  }

  close(): void {
    for (const wire of this.#wires) wire?.destroy();
    this.sockets.close();
  }

  /** Copy bytes of one wire into the batch. */
  stage(wire: PumpWire, bytes: Uint8Array, start: number, end: number): void {
    // The page would send what an earlier batch left there: other connections' bytes.
    if (start < 0 || end > bytes.length) throw new RangeError("write: the range is outside the bytes");
    const page = this.#page;
    const pageBytes = page.buffer.length;
    let at = start;
    while (at < end) {
      if (this.#used === pageBytes || this.#runs === this.#native.runsMax) this.flush();
      // Asked again every time round: a flush that could not be recorded shuts the wire.
      if (!wire.writable) return;
      if (this.#flushing) throw new Error("beforeSend must not write");
      const used = this.#used;
      const room = pageBytes - used;
      const count = end - at < room ? end - at : room;
      copyInto(bytes, at, at + count, page, used);
      this.#runs += 1;
      if (wire.addRun(used, used + count)) this.markDirty(wire);
      this.#used = used + count;
      at += count;
    }
  }

  markDirty(wire: PumpWire): void {
    this.#dirty[this.#dirtyCount++] = wire;
    if (!this.#inBatch) this.#schedule();
  }

  /** Send what is staged, once it is on record. Calls no handler. */
  flush(): void {
    if (this.#dirtyCount === 0 || this.#flushing) return;
    this.#flushing = true;
    const wires = this.#dirty;
    const count = this.#dirtyCount;
    try {
      this.beforeSend();
      this.#send(wires, count);
    } catch (thrown) {
      const error = thrown instanceof Error ? thrown : new Error("the batch could not be recorded");
      for (let i = 0; i < count; i++) wires[i]!.drop(error);
    }
    this.#flushing = false;
    this.#used = 0;
    this.#runs = 0;
    // Wires that were ended from within beforeSend() have their turn later.
    const later = this.#dirtyCount - count;
    for (let i = 0; i < later; i++) wires[i] = wires[count + i]!;
    this.#dirtyCount = later;
    if (later > 0) this.#schedule();
  }

  #send(wires: readonly PumpWire[], count: number): void {
    try {
      let runs = 0;
      for (let i = 0; i < count; i++) runs = wires[i]!.putRuns(this.#native.runs, runs);
      if (runs > 0) this.#native.send(runs);
      for (let i = 0; i < count; i++) wires[i]!.sent();
    } catch (error) {
      // A defect: which of the bytes have left is not known, so none of these connections may go on.
      for (let i = 0; i < count; i++) wires[i]!.destroy();
      this.onFault(error);
    }
  }

  readonly #onBatch = (eventCount: number): void => {
    let told = 0;
    this.#inBatch = true;
    try {
      for (; told < eventCount; told++) this.#tell(told * EVENT_WORDS);
    } finally {
      // Handlers' exceptions do not get here. Should one come from elsewhere, the events behind it are lost, and a connection
      // that misses bytes must not go on.
      for (; told < eventCount; told++) this.#wires[this.#native.events[told * EVENT_WORDS]!]?.destroy();
      this.#inBatch = false;
      this.flush();
    }
  };

  attached(wire: PumpWire): void {
    this.#wires[wire.slot] = wire;
  }

  detached(wire: PumpWire): void {
    this.#wires[wire.slot] = undefined;
  }

  /** Bytes were held while the wire was paused; they are told outside any batch. */
  resumed(wire: PumpWire): void {
    this.#resumed.push(wire);
    this.#schedule();
  }

  /** The wire's backlog has gone down; its handler is told outside any flush. */
  drained(wire: PumpWire): void {
    this.#drained.push(wire);
    this.#schedule();
  }

  /** The wire is closed; its handler is told outside any other call to it. */
  closed(wire: PumpWire): void {
    this.#closed.push(wire);
    this.#schedule();
  }

  #tell(at: number): void {
    const { events, slab } = this.#native;
    const wire = this.#wires[events[at]!];
    if (wire === undefined || wire.generation !== events[at + 1]) return;
    const flags = events[at + 2]!;
    if (flags === EVENT.data) wire.received(slab, events[at + 3]!, events[at + 4]!);
    else wire.happened(flags, events[at + 3]!);
  }

  #schedule(): void {
    if (this.#scheduled) return;
    this.#scheduled = true;
    setImmediate(this.#turn);
  }

  readonly #turn = (): void => {
    this.#scheduled = false;
    for (const wire of take(this.#resumed)) wire.tellHeld();
    this.flush();
    for (const wire of take(this.#drained)) wire.tellDrained();
    for (const wire of take(this.#closed)) wire.tellClosed();
  };
}

/** What is in the list now; what comes meanwhile waits for the next turn. */
function take(list: PumpWire[]): readonly PumpWire[] {
  return list.length === 0 ? list : list.splice(0);
}
