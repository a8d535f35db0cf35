import { spawn } from "node:child_process";
import { join } from "node:path";
import { projectFiles, root } from "./files.ts";

// `npm test`: every *.test.ts under node's own test runner, whose summary is the last thing printed. The checks of
// `npm run check` are among them (tools/check.test.ts). Words after `--` pick files whose path contains one of them; options go to node.
const words = process.argv.slice(2);
const options = words.filter((word) => word.startsWith("-"));
const filters = words.filter((word) => !word.startsWith("-"));

const isIntegration = (file: string): boolean => file.startsWith("test/");
const all = projectFiles().filter((file) => file.endsWith(".test.ts"));
const picked = all.filter((file) => filters.length === 0 || filters.some((filter) => file.includes(filter)));
if (picked.length === 0) {
  console.error(`no test file matches ${filters.join(" ")}`);
  process.exit(1);
}
// The quick ones first. Two files at a time: those in test/ start servers, and time what they do.
const ordered = [...picked.filter((file) => !isIntegration(file)), ...picked.filter(isIntegration)];
const flags = ["--test", "--test-reporter=spec", "--test-concurrency=2", "--test-timeout=600000", ...options];
const child = spawn(process.execPath, [...flags, ...ordered], {
  cwd: root,
  stdio: "inherit",
  env: { ...process.env, PATH: `${join(root, "node_modules/.bin")}:${process.env.PATH}` },
});

for (const signal of ["SIGINT", "SIGTERM"] as const) process.on(signal, () => child.kill(signal));
child.once("exit", (code, signal) => {
  process.exitCode = code ?? (signal === null ? 1 : 130);
});
