import { steps } from "./steps.ts";

// `npm run check`: one line a step, what is wrong below it; status 1 if anything is.
let failed = 0;
for (const step of steps) {
  const started = performance.now();
  const problems = await step.problems();
  const seconds = ((performance.now() - started) / 1_000).toFixed(1);
  console.log(`${problems === "" ? "✓" : "✗"} ${step.name.padEnd(12)} ${seconds.padStart(5)} s`);
  if (problems === "") continue;
  failed++;
  console.log(problems.replace(/^/gm, "    "));
}
process.exitCode = failed === 0 ? 0 : 1;
