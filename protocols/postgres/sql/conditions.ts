import { as, type Body, type Node, strings } from "./ast.ts";
import { value } from "./expressions.ts";
import type { Walk } from "./walk.ts";

/**
 * Conditions that decide about rows: WHERE, ON, HAVING. Of what stands there, joined by AND and OR, a bare column that is compared
 * by `=` with constants or parameters is told apart, because a mask may allow that and nothing else (`predicates: equality`).
 */
export function condition(walk: Walk, node: Node | undefined): void {
  const both = as(node, "BoolExpr");
  if (both?.boolop === "AND_EXPR" || both?.boolop === "OR_EXPR") {
    for (const arg of both.args ?? []) condition(walk, arg);
    return;
  }
  const compared = as(node, "A_Expr");
  // What a view or rule stores is no comparison of this statement.
  if (compared === undefined || walk.inView || !equality(walk, compared)) walk.visit(node, "predicate");
}

/** @returns false: nothing was visited, because it is something else */
function equality(walk: Walk, { kind, name, lexpr, rexpr }: Body<"A_Expr">): boolean {
  const [operator, more] = strings(name);
  if (operator !== "=" || more !== undefined) return false;
  const [left, right] = [columnPath(lexpr), columnPath(rexpr)];
  switch (kind) {
    case "AEXPR_OP":
      if (left !== undefined && right !== undefined) return columns(walk, left, right);
      if (left !== undefined && isConstant(rexpr)) return withConstant(walk, left, rexpr);
      return right !== undefined && isConstant(lexpr) && withConstant(walk, right, lexpr);
    case "AEXPR_IN":
      return left !== undefined && (as(rexpr, "List")?.items ?? [undefined]).every(isConstant) && withConstant(walk, left, rexpr);
    case "AEXPR_OP_ANY":
      if (left === undefined || !isArray(rexpr)) return false;
      walk.column(left, "equality");
      walk.visit(rexpr, "predicate");
      return true;
    default:
      return false;
  }
}

function withConstant(walk: Walk, column: readonly string[], constant: Node | undefined): true {
  walk.column(column, "equality");
  value(walk, constant, "predicate");
  return true;
}

/** What a column is compared with must be certain: with a list that the client made up, equality finds values out one after the other. */
function columns(walk: Walk, left: readonly string[], right: readonly string[]): boolean {
  const partners = [walk.ranges.certain(right), walk.ranges.certain(left)] as const;
  if (partners[0] === undefined || partners[1] === undefined) return false;
  walk.column(left, "equality", partners[0]);
  walk.column(right, "equality", partners[1]);
  return true;
}

function columnPath(node: Node | undefined): readonly string[] | undefined {
  const fields = as(node, "ColumnRef")?.fields ?? [];
  const path = strings(fields);
  return path.length > 0 && path.length === fields.length ? path : undefined;
}

/** Types to which a constant may be cast, as the grammar names them: none by which more values than one are equal to it. */
const TYPES: ReadonlySet<string> = new Set(
  "bool int2 int4 int8 numeric text varchar bpchar bytea uuid date time timetz timestamp timestamptz interval inet cidr jsonb".split(" "),
);

function isListed(type: Body<"TypeCast">["typeName"], dimensions: number): boolean {
  const names = strings(type?.names);
  const name = names.length === 2 && names[0] === "pg_catalog" ? names[1] : names.length === 1 ? names[0] : undefined;
  return name !== undefined && TYPES.has(name) && (type?.arrayBounds?.length ?? 0) === dimensions && type?.setof !== true;
}

const isBare = (node: Node | undefined): boolean => node !== undefined && ("A_Const" in node || "ParamRef" in node);

function isConstant(node: Node | undefined): boolean {
  const cast = as(node, "TypeCast");
  return isBare(node) || (cast !== undefined && isBare(cast.arg) && isListed(cast.typeName, 0));
}

function isArray(node: Node | undefined): boolean {
  const cast = as(node, "TypeCast");
  const inner = cast === undefined ? node : cast.arg;
  if (cast !== undefined && !isListed(cast.typeName, 1)) return false;
  const elements = as(inner, "A_ArrayExpr")?.elements;
  return isBare(inner) || elements?.every(isConstant) === true;
}
