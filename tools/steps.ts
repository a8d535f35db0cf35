import { spawn } from "node:child_process";
import { join } from "node:path";
import { type Finding, projectFiles, readProjectFile, root, show } from "./files.ts";
import { houseFindings } from "./house.ts";
import { importFindings } from "./imports.ts";

/** One thing that `npm run check` looks at. */
export interface Step {
  readonly name: string;
  /** What is wrong, ready to print; empty when all is well. */
  readonly problems: () => Promise<string>;
}

export const steps: readonly Step[] = [
  { name: "format", problems: () => tool("biome", ["check", "--colors=off", "--reporter=summary", "--error-on-warnings", "."]) },
  { name: "lint", problems: () => tool("oxlint", ["--deny-warnings"]) },
  { name: "types", problems: () => tool("tsc", ["-p", "."]) },
  { name: "imports", problems: () => each(/(?<!^tools\/house\.test)\.ts$/, (file, bytes) => importFindings(file, bytes.toString())) },
  { name: "house rules", problems: () => each(/./, houseFindings) },
  { name: "dead code", problems: () => tool("knip", ["--no-progress", "--no-config-hints"]) },
];

async function each(names: RegExp, look: (file: string, bytes: Buffer) => readonly Finding[]): Promise<string> {
  const findings = projectFiles()
    .filter((file) => names.test(file))
    .flatMap((file) => look(file, readProjectFile(file)));
  return findings.map(show).join("\n");
}

/** Run one of node_modules/.bin with the pinned Node.js first in PATH, as their scripts say `env node`. */
function tool(name: string, args: readonly string[]): Promise<string> {
  const bin = join(root, "node_modules/.bin");
  return new Promise((resolve, reject) => {
    const child = spawn(join(bin, name), args, {
      cwd: root,
      env: { ...process.env, PATH: `${bin}:${process.env.PATH}`, NO_COLOR: "1" },
      stdio: ["ignore", "pipe", "pipe"],
    });
    const chunks: Buffer[] = [];
    child.stdout.on("data", (chunk: Buffer) => chunks.push(chunk));
    child.stderr.on("data", (chunk: Buffer) => chunks.push(chunk));
    child.once("error", reject);
    child.once("close", (code) => resolve(code === 0 ? "" : Buffer.concat(chunks).toString().trim() || `${name} ended with ${code}`));
  });
}
