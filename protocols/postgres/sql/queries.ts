import { as, type Body, constantText, kindOf, type Node, strings, type Tree } from "./ast.ts";
import { type Output, Outputs, resolve, rowOf, type Source, union } from "./columns.ts";
import { condition } from "./conditions.ts";
import { pinned, value } from "./expressions.ts";
import { inner, Refusal, type Use, type Visitor, type Visitors, type Walk } from "./walk.ts";

/** SELECT, INSERT, UPDATE, DELETE, MERGE and what stands in FROM, at any level of a statement. */

// ---- what a query gives out

const NO_OUTPUTS = new Outputs([]);

/** A query that stands in FROM, once it was walked; `names` rename its first columns. */
function querySource(walk: Walk, query: Node | undefined, names: readonly Node[] | undefined): Source {
  const kind = query === undefined ? undefined : kindOf(query as Tree);
  const body = kind === undefined ? undefined : ((query as unknown as Record<string, object>)[kind] as object);
  return { kind: "query", outputs: body === undefined ? undefined : walk.outputs.get(body), names: strings(names) };
}

/** A relation under whatever name. */
export function relationSource(relation: Body<"RangeVar"> | undefined): Source {
  if (relation?.relname === undefined) return { kind: "query", outputs: undefined, names: [] };
  return {
    kind: "relation",
    relation: { schema: relation.schemaname, name: relation.relname },
    // `customers AS c (a, b)`: what a and b are, only the catalogue knows.
    renamed: relation.alias?.colnames !== undefined,
  };
}

/** EXISTS shows no value, but where the server cannot drop its select list it computes it: an error or a row less would tell. */
const computed = (use: Use): Use => (use === "unseen" ? "predicate" : inner(use));

/** A select list, or RETURNING. */
function targets(walk: Walk, list: readonly Node[] | undefined, use: Use): Outputs {
  const outputs: Output[] = [];
  const stars = new Set<string | undefined>();
  for (const item of list ?? []) {
    const target = as(item, "ResTarget");
    const reference = as(target?.val, "ColumnRef");
    if (reference === undefined) {
      walk.visit(target?.val, computed(use));
      outputs.push({ name: target?.name ?? "", origins: [] });
      continue;
    }
    const fields = reference.fields ?? [];
    const path = strings(fields);
    if (path.length === fields.length) {
      const origins = walk.column(path, use);
      outputs.push({ name: target?.name ?? path[path.length - 1], origins: use === "plain" || use === "unseen" ? origins : [] });
      continue;
    }
    const of = path[path.length - 1];
    const star = walk.ranges.star(of);
    if (use === "plain") walk.star = true;
    else if (star === undefined) walk.anything(use);
    else walk.used(union(star.map(rowOf)), use);
    // The same star again gives out nothing new, and behind the first one no position is known.
    if (stars.has(of)) continue;
    stars.add(of);
    outputs.push({ star: star ?? [{ kind: "query", outputs: undefined, names: [] }] });
  }
  return new Outputs(outputs);
}

/** ORDER BY 2 and GROUP BY 2 mean the second output column, ORDER BY x and GROUP BY x may mean the one of that name. */
function orderAndGroup(walk: Walk, items: readonly Node[] | undefined, outputs: Outputs, onlyOutputs = false): void {
  for (const item of items ?? []) {
    const node = as(item, "SortBy")?.node ?? item;
    const set = as(node, "GroupingSet");
    if (set !== undefined) {
      orderAndGroup(walk, set.content, outputs, onlyOutputs);
      continue;
    }
    const position = Number(as(node, "A_Const")?.ival?.ival ?? 0);
    if (position > 0) walk.used(outputs.at(position - 1), "predicate");
    const fields = as(node, "ColumnRef")?.fields;
    const [name, more] = strings(fields);
    const isName = fields?.length === 1 && name !== undefined && more === undefined;
    if (isName) walk.used(outputs.named(name), "predicate");
    // Of a set operation only output columns can be named.
    if (!(isName && onlyOutputs)) walk.visit(node, "predicate");
  }
}

// ---- WITH

