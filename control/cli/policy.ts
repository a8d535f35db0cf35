import { existsSync } from "node:fs";
import type { Command } from "commander";
import type { LoadedConfig } from "../../core/config/load.ts";
import { SluiceError } from "../../core/errors.ts";
import type { Explanation } from "../../core/policy/explain.ts";
import type { Operation } from "../../core/policy/types.ts";
import { type Common, command, print, printJson, printTable, qualifyName, run, wantsJson } from "./context.ts";

interface ExplainOptions extends Common {
  readonly user: string;
  readonly group: readonly string[];
  readonly target: string;
  readonly statement: string;
  readonly client: string;
  readonly searchPath: string;
}

export function addPolicyCommands(program: Command): void {
  command(program, "check", "validate configuration and policies; exit 2 with every error").action(run(check));

  const policy = program.command("policy").description("Test and understand policies.");
  command(policy, "test <file...>", "run tests of policy; exit 1 when one fails, 2 for a file that is not valid").action(run(test));
  command(policy, "explain", "why a statement gets its verdict, rule by rule")
    .requiredOption("--user <name>", "issuer:value, or a value of the default issuer")
    .option("--group <name>", "a group of the user; may be repeated", (value: string, all: readonly string[]) => [...all, value], [])
    .requiredOption("--target <name>", "the target")
    .requiredOption("--statement <sql>", "what the client would send")
    .option("--client <address>", "the client's address", "127.0.0.1")
    .option("--search-path <schemas>", "where unqualified names are found, separated by commas", "public")
    .action(run(explainStatement));
}

async function check(options: Common): Promise<void> {
  const { loadConfig } = await import("../../core/config/load.ts");
  const { config, policy } = loadConfig(options.config);
  const summary = {
    ok: true,
    file: config.file,
    policyVersion: policy.version,
    listeners: config.listeners.length,
    issuers: config.issuers.map((issuer) => issuer.name),
    targets: config.targets.map((target) => target.name),
    rules: policy.rules.length,
    masks: policy.masks.length,
  };
  if (wantsJson(options)) printJson(summary);
  else
    print(
      `${options.config} is valid: ${summary.targets.length} targets, ${summary.rules} rules, ${summary.masks} masks, policy version ${policy.version}.`,
    );
}

/** Verdicts do not depend on secrets: where a variable is not set, as on a build server, anything stands in for it. */
async function loadWithoutSecrets(file: string): Promise<LoadedConfig> {
  const { loadConfig } = await import("../../core/config/load.ts");
  return loadConfig(
    file,
    new Proxy(process.env, { get: (env, name) => (typeof name === "string" ? (env[name] ?? "not-set") : undefined) }),
  );
}

async function test(files: readonly string[], options: Common): Promise<void> {
  const { readText } = await import("../../core/config/inputs.ts");
  const { runPolicyTests } = await import("../../core/policy/testfile.ts");
  const { openStatementClassifier } = await import("./operation.ts");
  // Test files may bring policy and targets of their own; then no configuration is needed.
  const loaded = existsSync(options.config) ? await loadWithoutSecrets(options.config) : undefined;
  const classifier = await openStatementClassifier(["public"]);
  try {
    const environment = {
      ...(loaded === undefined ? {} : { policy: loaded.policy, targets: loaded.config.targets, issuers: loaded.config.issuers }),
      classify: classifier.classify,
    };
    const results = [];
    for (const file of files) {
      const read = readText(file);
      if ("error" in read) throw new SluiceError("SLUICE_POLICY_INVALID", `${file}: cannot be read: ${read.error}`);
      results.push(...(await runPolicyTests({ file, text: read.text }, environment)));
    }
    const failed = results.filter((result) => !result.passed);
    if (wantsJson(options)) printJson({ passed: results.length - failed.length, failed: failed.length, results });
    else {
      for (const { passed, name, at, expected, got } of results)
        print(passed ? `ok    ${name}` : `FAIL  ${name} (${at}): expected ${expected}, got ${got}`);
      print(`${results.length - failed.length} passed, ${failed.length} failed`);
    }
    if (failed.length > 0) process.exitCode = 1;
  } finally {
    await classifier.close();
  }
}

