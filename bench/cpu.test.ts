import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { once } from "node:events";
import { test } from "node:test";
import { parseStat, residentBytes, treeCpuSeconds } from "./cpu.ts";

test("a process name with spaces and parentheses does not shift the fields", () => {
  const line = "42 (a (b) c) S 7 42 42 0 -1 4194560 1 2 3 4 100 20 3 4 20 0 1 0 5 6 7";
  assert.deepEqual(parseStat(line), { parent: 7, user: 103, system: 24 });
});

test("the CPU of children counts, of running and of ended ones", async () => {
  const burn = "const end = process.cpuUsage().user + 300_000; while (process.cpuUsage().user < end);";
  // A shell that burns nothing itself: one child ends before the measurement, the other is still there.
  const script = '"$0" -e "$1"; "$0" -e "$1; console.log(1); setInterval(() => undefined, 1000)" & wait';
  const shell = spawn("sh", ["-c", script, process.execPath, burn], { stdio: ["ignore", "pipe", "inherit"], detached: true });
  try {
    await once(shell.stdout, "data");
    const { user, system } = treeCpuSeconds(shell.pid ?? 0);
    const seconds = user + system;
    assert.ok(seconds >= 0.58 && seconds < 5, `${seconds} s`);
  } finally {
    process.kill(-(shell.pid ?? 0), "SIGKILL");
  }
  await once(shell, "exit");
  assert.throws(() => treeCpuSeconds(shell.pid ?? 0), /is gone/);
});

test("resident memory is that of this process", () => {
  const bytes = residentBytes(process.pid);
  assert.ok(bytes > 10_000_000 && bytes < 10_000_000_000, `${bytes}`);
});
