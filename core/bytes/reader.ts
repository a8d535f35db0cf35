import { SluiceError } from "../errors.ts";

/**
 * Bounds-checked reading of big-endian integers, zero-terminated strings and byte ranges out of one received message. Every
 * method throws SluiceError SLUICE_PROTOCOL_VIOLATION instead of reading past the end; nothing is copied.
 */
export class Reader {
  readonly bytes: Uint8Array;
  readonly end: number;
  offset: number;

  constructor(bytes: Uint8Array, start = 0, end: number = bytes.length) {
    this.bytes = bytes;
    this.offset = start;
    this.end = end;
  }

  get left(): number {
    return this.end - this.offset;
  }

  byte(): number {
    this.#need(1);
    return this.bytes[this.offset++]!;
  }

  /** Signed, two bytes. */
  int16(): number {
    return (this.uint16() << 16) >> 16;
  }

  uint16(): number {
    this.#need(2);
    const at = this.offset;
    this.offset = at + 2;
    return (this.bytes[at]! << 8) | this.bytes[at + 1]!;
  }

  /** Signed, four bytes. */
  int32(): number {
    this.#need(4);
    const at = this.offset;
    this.offset = at + 4;
    return (this.bytes[at]! << 24) | (this.bytes[at + 1]! << 16) | (this.bytes[at + 2]! << 8) | this.bytes[at + 3]!;
  }

  /** Text up to the next zero byte, decoded as UTF-8. */
  cstring(): string {
    const terminator = this.bytes.indexOf(0, this.offset);
    if (terminator < 0 || terminator >= this.end) throw violation("a string without its terminating zero");
    const text = decoder.decode(this.bytes.subarray(this.offset, terminator));
    this.offset = terminator + 1;
    return text;
  }

  /** A view of the next `length` bytes. */
  take(length: number): Uint8Array {
    if (length < 0) throw violation("a negative length");
    this.#need(length);
    const view = this.bytes.subarray(this.offset, this.offset + length);
    this.offset += length;
    return view;
  }

  /** @throws when bytes are left over */
  finish(): void {
    if (this.offset !== this.end) throw violation("bytes after the end of a message");
  }

  #need(count: number): void {
    if (count > this.end - this.offset) throw violation("a message that ends too early");
  }
}

const decoder = new TextDecoder();

function violation(what: string): SluiceError {
  return new SluiceError("SLUICE_PROTOCOL_VIOLATION", `protocol violation: ${what}`);
}
