import { dirname, isAbsolute, join, resolve } from "node:path";
import { SluiceError } from "../errors.ts";
import { checkPolicy } from "../policy/compile.ts";
import type { PolicyDocument } from "../policy/document.ts";
import { parsePolicies } from "../policy/parse.ts";
import { buildConfig } from "./build.ts";
import { Inputs, readText } from "./inputs.ts";
import { describeValue, type Path, Problems } from "./problems.ts";
import { checkSchema, compileSchema } from "./schema.ts";
import schema from "./sluice.schema.json" with { type: "json" };
import type { Config } from "./types.ts";
import { readYaml, type YamlFile } from "./yaml.ts";

/** Everything that `sluice serve` needs of the files: plain data, so it crosses threads. */
export interface LoadedConfig {
  readonly config: Config;
  readonly policySources: readonly { readonly file: string; readonly text: string }[];
  readonly policy: PolicyDocument;
  /** Absolute paths of all files that were read: a change of any of them is a reason to reload. */
  readonly files: readonly string[];
}

const LATER_PROTOCOLS: ReadonlySet<unknown> = new Set(["ssh", "mysql", "http", "https", "kubernetes", "mcp", "redis"]);
const HINT = "Correct the lines named; `sluice check` shows what is left.";
const validate = compileSchema(schema);

/**
 * Read, check and resolve a configuration with its policies.
 * @param seen gets every file that was looked at, also when the result is an error
 * @throws SluiceError SLUICE_CONFIG_INVALID or SLUICE_POLICY_INVALID whose message has one line an error:
 *   `file:line:column: key: expected …, got …`. Values of secrets never stand in it.
 */
export function loadConfig(
  file: string,
  env: Readonly<Record<string, string | undefined>> = process.env,
  seen: Set<string> = new Set(),
): LoadedConfig {
  const problems = new Problems();
  const read = readText(file);
  if ("error" in read)
    throw new SluiceError("SLUICE_CONFIG_INVALID", `${file}: cannot be read: ${read.error}`, { hint: "Name the file with -c FILE." });
  const raw = readYaml(file, read.text, problems);
  const inputs = new Inputs(dirname(resolve(file)), env, problems);
  inputs.files.add(resolve(file));
  seen.add(resolve(file));
  if (raw === undefined) problems.throwIfAny("SLUICE_CONFIG_INVALID", HINT);
  if (raw === undefined) throw new SluiceError("SLUICE_INTERNAL", "a document without a problem was not read");
  const document = inputs.resolve(raw);
  const show = (path: Path, value: unknown): string => inputs.show(path, value);
  const isSound = checkSchema(validate, document, problems, show, later);
  const built = isSound ? buildConfig(document, inputs, problems) : undefined;
  const policySources = readPolicies(document, inputs, dirname(file));
  for (const each of inputs.files) seen.add(each);
  if (built === undefined || problems.count > 0) throw withPolicyErrors(problems, policySources);
  const { config } = built;
  const policy = parsePolicies(policySources);
  checkPolicy(policy, config.targets, config.issuers);
  return { config, policySources, policy, files: [...inputs.files] };
}

/** Policies are read even if the rest has errors, so that one run shows them all. */
function readPolicies(document: YamlFile, inputs: Inputs, folder: string): { file: string; text: string }[] {
  const names: unknown = (document.value as { policies?: unknown } | null)?.policies;
  const sources: { file: string; text: string }[] = [];
  (Array.isArray(names) ? names : []).forEach((name: unknown, index) => {
    const text = typeof name === "string" && name !== "" ? inputs.read(document, ["policies", index], name) : undefined;
    // Shown as the operator would type it: beside the configuration file as named.
    if (typeof name === "string" && text !== undefined) sources.push({ file: isAbsolute(name) ? name : join(folder, name), text });
  });
  return sources;
}

function withPolicyErrors(problems: Problems, sources: readonly { file: string; text: string }[]): SluiceError {
  const messages = problems.count === 0 ? [] : [problems.toError("SLUICE_CONFIG_INVALID", HINT).message];
  try {
    parsePolicies(sources);
  } catch (error) {
    if (error instanceof SluiceError) messages.push(error.message);
  }
  return new SluiceError("SLUICE_CONFIG_INVALID", messages.join("\n"), { hint: HINT });
}

function later(path: Path, value: unknown): string | undefined {
  if (path.at(-1) !== "protocol" || !LATER_PROTOCOLS.has(value)) return undefined;
  return `expected postgres, got ${describeValue(value)}: this protocol is not available in this version`;
}
