import fs from "node:fs";
import path from "node:path";
import { SluiceError } from "../core/errors.ts";

/** Where everything of the store lives below the data folder. */
export const shardsFolder = (dataFolder: string): string => path.join(dataFolder, "shards");
export const shardFolder = (dataFolder: string, shard: number): string => path.join(dataFolder, "shards", String(shard));
export const segmentPath = (folder: string, segment: number): string => path.join(folder, `${String(segment).padStart(8, "0")}.journal`);
export const framesPath = (folder: string, segment: number): string => path.join(folder, `${String(segment).padStart(8, "0")}.frames`);
export const environmentFolder = (folder: string): string => path.join(folder, "lmdb");
const writerPath = (folder: string): string => path.join(folder, "writer");

/** Numbers of the shards that exist, ascending; empty where the data folder does not exist yet. */
export function listShards(dataFolder: string): number[] {
  return listNumbers(shardsFolder(dataFolder), /^(\d{1,5})$/);
}

/** Numbers of a shard's journal segments, ascending. */
export function listSegments(folder: string): number[] {
  return listNumbers(folder, /^(\d{8,10})\.journal$/);
}

/** Numbers of a shard's frames segments, ascending. */
export function listFrames(folder: string): number[] {
  return listNumbers(folder, /^(\d{8,10})\.frames$/);
}

function listNumbers(folder: string, pattern: RegExp): number[] {
  let names: string[];
  try {
    names = fs.readdirSync(folder);
  } catch (error) {
    if (errorCode(error) === "ENOENT" || errorCode(error) === "ENOTDIR") return [];
    throw error;
  }
  const numbers: number[] = [];
  for (const name of names) {
    const match = pattern.exec(name);
    if (match !== null) numbers.push(Number(match[1]));
  }
  return numbers.sort((a, b) => a - b);
}

/**
 * Create a shard's folder (0700) and take its writer mark.
 * @throws SluiceError SLUICE_STORE_UNUSABLE: not writable, or another running process writes there
 */
export function claimShard(dataFolder: string, shard: number): string {
  const folder = shardFolder(dataFolder, shard);
  try {
    fs.mkdirSync(environmentFolder(folder), { recursive: true, mode: 0o700 });
    for (const part of [shardsFolder(dataFolder), folder, environmentFolder(folder)]) fs.chmodSync(part, 0o700);
    fs.accessSync(folder, fs.constants.R_OK | fs.constants.W_OK | fs.constants.X_OK);
  } catch (error) {
    throw unusable(`the data folder ${dataFolder} cannot be used: ${describe(error)}`, error);
  }
  const other = runningWriter(folder);
  if (other !== undefined && other !== process.pid) {
    throw unusable(
      `the data folder ${dataFolder} is in use by process ${other}`,
      undefined,
      "Stop the other gateway, or give this one its own data folder.",
    );
  }
  try {
    // Written aside and renamed: a reader never sees half a mark.
    const aside = `${writerPath(folder)}.new`;
    fs.writeFileSync(aside, JSON.stringify({ pid: process.pid, started: startTicks(process.pid) }), { mode: 0o600 });
    fs.renameSync(aside, writerPath(folder));
  } catch (error) {
    throw unusable(`the data folder ${dataFolder} cannot be written: ${describe(error)}`, error);
  }
  return folder;
}

export function releaseShard(folder: string): void {
  fs.rmSync(writerPath(folder), { force: true });
}

/** Process id of the live process that writes this shard, or undefined. Start times guard against a reused id. */
export function runningWriter(folder: string): number | undefined {
  let mark: unknown;
  try {
    mark = JSON.parse(fs.readFileSync(writerPath(folder), "utf8"));
  } catch {
    return undefined;
  }
  if (typeof mark !== "object" || mark === null || !("pid" in mark) || typeof mark.pid !== "number") return undefined;
  try {
    process.kill(mark.pid, 0);
  } catch (error) {
    if (errorCode(error) === "ESRCH") return undefined;
  }
  const started = "started" in mark && typeof mark.started === "string" ? mark.started : "";
  return started === "" || started === startTicks(mark.pid) ? mark.pid : undefined;
}

/** Field 22 of /proc/<pid>/stat (proc_pid_stat(5)): clock ticks after boot at which the process started; empty where there is no /proc. */
function startTicks(pid: number): string {
  try {
    const stat = fs.readFileSync(`/proc/${pid}/stat`, "utf8");
    return stat.slice(stat.lastIndexOf(")") + 2).split(" ")[19] ?? "";
  } catch {
    return "";
  }
}

export function errorCode(error: unknown): string {
  return error instanceof Error && "code" in error && typeof error.code === "string" ? error.code : "";
}

export function describe(error: unknown): string {
  return error instanceof Error ? error.message : String(error);
}

export function unusable(message: string, cause: unknown, hint = "Check the folder's owner, mode and free space."): SluiceError {
  return new SluiceError("SLUICE_STORE_UNUSABLE", message, cause === undefined ? { hint } : { hint, cause });
}
