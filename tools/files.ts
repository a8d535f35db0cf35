import { execFileSync } from "node:child_process";
import { existsSync, readFileSync, statSync } from "node:fs";
import { join } from "node:path";

export const root = join(import.meta.dirname, "..");

/** Files of the project, relative to its root: what git tracks and what it would add. */
export function projectFiles(): readonly string[] {
  const listed = execFileSync("git", ["ls-files", "-z", "--cached", "--others", "--exclude-standard"], { cwd: root, maxBuffer: 1 << 26 });
  const names = new Set(listed.toString().split("\0"));
  return [...names].filter((name) => name !== "" && existsSync(join(root, name)) && statSync(join(root, name)).isFile()).sort();
}

export const readProjectFile = (name: string): Buffer => readFileSync(join(root, name));

/** Where in a file something is wrong, and what to do instead. */
export interface Finding {
  readonly file: string;
  readonly line: number;
  readonly message: string;
}

export const show = (finding: Finding): string => `${finding.file}:${finding.line} ${finding.message}`;

/** One-based line of an offset. */
export function lineOf(text: string, offset: number): number {
  let line = 1;
  for (let at = text.indexOf("\n"); at !== -1 && at < offset; at = text.indexOf("\n", at + 1)) line++;
  return line;
}
