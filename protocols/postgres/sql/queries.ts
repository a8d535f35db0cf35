import { as, type Body, constantText, type Node, strings } from "./ast.ts";
import { pinned, value } from "./expressions.ts";
import { inner, Refusal, type Use, type Visitor, type Visitors, type Walk } from "./walk.ts";

/** SELECT, INSERT, UPDATE, DELETE, MERGE and what stands in FROM, at any level of a statement. */

// ---- what a query gives out

type Query = Node | undefined;

/** Column names that the output columns of a query stand for, in order (undefined: not a bare column); undefined: cannot be listed. */
function outputs(query: Query): readonly (string | undefined)[] | undefined {
  if (query === undefined) return [];
  let names = listed.get(query);
  if (names === undefined && !listed.has(query)) {
    names = listOutputs(query);
    listed.set(query, names);
  }
  return names;
}

/** Of a query that many references name, the columns are listed once. */
const listed = new WeakMap<Node, readonly (string | undefined)[] | undefined>();

function listOutputs(query: Node): readonly (string | undefined)[] | undefined {
  const select = as(query, "SelectStmt");
  let targetList: readonly Node[] | undefined;
  if (select !== undefined) {
    // Columns below a set operation count as used in expressions already.
    if (select.op !== undefined && select.op !== "SETOP_NONE") return [];
    if (select.valuesLists !== undefined) return [];
    targetList = select.targetList;
  } else {
    const change = as(query, "InsertStmt") ?? as(query, "UpdateStmt") ?? as(query, "DeleteStmt") ?? as(query, "MergeStmt");
    targetList = change?.returningClause?.exprs;
  }
  const names: (string | undefined)[] = [];
  for (const item of targetList ?? []) {
    const fields = as(as(item, "ResTarget")?.val, "ColumnRef")?.fields;
    const path = strings(fields);
    if (fields !== undefined && path.length < fields.length) return undefined;
    names.push(fields === undefined ? undefined : path[path.length - 1]);
  }
  return names;
}

/** `(query) AS s (x, y)`: x and y stand for what the query's first and second column are. */
function renameAll(walk: Walk, columns: readonly Node[] | undefined, query: Query): void {
  if (columns === undefined || columns.length === 0) return;
  const names = outputs(query);
  if (names === undefined) walk.untraceable = true;
  else
    for (const [index, alias] of strings(columns).entries()) {
      const column = names[index];
      if (column !== undefined) walk.rename(alias, column);
    }
}

/** EXISTS shows no value, but where the server cannot drop its select list it computes it: an error or a row less would tell. */
const computed = (use: Use): Use => (use === "unseen" ? "predicate" : inner(use));

function targets(walk: Walk, list: readonly Node[] | undefined, use: Use): void {
  for (const item of list ?? []) {
    const target = as(item, "ResTarget");
    const reference = as(target?.val, "ColumnRef");
    if (reference === undefined) {
      walk.visit(target?.val, computed(use));
      continue;
    }
    const fields = reference.fields ?? [];
    const path = strings(fields);
    if (path.length === fields.length) {
      walk.column(path, use);
      if (target?.name !== undefined) walk.rename(target.name, path[path.length - 1]);
    } else if (use === "plain") walk.star = true;
    else if (use !== "unseen") walk.untraceable = true;
  }
}

const fieldsOf = (target: Node | undefined): readonly Node[] | undefined => as(as(target, "ResTarget")?.val, "ColumnRef")?.fields;
const hasStar = (target: Node): boolean => fieldsOf(target)?.some((field) => "A_Star" in field) ?? false;

/** Index of the first star of a select list, or -1; looked up once a list, because ORDER BY can be as long as the list. */
const stars = new WeakMap<readonly Node[], number>();

function firstStar(list: readonly Node[]): number {
  let index = stars.get(list);
  if (index === undefined) {
    index = list.findIndex(hasStar);
    stars.set(list, index);
  }
  return index;
}

/** ORDER BY 2 and GROUP BY 2 mean the second output column. */
function positions(walk: Walk, item: Node, list: readonly Node[] | undefined): void {
  const position = Number(as(item, "A_Const")?.ival?.ival ?? 0);
  if (position < 1 || list === undefined) return;
  // A star stands for several columns: behind one, a position is anybody's guess.
  const star = firstStar(list);
  if (star >= 0 && star < position) walk.untraceable = true;
  const fields = fieldsOf(list[position - 1]);
  if (fields !== undefined && position - 1 !== star) walk.column(strings(fields), "predicate");
}

