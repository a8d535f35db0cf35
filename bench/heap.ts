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
  // The code must have been compiled: the compilers allocate as well.
  for (let turn = 0; turn < 3_000; turn += 1) run();
  const rounds: number[] = [];
  for (let round = 0; round < 5; round += 1) {
    collect();
    const before = process.memoryUsage().heapUsed;
    for (let turn = 0; turn < turns; turn += 1) run();
    rounds.push((process.memoryUsage().heapUsed - before) / (turns * operations));
  }
  measured[name] = Math.round(rounds.sort((a, b) => a - b)[2] ?? Number.NaN);
}
await close?.();
console.log(JSON.stringify(measured));
