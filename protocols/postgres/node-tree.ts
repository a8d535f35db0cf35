/**
 * The server's stored parse trees (pg_node_tree, as written by its outfuncs.c): `{KIND :field value …}`, lists in parentheses, `<>` for
 * none, everything else a token. Read without knowledge of the kinds, which differ between versions.
 */
export interface TreeNode {
  readonly kind: string;
  readonly fields: ReadonlyMap<string, TreeValue>;
}

export type TreeValue = TreeNode | readonly TreeValue[] | string;

/** Deeper trees are not read. */
const DEPTH = 400;

export class MalformedTree extends Error {}

class TreeReader {
  readonly #text: string;
  #at = 0;
  #depth = 0;

  constructor(text: string) {
    this.#text = text;
  }

  whole(): TreeValue {
    const value = this.#value();
    if (this.#next() !== "") throw new MalformedTree();
    return value;
  }

  /** The token ahead, as it stands (outToken's backslashes included); "" at the end. */
  #next(): string {
    const text = this.#text;
    while (isBlank(text.charCodeAt(this.#at))) this.#at += 1;
    const start = this.#at;
    let end = start;
    if (end < text.length && isBracket(text.charCodeAt(end))) return text.slice(end, end + 1);
    for (; end < text.length; end += 1) {
      const code = text.charCodeAt(end);
      if (code === BACKSLASH) end += 1;
      else if (isBlank(code) || isBracket(code)) break;
    }
    return text.slice(start, end);
  }

  #take(): string {
    const token = this.#next();
    this.#at += token.length;
    return token;
  }

  #value(): TreeValue {
    const token = this.#take();
    if (token === "" || token === ")" || token === "}") throw new MalformedTree();
    if (token !== "{" && token !== "(") return token;
    if (++this.#depth > DEPTH) throw new MalformedTree();
    const value = token === "{" ? this.#node() : this.#list();
    this.#depth -= 1;
    return value;
  }

  #list(): TreeValue[] {
    const items: TreeValue[] = [];
    while (this.#next() !== ")") items.push(this.#value());
    this.#take();
    return items;
  }

  #node(): TreeNode {
    const kind = this.#take();
    const fields = new Map<string, TreeValue>();
    while (this.#next() !== "}") {
      const name = this.#take();
      if (!name.startsWith(":") || fields.has(name.slice(1))) throw new MalformedTree();
      // The value may be a name that begins with a colon itself: the first token always belongs to the field.
      const first = this.#value();
      const values = [first];
      for (let ahead = this.#next(); ahead !== "}" && !ahead.startsWith(":"); ahead = this.#next()) values.push(this.#value());
      fields.set(name.slice(1), values.length === 1 ? first : values);
    }
    this.#take();
    return { kind, fields };
  }
}

const BACKSLASH = 92;
const isBlank = (code: number): boolean => code === 32 || code === 10 || code === 9;
/** ( ) { } */
const isBracket = (code: number): boolean => code === 40 || code === 41 || code === 123 || code === 125;

/** @throws MalformedTree */
export const readTree = (text: string): TreeValue => new TreeReader(text).whole();

export const isNode = (value: TreeValue | undefined): value is TreeNode =>
  value !== undefined && typeof value !== "string" && !Array.isArray(value);

/** A field that holds a list; `<>` is an empty one. @throws MalformedTree */
export function listOf(node: TreeNode, field: string): readonly TreeValue[] {
  const value = node.fields.get(field);
  if (value === undefined || value === "<>") return [];
  if (typeof value === "string" || isNode(value)) throw new MalformedTree();
  return value;
}

/** @throws MalformedTree */
export function integerOf(node: TreeNode, field: string): number {
  const value = Number(node.fields.get(field) ?? Number.NaN);
  if (!Number.isInteger(value)) throw new MalformedTree();
  return value;
}
