/**
 * Every action of every protocol family, with its class.
 *
 * connect stands beside the classes: it is asked once, when a target is opened, and every allow implies it.
 */
export type ActionClass = "read" | "write" | "schema" | "session" | "admin";

export const CLASSES: readonly ActionClass[] = ["read", "write", "schema", "session", "admin"];

export const CONNECT = "connect";

/** Verbs of PostgreSQL. An action that is missing here is `admin`: what is not known needs the widest right. */
const SQL: Readonly<Record<string, ActionClass>> = {
  select: "read",
  copy_out: "read",
  // Shows plan and statistics; what it explains is judged beside it.
  explain: "read",
  insert: "write",
  update: "write",
  delete: "write",
  merge: "write",
  truncate: "write",
  copy_in: "write",
  // A procedure may change anything that the target's role may.
  call: "write",
  // Locks out others; also what pg_dump asks for.
  lock: "write",
  // Carries a payload to other sessions.
  notify: "write",
  create: "schema",
  alter: "schema",
  drop: "schema",
  set: "session",
  show: "session",
  transaction: "session",
  cursor: "session",
  prepare: "session",
  listen: "session",
  grant: "admin",
  // Runs code that the grammar does not show.
  do: "admin",
  maintenance: "admin",
  function_call: "admin",
  other: "admin",
};

/** Verbs by action family: the part of an action before the colon. */
export const FAMILIES: Readonly<Record<string, Readonly<Record<string, ActionClass>>>> = { sql: SQL };

/** Which family the targets of a protocol speak. */
export const FAMILY_OF_PROTOCOL: Readonly<Record<string, string>> = { postgres: "sql" };

/** Families of the contract that this version does not serve. */
export const LATER_FAMILIES: ReadonlySet<string> = new Set(["ssh", "http", "k8s", "mcp", "redis"]);

export function classOf(action: string): ActionClass | "connect" {
  if (action === CONNECT) return "connect";
  const colon = action.indexOf(":");
  const verbs = Object.hasOwn(FAMILIES, action.slice(0, colon)) ? FAMILIES[action.slice(0, colon)] : undefined;
  const verb = action.slice(colon + 1);
  return verbs !== undefined && Object.hasOwn(verbs, verb) ? (verbs[verb] ?? "admin") : "admin";
}

export interface ActionSet {
  /** Qualified actions, and `connect` where it is named. */
  readonly names: ReadonlySet<string>;
  /** An action of class read, write or schema is among them: an allow then covers the session class too. */
  readonly impliesSession: boolean;
}

/**
 * Expand the `actions:` of a rule.
 * @param protocols the protocols of the rule's targets, by which bare verbs are resolved
 * @param complain called with the position in the list and what is wrong
 */
export function expandActions(
  actions: readonly string[],
  protocols: ReadonlySet<string>,
  complain: (index: number, text: string) => void,
): ActionSet {
  const names = new Set<string>();
  actions.forEach((action, index) => {
    for (const name of expandOne(action, protocols, (text) => complain(index, text))) names.add(name);
  });
  const impliesSession = [...names].some((name) => ["read", "write", "schema"].includes(classOf(name)));
  return { names, impliesSession };
}

/** One action of a test or a question, `select` or `sql:select` or `connect`; a class is not one. */
export function qualifyAction(action: string, protocol: string): string | undefined {
  if ((CLASSES as readonly string[]).includes(action)) return undefined;
  return expandOne(action, new Set([protocol]), () => {})[0];
}

function expandOne(action: string, protocols: ReadonlySet<string>, complain: (text: string) => void): readonly string[] {
  if (action === CONNECT) return [CONNECT];
  if ((CLASSES as readonly string[]).includes(action)) {
    return Object.entries(FAMILIES).flatMap(([family, verbs]) =>
      Object.keys(verbs)
        .filter((verb) => verbs[verb] === action)
        .map((verb) => `${family}:${verb}`),
    );
  }
  const colon = action.indexOf(":");
  const verb = action.slice(colon + 1);
  if (colon >= 0) {
    const family = action.slice(0, colon);
    if (LATER_FAMILIES.has(family))
      complain(`expected an action of sql, got ${quoted(action)}: ${family} is not available in this version`);
    else if (!Object.hasOwn(FAMILIES, family)) complain(`expected protocol:verb with the protocol sql, got ${quoted(action)}`);
    else if (!Object.hasOwn(FAMILIES[family] ?? {}, verb)) complain(unknownVerb(action, family));
    else return [action];
    return [];
  }
  const families = new Set([...protocols].map((protocol) => FAMILY_OF_PROTOCOL[protocol]).filter((family) => family !== undefined));
  const having = [...families].filter((family) => Object.hasOwn(FAMILIES[family] ?? {}, verb));
  if (having.length === 1) return [`${having[0]}:${verb}`];
  if (having.length === 0) complain(unknownVerb(action, [...families][0] ?? "sql"));
  else
    complain(
      `expected a verb that one protocol of the rule's targets has, got ${quoted(action)} (${having.map((family) => `${family}:${verb}`).join(", ")})`,
    );
  return [];
}

const unknownVerb = (action: string, family: string): string =>
  `expected a class (${CLASSES.join(", ")}), connect or a verb of ${family} (${Object.keys(FAMILIES[family] ?? {}).join(", ")}), got ${quoted(action)}`;

const quoted = (text: string): string => JSON.stringify(text);
