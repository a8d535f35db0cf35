import { as, type Body, type Kind, kindOf, type Node, type StatementKind, strings, type Tree } from "./ast.ts";
import { creates, optionText, relationSource } from "./queries.ts";
import { SECRET_NAME, settingRefusal, settingValue } from "./settings.ts";
import { Refusal, sweep, type Walk } from "./walk.ts";

/** Statements that change the catalogue: CREATE, ALTER, DROP, GRANT, COMMENT. All have the effect `ddl`. */

type Action = "sql:create" | "sql:alter" | "sql:drop" | "sql:grant";
type Definition<K extends Kind> = (walk: Walk, body: Body<K>) => void;

/** Statements that stand in statements.ts. */
type Elsewhere =
  | `${"Select" | "Insert" | "Update" | "Delete" | "Merge" | "Raw" | "SetOperation" | "Return" | "PLAssign"}Stmt`
  | `${"ReplicaIdentity" | "Transaction"}Stmt`
  | `${"ConstraintsSet" | "VariableSet" | "VariableShow" | "Discard" | "Prepare" | "Execute" | "Deallocate" | "DeclareCursor"}Stmt`
  | `${"Fetch" | "ClosePortal" | "Explain" | "CreateTableAs" | "View" | "Copy" | "Call" | "Do" | "Lock" | "Truncate" | "Vacuum"}Stmt`
  | `${"Cluster" | "Reindex" | "RefreshMatView" | "CheckPoint" | "Listen" | "Unlisten" | "Notify" | "AlterSystem" | "Load"}Stmt`;

/** How resources of each object type are named; the relation-like ones are relations. */
const PREFIXES: Readonly<Record<string, string>> = {
  OBJECT_ACCESS_METHOD: "access_method",
  OBJECT_AGGREGATE: "function",
  OBJECT_CAST: "cast",
  OBJECT_COLLATION: "collation",
  OBJECT_CONVERSION: "conversion",
  OBJECT_DATABASE: "database",
  OBJECT_DOMAIN: "type",
  OBJECT_DOMCONSTRAINT: "type",
  OBJECT_EVENT_TRIGGER: "event_trigger",
  OBJECT_EXTENSION: "extension",
  OBJECT_FDW: "foreign_data_wrapper",
  OBJECT_FOREIGN_SERVER: "server",
  OBJECT_FUNCTION: "function",
  OBJECT_LANGUAGE: "language",
  OBJECT_LARGEOBJECT: "large_object",
  OBJECT_OPCLASS: "operator_class",
  OBJECT_OPERATOR: "operator",
  OBJECT_OPFAMILY: "operator_family",
  OBJECT_PARAMETER_ACL: "setting",
  OBJECT_PROCEDURE: "function",
  OBJECT_PUBLICATION: "publication",
  OBJECT_ROLE: "role",
  OBJECT_ROUTINE: "function",
  OBJECT_SCHEMA: "schema",
  OBJECT_STATISTIC_EXT: "statistics",
  OBJECT_SUBSCRIPTION: "subscription",
  OBJECT_TABLESPACE: "tablespace",
  OBJECT_TRANSFORM: "transform",
  OBJECT_TSCONFIGURATION: "text_search",
  OBJECT_TSDICTIONARY: "text_search",
  OBJECT_TSPARSER: "text_search",
  OBJECT_TSTEMPLATE: "text_search",
  OBJECT_TYPE: "type",
  OBJECT_USER_MAPPING: "server",
};

const RELATIONS: ReadonlySet<string> = new Set([
  "OBJECT_TABLE",
  "OBJECT_VIEW",
  "OBJECT_MATVIEW",
  "OBJECT_INDEX",
  "OBJECT_SEQUENCE",
  "OBJECT_FOREIGN_TABLE",
]);
/** Objects named as `relation.part`. */
const OF_RELATION: ReadonlySet<string> = new Set([
  "OBJECT_COLUMN",
  "OBJECT_TABCONSTRAINT",
  "OBJECT_TRIGGER",
  "OBJECT_POLICY",
  "OBJECT_RULE",
  "OBJECT_DEFAULT",
]);

