import { as, type Body, constantText, type Kind, kindOf, type Node, type StatementKind, strings, type Tree } from "./ast.ts";
import { copyOut } from "./copy.ts";
import { DEFINITIONS } from "./definitions.ts";
import { EXPRESSIONS } from "./expressions.ts";
import { creates, optionText, QUERIES } from "./queries.ts";
import { SECRET_NAME, settingRefusal, settingValue } from "./settings.ts";
import type { Classified } from "./types.ts";
import { Refusal, type Visitor, Walk } from "./walk.ts";

/** A statement's handler. `alone` is false inside a message of several statements. */
type Statement<K extends Kind> = (walk: Walk, body: Body<K>, alone: boolean) => void;

export const newWalk = (): Walk => new Walk({ ...EXPRESSIONS, ...QUERIES });

const query =
  <K extends keyof typeof QUERIES & Kind>(kind: K): Statement<K> =>
  (walk, body) =>
    (QUERIES[kind] as unknown as Visitor<K>)(walk, body, "plain");

/** Classify one statement. Every kind of the grammar stands in STATEMENTS; the compiler checks that none is missing. */
export function statement(walk: Walk, node: Node | undefined, alone: boolean): void {
  const kind = node === undefined ? undefined : kindOf(node as Tree);
  const handler = kind === undefined ? undefined : (STATEMENTS as unknown as Record<string, Statement<Kind> | undefined>)[kind];
  if (kind === undefined || handler === undefined) throw new Refusal(`This kind of statement (${kind ?? "unknown"}) is not understood.`);
  const before = walk.stored;
  if (!before && returnsRows(node as Node)) walk.returnsRows = true;
  if (kind === "ViewStmt" || kind in DEFINITIONS) walk.stored = true;
  handler(walk, (node as unknown as Record<string, Body<Kind>>)[kind], alone);
  walk.stored = before;
}

/** May the server answer with rows? What a rule makes of a statement, or a function sends, does not show here. */
function returnsRows(node: Node): boolean {
  const change = as(node, "InsertStmt") ?? as(node, "UpdateStmt") ?? as(node, "DeleteStmt") ?? as(node, "MergeStmt");
  if (change !== undefined) return change.returningClause !== undefined;
  const select = as(node, "SelectStmt");
  if (select !== undefined) return select.intoClause === undefined;
  const copied = as(node, "CopyStmt");
  if (copied !== undefined) return copied.is_from !== true;
  const fetched = as(node, "FetchStmt");
  if (fetched !== undefined) return fetched.ismove !== true;
  return ["ExplainStmt", "VariableShowStmt", "ExecuteStmt", "CallStmt"].includes(kindOf(node as Tree) ?? "");
}

const INTERNAL = "A part of the grammar that is no statement of its own is refused.";

/** Refused whatever is in them. */
const REFUSED = {
  RawStmt: INTERNAL,
  SetOperationStmt: INTERNAL,
  ReturnStmt: INTERNAL,
  PLAssignStmt: INTERNAL,
  ReplicaIdentityStmt: INTERNAL,
  AlterSystemStmt: "ALTER SYSTEM is refused: it changes the configuration of the database server.",
  LoadStmt: "LOAD is refused: it loads code into the database server.",
} as const satisfies Partial<Record<StatementKind, string>>;

const refused = (walk: Walk, kind: keyof typeof REFUSED): never => {
  walk.access("sql:other");
  throw new Refusal(REFUSED[kind]);
};

// ---- transactions and session

const TRANSACTION_VERBS = {
  TRANS_STMT_BEGIN: "begin",
  TRANS_STMT_START: "begin",
  TRANS_STMT_COMMIT: "commit",
  TRANS_STMT_ROLLBACK: "rollback",
  TRANS_STMT_SAVEPOINT: "savepoint",
  TRANS_STMT_RELEASE: "release",
  TRANS_STMT_ROLLBACK_TO: "rollback_to",
  TRANS_STMT_PREPARE: "prepare",
  TRANS_STMT_COMMIT_PREPARED: "commit_prepared",
  TRANS_STMT_ROLLBACK_PREPARED: "rollback_prepared",
} as const;

