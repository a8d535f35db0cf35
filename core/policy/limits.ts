import { createHash } from "node:crypto";
import { type Path, type Problems, positionOf } from "../config/problems.ts";
import type { TargetConfig } from "../config/types.ts";
import { parseBytes, parseDurationMillis } from "../config/units.ts";
import type { YamlFile } from "../config/yaml.ts";
import type { Identity } from "../identity/types.ts";
import type { LimitDocument, OnDocument, PolicyDocument, WhoDocument } from "./document.ts";
import type { RawOn, RawWho } from "./parse.ts";
import { complainer } from "./rules.ts";
import { compileOn, compileWho, type IdentityTest, type IssuerNames, type TargetTest } from "./subjects.ts";
import type { LimitRule } from "./types.ts";

/** What core/policy/policy.schema.json lets through. */
export interface RawLimit {
  name?: string;
  description?: string;
  mode?: "enforce" | "observe";
  who?: RawWho;
  on?: RawOn;
  rows?: number;
  bytes?: string;
  statements?: number;
  sessions?: number;
  per?: string;
}

/** A window is counted in sixteenths, and one of them should outlast a few reads. */
const SHORTEST_MILLIS = 1_000;
const LONGEST_MILLIS = 366 * 86_400_000;

export interface CompiledLimit {
  readonly limit: LimitRule;
  readonly who: IdentityTest;
  readonly on: TargetTest;
}

export function checkLimit(limit: RawLimit, path: Path, document: YamlFile, problems: Problems): void {
  const add = (key: Path, text: string): void => {
    problems.add(document.file, positionOf(document.positions, [...path, ...key]), [...path, ...key], text);
  };
  const perWindow = (["rows", "bytes", "statements"] as const).filter((key) => limit[key] !== undefined);
  if (perWindow.length === 0 && limit.sessions === undefined) add([], "expected rows, bytes, statements or sessions, got none of them");
  if (perWindow.length > 0 && limit.per === undefined)
    add(["per"], `expected a duration, which ${perWindow.join(" and ")} needs, got nothing (the key is missing)`);
  if (perWindow.length === 0 && limit.per !== undefined)
    add(["per"], "expected rows, bytes or statements beside it: sessions are counted at one time");
  const bytes = limit.bytes === undefined ? 1 : parseBytes(limit.bytes);
  if (bytes === undefined || bytes < 1)
    add(["bytes"], `expected a whole number of bytes of at least 1, got ${JSON.stringify(limit.bytes)}`);
  const per = limit.per === undefined ? SHORTEST_MILLIS : parseDurationMillis(limit.per);
  if (per === undefined || per < SHORTEST_MILLIS || per > LONGEST_MILLIS)
    add(["per"], `expected 1s to 366d in whole milliseconds, got ${JSON.stringify(limit.per)}`);
}

export function buildLimit(
  raw: RawLimit,
  who: WhoDocument | undefined,
  on: OnDocument | undefined,
  mode: "enforce" | "observe",
  source: number,
  index: number,
): LimitDocument {
  const { name, rows, statements, sessions } = raw;
  // What an entry without a name has counted is found again by what it says.
  const content = sorted({ ...raw, description: undefined, mode: undefined });
  const said = name ?? createHash("sha256").update(JSON.stringify(content)).digest("base64");
  return {
    source,
    path: ["limits", index],
    who,
    on,
    limit: {
      name: name ?? `limits[${index}]`,
      key: `${name === undefined ? "content" : "name"}\n${said}`,
      observe: (raw.mode ?? mode) === "observe",
      rows,
      bytes: raw.bytes === undefined ? undefined : (parseBytes(raw.bytes) ?? 1),
      statements,
      sessions,
      perMillis: raw.per === undefined ? undefined : (parseDurationMillis(raw.per) ?? SHORTEST_MILLIS),
    },
  };
}

/** The same value with the keys of its maps in one order. */
function sorted(value: unknown): unknown {
  if (Array.isArray(value)) return value.map(sorted);
  if (typeof value !== "object" || value === null) return value;
  return Object.entries(value)
    .sort(([a], [b]) => (a < b ? -1 : 1))
    .map(([key, item]) => [key, sorted(item)]);
}

export function compileLimit(
  document: LimitDocument,
  policy: PolicyDocument,
  targets: readonly TargetConfig[],
  issuers: IssuerNames,
  problems: Problems,
): CompiledLimit {
  const complain = complainer(document, policy, problems);
  return {
    limit: document.limit,
    who: compileWho(document.who, issuers, (path, text) => complain(["who", ...path], text)),
    on: compileOn(document.on, targets, (path, text) => complain(["on", ...path], text)),
  };
}

/** The limits that apply to a session; of entries that say the very same, one. */
export function limitsFor(limits: readonly CompiledLimit[], identity: Identity, target: TargetConfig): readonly LimitRule[] {
  const byKey = new Map<string, LimitRule>();
  for (const { limit, who, on } of limits) {
    if (!byKey.has(limit.key) && on(target) && who(identity)) byKey.set(limit.key, limit);
  }
  return [...byKey.values()];
}
