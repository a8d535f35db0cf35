import { SluiceError } from "../errors.ts";

/** Builds small messages: big-endian integers, zero-terminated strings, byte ranges. Not for the forward path, where bytes are passed on as they came. */
export class Writer {
  #buffer: Buffer;
  #length = 0;

  constructor(initialBytes = 256) {
    this.#buffer = Buffer.allocUnsafe(initialBytes);
  }

  byte(value: number): this {
    this.#room(1);
    this.#length = this.#buffer.writeUInt8(value, this.#length);
    return this;
  }

  /** Signed, two bytes. */
  int16(value: number): this {
    this.#room(2);
    this.#length = this.#buffer.writeInt16BE(value, this.#length);
    return this;
  }

  /** Signed, four bytes. */
  int32(value: number): this {
    this.#room(4);
    this.#length = this.#buffer.writeInt32BE(value, this.#length);
    return this;
  }

  bytes(value: Uint8Array): this {
    this.#room(value.length);
    this.#buffer.set(value, this.#length);
    this.#length += value.length;
    return this;
  }

  text(value: string): this {
    return this.bytes(Buffer.from(value, "utf8"));
  }

  /**
   * UTF-8 and a terminating zero.
   * @throws SluiceError SLUICE_PROTOCOL_VIOLATION when the text itself holds a zero, which would end it early
   */
  cstring(value: string): this {
    if (value.includes("\0")) throw new SluiceError("SLUICE_PROTOCOL_VIOLATION", "a text with a zero byte in it cannot be sent");
    return this.text(value).byte(0);
  }

  /** What was written, as a copy of its own. */
  done(): Uint8Array {
    return new Uint8Array(this.#buffer.subarray(0, this.#length));
  }

  #room(count: number): void {
    if (this.#length + count <= this.#buffer.length) return;
    const larger = Buffer.allocUnsafe(Math.max(this.#buffer.length * 2, this.#length + count));
    larger.set(this.#buffer.subarray(0, this.#length));
    this.#buffer = larger;
  }
}
