import { createHash, type Hash } from "node:crypto";
import fs from "node:fs";
import { checksum } from "../core/native/checksum.ts";
import { segmentPath } from "./folder.ts";
import { BLOCK_HEADER_BYTES, BLOCK_MAGIC, putHeader, RECORD, RECORD_HEADER_BYTES, type SegmentInfo } from "./layout.ts";

export type WriteSync = (fd: number, buffer: Uint8Array, offset: number, length: number, position: number) => number;

export interface StartedSegment {
  readonly fd: number;
  /** Length of the first block. */
  readonly length: number;
  /** The chain so far (README.md, "Chain"). */
  readonly chain: Hash;
}

export class ShortWrite extends Error {
  constructor(written: number, wanted: number) {
    super(`short write: ${written} of ${wanted} bytes`);
  }
}

/** Fill in the header of the block [start, end). */
export function finishBlock(buffer: Buffer, view: DataView, start: number, end: number, sequence: number): void {
  view.setUint32(start, BLOCK_MAGIC, true);
  view.setUint32(start + 8, end - start - BLOCK_HEADER_BYTES, true);
  view.setUint32(start + 12, sequence, true);
  view.setUint32(start + 4, checksum(buffer, start + 8, end), true);
}

/**
 * Create a segment with its first block: its header, and what is live and pending.
 * @throws what the file system throws; then nothing is left behind
 */
export function startSegment(folder: string, info: SegmentInfo, carry: Buffer, write: WriteSync): StartedSegment {
  const json = Buffer.from(JSON.stringify(info));
  const headerBytes = RECORD_HEADER_BYTES + json.length;
  const block = Buffer.alloc(BLOCK_HEADER_BYTES + headerBytes + carry.length);
  const view = new DataView(block.buffer, block.byteOffset, block.byteLength);
  putHeader(view, BLOCK_HEADER_BYTES, headerBytes, RECORD.segment, 0, 0);
  block.set(json, BLOCK_HEADER_BYTES + RECORD_HEADER_BYTES);
  block.set(carry, BLOCK_HEADER_BYTES + headerBytes);
  finishBlock(block, view, 0, block.length, 0);
  const path = segmentPath(folder, info.segment);
  const fd = fs.openSync(path, "wx+", 0o600);
  try {
    const written = write(fd, block, 0, block.length, 0);
    if (written !== block.length) throw new ShortWrite(written, block.length);
  } catch (error) {
    fs.closeSync(fd);
    fs.rmSync(path, { force: true });
    throw error;
  }
  const chain = createHash("sha256");
  if (info.previous !== null) chain.update(Buffer.from(info.previous.seal, "hex"));
  return { fd, length: block.length, chain: chain.update(block) };
}