function withClause(walk: Walk, clause: Body<"WithClause"> | undefined, body: () => void): void {
  if (clause === undefined) {
    body();
    return;
  }
  walk.withScope(() => {
    const ctes = (clause.ctes ?? []).map((node) => as(node, "CommonTableExpr"));
    if (clause.recursive) {
      for (const cte of ctes) {
        // What a set operation gives out counts as computed; what else a later one gives out is not known yet.
        const op = as(cte?.ctequery, "SelectStmt")?.op;
        const isSet = op !== undefined && op !== "SETOP_NONE";
        walk.declareCte(cte?.ctename ?? "", { kind: "query", outputs: isSet ? NO_OUTPUTS : undefined, names: [] });
      }
    }
    for (const cte of ctes) {
      if (cte === undefined) throw new Refusal("The statement's WITH clause is not understood.");
      walk.visit(cte.ctequery, "plain");
      const source = querySource(walk, cte.ctequery, cte.aliascolnames);
      for (const column of [...strings(cte.search_clause?.search_col_list), ...strings(cte.cycle_clause?.cycle_col_list)]) {
        walk.named(column);
        walk.used(resolve(source, column), "expression");
      }
      walk.visit(cte.cycle_clause?.cycle_mark_value, "expression");
      walk.visit(cte.cycle_clause?.cycle_mark_default, "expression");
      // Without RECURSIVE a query sees only those before it: `with t as (select * from t)` reads the table t.
      walk.declareCte(cte.ctename ?? "", source);
    }
    body();
  });
}

// ---- statements

const select: Visitor<"SelectStmt"> = (walk, body, use) => {
  walk.access("sql:select");
  walk.ranges.within(() => withClause(walk, body.withClause, () => selectBody(walk, body, use)));
};

function selectBody(walk: Walk, body: Body<"SelectStmt">, outer: Use): void {
  let use = outer;
  const isSet = body.op !== undefined && body.op !== "SETOP_NONE";
  if (isSet) {
    const arm = use === "unseen" ? "predicate" : inner(use);
    if (body.larg !== undefined) select(walk, body.larg, arm);
    if (body.rarg !== undefined) select(walk, body.rarg, arm);
  }
  if (body.intoClause !== undefined) {
    creates(walk, body.intoClause.rel);
    use = "expression";
  }
  walk.ranges.during(false, () => walk.visitAll(body.fromClause, "plain"));
  if (setsOneSetting(body)) {
    // The constant in WHERE names what is set: it stays in the cache key.
    walk.settingOfRow = RESTRICTED_KINDS;
    pinned(walk, () => walk.visit(body.whereClause, "predicate"));
  }
  const outputs = targets(walk, body.targetList, use);
  walk.outputs.set(body, outputs);
  walk.settingOfRow = undefined;
  if (body.distinctClause !== undefined) distinct(walk, body, outputs, use);
  condition(walk, body.whereClause);
  orderAndGroup(walk, body.groupClause, outputs);
  condition(walk, body.havingClause);
  walk.visitAll(body.windowClause, "predicate");
  walk.visitAll(body.valuesLists, computed(use));
  orderAndGroup(walk, body.sortClause, outputs, isSet);
  value(walk, body.limitOffset, "predicate");
  value(walk, body.limitCount, "predicate");
}

const RESTRICTED_KINDS = "restrict_nonsystem_relation_kind";

/** pg_dump's `SELECT set_config(name, '…', false) FROM pg_settings WHERE name = 'restrict_nonsystem_relation_kind'`, and nothing else. */
function setsOneSetting(body: Body<"SelectStmt">): boolean {
  const [call, moreTargets] = body.targetList ?? [];
  const [settings, moreRelations] = body.fromClause ?? [];
  const args = as(as(call, "ResTarget")?.val, "FuncCall")?.args ?? [];
  const where = as(body.whereClause, "A_Expr");
  const isName = (node: Node | undefined): boolean => strings(as(node, "ColumnRef")?.fields).join(".") === "name";
  return (
    moreTargets === undefined &&
    moreRelations === undefined &&
    as(settings, "RangeVar")?.relname === "pg_settings" &&
    isName(args[0]) &&
    args.slice(1).every((arg) => "A_Const" in arg) &&
    where?.kind === "AEXPR_OP" &&
    strings(where.name).join(".") === "=" &&
    isName(where.lexpr) &&
    constantText(where.rexpr) === RESTRICTED_KINDS
  );
}