const transaction: Statement<"TransactionStmt"> = (walk, body) => {
  walk.access("sql:transaction");
  walk.effect({ kind: "transaction", verb: TRANSACTION_VERBS[body.kind ?? "TRANS_STMT_BEGIN"] });
};

const set: Statement<"VariableSetStmt"> = (walk, body) => {
  const name = (body.name ?? "").toLowerCase();
  const local = body.is_local ?? false;
  if (body.kind === "VAR_RESET_ALL") {
    walk.access("sql:set");
    walk.effect({ kind: "reset_all" });
    return;
  }
  if (body.kind === "VAR_SET_MULTI") {
    // SET TRANSACTION … and SET SESSION CHARACTERISTICS AS TRANSACTION …
    if (name.startsWith("session")) {
      for (const option of body.args ?? []) walk.other("sql:set", "setting", `default_${as(option, "DefElem")?.defname ?? ""}`);
    } else walk.access("sql:transaction");
    return;
  }
  walk.other("sql:set", "setting", name);
  if (SECRET_NAME.test(name)) walk.secret = true;
  const resets = body.kind !== "VAR_SET_VALUE";
  const value = resets ? undefined : settingValue(body.args);
  const refusal = settingRefusal(name, value, resets);
  if (refusal !== undefined) throw new Refusal(refusal);
  if (name === "role" || name === "session_authorization") walk.effect({ kind: "role", local });
  else if (name === "search_path") {
    // Each value is one schema's name as it is: SET search_path = 'a, b' means one schema.
    const schemas = body.args?.map(constantText);
    const known = !resets && schemas?.every(isWholeName) ? (schemas as string[]) : undefined;
    walk.effect({ kind: "search_path", schemas: known, local });
  } else walk.effect({ kind: "setting", name, value: walk.secret ? undefined : value, local });
};

/** The server cuts a longer name (NAMEDATALEN), and what is left may be another schema's. */
const isWholeName = (name: string | undefined): boolean => name !== undefined && Buffer.byteLength(name) <= 63;

const show: Statement<"VariableShowStmt"> = (walk, body) => walk.other("sql:show", "setting", (body.name ?? "all").toLowerCase());

const discard: Statement<"DiscardStmt"> = (walk, body) => {
  const whats = { DISCARD_ALL: "all", DISCARD_PLANS: "plans", DISCARD_SEQUENCES: "sequences", DISCARD_TEMP: "temp" } as const;
  walk.access("sql:set");
  walk.effect({ kind: "discard", what: whats[body.target ?? "DISCARD_ALL"] });
};

// ---- prepared statements and cursors

const ALONE =
  "PREPARE, EXECUTE and DEALLOCATE are refused beside other statements in one message: where an error stops it, what is prepared would be unknown. Send it on its own.";

function refuseBeside(alone: boolean): void {
  if (!alone) throw new Refusal(ALONE);
}

/** The statement inside PREPARE or DECLARE, on its own. */
function classifyInner(walk: Walk, node: Node | undefined): Classified {
  const nested = newWalk();
  nested.stored = true;
  statement(nested, node, true);
  for (const location of [...nested.inert, ...nested.fixed]) walk.fixed.add(location);
  return nested.result(1, [], undefined);
}

const prepare: Statement<"PrepareStmt"> = (walk, body, alone) => {
  walk.access("sql:prepare");
  refuseBeside(alone);
  walk.effect({ kind: "prepare", name: body.name ?? "", inner: classifyInner(walk, body.query) });
};

const execute: Statement<"ExecuteStmt"> = (walk, body, alone) => {
  walk.access("sql:prepare");
  refuseBeside(alone);
  walk.visitAll(body.params, "expression");
  walk.effect({ kind: "execute", name: body.name ?? "" });
};

const deallocate: Statement<"DeallocateStmt"> = (walk, body, alone) => {
  walk.access("sql:prepare");
  refuseBeside(alone);
  walk.effect({ kind: "deallocate", name: body.isall ? undefined : (body.name ?? "") });
};

