import { Reader } from "../../core/bytes/reader.ts";
import { SluiceError } from "../../core/errors.ts";
import { manyLines, oneLine } from "../../core/printable.ts";
import { type RecordedBytes, type RecordedMessage, recordedMessages } from "./recorded.ts";

/** Rows of one result that are printed; further ones are counted. */
const ROWS_SHOWN = 1_000;
const COLUMN_WIDTH = 60;
const PARAMETER_WIDTH = 200;
/** Statement and portal names remembered at once; a recording of more forgets the oldest. */
const NAMES_MAX = 10_000;

interface Column {
  readonly name: string;
  readonly type: number;
  readonly binary: boolean;
}
interface Statement {
  readonly sql: string;
  columns: readonly Column[] | undefined;
}
interface Portal {
  readonly statement: Statement;
  readonly parameters: readonly string[];
  /** Format codes of Bind for the results; empty: text. */
  readonly formats: readonly number[];
}
/** A message of the client whose answer is awaited, in order. */
type Awaited =
  | { readonly kind: "query" | "execute"; readonly micros: number; readonly portal: Portal | undefined }
  | { readonly kind: "describe"; readonly statement: Statement | undefined; readonly portal: Portal | undefined }
  | { readonly kind: "sync" };

/**
 * A recorded session as a transcript for people: each statement with its time, then its result as a table.
 * Everything that came over the wire is made harmless for terminals.
 * @yields pieces of text that end with a line feed
 */
export async function* renderTranscript(
  pieces: AsyncIterable<RecordedBytes> | Iterable<RecordedBytes>,
): AsyncGenerator<string, void, void> {
  const transcript = new Transcript();
  try {
    for await (const message of recordedMessages(pieces)) {
      transcript.take(message);
      yield* transcript.drain();
    }
  } catch (thrown) {
    if (!(thrown instanceof SluiceError && thrown.code === "SLUICE_PROTOCOL_VIOLATION")) throw thrown;
    yield* transcript.drain();
    yield `-- the recording cannot be read further: ${oneLine(thrown.message)}\n`;
    return;
  }
  transcript.end();
  yield* transcript.drain();
}

class Transcript {
  #out: string[] = [];
  #first: number | undefined;
  #statements = new Map<string, Statement>();
  #portals = new Map<string, Portal>();
  #awaited: Awaited[] = [];
  #columns: readonly Column[] | undefined;
  #rows: string[][] = [];
  #rowCount = 0;
  #copyBytes = 0;

  *drain(): Generator<string> {
    const out = this.#out;
    this.#out = [];
    yield* out;
  }

  take(message: RecordedMessage): void {
    this.#first ??= message.micros;
    if (message.skippedBytes > 0) {
      this.#print(`-- a message of ${message.skippedBytes} bytes (type ${oneLine(message.type)}) is too large to show`);
      return;
    }
    const reader = new Reader(message.body);
    if (message.direction === "fromClient") this.#fromClient(message, reader);
    else this.#toClient(message, reader);
  }

