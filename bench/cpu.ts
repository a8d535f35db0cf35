import { readdirSync, readFileSync } from "node:fs";

/**
 * Clock ticks a second of the times in /proc/<pid>/stat: USER_HZ, which is 100 on every architecture that Linux presents to
 * user space (proc_pid_stat(5), sysconf(3) _SC_CLK_TCK). One tick is 10 ms.
 */
const TICKS_PER_SECOND = 100;

interface ProcessTimes {
  readonly parent: number;
  /** In clock ticks. */
  readonly user: number;
  readonly system: number;
}

/** CPU time in seconds. */
export interface CpuSeconds {
  readonly user: number;
  /** In the kernel: system calls, and what they set off, as the delivery of a packet over loopback. */
  readonly system: number;
}

/**
 * CPU time that a process and all its descendants have used: utime and stime of every process,
 * which cover all its threads, also ended ones, and cutime and cstime, which cover descendants that have ended and been waited for.
 * @throws when the process does not exist
 */
export function treeCpuSeconds(pid: number): CpuSeconds {
  let user = 0;
  let system = 0;
  for (const times of tree(pid).values()) {
    user += times.user;
    system += times.system;
  }
  return { user: user / TICKS_PER_SECOND, system: system / TICKS_PER_SECOND };
}

/**
 * Memory of a process and all its descendants in bytes: the proportional set size (proc_pid_smaps(5)), in which pages that several
 * processes share count once. Buffers of sockets are the kernel's and not in it.
 * @throws when the process does not exist, or is another user's
 */
export function treeMemoryBytes(pid: number): number {
  let kibibytes = 0;
  for (const each of tree(pid).keys()) {
    const found = /^Pss:\s+(\d+) kB$/m.exec(readFileSync(`/proc/${each}/smaps_rollup`, "utf8"));
    if (found === null) throw new Error(`process ${each} has no memory`);
    kibibytes += Number(found[1]);
  }
  return kibibytes * 1_024;
}

function tree(pid: number): ReadonlyMap<number, ProcessTimes> {
  const all = new Map<number, ProcessTimes>();
  for (const name of readdirSync("/proc")) {
    if (!/^\d+$/.test(name)) continue;
    const times = readTimes(Number(name));
    if (times !== undefined) all.set(Number(name), times);
  }
  if (!all.has(pid)) throw new Error(`process ${pid} is gone`);
  return new Map([...all].filter(([candidate]) => descendsFrom(candidate, pid, all)));
}

function descendsFrom(pid: number, ancestor: number, all: ReadonlyMap<number, ProcessTimes>): boolean {
  for (let at: number | undefined = pid; at !== undefined && at > 0; at = all.get(at)?.parent) if (at === ancestor) return true;
  return false;
}

function readTimes(pid: number): ProcessTimes | undefined {
  try {
    return parseStat(readFileSync(`/proc/${pid}/stat`, "utf8"));
  } catch {
    return undefined; // it ended meanwhile
  }
}

/** One line of /proc/<pid>/stat. Field 2, the name in parentheses, may hold spaces and parentheses; the rest follows its last one. */
export function parseStat(line: string): ProcessTimes {
  const fields = line.slice(line.lastIndexOf(")") + 2).split(" ");
  // proc_pid_stat(5) counts from 1; the slice starts with field 3.
  const field = (number: number): number => Number(fields[number - 3]);
  return { parent: field(4), user: field(14) + field(16), system: field(15) + field(17) };
}

/** Resident memory of one process in bytes, as it stands now (VmRSS of /proc/<pid>/status). */
export function residentBytes(pid: number): number {
  const line = /^VmRSS:\s+(\d+) kB$/m.exec(readFileSync(`/proc/${pid}/status`, "utf8"));
  if (line === null) throw new Error(`process ${pid} has no memory`);
  return Number(line[1]) * 1_024;
}
