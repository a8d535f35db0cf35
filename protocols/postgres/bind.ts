import { type Made, Recent, viewOf, zeroIn } from "../../core/bytes/copy.ts";
import { SluiceError } from "../../core/errors.ts";

/** The parts of a Bind message that Sluice looks at (Message Formats, Bind). */
export interface BindMessage {
  readonly portal: string;
  readonly statement: string;
  /** bytes[parametersStart, parametersEnd): parameter formats and values, as they stand in the message. */
  readonly parametersStart: number;
  readonly parametersEnd: number;
  readonly resultFormats: "text" | "binary" | readonly number[];
}

const malformed = () => new SluiceError("SLUICE_PROTOCOL_VIOLATION", "malformed Bind message");

/**
 * bytes[start, end): a whole Bind message.
 *
 *     'B' int32 length | portal\0 | statement\0 | int16 C, C × int16 format | int16 N, N × (int32 length, bytes)
 *       | int16 R, R × int16 result format
 *
 * @throws SluiceError SLUICE_PROTOCOL_VIOLATION
 */
export function readBind(bytes: Uint8Array, start: number, end: number, names: NameReader): BindMessage {
  const portalEnd = zeroIn(bytes, start + 5, end);
  const statementEnd = portalEnd < 0 ? -1 : zeroIn(bytes, portalEnd + 1, end);
  if (statementEnd < 0 || statementEnd >= end) throw malformed();
  const parametersStart = statementEnd + 1;
  const view = viewOf(bytes);
  const parametersEnd = skipParameters(view, parametersStart, end);
  if (parametersEnd + 2 > end) throw malformed();
  const count = view.getUint16(parametersEnd);
  if (parametersEnd + 2 + count * 2 !== end) throw malformed();
  let resultFormats: "text" | "binary" | number[] = "text";
  if (count === 1) resultFormats = view.getUint16(parametersEnd + 2) === 0 ? "text" : "binary";
  else if (count > 1) {
    const formats: number[] = [];
    let anyBinary = false;
    for (let index = 0; index < count; index += 1) {
      const format = view.getUint16(parametersEnd + 2 + index * 2);
      if (format !== 0) anyBinary = true;
      formats.push(format);
    }
    resultFormats = anyBinary ? formats : "text";
  }
  return {
    portal: names.read(bytes, start + 5, portalEnd),
    statement: names.read(bytes, portalEnd + 1, statementEnd),
    parametersStart,
    parametersEnd,
    resultFormats,
  };
}

function skipParameters(view: DataView, start: number, end: number): number {
  if (start + 2 > end) throw malformed();
  const formats = view.getUint16(start);
  let at = start + 2 + formats * 2;
  if (at + 2 > end) throw malformed();
  const count = view.getUint16(at);
  at += 2;
  for (let index = 0; index < count; index += 1) {
    if (at + 4 > end) throw malformed();
    const length = view.getInt32(at);
    if (length < -1) throw malformed();
    at += 4 + (length > 0 ? length : 0);
  }
  if (at > end) throw malformed();
  return at;
}

/** Values of a Bind's parameter section in text form; undefined for NULL and for binary ones, whose type is not known here. */
export function readParameters(section: Uint8Array): (string | undefined)[] {
  if (section.length < 4) return [];
  const view = viewOf(section);
  const formats = view.getUint16(0);
  let at = 2 + formats * 2;
  const count = view.getUint16(at);
  at += 2;
  const values: (string | undefined)[] = [];
  for (let index = 0; index < count; index += 1) {
    const length = view.getInt32(at);
    at += 4;
    if (length < 0) {
      values.push(undefined);
      continue;
    }
    const binary = formats === 0 ? 0 : view.getUint16(2 + (formats === 1 ? 0 : index * 2));
    values.push(binary === 0 ? Buffer.from(section.buffer, section.byteOffset + at, length).toString("utf8") : undefined);
    at += length;
  }
  return values;
}

const NAME_BYTES = 63;

function readName(bytes: Uint8Array, start: number, end: number): string {
  const kept = Math.min(end - start, NAME_BYTES);
  const name = Buffer.from(bytes.buffer, bytes.byteOffset + start, kept).toString("utf8");
  if (end - start > NAME_BYTES && name.endsWith("\ufffd"))
    throw new SluiceError("SLUICE_LIMIT_EXCEEDED", `a name of more than ${NAME_BYTES} bytes that cannot be cut between two characters`);
  return name;
}

const recentNames = new Recent(readName);

/** Reads names of statements and portals; a session mostly uses the same few, so the last one is not decoded again. */
export class NameReader {
  #last: Made<string> | undefined;

  /**
   * The name as the server keeps it: its first 63 bytes (NAMEDATALEN).
   * @throws SluiceError SLUICE_LIMIT_EXCEEDED where the cut would split a character
   */
  read(bytes: Uint8Array, start: number, end: number): string {
    if (start === end) return "";
    // It may be as long as a message, and whoever sent it would have it kept.
    if (end - start > NAME_BYTES) return readName(bytes, start, end);
    if (this.#last?.bytes.is(bytes, start, end) !== true) this.#last = recentNames.get(bytes, start, end);
    return this.#last.value;
  }
}
