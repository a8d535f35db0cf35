import type { Random } from "./random.ts";

/** Values at which length checks go wrong. */
const LENGTHS = [0, 1, 3, 4, 5, 7, 8, 0x7f, 0xff, 0x100, 0x7fff, 0x8000, 0xffff, 0x10000, 0x7fffffff, 0x80000000, 0xfffffffe, 0xffffffff];
const BYTES = [0x00, 0x01, 0x03, 0x16, 0x27, 0x22, 0x24, 0x42, 0x44, 0x50, 0x51, 0x53, 0x58, 0x5c, 0x64, 0x70, 0x7f, 0x80, 0xff];

/** A copy with one to four small changes: bytes flipped, set, inserted, taken out, repeated; lengths set to edges; the end cut off. */
export function mutate(random: Random, from: Uint8Array): Buffer {
  let bytes = Buffer.from(from);
  for (let left = 1 + random.below(4); left > 0; left -= 1) bytes = once(random, bytes);
  return bytes;
}

function once(random: Random, bytes: Buffer<ArrayBuffer>): Buffer<ArrayBuffer> {
  if (bytes.length === 0) return random.bytes(1 + random.below(16)) as Buffer<ArrayBuffer>;
  const at = random.below(bytes.length);
  const count = Math.min(1 + random.below(12), bytes.length - at);
  switch (random.below(8)) {
    case 0:
      bytes[at] = (bytes[at] as number) ^ (1 << random.below(8));
      return bytes;
    case 1:
      bytes[at] = random.pick(BYTES);
      return bytes;
    case 2:
      if (bytes.length >= 4) bytes.writeUInt32BE(random.pick(LENGTHS), Math.min(at, bytes.length - 4));
      return bytes;
    case 3:
      if (bytes.length >= 2) bytes.writeUInt16BE(random.pick(LENGTHS) & 0xffff, Math.min(at, bytes.length - 2));
      return bytes;
    case 4:
      return Buffer.concat([bytes.subarray(0, at), random.bytes(count), bytes.subarray(at)]);
    case 5:
      return Buffer.concat([bytes.subarray(0, at), bytes.subarray(at + count)]);
    case 6:
      return Buffer.concat([bytes.subarray(0, at + count), bytes.subarray(at)]);
    default:
      return random.oneIn(4) ? bytes.subarray(0, at) : bytes;
  }
}

/** The list with messages left out, doubled, exchanged or mutated. */
export function shuffle(random: Random, messages: readonly Uint8Array[]): Uint8Array[] {
  const out = [...messages];
  for (let left = 1 + random.below(5); left > 0 && out.length > 0; left -= 1) {
    const at = random.below(out.length);
    const other = random.below(out.length);
    switch (random.below(5)) {
      case 0:
        out.splice(at, 1);
        break;
      case 1:
        out.splice(other, 0, out[at] as Uint8Array);
        break;
      case 2:
        [out[at], out[other]] = [out[other] as Uint8Array, out[at] as Uint8Array];
        break;
      default:
        out[at] = mutate(random, out[at] as Uint8Array);
    }
  }
  return out;
}

/** Where a stream of `length` bytes is cut into reads, ascending; many short ones or a few long ones. */
export function cuts(random: Random, length: number): number[] {
  const largest = random.pick([1, 2, 5, 17, 300, 70_000]);
  const at: number[] = [];
  for (let next = 1 + random.below(largest); next < length; next += 1 + random.below(largest)) at.push(next);
  return at;
}
