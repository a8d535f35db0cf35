import { viewOf } from "../../core/bytes/copy.ts";
import { SluiceError } from "../../core/errors.ts";

/**
 * Typed messages of the PostgreSQL protocol (Message Formats: one type byte, then an int32 length that counts
 * itself but not the type byte), cut from a byte stream in any chunking.
 *
 *     | type: byte1 | length: int32, big-endian, >= 4 | body: length - 4 bytes |
 *
 * What the visitor lets pass joins one run per chunk, so a batch of messages goes out as one write and nothing is
 * allocated for it. A message that spans reads is assembled in a buffer that grows with what has arrived, never with
 * what was declared.
 */
export const FORWARD = 0;
/** visitor.replacement goes out in the message's place (undefined: nothing does). */
export const REPLACE = 1;
/** The message goes out, then visitor.replacement. */
export const FORWARD_AND_ADD = 2;
/** Stop before this message; resume() presents it again. visitor.replacement, if any, goes out behind what came before. */
export const HOLD = 3;

export interface MessageVisitor {
  /** Largest body-and-length (the wire's length field) accepted for this type; 0 refuses the type. Called before anything is kept. */
  limit(type: number): number;
  /**
   * True: a message that does not fit the current read is passed through piece by piece, without message(). It begins at `at` of
   * the bytes that the next run() brings.
   */
  streams(type: number, length: number, at: number): boolean;
  /** One whole message, bytes[start, end); the same buffer holds more of the stream up to `available`. */
  message(type: number, bytes: Uint8Array, start: number, end: number, available: number): number;
  /**
   * Asked where many bytes are left: up to which of bytes[start, available) messages of this type pass without message() being called
   * for each; `start`: none.
   */
  passesUpTo(type: number, bytes: Uint8Array, start: number, available: number): number;
  /** Of those messages only the ones that end with this byte pass; -1: all. */
  readonly passesEnding: number;
  /** So many whole messages, bytes[start, end), have passed that way and are part of the next run(). */
  passed(type: number, count: number, start: number, end: number): void;
  replacement: Uint8Array | undefined;
  /** Bytes to send on as they came; valid until it returns. */
  run(bytes: Uint8Array, start: number, end: number): void;
  /** Send the replacement of (or the addition to) the message bytes[start, end). */
  emit(replacement: Uint8Array | undefined, answer: number, bytes: Uint8Array, start: number, end: number): void;
}

// Of their own: V8 reads what is exported or imported from its cell each time and checks it; these are numbers in its code.
const FORWARDED = FORWARD;
const REPLACED = REPLACE;
const HELD = HOLD;

const HEADER_BYTES = 5;
const FIRST_ASSEMBLY_BYTES = 4_096;
/** With less of a chunk left, passesUpTo() costs more than it saves; more is one large message that had to be put together. */
const PASS_LEAST_BYTES = 2_048;
const PASS_MOST_BYTES = 262_144;

export class MessageFramer {
  readonly #visitor: MessageVisitor;
  /** Bytes of a streamed message still to pass. */
  #streamBytesLeft = 0;
  /** An incomplete message, or everything behind a held one: assembly[0, assembledBytes). */
  #assembly: Buffer | undefined;
  #assembledBytes = 0;
  #held = false;
  #stopped = false;

  constructor(visitor: MessageVisitor) {
    this.#visitor = visitor;
  }

  get held(): boolean {
    return this.#held;
  }

  /** Bytes kept here: an incomplete message or those behind a held one. */
  get keptBytes(): number {
    return this.#assembledBytes;
  }

  /** True between messages: nothing incomplete is kept. */
  get atBoundary(): boolean {
    return this.#assembledBytes === 0 && this.#streamBytesLeft === 0;
  }

  /** Ignore everything from here on. */
  stop(): void {
    this.#stopped = true;
    this.#assembly = undefined;
    this.#assembledBytes = 0;
  }