  end(): void {
    if (this.#rowCount > 0) this.#table();
    if (this.#awaited.some((entry) => entry.kind === "query" || entry.kind === "execute"))
      this.#print("-- the recording ends before the last answer");
  }

  #print(line: string): void {
    this.#out.push(`${line}\n`);
  }

  #statement(micros: number, sql: string, parameters: readonly string[]): void {
    const seconds = (micros - (this.#first ?? micros)) / 1_000_000;
    this.#print(`\n[+${seconds.toFixed(3)} s] ${manyLines(sql.trim()) || "(empty)"}`);
    parameters.forEach((value, index) => this.#print(`  $${index + 1} = ${clip(value, PARAMETER_WIDTH)}`));
  }

  #fromClient({ type, micros, body }: RecordedMessage, reader: Reader): void {
    switch (type) {
      case "Q":
        this.#statement(micros, reader.cstring(), []);
        this.#awaited.push({ kind: "query", micros, portal: undefined });
        return;
      case "P":
        remember(this.#statements, reader.cstring(), { sql: reader.cstring(), columns: undefined });
        return;
      case "B":
        this.#bind(reader);
        return;
      case "D": {
        const isPortal = reader.byte() === 0x50;
        const name = reader.cstring();
        const portal = isPortal ? this.#portals.get(name) : undefined;
        this.#awaited.push({ kind: "describe", statement: isPortal ? portal?.statement : this.#statements.get(name), portal });
        return;
      }
      case "E": {
        const portal = this.#portals.get(reader.cstring());
        this.#statement(micros, portal?.statement.sql ?? "(a statement that is not in the recording)", portal?.parameters ?? []);
        this.#awaited.push({ kind: "execute", micros, portal });
        return;
      }
      case "S":
        this.#awaited.push({ kind: "sync" });
        return;
      case "d":
        this.#copyBytes += body.length;
        return;
      case "c":
        this.#copied("sent");
        return;
      case "f":
        this.#print(`-- the client gave up the copy: ${oneLine(reader.cstring())}`);
        return;
      case "X":
        this.#print("\n-- the client ended the session");
        return;
      default:
    }
  }

  #bind(reader: Reader): void {
    const portal = reader.cstring();
    const statement = this.#statements.get(reader.cstring()) ?? { sql: "(a statement that is not in the recording)", columns: undefined };
    const formats = counted(reader, () => reader.uint16());
    let index = 0;
    const parameters = counted(reader, () => {
      const length = reader.int32();
      const binary = formatAt(formats, index++) === 1;
      if (length === -1) return "NULL";
      return binary ? guess(reader.take(length)) : `'${oneLine(utf8(reader.take(length)))}'`;
    });
    remember(this.#portals, portal, { statement, parameters, formats: counted(reader, () => reader.uint16()) });
  }

  #toClient({ type, micros, body }: RecordedMessage, reader: Reader): void {
    switch (type) {
      case "T":
        this.#rowDescription(reader);
        return;
      case "n":
        this.#answered("describe");
        return;
      case "D":
        this.#dataRow(reader);
        return;
      case "C":
      case "I":
      case "s": {
        const awaited = this.#current();
        if (this.#rowCount > 0 || this.#columns !== undefined) this.#table();
        const took =
          awaited === undefined || awaited.kind === "describe" || awaited.kind === "sync"
            ? ""
            : ` (${((micros - awaited.micros) / 1000).toFixed(1)} ms)`;
        this.#print(
          `${type === "C" ? oneLine(reader.cstring()) : type === "I" ? "(nothing to do)" : "(suspended: more rows follow)"}${took}`,
        );
        if (awaited?.kind === "execute") this.#awaited.shift();
        return;
      }
      case "E":
        if (this.#rowCount > 0) this.#table();
        this.#print(`ERROR ${fieldsOf(reader)}`);
        // After an error the server skips to the next Sync.
        while (this.#awaited.length > 0 && this.#awaited[0]?.kind !== "sync" && this.#awaited[0]?.kind !== "query") this.#awaited.shift();
        return;
      case "N":
        this.#print(`NOTICE ${fieldsOf(reader)}`);
        return;
      case "A": {
        reader.int32();
        this.#print(`NOTIFY ${oneLine(reader.cstring())} ${oneLine(reader.cstring())}`);
        return;
      }
      case "d":
        this.#copyBytes += body.length;
        return;
      case "c":
        this.#copied("received");
        return;
      case "Z":
        this.#columns = undefined;
        while (this.#awaited.length > 0) {
          const done = this.#awaited.shift();
          if (done?.kind === "sync" || done?.kind === "query") break;
        }
        return;
      default:
    }
  }

  /** What the server is answering now: the first statement that awaits its end. */
  #current(): Awaited | undefined {
    while (this.#awaited[0]?.kind === "describe") this.#awaited.shift();
    return this.#awaited[0];
  }

  #answered(kind: Awaited["kind"]): Awaited | undefined {
    return this.#awaited[0]?.kind === kind ? this.#awaited.shift() : undefined;
  }

  /** RowDescription: count, then name, table oid, column number, type oid, type size, type modifier, format. */
  #rowDescription(reader: Reader): void {
    const columns = counted(reader, () => {
      const name = reader.cstring();
      reader.take(6);
      const type = reader.int32();
      reader.take(6);
      return { name, type, binary: reader.uint16() === 1 };
    });
    const described = this.#answered("describe");
    if (described?.kind === "describe") {
      if (described.statement !== undefined) described.statement.columns = columns;
      return;
    }
    this.#columns = columns;
  }

  #dataRow(reader: Reader): void {
    this.#rowCount++;
    if (this.#rowCount > ROWS_SHOWN) return;
    const awaited = this.#current();
    const portal = awaited?.kind === "execute" ? awaited.portal : undefined;
    this.#columns ??= portal?.statement.columns;
    let index = 0;
    this.#rows.push(
      counted(reader, () => {
        const column = this.#columns?.[index];
        const binary = portal === undefined ? column?.binary === true : formatAt(portal.formats, index) === 1;
        index++;
        const length = reader.int32();
        if (length === -1) return "NULL";
        const value = reader.take(length);
        return binary ? binaryValue(value, column?.type) : oneLine(utf8(value));
      }),
    );
  }

  #table(): void {
    const count = Math.max(this.#columns?.length ?? 0, ...this.#rows.map((row) => row.length));
    const head = Array.from({ length: count }, (_, index) =>
      clip(oneLine(this.#columns?.[index]?.name ?? `column ${index + 1}`), COLUMN_WIDTH),
    );
    const rows = this.#rows.map((row) => row.map((cell) => clip(cell, COLUMN_WIDTH)));
    const widths = head.map((title, index) => rows.reduce((width, row) => Math.max(width, size(row[index] ?? "")), size(title)));
    const line = (cells: readonly string[]) => ` ${widths.map((width, index) => pad(cells[index] ?? "", width)).join(" | ")}`.trimEnd();
    if (count > 0) {
      this.#print(line(head));
      this.#print(`-${widths.map((width) => "-".repeat(width)).join("-+-")}-`);
      for (const row of rows) this.#print(line(row));
    }
    if (this.#rowCount > rows.length) this.#print(` … and ${this.#rowCount - rows.length} more rows`);
    this.#rows = [];
    this.#rowCount = 0;
    this.#columns = undefined;
  }

  #copied(verb: string): void {
    this.#print(`-- COPY: the client ${verb} ${this.#copyBytes} bytes`);
    this.#copyBytes = 0;
  }
}

const utf8 = (bytes: Uint8Array): string => new TextDecoder().decode(bytes);
const hex = (bytes: Uint8Array): string => `\\x${Buffer.from(bytes.subarray(0, 64)).toString("hex")}${bytes.length > 64 ? "…" : ""}`;
const size = (text: string): number => [...text].length;
const pad = (text: string, width: number): string => text + " ".repeat(Math.max(0, width - size(text)));

function clip(text: string, width: number): string {
  // Twice the width in code units is at least the width in characters: no need to split a megabyte for sixty of them.
  const characters = [...text.slice(0, width * 2 + 2)];
  return characters.length > width ? `${characters.slice(0, width - 1).join("")}…` : text;
}

/** A count in two bytes, then as many items; each item reads at least two bytes, so a lying count ends at the message's end. */
function counted<T>(reader: Reader, item: () => T): T[] {
  const items: T[] = [];
  for (let left = reader.uint16(); left > 0; left--) items.push(item());
  return items;
}

/** Bind: no codes mean text, one code is for all. */
const formatAt = (formats: readonly number[], index: number): number => (formats.length === 1 ? formats[0] : formats[index]) ?? 0;

/** Binary forms of the most usual types by their oid (pg_type.dat); others in hexadecimal. */
function binaryValue(value: Uint8Array, type: number | undefined): string {
  const view = new DataView(value.buffer, value.byteOffset, value.byteLength);
  if (type === 16 && value.length === 1) return value[0] === 0 ? "f" : "t";
  if (type === 21 && value.length === 2) return String(view.getInt16(0));
  if (type === 23 && value.length === 4) return String(view.getInt32(0));
  if (type === 20 && value.length === 8) return String(view.getBigInt64(0));
  if (type === 700 && value.length === 4) return String(view.getFloat32(0));
  if (type === 701 && value.length === 8) return String(view.getFloat64(0));
  if (type === 25 || type === 1043 || type === 19 || type === 1042) return oneLine(utf8(value));
  return hex(value);
}

/** A binary parameter's type is not recorded: shown as text only where it cannot be anything else. */
function guess(value: Uint8Array): string {
  const text = utf8(value);
  return value.length > 8 && /^[\p{L}\p{N}\p{P}\p{S} ]+$/u.test(text) && !text.includes("\ufffd") ? `'${text}'` : hex(value);
}

/** ErrorResponse and NoticeResponse: pairs of a letter and a string, ended by zero. */
function fieldsOf(reader: Reader): string {
  const fields = new Map<number, string>();
  for (let letter = reader.byte(); letter !== 0; letter = reader.byte()) fields.set(letter, oneLine(reader.cstring()));
  const part = (letter: string, before: string) => (fields.has(letter.charCodeAt(0)) ? `${before}${fields.get(letter.charCodeAt(0))}` : "");
  return `${part("C", "")}${part("M", ": ")}${part("D", "\n  detail: ")}${part("H", "\n  hint: ")}`;
}

function remember<T>(map: Map<string, T>, name: string, value: T): void {
  map.delete(name);
  if (map.size >= NAMES_MAX) map.delete(map.keys().next().value as string);
  map.set(name, value);
}
