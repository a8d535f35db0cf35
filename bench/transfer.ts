import type { Duplex } from "node:stream";
import { Client } from "pg";
import type { Destination } from "../test/helpers/clients.ts";
import type { Mode } from "./modes.ts";
import { withCpu } from "./window.ts";

export interface TransferFigures {
  /** 10^6 bytes a second as they came off the wire. */
  readonly megabytesPerSecond: number;
  /** Of the proxy's process tree per 10^9 bytes that the client received; absent without a proxy. */
  readonly cpuSecondsPerGigabyte?: number;
  readonly bytes: number;
}

const NO_ANSWER_MILLIS = 120_000;

/**
 * Read one large answer and throw it away: the client only counts, so that it is never what limits.
 * The session is open before the clock starts.
 * @throws Error when the statement fails or does not return `rows` rows
 */
export async function runTransfer(mode: Mode, to: Destination, sql: string, rows: number, tiny: boolean): Promise<TransferFigures> {
  const client = new Client({
    host: to.host ?? "127.0.0.1",
    port: to.port,
    database: to.database,
    user: to.user ?? "anyone",
    password: to.password,
    // The certificate is not what is measured.
    ssl: to.sslmode === undefined || to.sslmode === "disable" ? false : { rejectUnauthorized: false },
  });
  const failed = new Promise<never>((_resolve, reject) => {
    client.on("error", reject);
  });
  failed.catch(() => undefined);
  await client.connect();
  try {
    const { result, cpu } = await withCpu(mode, () => Promise.race([drain(streamOf(client), sql), failed]), tiny);
    const answered = new RegExp(`(?:COPY|SELECT) ${rows}\\0`).test(result.end);
    if (!answered) throw new Error(`the answer does not end with ${rows} rows: ${JSON.stringify(result.end.slice(-200))}`);
    return {
      megabytesPerSecond: result.bytes / 1e6 / result.seconds,
      bytes: result.bytes,
      ...(cpu && { cpuSecondsPerGigabyte: (cpu.user + cpu.system) / (result.bytes / 1e9) }),
    };
  } finally {
    streamOf(client).destroy();
  }
}

/** The driver did the greeting; from here on nothing but bytes counts. */
function streamOf(client: Client): Duplex {
  return (client as unknown as { connection: { stream: Duplex } }).connection.stream;
}

/** ReadyForQuery outside a transaction (PostgreSQL, Message Formats): it ends every answer. Zero bytes do not occur in text rows. */
const READY = Buffer.from("Z\0\0\0\x05I", "latin1");
const TAIL_BYTES = 512;

async function drain(stream: Duplex, sql: string): Promise<{ bytes: number; seconds: number; end: string }> {
  stream.removeAllListeners("data");
  let bytes = 0;
  let tail: Buffer = Buffer.alloc(0);
  const started = performance.now();
  await new Promise<void>((resolve, reject) => {
    const timer = setTimeout(() => reject(new Error(`no answer within ${NO_ANSWER_MILLIS / 1_000} s`)), NO_ANSWER_MILLIS);
    const settle = (settled: () => void): void => {
      clearTimeout(timer);
      settled();
    };
    stream.once("close", () => settle(() => reject(new Error("the connection ended before the answer did"))));
    stream.on("data", (chunk: Buffer) => {
      bytes += chunk.length;
      tail = chunk.length >= TAIL_BYTES ? chunk.subarray(-TAIL_BYTES) : Buffer.concat([tail, chunk]).subarray(-TAIL_BYTES);
      if (tail.subarray(-READY.length).equals(READY)) settle(resolve);
    });
    const text = Buffer.from(`${sql}\0`);
    const message = Buffer.alloc(5 + text.length);
    message.write("Q");
    message.writeInt32BE(4 + text.length, 1);
    text.copy(message, 5);
    stream.write(message);
  });
  return { bytes, seconds: (performance.now() - started) / 1_000, end: tail.toString("latin1") };
}
