/**
 * Layout of a journal segment. Little-endian throughout. A segment is a run of blocks, a block is a run of records;
 * one commit writes one block. Zeros may follow the last block of a segment that is being written, or whose writer was killed.
 *
 * Block
 *    0  u32  magic 0x4b4c4253 ("SBLK")
 *    4  u32  CRC-32 (zlib) of bytes [8, 16 + length)
 *    8  u32  length of the payload
 *   12  u32  sequence in the segment, from 0
 *   16       payload: records
 *
 * Record
 *    0  u32  length, these 8 bytes included
 *    4  u8   type, one of RECORD
 *    5  u8   detail, by type
 *    6  u16  flags, by type
 *    8       body, by type; the layouts stand above the encoders
 */
export const BLOCK_MAGIC = 0x4b4c4253;
export const BLOCK_HEADER_BYTES = 16;
export const RECORD_HEADER_BYTES = 8;
/** A reader refuses longer blocks before it allocates: twice the longest message that a client may send, and then some. */
export const BLOCK_MAX_BYTES = 256 * 1024 * 1024;
/** Zeros that may stand behind the last block: what window.ts allocates ahead, and up to two pages. More, or no block before them, is no writer's doing. */
export const ALLOCATED_MAX_BYTES = 1024 * 1024 + 2 * 65_536;

export const RECORD = {
  segment: 1,
  live: 2,
  pending: 3,
  session: 4,
  decision: 5,
  statement: 6,
  intent: 7,
  outcome: 8,
  close: 9,
  event: 10,
  seal: 11,
} as const;

export const EFFECTS = ["allow", "deny", "approve"] as const;
export const EFFECT_DENY = 1;
export const OUTCOMES = ["done", "denied", "failed", "cancelled", "killed", "unknown"] as const;

/** `statement` of an intent whose payload is the text itself. */
export const NO_STATEMENT = 0xffff_ffff;

/** Flag of a session record: the session starts here (clear: repeated, so that the segment reads alone). */
export const SESSION_OPENED = 1;
/** Flags of an outcome. */
export const OUTCOME_HAS_DIGEST = 1;
export const OUTCOME_HAS_EXTRA = 2;
/** Written by recovery, not by the session. */
export const OUTCOME_RECOVERED = 4;

/**
 * intent; detail: index into EFFECTS
 *    8  u32  session number
 *   12  u32  request
 *   16  u32  slot of the decision
 *   20  u32  slot of the statement, or NO_STATEMENT
 *   24  f64  time, microseconds of the Unix epoch
 *   32       payload: the text where there is no statement, otherwise the parameters (parameters.ts)
 */
export const INTENT_BYTES = 32;

/**
 * outcome; detail: index into OUTCOMES; flags: OUTCOME_*
 *    8  u32  session number
 *   12  u32  request
 *   16  f64  time, microseconds of the Unix epoch
 *   24  f64  rows
 *   32  f64  bytes of the response
 *   40  u32  segment of the intent
 *   44  u32  offset of the intent's record in that segment's file
 *   48  32   SHA-256 of the response, where OUTCOME_HAS_DIGEST
 *            JSON {code, message, masked}, where OUTCOME_HAS_EXTRA
 */
export const OUTCOME_BYTES = 48;
export const DIGEST_BYTES = 32;

/** live, in a segment's first block: 8 u32 session number, 12 u32 segment and 16 u32 offset of its opening record. */
export const LIVE_BYTES = 20;
/** pending, in a segment's first block: 8 u32 session number, 12 u32 request, 16 u32 segment and 20 u32 offset of its intent. */
export const PENDING_BYTES = 24;
/** session: 8 u32 number, 12 JSON SessionInfo. decision, statement: 8 u32 slot, 12 JSON DecisionInfo / UTF-8 text. */
export const DEFINITION_BYTES = 12;
/** close: 8 u32 session number, 12 f64 time, 20 f64 operations, 28 UTF-8 reason. */
export const CLOSE_BYTES = 28;
/** event: 8 f64 time, 16 JSON. */
export const EVENT_BYTES = 16;
/** seal: 8 u32 from, 12 u32 to (offsets in the file), 16 SHA-256(previous seal ‖ bytes [from, to) of the file). */
export const SEAL_BYTES = 16 + DIGEST_BYTES;

/** The segment record's JSON. */
export interface SegmentInfo {
  readonly version: 1;
  readonly shard: number;
  readonly segment: number;
  /** Random, so that event ids stay unique when a data folder is made anew. */
  readonly id: string;
  readonly createdMicros: number;
  readonly nextSession: number;
  /** The seal (hex) at the end of the segment before, and where that segment ended. */
  readonly previous: { readonly segment: number; readonly end: number; readonly seal: string } | null;
}

/** What a session record and the session index keep about a session. */
export interface SessionInfo {
  readonly id: string;
  readonly identity: {
    readonly issuer: string;
    readonly user: string;
    readonly subject: string;
    readonly groups: readonly string[];
    readonly chain: readonly string[];
  };
  readonly address: string;
  readonly application: string | undefined;
  readonly target: string;
  readonly protocol: string;
  readonly startedMillis: number;
  readonly results: string;
}

export interface DecisionInfo {
  readonly action: string;
  readonly resources: readonly string[];
  readonly effect: "allow" | "deny" | "approve";
  readonly rule: string | undefined;
  readonly policyVersion: string;
  readonly observed: string | undefined;
}

/** Start a record's header; the caller fills the body. */
export function putHeader(view: DataView, at: number, length: number, type: number, detail: number, flags: number): void {
  view.setUint32(at, length, true);
  view.setUint32(at + 4, type | (detail << 8) | (flags << 16), true);
}

/** Visit the records of a block's payload. @returns false when a record's length leaves the payload */
export function eachRecord(payload: Buffer, visit: (type: number, at: number, length: number) => void): boolean {
  let at = 0;
  while (at < payload.length) {
    if (payload.length - at < RECORD_HEADER_BYTES) return false;
    const length = payload.readUInt32LE(at);
    if (length < RECORD_HEADER_BYTES || length > payload.length - at) return false;
    visit(payload[at + 4] ?? 0, at, length);
    at += length;
  }
  return true;
}