async function explainStatement(options: ExplainOptions): Promise<void> {
  const { compilePolicy } = await import("../../core/policy/compile.ts");
  const { explain } = await import("../../core/policy/explain.ts");
  const { openStatementClassifier } = await import("./operation.ts");
  const { config, policy } = await loadWithoutSecrets(options.config);
  const target = config.targets.find((candidate) => candidate.name === options.target);
  if (target === undefined) {
    throw new SluiceError("SLUICE_TARGET_UNKNOWN", `no target is named ${JSON.stringify(options.target)}`, {
      hint: `There are: ${config.targets.map(({ name }) => name).join(", ")}.`,
    });
  }
  const issuers = config.issuers.map((issuer) => issuer.name);
  const user = qualifyName(options.user, issuers);
  const colon = user.indexOf(":");
  const identity = {
    issuer: user.slice(0, colon),
    user,
    subject: user.slice(colon + 1),
    groups: options.group.map((group) => qualifyName(group, issuers)),
    claims: {},
    chain: [],
    expiresAtMillis: Number.MAX_SAFE_INTEGER,
  };
  const classifier = await openStatementClassifier(options.searchPath.split(",").map((schema) => schema.trim()));
  try {
    let operation: Operation;
    try {
      operation = await classifier.classify(options.statement, target);
    } catch (thrown) {
      if (!(thrown instanceof SluiceError)) throw thrown;
      if (wantsJson(options)) printJson({ effect: "deny", message: thrown.message, rules: [] });
      else print(`verdict    deny, whatever the policy says: ${thrown.message}`);
      return;
    }
    const moment = {
      text: options.statement,
      parameters: [],
      transaction: "idle",
      clientAddress: options.client,
      nowMillis: Date.now(),
    } as const;
    const explanation = explain(compilePolicy(policy, config.targets, config.issuers), identity, target, operation, moment);
    if (wantsJson(options)) printJson({ ...explanation, operation });
    else show(explanation, operation);
  } finally {
    await classifier.close();
  }
}

function limitText({ name, observe, rows, bytes, statements, sessions, perMillis }: Explanation["limits"][number]): string {
  const window = perMillis === undefined ? "" : ` per ${perMillis / 1_000} s`;
  const counted = Object.entries({ rows, bytes, statements }).filter(([, amount]) => amount !== undefined);
  const parts = counted.map(([what, amount]) => `${amount} ${what}${window}`);
  if (sessions !== undefined) parts.push(`${sessions} sessions`);
  return `${name}: ${parts.join(", ")}${observe ? " (observe)" : ""}`;
}

function show(explanation: Explanation, operation: Operation): void {
  const { connect, observed } = explanation;
  print(
    `verdict    ${explanation.effect} by ${explanation.rule ?? "no rule"}${observed === undefined ? "" : `, although ${observed.rule ?? "no rule"} says ${observed.effect} (observe mode)`}`,
  );
  if (explanation.message !== undefined) print(`message    ${explanation.message}`);
  if (explanation.hint !== undefined) print(`hint       ${explanation.hint}`);
  for (const { action, resources } of operation.accesses)
    print(`access     ${action}${resources.length === 0 ? "" : ` on ${resources.join(", ")}`}`);
  print(`connect    ${connect.allowed ? `allowed by ${connect.rule ?? "no rule"}` : `refused: ${connect.message ?? "no rule allows it"}`}`);
  if (explanation.masks.length > 0) print(`masks      ${explanation.masks.join(", ")}`);
  for (const limit of explanation.limits) print(`limit      ${limitText(limit)}`);
  print("");
  printTable(
    ["rule", "effect", "matches", "where", "why"],
    explanation.rules.map((rule) => [
      rule.rule,
      rule.mode === "observe" ? `${rule.effect} (observe)` : rule.effect,
      rule.matched ? "yes" : `no: ${rule.failed ?? ""}`,
      rule.at,
      rule.detail,
    ]),
    "The policy has no rules.",
  );
}
