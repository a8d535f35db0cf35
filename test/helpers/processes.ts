import { type ChildProcess, type SpawnOptions, spawn } from "node:child_process";
import { once } from "node:events";
import { chmodSync, chownSync, lstatSync, mkdirSync, mkdtempSync, readdirSync, rmSync } from "node:fs";
import { connect, createServer } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { fileURLToPath } from "node:url";

/** The repository's root. */
export const rootFolder = fileURLToPath(new URL("../..", import.meta.url)).replace(/\/$/, "");

/** The Node.js that the project pins, whatever the system's own is. */
export const nodeBinary = join(rootFolder, "node_modules/.bin/node");

export interface Account {
  readonly uid: number;
  readonly gid: number;
}

/** Whom to run servers as that refuse root: nobody. undefined: this process is not root and may run them itself. */
export function unprivileged(): Account | undefined {
  return process.getuid?.() === 0 ? { uid: 65534, gid: 65534 } : undefined;
}

const folderPattern = /^sluice-test-(\d+)-/;

/** Folders of runs that crashed: their process is gone, so nobody else removes them. */
function sweepLeftovers(): void {
  for (const name of readdirSync(tmpdir())) {
    const pid = folderPattern.exec(name)?.[1];
    if (pid === undefined || isAlive(Number(pid))) continue;
    try {
      const path = join(tmpdir(), name);
      if (lstatSync(path).uid === process.getuid?.()) rmSync(path, { recursive: true, force: true });
    } catch {
      // another run sweeps at the same time
    }
  }
}

export function isAlive(pid: number): boolean {
  try {
    process.kill(pid, 0);
    return true;
  } catch (error) {
    return (error as NodeJS.ErrnoException).code === "EPERM";
  }
}

/** `kill -9`, and wait until nothing of it is left. */
export async function killed(child: ChildProcess): Promise<void> {
  const closed = once(child, "close");
  child.kill("SIGKILL");
  await closed;
}

let swept = false;

/** A fresh folder in the system's temporary folder; what is left of it after a crash goes with the next run. */
export function temporaryFolder(label: string, owner?: Account): string {
  if (!swept) {
    swept = true;
    sweepLeftovers();
  }
  const folder = mkdtempSync(join(tmpdir(), `sluice-test-${process.pid}-${label}-`));
  // The parent stays root's, so that its name remains ours to sweep; the server owns what is inside.
  if (owner === undefined) return folder;
  const inner = join(folder, "owned");
  chmodSync(folder, 0o711);
  mkdirSync(inner, { mode: 0o755 });
  chownSync(inner, owner.uid, owner.gid);
  return inner;
}

export function removeFolder(folder: string): void {
  rmSync(folder.replace(/\/owned$/, ""), { recursive: true, force: true });
}

/** A loopback TCP port that was free a moment ago. Prefer port 0 where the server can report what it got. */
export function freePort(): Promise<number> {
  return new Promise((resolve, reject) => {
    const probe = createServer();
    probe.once("error", reject);
    probe.listen(0, "127.0.0.1", () => {
      const address = probe.address();
      probe.close(() => (typeof address === "object" && address ? resolve(address.port) : reject(new Error("no port was bound"))));
    });
  });
}

export interface TiedOptions extends SpawnOptions {
  /** Sent to the process when the one that started it dies, however it dies. Default SIGTERM. */
  readonly deathSignal?: NodeJS.Signals;
  readonly account?: Account | undefined;
}

/**
 * Start a server that ends with this process, even after a crash: prctl(2) PR_SET_PDEATHSIG through setpriv(1).
 * It gets a session of its own, so that Ctrl-C reaches only us and we decide the order in which things end.
 */
export function spawnTied(command: string, args: readonly string[], options: TiedOptions = {}): ChildProcess {
  const { deathSignal = "SIGTERM", account, ...rest } = options;
  const identity = account === undefined ? [] : [`--reuid=${account.uid}`, `--regid=${account.gid}`, "--clear-groups"];
  return spawn("setpriv", [...identity, "--pdeathsig", deathSignal.slice(3), "--", command, ...args], {
    stdio: ["ignore", "pipe", "pipe"],
    detached: true,
    ...rest,
  });
}

