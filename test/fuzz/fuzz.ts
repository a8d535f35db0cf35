import { parseArgs } from "node:util";
import { SluiceError } from "../../core/errors.ts";
import { Random } from "./random.ts";
import { startupTarget } from "./startup.ts";
import { type FuzzTarget, MEMORY_MIB, memoryTargets } from "./targets.ts";

// Feeds random input to the parsers for a while. Usage: node test/fuzz/fuzz.ts [--seed N] [--seconds S] [--target NAME] [--canary]
// Every run of a target has a seed of its own, which a finding names: --seed N --target NAME --once repeats it.
// Exit status: 0 nothing found, 1 found something. A hang is for the caller to notice: give the process a deadline.

/** One run that takes longer is a finding. */
const SLOW_MILLIS = 2_000;
const { values: options } = parseArgs({
  options: {
    seed: { type: "string", default: "1" },
    seconds: { type: "string", default: "5" },
    target: { type: "string" },
    once: { type: "boolean", default: false },
    canary: { type: "boolean", default: false },
  },
});

const all = options.canary ? await memoryTargets(true) : [...(await memoryTargets(false)), startupTarget()];
const targets = all.filter((target) => options.target === undefined || target.name === options.target);
const firstSeed = Number(options.seed) >>> 0;
const until = performance.now() + Number(options.seconds) * 1_000;
const residentBefore = process.memoryUsage.rss() / 1024 / 1024;
const runs = new Map(targets.map((target) => [target.name, 0]));
let lastReport = performance.now();
let findings = 0;

for (let round = 0; findings === 0 && performance.now() < until; round += 1) {
  for (const target of targets) {
    const seed = (firstSeed + Math.imul(round, 0x9e37_79b9)) >>> 0;
    await once(target, seed);
    if (findings > 0) break;
  }
  if (options.once) break;
  if (performance.now() - lastReport < 10_000) continue;
  lastReport = performance.now();
  console.log(summary());
}
await Promise.all(all.map((target) => target.close?.()));
const grown = process.memoryUsage.rss() / 1024 / 1024 - residentBefore;
if (grown > MEMORY_MIB + 200) found("memory", firstSeed, new Error(`resident memory grew by ${Math.round(grown)} MiB`));
console.log(summary());
process.exit(findings > 0 ? 1 : 0);

async function once(target: FuzzTarget, seed: number): Promise<void> {
  const started = performance.now();
  try {
    await target.run(new Random(seed));
  } catch (error) {
    if (!(error instanceof SluiceError) || error.code === "SLUICE_INTERNAL") found(target.name, seed, error);
  }
  const took = performance.now() - started;
  if (took > SLOW_MILLIS) found(target.name, seed, new Error(`one run took ${Math.round(took)} ms`));
  runs.set(target.name, (runs.get(target.name) ?? 0) + 1);
}

function found(name: string, seed: number, error: unknown): void {
  findings += 1;
  console.log(`FOUND ${name} --seed ${seed}: ${error instanceof Error ? (error.stack ?? error.message) : String(error)}`);
}

function summary(): string {
  return `fuzz: ${[...runs].map(([name, count]) => `${name} ${count}`).join(", ")} runs, ${findings} findings`;
}
