import { execFileSync } from "node:child_process";
import { readFileSync } from "node:fs";
import { arch, availableParallelism, cpus, release, totalmem } from "node:os";

/** What a figure depends on besides the code. */
export interface MachineFacts {
  readonly date: string;
  readonly cpu: string;
  readonly cores: number;
  readonly memoryGib: number;
  readonly kernel: string;
  readonly system: string;
  readonly architecture: string;
  readonly node: string;
  readonly postgres: string;
  readonly pgbench: string;
  readonly pgbouncer: string;
  readonly haproxy: string;
  /** One-minute load average before the first run: other work on the machine spoils the figures. */
  readonly loadBefore: number;
  readonly commit: string;
}

export function machineFacts(now: Date): MachineFacts {
  return {
    date: now.toISOString(),
    cpu: cpus()[0]?.model.trim() ?? "unknown",
    cores: availableParallelism(),
    memoryGib: Math.round(totalmem() / 2 ** 30),
    kernel: release(),
    system: /^PRETTY_NAME="?([^"\n]*)/m.exec(attempt(() => readFileSync("/etc/os-release", "utf8")))?.[1] ?? "unknown",
    architecture: arch(),
    node: process.version,
    postgres: firstLine("/usr/lib/postgresql/15/bin/postgres", "--version"),
    pgbench: firstLine("pgbench", "--version"),
    pgbouncer: firstLine("/usr/sbin/pgbouncer", "--version"),
    haproxy: firstLine("/usr/sbin/haproxy", "-v"),
    loadBefore: Number(attempt(() => readFileSync("/proc/loadavg", "utf8")).split(" ")[0]),
    commit: firstLine("git", "describe", "--always", "--dirty"),
  };
}

function attempt(read: () => string): string {
  try {
    return read();
  } catch {
    return "";
  }
}

function firstLine(command: string, ...args: string[]): string {
  return (
    attempt(() => execFileSync(command, args, { cwd: import.meta.dirname, encoding: "utf8", stdio: ["ignore", "pipe", "ignore"] }))
      .split("\n")[0]
      ?.trim() || "unknown"
  );
}
