import { BlockList, isIP, isIPv4 } from "node:net";
import { type ASTNode, Environment } from "@marcbachmann/cel-js";
import { compileLinear, MAX_SEARCHED_LENGTH } from "./linear.ts";

/** Variables of `when`. Classes, because the type checker knows their fields; one object is reused for a session. */
export class CelIdentity {
  issuer = "";
  user = "";
  subject = "";
  groups: readonly string[] = [];
  claims: Readonly<Record<string, unknown>> = {};
}

export class CelTarget {
  name = "";
  protocol = "";
  labels: Readonly<Record<string, string>> = {};
  database = "";
}

export class CelOperation {
  /** Of the access that is judged; `actions` and `resources` are the whole operation's. */
  action = "";
  class = "";
  actions: readonly string[] = [];
  resources: readonly string[] = [];
  tables: readonly string[] = [];
  columns: readonly string[] = [];
  functions: readonly string[] = [];
  unfiltered = false;
  statements = 0n;
  text = "";
  parameters: readonly (string | null)[] = [];
  transaction = "idle";
}

export class CelClient {
  /** Without the port. */
  address = "";
}

/** UTC. */
export class CelTime {
  hour = 0n;
  minute = 0n;
  /** 0: Sunday. */
  weekday = 0n;
  epochSeconds = 0n;
}

export interface CelContext {
  readonly identity: CelIdentity;
  readonly target: CelTarget;
  readonly operation: CelOperation;
  readonly client: CelClient;
  readonly time: CelTime;
}

const strings = "list<string>";
const environment = new Environment({ limits: { maxAstNodes: 2_000, maxDepth: 64 } })
  .registerType("Identity", {
    ctor: CelIdentity,
    fields: { issuer: "string", user: "string", subject: "string", groups: strings, claims: "map<string, dyn>" },
  })
  .registerType("Target", {
    ctor: CelTarget,
    fields: { name: "string", protocol: "string", labels: "map<string, string>", database: "string" },
  })
  .registerType("Operation", {
    ctor: CelOperation,
    fields: {
      action: "string",
      class: "string",
      actions: strings,
      resources: strings,
      tables: strings,
      columns: strings,
      functions: strings,
      unfiltered: "bool",
      statements: "int",
      text: "string",
      parameters: "list<dyn>",
      transaction: "string",
    },
  })
  .registerType("Client", { ctor: CelClient, fields: { address: "string" } })
  .registerType("Time", { ctor: CelTime, fields: { hour: "int", minute: "int", weekday: "int", epochSeconds: "int" } })
  .registerVariable("identity", "Identity")
  .registerVariable("target", "Target")
  .registerVariable("operation", "Operation")
  .registerVariable("client", "Client")
  .registerVariable("time", "Time")
  // The library's matches() backtracks; calls are rewritten to this one, which has as many letters, so positions hold.
  .registerFunction("string.matchre(string): bool", (text: string, pattern: string) => search(text, pattern))
  .registerFunction("string.inNetwork(string): bool", (address: string, network: string) => inNetwork(address, network));

const SEARCHES = new Map<string, (text: string) => boolean>();
const NETWORKS = new Map<string, BlockList>();

function search(text: string, pattern: string): boolean {
  const test = SEARCHES.get(pattern);
  if (test === undefined || text.length > MAX_SEARCHED_LENGTH) throw new RangeError("the text is too long to search");
  return test(text);
}

function inNetwork(address: string, network: string): boolean {
  const bare = address.replace(/^::ffff:(?=\d+\.)/i, "");
  const list = NETWORKS.get(network);
  if (list === undefined || isIP(bare) === 0) throw new RangeError("not an address");
  return list.check(bare, isIPv4(bare) ? "ipv4" : "ipv6");
}

export interface CompiledWhen {
  /** False: reads what differs between two executions of the same operation (text, parameters, transaction, client, time). */
  readonly isStable: boolean;
  /** undefined: it failed, or gave neither true nor false. */
  evaluate(context: CelContext): boolean | undefined;
}

const UNSTABLE_FIELDS: ReadonlySet<string> = new Set(["text", "parameters", "transaction"]);

