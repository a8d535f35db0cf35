import fs from "node:fs";
import { checksum } from "../core/native/checksum.ts";
import type { Environment } from "./environment.ts";
import { errorCode, framesPath, listFrames } from "./folder.ts";
import { FRAMES_BLOCK_BYTES, FRAMES_HEADER_BYTES, FRAMES_MAGIC, MARK_BYTES, PAGE_BYTES, pagesFor, type WrittenAt } from "./frame-file.ts";

/** Blocks that one entry of the index tells of, at most. */
const RUN_BLOCKS = 256;
const WINDOW_BYTES = 1024 * 1024;

/** Where a block lies, and whose frames are in it. */
export interface BlockPlace {
  readonly number: number;
  readonly segment: number;
  readonly mark: Buffer;
  readonly offset: number;
  readonly length: number;
  readonly owners: readonly number[];
}

/**
 * Gathers the places of written blocks into one value of the index, whose key is the first block's number:
 *    0  u32  segment
 *    4  8    its mark
 *   12       blocks: u32 number, u32 offset, u32 length of the payload, u32 count of sessions, their numbers (u32 each)
 */
export class PlaceRun {
  /** Number of the first block; undefined: none yet. */
  first: number | undefined;
  private parts: number[] = [];
  private blocks = 0;
  private segment = 0;
  private mark: Buffer = Buffer.alloc(MARK_BYTES);

  /** @returns whether a block written there belongs to this run; otherwise take() it first */
  takes(at: { readonly segment: number }): boolean {
    return this.first === undefined || (at.segment === this.segment && this.blocks < RUN_BLOCKS);
  }

  add(at: Omit<WrittenAt, "offset">, number: number, offset: number, length: number, owners: readonly number[]): void {
    this.first ??= number;
    this.segment = at.segment;
    this.mark = at.mark;
    this.parts.push(number, offset, length, owners.length);
    for (const owner of owners) this.parts.push(owner);
    this.blocks += 1;
  }

  /** The value; the run is empty then. */
  take(): Buffer {
    const value = Buffer.alloc(4 + MARK_BYTES + this.parts.length * 4);
    value.writeUInt32LE(this.segment, 0);
    value.set(this.mark, 4);
    let at = 4 + MARK_BYTES;
    for (const part of this.parts) at = value.writeUInt32LE(part, at);
    this.first = undefined;
    this.parts = [];
    this.blocks = 0;
    return value;
  }
}

/** The places in a value of the index. A value that is cut short gives those that are whole. */
export function readPlaces(value: Buffer): BlockPlace[] {
  const places: BlockPlace[] = [];
  if (value.length < 4 + MARK_BYTES) return places;
  const segment = value.readUInt32LE(0);
  const mark = Buffer.from(value.subarray(4, 4 + MARK_BYTES));
  for (let at = 4 + MARK_BYTES; at + 16 <= value.length; ) {
    const [number, offset, length, count] = [0, 4, 8, 12].map((field) => value.readUInt32LE(at + field)) as [
      number,
      number,
      number,
      number,
    ];
    at += 16;
    if (count * 4 > value.length - at) break;
    const owners: number[] = [];
    for (let owner = 0; owner < count; owner += 1, at += 4) owners.push(value.readUInt32LE(at));
    places.push({ number, segment, mark, offset, length, owners });
  }
  return places;
}

/** Reads single blocks at the places the index gives. */
export class BlockReader {
  private readonly folder: string;
  private segment = -1;
  private fd = -1;

  constructor(folder: string) {
    this.folder = folder;
  }

  /** @returns the block's payload, or what is wrong with the block */
  read({ segment, mark, number, offset, length }: BlockPlace): Buffer | string {
    if (length > FRAMES_BLOCK_BYTES - FRAMES_HEADER_BYTES) return "the index is damaged";
    const bytes = Buffer.allocUnsafeSlow(FRAMES_HEADER_BYTES + length);
    try {
      if (segment !== this.segment) {
        this.close();
        this.fd = fs.openSync(framesPath(this.folder, segment), "r");
        this.segment = segment;
      }
      const read = fs.readSync(this.fd, bytes, 0, bytes.length, offset);
      if (read < bytes.length) return `its file ends at ${offset + read}`;
    } catch (error) {
      return error instanceof Error ? error.message : String(error);
    }
    return payloadOf(bytes, 0, mark, number) ?? "its checksum does not match";
  }

