import { type Body, constantText, type Node, strings } from "./ast.ts";
import { rowOf, type Source, union } from "./columns.ts";
import { SECRET_NAME, settingRefusal, splitSearchPath } from "./settings.ts";
import { inner, Refusal, type Use, type Visitor, type Visitors, type Walk } from "./walk.ts";

/**
 * Expressions: one visitor a node kind of the raw parse tree. A kind that is not listed is refused by Walk.visit.
 * Each says where the values below it go, and which constants may change without changing the classification.
 */

/** Operators of which a constant operand is inert: they take any value and name nothing. */
const VALUE_OPERATORS: ReadonlySet<string> = new Set([
  "=",
  "<>",
  "!=",
  "<",
  ">",
  "<=",
  ">=",
  "+",
  "-",
  "*",
  "/",
  "%",
  "||",
  "~~",
  "!~~",
  "~~*",
  "!~~*",
]);

/** A value in a position where a constant is inert; anything but a constant is visited as usual. */
export function value(walk: Walk, node: Node | undefined, use: Use): void {
  if (node === undefined) return;
  if ("A_Const" in node && walk.pinned === 0) walk.inert.add(node.A_Const.location ?? 0);
  else if ("List" in node) for (const item of node.List.items ?? []) value(walk, item, use);
  else walk.visit(node, use);
}

/** Constants below here keep their place in a cache key. */
export function pinned(walk: Walk, body: () => void): void {
  walk.pinned += 1;
  body();
  walk.pinned -= 1;
}

/** `x::regclass = 'name'`: the constant is read as the name of an object. */
function castsToName(node: Node | undefined): boolean {
  if (node === undefined || !("TypeCast" in node)) return false;
  return strings(node.TypeCast.typeName?.names).some((name) => name.startsWith("reg"));
}

const operator: Visitor<"A_Expr"> = (walk, body, use) => {
  const names = strings(body.name);
  const below = inner(use);
  const listed =
    body.kind === "AEXPR_OP"
      ? names.length === 1 && VALUE_OPERATORS.has(names[0])
      : body.kind !== "AEXPR_OP_ANY" && body.kind !== "AEXPR_OP_ALL" && body.kind !== "AEXPR_NULLIF" && body.kind !== "AEXPR_SIMILAR";
  if (listed && !castsToName(body.lexpr) && !castsToName(body.rexpr)) {
    value(walk, body.lexpr, below);
    value(walk, body.rexpr, below);
  } else {
    walk.visit(body.lexpr, below);
    walk.visit(body.rexpr, below);
  }
};

/** A range that is not in sight. */
const UNKNOWN: Source = { kind: "query", outputs: undefined, names: [] };

const columnRef: Visitor<"ColumnRef"> = (walk, body, use) => {
  const fields = body.fields ?? [];
  const path = strings(fields);
  if (path.length === fields.length) walk.column(path, use);
  // `t.*` or `*` as a value: row(t.*), (t.*) is null, count(t.*). In select lists it never comes here (queries.ts).
  else walk.used(union((walk.ranges.star(path[path.length - 1]) ?? [UNKNOWN]).map(rowOf)), inner(use));
};

const setConfig = (walk: Walk, args: readonly Node[]): void => {
  if (walk.stored)
    throw new Refusal("set_config is refused in what runs later (PREPARE, DECLARE, a default, a view): use SET, or call it directly.");
  const isColumn = args[0] !== undefined && "ColumnRef" in args[0];
  const name = isColumn ? walk.settingOfRow : constantText(args[0])?.toLowerCase();
  const local = constantText(args[2]);
  if (name === undefined) throw new Refusal("set_config is refused where the setting's name is not a constant.");
  walk.other("sql:set", "setting", name);
  const setting = constantText(args[1]);
  if (SECRET_NAME.test(name)) walk.secret = true;
  const refusal = settingRefusal(name, setting, false);
  if (refusal !== undefined) throw new Refusal(refusal);
  const isLocal = local === "true";
  // A call may be evaluated for no row, several times, or not again when its portal is: what holds afterwards, nobody knows.
  if (name === "search_path") walk.effect({ kind: "search_path", schemas: undefined, local: isLocal });
  else walk.effect({ kind: "setting", name, value: walk.secret ? undefined : setting, local: isLocal });
};