/** The name of an object in any of the forms in which the grammar writes it. */
function nameOf(node: Node | undefined): string[] {
  if (node === undefined) return [];
  const items = as(node, "List")?.items;
  if (items !== undefined) return items.flatMap(nameOf);
  const name = as(node, "ObjectWithArgs")?.objname ?? as(node, "TypeName")?.names;
  if (name !== undefined) return strings(name);
  const priv = as(node, "AccessPriv")?.priv_name;
  if (priv !== undefined) return [priv];
  if (as(node, "RoleSpec") !== undefined) return [roleName(as(node, "RoleSpec"))];
  return strings([node]);
}

function object(walk: Walk, action: string, type: string | undefined, node: Node | undefined): void {
  const relation = as(node, "RangeVar");
  if (relation !== undefined) {
    walk.range(action, relation);
    return;
  }
  const name = nameOf(node);
  const parts = OF_RELATION.has(type ?? "") ? name.slice(0, -1) : name;
  if (RELATIONS.has(type ?? "") || OF_RELATION.has(type ?? "")) {
    walk.relation(action, parts.length > 1 ? parts[parts.length - 2] : undefined, parts[parts.length - 1] ?? "");
  } else walk.other(action, PREFIXES[type ?? ""] ?? "object", name);
}

const SPECIAL_ROLES: Readonly<Record<string, string>> = {
  ROLESPEC_CURRENT_ROLE: "current_user",
  ROLESPEC_CURRENT_USER: "current_user",
  ROLESPEC_SESSION_USER: "session_user",
  ROLESPEC_PUBLIC: "public",
};

const roleName = (role: Body<"RoleSpec"> | undefined): string => SPECIAL_ROLES[role?.roletype ?? ""] ?? role?.rolename ?? "";

function roles(walk: Walk, action: string, nodes: readonly Node[] | undefined): void {
  for (const node of nodes ?? [])
    walk.other(action, "role", as(node, "RoleSpec") === undefined ? nameOf(node) : roleName(as(node, "RoleSpec")));
}

/** Options that hold a secret, and settings that may not be set. */
function options(walk: Walk, nodes: readonly Node[] | undefined): void {
  for (const node of nodes ?? []) {
    const option = as(node, "DefElem");
    if (option?.arg !== undefined && SECRET_NAME.test(option.defname ?? "")) walk.secret = true;
    const setting = as(option?.arg, "VariableSetStmt");
    if (setting !== undefined) attachedSetting(walk, setting);
  }
}

/** ALTER ROLE … SET, ALTER DATABASE … SET, CREATE FUNCTION … SET: in force later, where nothing sees it. */
function attachedSetting(walk: Walk, body: Body<"VariableSetStmt"> | undefined): void {
  if (body === undefined || body.name === undefined) return;
  if (SECRET_NAME.test(body.name)) walk.secret = true;
  const resets = body.kind !== "VAR_SET_VALUE";
  const refusal = settingRefusal(body.name, resets ? undefined : settingValue(body.args), resets);
  if (refusal !== undefined) throw new Refusal(refusal);
}

/** Resources by name, then everything below that names a relation, a function or a query. */
function define<K extends Kind>(
  action: Action,
  name?: (body: Body<K>) => readonly [kind: string, name: readonly string[] | string | undefined],
): Definition<K> {
  return (walk, body) => {
    walk.access(action);
    const resource = name?.(body);
    if (resource?.[1] !== undefined) walk.other(action, resource[0], resource[1]);
    const list = (body as unknown as { options?: Node[] }).options;
    if (Array.isArray(list)) options(walk, list);
    walk.effect({ kind: "ddl" });
    sweep(walk, body, action);
  };
}

const named = (kind: string, field: string) => (body: unknown) => [kind, (body as Tree)[field] as string | undefined] as const;
const path = (kind: string, field: string) => (body: unknown) => [kind, strings((body as Tree)[field] as Node[] | undefined)] as const;

const drop: Definition<"DropStmt"> = (walk, body) => {
  walk.effect({ kind: "ddl" });
  for (const item of body.objects ?? []) object(walk, "sql:drop", body.removeType, item);
};

/** COMMENT, SECURITY LABEL, RENAME, OWNER TO, SET SCHEMA, DEPENDS ON: one object, of any type. */
interface OneObject {
  readonly relation?: Body<"RangeVar">;
  readonly object?: Node;
  readonly subname?: string;
  readonly newowner?: Body<"RoleSpec">;
  readonly newschema?: string;
}

