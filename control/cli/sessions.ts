import { type Command, InvalidArgumentError } from "commander";
import { SluiceError } from "../../core/errors.ts";
import type { SessionFilter, SessionSummary } from "../../store/read.ts";
import type { LiveSession } from "../types.ts";
import { eventLine } from "./audit.ts";
import { ask } from "./client.ts";
import { ago, type Common, command, fail, print, printJson, printTable, qualifyName, readPlaces, run, wantsJson } from "./context.ts";

interface ListOptions extends Common {
  readonly user?: string;
  readonly target?: string;
  readonly live?: boolean;
  readonly since?: number;
  readonly limit: number;
}

export function addSessionCommands(program: Command): void {
  const sessions = program.command("sessions").description("Sessions, live and past.");

  command(sessions, "list", "newest first; also with the gateway stopped")
    .option("--user <name>", "only of this user (issuer:value, or a value of the default issuer)")
    .option("--target <name>", "only at this target")
    .option("--live", "only live ones")
    .option("--since <time>", "started at or after (RFC 3339)", time)
    .option("--limit <count>", "at most this many", count, 100)
    .action(run(list));

  command(sessions, "show <id>", "one session with what was asked and decided")
    .option("--limit <count>", "at most this many events", count, 10_000)
    .action(
      run(async (id: string, options: Common & { limit: number }) => {
        const { showSession } = await import("../../store/read.ts");
        const session = showSession(readPlaces(options.config).data, id, { operations: options.limit });
        if (session === undefined) throw unknown(id);
        if (wantsJson(options)) {
          printJson(session);
          return;
        }
        print(`session   ${session.id}`);
        print(
          `user      ${session.identity.user}${session.identity.chain.length > 0 ? ` through ${session.identity.chain.join(", ")}` : ""}`,
        );
        print(`groups    ${session.identity.groups.join(", ") || "none"}`);
        print(`target    ${session.target} (${session.protocol})`);
        print(`client    ${session.client.address}${session.client.application === undefined ? "" : ` ${session.client.application}`}`);
        print(`started   ${session.started}`);
        print(
          `ended     ${session.live ? "live" : `${session.ended ?? "not recorded"}${session.reason === undefined ? "" : ` (${session.reason})`}`}`,
        );
        print("");
        for (const event of session.events) print(eventLine(event));
        if (session.more) print("… there are more events; raise --limit");
      }),
    );

  command(sessions, "replay <id>", "what passed: statements and results as they were recorded", false)
    .option("--raw", "the recorded bytes as JSON lines, base64")
    .action(run(replay));

  command(sessions, "kill <id>", "end a live session, here and at the target")
    .option("--reason <text>", "for the record, and for the one who is cut off", "ended by an operator")
    .action(
      run(async (id: string, options: Common & { reason: string }) => {
        const { data } = readPlaces(options.config);
        await ask(data, "POST", `/v1/sessions/${encodeURIComponent(id)}/kill`, { reason: options.reason });
        if (wantsJson(options)) printJson({ killed: true, session: id });
        else print(`${id} is ended.`);
      }),
    );
}

async function list(options: ListOptions): Promise<void> {
  const { listSessions } = await import("../../store/read.ts");
  const { data, issuers } = readPlaces(options.config);
  const filter: SessionFilter = {
    limit: options.limit,
    ...(options.user === undefined ? {} : { user: qualifyName(options.user, issuers) }),
    ...(options.target === undefined ? {} : { target: options.target }),
    ...(options.live === true ? { live: true } : {}),
    ...(options.since === undefined ? {} : { sinceMillis: options.since }),
  };
  const found = listSessions(data, filter);
  const operations = await liveOperations(data, found);
  const shown = found.map((session) => ({ ...session, operations: session.operations ?? operations.get(session.id) }));
  if (wantsJson(options)) {
    printJson(shown);
    return;
  }
  printTable(
    ["id", "user", "target", "client", "started", "state", "operations"],
    shown.map((session) => [
      session.id,
      session.identity.user,
      session.target,
      session.client.address,
      `${ago(Date.parse(session.started))} ago`,
      stateOf(session),
      session.operations,
    ]),
    "No sessions match.",
  );
}

const stateOf = (session: SessionSummary): string => (session.live ? "live" : (session.reason ?? "ended"));

/** The record knows a session's count when it ends; until then the gateway does, if it runs. */
async function liveOperations(data: string, found: readonly SessionSummary[]): Promise<ReadonlyMap<string, number>> {
  if (!found.some((session) => session.live)) return new Map();
  try {
    const { sessions } = await ask<{ sessions: readonly LiveSession[] }>(data, "GET", "/v1/sessions");
    return new Map(sessions.map((session) => [session.id, session.operations]));
  } catch {
    return new Map();
  }
}

async function replay(id: string, options: Common & { raw?: boolean }): Promise<void> {
  const { readFrames, showSession } = await import("../../store/read.ts");
  const { data } = readPlaces(options.config);
  const session = showSession(data, id, { operations: 1 });
  if (session === undefined) throw unknown(id);
  if (options.raw === true) {
    // Goes on behind what is lost, and says so in its status as well.
    for await (const { bytes, ...frame } of readFrames(data, id, fail))
      await write(`${JSON.stringify({ ...frame, bytes: Buffer.from(bytes).toString("base64") })}\n`);
    return;
  }
  if (session.protocol !== "postgres")
    throw new SluiceError("SLUICE_USAGE", `sessions of ${session.protocol} have no transcript`, { hint: "Use --raw." });
  if (session.results !== "full") print(`-- results were recorded as ${session.results}: they are not complete`);
  const { renderTranscript } = await import("../../protocols/postgres/replay.ts");
  for await (const part of renderTranscript(readFrames(data, id))) await write(part);
}

/** Waits for a slow reader, so that a long replay does not pile up in memory. */
function write(text: string): Promise<void> | undefined {
  return process.stdout.write(text) ? undefined : new Promise((resolve) => process.stdout.once("drain", resolve));
}

const unknown = (id: string): SluiceError =>
  new SluiceError("SLUICE_NOT_FOUND", `no session has the id ${JSON.stringify(id)}`, { hint: "`sluice sessions list` shows them." });

function time(text: string): number {
  const millis = Date.parse(text);
  if (Number.isNaN(millis)) throw new InvalidArgumentError("Write for example 2026-01-31T08:00:00Z.");
  return millis;
}

function count(text: string): number {
  const value = Number(text);
  if (!Number.isSafeInteger(value) || value < 1) throw new InvalidArgumentError("Expected a whole number above 0.");
  return value;
}
