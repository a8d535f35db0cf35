import { createHash } from "node:crypto";
import { existsSync, lstatSync, mkdirSync, renameSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";

/** A short name for what a cached thing was made from. */
export const keyOf = (...parts: string[]): string => createHash("sha256").update(parts.join("\0")).digest("hex").slice(0, 12);

/** Shared by all runs of this user. A folder of that name that somebody else made is not used. */
export function cacheFolder(): string {
  const uid = process.getuid?.() ?? 0;
  const folder = join(tmpdir(), `sluice-cache-${uid}`);
  mkdirSync(folder, { recursive: true, mode: 0o755 });
  const found = lstatSync(folder);
  if (!found.isDirectory() || found.uid !== uid) throw new Error(`${folder} belongs to somebody else; set TMPDIR to a folder of your own`);
  return folder;
}

/** Whoever renames first wins; the others throw their draft away. */
export function publish(draft: string, final: string): void {
  try {
    renameSync(draft, final);
  } catch (error) {
    rmSync(draft, { recursive: true, force: true });
    if (!existsSync(final)) throw error;
  }
}