const declare: Statement<"DeclareCursorStmt"> = (walk, body) => {
  walk.access("sql:cursor");
  const declared = classifyInner(walk, body.query);
  walk.visit(body.query, "plain");
  walk.effect({ kind: "declare", name: body.portalname ?? "", inner: declared });
};

const fetch: Statement<"FetchStmt"> = (walk, body) => {
  walk.access("sql:cursor");
  walk.effect({ kind: "fetch", name: body.portalname ?? "", returnsRows: !body.ismove });
};

const close: Statement<"ClosePortalStmt"> = (walk, body) => {
  walk.access("sql:cursor");
  walk.effect({ kind: "close_cursor", name: body.portalname });
};

// ---- statements around a query

const explain: Statement<"ExplainStmt"> = (walk, body, alone) => {
  walk.access("sql:explain");
  walk.explains = true;
  // With or without ANALYZE the accesses are those of the statement: whether it runs is decided by an option's value.
  const kind = body.query === undefined ? undefined : kindOf(body.query as Tree);
  if (kind === "DeclareCursorStmt") walk.visit(as(body.query, "DeclareCursorStmt")?.query, "plain");
  else statement(walk, body.query, alone);
};

const createTableAs: Statement<"CreateTableAsStmt"> = (walk, body) => {
  creates(walk, body.into?.rel);
  for (const column of strings(body.into?.colNames)) walk.named(column);
  if (as(body.query, "ExecuteStmt") !== undefined) {
    throw new Refusal("CREATE TABLE AS EXECUTE is refused: write CREATE TABLE AS SELECT, which can be checked.");
  }
  walk.visit(body.query, "expression");
};

const view: Statement<"ViewStmt"> = (walk, body) => {
  creates(walk, body.view);
  walk.effect({ kind: "ddl" });
  walk.inView = true;
  // A view hides the names of what it reads.
  walk.visit(body.query, "expression");
  walk.inView = false;
};

const copy: Statement<"CopyStmt"> = (walk, body) => {
  const action = body.is_from ? "sql:copy_in" : "sql:copy_out";
  walk.access(action);
  if (body.is_program) throw new Refusal("COPY … PROGRAM is refused: it runs a command on the database server.");
  if (body.filename !== undefined)
    throw new Refusal("COPY with a file of the database server is refused: use COPY … FROM STDIN or TO STDOUT.");
  const direction = body.is_from ? "in" : "out";
  if (walk.copy !== "none" && walk.copy !== direction) throw new Refusal("COPY in both directions in one message is refused.");
  walk.copy = direction;
  if (direction === "out") walk.copies.push(copyOut(body));
  if (body.relation !== undefined) {
    walk.range(action, body.relation);
    walk.range(body.is_from ? "sql:insert" : "sql:select", body.relation);
    for (const column of strings(body.attlist)) {
      if (body.is_from) walk.named(column);
      else walk.column([column], "plain");
    }
    if (!body.is_from && body.attlist === undefined) walk.star = true;
    walk.visit(body.whereClause, "predicate");
    return;
  }
  // The rows carry no column origins, so nothing in the query counts as plain output.
  walk.visit(body.query, "expression");
  const read = walk.access("sql:select").relations;
  for (const [key, relation] of read) walk.access(action).relations.set(key, relation);
};

const call: Statement<"CallStmt"> = (walk, body) => {
  walk.other("sql:call", "function", strings(body.funccall?.funcname));
  if (body.funccall !== undefined) walk.visitBody("FuncCall", body.funccall, "expression");
};

const doBlock: Statement<"DoStmt"> = (walk, body) => {
  let language = "plpgsql";
  for (const item of body.args ?? []) {
    const option = as(item, "DefElem");
    const text = optionText(option?.arg) ?? "";
    if (option?.defname === "language") language = text;
    else if (/\bpassword\b/i.test(text)) walk.secret = true;
  }
  walk.other("sql:do", "language", language);
};

// ---- one relation, or a few

const lock: Statement<"LockStmt"> = (walk, body) => {
  walk.access("sql:lock");
  for (const node of body.relations ?? []) walk.range("sql:lock", as(node, "RangeVar"));
};