const alterObject =
  <B extends OneObject>(typeOf: (body: B) => string | undefined) =>
  (walk: Walk, body: B): void => {
    const type = typeOf(body);
    walk.access("sql:alter");
    walk.effect({ kind: "ddl" });
    if (body.relation !== undefined) walk.range("sql:alter", body.relation);
    else if (body.object !== undefined) object(walk, "sql:alter", type, body.object);
    else walk.other("sql:alter", PREFIXES[type ?? ""] ?? "object", body.subname ?? "");
    if (body.newowner !== undefined) walk.other("sql:alter", "role", roleName(body.newowner));
    if (body.newschema !== undefined) walk.other("sql:alter", "schema", body.newschema);
  };

// ---- privileges and roles

const grant: Definition<"GrantStmt"> = (walk, body) => {
  walk.access("sql:grant");
  walk.effect({ kind: "ddl" });
  const type = body.targtype === "ACL_TARGET_ALL_IN_SCHEMA" ? "OBJECT_SCHEMA" : body.objtype;
  for (const item of body.objects ?? []) object(walk, "sql:grant", type, item);
  roles(walk, "sql:grant", body.grantees);
};

const grantRole: Definition<"GrantRoleStmt"> = (walk, body) => {
  walk.effect({ kind: "ddl" });
  roles(walk, "sql:grant", body.granted_roles);
  roles(walk, "sql:grant", body.grantee_roles);
};

const defaultPrivileges: Definition<"AlterDefaultPrivilegesStmt"> = (walk, body) => {
  if (body.action !== undefined) grant(walk, body.action);
  for (const item of body.options ?? []) {
    const option = as(item, "DefElem");
    const names = as(option?.arg, "List")?.items;
    if (option?.defname === "schemas") for (const schema of strings(names)) walk.other("sql:grant", "schema", schema);
    else roles(walk, "sql:grant", names);
  }
};

const MEMBERSHIP: ReadonlySet<string> = new Set(["addroleto", "rolemembers", "adminmembers"]);

function roleOptions(walk: Walk, list: readonly Node[] | undefined, name: string): void {
  options(walk, list);
  for (const item of list ?? []) {
    const option = as(item, "DefElem");
    if (!MEMBERSHIP.has(option?.defname ?? "")) continue;
    walk.other("sql:grant", "role", name);
    roles(walk, "sql:grant", as(option?.arg, "List")?.items);
  }
}

const createRole: Definition<"CreateRoleStmt"> = (walk, body) => {
  walk.effect({ kind: "ddl" });
  walk.other("sql:create", "role", body.role ?? "");
  roleOptions(walk, body.options, body.role ?? "");
};

const alterRole: Definition<"AlterRoleStmt"> = (walk, body) => {
  walk.effect({ kind: "ddl" });
  walk.other("sql:alter", "role", roleName(body.role));
  roleOptions(walk, body.options, roleName(body.role));
};

const alterRoleSet: Definition<"AlterRoleSetStmt"> = (walk, body) => {
  walk.effect({ kind: "ddl" });
  walk.other("sql:alter", "role", body.role === undefined ? "all" : roleName(body.role));
  if (body.database !== undefined) walk.other("sql:alter", "database", body.database);
  attachedSetting(walk, body.setstmt);
};

/** DROP ROLE and DROP OWNED. */
const dropRoles = (walk: Walk, body: { readonly roles?: readonly Node[] }): void => {
  walk.effect({ kind: "ddl" });
  roles(walk, "sql:drop", body.roles);
};

const reassignOwned: Definition<"ReassignOwnedStmt"> = (walk, body) => {
  walk.effect({ kind: "ddl" });
  roles(walk, "sql:alter", body.roles);
  walk.other("sql:alter", "role", roleName(body.newrole));
};

// ---- relations

const createTable: Definition<"CreateStmt"> = (walk, body) => {
  creates(walk, body.relation);
  const { relation: _, ...parts } = body;
  sweep(walk, parts, "sql:create");
};

/** Options by which file_fdw reads a file of the server, or the output of a program that it runs there. */
const SERVER_FILE_OPTIONS: ReadonlySet<string> = new Set(["filename", "program"]);

