import { SluiceError } from "../../core/errors.ts";

/** A piece of a session's recording: bytes of one direction, in the order they passed. */
export interface RecordedBytes {
  readonly direction: "fromClient" | "toClient";
  /** Microseconds of the Unix epoch. */
  readonly micros: number;
  readonly request: number;
  readonly bytes: Uint8Array;
}

/** One message put together again. */
export interface RecordedMessage {
  readonly direction: RecordedBytes["direction"];
  readonly micros: number;
  readonly type: string;
  /** After type and length. Empty for a message larger than the limit; `skippedBytes` then tells its size. */
  readonly body: Uint8Array;
  readonly skippedBytes: number;
}

/** Larger messages are counted, not shown. */
const SHOWN_MESSAGE_BYTES = 16 * 1024 * 1024;
const HEADER_BYTES = 5;
const NOTHING = new Uint8Array(0);

const KNOWN_TYPES = { fromClient: "BCcdDEfHPQSX", toClient: "123AcCdDEGHInNSstTVWZ" } as const;

/** Puts messages of one direction together (Message Formats: one byte type, four bytes length that counts itself). */
class Assembler {
  readonly direction: RecordedBytes["direction"];
  #pending: Uint8Array = NOTHING;
  #request = -1;
  #skip = 0;

  constructor(direction: RecordedBytes["direction"]) {
    this.direction = direction;
  }

  *push(piece: RecordedBytes): Generator<RecordedMessage> {
    let { bytes } = piece;
    // A recording that keeps only the head of each answer stops in the middle of a message; the next answer starts afresh.
    if (piece.request !== this.#request && (this.#pending.length > 0 || this.#skip > 0) && this.#startsMessage(bytes)) {
      this.#pending = NOTHING;
      this.#skip = 0;
    }
    this.#request = piece.request;
    if (this.#skip > 0) {
      const skipped = Math.min(this.#skip, bytes.length);
      this.#skip -= skipped;
      bytes = bytes.subarray(skipped);
    }
    if (this.#pending.length > 0) bytes = Buffer.concat([this.#pending, bytes]);
    this.#pending = NOTHING;
    let offset = 0;
    while (bytes.length - offset >= HEADER_BYTES) {
      const view = new DataView(bytes.buffer, bytes.byteOffset + offset, HEADER_BYTES);
      const length = view.getUint32(1);
      if (length < 4) throw new SluiceError("SLUICE_PROTOCOL_VIOLATION", "the recording holds a message with an impossible length");
      const type = String.fromCharCode(view.getUint8(0));
      const end = offset + 1 + length;
      const whole = { direction: this.direction, micros: piece.micros, type };
      if (length > SHOWN_MESSAGE_BYTES) {
        yield { ...whole, body: NOTHING, skippedBytes: length - 4 };
        this.#skip = Math.max(0, end - bytes.length);
        offset = Math.min(end, bytes.length);
      } else if (end <= bytes.length) {
        yield { ...whole, body: bytes.subarray(offset + HEADER_BYTES, end), skippedBytes: 0 };
        offset = end;
      } else break;
    }
    if (offset < bytes.length) this.#pending = bytes.slice(offset);
  }

  #startsMessage(bytes: Uint8Array): boolean {
    if (bytes.length < HEADER_BYTES) return false;
    const length = new DataView(bytes.buffer, bytes.byteOffset).getUint32(1);
    return KNOWN_TYPES[this.direction].includes(String.fromCharCode(bytes[0] ?? 0)) && length >= 4 && length <= 0x3fff_ffff;
  }
}

/**
 * The messages of a recording in order.
 * @throws SluiceError SLUICE_PROTOCOL_VIOLATION where the bytes are not messages
 */
export async function* recordedMessages(
  pieces: AsyncIterable<RecordedBytes> | Iterable<RecordedBytes>,
): AsyncGenerator<RecordedMessage, void, void> {
  const assemblers = { fromClient: new Assembler("fromClient"), toClient: new Assembler("toClient") };
  for await (const piece of pieces) yield* assemblers[piece.direction].push(piece);
}
