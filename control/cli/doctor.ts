import type { Command } from "commander";
import { oneLine } from "../../core/printable.ts";
import { type Common, command, print, printJson, run, wantsJson } from "./context.ts";

export function addDoctorCommand(program: Command): void {
  command(program, "doctor", "what is missing or unwise on this machine; exit 1 when something will not work").action(
    run(async (options: Common) => {
      const { examine } = await import("./examine.ts");
      const findings = await examine(options.config);
      if (wantsJson(options)) printJson(findings);
      else for (const { status, check, detail } of findings) print(`${status.padEnd(4)}  ${check.padEnd(18)}  ${oneLine(detail)}`);
      if (findings.some((finding) => finding.status === "fail")) process.exitCode = 1;
    }),
  );
}
