import { type ErrorCode, SluiceError } from "../errors.ts";

/** Where a value stands in a document: keys and list positions from the root. */
export type Path = readonly (string | number)[];

/** Line and column, both from 1. */
export type Position = readonly [line: number, column: number];

/** Positions of every node: `a.b[0]` → its value; `a.b[0]#` → its key. Plain data. */
export type Positions = Readonly<Record<string, Position>>;

/** `targets[0].tls.mode`, `labels["a.b"]`. */
export function pathText(path: Path): string {
  let text = "";
  for (const part of path) {
    if (typeof part === "number") text += `[${part}]`;
    else if (/^[A-Za-z_][A-Za-z0-9_-]*$/.test(part)) text += text === "" ? part : `.${part}`;
    else text += `[${JSON.stringify(part)}]`;
  }
  return text;
}

/** The position of a path, or of its nearest ancestor that stands in the document. */
export function positionOf(positions: Positions, path: Path, ofKey = false): Position {
  for (let length = path.length; length >= 0; length--) {
    const text = pathText(path.slice(0, length));
    const key = length === path.length && ofKey ? `${text}#` : text;
    if (Object.hasOwn(positions, key)) return positions[key] ?? [1, 1];
  }
  return [1, 1];
}

interface Problem {
  readonly file: string;
  readonly key: string;
  readonly position: Position;
  readonly text: string;
}

/** Collects every error of a load, so that one run names them all. */
export class Problems {
  readonly #list: Problem[] = [];

  get count(): number {
    return this.#list.length;
  }

  /** @param text "expected …, got …"; never a secret's value */
  add(file: string, position: Position, path: Path, text: string): void {
    const key = pathText(path);
    const line = `${file}:${position[0]}:${position[1]}: ${key === "" ? "" : `${key}: `}${text}`;
    // One problem a key: what is wrong first usually explains the rest.
    if (this.#list.some((other) => other.file === file && other.key === key && (key !== "" || other.text === line))) return;
    this.#list.push({ file, key, position, text: line });
  }

  /** @throws SluiceError with every problem, one a line, in the order of the files */
  throwIfAny(code: ErrorCode, hint: string): void {
    if (this.#list.length > 0) throw this.toError(code, hint);
  }

  toError(code: ErrorCode, hint: string): SluiceError {
    const files = [...new Set(this.#list.map((problem) => problem.file))];
    const sorted = this.#list.toSorted(
      (a, b) => files.indexOf(a.file) - files.indexOf(b.file) || a.position[0] - b.position[0] || a.position[1] - b.position[1],
    );
    return new SluiceError(code, sorted.map((problem) => problem.text).join("\n"), { hint });
  }
}

/**
 * A secret that stands in the wrong place: user and password of a URL, the password of a connection string, a PEM text
 * where its file's name belongs. Errors go to logs, to the audit and to whoever asks for the gateway's health.
 */
const withoutSecrets = (text: string): string =>
  text
    .replace(/-----BEGIN[^]*/, "(PEM text)")
    .replace(/:\/\/\S*@/g, "://(not shown)@")
    .replace(/(passw(?:or)?d|pwd)(\s*=\s*)('(?:[^'\\]|\\.)*'?|[^\s&;]*)/gi, "$1$2(not shown)");

/** A value for an error message: short, on one line, without control characters and without what looks like a secret. */
export function describeValue(value: unknown): string {
  if (value === undefined || value === null) return "nothing";
  if (Array.isArray(value)) return "a list";
  if (typeof value === "object") return "a map";
  const text = JSON.stringify(typeof value === "string" ? withoutSecrets(value) : value);
  return text.length > 80 ? `${text.slice(0, 77)}…` : text;
}
