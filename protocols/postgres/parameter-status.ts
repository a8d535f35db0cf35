import { SluiceError } from "../../core/errors.ts";

/** Settings under which text means what the classifier takes it for. */
const PINNED_SETTINGS = new Map([
  ["client_encoding", "UTF8"],
  ["standard_conforming_strings", "on"],
]);

/**
 * ParameterStatus: name and value, each ended by a zero byte.
 * @throws SluiceError SLUICE_PROTOCOL_VIOLATION, also where a pinned setting has another value
 */
export function readParameterStatus(bytes: Uint8Array, start: number, end: number): { name: string; value: string; valueAt: number } {
  const nameEnd = bytes.indexOf(0, start + 5);
  if (nameEnd < 0 || nameEnd >= end - 1 || bytes[end - 1] !== 0) {
    throw new SluiceError("SLUICE_PROTOCOL_VIOLATION", "the target sent an unexpected malformed ParameterStatus");
  }
  const text = (from: number, to: number): string => Buffer.from(bytes.buffer, bytes.byteOffset + from, to - from).toString("utf8");
  const name = text(start + 5, nameEnd);
  const value = text(nameEnd + 1, end - 1);
  const pinned = PINNED_SETTINGS.get(name);
  if (pinned !== undefined && value !== pinned) {
    throw new SluiceError(
      "SLUICE_PROTOCOL_VIOLATION",
      `the setting ${name} changed to ${value}; Sluice reads statements under ${pinned} only`,
    );
  }
  return { name, value, valueAt: nameEnd + 1 };
}
