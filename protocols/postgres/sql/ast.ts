import type { Node, ParseResult } from "libpg-query";

/** The parse tree as libpg_query's JSON: zero, false and empty values are left out, locations are byte offsets into the UTF-8 text. */
export type { Node, ParseResult };

type KeysOf<T> = T extends unknown ? keyof T : never;

/** Every node kind of the grammar: `SelectStmt`, `A_Expr`, … */
export type Kind = KeysOf<Node>;
/** All kinds as one object type: far quicker to check than an Extract per kind. */
type Bodies = (Node extends infer N ? (N extends unknown ? (node: N) => void : never) : never) extends (node: infer All) => void
  ? All
  : never;
/** The fields of one kind. */
export type Body<K extends Kind> = Bodies[K];
export type StatementKind = Extract<Kind, `${string}Stmt`>;

/** A part of the tree whose kind is not known to the compiler. */
export type Tree = Readonly<Record<string, unknown>>;

export const isTree = (value: unknown): value is Tree => typeof value === "object" && value !== null && !Array.isArray(value);

/** The kind of a wrapped node (`{"ColumnRef": {…}}`), or undefined for a bare body, whose keys are all lower-case. */
export function kindOf(value: Tree): Kind | undefined {
  for (const key in value) {
    const first = key.charCodeAt(0);
    return first >= 65 && first <= 90 ? (key as Kind) : undefined;
  }
  return undefined;
}

/** The body of a node if it is of that kind. */
export function as<K extends Kind>(node: Node | undefined, kind: K): Body<K> | undefined {
  return (node as Tree | undefined)?.[kind] as Body<K> | undefined;
}

/** The strings of a list of String nodes, in order; what is not a String is left out. */
export function strings(nodes: readonly Node[] | undefined): string[] {
  const names: string[] = [];
  for (const node of nodes ?? []) {
    const text = as(node, "String")?.sval;
    if (text !== undefined) names.push(text);
  }
  return names;
}

/** The value of a constant as text: strings, numbers and booleans; undefined for NULL and for what is not a constant. */
export function constantText(node: Node | undefined): string | undefined {
  const constant = as(node, "A_Const");
  if (constant !== undefined) {
    if (constant.isnull) return undefined;
    if (constant.sval !== undefined) return constant.sval.sval ?? "";
    if (constant.fval !== undefined) return constant.fval.fval ?? "0";
    if (constant.boolval !== undefined) return constant.boolval.boolval ? "true" : "false";
    if (constant.ival !== undefined) return String(constant.ival.ival ?? 0);
    return undefined;
  }
  const text = as(node, "String");
  if (text !== undefined) return text.sval ?? "";
  const integer = as(node, "Integer");
  if (integer !== undefined) return String(integer.ival ?? 0);
  const float = as(node, "Float");
  if (float !== undefined) return float.fval ?? "0";
  const flag = as(node, "Boolean");
  if (flag !== undefined) return flag.boolval ? "true" : "false";
  return undefined;
}
