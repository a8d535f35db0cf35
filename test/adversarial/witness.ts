import { ASKED } from "../../protocols/postgres/doubt.ts";
import type { AuditEvent } from "../../store/types.ts";
import { COUNTED } from "./cases-doubt.ts";
import { TARGET_ROLE } from "./policy.ts";
import type { Outcome } from "./run.ts";

/** A statement that the server carried out for the gateway's role, as log_statement = all writes it. */
export interface LoggedStatement {
  readonly processId: string;
  readonly text: string;
}

const LINE = /^\d{4}-\d\d-\d\d \S+ UTC \[(\d+)\] (\S*) (\w+): {2}(.*)$/;
/** `execute fetch from s/p: text` goes on with a portal. */
const STATEMENT = /^(?:statement|execute [^:]*): ([\s\S]*)$/;
/** What the gateway asks in a session (doubt.ts); nobody else writes it so. */
const QUESTIONS: readonly string[] = ASKED;
/** The gateway's own reading of the catalogues, on connections of its own. */
const OWN = /application_name=sluice catalogue/;

/** What the server's log says that the gateway had it do, its readings of the catalogues left out. */
export function loggedStatements(log: string): readonly LoggedStatement[] {
  const entries: { processId: string; who: string; text: string }[] = [];
  for (const line of log.split("\n")) {
    const match = LINE.exec(line);
    if (match !== null) entries.push({ processId: match[1] ?? "", who: match[2] ?? "", text: match[3] === "LOG" ? (match[4] ?? "") : "" });
    // What does not fit a line is continued behind a tab.
    else if (line.startsWith("\t")) {
      const last = entries.at(-1);
      if (last !== undefined) last.text += `\n${line.slice(1)}`;
    }
  }
  const mine = entries.filter((entry) => entry.who.startsWith(`${TARGET_ROLE.user}@`));
  const own = new Set(mine.filter((entry) => OWN.test(entry.text)).map((entry) => entry.processId));
  return mine.flatMap(({ processId, text }) => {
    const statement = STATEMENT.exec(text)?.[1];
    return statement === undefined || own.has(processId) || QUESTIONS.includes(statement) ? [] : [{ processId, text: statement }];
  });
}

/**
 * Statements that the server logged more often than the gateway recorded as let through; each with the difference.
 * @param events of sessions at this server's target
 */
export function undecided(logged: readonly LoggedStatement[], events: readonly AuditEvent[]): readonly string[] {
  const left = new Map<string, number>();
  for (const event of events) {
    if (event.type !== "operation" || event.statement === undefined || event.decision?.effect !== "allow" || event.outcome === "denied")
      continue;
    left.set(event.statement, (left.get(event.statement) ?? 0) + 1);
  }
  const missing: string[] = [];
  for (const { text } of logged) {
    const count = left.get(text) ?? 0;
    if (count === 0) missing.push(text);
    else left.set(text, count - 1);
  }
  return missing;
}

/**
 * What does not fit between a run's outcome, the server's log and the record: a refused statement that reached the server or was
 * not recorded as refused, one that ran and is not in the log, an action other than the expected one.
 */
export function contradictions(outcome: Outcome, log: string, byMarker: ReadonlyMap<string, readonly AuditEvent[]>): readonly string[] {
  const found: string[] = [];
  const complain = (what: string) => found.push(`${outcome.name} (${outcome.how}): ${what}`);
  if (outcome.expect === "wire") {
    if (log.includes(`${outcome.marker}-refused`)) complain("what must be refused reached the server");
    return found;
  }
  const last = `${outcome.marker}last`;
  const [word = "", detail] = outcome.expect.split(/ (.*)/);
  const events = byMarker.get(last) ?? [];
  const recorded = events.map((event) => `${event.outcome} under ${event.action}`).join(", ") || "nothing";
  const has = (effect: string, ended: string, action?: string) =>
    events.some((event) => event.decision?.effect === effect && event.outcome === ended && (action ?? event.action) === event.action);
  const inLog = log.includes(last);
  if (word === "guard" || word === "policy" || word === "mask") {
    if (inLog) complain("reached the server");
    if (events.length === 0) complain("is not on record");
    else if (events.some((event) => event.outcome !== "denied" || event.error?.code !== "42501")) complain(`is on record as ${recorded}`);
  }
  if (outcome.class === COUNTED && !events.some((event) => Object.values(event.masked ?? {}).some((count) => count > 0)))
    complain("is on record without a masked value");
  if (word === "runs") {
    if (!inLog) complain("is not in the server's log");
    if (!has("allow", "done", detail)) complain(`is on record as ${recorded}`);
  }
  if (word === "fails" && !has("allow", "failed")) complain(`is on record as ${recorded}`);
  return found;
}

const MARKER = /adv\d+[xd]\d+y\w*/g;

/** Operations by the markers in their statements. */
export function eventsByMarker(events: readonly AuditEvent[]): ReadonlyMap<string, readonly AuditEvent[]> {
  const found = new Map<string, AuditEvent[]>();
  for (const event of events) {
    if (event.type !== "operation") continue;
    for (const marker of event.statement?.match(MARKER) ?? []) {
      const known = found.get(marker);
      if (known === undefined) found.set(marker, [event]);
      else known.push(event);
    }
  }
  return found;
}
