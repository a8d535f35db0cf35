import { SluiceError } from "../../core/errors.ts";

/**
 * Values in binary format (the typsend functions of the server's types), as far as they can be searched for sensitive data. What is
 * not listed here has no form that is known.
 */
export type BinaryForm = "inert" | "text" | "json" | "jsonb" | "int8" | "float8" | "numeric" | "bytes";

/** Too much to search: the whole value becomes NULL. */
export const GIVE_UP = Symbol("give up");

/**
 * Looks through text. @param cost of what it stands for: 1, and more for what took long to make
 * @returns undefined: nothing found; null: NULL; else what goes in its place
 */
export type Search = (bytes: Uint8Array, start: number, end: number, cost: number) => Uint8Array | null | undefined | typeof GIVE_UP;

type Found = ReturnType<Search>;

const FORMS = new Map<number, BinaryForm>();
const form = (name: BinaryForm, ...types: readonly number[]) => {
  for (const type of types) FORMS.set(type, name);
};
// Nothing that a detector looks for fits in: bool, int2, int4, float4, date, time, timetz, timestamp, timestamptz, interval, uuid,
form("inert", 16, 21, 23, 700, 1082, 1083, 1266, 1114, 1184, 1186, 2950);
// oid, xid, cid, tid, pg_lsn, regproc, regprocedure, regoper, regoperator, regclass, regtype, regrole, regnamespace,
form("inert", 26, 28, 29, 27, 3220, 24, 2202, 2203, 2204, 2205, 2206, 4096, 4089);
// inet, cidr, macaddr, macaddr8, void.
form("inert", 869, 650, 829, 774, 2278);
// "char", name, text, bpchar, varchar, unknown, cstring; xml
form("text", 18, 19, 25, 1042, 1043, 705, 2275, 142);
form("json", 114);
form("jsonb", 3802);
form("int8", 20);
form("float8", 701);
form("numeric", 1700);
form("bytes", 17);

/** Array type → type of its elements. */
const ELEMENTS = new Map([
  [1000, 16],
  [1001, 17],
  [1002, 18],
  [1003, 19],
  [1005, 21],
  [1007, 23],
  [1008, 24],
  [1009, 25],
  [1014, 1042],
  [1015, 1043],
  [1016, 20],
  [1021, 700],
  [1022, 701],
  [1028, 26],
  [1115, 1114],
  [1182, 1082],
  [1183, 1083],
  [1185, 1184],
  [1187, 1186],
  [1231, 1700],
  [1263, 2275],
  [1270, 1266],
  [143, 142],
  [199, 114],
  [2951, 2950],
  [3807, 3802],
  [1041, 869],
  [651, 650],
]);

/** How a value of this type is searched; undefined: it cannot be. An array of what is inert is inert. */
export function binaryForm(type: number): BinaryForm | "array" | undefined {
  const element = ELEMENTS.get(type);
  if (element === undefined) return FORMS.get(type);
  return FORMS.get(element) === "inert" ? "inert" : "array";
}

/** Whether it is an array in whose bytes the text of its elements stands. */
export function holdsText(type: number): boolean {
  const element = ELEMENTS.get(type);
  const name = element === undefined ? undefined : FORMS.get(element);
  return name === "text" || name === "json" || name === "jsonb" || name === "bytes";
}

/**
 * A value that may have to change, bytes[start, end). What is put in place of a find is a value of the type again; where there is
 * none, as for numbers, it is NULL. @throws SluiceError SLUICE_PROTOCOL_VIOLATION when it is not a value of the type
 */
export function maskBinary(type: number, bytes: Uint8Array, start: number, end: number, search: Search): Uint8Array | null | undefined {
  const element = ELEMENTS.get(type);
  if (element !== undefined) return maskArray(element, bytes, start, end, search);
  const found = maskForm(FORMS.get(type), bytes, start, end, search);
  return found === GIVE_UP ? null : found;
}

function maskForm(name: BinaryForm | undefined, bytes: Uint8Array, start: number, end: number, search: Search): Found {
  switch (name) {
    case "inert":
      return undefined;
    case "text":
      return search(bytes, start, end, 1);
    case "json":
      return searchJson(bytes, start, end, search);
    case "jsonb": {
      // One version byte, then the text.
      if (end === start || bytes[start] !== 1) throw malformed("jsonb");
      const found = searchJson(bytes, start + 1, end, search);
      return found == null || found === GIVE_UP ? found : Buffer.concat([bytes.subarray(start, start + 1), found]);
    }
    case "bytes":
      return orNull(search(bytes, start, end, 1));
    case "int8":
      if (end - start !== 8) throw malformed("int8");
      return isSmallInteger(bytes, start) ? undefined : searchNumber(String(viewOf(bytes).getBigInt64(start)), search);
    case "float8":
      if (end - start !== 8) throw malformed("float8");
      return isSmallFloat(bytes, start) ? undefined : searchNumber(floatText(viewOf(bytes).getFloat64(start)), search);
    case "numeric":
      return searchNumber(numericText(bytes, start, end), search);
    default:
      return null;
  }
}

const viewOf = (bytes: Uint8Array): DataView => new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);

/** What is put in place of a number inside JSON has no quotes around it: where the whole is not JSON any more it becomes NULL. */
function searchJson(bytes: Uint8Array, start: number, end: number, search: Search): Found {
  const found = search(bytes, start, end, 1);
  return found == null || found === GIVE_UP || isJson(found) ? found : null;
}

