import { readFileSync } from "node:fs";
import { Command, CommanderError } from "commander";
import { addAuditCommands } from "./audit.ts";
import { addConnectCommand } from "./connect.ts";
import { fail } from "./context.ts";
import { addDoctorCommand } from "./doctor.ts";
import { addLockCommands } from "./locks.ts";
import { addPolicyCommands } from "./policy.ts";
import { addServeCommand } from "./serve.ts";
import { addSessionCommands } from "./sessions.ts";

// `sluice audit tail | head`: the reader has had enough, which is not an error.
process.stdout.on("error", (error: NodeJS.ErrnoException) => {
  if (error.code === "EPIPE") process.exit(0);
  throw error;
});

const { version } = JSON.parse(readFileSync(new URL("../../package.json", import.meta.url), "utf8")) as { version: string };

const program = new Command("sluice")
  .description("Layer-7 access gateway: identity, policy, masking and evidence for native clients.")
  .version(version)
  .showHelpAfterError("hint: `sluice help COMMAND` lists its options.")
  .exitOverride();

addServeCommand(program);
addPolicyCommands(program);
addConnectCommand(program);
addSessionCommands(program);
addLockCommands(program);
addAuditCommands(program);
addDoctorCommand(program);

try {
  await program.parseAsync();
} catch (thrown) {
  // Commander has printed its own message already.
  if (thrown instanceof CommanderError) process.exitCode = thrown.exitCode;
  else fail(thrown);
}