function orderAndGroup(walk: Walk, items: readonly Node[] | undefined, list: readonly Node[] | undefined): void {
  for (const item of items ?? []) {
    const node = as(item, "SortBy")?.node ?? item;
    const set = as(node, "GroupingSet");
    if (set !== undefined) orderAndGroup(walk, set.content, list);
    else {
      positions(walk, node, list);
      walk.visit(node, "predicate");
    }
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
    if (clause.recursive) for (const cte of ctes) walk.declareCte(cte?.ctename ?? "", cte?.ctequery);
    for (const cte of ctes) {
      if (cte === undefined) throw new Refusal("The statement's WITH clause is not understood.");
      walk.visit(cte.ctequery, "plain");
      renameAll(walk, cte.aliascolnames, cte.ctequery);
      for (const column of strings(cte.search_clause?.search_col_list)) walk.column([column], "expression");
      for (const column of strings(cte.cycle_clause?.cycle_col_list)) walk.column([column], "expression");
      walk.visit(cte.cycle_clause?.cycle_mark_value, "expression");
      walk.visit(cte.cycle_clause?.cycle_mark_default, "expression");
      // Without RECURSIVE a query sees only those before it: `with t as (select * from t)` reads the table t.
      if (!clause.recursive) walk.declareCte(cte.ctename ?? "", cte.ctequery);
    }
    body();
  });
}

// ---- statements

const select: Visitor<"SelectStmt"> = (walk, body, use) => {
  walk.access("sql:select");
  withClause(walk, body.withClause, () => {
    if (body.op !== undefined && body.op !== "SETOP_NONE") {
      const arm = use === "unseen" ? "predicate" : inner(use);
      if (body.larg !== undefined) select(walk, body.larg, arm);
      if (body.rarg !== undefined) select(walk, body.rarg, arm);
    }
    if (body.intoClause !== undefined) {
      creates(walk, body.intoClause.rel);
      use = "expression";
    }
    walk.visitAll(body.fromClause, "plain");
    if (setsOneSetting(body)) {
      // The constant in WHERE names what is set: it stays in the cache key.
      walk.settingOfRow = RESTRICTED_KINDS;
      pinned(walk, () => walk.visit(body.whereClause, "predicate"));
    }
    targets(walk, body.targetList, use);
    walk.settingOfRow = undefined;
    if (body.distinctClause !== undefined) distinct(walk, body, use);
    walk.visit(body.whereClause, "predicate");
    orderAndGroup(walk, body.groupClause, body.targetList);
    walk.visit(body.havingClause, "predicate");
    walk.visitAll(body.windowClause, "predicate");
    walk.visitAll(body.valuesLists, computed(use));
    orderAndGroup(walk, body.sortClause, body.targetList);
    value(walk, body.limitOffset, "predicate");
    value(walk, body.limitCount, "predicate");
  });
};

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
function distinct(walk: Walk, body: Body<"SelectStmt">, use: Use): void {
  const on = (body.distinctClause ?? []).filter((node) => Object.keys(node).length > 0);
  if (on.length > 0) orderAndGroup(walk, on, body.targetList);
  else if (use !== "unseen") {
    const compared = outputs({ SelectStmt: body });
    if (compared === undefined) walk.untraceable = true;
    else for (const name of compared) if (name !== undefined) walk.column([name], "predicate");
  }
}

/** A new table or view. Temporary ones live in pg_temp, whatever the search_path says. */
export function creates(walk: Walk, relation: Body<"RangeVar"> | undefined): void {
  const name = relation?.relname ?? "";
  const temporary = relation?.relpersistence === "t" || relation?.schemaname === "pg_temp";
  walk.relation("sql:create", temporary ? "pg_temp" : relation?.schemaname, name);
  walk.effect(temporary ? { kind: "create_temp", name } : { kind: "ddl" });
}

function returning(walk: Walk, clause: Body<"ReturningClause"> | undefined, target: Body<"RangeVar"> | undefined, use: Use): void {
  if (clause === undefined) return;
  walk.range("sql:select", target);
  walk.addRange("old");
  walk.addRange("new");
  for (const option of clause.options ?? []) walk.addRange(as(option, "ReturningOption")?.value);
  targets(walk, clause.exprs, use);
}

