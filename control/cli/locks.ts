import { type Command, InvalidArgumentError } from "commander";
import { parseDurationMillis } from "../../core/config/units.ts";
import { SluiceError } from "../../core/errors.ts";
import { openLocks } from "../locks.ts";
import type { Lock } from "../types.ts";
import { ask } from "./client.ts";
import { ago, type Common, command, print, printJson, printTable, readPlaces, run, wantsJson } from "./context.ts";

export function addLockCommands(program: Command): void {
  const lock = program.command("lock").description("The kill switch: locks end matching sessions at once and refuse new ones.");

  command(lock, "add <subject>", "lock user:…, group:…, target:…, session:…, issuer:… or label:key=value")
    .option("--reason <text>", "for the record, and for those who are locked out", "")
    .option("--ttl <duration>", "how long, as 90s, 15m, 8h; left out: until removed", duration)
    .action(
      run(async (subject: string, options: Common & { reason: string; ttl?: number }) => {
        const { data } = readPlaces(options.config);
        const body = { subject, reason: options.reason, ...(options.ttl === undefined ? {} : { ttlSeconds: options.ttl / 1000 }) };
        const added = await ask<{ lock: Lock; killed: number }>(data, "POST", "/v1/locks", body);
        if (wantsJson(options)) printJson(added);
        else print(`${added.lock.id}: ${added.lock.subject} is locked; ${added.killed} live sessions ended.`);
      }),
    );

  command(lock, "remove <id>", "lift a lock").action(
    run(async (id: string, options: Common) => {
      const { data } = readPlaces(options.config);
      await ask(data, "DELETE", `/v1/locks/${encodeURIComponent(id)}`);
      if (wantsJson(options)) printJson({ removed: true, lock: id });
      else print(`${id} is removed.`);
    }),
  );

  command(lock, "list", "locks in force; also with the gateway stopped").action(
    run(async (options: Common) => {
      const locks = await current(readPlaces(options.config).data);
      if (wantsJson(options)) {
        printJson(locks);
        return;
      }
      printTable(
        ["id", "subject", "age", "until", "by", "reason"],
        locks.map((entry) => [
          entry.id,
          entry.subject,
          ago(entry.createdMillis),
          entry.expiresMillis === undefined ? "removed" : new Date(entry.expiresMillis).toISOString(),
          entry.by,
          entry.reason,
        ]),
        "No locks are in force.",
      );
    }),
  );
}

async function current(data: string): Promise<readonly Lock[]> {
  try {
    return (await ask<{ locks: readonly Lock[] }>(data, "GET", "/v1/locks")).locks;
  } catch (thrown) {
    if (thrown instanceof SluiceError && thrown.code === "SLUICE_GATEWAY_UNREACHABLE") return openLocks(data).list();
    throw thrown;
  }
}

function duration(text: string): number {
  const millis = parseDurationMillis(text);
  if (millis === undefined || millis <= 0) throw new InvalidArgumentError("Write for example 90s, 15m or 8h.");
  return millis;
}