const truncate: Statement<"TruncateStmt"> = (walk, body) => {
  for (const node of body.relations ?? []) walk.range("sql:truncate", as(node, "RangeVar"));
};

/** Without a relation it works on the whole database. */
const WHOLE_DATABASE = "current";

const vacuum: Statement<"VacuumStmt"> = (walk, body) => {
  for (const node of body.rels ?? []) {
    const relation = as(node, "VacuumRelation");
    walk.range("sql:maintenance", relation?.relation);
    for (const column of strings(relation?.va_cols)) walk.named(column);
  }
  if (body.rels === undefined) walk.other("sql:maintenance", "database", WHOLE_DATABASE);
};

const cluster: Statement<"ClusterStmt"> = (walk, body) => {
  if (body.relation === undefined) walk.other("sql:maintenance", "database", WHOLE_DATABASE);
  walk.range("sql:maintenance", body.relation);
};

const reindex: Statement<"ReindexStmt"> = (walk, body) => {
  walk.range("sql:maintenance", body.relation);
  if (body.relation !== undefined) return;
  if (body.kind === "REINDEX_OBJECT_SCHEMA") walk.other("sql:maintenance", "schema", body.name ?? "");
  else walk.other("sql:maintenance", "database", body.name ?? WHOLE_DATABASE);
};

/** Every statement kind of PostgreSQL 18's grammar (gram.y, `stmt`). */
const STATEMENTS: { readonly [K in StatementKind]: Statement<K> } = {
  ...DEFINITIONS,
  SelectStmt: query("SelectStmt"),
  InsertStmt: query("InsertStmt"),
  UpdateStmt: query("UpdateStmt"),
  DeleteStmt: query("DeleteStmt"),
  MergeStmt: query("MergeStmt"),
  RawStmt: (walk) => refused(walk, "RawStmt"),
  SetOperationStmt: (walk) => refused(walk, "SetOperationStmt"),
  ReturnStmt: (walk) => refused(walk, "ReturnStmt"),
  PLAssignStmt: (walk) => refused(walk, "PLAssignStmt"),
  ReplicaIdentityStmt: (walk) => refused(walk, "ReplicaIdentityStmt"),
  TransactionStmt: transaction,
  ConstraintsSetStmt: (walk) => {
    walk.access("sql:transaction");
  },
  VariableSetStmt: set,
  VariableShowStmt: show,
  DiscardStmt: discard,
  PrepareStmt: prepare,
  ExecuteStmt: execute,
  DeallocateStmt: deallocate,
  DeclareCursorStmt: declare,
  FetchStmt: fetch,
  ClosePortalStmt: close,
  ExplainStmt: explain,
  CreateTableAsStmt: createTableAs,
  ViewStmt: view,
  CopyStmt: copy,
  CallStmt: call,
  DoStmt: doBlock,
  LockStmt: lock,
  TruncateStmt: truncate,
  VacuumStmt: vacuum,
  ClusterStmt: cluster,
  ReindexStmt: reindex,
  RefreshMatViewStmt: (walk, body) => walk.range("sql:maintenance", body.relation),
  CheckPointStmt: (walk) => {
    walk.access("sql:maintenance");
  },
  ListenStmt: (walk) => {
    walk.access("sql:listen");
  },
  UnlistenStmt: (walk) => {
    walk.access("sql:listen");
  },
  NotifyStmt: (walk) => {
    walk.access("sql:notify");
  },
  AlterSystemStmt: (walk) => refused(walk, "AlterSystemStmt"),
  LoadStmt: (walk) => refused(walk, "LoadStmt"),
};

/** Every statement kind that is known here, with the sentence under which it is always refused; docs/MEDIATION.md lists them. */
export const STATEMENT_KINDS: ReadonlyMap<string, string | undefined> = new Map(
  Object.keys(STATEMENTS).map((kind) => [kind, (REFUSED as Readonly<Record<string, string | undefined>>)[kind]]),
);

/** Every kind of node that may stand inside a statement where an expression, a query or a FROM item is read; all others are refused there. */
export const ELEMENT_KINDS: readonly string[] = Object.keys({ ...EXPRESSIONS, ...QUERIES });
