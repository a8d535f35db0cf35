import { randomBytes } from "node:crypto";
import { SluiceError } from "../../core/errors.ts";
import { type Decision, UNKNOWN_RELATION } from "./decide.ts";
import { bind, close, execute, flush, parse, sync, TYPE } from "./messages.ts";
import { momentOf } from "./moment.ts";
import { errorFields } from "./notices.ts";
import type { Relay } from "./relay.ts";
import { parseSearchPath } from "./search-path.ts";
import type { Classified } from "./sql/types.ts";
import type { PreparedStatement } from "./statements.ts";

/**
 * Functions, procedures and DO can change search_path and the role from within. What such a statement leaves behind is in doubt, and
 * names then mean every relation that has them. Where that makes a difference the server is asked, before the next
 * statement is decided: between two transactions or inside one, but not in the middle of a pipeline.
 */

/** SHOW takes no snapshot and no lock, so that asking changes nothing about the client's transaction. */
export const ASKED = ["/* asked by Sluice */ SHOW search_path", "/* asked by Sluice */ SHOW role"] as const;

/** Nobody else's statements and portals have this name. */
const NAME = `sluice_${randomBytes(12).toString("hex")}`;

/** Under names of its own, because the unnamed ones are the client's. */
const SHOWS: Uint8Array = Buffer.concat([
  // Closed first as well: the last question may have failed in between.
  ...ASKED.flatMap((text) => [close("S", NAME), parse(NAME, text), bind(NAME, NAME), execute(NAME), close("P", NAME)]),
  close("S", NAME),
]);
/** So often in a row. */
const ATTEMPTS = 3;
const CLOSES = ASKED.length * 2 + 1;
const QUESTION: Uint8Array = Buffer.concat([SHOWS, sync()]);
/** The same where a Sync would end what the client has begun. */
const UNSYNCED_QUESTION: Uint8Array = Buffer.concat([SHOWS, flush()]);

/** What was asked for is now on its way: send these bytes. */
export function ask(relay: Relay): Uint8Array {
  const entry = relay.queue.push("ask");
  // Its rows are read whole, within the limits of what is inspected.
  entry.masks = true;
  entry.own = relay.unsynced;
  return relay.unsynced ? UNSYNCED_QUESTION : QUESTION;
}

/** Whether search_path makes a difference to a decision that was made without knowing it. */
export function matters(decision: Decision, classified: Classified): boolean {
  if (decision.verdict.kind !== "allowed") return true;
  const named = new Set<string>();
  for (const { relations } of classified.accesses) for (const { schema, name } of relations) named.add(`${schema ?? ""}\0${name}`);
  return decision.operation.tables.length > named.size;
}

/** The same of a prepared statement that is about to be bound. @param classified with what it stands for */
export function mattersToStatement(relay: Relay, statement: PreparedStatement, classified: Classified): boolean {
  if (relay.searchPath.urgent) return true;
  const decision = relay.context().decide(classified, () => momentOf(relay, statement.text, undefined), false);
  return decision === UNKNOWN_RELATION || matters(decision, classified);
}

/** Reads the answers. */
export class Answers {
  #values: string[] = [];
  #failed = false;
  #closes = 0;
  #attempts = 0;

  /** @returns false: the message is none of them, and the client's */
  take(relay: Relay, type: number, bytes: Uint8Array, start: number, end: number): boolean {
    switch (type) {
      case TYPE.parseComplete:
      case TYPE.bindComplete:
      case TYPE.commandComplete:
        return true;
      case TYPE.closeComplete:
        this.#closes += 1;
        if (this.#closes === CLOSES && relay.queue.head()?.own === true) this.#answered(relay, relay.transactionStatus);
        return true;
      case TYPE.dataRow:
        this.#values.push(onlyField(bytes, start, end));
        return true;
      case TYPE.errorResponse: {
        const { severity } = errorFields(bytes, start, end);
        if (severity === "FATAL" || severity === "PANIC") return false;
        if (relay.queue.head()?.own === true) throw unanswered();
        this.#failed = true;
        return true;
      }
      case TYPE.readyForQuery:
        this.#answered(relay, bytes[start + 5]);
        return true;
      case TYPE.noticeResponse:
      case TYPE.parameterStatus:
      case TYPE.notificationResponse:
        return false;
      default:
        throw new SluiceError("SLUICE_PROTOCOL_VIOLATION", `the target answered Sluice's own question with '${String.fromCharCode(type)}'`);
    }
  }

  #answered(relay: Relay, status: number): void {
    const [path, role] = this.#values;
    const failed = this.#failed || path === undefined || role === undefined || relay.catalogue.role === undefined;
    const failedAtServer = this.#failed;
    if (!failedAtServer) this.#attempts = 0;
    this.#values = [];
    this.#failed = false;
    this.#closes = 0;
    relay.queue.shift();
    relay.transactionStatus = status;
    if (failedAtServer && relay.searchPath.urgent && status === 0x49) {
      // The client can strike the question with a cancel and must not get past it by that. In a block it has failed the block.
      this.#attempts += 1;
      if (this.#attempts === ATTEMPTS) throw unanswered();
    } else if (failed) relay.searchPath.askedInVain();
    else if (role !== relay.catalogue.role) throw changed("role", role);
    else relay.searchPath.asked(parseSearchPath(path, role === "none" ? relay.grant.target.user : role), status !== 0x49);
    relay.answered();
  }
}

/** Settings that tell whose privileges the session has. */
const PRIVILEGES = ["is_superuser", "session_authorization"];

/** ParameterStatus came. @throws SluiceError when the session has other privileges than at its start */
export function checkPrivileges(relay: Relay, name: string, value: string): void {
  if (PRIVILEGES.includes(name) && relay.statuses.get(name) !== value) throw changed(name, value);
}

const unanswered = () =>
  new SluiceError("SLUICE_DENIED", "the target did not say which role this session has behind code that may have changed it", {
    hint: "Connect again; a cancel or a timeout may have struck the question.",
  });

const changed = (name: string, value: string) =>
  new SluiceError("SLUICE_DENIED", `${name} changed to ${value} in this session`, {
    hint: "Code that the target ran changed the session's privileges, which are not the client's to change. It has to set them back before it ends.",
  });

/** The value of a row of one column. */
function onlyField(bytes: Uint8Array, start: number, end: number): string {
  const view = new DataView(bytes.buffer, bytes.byteOffset + start, end - start);
  if (end - start < 11 || view.getInt16(5) !== 1 || view.getInt32(7) !== end - start - 11)
    throw new SluiceError("SLUICE_PROTOCOL_VIOLATION", "the target answered Sluice's own question with a malformed row");
  return Buffer.from(bytes.buffer, bytes.byteOffset + start + 11, end - start - 11).toString("utf8");
}