function foreignOptions(list: readonly Node[] | undefined): void {
  const name = list?.map((node) => as(node, "DefElem")?.defname ?? "").find((each) => SERVER_FILE_OPTIONS.has(each.toLowerCase()));
  if (name === undefined) return;
  throw new Refusal(`A foreign table with the option ${name} is refused: it reads files or runs programs of the database server.`);
}

const createForeignTable: Definition<"CreateForeignTableStmt"> = (walk, body) => {
  if (body.base !== undefined) createTable(walk, body.base);
  walk.other("sql:create", "server", body.servername ?? "");
  options(walk, body.options);
  foreignOptions(body.options);
};

const createSequence: Definition<"CreateSeqStmt"> = (walk, body) => creates(walk, body.sequence);

const createSchema: Definition<"CreateSchemaStmt"> = (walk, body) => {
  walk.effect({ kind: "ddl" });
  walk.other("sql:create", "schema", body.schemaname ?? roleName(body.authrole));
  if (body.authrole !== undefined) walk.other("sql:create", "role", roleName(body.authrole));
  if (body.schemaElts !== undefined && body.schemaElts.length > 0) {
    throw new Refusal("CREATE SCHEMA with elements is refused: create its objects with statements of their own, so that each is checked.");
  }
};

const rule: Definition<"RuleStmt"> = (walk, body) => {
  walk.range("sql:create", body.relation);
  walk.effect({ kind: "ddl" });
  walk.visit(body.whereClause, "expression");
  walk.inView = true;
  walk.ranges.within(() => {
    for (const row of ["old", "new"]) walk.ranges.add(row, relationSource(body.relation));
    for (const action of body.actions ?? []) {
      if (walk.visitors[kindOf(action as Tree) ?? "List"] !== undefined) walk.visit(action, "expression");
      else if (as(action, "NotifyStmt") !== undefined) walk.access("sql:notify");
      else throw new Refusal("CREATE RULE with this action is refused.");
    }
  });
  walk.inView = false;
};

// ---- functions

/** Languages whose functions run as the server itself, without any permission check. */
const SERVER_LANGUAGES: ReadonlySet<string> = new Set(["c", "internal"]);

const createFunction: Definition<"CreateFunctionStmt"> = (walk, body) => {
  walk.effect({ kind: "ddl" });
  walk.other("sql:create", "function", strings(body.funcname));
  options(walk, body.options);
  for (const item of body.options ?? []) {
    const option = as(item, "DefElem");
    if (option?.defname === "language" && SERVER_LANGUAGES.has((optionText(option.arg) ?? "").toLowerCase())) {
      throw new Refusal("CREATE FUNCTION in language C or internal is refused: it makes the server run its own or foreign machine code.");
    }
    const texts = option?.defname === "as" ? strings(as(option.arg, "List")?.items) : [];
    if (texts.some((text) => /\bpassword\b/i.test(text))) walk.secret = true;
  }
  sweep(walk, body.parameters, "sql:create");
  if (body.sql_body !== undefined) functionBody(walk, body.sql_body);
};

function functionBody(walk: Walk, node: Node): void {
  const list = as(node, "List")?.items;
  const result = as(node, "ReturnStmt");
  if (list !== undefined) for (const item of list) functionBody(walk, item);
  else if (result !== undefined) walk.visit(result.returnval, "expression");
  else walk.visit(node, "expression");
}

const alterFunction: Definition<"AlterFunctionStmt"> = (walk, body) => {
  walk.effect({ kind: "ddl" });
  walk.other("sql:alter", "function", strings(body.func?.objname));
  options(walk, body.actions);
};

/** CREATE AGGREGATE, OPERATOR, TYPE, TEXT SEARCH …, COLLATION: parameters may name functions that the object will call. */
const defineObject: Definition<"DefineStmt"> = (walk, body) => {
  walk.effect({ kind: "ddl" });
  walk.other("sql:create", PREFIXES[body.kind ?? ""] ?? "object", strings(body.defnames));
  for (const item of body.definition ?? []) {
    // A parameter may as well name a type: then no rule knows the name.
    const names = strings(as(as(item, "DefElem")?.arg, "TypeName")?.names);
    if (names.length > 0) walk.function(names, 0);
  }
};

const createCast: Definition<"CreateCastStmt"> = (walk, body) => {
  walk.effect({ kind: "ddl" });
  walk.other("sql:create", "cast", [...strings(body.sourcetype?.names), ...strings(body.targettype?.names)]);
  if (body.func !== undefined) walk.function(strings(body.func.objname), 0);
};