/** The relation that a statement changes; never a WITH query. */
function changed(walk: Walk, action: string, target: Body<"RangeVar"> | undefined): void {
  walk.range(action, target);
  if (target?.relname === "pg_settings") throw new Refusal("Changing pg_settings is refused: use SET, which can be checked.");
  walk.addRange(target?.alias?.aliasname ?? target?.relname);
  if (target?.alias?.colnames !== undefined) walk.untraceable = true;
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

const insert: Visitor<"InsertStmt"> = (walk, body, use) => {
  changed(walk, "sql:insert", body.relation);
  withClause(walk, body.withClause, () => {
    assignments(walk, body.cols);
    const source = as(body.selectStmt, "SelectStmt");
    if (source?.valuesLists !== undefined && source.withClause === undefined) {
      for (const row of source.valuesLists) value(walk, row, "expression");
      orderAndGroup(walk, source.sortClause, undefined);
      walk.visit(source.limitCount, "predicate");
      walk.visit(source.limitOffset, "predicate");
    } else walk.visit(body.selectStmt, "expression");
    const conflict = body.onConflictClause;
    if (conflict !== undefined) {
      walk.addRange("excluded");
      walk.visitAll(conflict.infer?.indexElems, "predicate");
      walk.visit(conflict.infer?.whereClause, "predicate");
      if (conflict.action === "ONCONFLICT_UPDATE") walk.range("sql:update", body.relation);
      assignments(walk, conflict.targetList);
      walk.visit(conflict.whereClause, "predicate");
    }
    returning(walk, body.returningClause, body.relation, use);
  });
};

const update: Visitor<"UpdateStmt"> = (walk, body, use) => {
  changed(walk, "sql:update", body.relation);
  if (!looksAtRow(body.whereClause)) walk.unfiltered = true;
  withClause(walk, body.withClause, () => {
    walk.visitAll(body.fromClause, "plain");
    assignments(walk, body.targetList);
    walk.visit(body.whereClause, "predicate");
    returning(walk, body.returningClause, body.relation, use);
  });
};

const remove: Visitor<"DeleteStmt"> = (walk, body, use) => {
  changed(walk, "sql:delete", body.relation);
  if (!looksAtRow(body.whereClause)) walk.unfiltered = true;
  withClause(walk, body.withClause, () => {
    walk.visitAll(body.usingClause, "plain");
    walk.visit(body.whereClause, "predicate");
    returning(walk, body.returningClause, body.relation, use);
  });
};

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

const merge: Visitor<"MergeStmt"> = (walk, body, use) => {
  changed(walk, "sql:merge", body.relation);
  withClause(walk, body.withClause, () => {
    walk.visit(body.sourceRelation, "plain");
    walk.visit(body.joinCondition, "predicate");
    for (const node of body.mergeWhenClauses ?? []) {
      const clause = as(node, "MergeWhenClause");
      const action = MERGE_ACTIONS[clause?.commandType ?? ""];
      if (action !== undefined) walk.range(action, body.relation);
      walk.visit(clause?.condition, "predicate");
      assignments(walk, clause?.targetList);
      for (const item of clause?.values ?? []) value(walk, item, "expression");
    }
    returning(walk, body.returningClause, body.relation, use);
  });
};

// ---- FROM

const rangeVar: Visitor<"RangeVar"> = (walk, body) => {
  const name = body.relname ?? "";
  walk.addRange(body.alias?.aliasname ?? name);
  const cte = body.schemaname === undefined ? walk.cte(name) : undefined;
  if (cte !== undefined) {
    renameAll(walk, body.alias?.colnames, cte.query);
    return;
  }
  // Such a view passes an UPDATE on to pg_settings, whose rule calls set_config.
  if (walk.inView && name === "pg_settings") throw new Refusal("A view over pg_settings is refused: settings could be changed through it.");
  walk.range("sql:select", body);
  // `customers AS c (a, b)`: what a and b are, only the catalogue knows.
  if (body.alias?.colnames !== undefined) walk.untraceable = true;
};

const join: Visitor<"JoinExpr"> = (walk, body) => {
  walk.visit(body.larg, "plain");
  walk.visit(body.rarg, "plain");
  if (body.isNatural) walk.untraceable = true;
  for (const column of strings(body.usingClause)) {
    walk.column([column], "predicate");
    // The merged column of a full join is an expression over both sides.
    if (body.jointype === "JOIN_FULL") walk.column([column], "expression");
  }
  walk.visit(body.quals, "predicate");
  walk.addRange(body.alias?.aliasname);
  walk.addRange(body.join_using_alias?.aliasname);
  if (body.alias?.colnames !== undefined) walk.untraceable = true;
};

const subquery: Visitor<"RangeSubselect"> = (walk, body) => {
  walk.visit(body.subquery, "plain");
  walk.addRange(body.alias?.aliasname);
  renameAll(walk, body.alias?.colnames, body.subquery);
};

const tableFunction: Visitor<"RangeFunction"> = (walk, body) => {
  for (const item of body.functions ?? []) {
    // Each is a list of the call and its column definitions.
    for (const part of as(item, "List")?.items ?? [item])
      if (Object.keys(part).length > 0 && !("List" in part)) walk.visit(part, "expression");
  }
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
};

const jsonTable: Visitor<"JsonTable"> = (walk, body) => {
  if (body.context_item !== undefined) walk.visitBody("JsonValueExpr", body.context_item, "expression");
  walk.visit(body.pathspec?.string, "expression");
  walk.visitAll(body.passing, "expression");
  if (body.on_error !== undefined) walk.visitBody("JsonBehavior", body.on_error, "expression");
  jsonColumns(walk, body.columns);
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
