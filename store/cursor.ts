import { SluiceError } from "../core/errors.ts";

/** A place in one shard: everything up to it was delivered. */
export interface Position {
  readonly segment: number;
  readonly offset: number;
}

/**
 * Cursor, base64url of: u8 1 (version), then for each shard u16 shard, u32 segment, u32 offset (big-endian). A shard
 * that is missing has delivered nothing yet.
 */
export function encodeCursor(positions: ReadonlyMap<number, Position>): string {
  const bytes = Buffer.alloc(1 + positions.size * 10);
  bytes[0] = 1;
  let at = 1;
  for (const [shard, position] of positions) {
    bytes.writeUInt16BE(shard, at);
    bytes.writeUInt32BE(position.segment, at + 2);
    bytes.writeUInt32BE(position.offset, at + 6);
    at += 10;
  }
  return bytes.toString("base64url");
}

/** @throws SluiceError SLUICE_CONFIG_INVALID when the text is no cursor */
export function decodeCursor(text: string): Map<number, Position> {
  const bytes = Buffer.from(text, "base64url");
  if (bytes[0] !== 1 || (bytes.length - 1) % 10 !== 0) {
    throw new SluiceError("SLUICE_CONFIG_INVALID", "not a cursor of this version", {
      hint: "Use the `cursor` of an event as it was printed.",
    });
  }
  const positions = new Map<number, Position>();
  for (let at = 1; at < bytes.length; at += 10) {
    positions.set(bytes.readUInt16BE(at), { segment: bytes.readUInt32BE(at + 2), offset: bytes.readUInt32BE(at + 6) });
  }
  return positions;
}