/** Plain DISTINCT compares every output column; its list holds one empty node. DISTINCT ON names what it compares. */
function distinct(walk: Walk, body: Body<"SelectStmt">, outputs: Outputs, use: Use): void {
  const on = (body.distinctClause ?? []).filter((node) => Object.keys(node).length > 0);
  if (on.length > 0) orderAndGroup(walk, on, outputs);
  else if (use !== "unseen") walk.used(outputs.all(), "predicate");
}

/** A new table or view. Temporary ones live in pg_temp, whatever the search_path says. */
export function creates(walk: Walk, relation: Body<"RangeVar"> | undefined): void {
  const name = relation?.relname ?? "";
  const temporary = relation?.relpersistence === "t" || relation?.schemaname === "pg_temp";
  walk.relation("sql:create", temporary ? "pg_temp" : relation?.schemaname, name);
  walk.effect(temporary ? { kind: "create_temp", name } : { kind: "ddl" });
}

type Change = Body<"InsertStmt"> | Body<"UpdateStmt"> | Body<"DeleteStmt"> | Body<"MergeStmt">;

function returning(walk: Walk, body: Change, use: Use): void {
  const clause = body.returningClause;
  if (clause === undefined) return;
  const target = body.relation;
  walk.range("sql:select", target);
  for (const name of ["old", "new", ...(clause.options ?? []).map((option) => as(option, "ReturningOption")?.value)])
    if (name !== undefined) walk.ranges.add(name, relationSource(target), true);
  // The target's own name stands for the statement's new rows here.
  walk.ranges.add(undefined, relationSource(target));
  const outputs = targets(walk, clause.exprs, use);
  walk.outputs.set(body, outputs);
}

/** The relation that a statement changes; never a WITH query. */
function changed(walk: Walk, action: string, target: Body<"RangeVar"> | undefined): void {
  walk.range(action, target);
  if (target?.relname === "pg_settings") throw new Refusal("Changing pg_settings is refused: use SET, which can be checked.");
}

function addTarget(walk: Walk, target: Body<"RangeVar"> | undefined): void {
  walk.ranges.add(target?.alias?.aliasname ?? target?.relname ?? "", relationSource(target));
}

function assignments(walk: Walk, list: readonly Node[] | undefined): void {
  for (const item of list ?? []) {
    const target = as(item, "ResTarget");
    walk.named(target?.name);
    walk.visitAll(indexes(target?.indirection), "expression");
    value(walk, target?.val, "expression");
  }
}

/** Subscripts of an assignment target; field names are named, not read. */
const indexes = (nodes: readonly Node[] | undefined): Node[] => (nodes ?? []).filter((node) => "A_Indices" in node);

/** A statement that changes rows: a level of its own, with its WITH queries. */
const changing =
  <K extends "InsertStmt" | "UpdateStmt" | "DeleteStmt" | "MergeStmt">(action: string, change: Visitor<K>): Visitor<K> =>
  (walk, body, use) => {
    const { relation, withClause: clause } = body as Change;
    changed(walk, action, relation);
    walk.ranges.within(() => withClause(walk, clause, () => change(walk, body, use)));
  };

const insert = changing<"InsertStmt">("sql:insert", (walk, body, use) => {
  assignments(walk, body.cols);
  const source = as(body.selectStmt, "SelectStmt");
  if (source?.valuesLists !== undefined && source.withClause === undefined) {
    for (const row of source.valuesLists) value(walk, row, "expression");
    orderAndGroup(walk, source.sortClause, NO_OUTPUTS);
    walk.visit(source.limitCount, "predicate");
    walk.visit(source.limitOffset, "predicate");
  } else walk.visit(body.selectStmt, "expression");
  // What is inserted does not see the row that it becomes.
  addTarget(walk, body.relation);
  const conflict = body.onConflictClause;
  if (conflict !== undefined) {
    walk.ranges.add("excluded", relationSource(body.relation), true);
    walk.visitAll(conflict.infer?.indexElems, "predicate");
    walk.visit(conflict.infer?.whereClause, "predicate");
    if (conflict.action === "ONCONFLICT_UPDATE") walk.range("sql:update", body.relation);
    assignments(walk, conflict.targetList);
    condition(walk, conflict.whereClause);
  }
  returning(walk, body, use);
});

