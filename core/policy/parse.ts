import { createHash } from "node:crypto";
import { DEFAULT_RECORD, mergeRecord, type RawRecord } from "../config/build.ts";
import { type Path, Problems, positionOf } from "../config/problems.ts";
import { checkSchema, compileSchema } from "../config/schema.ts";
import { parseBytes, parseDurationMillis } from "../config/units.ts";
import { readYaml, type YamlFile } from "../config/yaml.ts";
import { compileWhen } from "./cel.ts";
import type {
  ApproveDocument,
  ClaimValue,
  Effect,
  LimitDocument,
  MaskDocument,
  OnDocument,
  PolicyDocument,
  PolicySource,
  RuleDocument,
  WhoDocument,
} from "./document.ts";
import { buildLimit, checkLimit, type RawLimit } from "./limits.ts";
import schema from "./policy.schema.json" with { type: "json" };
import type { DetectorName, MaskMethod, MaskRule } from "./types.ts";

/** What core/policy/policy.schema.json lets through. */
type Texts = string | string[];
type Mode = "enforce" | "observe";
export interface RawWho {
  users?: Texts;
  groups?: Texts;
  issuers?: Texts;
  claims?: Record<string, ClaimValue | ClaimValue[]>;
}
export interface RawOn {
  targets?: Texts;
  labels?: Record<string, Texts>;
  protocols?: Texts;
}
interface RawRule {
  name: string;
  mode?: Mode;
  who?: RawWho;
  on?: RawOn;
  actions?: Texts;
  resources?: Texts;
  when?: string;
  effect: Effect;
  message?: string;
  approve?: { count?: number; from?: RawWho; holdFor?: string; expiresAfter?: string };
  grants?: boolean;
  record?: RawRecord;
}
interface RawMask {
  name: string;
  who?: RawWho;
  except?: RawWho;
  on?: RawOn;
  columns?: Texts;
  detect?: DetectorName[];
  with?: MaskMethod | null;
  predicates?: MaskRule["predicates"];
}
interface RawPolicy {
  mode?: Mode;
  rules?: RawRule[];
  masks?: RawMask[];
  limits?: RawLimit[];
}

export const POLICY_HINT = "Correct the lines named; `sluice check` shows what is left.";
const validate = compileSchema(schema);

/**
 * Parse and merge policy files: schema, names, expressions. What needs targets and issuers is compilePolicy's.
 * @param sources texts with the file names that errors show
 * @throws SluiceError SLUICE_POLICY_INVALID, one line an error: `file:line:column: key: expected …, got …`
 */
export function parsePolicies(sources: readonly { readonly file: string; readonly text: string }[]): PolicyDocument {
  const problems = new Problems();
  const hash = createHash("sha256");
  const parsed: PolicySource[] = [];
  const rules: RuleDocument[] = [];
  const masks: MaskDocument[] = [];
  const limits: LimitDocument[] = [];
  const named: LimitDocument[] = [];
  for (const { file, text } of sources) {
    hash.update(text);
    const document = readYaml(file, text, problems);
    if (document === undefined || !checkSchema(validate, document, problems)) continue;
    const raw = document.value as RawPolicy;
    const source = parsed.length;
    parsed.push({ file, mode: raw.mode ?? "enforce", positions: document.positions });
    raw.rules?.forEach((rule, index) => {
      const path = ["rules", index];
      checkRule(rule, path, document, problems);
      rules.push(buildRule(rule, raw.mode ?? "enforce", source, path));
    });
    raw.masks?.forEach((mask, index) => {
      masks.push(buildMask(mask, source, ["masks", index]));
      checkMask(mask, ["masks", index], document, problems);
    });
    raw.limits?.forEach((limit, index) => {
      checkLimit(limit, ["limits", index], document, problems);
      const built = buildLimit(limit, buildWho(limit.who), buildOn(limit.on), raw.mode ?? "enforce", source, index);
      limits.push(built);
      if (limit.name !== undefined) named.push(built);
    });
  }
  checkModes(rules, parsed, problems);
  uniqueNames(
    rules.map((rule) => ({ ...rule, kind: "rule" })),
    parsed,
    problems,
  );
  uniqueNames(
    masks.map((mask) => ({ ...mask, name: mask.mask.name, kind: "mask" })),
    parsed,
    problems,
  );
  uniqueNames(
    named.map((limit) => ({ ...limit, name: limit.limit.name, kind: "limit" })),
    parsed,
    problems,
  );
  problems.throwIfAny("SLUICE_POLICY_INVALID", POLICY_HINT);
  return { version: hash.digest("hex").slice(0, 16), sources: parsed, rules, masks, limits };
}

/** An allow in observe mode has nothing to observe: it would grant. Only where every file observes does it do no harm. */
function checkModes(rules: readonly RuleDocument[], sources: readonly PolicySource[], problems: Problems): void {
  if (sources.every((source) => source.mode === "observe")) return;
  for (const { effect, mode, source, path } of rules) {
    const where = sources[source];
    if (effect !== "allow" || mode !== "observe" || where === undefined || where.mode !== "observe") continue;
    const text =
      "expected an allow only in files that enforce, because another policy file does (mode observe would grant here without a trial)";
    problems.add(where.file, positionOf(where.positions, [...path, "effect"]), [...path, "effect"], text);
  }
}