  close(): void {
    if (this.fd >= 0) fs.closeSync(this.fd);
    this.fd = -1;
    this.segment = -1;
  }
}

/** The payload of the intact block at `at`, or undefined. */
function payloadOf(bytes: Buffer, at: number, mark: Buffer, number?: number): Buffer | undefined {
  if (bytes.length - at < FRAMES_HEADER_BYTES || bytes.readUInt32LE(at) !== FRAMES_MAGIC) return undefined;
  const length = bytes.readUInt32LE(at + 8);
  const end = at + FRAMES_HEADER_BYTES + length;
  if (length > FRAMES_BLOCK_BYTES - FRAMES_HEADER_BYTES || end > bytes.length) return undefined;
  if (number !== undefined && bytes.readUInt32LE(at + 12) !== number) return undefined;
  if (!bytes.subarray(at + 16, at + 16 + MARK_BYTES).equals(mark)) return undefined;
  if (checksum(bytes, at + 8, end) !== bytes.readUInt32LE(at + 4)) return undefined;
  return bytes.subarray(at + FRAMES_HEADER_BYTES, end);
}

export interface FoundBlock extends Omit<BlockPlace, "owners" | "length"> {
  /** Valid until the next block is asked for. */
  readonly payload: Buffer;
}

/**
 * Blocks that stand in the files after a place, without the index: what a killed writer had written and not indexed
 * yet, or a running one. What is torn or damaged is stepped over page by page.
 * @param firstSegment where to begin; with `last`, after it
 * @param skipped called for every such page
 */
export function* blocksAfter(
  folder: string,
  last: BlockPlace | undefined,
  firstSegment = last?.segment ?? 0,
  skipped?: (segment: number, offset: number) => void,
): Generator<FoundBlock, void, void> {
  let { number } = last ?? { number: 0 };
  for (const segment of listFrames(folder)) {
    if (segment < firstSegment) continue;
    const begun = last !== undefined && segment === last.segment;
    const from = begun ? last.offset + pagesFor(last.length) : 0;
    for (const found of blocksIn(folder, segment, from, begun ? last.mark : undefined, skipped)) {
      // A group that failed halfway stands in one file in part and in the next one whole.
      if (found.number <= number) continue;
      number = found.number;
      yield found;
    }
  }
}

/** @param mark the segment's, where it is known; otherwise its first block says it */
function* blocksIn(
  folder: string,
  segment: number,
  from: number,
  mark: Buffer | undefined,
  skipped: ((segment: number, offset: number) => void) | undefined,
): Generator<FoundBlock, void, void> {
  let fd: number;
  try {
    fd = fs.openSync(framesPath(folder, segment), "r");
  } catch (error) {
    // A writer that failed at its first block takes the file away again.
    if (errorCode(error) === "ENOENT") return;
    throw error;
  }
  try {
    // What lies below the size now was written; beyond it a running writer may be at work.
    const { size } = fs.fstatSync(fd);
    const window = Buffer.allocUnsafeSlow(WINDOW_BYTES);
    let known = mark;
    let base = from;
    let filled = 0;
    for (let at = 0; base + at < size; ) {
      if (at + FRAMES_BLOCK_BYTES > filled && base + filled < size) {
        base += at;
        at = 0;
        filled = fs.readSync(fd, window, 0, Math.min(WINDOW_BYTES, size - base), base);
        if (filled === 0) return;
      }
      // From the file's start or not at all: whose bytes stand further on is not certain.
      if (base + at === 0 && filled >= FRAMES_HEADER_BYTES && window.readUInt32LE(0) === FRAMES_MAGIC)
        known = Buffer.from(window.subarray(16, 16 + MARK_BYTES));
      const payload = known === undefined ? undefined : payloadOf(window.subarray(0, filled), at, known);
      if (payload === undefined) {
        skipped?.(segment, base + at);
        at += PAGE_BYTES;
        continue;
      }
      yield { number: window.readUInt32LE(at + 12), segment, mark: known as Buffer, offset: base + at, payload };
      at += pagesFor(payload.length);
    }
  } finally {
    fs.closeSync(fd);
  }
}

