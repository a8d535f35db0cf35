import { setTimeout } from "node:timers/promises";
import { relayCases } from "./micro-relay.ts";

// Bytes of heap that one query takes on its way through the relay, as JSON on stdout. Run with --expose-gc and a young
// generation so large that nothing is collected meanwhile (heap.test.ts).
const collect = globalThis.gc;
if (collect === undefined) throw new Error("run this with --expose-gc");
const QUERIES = 1_000;

const { cases, close } = await relayCases();
const measured: Record<string, number> = {};
for (const { name, operations, run } of cases) {
  const turns = Math.ceil(QUERIES / operations);
  const rounds: number[] = [];
  for (let round = 0; round < 20; round += 1) {
    // Code that is not optimised yet allocates more, and the compiler has to share a busy machine.
    for (let turn = 0; turn < 300; turn += 1) run();
    await setTimeout(25);
    collect();
    const before = process.memoryUsage().heapUsed;
    for (let turn = 0; turn < turns; turn += 1) run();
    rounds.push((process.memoryUsage().heapUsed - before) / (turns * operations));
  }
  measured[name] = Math.round(Math.min(...rounds));
}
await close?.();
console.log(JSON.stringify(measured));
