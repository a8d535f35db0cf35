import zlib from "node:zlib";
import { journalIfBuilt } from "./addons.ts";

type Checksum = (bytes: Uint8Array, start: number, end: number) => number;

const portable: Checksum = (bytes, start, end) => zlib.crc32(bytes.subarray(start, end));

function native(): Checksum | undefined {
  const addon = journalIfBuilt();
  return addon?.checksum(new Uint8Array(0), 0, 0) === undefined ? undefined : (addon.checksum as Checksum);
}

let chosen: Checksum | undefined;

/** CRC-32 of bytes[start, end), the same as `zlib.crc32` and several times as fast where the addon is built. */
export function checksum(bytes: Uint8Array, start: number, end: number): number {
  chosen ??= native() ?? portable;
  return chosen(bytes, start, end);
}
