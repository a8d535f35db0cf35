import { SealChain } from "./chain.ts";
import { listSegments, listShards, runningWriter, segmentPath, shardFolder } from "./folder.ts";
import type { SegmentInfo } from "./layout.ts";
import { SegmentCursor } from "./segment.ts";

export interface Finding {
  readonly kind: "crash tail" | "tampered";
  readonly shard: number;
  readonly segment: number;
  readonly offset: number;
  readonly message: string;
}

export interface Verification {
  /** `audit verify` exits 0, 3 or 4. */
  readonly result: "sound" | "crash tail" | "tampered";
  readonly shards: number;
  readonly segments: number;
  readonly blocks: number;
  readonly bytes: number;
  /** The chain's value at the end of every shard: note it elsewhere, and a later rewrite of the whole shows. */
  readonly heads: Readonly<Record<string, string>>;
  readonly findings: readonly Finding[];
}

/**
 * Check every block, every seal and the links between segments. Changes nothing and works beside a running gateway.
 * Without a head noted elsewhere it cannot see that the newest blocks were cut at a block's border, or that all was rewritten.
 */
export function verifyStore(dataFolder: string): Verification {
  const findings: Finding[] = [];
  const heads: Record<string, string> = {};
  const totals = { shards: 0, segments: 0, blocks: 0, bytes: 0 };
  for (const shard of listShards(dataFolder)) {
    totals.shards += 1;
    const head = verifyShard(shardFolder(dataFolder, shard), shard, findings, totals);
    if (head !== undefined) heads[String(shard)] = head;
  }
  const tampered = findings.some((finding) => finding.kind === "tampered");
  return { result: tampered ? "tampered" : findings.length > 0 ? "crash tail" : "sound", ...totals, heads, findings };
}

function verifyShard(
  folder: string,
  shard: number,
  findings: Finding[],
  totals: { segments: number; blocks: number; bytes: number },
): string | undefined {
  // Asked before the list is read: a writer that stops meanwhile leaves no torn tail.
  const running = runningWriter(folder) !== undefined;
  let before: NonNullable<SegmentInfo["previous"]> | undefined;
  const segments = listSegments(folder);
  for (const segment of segments) {
    const found = (kind: Finding["kind"], offset: number, message: string): void =>
      void findings.push({ kind, shard, segment, offset, message });
    const cursor = new SegmentCursor(segmentPath(folder, segment), segment);
    const chain = new SealChain();
    try {
      const writing = running && segment === segments.at(-1);
      const rest = cursor.each((block) => {
        chain.add(block);
        totals.blocks += 1;
      }, writing);
      totals.segments += 1;
      totals.bytes += cursor.position;
      if (rest.kind === "damaged") found("tampered", cursor.position, "a block is damaged; intact ones stand after it");
      else if (rest.kind === "torn" && !writing)
        found("crash tail", cursor.position, `${rest.bytes} bytes of a block that was not written to its end`);
      // A segment that a crash tore at its birth holds nothing; the next one links past it.
      if (cursor.position === 0) continue;
      if (chain.brokenAt !== undefined) found("tampered", chain.brokenAt, "a seal does not match the blocks before it");
      if (chain.info === undefined) found("tampered", 0, "the segment does not begin with its header");
      else if (chain.info.segment !== segment || chain.info.shard !== shard)
        found("tampered", 0, `the header says shard ${chain.info.shard}, segment ${chain.info.segment}`);
      const link = chain.info?.previous;
      if (before !== undefined && (link?.segment !== before.segment || link.end !== before.end || link.seal !== before.seal)) {
        found("tampered", 0, `the header does not continue segment ${before.segment} as it ends now`);
      }
      before = { segment, end: cursor.position, seal: chain.end() };
    } finally {
      cursor.close();
    }
  }
  return before?.seal;
}
