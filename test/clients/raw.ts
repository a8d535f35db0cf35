import { connect as connectTcp, type Socket } from "node:net";
import { connect as connectTls, type TLSSocket } from "node:tls";
import {
  ALPN_NAME,
  cancelRequest,
  PROTOCOL_3_0,
  passwordMessage,
  query,
  sslRequest,
  startupMessage,
  terminate,
} from "../../protocols/postgres/messages.ts";

/** One message of the server: its type letter and what follows type and length. */
export interface Frame {
  readonly type: string;
  readonly body: Buffer;
}

export interface RawOptions {
  readonly port: number;
  readonly host?: string;
  readonly user?: string;
  readonly database?: string;
  readonly password?: string;
  readonly version?: number;
  /** Further startup parameters. */
  readonly parameters?: Readonly<Record<string, string>>;
  /** `request`: SSLRequest first; `direct`: TLS at once. Default none. */
  readonly tls?: "request" | "direct";
  readonly ca?: string;
  /** Default: PostgreSQL's own, `postgresql`. */
  readonly alpn?: readonly string[];
}

const DEADLINE_MILLIS = 30_000;

/** A PostgreSQL connection with nothing between the test and the frames. */
export class RawClient {
  readonly #socket: Socket;
  #pending: Buffer[] = [];
  #pendingBytes = 0;
  #frames: Frame[] = [];
  #wake: (() => void) | undefined;
  ended = false;
  processId = 0;
  key: Buffer = Buffer.alloc(0);
  /** Everything the server sent before the first ReadyForQuery. */
  startup: readonly Frame[] = [];
  /** All bytes that came, kept only when a test asks for it. */
  received: Buffer[] | undefined;

  constructor(socket: Socket) {
    this.#socket = socket;
    socket.on("data", (chunk: Buffer) => this.#push(chunk));
    const end = () => {
      this.ended = true;
      this.#wake?.();
    };
    socket.on("end", end);
    socket.on("close", end);
    socket.on("error", end);
  }

  #push(chunk: Buffer): void {
    this.received?.push(chunk);
    this.#pending.push(chunk);
    this.#pendingBytes += chunk.length;
    const head = this.#pending[0] as Buffer;
    if (head.length >= 5 && this.#pendingBytes < head.readInt32BE(1) + 1) return;
    const all = this.#pending.length === 1 ? head : Buffer.concat(this.#pending);
    let at = 0;
    while (all.length - at >= 5) {
      const end = at + 1 + all.readInt32BE(at + 1);
      if (end > all.length) break;
      this.#frames.push({ type: String.fromCharCode(all[at] ?? 0), body: all.subarray(at + 5, end) });
      at = end;
    }
    this.#pending = at < all.length ? [all.subarray(at)] : [];
    this.#pendingBytes = all.length - at;
    this.#wake?.();
  }

  send(...messages: readonly Uint8Array[]): void {
    this.#socket.write(Buffer.concat(messages));
  }

  /** The next frame. @throws when the connection ends or nothing comes in time */
  async next(deadlineMillis = DEADLINE_MILLIS): Promise<Frame> {
    const deadline = Date.now() + deadlineMillis;
    for (;;) {
      const frame = this.#frames.shift();
      if (frame !== undefined) return frame;
      if (this.ended) throw new Error("the connection ended");
      const left = deadline - Date.now();
      if (left <= 0) throw new Error(`no frame within ${deadlineMillis} ms`);
      await new Promise<void>((resolve) => {
        const timer = setTimeout(resolve, left);
        this.#wake = () => {
          clearTimeout(timer);
          resolve();
        };
      });
    }
  }