const update = changing<"UpdateStmt">("sql:update", (walk, body, use) => {
  if (!looksAtRow(body.whereClause)) walk.unfiltered = true;
  addTarget(walk, body.relation);
  walk.ranges.during(false, () => walk.visitAll(body.fromClause, "plain"));
  assignments(walk, body.targetList);
  condition(walk, body.whereClause);
  returning(walk, body, use);
});

const remove = changing<"DeleteStmt">("sql:delete", (walk, body, use) => {
  if (!looksAtRow(body.whereClause)) walk.unfiltered = true;
  addTarget(walk, body.relation);
  walk.ranges.during(false, () => walk.visitAll(body.usingClause, "plain"));
  condition(walk, body.whereClause);
  returning(walk, body, use);
});

/** `WHERE true` and `WHERE 1 = 1` filter nothing: a filter names a column. Constants are not looked at, since cached shapes leave them out. */
function looksAtRow(where: Node | undefined): boolean {
  const pending: unknown[] = [where];
  while (pending.length > 0) {
    const part = pending.pop();
    if (typeof part !== "object" || part === null) continue;
    if ("ColumnRef" in part || "CurrentOfExpr" in part) return true;
    for (const below of Object.values(part)) pending.push(below);
  }
  return false;
}

const MERGE_ACTIONS: Readonly<Record<string, string>> = { CMD_INSERT: "sql:insert", CMD_UPDATE: "sql:update", CMD_DELETE: "sql:delete" };

const merge = changing<"MergeStmt">("sql:merge", (walk, body, use) => {
  addTarget(walk, body.relation);
  walk.ranges.during(false, () => walk.visit(body.sourceRelation, "plain"));
  walk.visit(body.joinCondition, "predicate");
  for (const node of body.mergeWhenClauses ?? []) {
    const clause = as(node, "MergeWhenClause");
    const action = MERGE_ACTIONS[clause?.commandType ?? ""];
    if (action !== undefined) walk.range(action, body.relation);
    walk.visit(clause?.condition, "predicate");
    assignments(walk, clause?.targetList);
    for (const item of clause?.values ?? []) value(walk, item, "expression");
  }
  returning(walk, body, use);
});

// ---- FROM

const rangeVar: Visitor<"RangeVar"> = (walk, body) => {
  const name = body.relname ?? "";
  const alias = body.alias?.aliasname ?? name;
  const cte = body.schemaname === undefined ? walk.cte(name) : undefined;
  if (cte !== undefined) {
    walk.ranges.add(alias, renamed(cte.source, strings(body.alias?.colnames)));
    return;
  }
  // Such a view passes an UPDATE on to pg_settings, whose rule calls set_config.
  if (walk.inView && name === "pg_settings") throw new Refusal("A view over pg_settings is refused: settings could be changed through it.");
  walk.range("sql:select", body);
  walk.ranges.add(alias, relationSource(body));
};

/** A WITH query under another alias: its list of names goes over that of the query. */
function renamed(source: Source, names: readonly string[]): Source {
  if (names.length === 0 || source.kind !== "query") return source;
  return { ...source, names: [...names, ...source.names.slice(names.length)] };
}

const join: Visitor<"JoinExpr"> = (walk, body) => {
  const before = walk.ranges.count;
  walk.visit(body.larg, "plain");
  walk.visit(body.rarg, "plain");
  const sides = walk.ranges.own(before).map((range) => range.source);
  // Which columns the two sides have in common, only the catalogue knows.
  if (body.isNatural) walk.used(union(sides.map(rowOf)), "predicate");
  for (const column of strings(body.usingClause)) {
    walk.named(column);
    const origins = union(sides.map((side) => resolve(side, column)));
    walk.used(origins, "predicate");
    // The merged column of a full join is an expression over both sides.
    if (body.jointype === "JOIN_FULL") walk.used(origins, "expression");
  }
  condition(walk, body.quals);
  const joined = new Outputs([{ star: sides }]);
  if (body.join_using_alias?.aliasname !== undefined)
    walk.ranges.add(body.join_using_alias.aliasname, { kind: "query", outputs: joined, names: [] });
  if (body.alias?.aliasname !== undefined) {
    walk.ranges.hide(before);
    walk.ranges.add(body.alias.aliasname, { kind: "query", outputs: joined, names: strings(body.alias.colnames) });
  }
};