  push(bytes: Uint8Array, start: number, end: number): void {
    if (this.#stopped) return;
    if (this.#held) {
      this.#keep(bytes, start, end);
      return;
    }
    if (this.#streamBytesLeft > 0) {
      const count = Math.min(this.#streamBytesLeft, end - start);
      this.#visitor.run(bytes, start, start + count);
      this.#streamBytesLeft -= count;
      start += count;
    }
    if (this.#assembledBytes > 0 && start < end) start = this.#complete(bytes, start, end);
    if (this.#held) {
      this.#keep(bytes, start, end);
      return;
    }
    if (start < end) this.#cut(bytes, start, end);
  }

  /** Present the held message again and go on behind it. */
  resume(): void {
    if (!this.#held || this.#stopped) return;
    this.#held = false;
    const kept = this.#assembly;
    const count = this.#assembledBytes;
    this.#assembly = undefined;
    this.#assembledBytes = 0;
    if (kept !== undefined && count > 0) this.#cut(kept, 0, count);
  }

  /** Add to the incomplete message until it is whole, and present it. @returns where the rest of the chunk starts */
  #complete(bytes: Uint8Array, start: number, end: number): number {
    if (this.#assembledBytes < HEADER_BYTES) {
      const count = Math.min(HEADER_BYTES - this.#assembledBytes, end - start);
      this.#keep(bytes, start, start + count);
      start += count;
      if (this.#assembledBytes < HEADER_BYTES) return start;
    }
    const assembly = this.#assembly as Buffer;
    const type = assembly[0];
    const length = this.#length(type, viewOf(assembly), 1);
    const total = length + 1;
    if (
      this.#assembledBytes === HEADER_BYTES &&
      total > HEADER_BYTES &&
      total > HEADER_BYTES + (end - start) &&
      this.#visitor.streams(type, length, 0)
    ) {
      this.#assembledBytes = 0;
      this.#visitor.run(assembly, 0, HEADER_BYTES);
      this.#visitor.run(bytes, start, end);
      this.#streamBytesLeft = total - HEADER_BYTES - (end - start);
      return end;
    }
    const count = Math.min(total - this.#assembledBytes, end - start);
    this.#keep(bytes, start, start + count);
    start += count;
    if (this.#assembledBytes < total) return start;
    const whole = this.#assembly as Buffer;
    this.#assembledBytes = 0;
    // A large buffer is not kept for the next message.
    this.#assembly = whole.length > 65_536 ? undefined : whole;
    this.#cut(whole, 0, total);
    return start;
  }

  #length(type: number, view: DataView, at: number): number {
    const length = view.getInt32(at);
    const limit = this.#visitor.limit(type);
    if (limit === 0) {
      throw new SluiceError("SLUICE_PROTOCOL_VIOLATION", `unexpected message type 0x${type.toString(16).padStart(2, "0")}`);
    }
    if (length < 4 || length > limit) {
      throw new SluiceError(
        length < 4 ? "SLUICE_PROTOCOL_VIOLATION" : "SLUICE_LIMIT_EXCEEDED",
        `message length ${length} of type '${String.fromCharCode(type)}' is outside 4 to ${limit}`,
      );
    }
    return length;
  }

  #cut(bytes: Uint8Array, start: number, end: number): void {
    const visitor = this.#visitor;
    const view = viewOf(bytes);
    let runStart = start;
    while (end - start >= HEADER_BYTES) {
      const type = view.getUint8(start);
      if (end - start >= PASS_LEAST_BYTES && end - start <= PASS_MOST_BYTES) {
        const after = this.#pass(type, bytes, start, visitor.passesUpTo(type, bytes, start, end));
        if (after > start) {
          start = after;
          continue;
        }
      }
      const length = this.#length(type, view, start + 1);
      const next = start + length + 1;
      if (next > end) {
        if (!visitor.streams(type, length, start)) break;
        this.#streamBytesLeft = next - end;
        visitor.run(bytes, runStart, end);
        return;
      }
      const answer = visitor.message(type, bytes, start, next, end);
      if (this.#stopped) return;
      if (answer === HELD) {
        if (runStart < start) visitor.run(bytes, runStart, start);
        const behind = visitor.replacement;
        visitor.replacement = undefined;
        if (behind !== undefined) visitor.emit(behind, HOLD, bytes, start, start);
        this.#held = true;
        this.#keep(bytes, start, end);
        return;
      }
      if (answer !== FORWARDED) {
        const upTo = answer === REPLACED ? start : next;
        if (runStart < upTo) visitor.run(bytes, runStart, upTo);
        const replacement = visitor.replacement;
        visitor.replacement = undefined;
        visitor.emit(replacement, answer, bytes, start, next);
        runStart = next;
      }
      start = next;
    }
    if (runStart < start) visitor.run(bytes, runStart, start);
    if (start < end) this.#keep(bytes, start, end);
  }

  /** Pass whole messages of one type that end at `upTo` or before. @returns where the first one begins that does not, or is not valid */
  #pass(type: number, bytes: Uint8Array, start: number, upTo: number): number {
    if (upTo - start < HEADER_BYTES) return start;
    const limit = this.#visitor.limit(type);
    const ending = this.#visitor.passesEnding;
    const view = viewOf(bytes);
    let count = 0;
    let at = start;
    while (upTo - at >= HEADER_BYTES && view.getUint8(at) === type) {
      const length = view.getInt32(at + 1);
      if (length < 4 || length > limit || length >= upTo - at) break;
      if (ending >= 0 && view.getUint8(at + length) !== ending) break;
      at += length + 1;
      count += 1;
    }
    if (count > 0) this.#visitor.passed(type, count, start, at);
    return at;
  }

  #keep(bytes: Uint8Array, start: number, end: number): void {
    const needed = this.#assembledBytes + (end - start);
    if (this.#assembly === undefined || this.#assembly.length < needed) {
      const grown = Buffer.allocUnsafeSlow(Math.max(FIRST_ASSEMBLY_BYTES, needed, this.#assembledBytes * 2));
      if (this.#assembly !== undefined) grown.set(this.#assembly.subarray(0, this.#assembledBytes));
      this.#assembly = grown;
    }
    this.#assembly.set(bytes.subarray(start, end), this.#assembledBytes);
    this.#assembledBytes = needed;
  }
}
