import { connect as connectSocket, Socket } from "node:net";
import { copyInto, type Destination, destination } from "../bytes/copy.ts";
import { SluiceError } from "../errors.ts";
import { LIMITS } from "../limits.ts";
import { SecureContexts } from "./contexts.ts";
import type { Transport, Wire } from "./types.ts";
import { SocketWire } from "./wire.ts";

/**
 * Every plaintext socket reads into this one slab: libuv reads a socket and calls back before it reads the next one, and
 * handlers consume or copy what they get before they return.
 */
const SLAB_BYTES = 64 * 1024;
/** Staged bytes of one batch; a batch that fills up is sent at once. */
const PAGE_BYTES = 256 * 1024;
const FREE_PAGES = 8;
const KEEP_ALIVE_MILLIS = 60_000;

/** Staged bytes of a batch, and how many sockets still send from them. */
export interface Page extends Destination {
  readonly buffer: Buffer;
  users: number;
}

const newPage = (): Page => {
  const buffer = Buffer.allocUnsafeSlow(PAGE_BYTES);
  return { ...destination(buffer), buffer, users: 0 };
};

/** The transport over node:net and node:tls sockets: portable, and the reference for the native pump. One per worker. */
export function createSocketTransport(): Transport {
  return new SocketTransport();
}

/**
 * Writes of one event-loop turn are staged in a page and leave together in the check phase, which follows the poll phase in
 * which all ready sockets were read: one beforeSend() (one write of intents), then at most one write per wire.
 */
export class SocketTransport implements Transport {
  beforeSend: () => void = () => {};
  onFault: (error: unknown) => void = () => {};

  readonly contexts: SecureContexts = new SecureContexts();
  readonly #slab = new Uint8Array(SLAB_BYTES);
  readonly #wires = new Set<SocketWire>();
  #page: Page = newPage();
  /** Pages that no socket uses any more. Without them a fast sender would leave its pages to the garbage collector by the gigabyte. */
  readonly #freePages: Page[] = [];
  #used = 0;
  /** Wires with something to send, in the order of their first write; the spare array takes the next batch during a flush. */
  #dirty: SocketWire[] = [];
  #spare: SocketWire[] = [];
  #drained: SocketWire[] = [];
  #scheduled = false;

  adopt(fd: number): Wire {
    const wire = new SocketWire(this);
    const socket = new Socket({ fd, readable: true, writable: true, ...this.#socketOptions(wire) } as ConstructorParameters<
      typeof Socket
    >[0]);
    socket.setNoDelay(true);
    socket.setKeepAlive(true, KEEP_ALIVE_MILLIS);
    this.#wires.add(wire);
    wire.attach(socket, false);
    return wire;
  }

  async connect(
    address: { readonly host: string; readonly port: number } | { readonly path: string },
    deadlineMillis: number,
  ): Promise<Wire> {
    const wire = new SocketWire(this);
    const where = "path" in address ? address.path : `${address.host}:${address.port}`;
    const target = "path" in address ? { path: address.path } : { host: address.host, port: address.port, noDelay: true };
    const socket = connectSocket({ ...target, keepAlive: true, keepAliveInitialDelay: KEEP_ALIVE_MILLIS, ...this.#socketOptions(wire) });
    await new Promise<void>((resolve, reject) => {
      const settle = (error?: Error): void => {
        clearTimeout(timer);
        socket.off("connect", onConnect).off("error", onError);
        if (error === undefined) return resolve();
        // A socket that is given up may still report one more error.
        socket.on("error", () => {});
        socket.destroy();
        reject(error);
      };
      const onConnect = (): void => {
        // At once, not after the await: the first error may be reported before the promise's continuation runs.
        wire.attach(socket, "path" in address);
        this.#wires.add(wire);
        settle();
      };
      const onError = (error: NodeJS.ErrnoException): void =>
        settle(
          new SluiceError("SLUICE_TARGET_UNREACHABLE", `cannot connect to ${where}: ${error.code ?? "connection failed"}`, {
            cause: error,
          }),
        );
      const timer = setTimeout(
        () => settle(new SluiceError("SLUICE_DEADLINE", `cannot connect to ${where} within ${deadlineMillis} ms`)),
        Math.max(1, deadlineMillis),
      );
      socket.once("connect", onConnect).once("error", onError);
    });
    return wire;
  }

  close(): void {
    for (const wire of this.#wires) wire.destroy();
  }

  /** Copy bytes of one wire into the batch. */
  stage(wire: SocketWire, bytes: Uint8Array, start: number, end: number): void {
    // The page would send what an earlier batch left there: other connections' bytes.
    if (start < 0 || end > bytes.length) throw new RangeError("write: the range is outside the bytes");
    let at = start;
    while (at < end) {
      if (this.#used === PAGE_BYTES) this.flush();
      // Asked again every time round: a flush that could not be recorded shuts the wire.
      if (!wire.writable) return;
      const count = Math.min(end - at, PAGE_BYTES - this.#used);
      copyInto(bytes, at, at + count, this.#page, this.#used);
      if (wire.addRun(this.#used, this.#used + count)) this.markDirty(wire);
      this.#used += count;
      at += count;
    }
  }

  markDirty(wire: SocketWire): void {
    this.#dirty.push(wire);
    this.#schedule();
  }

  /** Send what is staged, once it is on record. Calls no handler. */
  flush(): void {
    const wires = this.#dirty;
    if (wires.length === 0) return;
    this.#dirty = this.#spare;
    this.#spare = wires;
    try {
      this.beforeSend();
    } catch (thrown) {
      const error = thrown instanceof Error ? thrown : new Error("the batch could not be recorded");
      for (const wire of wires) wire.drop(error);
      wires.length = 0;
      this.#used = 0;
      return;
    }
    const page = this.#page;
    for (const wire of wires) if (wire.send(page)) page.users += 1;
    wires.length = 0;
    // A socket that the kernel took less from still refers to the page: leave it to that socket.
    if (page.users > 0) this.#page = this.#freePages.pop() ?? newPage();
    this.#used = 0;
  }

  /** A socket that went on using the page needs it no more. */
  release(page: Page): void {
    page.users -= 1;
    if (page.users === 0 && this.#freePages.length < FREE_PAGES) this.#freePages.push(page);
  }

  /** The wire's backlog has gone down; its handler is told outside any flush. */
  drained(wire: SocketWire): void {
    this.#drained.push(wire);
    this.#schedule();
  }

  forget(wire: SocketWire): void {
    this.#wires.delete(wire);
  }

  #schedule(): void {
    if (this.#scheduled) return;
    this.#scheduled = true;
    setImmediate(this.#turn);
  }

  readonly #turn = (): void => {
    this.#scheduled = false;
    this.flush();
    if (this.#drained.length === 0) return;
    const wires = this.#drained;
    this.#drained = [];
    for (const wire of wires) wire.tellDrained();
  };

  #socketOptions(wire: SocketWire): object {
    return {
      allowHalfOpen: true,
      // `drain` then fires for every backlog that can have been over the high mark.
      writableHighWaterMark: LIMITS.backlogLowBytes,
      onread: {
        buffer: this.#slab,
        callback: (count: number): boolean => {
          wire.received(this.#slab, count);
          return true;
        },
      },
    };
  }
}