export interface FrameFinding {
  readonly what: string;
  readonly segment: number;
  readonly offset: number;
  readonly bytes: number;
}

/** Find what the last writer had written and not indexed. @param found called for every such block */
export function recoverFrames(
  folder: string,
  environment: Pick<Environment, "places" | "meta">,
  found: (block: FoundBlock) => void,
): { readonly lastNumber: number; readonly nextSegment: number; readonly findings: readonly FrameFinding[] } {
  const last = lastPlace(environment.places);
  // Segments before this one were looked through at an earlier start.
  const from = environment.meta.get("frames") ?? 0;
  let lastNumber = last?.number ?? 0;
  const findings = new Map<number, { what: string; segment: number; offset: number; bytes: number }>();
  const anchor = last !== undefined && last.segment >= from ? last : undefined;
  for (const block of blocksAfter(folder, anchor, from, (segment, offset) => {
    const finding = findings.get(segment) ?? { what: "recorded bytes torn or damaged", segment, offset, bytes: 0 };
    finding.bytes += PAGE_BYTES;
    findings.set(segment, finding);
  })) {
    if (block.number <= lastNumber) continue;
    lastNumber = block.number;
    found(block);
  }
  return { lastNumber, nextSegment: Math.max(from, 1, (listFrames(folder).at(-1) ?? 0) + 1), findings: [...findings.values()] };
}

function lastPlace(places: Environment["places"]): BlockPlace | undefined {
  for (const { value } of places.getRange({ reverse: true, limit: 1 })) return readPlaces(value).at(-1);
  return undefined;
}

/** A block of a session, or what is wrong with it. */
export type SessionBlock = { readonly number: number; readonly payload: Buffer } | { readonly number: number; readonly damage: string };

/**
 * The blocks with frames of a session, in order: first those that the index knows, then those that only the files have.
 * @param first @param last numbers of the blocks between which the session was live
 */
export function* sessionBlocks(
  environment: Environment,
  folder: string,
  session: { readonly number: number; readonly firstBlock: number; readonly lastBlock?: number },
): Generator<SessionBlock, void, void> {
  const first = Math.max(1, session.firstBlock);
  const last = session.lastBlock ?? Number.POSITIVE_INFINITY;
  const reader = new BlockReader(folder);
  let seen: BlockPlace | undefined;
  let next = first;
  const gap = function* (number: number): Generator<SessionBlock, void, void> {
    // One report for all of them: behind a damaged number there can be billions.
    if (next === number - 1) yield { number: next, damage: "it is missing, and it may have held bytes of this session" };
    else if (next < number)
      yield { number: next, damage: `it and all others before block ${number} are missing, and they may have held bytes of this session` };
    next = number + 1;
  };
  try {
    const [start = first] = environment.places.getKeys({ reverse: true, start: first, limit: 1 });
    // Without a snapshot: a long replay must not hold back the writer's page reuse.
    for (const { value } of environment.places.getRange({ start, snapshot: false })) {
      for (const place of readPlaces(value)) {
        if (place.number > last) return;
        seen = place;
        if (place.number < first) continue;
        yield* gap(place.number);
        if (!place.owners.includes(session.number)) continue;
        const read = reader.read(place);
        yield typeof read === "string" ? { number: place.number, damage: read } : { number: place.number, payload: read };
      }
    }
    for (const { number, payload } of blocksAfter(folder, seen)) {
      if (number > last) return;
      if (number < first) continue;
      yield* gap(number);
      yield { number, payload: Buffer.from(payload) };
    }
  } finally {
    reader.close();
  }
}