  /** Frames up to the count-th of this type, that one included; or all until the connection ends. */
  async until(type: string, count = 1): Promise<Frame[]> {
    const frames: Frame[] = [];
    let left = count;
    while (left > 0) {
      if (this.ended && this.#frames.length === 0) return frames;
      const frame = await this.next().catch((error: unknown) => {
        if (this.ended) return undefined;
        const seen = frames.map((each) => each.type).join("");
        throw new Error(`waiting for ${count} × ${type}, got "${seen}"`, { cause: error });
      });
      if (frame === undefined) return frames;
      frames.push(frame);
      if (frame.type === type) left -= 1;
    }
    return frames;
  }

  /** Send messages and take what comes up to the count-th ReadyForQuery. */
  ask(messages: readonly Uint8Array[], count = 1): Promise<Frame[]> {
    this.send(...messages);
    return this.until("Z", count);
  }

  query(sql: string): Promise<Frame[]> {
    return this.ask([query(sql)]);
  }

  /** Wait until the server closes. */
  async closed(): Promise<Frame[]> {
    return this.until("nothing");
  }

  close(): void {
    if (!this.ended) this.#socket.write(terminate());
    this.#socket.end();
    this.#socket.destroySoon();
  }

  destroy(): void {
    this.#socket.destroy();
  }
}

const socketOf = (options: RawOptions): Promise<Socket> =>
  new Promise((resolve, reject) => {
    const socket = connectTcp({ host: options.host ?? "127.0.0.1", port: options.port, noDelay: true });
    socket.once("error", reject);
    socket.once("connect", () => resolve(socket));
  });

const secured = (options: RawOptions, socket: Socket): Promise<TLSSocket> =>
  new Promise((resolve, reject) => {
    const alpn = options.alpn ?? [ALPN_NAME];
    const tls = connectTls({
      socket,
      ca: options.ca,
      servername: "localhost",
      rejectUnauthorized: options.ca !== undefined,
      ALPNProtocols: [...alpn],
    });
    tls.once("error", reject);
    tls.once("secureConnect", () => resolve(tls));
  });

/** One byte that answers SSLRequest or GSSENCRequest. */
export const answerByte = (socket: Socket, request: Uint8Array): Promise<string> =>
  new Promise((resolve, reject) => {
    socket.once("error", reject);
    socket.once("end", () => reject(new Error("the connection ended")));
    socket.once("readable", () => resolve((socket.read(1) as Buffer | null)?.toString("latin1") ?? ""));
    socket.write(request);
  });

/** A socket with TLS as asked for, before any startup message. */
export async function openSocket(options: RawOptions): Promise<Socket> {
  const socket = await socketOf(options);
  if (options.tls === "request") {
    const answer = await answerByte(socket, sslRequest());
    if (answer !== "S") throw new Error(`SSLRequest was answered with ${answer}`);
  }
  return options.tls === undefined ? socket : secured(options, socket);
}

/** Startup up to the first ReadyForQuery, or to the server's refusal: then `ended` is set and `startup` says why. */
export async function rawConnect(options: RawOptions): Promise<RawClient> {
  const client = new RawClient(await openSocket(options));
  const parameters = { user: options.user ?? "anyone", database: options.database ?? "postgres", ...options.parameters };
  client.send(startupMessage(options.version ?? PROTOCOL_3_0, Object.entries(parameters)));
  const startup: Frame[] = [];
  for (;;) {
    const frame = await client.next().catch(() => undefined);
    if (frame === undefined) break;
    startup.push(frame);
    if (frame.type === "R" && frame.body.readInt32BE(0) === 3) client.send(passwordMessage(options.password ?? ""));
    if (frame.type === "K") {
      client.processId = frame.body.readInt32BE(0);
      client.key = frame.body.subarray(4);
    }
    if (frame.type === "Z") break;
  }
  client.startup = startup;
  return client;
}

/** Send a CancelRequest and wait until the server closes that connection. */
export async function rawCancel(options: RawOptions, processId: number, key: Uint8Array): Promise<void> {
  const socket = await openSocket(options);
  await new Promise<void>((resolve) => {
    socket.on("error", () => undefined);
    socket.once("close", () => resolve());
    socket.resume();
    socket.write(cancelRequest(processId, key));
  });
}

/** Fields of an ErrorResponse or NoticeResponse by their letter. */
export function fields(frame: Frame): Record<string, string> {
  const found: Record<string, string> = {};
  let at = 0;
  while (at < frame.body.length && frame.body[at] !== 0) {
    const zero = frame.body.indexOf(0, at + 1);
    found[String.fromCharCode(frame.body[at] ?? 0)] = frame.body.toString("utf8", at + 1, zero);
    at = zero + 1;
  }
  return found;
}

/** Values of a DataRow as text; null for NULL. */
export function values(frame: Frame): (string | null)[] {
  const row: (string | null)[] = [];
  let at = 2;
  for (let left = frame.body.readInt16BE(0); left > 0; left -= 1) {
    const length = frame.body.readInt32BE(at);
    at += 4;
    row.push(length < 0 ? null : frame.body.toString("utf8", at, at + length));
    if (length > 0) at += length;
  }
  return row;
}

export const types = (frames: readonly Frame[]): string => frames.map((frame) => frame.type).join("");
export const rows = (frames: readonly Frame[]): (string | null)[][] => frames.filter((frame) => frame.type === "D").map(values);
export const tags = (frames: readonly Frame[]): string[] =>
  frames.filter((frame) => frame.type === "C").map((frame) => frame.body.toString("utf8", 0, frame.body.length - 1));
export const errors = (frames: readonly Frame[]): Record<string, string>[] => frames.filter((frame) => frame.type === "E").map(fields);
export const states = (frames: readonly Frame[]): string =>
  frames
    .filter((frame) => frame.type === "Z")
    .map((frame) => frame.body.toString("latin1"))
    .join("");
