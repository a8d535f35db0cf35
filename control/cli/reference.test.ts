import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { it } from "node:test";
import { Command } from "commander";
import { ERROR_CODES } from "../../core/errors.ts";
import { FAMILIES } from "../../core/policy/actions.ts";
import { createMetrics } from "../metrics.ts";
import { addAuditCommands } from "./audit.ts";
import { addConnectCommand } from "./connect.ts";
import { addDoctorCommand } from "./doctor.ts";
import { addLockCommands } from "./locks.ts";
import { addPolicyCommands } from "./policy.ts";
import { addServeCommand } from "./serve.ts";
import { addSessionCommands } from "./sessions.ts";

const reference = readFileSync(join(import.meta.dirname, "..", "..", "docs", "REFERENCE.md"), "utf8");

it("names every error code with its exit status, and no other", () => {
  const documented = Object.fromEntries(
    [...reference.matchAll(/^\| `(SLUICE_\w+)` *\| *(\d) *\|/gm)].map((match) => [match[1], Number(match[2])]),
  );
  assert.deepEqual(documented, { ...ERROR_CODES });
});

it("names every metric, and no other", async () => {
  const text = await createMetrics({ process: false }).text();
  const made = [...text.matchAll(/^# TYPE (\w+)/gm)].map((match) => match[1]);
  const documented = [...reference.matchAll(/^\| `(sluice_\w+)`/gm)].map((match) => match[1]);
  assert.deepEqual(documented.toSorted(), made.toSorted());
});

it("names every action under its class", () => {
  for (const [family, verbs] of Object.entries(FAMILIES)) {
    for (const [verb, actionClass] of Object.entries(verbs)) {
      assert.match(reference, new RegExp(`^\\| ${actionClass} *\\|.*\`${family}:${verb}\``, "m"), `${family}:${verb}`);
    }
  }
});

it("names every command with every option, and no other command", () => {
  const program = new Command("sluice");
  for (const add of [
    addServeCommand,
    addPolicyCommands,
    addConnectCommand,
    addSessionCommands,
    addLockCommands,
    addAuditCommands,
    addDoctorCommand,
  ])
    add(program);
  const leaves = (command: Command): Command[] => (command.commands.length === 0 ? [command] : command.commands.flatMap(leaves));
  const path = (command: Command): string => (command.parent === null ? command.name() : `${path(command.parent)} ${command.name()}`);
  const rows = new Map([...reference.matchAll(/^\| `(sluice [a-z]+(?: [a-z]+)?)\b.*$/gm)].map((match) => [match[1] ?? "", match[0]]));
  for (const command of leaves(program)) {
    const row = rows.get(path(command));
    assert.ok(row !== undefined, `${path(command)} is missing`);
    rows.delete(path(command));
    for (const option of command.options) {
      if (option.long === "--config" || option.long === "--output") continue;
      assert.ok(row.includes(option.long ?? ""), `${path(command)}: ${option.long} is missing`);
    }
  }
  assert.deepEqual([...rows.keys()], []);
});
