import type { RawClient, RawOptions } from "../clients/raw.ts";
import type { PostgresVersion } from "../helpers/postgres.ts";

/** Who asks; policy.ts says what each may do. */
export type Group = "all" | "reader" | "only" | "writer" | "schema" | "masked" | "compared" | "watched" | "mover";

/**
 * What must hold of a case's last statement.
 * guard: refused for what it is, whatever the policy says. policy: refused because no rule allows it; `policy RULE`: by that rule.
 * mask: refused because it could not be masked. runs: carried out; `runs ACTION`: under that action. fails STATE: the server's own error.
 * clean: any answer will do, as long as nothing hidden shows.
 * In every case no canary shows, the session goes on, what is refused does not reach the server, and every statement is on record.
 */
export type Expectation = "guard" | "policy" | `policy ${string}` | "mask" | "runs" | `runs ${string}` | `fails ${string}` | "clean";

/** SQL texts in one session. All but the last must succeed, unless they begin with `?`. */
export interface SqlCase {
  readonly kind: "sql";
  readonly class: string;
  readonly group: Group;
  readonly expect: Expectation;
  readonly steps: readonly string[];
}

/** What a case of messages works with. */
export interface WireContext {
  readonly version: PostgresVersion;
  /** Unique to this run of this case; put it into every statement. */
  readonly marker: string;
  open(group: Group, options?: Partial<RawOptions>): Promise<RawClient>;
  /** Where the gateway listens, and a token. */
  destination(group: Group): Promise<RawOptions>;
  /** Straight from the server. */
  direct(sql: string): Promise<readonly Record<string, unknown>[]>;
}

/** Messages; throws what is wrong. A statement that holds `MARKER-refused` must never reach the server. */
export interface WireCase {
  readonly kind: "wire";
  readonly class: string;
  readonly name: string;
  readonly run: (context: WireContext) => Promise<void>;
}

export type Case = SqlCase | WireCase;

/** Cases that have everything but their text in common. A list is a session. */
export const sql = (name: string, group: Group, expect: Expectation, texts: readonly (string | readonly string[])[]): readonly SqlCase[] =>
  texts.map((text) => ({ kind: "sql", class: name, group, expect, steps: typeof text === "string" ? [text] : text }));

export const wire = (className: string, cases: Readonly<Record<string, WireCase["run"]>>): readonly WireCase[] =>
  Object.entries(cases).map(([name, run]) => ({ kind: "wire", class: className, name, run }));