const createTransform: Definition<"CreateTransformStmt"> = (walk, body) => {
  walk.effect({ kind: "ddl" });
  walk.other("sql:create", "transform", [...strings(body.type_name?.names), body.lang ?? ""]);
  for (const conversion of [body.fromsql, body.tosql]) if (conversion !== undefined) walk.function(strings(conversion.objname), 0);
};

// ---- servers and subscriptions

const userMapping =
  (action: Action) =>
  (walk: Walk, body: { readonly servername?: string; readonly user?: Body<"RoleSpec">; readonly options?: readonly Node[] }): void => {
    walk.effect({ kind: "ddl" });
    walk.other(action, "server", body.servername ?? "");
    walk.other(action, "role", roleName(body.user));
    options(walk, body.options);
  };

const subscription =
  (action: Action) =>
  (walk: Walk, body: { readonly subname?: string; readonly conninfo?: string }): void => {
    walk.effect({ kind: "ddl" });
    walk.other(action, "subscription", body.subname ?? "");
    if (body.conninfo !== undefined) walk.secret = true;
  };

const importSchema: Definition<"ImportForeignSchemaStmt"> = (walk, body) => {
  walk.effect({ kind: "ddl" });
  walk.other("sql:create", "schema", body.local_schema ?? "");
  walk.other("sql:create", "server", body.server_name ?? "");
  options(walk, body.options);
};

const extensionContents: Definition<"AlterExtensionContentsStmt"> = (walk, body) => {
  walk.effect({ kind: "ddl" });
  walk.other("sql:alter", "extension", body.extname ?? "");
  object(walk, "sql:alter", body.objtype, body.object);
};

const createTrigger: Definition<"CreateTrigStmt"> = (walk, body) => {
  define<"CreateTrigStmt">("sql:create")(walk, body);
  // A trigger function takes column names as text and writes what it finds there elsewhere (tsvector_update_trigger).
  walk.anything("expression");
};

/** ALTER FOREIGN TABLE … OPTIONS stands among the commands. */
const alterTable: Definition<"AlterTableStmt"> = (walk, body) => {
  define<"AlterTableStmt">("sql:alter")(walk, body);
  for (const node of body.cmds ?? []) {
    const command = as(node, "AlterTableCmd");
    if (command?.subtype === "AT_GenericOptions") foreignOptions(as(command.def, "List")?.items);
  }
};

const alterDatabaseSet: Definition<"AlterDatabaseSetStmt"> = (walk, body) => {
  walk.effect({ kind: "ddl" });
  walk.other("sql:alter", "database", body.dbname ?? "");
  attachedSetting(walk, body.setstmt);
};

