import { dirname, join, normalize } from "node:path";
import { type Finding, lineOf } from "./files.ts";

/** What each layer may import, itself aside. The empty name is the entry point at the root. */
const allowed: Readonly<Record<string, readonly string[]>> = {
  core: [],
  protocols: ["core"],
  store: ["core"],
  control: ["core", "protocols", "store"],
  workers: ["core", "protocols", "store", "control"],
  "control/cli": ["core", "protocols", "store", "control", "workers"],
  "": ["core", "protocols", "store", "control", "workers", "control/cli"],
  tools: ["core", "protocols"],
  test: ["core", "protocols", "store", "control", "workers", "control/cli", "", "demo"],
  bench: ["core", "protocols", "store", "control", "workers", "control/cli", "", "test"],
  demo: ["core", "test"],
};

/** Interfaces that one layer implements or calls without knowing the other: only types cross here. */
const interfaces: readonly (readonly [from: string, target: string])[] = [["protocols", "store/types.ts"]];

const importPattern =
  /\bfrom\s*"(\.[^"]*)"|\bimport\s*\(?\s*"(\.[^"]*)"|\bnew URL\(\s*"(\.[^"]*\.ts)"\s*,\s*import\.meta\.url|\brequire\(\s*"(\.[^"]*)"/g;

/** Imports of one file that go against the direction core <- protocols, store <- control <- workers <- control/cli <- entry point. */
export function importFindings(file: string, text: string): readonly Finding[] {
  const findings: Finding[] = [];
  const from = layerOf(file);
  for (const match of text.matchAll(importPattern)) {
    const written = match[1] ?? match[2] ?? match[3] ?? match[4] ?? "";
    const target = normalize(join(dirname(file), written));
    const message = judge(file, from, target, isTypeOnly(text, match.index));
    if (message !== undefined) findings.push({ file, line: lineOf(text, match.index), message });
  }
  // The addons are found by their file name, whatever way they are loaded.
  const native = /["'`/][\w./-]*\.node["'`]/.exec(text);
  if (native !== null && !file.startsWith("core/native/") && !/^(tools|test)\//.test(file)) {
    findings.push({
      file,
      line: lineOf(text, native.index),
      message: "names a native addon; only core/native loads one, import from there",
    });
  }
  return findings;
}

function judge(file: string, from: string, target: string, typeOnly: boolean): string | undefined {
  const to = layerOf(target);
  if (target.startsWith("..")) return `imports ${target}, outside the project`;
  if (target === "core/policy/mint.ts" && !file.startsWith("core/policy/")) {
    return "imports core/policy/mint.ts; only core/policy makes grants and verdicts, take them from Policy or SessionPolicy";
  }
  if (from === to) {
    if (from !== "protocols") return undefined;
    const [ours, theirs] = [file.split("/"), target.split("/")];
    const isShared = theirs.length === 2;
    if (isShared || ours[1] === theirs[1]) return undefined;
    return `imports protocols/${theirs[1]}; protocols do not know each other, move what they share to core or protocols/`;
  }
  const isTest = file.endsWith(".test.ts");
  if (isTest && target.startsWith("test/helpers/")) return undefined;
  if (typeOnly && interfaces.some(([layer, file]) => layer === from && file === target)) return undefined;
  if (allowed[from] === undefined) return `lies in ${from}/, which tools/imports.ts does not know; name what it may import there`;
  if (allowed[from].includes(to)) return undefined;
  return `imports ${target}; ${from === "" ? "the entry point" : `${from}/`} may import ${allowed[from].map((name) => (name === "" ? "the entry point" : `${name}/`)).join(", ") || "nothing outside itself"}`;
}

function layerOf(path: string): string {
  if (path.startsWith("control/cli/")) return "control/cli";
  return path.includes("/") ? path.slice(0, path.indexOf("/")) : "";
}

function isTypeOnly(text: string, offset: number): boolean {
  const statement = text.slice(Math.max(text.lastIndexOf(";", offset), 0), offset);
  return /\b(?:import|export)\s+type\b[^;]*$/.test(statement);
}