const subquery: Visitor<"RangeSubselect"> = (walk, body) => {
  walk.ranges.during(body.lateral ?? false, () => walk.visit(body.subquery, "plain"));
  walk.ranges.add(body.alias?.aliasname ?? "", querySource(walk, body.subquery, body.alias?.colnames));
};

/** What a function returns is computed from its arguments, which are expressions. */
const COMPUTED: Source = { kind: "computed" };

const tableFunction: Visitor<"RangeFunction"> = (walk, body) => {
  let name: string | undefined;
  for (const item of body.functions ?? []) {
    // Each is a list of the call and its column definitions.
    for (const part of as(item, "List")?.items ?? [item]) {
      if (Object.keys(part).length === 0 || "List" in part) continue;
      walk.ranges.during(true, () => walk.visit(part, "expression"));
      name = strings(as(part, "FuncCall")?.funcname).at(-1);
    }
  }
  // Of several functions the server takes the first one's name.
  if (body.alias === undefined && body.functions?.length !== 1) walk.ranges.add(undefined, COMPUTED);
  walk.ranges.add(body.alias?.aliasname ?? name, COMPUTED);
};

const xmlTable: Visitor<"RangeTableFunc"> = (walk, body) => {
  walk.visit(body.docexpr, "expression");
  walk.visit(body.rowexpr, "expression");
  walk.visitAll(body.namespaces, "expression");
  for (const node of body.columns ?? []) {
    const column = as(node, "RangeTableFuncCol");
    walk.visit(column?.colexpr, "expression");
    walk.visit(column?.coldefexpr, "expression");
  }
  walk.ranges.add(body.alias?.aliasname, COMPUTED);
};

const jsonTable: Visitor<"JsonTable"> = (walk, body) => {
  if (body.context_item !== undefined) walk.visitBody("JsonValueExpr", body.context_item, "expression");
  walk.visit(body.pathspec?.string, "expression");
  walk.visitAll(body.passing, "expression");
  if (body.on_error !== undefined) walk.visitBody("JsonBehavior", body.on_error, "expression");
  jsonColumns(walk, body.columns);
  walk.ranges.add(body.alias?.aliasname, COMPUTED);
};

function jsonColumns(walk: Walk, columns: readonly Node[] | undefined): void {
  for (const node of columns ?? []) {
    const column = as(node, "JsonTableColumn");
    walk.visit(column?.pathspec?.string, "expression");
    if (column?.on_empty !== undefined) walk.visitBody("JsonBehavior", column.on_empty, "expression");
    if (column?.on_error !== undefined) walk.visitBody("JsonBehavior", column.on_error, "expression");
    jsonColumns(walk, column?.columns);
  }
}

const sample: Visitor<"RangeTableSample"> = (walk, body) => {
  walk.visit(body.relation, "plain");
  walk.visitAll(body.args, "expression");
  walk.visit(body.repeatable, "expression");
};

export const QUERIES: Visitors = {
  SelectStmt: select,
  InsertStmt: insert,
  UpdateStmt: update,
  DeleteStmt: remove,
  MergeStmt: merge,
  RangeVar: rangeVar,
  JoinExpr: join,
  RangeSubselect: subquery,
  RangeFunction: tableFunction,
  RangeTableFunc: xmlTable,
  JsonTable: jsonTable,
  RangeTableSample: sample,
};

/** Text of a DefElem's argument, where it is a constant, a bare word or a name. */
export function optionText(argument: Node | undefined): string | undefined {
  const name = strings(as(argument, "TypeName")?.names);
  return constantText(argument) ?? (name.length > 0 ? name[name.length - 1] : undefined);
}
