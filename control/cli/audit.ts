import { type Command, Option } from "commander";
import type { AuditEvent } from "../../store/types.ts";
import { type Common, command, print, printJson, readPlaces, run, wantsJson } from "./context.ts";

interface TailOptions extends Common {
  readonly follow?: boolean;
  readonly since?: string;
  readonly format?: string;
}

export function addAuditCommands(program: Command): void {
  const audit = program.command("audit").description("The evidence.");
  command(audit, "tail", "audit events in order; also with the gateway stopped")
    .option("-f, --follow", "wait for more")
    .option("--since <cursor>", "events after this one's cursor")
    .addOption(new Option("--format <format>", "json: one event a line").choices(["json"]))
    .action(
      run(async (options: TailOptions) => {
        const { data } = readPlaces(options.config);
        const { tailEvents } = await import("../../store/read.ts");
        const json = wantsJson(options) || options.format === "json";
        const ended = new AbortController();
        for (const signal of ["SIGINT", "SIGTERM"] as const) process.once(signal, () => ended.abort());
        for await (const event of tailEvents(data, { since: options.since, follow: options.follow === true, signal: ended.signal })) {
          if (json) printJson(event);
          else print(eventLine(event));
          if (process.stdout.writableNeedDrain) await new Promise((resolve) => process.stdout.once("drain", resolve));
        }
      }),
    );
}

const STATEMENT_SHOWN = 160;

/** One event in one line, for people. */
export function eventLine(event: Omit<AuditEvent, "cursor">): string {
  const parts: string[] = [event.time, event.type];
  if (event.identity !== undefined) parts.push(event.identity.user);
  if (event.target !== undefined) parts.push(`at ${event.target}`);
  if (event.action !== undefined) parts.push(event.action);
  if (event.decision !== undefined)
    parts.push(`${event.decision.effect}${event.decision.rule === undefined ? "" : ` by ${event.decision.rule}`}`);
  if (event.outcome !== undefined) parts.push(event.outcome);
  if (event.response?.rows !== undefined) parts.push(`${event.response.rows} rows`);
  if (event.masked !== undefined) parts.push(`masked ${Object.values(event.masked).reduce((sum, count) => sum + count, 0)}`);
  if (event.durationMicros !== undefined) parts.push(`${(event.durationMicros / 1000).toFixed(1)} ms`);
  if (event.error !== undefined) parts.push(`${event.error.code}: ${event.error.message}`);
  if (event.detail !== undefined) parts.push(JSON.stringify(event.detail));
  const statement = event.statement?.replace(/\s+/g, " ").trim();
  if (statement !== undefined) parts.push(statement.length > STATEMENT_SHOWN ? `${statement.slice(0, STATEMENT_SHOWN)}…` : statement);
  return parts.join("  ").replaceAll("\n", " ");
}