/** Resolves when the process has ended, however it did; at once if it already has. */
export function ended(child: ChildProcess): Promise<void> {
  if (child.exitCode !== null || child.signalCode !== null) return Promise.resolve();
  return new Promise((resolve) => {
    child.once("exit", () => resolve());
  });
}

/** Ask a process to end; after graceMillis it is killed. */
export async function stopProcess(child: ChildProcess, signal: NodeJS.Signals = "SIGTERM", graceMillis = 5_000): Promise<void> {
  if (child.pid === undefined || child.exitCode !== null || child.signalCode !== null) return;
  child.kill(signal);
  const timer = setTimeout(() => child.kill("SIGKILL"), graceMillis);
  await ended(child);
  clearTimeout(timer);
}

export interface CommandResult {
  readonly stdout: string;
  readonly stderr: string;
  /** Exit status; 128 + the signal's number where a signal ended it. */
  readonly code: number;
}

export interface CommandOptions {
  /** Added to this process's environment; undefined takes a variable away. */
  readonly env?: Readonly<Record<string, string | undefined>>;
  readonly input?: string;
  readonly cwd?: string;
  /** After this the command is killed. Default 30,000. */
  readonly timeoutMillis?: number;
  readonly account?: Account | undefined;
}

/** Run a command to its end. It does not throw on a non-zero status; it throws when the command cannot be started. */
export function run(command: string, args: readonly string[], options: CommandOptions = {}): Promise<CommandResult> {
  return new Promise((resolve, reject) => {
    const child = spawn(command, args, {
      cwd: options.cwd,
      env: { ...process.env, ...options.env },
      stdio: ["pipe", "pipe", "pipe"],
      ...options.account,
    });
    const out: Buffer[] = [];
    const err: Buffer[] = [];
    child.stdout.on("data", (chunk: Buffer) => out.push(chunk));
    child.stderr.on("data", (chunk: Buffer) => err.push(chunk));
    const timer = setTimeout(() => child.kill("SIGKILL"), options.timeoutMillis ?? 30_000);
    child.once("error", (error) => {
      clearTimeout(timer);
      reject(error);
    });
    child.once("close", (code, signal) => {
      clearTimeout(timer);
      const status = code ?? 128 + (signal === "SIGKILL" ? 9 : signal === "SIGTERM" ? 15 : 1);
      resolve({ stdout: Buffer.concat(out).toString(), stderr: Buffer.concat(err).toString(), code: status });
    });
    child.stdin.on("error", () => undefined); // the command may end without reading its input
    child.stdin.end(options.input ?? "");
  });
}

/** Run a command that has to succeed; the error carries what it printed. */
export async function mustRun(command: string, args: readonly string[], options: CommandOptions = {}): Promise<CommandResult> {
  const result = await run(command, args, options);
  if (result.code !== 0) throw new Error(`${command} ended with ${result.code}: ${result.stderr || result.stdout}`);
  return result;
}

/** Poll until check() gives something other than undefined or false. @throws when timeoutMillis have passed */
export async function waitFor<T>(
  what: string,
  check: () => Promise<T | undefined | false> | T | undefined | false,
  timeoutMillis = 10_000,
): Promise<T> {
  const deadline = Date.now() + timeoutMillis;
  for (;;) {
    const value = await check();
    if (value !== undefined && value !== false) return value;
    if (Date.now() > deadline) throw new Error(`${what}: not within ${timeoutMillis} ms`);
    await sleep(10);
  }
}

/** Whether somebody listens at this port of 127.0.0.1. */
export function accepts(port: number): Promise<boolean> {
  return new Promise((resolve) => {
    const socket = connect(port, "127.0.0.1");
    socket.once("connect", () => {
      socket.destroy();
      resolve(true);
    });
    socket.once("error", () => resolve(false));
  });
}