/** Parse and type-check a `when`. */
export function compileWhen(source: string): CompiledWhen | { readonly error: string } {
  try {
    const rewritten = rewriteMatches(source, environment.parse(source).ast);
    if (typeof rewritten !== "string") return rewritten;
    const program = environment.parse(rewritten);
    const checked = program.check();
    if (!checked.valid) return { error: describe(checked.error) };
    if (checked.type !== "bool" && checked.type !== "dyn") return { error: `its type is ${checked.type ?? "unknown"}` };
    for (const node of nodes(program.ast)) {
      const problem = checkCall(node);
      if (problem !== undefined) return { error: problem };
    }
    return {
      isStable: isStable(program.ast),
      evaluate(context) {
        try {
          const value: unknown = program(context);
          return typeof value === "boolean" ? value : undefined;
        } catch {
          return undefined;
        }
      },
    };
  } catch (error) {
    return { error: describe(error) };
  }
}

function describe(error: unknown): string {
  const { summary, range } = error as { summary?: unknown; range?: { start: number } };
  if (typeof summary !== "string") return "it cannot be read";
  const where = range === undefined ? "" : ` (character ${range.start + 1} of the expression)`;
  return `${summary.replace("No such key", "unknown field")}${where}`;
}

/** Children of a node are nodes, or lists of them, anywhere in its arguments. */
function* nodes(value: unknown): Generator<ASTNode> {
  if (Array.isArray(value)) for (const item of value) yield* nodes(item);
  else if (isNode(value)) {
    yield value;
    yield* nodes(value.args);
  }
}

const isNode = (value: unknown): value is ASTNode => typeof value === "object" && value !== null && "op" in value && "args" in value;

function rewriteMatches(source: string, ast: ASTNode): string | { readonly error: string } {
  let text = source;
  for (const node of nodes(ast)) {
    if (node.op === "call" && node.args[0] === "matches") return { error: "write text.matches('pattern')" };
    if (node.op !== "rcall" || node.args[0] !== "matches") continue;
    const [, receiver, [pattern]] = node.args;
    const at = text.indexOf("matches", receiver.range.end);
    if (pattern === undefined || at < 0 || at > pattern.range.start) return { error: "matches takes one pattern" };
    text = `${text.slice(0, at)}matchre${text.slice(at + 7)}`;
  }
  return text;
}

/** Patterns and networks must be literals, so that they are known to be sound when the policy is loaded. */
function checkCall(node: ASTNode): string | undefined {
  if (node.op !== "rcall") return undefined;
  const [name, , [argument]] = node.args;
  if (name === "matches") return "matches could not be read here; write text.matches('pattern') without comments inside";
  if (name !== "matchre" && name !== "inNetwork") return undefined;
  const literal = argument?.op === "value" && typeof argument.args === "string" ? argument.args : undefined;
  const where = ` (character ${node.range.start + 1} of the expression)`;
  if (literal === undefined) return `${name === "matchre" ? "matches" : name} takes a literal text${where}`;
  if (name === "matchre") {
    const test = compileLinear(literal);
    if (test === undefined)
      return `the pattern is not valid, or uses look-around, back-references, \\p, \\x or large counts, which are not supported${where}`;
    SEARCHES.set(literal, test);
    return undefined;
  }
  const network = parseNetwork(literal);
  if (network === undefined) return `inNetwork takes a network such as 10.0.0.0/8${where}`;
  NETWORKS.set(literal, network);
  return undefined;
}

function parseNetwork(text: string): BlockList | undefined {
  const [, address = "", prefix = ""] = /^([0-9A-Fa-f.:]+)\/(\d{1,3})$/.exec(text) ?? [];
  const version = isIP(address);
  if (version === 0 || Number(prefix) > (version === 4 ? 32 : 128)) return undefined;
  const list = new BlockList();
  list.addSubnet(address, Number(prefix), version === 4 ? "ipv4" : "ipv6");
  return list;
}

function isStable(ast: ASTNode): boolean {
  // `operation.class` reads one field; `operation` in any other place could read all of them.
  const plain = new Set<ASTNode>();
  for (const node of nodes(ast)) {
    if (node.op === "." && node.args[0].op === "id" && node.args[0].args === "operation" && !UNSTABLE_FIELDS.has(node.args[1]))
      plain.add(node.args[0]);
  }
  for (const node of nodes(ast)) {
    if (node.op !== "id") continue;
    if (node.args === "client" || node.args === "time") return false;
    if (node.args === "operation" && !plain.has(node)) return false;
  }
  return true;
}
