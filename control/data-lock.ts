import { chmodSync, linkSync, mkdirSync, readFileSync, renameSync, unlinkSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { SluiceError } from "../core/errors.ts";

export const DATA_LOCK_FILE = "gateway.lock";
/** The control API's socket in the data folder. */
export const SOCKET_FILE = "control.sock";

interface Holder {
  readonly pid: number;
  /** Distinguishes a process from a later one with the same id; empty where the system does not tell. */
  readonly started: string;
}

export interface DataLock {
  /** Idempotent. */
  release(): void;
}

/** Data folders this process holds, with how often. */
const held = new Map<string, number>();

/**
 * Take the data folder for this process; creates it 0700. Taking it again in the same process counts and needs as many releases.
 * A lock whose process has ended is taken over.
 * @throws SluiceError SLUICE_DATA_IN_USE when another live process holds it, SLUICE_STORE_UNUSABLE when the folder cannot be written
 */
export function lockDataFolder(dataFolder: string): DataLock {
  const file = join(dataFolder, DATA_LOCK_FILE);
  const count = held.get(file) ?? 0;
  if (count === 0) take(dataFolder, file);
  held.set(file, count + 1);
  let released = false;
  return {
    release() {
      if (released) return;
      released = true;
      const left = (held.get(file) ?? 1) - 1;
      if (left > 0) {
        held.set(file, left);
        return;
      }
      held.delete(file);
      if (read(file)?.pid === process.pid) unlinkQuietly(file);
    },
  };
}

/** The live process that holds the data folder, or undefined. */
export function dataFolderHolder(dataFolder: string): number | undefined {
  const holder = read(join(dataFolder, DATA_LOCK_FILE));
  return holder !== undefined && isAlive(holder) ? holder.pid : undefined;
}

function take(dataFolder: string, file: string): void {
  const own = `${file}.${process.pid}`;
  try {
    mkdirSync(dataFolder, { recursive: true, mode: 0o700 });
    chmodSync(dataFolder, 0o700);
    writeFileSync(own, JSON.stringify({ pid: process.pid, started: startOf(process.pid) } satisfies Holder), { mode: 0o600 });
  } catch (thrown) {
    throw new SluiceError("SLUICE_STORE_UNUSABLE", `the data folder ${dataFolder} cannot be written (${codeOf(thrown)})`, {
      hint: "Check its owner, mode and free space.",
      cause: thrown,
    });
  }
  try {
    // link(2) fails if the name exists: of several processes exactly one gets it, and its content is complete at once.
    for (let attempt = 0; attempt < 3; attempt++) {
      try {
        linkSync(own, file);
        return;
      } catch (thrown) {
        if (codeOf(thrown) !== "EEXIST") throw thrown;
      }
      const holder = read(file);
      if (holder !== undefined && isAlive(holder)) throw inUse(dataFolder, holder.pid);
      // Moved aside, then looked at: somebody else may have taken the stale lock over in between.
      const aside = `${own}.stale`;
      try {
        renameSync(file, aside);
      } catch (thrown) {
        if (codeOf(thrown) === "ENOENT") continue;
        throw thrown;
      }
      const moved = read(aside);
      if (moved !== undefined && isAlive(moved)) {
        renameSync(aside, file);
        throw inUse(dataFolder, moved.pid);
      }
      unlinkQuietly(aside);
    }
    throw inUse(dataFolder, read(file)?.pid ?? 0);
  } finally {
    unlinkQuietly(own);
  }
}

const inUse = (dataFolder: string, pid: number): SluiceError =>
  new SluiceError("SLUICE_DATA_IN_USE", `the data folder ${dataFolder} is in use by the gateway with process id ${pid}`, {
    hint: "Stop that gateway, or give this one another data folder (key data).",
  });

function read(file: string): Holder | undefined {
  try {
    const { pid, started } = JSON.parse(readFileSync(file, "utf8")) as Partial<Holder>;
    return Number.isSafeInteger(pid) && typeof pid === "number" && pid > 0
      ? { pid, started: typeof started === "string" ? started : "" }
      : undefined;
  } catch {
    return undefined;
  }
}

function isAlive({ pid, started }: Holder): boolean {
  try {
    process.kill(pid, 0);
  } catch (thrown) {
    // EPERM: it lives and belongs to somebody else.
    if (codeOf(thrown) === "ESRCH") return false;
  }
  return started === "" || started === startOf(pid);
}

/** Boot time and start time of a process (proc_pid_stat(5), field 22); empty where there is no /proc. */
function startOf(pid: number): string {
  try {
    const stat = readFileSync(`/proc/${pid}/stat`, "utf8");
    const boot = readFileSync("/proc/sys/kernel/random/boot_id", "utf8").trim();
    return `${boot}/${stat.slice(stat.lastIndexOf(")") + 2).split(" ")[19] ?? ""}`;
  } catch {
    return "";
  }
}

const codeOf = (thrown: unknown): string => (thrown as NodeJS.ErrnoException).code ?? "unknown error";

function unlinkQuietly(file: string): void {
  try {
    unlinkSync(file);
  } catch {
    // Already gone, which is what was wanted.
  }
}