/**
 * In numbers below 2^39 nothing is found: they have fewer digits before the point than a card, and those behind it are a fraction.
 * Large arrays are full of such numbers, so this looks at their bytes only.
 */
const SMALL_BITS = 39;

function isSmallInteger(bytes: Uint8Array, start: number): boolean {
  const upper = (bytes[start] << 24) | (bytes[start + 1] << 16) | (bytes[start + 2] << 8) | bytes[start + 3];
  const bound = 2 ** (SMALL_BITS - 32);
  return upper >= -bound && upper < bound;
}

/** By its exponent (IEEE 754 binary64). */
const isSmallFloat = (bytes: Uint8Array, start: number): boolean =>
  (((bytes[start] & 0x7f) << 4) | (bytes[start + 1] >> 4)) < 1023 + SMALL_BITS;

/** Digits for which a number counts as one more. */
const DIGITS_PER_COST = 32;

function searchNumber(text: string, search: Search): null | undefined | typeof GIVE_UP {
  const digits = Buffer.from(text, "latin1");
  return orNull(search(digits, 0, digits.length, 1 + Math.floor(digits.length / DIGITS_PER_COST)));
}

const orNull = (found: Found) => (found === undefined || found === GIVE_UP ? found : null);

/** As the server shows it: from 10^15 on with an exponent, in which nothing is found. */
const floatText = (value: number): string => (Number.isFinite(value) && Math.abs(value) < 1e15 ? String(value) : "");

/** Runs of zeros that a numeric does not store are not written longer than this many groups of four. */
const ZERO_GROUPS_MAX = 8;

/** int16 number of groups, weight of the first, sign, digits behind the point; then groups of four decimal digits, an int16 each. */
function numericText(bytes: Uint8Array, start: number, end: number): string {
  if (end - start < 8) throw malformed("numeric");
  const view = viewOf(bytes);
  const groups = view.getUint16(start);
  const weight = view.getInt16(start + 2);
  const sign = view.getUint16(start + 4);
  const scale = view.getUint16(start + 6);
  if (end - start !== 8 + groups * 2) throw malformed("numeric");
  if (sign !== 0 && sign !== 0x4000) return "";
  const digits: string[] = [];
  for (let index = 0; index < groups; index += 1) digits.push(String(view.getUint16(start + 8 + index * 2)).padStart(4, "0"));
  const whole = Math.min(Math.max(weight + 1, 0), groups);
  const zerosBehind = Math.min(Math.max(weight + 1 - groups, 0), ZERO_GROUPS_MAX);
  const zerosBefore = Math.min(Math.max(-weight - 1, 0), ZERO_GROUPS_MAX);
  const integer = (digits.slice(0, whole).join("") + "0000".repeat(zerosBehind)).replace(/^0+(?=.)/, "");
  const fraction = "0000".repeat(zerosBefore) + digits.slice(whole).join("");
  const shown = fraction.padEnd(Math.min(scale, fraction.length + 4 * ZERO_GROUPS_MAX), "0").slice(0, scale);
  return `${sign === 0 ? "" : "-"}${integer === "" ? "0" : integer}${shown === "" ? "" : `.${shown}`}`;
}

const DIMENSIONS_MAX = 6;

/**
 * int32 number of dimensions, int32 whether there are NULLs, int32 type of the elements; a dimension: int32 size, int32 lower bound;
 * an element: int32 length (-1 NULL), value.
 */
function maskArray(element: number, bytes: Uint8Array, start: number, end: number, search: Search): Uint8Array | null | undefined {
  if (end - start < 12) throw malformed("array");
  const view = viewOf(bytes);
  const dimensions = view.getInt32(start);
  if (dimensions < 0 || dimensions > DIMENSIONS_MAX || view.getUint32(start + 8) !== element) throw malformed("array");
  let at = start + 12 + dimensions * 8;
  if (at > end) throw malformed("array");
  const name = FORMS.get(element);
  const parts: Uint8Array[] = [];
  let copiedUpTo = start;
  let nulls = false;
  while (at < end) {
    if (at + 4 > end) throw malformed("array");
    const length = view.getInt32(at);
    if (length < -1 || (length > 0 && at + 4 + length > end)) throw malformed("array");
    const valueEnd = at + 4 + Math.max(length, 0);
    const found = length < 0 ? undefined : maskForm(name, bytes, at + 4, valueEnd, search);
    if (found === GIVE_UP) return null;
    if (found !== undefined) {
      const head = Buffer.alloc(4);
      head.writeInt32BE(found === null ? -1 : found.length);
      parts.push(bytes.subarray(copiedUpTo, at), head);
      if (found === null) nulls = true;
      // What search() gives may be valid until its next call only.
      else parts.push(Buffer.from(found));
      copiedUpTo = valueEnd;
    }
    at = valueEnd;
  }
  if (parts.length === 0) return undefined;
  parts.push(bytes.subarray(copiedUpTo, end));
  const masked = Buffer.concat(parts);
  if (nulls) masked.writeInt32BE(1, 4);
  return masked;
}

export function isJson(bytes: Uint8Array): boolean {
  // A value that was replaced whole. Rows may have a thousand of them, and each would cost an exception.
  if (bytes[0] === 0x5b && bytes[1] === 0x52) return false;
  try {
    JSON.parse(Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength).toString("utf8"));
    return true;
  } catch {
    return false;
  }
}

const malformed = (type: string) =>
  new SluiceError("SLUICE_PROTOCOL_VIOLATION", `the target sent a malformed binary value of type ${type}`);
