import { createHash, type Hash } from "node:crypto";
import { eachRecord, RECORD, type SegmentInfo } from "./layout.ts";
import type { Block } from "./segment.ts";

/** Recomputes the chain of seals over a segment's blocks (README.md, "Chain"). */
export class SealChain {
  private hash: Hash = createHash("sha256");
  private start = true;
  /** Offset of the first block whose seal did not match what stands before it. */
  brokenAt: number | undefined;
  info: SegmentInfo | undefined;

  add(block: Block): void {
    if (this.start) {
      this.start = false;
      this.info = segmentInfo(block.payload);
      if (this.info?.previous) this.hash.update(Buffer.from(this.info.previous.seal, "hex"));
    }
    let seal: Buffer | undefined;
    // Only a block of its own carries a seal, so it is enough to look at the first record.
    if (block.payload[4] === RECORD.seal) {
      eachRecord(block.payload, (type, at, length) => {
        if (type === RECORD.seal && length >= 48) seal = Buffer.from(block.payload.subarray(at + 16, at + 48));
      });
    }
    if (seal !== undefined) {
      if (!this.hash.digest().equals(seal)) this.brokenAt ??= block.offset;
      this.hash = createHash("sha256").update(seal);
    }
    this.hash.update(block.bytes);
  }

  /** What the next segment's header must carry. */
  end(): string {
    return this.hash.copy().digest("hex");
  }
}

/** The first record of a segment's first block, or undefined when it is none this version reads. */
export function segmentInfo(payload: Buffer): SegmentInfo | undefined {
  if (payload.length < 8 || payload[4] !== RECORD.segment) return undefined;
  try {
    const value: unknown = JSON.parse(payload.toString("utf8", 8, payload.readUInt32LE(0)));
    if (typeof value !== "object" || value === null || !("version" in value) || value.version !== 1) return undefined;
    return value as SegmentInfo;
  } catch {
    return undefined;
  }
}
