import { dirname, isAbsolute, join } from "node:path";
import { DEFAULT_RECORD } from "../config/build.ts";
import { readText } from "../config/inputs.ts";
import { type Path, Problems, positionOf } from "../config/problems.ts";
import { checkSchema, compileSchema } from "../config/schema.ts";
import type { TargetConfig } from "../config/types.ts";
import { readYaml, type YamlFile } from "../config/yaml.ts";
import { SluiceError } from "../errors.ts";
import type { Identity } from "../identity/types.ts";
import { qualifyAction } from "./actions.ts";
import { compilePolicy } from "./compile.ts";
import type { PolicyDocument } from "./document.ts";
import { type Explanation, explain } from "./explain.ts";
import { POLICY_HINT, parsePolicies } from "./parse.ts";
import { type IssuerNames, issuerNames, qualify } from "./subjects.ts";
import schema from "./test.schema.json" with { type: "json" };
import type { Access, Moment, Operation } from "./types.ts";

/** What tests run against where their file does not say it. */
export interface TestEnvironment {
  readonly policy?: PolicyDocument;
  readonly targets?: readonly TargetConfig[];
  readonly issuers?: readonly { readonly name: string }[];
  /** Turns SQL into an operation as the gateway does; a SluiceError means that the gateway refuses the statement. */
  readonly classify?: (sql: string, target: TargetConfig) => Operation | Promise<Operation>;
}

export interface TestResult {
  readonly name: string;
  /** `tests.yaml:12`. */
  readonly at: string;
  readonly passed: boolean;
  /** `deny by no-drop`. */
  readonly expected: string;
  readonly got: string;
  /** undefined where the gateway refuses the statement whatever the policy. */
  readonly explanation: Explanation | undefined;
}

type Texts = string | string[];
interface RawTarget {
  name: string;
  protocol?: "postgres";
  database?: string;
  labels?: Record<string, string>;
}
interface RawTest {
  name: string;
  identity: { user: string; groups?: Texts; claims?: Record<string, unknown> };
  target: string | RawTarget;
  action?: string;
  resources?: Texts;
  accesses?: { action: string; resources?: Texts }[];
  statement?: string;
  unfiltered?: boolean;
  columns?: string[];
  functions?: string[];
  parameters?: (string | null)[];
  transaction?: Moment["transaction"];
  client?: string;
  at?: string;
  expect: "allow" | "deny" | "approve";
  rule?: string | null;
  observed?: "deny" | "approve";
}
interface RawFile {
  policy?: Texts;
  issuers?: Texts;
  targets?: RawTarget[];
  tests: RawTest[];
}

const validate = compileSchema(schema);

/**
 * Run one file of policy tests.
 * @throws SluiceError SLUICE_POLICY_INVALID where the file or its policy is not valid; a failed test does not throw
 */
export async function runPolicyTests(
  source: { readonly file: string; readonly text: string },
  environment: TestEnvironment = {},
): Promise<TestResult[]> {
  const problems = new Problems();
  const document = readYaml(source.file, source.text, problems);
  const isSound = document !== undefined && checkSchema(validate, document, problems);
  problems.throwIfAny("SLUICE_POLICY_INVALID", POLICY_HINT);
  if (!isSound) throw new SluiceError("SLUICE_INTERNAL", "a test file without a problem was not read");
  const raw = document.value as RawFile;
  const issuers = raw.issuers === undefined ? (environment.issuers ?? [{ name: "test" }]) : list(raw.issuers).map((name) => ({ name }));
  const targets = new Map((environment.targets ?? []).map((target) => [target.name, target]));
  for (const target of [...(raw.targets ?? []), ...raw.tests.map((test) => test.target)]) {
    if (typeof target !== "string") targets.set(target.name, buildTarget(target, targets.get(target.name)));
  }
  const policy = readPolicy(raw, document, environment, problems);
  const prepared = raw.tests.map((test, index) =>
    prepare(test, ["tests", index], targets, issuerNames(issuers), document, environment, problems),
  );
  problems.throwIfAny("SLUICE_POLICY_INVALID", POLICY_HINT);
  if (policy === undefined) throw new SluiceError("SLUICE_INTERNAL", "a test file without a problem has no policy");
  const compiled = compilePolicy(policy, [...targets.values()], issuers);
  const results: TestResult[] = [];
  for (const [index, item] of prepared.entries()) {
    const test = raw.tests[index];
    if (test === undefined || item === undefined) continue;
    const at = `${source.file}:${positionOf(document.positions, ["tests", index])[0]}`;
    const outcome = await operationOf(test, item, environment);
    const explanation = "refusal" in outcome ? undefined : explain(compiled, item.identity, item.target, outcome, item.moment);
    results.push(compare(test, at, explanation, "refusal" in outcome ? outcome.refusal : ""));
  }
  return results;
}

interface Prepared {
  readonly identity: Identity;
  readonly target: TargetConfig;
  readonly moment: Moment;
  readonly accesses: readonly Access[];
}

