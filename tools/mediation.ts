import { readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { FIRST_PACKETS, type Handling, MESSAGES } from "../protocols/postgres/messages.ts";
import type { Node } from "../protocols/postgres/sql/ast.ts";
import { createClassifier } from "../protocols/postgres/sql/classify.ts";
import { Grammar } from "../protocols/postgres/sql/grammar.ts";
import { ELEMENT_KINDS, STATEMENT_KINDS } from "../protocols/postgres/sql/statements.ts";
import { PINNED_PARAMETERS, STARTUP_PARAMETERS } from "../protocols/postgres/startup-parameters.ts";
import { root } from "./files.ts";

// docs/MEDIATION.md: what happens to everything that can come over a connection, out of the tables that the code itself goes by.

export const PAGE = join(root, "docs/MEDIATION.md");

/** What the specification's statements of one kind were classified as. */
export interface Seen {
  /** Statements of that kind that stand on a line of their own. */
  statements: number;
  readonly actions: Set<string>;
  /** Why some of them are refused. */
  readonly refusals: Set<string>;
}

const encoder = new TextEncoder();

/** Every statement of protocols/postgres/sql/spec, classified, by its kind in the parse tree. */
export async function seenKinds(): Promise<ReadonlyMap<string, Seen>> {
  const grammar = await Grammar.load();
  const classifier = await createClassifier();
  const found = new Map<string, Seen>();
  try {
    for (const name of ["queries", "session", "definitions"]) {
      const lines = readFileSync(join(root, `protocols/postgres/sql/spec/${name}.txt`), "utf8").split("\n");
      for (const text of lines.filter((line) => line !== "" && !line.startsWith(" "))) {
        const bytes = encoder.encode(text);
        const [kind, ...more] = kindsOf(grammar, bytes);
        if (kind === undefined || more.length > 0) continue;
        const seen = found.get(kind) ?? { statements: 0, actions: new Set(), refusals: new Set() };
        found.set(kind, seen);
        seen.statements += 1;
        const { accesses, refusal } = await classifier.classify(bytes, 0, bytes.length);
        if (refusal === undefined) for (const { action } of accesses) seen.actions.add(action);
        else seen.refusals.add(refusal);
      }
    }
  } finally {
    await classifier.close();
  }
  return found;
}

function kindsOf(grammar: Grammar, text: Uint8Array): readonly string[] {
  try {
    return (grammar.parse(text).stmts ?? []).map(({ stmt }: { stmt?: Node }) => Object.keys(stmt ?? {})[0] ?? "");
  } catch {
    // The specification also holds what does not parse.
    return [];
  }
}

const WORDS: Readonly<Record<Handling, string>> = { forward: "allow", inspect: "inspect", refuse: "refuse" };

export async function page(): Promise<string> {
  const seen = await seenKinds();
  const kinds = [...STATEMENT_KINDS].sort(([a], [b]) => (a < b ? -1 : 1));
  const messages = (from: "frontend" | "backend") =>
    MESSAGES.filter((message) => message.from === from).map((message) => [
      `\`${message.letter}\` ${message.name}`,
      WORDS[message.handling],
      message.limitBytes === 0 ? "" : message.limitBytes.toLocaleString("en-US"),
      message.reason,
    ]);
  return `# What happens to everything that comes over a PostgreSQL connection

Nothing passes by default: what is in none of these tables is refused. *allow*: passed on as it is. *inspect*: read, and decided, changed, counted or answered before
anything of it goes on. *refuse*: never passed on. Written by \`node tools/mediation.ts --write\` out of the tables that the code goes by; a test compares them with
the protocol's list of messages and with the statements in the parser's own grammar, and this page with what it would be now.

## First packets

Any other first packet, a protocol version other than 3.x and a minor version 1 included, ends the connection; newer minor versions are asked to come down to 3.2.

${table(
  ["packet", "code", "", "why"],
  FIRST_PACKETS.map(({ name, code, handling, reason }) => [name, String(code), WORDS[handling], reason]),
)}

## Startup parameters

The target gets a startup message made by Sluice: the configured user and database, ${[...PINNED_PARAMETERS].map(([name, value]) => `\`${name}=${value}\``).join(", ")}, and what is allowed here.

${table(
  ["parameter", "", "why"],
  STARTUP_PARAMETERS.map(({ name, handling, reason }) => [`\`${name}\``, WORDS[handling], reason]),
)}

## Messages of the client

In a session, by type byte. Authentication comes before it and is answered by Sluice itself; no password or token goes to the target. The limit is the largest length field, in bytes.

${table(["message", "", "limit", "why"], messages("frontend"))}

## Messages of the server

In a session, by type byte. Authentication at the target is Sluice's own, with the injected credential.

${table(["message", "", "limit", "why"], messages("backend"))}

## Statements

Every statement is read with PostgreSQL 18's grammar, whatever the target's version (15 to 18); what does not parse with it is refused. Each kind below is a kind of node at the root of
its parse tree. None is passed on unread. Inspected ones are decided by the policy under the actions named, besides those of what they contain; some forms of them are refused
whatever the policy says.

${table(
  ["kind", "", "actions", "refused"],
  kinds.map(([kind, refusal]) => {
    if (refusal !== undefined) return [kind, "refuse", "", refusal];
    const { actions, refusals } = seen.get(kind) ?? { actions: [], refusals: [] };
    return [kind, "inspect", [...actions].sort().join(", "), [...refusals].sort().map(shortened).join(" ")];
  }),
)}

## Inside a statement

Where an expression, a query or a FROM item is read, these kinds of node are understood; every other kind refuses the statement.

${[...ELEMENT_KINDS]
  .sort()
  .map((kind) => `\`${kind}\``)
  .join(", ")}
`;
}

const LONGEST = 160;
const shortened = (sentence: string): string =>
  sentence.length > LONGEST ? `${sentence.slice(0, LONGEST).replace(/ \S*$/, "")} …` : sentence;

function table(head: readonly string[], rows: readonly (readonly string[])[]): string {
  const line = (cells: readonly string[]): string => `| ${cells.map((cell) => cell.replaceAll("|", "\\|")).join(" | ")} |`;
  return [line(head), `|${head.map(() => "---").join("|")}|`, ...rows.map(line)].join("\n");
}

if (import.meta.main) {
  const text = await page();
  if (process.argv.includes("--write")) writeFileSync(PAGE, text);
  else process.stdout.write(text);
}
