import { SluiceError } from "../../core/errors.ts";
import { LIMITS } from "../../core/limits.ts";
import type { Masker, Work } from "../../core/mask/types.ts";

/** ErrorResponse and NoticeResponse: fields of one type byte and a zero-terminated string, ended by a zero byte. */
function* fieldsOf(bytes: Uint8Array, start: number, end: number): Generator<readonly [type: number, start: number, end: number]> {
  let at = start + 5;
  while (at < end && bytes[at] !== 0) {
    const zero = bytes.indexOf(0, at + 1);
    if (zero < 0 || zero >= end) throw new SluiceError("SLUICE_PROTOCOL_VIOLATION", "the target sent a malformed ErrorResponse");
    yield [bytes[at], at + 1, zero];
    at = zero + 1;
  }
}

export const utf8 = (bytes: Uint8Array, start: number, end: number) =>
  Buffer.from(bytes.buffer, bytes.byteOffset + start, end - start).toString("utf8");

/** Severity (V, else S), SQLSTATE (C) and primary message (M) of a whole ErrorResponse. */
export function errorFields(bytes: Uint8Array, start: number, end: number): { severity: string; code: string; message: string } {
  const found = { severity: "", code: "XX000", message: "" };
  for (const [type, from, to] of fieldsOf(bytes, start, end)) {
    if (type === 0x56 || (type === 0x53 && found.severity === "")) found.severity = utf8(bytes, from, to);
    else if (type === 0x43) found.code = utf8(bytes, from, to);
    else if (type === 0x4d) found.message = utf8(bytes, from, to);
  }
  return found;
}

/** Fields that may quote rows or other people's values: detail, hint, where, internal query. */
const QUOTING_FIELDS = new Set([0x44, 0x48, 0x57, 0x71]);
/** Fields that may quote a value of the statement: the primary message. */
const MESSAGE_FIELD = 0x4d;
const CONTEXT_FIELD = 0x57;
const CODE_FIELD = 0x43;
const POSITION_FIELD = 0x50;
/** Names of schema, table, column, type, constraint: code may put anything there (RAISE … USING COLUMN = …). */
const NAME_FIELDS = new Set([0x73, 0x74, 0x63, 0x64, 0x6e]);
const WITHHELD = Buffer.from("[withheld by Sluice: it comes from a function, and a column mask applies on this target]");
const WITHHELD_VALUE = Buffer.from("[withheld by Sluice: it may quote a value, and a column mask applies to what the statement works on]");

/** A context field names the code that was running, which can put anything into the message; COPY's names the client's own line. */
function comesFromCode(bytes: Uint8Array, start: number, end: number): boolean {
  for (const [type, from, to] of fieldsOf(bytes, start, end)) if (type === CONTEXT_FIELD) return !utf8(bytes, from, to).startsWith("COPY ");
  return false;
}

/**
 * An error about data (class 22, or 42601 of what is parsed at run time) that names no place in the statement: it may be
 * about a stored value, which a constraint or a generated column computes with.
 */
function isAboutData(bytes: Uint8Array, start: number, end: number): boolean {
  let about = false;
  for (const [type, from, to] of fieldsOf(bytes, start, end)) {
    if (type === POSITION_FIELD) return false;
    if (type === CODE_FIELD) about = /^(?:22...|42601)$/.test(utf8(bytes, from, to));
  }
  return about;
}

/**
 * An ErrorResponse or NoticeResponse as a masked session may see it: detail, hint, context and internal query are left
 * out where column masks are in force, the message too if a function put it together, and what a detector finds in the rest
 * is replaced.
 * @param columnRule a column mask in force, under which withheld fields are counted; undefined: there is none
 * @param touches the statement works on relations with masked columns
 * @param counts takes the masked and withheld fields by rule
 * @returns undefined when nothing changes
 */
export function maskedError(
  bytes: Uint8Array,
  start: number,
  end: number,
  masker: Masker | undefined,
  columnRule: string | undefined,
  touches: boolean,
  counts: Map<string, number>,
): Uint8Array | undefined {
  const parts: Uint8Array[] = [];
  let changed = false;
  // A message is searched like a row: its fields share what that may cost.
  const work: Work = { left: LIMITS.suspiciousBytes };
  let exactBytesLeft: number = LIMITS.maskedRowBytes;
  const byColumn = columnRule !== undefined;
  const withhold = (): void => {
    changed = true;
    if (columnRule !== undefined) count(counts, columnRule);
  };
  const withheld = byColumn && comesFromCode(bytes, start, end);
  const aboutData = touches && isAboutData(bytes, start, end);
  for (const [type, from, to] of fieldsOf(bytes, start, end)) {
    if (byColumn && QUOTING_FIELDS.has(type)) {
      withhold();
      continue;
    }
    if (withheld && NAME_FIELDS.has(type)) {
      withhold();
      continue;
    }
    if ((withheld || aboutData) && type === MESSAGE_FIELD) {
      withhold();
      parts.push(bytes.subarray(from - 1, from), withheld ? WITHHELD : WITHHELD_VALUE, ZERO);
      continue;
    }
    const searched = type === MESSAGE_FIELD || QUOTING_FIELDS.has(type) || NAME_FIELDS.has(type);
    const kinds = masker?.scans === true && searched ? masker.kindsIn(bytes, from, to, work) : 0;
    const scanned = masker === undefined || kinds === 0 ? undefined : masker.field(bytes, from, to, kinds, exactBytesLeft);
    if (masker !== undefined && kinds !== 0) exactBytesLeft = Math.max(0, exactBytesLeft - masker.searched);
    if (scanned === undefined) parts.push(bytes.subarray(from - 1, to + 1));
    else {
      changed = true;
      if (masker !== undefined) count(counts, masker.lastRule);
      parts.push(bytes.subarray(from - 1, from), scanned ?? MASKED, ZERO);
    }
  }
  if (!changed) return undefined;
  const body = Buffer.concat([...parts, ZERO]);
  const message = Buffer.allocUnsafe(body.length + 5);
  message[0] = bytes[start];
  message.writeInt32BE(body.length + 4, 1);
  message.set(body, 5);
  return message;
}

/**
 * The last zero-terminated string of a message (ParameterStatus: the value; NotificationResponse: the payload), searched by content.
 * @param from where that string begins
 * @param counts takes the masked value by rule
 * @returns undefined when nothing changes
 */
export function maskedString(
  bytes: Uint8Array,
  start: number,
  from: number,
  end: number,
  masker: Masker,
  counts: Map<string, number>,
): Uint8Array | undefined {
  const scanned = masker.field(bytes, from, end - 1);
  if (scanned === undefined) return undefined;
  count(counts, masker.lastRule);
  const message = Buffer.concat([bytes.subarray(start, from), scanned ?? MASKED, ZERO]);
  message.writeInt32BE(message.length - 1, 1);
  return message;
}

function count(counts: Map<string, number>, rule: string): void {
  counts.set(rule, (counts.get(rule) ?? 0) + 1);
}

const ZERO = new Uint8Array(1);
const MASKED = Buffer.from("[REDACTED]");