function uniqueNames(
  items: readonly { name: string; kind: string; source: number; path: Path }[],
  sources: readonly PolicySource[],
  problems: Problems,
): void {
  const seen = new Set<string>();
  for (const { name, kind, source, path } of items) {
    const where = sources[source];
    if (where !== undefined && seen.has(name)) {
      problems.add(
        where.file,
        positionOf(where.positions, [...path, "name"]),
        [...path, "name"],
        `expected a name that no other ${kind} has, got ${JSON.stringify(name)} again`,
      );
    }
    seen.add(name);
  }
}

function checkRule(rule: RawRule, path: Path, document: YamlFile, problems: Problems): void {
  const add = (key: Path, text: string): void => {
    problems.add(document.file, positionOf(document.positions, [...path, ...key]), [...path, ...key], text);
  };
  if (rule.when !== undefined) {
    const when = compileWhen(rule.when);
    if ("error" in when) add(["when"], `expected a CEL expression that gives true or false: ${when.error}`);
  }
  if (rule.effect !== "approve" && rule.approve !== undefined) add(["approve"], `expected effect approve beside it, got ${rule.effect}`);
  if (rule.grants === true && rule.effect !== "approve") add(["grants"], `expected effect approve beside it, got ${rule.effect}`);
  else if (rule.grants === true && rule.who === undefined) add(["grants"], "expected who beside it: a rule that grants must name whom");
  if (rule.effect === "deny" && rule.record !== undefined) add(["record"], "expected no record on a rule that denies");
  if (rule.effect === "allow" && rule.mode === "observe") {
    add(["mode"], "expected enforce: an allow in observe mode would still let pass; remove the rule or the mode");
  }
  for (const key of ["holdFor", "expiresAfter"] as const) {
    const text = rule.approve?.[key];
    if (text !== undefined && parseDurationMillis(text) === undefined)
      add(["approve", key], `expected whole milliseconds, got ${JSON.stringify(text)}`);
  }
  if (rule.record?.headBytes !== undefined && parseBytes(rule.record.headBytes) === undefined) {
    add(["record", "headBytes"], `expected a whole number of bytes, got ${JSON.stringify(rule.record.headBytes)}`);
  }
}

function checkMask(mask: RawMask, path: Path, document: YamlFile, problems: Problems): void {
  const add = (key: Path, text: string): void => {
    problems.add(document.file, positionOf(document.positions, [...path, ...key]), [...path, ...key], text);
  };
  if (mask.columns === undefined && mask.detect === undefined) add([], "expected columns or detect, got neither");
  list(mask.columns)?.forEach((column, index) => {
    const parts = column.split(".");
    const isSound = parts.length === 3 && parts.every((part) => part === "*" || /^[^*]+$/.test(part));
    if (isSound) return;
    const key = typeof mask.columns === "string" ? ["columns"] : ["columns", index];
    add(key, `expected schema.table.column (* may stand for one part), got ${JSON.stringify(column)}`);
  });
}

function buildRule(rule: RawRule, mode: Mode, source: number, path: Path): RuleDocument {
  return {
    name: rule.name,
    source,
    path,
    mode: rule.mode ?? mode,
    who: buildWho(rule.who),
    on: buildOn(rule.on),
    actions: list(rule.actions),
    resources: list(rule.resources),
    when: rule.when,
    effect: rule.effect,
    message: rule.message,
    approve: rule.effect === "approve" ? buildApprove(rule.approve) : undefined,
    grants: rule.grants ?? false,
    record: rule.record === undefined ? undefined : mergeRecord(rule.record, DEFAULT_RECORD),
  };
}

const buildApprove = (raw: RawRule["approve"]): ApproveDocument => ({
  count: raw?.count ?? 1,
  from: buildWho(raw?.from),
  holdForMillis: parseDurationMillis(raw?.holdFor ?? "60s") ?? 60_000,
  expiresAfterMillis: parseDurationMillis(raw?.expiresAfter ?? "15m") ?? 900_000,
});

function buildMask(mask: RawMask, source: number, path: Path): MaskDocument {
  return {
    source,
    path,
    who: buildWho(mask.who),
    except: buildWho(mask.except),
    on: buildOn(mask.on),
    mask: {
      name: mask.name,
      columns: list(mask.columns) ?? [],
      detect: mask.detect ?? [],
      // `with: null` without quotes is YAML's null.
      with: mask.with === null ? "null" : (mask.with ?? "redact"),
      predicates: mask.predicates ?? "deny",
    },
  };
}

export function buildWho(raw: RawWho | undefined): WhoDocument | undefined {
  if (raw === undefined) return undefined;
  return {
    ...defined("users", list(raw.users)),
    ...defined("groups", list(raw.groups)),
    ...defined("issuers", list(raw.issuers)),
    ...defined("claims", raw.claims && mapValues(raw.claims, (value) => (Array.isArray(value) ? value : [value]))),
  };
}

const buildOn = (raw: RawOn | undefined): OnDocument | undefined =>
  raw && {
    ...defined("targets", list(raw.targets)),
    ...defined("labels", raw.labels && mapValues(raw.labels, (value) => list(value) ?? [])),
    ...defined("protocols", list(raw.protocols)),
  };

const list = (value: Texts | undefined): readonly string[] | undefined => (typeof value === "string" ? [value] : value);

const mapValues = <A, B>(map: Record<string, A>, change: (value: A) => B): Record<string, B> =>
  Object.fromEntries(Object.entries(map).map(([key, value]) => [key, change(value)]));

const defined = <K extends string, V>(key: K, value: V | undefined): { [P in K]?: V } =>
  (value === undefined ? {} : { [key]: value }) as { [P in K]?: V };
