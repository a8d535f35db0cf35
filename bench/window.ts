import { setTimeout as sleep } from "node:timers/promises";
import { type CpuSeconds, treeCpuSeconds } from "./cpu.ts";
import type { Mode } from "./modes.ts";

/** What a proxy puts off until it has time (writing records, hashing) is to count; an idle proxy uses nothing meanwhile. */
const SETTLE_MILLIS = 300;
const TINY_SETTLE_MILLIS = 50;

/**
 * Run something and take the CPU that the mode's proxy used for it; undefined where there is no proxy.
 * @param tiny the run is a test of the suite
 */
export async function withCpu<T>(mode: Mode, action: () => Promise<T>, tiny = false): Promise<{ result: T; cpu: CpuSeconds | undefined }> {
  const settleMillis = tiny ? TINY_SETTLE_MILLIS : SETTLE_MILLIS;
  await sleep(settleMillis);
  const before = mode.pid === undefined ? undefined : treeCpuSeconds(mode.pid);
  const result = await action();
  await sleep(settleMillis);
  const after = mode.pid === undefined ? undefined : treeCpuSeconds(mode.pid);
  if (before === undefined || after === undefined) return { result, cpu: undefined };
  return { result, cpu: { user: after.user - before.user, system: after.system - before.system } };
}