function prepare(
  test: RawTest,
  path: Path,
  targets: ReadonlyMap<string, TargetConfig>,
  issuers: IssuerNames,
  document: YamlFile,
  environment: TestEnvironment,
  problems: Problems,
): Prepared | undefined {
  const before = problems.count;
  const add = (key: Path, text: string): void =>
    problems.add(document.file, positionOf(document.positions, [...path, ...key]), [...path, ...key], text);
  const qualified = (value: string, key: Path): string => {
    const result = qualify(value, issuers);
    if ("name" in result) return result.name;
    add(key, result.error);
    return "";
  };
  const user = qualified(test.identity.user, ["identity", "user"]);
  const groups = list(test.identity.groups ?? []).map((group, index) => qualified(group, ["identity", "groups", index]));
  const name = typeof test.target === "string" ? test.target : test.target.name;
  const target = targets.get(name);
  if (target === undefined) add(["target"], `expected the name of a target, got ${JSON.stringify(name)}; describe it under targets`);
  const ways = [test.action, test.accesses, test.statement].filter((way) => way !== undefined).length;
  if (ways !== 1) add([], `expected one of action, accesses, statement, got ${ways === 0 ? "none" : "several"}`);
  if (test.resources !== undefined && test.action === undefined) add(["resources"], "expected action beside it");
  if (test.statement !== undefined && environment.classify === undefined)
    add(["statement"], "expected action: statements cannot be classified here");
  const asked = test.accesses ?? (test.action === undefined ? [] : [{ action: test.action, resources: test.resources }]);
  const accesses = asked.map(({ action, resources }, index) => {
    const whole = qualifyAction(action, target?.protocol ?? "postgres");
    if (whole === undefined)
      add(
        test.action === undefined ? ["accesses", index, "action"] : ["action"],
        `expected one action such as sql:select, got ${JSON.stringify(action)}`,
      );
    return { action: whole ?? "", resources: list(resources ?? []) };
  });
  const nowMillis = test.at === undefined ? Date.now() : Date.parse(test.at);
  if (Number.isNaN(nowMillis)) add(["at"], `expected a time such as 2026-01-31T09:30:00Z, got ${JSON.stringify(test.at)}`);
  if (target === undefined || problems.count > before) return undefined;
  const value = user.slice(user.indexOf(":") + 1);
  return {
    identity: {
      issuer: user.slice(0, user.indexOf(":")),
      user,
      subject: value,
      groups,
      claims: test.identity.claims ?? {},
      chain: [],
      expiresAtMillis: Number.MAX_SAFE_INTEGER,
    },
    target,
    moment: {
      text: test.statement ?? "",
      parameters: (test.parameters ?? []).map((parameter) => parameter ?? undefined),
      transaction: test.transaction ?? "idle",
      clientAddress: test.client ?? "127.0.0.1",
      nowMillis,
    },
    accesses,
  };
}

async function operationOf(test: RawTest, item: Prepared, environment: TestEnvironment): Promise<Operation | { refusal: string }> {
  if (test.statement === undefined || environment.classify === undefined) {
    return {
      protocol: item.target.protocol,
      accesses: item.accesses,
      unfiltered: test.unfiltered ?? false,
      statements: 1,
      tables: [...new Set(item.accesses.flatMap((access) => access.resources))],
      columns: test.columns ?? [],
      functions: test.functions ?? [],
    };
  }
  try {
    return await environment.classify(test.statement, item.target);
  } catch (error) {
    if (error instanceof SluiceError) return { refusal: error.message };
    throw error;
  }
}

function compare(test: RawTest, at: string, explanation: Explanation | undefined, refusal: string): TestResult {
  const effect = explanation?.effect ?? "deny";
  const passed =
    effect === test.expect &&
    (test.rule === undefined || (explanation?.rule ?? null) === test.rule) &&
    (test.observed === undefined || explanation?.observed?.effect === test.observed);
  const text = (which: string, rule: string | null | undefined, observed: string | undefined): string =>
    `${which}${rule === undefined ? "" : ` by ${rule ?? "no rule"}`}${observed === undefined ? "" : ` (observed: ${observed})`}`;
  return {
    name: test.name,
    at,
    passed,
    expected: text(test.expect, test.rule, test.observed),
    got: explanation === undefined ? `deny: ${refusal}` : text(effect, explanation.rule ?? null, explanation.observed?.effect),
    explanation,
  };
}

function readPolicy(raw: RawFile, document: YamlFile, environment: TestEnvironment, problems: Problems): PolicyDocument | undefined {
  if (raw.policy === undefined) {
    if (environment.policy === undefined)
      problems.add(document.file, [1, 1], ["policy"], "expected a policy file, got nothing, and no configuration names one");
    return environment.policy;
  }
  const sources: { file: string; text: string }[] = [];
  for (const name of list(raw.policy)) {
    const file = isAbsolute(name) ? name : join(dirname(document.file), name);
    const result = readText(file);
    if ("text" in result) sources.push({ file, text: result.text });
    else
      problems.add(
        document.file,
        positionOf(document.positions, ["policy"]),
        ["policy"],
        `expected a readable file, got ${JSON.stringify(name)} (${result.error})`,
      );
  }
  problems.throwIfAny("SLUICE_POLICY_INVALID", POLICY_HINT);
  return parsePolicies(sources);
}

/** A target that is never dialled: only what policy can see of it matters. */
const buildTarget = (raw: RawTarget, known: TargetConfig | undefined): TargetConfig => ({
  name: raw.name,
  protocol: raw.protocol ?? "postgres",
  address: { host: "127.0.0.1", port: 5432 },
  database: raw.database ?? known?.database ?? raw.name,
  user: "test",
  password: undefined,
  tls: { mode: "disable", ca: undefined, serverName: undefined },
  labels: raw.labels ?? known?.labels ?? {},
  connections: { max: 1 },
  record: DEFAULT_RECORD,
});

const list = (value: Texts): readonly string[] => (typeof value === "string" ? [value] : value);
