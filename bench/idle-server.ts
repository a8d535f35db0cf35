import { createServer, type Socket } from "node:net";
import type { Duplex } from "node:stream";
import { Client } from "pg";
import * as messages from "../protocols/postgres/messages.ts";
import { GSSENC_REQUEST, query, SSL_REQUEST, TYPE } from "../protocols/postgres/messages.ts";

/**
 * A PostgreSQL server that holds many idle sessions cheaply: it lets everybody in, and answers a query as the real server answered the
 * same text once. What is new it asks the real server, on a connection that belongs to this one, so that transactions stay in order.
 * `idle-server.ts` takes libpq's PGPORT, PGDATABASE, PGUSER and PGPASSWORD of the real server; it prints the port that it listens on.
 */
const answers = new Map<string, Buffer>();

/** As PostgreSQL 15 reports them, in part; the client's own settings come back as given. */
const PARAMETERS = new Map([
  ["client_encoding", "UTF8"],
  ["DateStyle", "ISO, MDY"],
  ["integer_datetimes", "on"],
  ["IntervalStyle", "postgres"],
  ["is_superuser", "on"],
  ["server_encoding", "UTF8"],
  ["server_version", "15.0"],
  ["standard_conforming_strings", "on"],
  ["TimeZone", "UTC"],
]);

const LARGEST_MESSAGE_BYTES = 1024 * 1024;

class Session {
  readonly #socket: Socket;
  #pending: Buffer = Buffer.alloc(0);
  #started = false;
  #busy = false;
  #real: Client | undefined;

  constructor(socket: Socket) {
    this.#socket = socket;
    socket.setNoDelay(true);
    socket.on("error", () => socket.destroy());
    socket.on("close", () => void this.#real?.end().catch(() => undefined));
    socket.on("data", (chunk: Buffer) => {
      this.#pending = this.#pending.length === 0 ? chunk : Buffer.concat([this.#pending, chunk]);
      void this.#work();
    });
  }

  /** One message after the other, also where one has to wait for the real server. */
  async #work(): Promise<void> {
    if (this.#busy) return;
    this.#busy = true;
    try {
      for (let message = this.#take(); message !== undefined; message = this.#take()) await this.#answer(message);
    } catch (error) {
      console.error(error);
      this.#socket.destroy();
    }
    this.#busy = false;
  }

  #take(): Buffer | undefined {
    const typeBytes = this.#started ? 1 : 0;
    if (this.#pending.length < typeBytes + 4) return undefined;
    const end = typeBytes + this.#pending.readInt32BE(typeBytes);
    if (end < typeBytes + 4 || end > LARGEST_MESSAGE_BYTES) throw new Error("a message of impossible length");
    if (this.#pending.length < end) return undefined;
    const message = this.#pending.subarray(0, end);
    // A copy: an idle session must not hold on to what it was opened with.
    this.#pending = Buffer.from(this.#pending.subarray(end));
    return message;
  }

  async #answer(message: Buffer): Promise<void> {
    if (!this.#started) return this.#start(message.readInt32BE(4));
    if (message[0] === TYPE.terminate) return void this.#socket.end();
    if (message[0] !== TYPE.query) throw new Error(`a message of type ${String.fromCharCode(message[0] ?? 0)}, which is not known here`);
    const sql = message.toString("utf8", 5, message.length - 1);
    let answer = answers.get(sql);
    if (answer === undefined) {
      answer = await this.#ask(sql);
      answers.set(sql, answer);
    }
    this.#socket.write(answer);
  }

  #start(code: number): void {
    if (code === SSL_REQUEST || code === GSSENC_REQUEST) return void this.#socket.write("N");
    this.#started = true;
    this.#socket.write(
      Buffer.concat([
        messages.authenticationOk(),
        ...[...PARAMETERS].map(([name, value]) => messages.parameterStatus(name, value)),
        messages.backendKeyData(1, Buffer.alloc(4)),
        messages.readyForQuery("I"),
      ]),
    );
  }

  async #ask(sql: string): Promise<Buffer> {
    if (this.#real === undefined) {
      this.#real = new Client({ host: "127.0.0.1" });
      this.#real.on("error", () => this.#socket.destroy());
      await this.#real.connect();
    }
    return exchange((this.#real as unknown as { connection: { stream: Duplex } }).connection.stream, sql);
  }
}

/** The driver did the greeting; this reads what follows as it comes, up to ReadyForQuery. */
function exchange(stream: Duplex, sql: string): Promise<Buffer> {
  stream.removeAllListeners("data");
  return new Promise((resolve, reject) => {
    const chunks: Buffer[] = [];
    stream.once("close", () => reject(new Error("the real server ended the connection")));
    stream.on("data", (chunk: Buffer) => {
      chunks.push(chunk);
      const all = Buffer.concat(chunks);
      for (let at = 0; at + 5 <= all.length; at += 1 + all.readInt32BE(at + 1)) {
        if (all[at] === TYPE.readyForQuery && at + 6 === all.length) return resolve(all);
      }
    });
    stream.write(query(sql));
  });
}

const server = createServer((socket) => new Session(socket));
server.listen({ host: "127.0.0.1", port: 0, backlog: 1_024 }, () => {
  const address = server.address();
  console.log(typeof address === "object" ? address?.port : address);
});