const functionCall: Visitor<"FuncCall"> = (walk, body, use) => {
  const path = strings(body.funcname);
  const args = body.args ?? [];
  const name = path[path.length - 1] ?? "";
  walk.function(path, args.length);
  if (name === "set_config") setConfig(walk, args);
  if (walk.changesSequence(name)) {
    // nextval('hr.ids'): the constant is a name as search_path takes it, with dots instead of commas.
    const parts = splitSearchPath((constantText(unwrapCast(args[0])) ?? "").replace(/\.(?=(?:[^"]*"[^"]*")*[^"]*$)/g, ","));
    if (parts === undefined || parts.length === 0 || parts.length > 2) walk.other("sql:update", "function", path);
    else walk.relation("sql:update", parts.length === 2 ? parts[0] : undefined, parts[parts.length - 1]);
  }
  const below = inner(use);
  pinned(walk, () => {
    walk.visitAll(args, below);
    // WITHIN GROUP (ORDER BY x) returns x; ORDER BY inside an aggregate only orders.
    if (body.agg_within_group) walk.visitAll(body.agg_order, below);
    else walk.visitAll(body.agg_order, "predicate");
    walk.visit(body.agg_filter, "predicate");
    if (body.over !== undefined) window(walk, body.over, use);
  });
};

const unwrapCast = (node: Node | undefined): Node | undefined => (node !== undefined && "TypeCast" in node ? node.TypeCast.arg : node);

const window: Visitor<"WindowDef"> = (walk, body) => {
  walk.visitAll(body.partitionClause, "predicate");
  walk.visitAll(body.orderClause, "predicate");
  walk.visit(body.startOffset, "expression");
  walk.visit(body.endOffset, "expression");
};

const sublink: Visitor<"SubLink"> = (walk, body, use) => {
  walk.visit(body.testexpr, inner(use));
  // EXISTS shows no column of its subquery.
  walk.visit(body.subselect, body.subLinkType === "EXISTS_SUBLINK" ? "unseen" : inner(use));
};

const indirection: Visitor<"A_Indirection"> = (walk, body, use) => {
  const below = inner(use);
  walk.visit(body.arg, below);
  for (const step of body.indirection ?? []) {
    // (row).field and (row).*: that the row is used was seen with it.
    if ("String" in step) {
      walk.field(step.String.sval ?? "", below);
    } else if (!("A_Star" in step)) walk.visit(step, below);
  }
};

const cast: Visitor<"TypeCast"> = (walk, body, use) => pinned(walk, () => walk.visit(body.arg, inner(use)));

/** A visitor that visits the given fields, whose values leave in a changed form. */
function over<K extends Parameters<Walk["visitBody"]>[0]>(...fields: readonly (keyof Body<K> & string)[]): Visitor<K> {
  return (walk, body, use) => {
    for (const field of fields) {
      const below = (body as unknown as Record<string, Node | readonly Node[] | undefined>)[field];
      if (Array.isArray(below)) walk.visitAll(below, inner(use));
      else walk.visit(below as Node | undefined, inner(use));
    }
  };
}

const nothing = (): void => {};

/** Bare bodies (not wrapped in their kind) inside the SQL/JSON constructors. */
const bare = (walk: Walk, kind: Parameters<Walk["visitBody"]>[0], body: unknown, use: Use): void => {
  if (body !== undefined) walk.visitBody(kind, body, inner(use));
};

const jsonAggregate = (walk: Walk, body: Body<"JsonAggConstructor"> | undefined, use: Use): void => {
  walk.visit(body?.agg_filter, "predicate");
  walk.visitAll(body?.agg_order, "predicate");
  if (body?.over !== undefined) window(walk, body.over, use);
};

export const EXPRESSIONS: Visitors = {
  A_Const: (walk, body) => {
    walk.fixed.add(body.location ?? 0);
  },
  ParamRef: nothing,
  SetToDefault: nothing,
  SQLValueFunction: nothing,
  CurrentOfExpr: nothing,
  MergeSupportFunc: nothing,
  A_Star: (walk) => walk.anything("expression"),
  ColumnRef: columnRef,
  A_Expr: operator,
  FuncCall: functionCall,
  WindowDef: window,
  SubLink: sublink,
  A_Indirection: indirection,
  TypeCast: cast,
  BoolExpr: over<"BoolExpr">("args"),
  CollateClause: over<"CollateClause">("arg"),
  A_Indices: over<"A_Indices">("lidx", "uidx"),
  A_ArrayExpr: over<"A_ArrayExpr">("elements"),
  CaseExpr: over<"CaseExpr">("arg", "args", "defresult"),
  CaseWhen: over<"CaseWhen">("expr", "result"),
  CoalesceExpr: over<"CoalesceExpr">("args"),
  MinMaxExpr: over<"MinMaxExpr">("args"),
  NullTest: over<"NullTest">("arg"),
  BooleanTest: over<"BooleanTest">("arg"),
  RowExpr: over<"RowExpr">("args"),
  GroupingFunc: over<"GroupingFunc">("args"),
  GroupingSet: over<"GroupingSet">("content"),
  NamedArgExpr: over<"NamedArgExpr">("arg"),
  List: over<"List">("items"),
  SortBy: over<"SortBy">("node"),
  XmlExpr: over<"XmlExpr">("named_args", "args"),
  XmlSerialize: over<"XmlSerialize">("expr"),
  ResTarget: over<"ResTarget">("val"),
  IndexElem: (walk, body, use) => {
    if (body.name !== undefined) walk.column([body.name], use);
    // An index over an expression computes it for every row: an error would quote the value.
    walk.visit(body.expr, use === "unseen" ? "expression" : inner(use));
    walk.visitAll(body.opclassopts, "expression");
  },
  DefElem: nothing,
  MultiAssignRef: (walk, body, use) => {
    // (a, b) = (…): the tree repeats the source for each column.
    if ((body.colno ?? 1) <= 1) pinned(walk, () => walk.visit(body.source, inner(use)));
  },
  JsonValueExpr: over<"JsonValueExpr">("raw_expr", "formatted_expr"),
  JsonIsPredicate: over<"JsonIsPredicate">("expr"),
  JsonBehavior: over<"JsonBehavior">("expr"),
  JsonScalarExpr: over<"JsonScalarExpr">("expr"),
  JsonParseExpr: (walk, body, use) => bare(walk, "JsonValueExpr", body.expr, use),
  JsonSerializeExpr: (walk, body, use) => bare(walk, "JsonValueExpr", body.expr, use),
  JsonArgument: (walk, body, use) => bare(walk, "JsonValueExpr", body.val, use),
  JsonKeyValue: (walk, body, use) => {
    walk.visit(body.key, inner(use));
    bare(walk, "JsonValueExpr", body.value, use);
  },
  JsonObjectConstructor: over<"JsonObjectConstructor">("exprs"),
  JsonArrayConstructor: over<"JsonArrayConstructor">("exprs"),
  JsonArrayQueryConstructor: over<"JsonArrayQueryConstructor">("query"),
  JsonObjectAgg: (walk, body, use) => {
    bare(walk, "JsonKeyValue", body.arg, use);
    jsonAggregate(walk, body.constructor as Body<"JsonAggConstructor"> | undefined, use);
  },
  JsonArrayAgg: (walk, body, use) => {
    bare(walk, "JsonValueExpr", body.arg, use);
    jsonAggregate(walk, body.constructor as Body<"JsonAggConstructor"> | undefined, use);
  },
  JsonFuncExpr: (walk, body, use) => {
    bare(walk, "JsonValueExpr", body.context_item, use);
    walk.visit(body.pathspec, inner(use));
    walk.visitAll(body.passing, inner(use));
    bare(walk, "JsonBehavior", body.on_empty, use);
    bare(walk, "JsonBehavior", body.on_error, use);
  },
};