export const DEFINITIONS: { readonly [K in Exclude<StatementKind, Elsewhere>]: Definition<K> } = {
  DropStmt: drop,
  CommentStmt: alterObject((body: Body<"CommentStmt">) => body.objtype),
  SecLabelStmt: alterObject((body: Body<"SecLabelStmt">) => body.objtype),
  RenameStmt: alterObject((body: Body<"RenameStmt">) => body.renameType),
  AlterOwnerStmt: alterObject((body: Body<"AlterOwnerStmt">) => body.objectType),
  AlterObjectSchemaStmt: alterObject((body: Body<"AlterObjectSchemaStmt">) => body.objectType),
  AlterObjectDependsStmt: alterObject((body: Body<"AlterObjectDependsStmt">) => body.objectType),
  GrantStmt: grant,
  GrantRoleStmt: grantRole,
  AlterDefaultPrivilegesStmt: defaultPrivileges,
  CreateRoleStmt: createRole,
  AlterRoleStmt: alterRole,
  AlterRoleSetStmt: alterRoleSet,
  DropRoleStmt: dropRoles,
  DropOwnedStmt: dropRoles,
  ReassignOwnedStmt: reassignOwned,
  CreateStmt: createTable,
  CreateForeignTableStmt: createForeignTable,
  CreateSeqStmt: createSequence,
  AlterSeqStmt: define("sql:alter"),
  AlterTableStmt: alterTable,
  AlterTableMoveAllStmt: define("sql:alter", named("tablespace", "orig_tablespacename")),
  IndexStmt: define("sql:create"),
  CreateStatsStmt: define("sql:create", path("statistics", "defnames")),
  AlterStatsStmt: define("sql:alter", path("statistics", "defnames")),
  CreatePolicyStmt: define("sql:create"),
  AlterPolicyStmt: define("sql:alter"),
  CreateTrigStmt: createTrigger,
  RuleStmt: rule,
  CreateSchemaStmt: createSchema,
  CreateFunctionStmt: createFunction,
  AlterFunctionStmt: alterFunction,
  DefineStmt: defineObject,
  CreateCastStmt: createCast,
  CreateTransformStmt: createTransform,
  CreateConversionStmt: define("sql:create", path("conversion", "conversion_name")),
  CreatePLangStmt: define("sql:create", named("language", "plname")),
  CreateAmStmt: define("sql:create", named("access_method", "amname")),
  CreateOpClassStmt: define("sql:create", path("operator_class", "opclassname")),
  CreateOpFamilyStmt: define("sql:create", path("operator_family", "opfamilyname")),
  AlterOpFamilyStmt: define("sql:alter", path("operator_family", "opfamilyname")),
  AlterOperatorStmt: define("sql:alter", (body) => ["operator", strings(body.opername?.objname)]),
  CreateDomainStmt: define("sql:create", path("type", "domainname")),
  AlterDomainStmt: define("sql:alter", path("type", "typeName")),
  CompositeTypeStmt: (walk, body) => {
    walk.effect({ kind: "ddl" });
    walk.other(
      "sql:create",
      "type",
      [body.typevar?.schemaname ?? "", body.typevar?.relname ?? ""].filter((part) => part !== ""),
    );
  },
  CreateEnumStmt: define("sql:create", path("type", "typeName")),
  CreateRangeStmt: define("sql:create", path("type", "typeName")),
  AlterEnumStmt: define("sql:alter", path("type", "typeName")),
  AlterTypeStmt: define("sql:alter", path("type", "typeName")),
  AlterCollationStmt: define("sql:alter", path("collation", "collname")),
  AlterTSDictionaryStmt: define("sql:alter", path("text_search", "dictname")),
  AlterTSConfigurationStmt: define("sql:alter", path("text_search", "cfgname")),
  CreateEventTrigStmt: define("sql:create", named("event_trigger", "trigname")),
  AlterEventTrigStmt: define("sql:alter", named("event_trigger", "trigname")),
  CreateExtensionStmt: define("sql:create", named("extension", "extname")),
  AlterExtensionStmt: define("sql:alter", named("extension", "extname")),
  AlterExtensionContentsStmt: extensionContents,
  CreateFdwStmt: define("sql:create", named("foreign_data_wrapper", "fdwname")),
  AlterFdwStmt: define("sql:alter", named("foreign_data_wrapper", "fdwname")),
  CreateForeignServerStmt: define("sql:create", named("server", "servername")),
  AlterForeignServerStmt: define("sql:alter", named("server", "servername")),
  CreateUserMappingStmt: userMapping("sql:create"),
  AlterUserMappingStmt: userMapping("sql:alter"),
  DropUserMappingStmt: userMapping("sql:drop"),
  ImportForeignSchemaStmt: importSchema,
  CreatePublicationStmt: define("sql:create", named("publication", "pubname")),
  AlterPublicationStmt: define("sql:alter", named("publication", "pubname")),
  CreateSubscriptionStmt: subscription("sql:create"),
  AlterSubscriptionStmt: subscription("sql:alter"),
  DropSubscriptionStmt: define("sql:drop", named("subscription", "subname")),
  CreatedbStmt: define("sql:create", named("database", "dbname")),
  AlterDatabaseStmt: define("sql:alter", named("database", "dbname")),
  AlterDatabaseRefreshCollStmt: define("sql:alter", named("database", "dbname")),
  AlterDatabaseSetStmt: alterDatabaseSet,
  DropdbStmt: define("sql:drop", named("database", "dbname")),
  CreateTableSpaceStmt: define("sql:create", named("tablespace", "tablespacename")),
  DropTableSpaceStmt: define("sql:drop", named("tablespace", "tablespacename")),
  AlterTableSpaceOptionsStmt: define("sql:alter", named("tablespace", "tablespacename")),
};
