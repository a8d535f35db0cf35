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

/** A bracket, or a run without blanks and brackets in which a backslash takes the next character along (outfuncs.c, outToken). */
const TOKEN = /[ \n\t]*([(){}]|(?:[^\\ \n\t(){}]|\\[^])+)/y;

class TreeReader {
  readonly #text: string;
  readonly #token = new RegExp(TOKEN);
  /** The token ahead, as it stands, backslashes included; "" at the end. */
  #ahead: string;
  #depth = 0;

  constructor(text: string) {
    this.#text = text;
    this.#ahead = this.#read();
  }

  whole(): TreeValue {
    const value = this.#value();
    if (this.#ahead !== "") throw new MalformedTree();
    return value;
  }

  #read(): string {
    const at = this.#token.lastIndex;
    const found = this.#token.exec(this.#text)?.[1];
    // What is left besides blanks is a lone backslash.
    if (found === undefined && this.#text.slice(at).trim() !== "") throw new MalformedTree();
    return found ?? "";
  }

  #take(): string {
    const token = this.#ahead;
    this.#ahead = this.#read();
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
    while (this.#ahead !== ")") items.push(this.#value());
    this.#take();
    return items;
  }

  #node(): TreeNode {
    const kind = this.#take();
    const fields = new Map<string, TreeValue>();
    while (this.#ahead !== "}") {
      const name = this.#take();
      if (!name.startsWith(":") || fields.has(name.slice(1))) throw new MalformedTree();
      // The value may be a name that begins with a colon itself: the first token always belongs to the field.
      const first = this.#value();
      const values = [first];
      while (this.#ahead !== "}" && !this.#ahead.startsWith(":")) values.push(this.#value());
      fields.set(name.slice(1), values.length === 1 ? first : values);
    }
    this.#take();
    return { kind, fields };
  }
}

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
