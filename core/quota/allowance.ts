import { SluiceError } from "../errors.ts";
import type { Identity } from "../identity/types.ts";
import type { LimitRule } from "../policy/types.ts";
import type { Quota, QuotaTable } from "./table.ts";

type Kind = "rows" | "bytes" | "statements";
const KINDS: readonly Kind[] = ["rows", "bytes", "statements"];

/** A limit that stands in the way. */
export interface Exceeded {
  readonly limit: LimitRule;
  /** What is used up, and when some of it is free again; a sentence without its full stop. */
  readonly message: string;
}

interface Counted {
  readonly limit: LimitRule;
  readonly kind: Kind;
  readonly id: string;
  readonly quota: Quota;
}

/** What the limits of the policy leave one session, which shares it with the other sessions of its identity. */
export class Allowance {
  readonly #table: QuotaTable;
  readonly #owner: string;
  #counted: readonly Counted[] = [];
  #rows: readonly Counted[] = [];
  #statements: readonly Counted[] = [];
  #sessions: readonly { readonly id: string; readonly quota: Quota }[] = [];
  #nowMillis = -1;
  #closed = false;
  /** Some limit counts rows or bytes and is enforced: results may be cut. */
  cuts = false;
  /** A limit in observe mode that would have stood in the way since the last settle(). */
  observed: Exceeded | undefined;

  /**
   * @param isNew the session begins: `sessions` is enforced. Who is in stays in
   * @throws SluiceError SLUICE_QUOTA_SESSIONS
   */
  constructor(table: QuotaTable, identity: Identity, limits: readonly LimitRule[], isNew: boolean) {
    this.#table = table;
    this.#owner = JSON.stringify([identity.issuer, identity.user]);
    try {
      this.#hold(limits, isNew);
    } catch (error) {
      this.close();
      throw error;
    }
  }

  /**
   * Put other limits in force. What is held under both goes on counting.
   * @throws SluiceError SLUICE_QUOTA_SESSIONS when the counters do not suffice
   */
  adjust(limits: readonly LimitRule[]): void {
    if (!this.#closed) this.#hold(limits, false);
  }

  #hold(limits: readonly LimitRule[], isNew: boolean): void {
    const counted: Counted[] = [];
    const sessions: { id: string; quota: Quota }[] = [];
    const before = [...this.#counted, ...this.#sessions];
    // Released only afterwards: a counter that nobody holds may be given away.
    try {
      for (const limit of limits) {
        for (const kind of KINDS) {
          const max = limit[kind];
          if (max === undefined || limit.perMillis === undefined) continue;
          const id = `${kind}\n${limit.key}`;
          const quota = this.#table.hold(`${id}\n${this.#owner}`, limit.perMillis, max, Number.POSITIVE_INFINITY);
          if (quota !== "full") counted.push({ limit, kind, id, quota });
        }
        if (limit.sessions === undefined) continue;
        const id = `sessions\n${limit.key}`;
        const most = isNew && !limit.observe ? limit.sessions : Number.POSITIVE_INFINITY;
        const quota = this.#table.hold(`${id}\n${this.#owner}`, 0, 1, most);
        if (quota === "full") throw tooMany(limit, limit.sessions);
        sessions.push({ id, quota });
        if (isNew && limit.observe && quota.holders() > limit.sessions)
          this.observed = { limit, message: tooMany(limit, limit.sessions).message };
      }
    } catch (error) {
      for (const { quota } of [...counted, ...sessions]) quota.release();
      throw error;
    }
    this.#counted = counted;
    this.#rows = counted.filter(({ kind }) => kind !== "statements");
    this.#statements = counted.filter(({ kind }) => kind === "statements");
    this.#sessions = sessions;
    this.cuts = this.#rows.some(({ limit }) => !limit.observe);
    for (const { quota } of before) quota.release();
  }

  /** Take a row of so many bytes. @returns the limit that it does not fit in; then it must not be sent */
  row(bytes: number): Exceeded | undefined {
    const now = this.#now();
    for (const entry of this.#rows) {
      if (entry.quota.take(entry.kind === "rows" ? 1 : bytes, now)) continue;
      if (!entry.limit.observe) return this.#exceeded(entry, now);
      this.observed ??= this.#exceeded(entry, now);
    }
    return undefined;
  }

  /** Count bytes of a response that are not rows; they pass in any case. */
  overhead(bytes: number): void {
    const now = this.#now();
    for (const { kind, quota } of this.#rows) if (kind === "bytes") quota.take(bytes, now, true);
  }

  /** The limit of rows or bytes that has nothing left. */
  exhausted(): Exceeded | undefined {
    const now = this.#now();
    for (const entry of this.#rows) {
      if (!entry.quota.isExhausted(now)) continue;
      if (!entry.limit.observe) return this.#exceeded(entry, now);
      this.observed ??= this.#exceeded(entry, now);
    }
    return undefined;
  }

  /** Take so many statements. @returns the limit that they do not fit in; then they must not run */
  statements(count: number): Exceeded | undefined {
    const now = this.#now();
    for (const entry of this.#statements) {
      if (entry.quota.take(count, now)) continue;
      if (!entry.limit.observe) return this.#exceeded(entry, now);
      this.observed ??= this.#exceeded(entry, now);
    }
    return undefined;
  }

  /** Any limit that cuts; for what cannot be told from a counter. */
  get cutting(): LimitRule | undefined {
    return this.#rows.find(({ limit }) => !limit.observe)?.limit;
  }

  /** An operation has ended. */
  settle(): void {
    for (const { quota } of this.#rows) quota.settle();
    this.observed = undefined;
  }

  /** The clock is read once a turn of the event loop: the next call begins another. */
  newTurn(): void {
    this.#nowMillis = -1;
  }

  close(): void {
    this.#closed = true;
    for (const { quota } of [...this.#counted, ...this.#sessions]) quota.release();
    this.#counted = [];
    this.#rows = [];
    this.#statements = [];
    this.#sessions = [];
  }

  #now(): number {
    if (this.#nowMillis < 0) this.#nowMillis = this.#table.nowMillis();
    return this.#nowMillis;
  }

  #exceeded({ limit, kind, quota }: Counted, now: number): Exceeded {
    const frees = quota.freesInMillis(now);
    const when = frees === 0 ? "" : `; it frees up in ${spanText(frees)}, at ${new Date(Date.now() + frees).toISOString()}`;
    const used = Math.min(quota.used(now), quota.max);
    return {
      limit,
      message: `limit "${limit.name}" does not allow more: ${used} of ${quota.max} ${kind} within ${spanText(limit.perMillis ?? 0)} are used${when}`,
    };
  }
}

function tooMany(limit: LimitRule, most: number): SluiceError {
  return new SluiceError("SLUICE_QUOTA_SESSIONS", `limit "${limit.name}" allows ${most} session${most === 1 ? "" : "s"} at one time`, {
    hint: "Close a session first.",
  });
}

/** `59 min 12 s`, the two largest units, rounded up to the second. */
function spanText(millis: number): string {
  const seconds = Math.ceil(millis / 1_000);
  const parts = [
    [Math.floor(seconds / 86_400), "d"],
    [Math.floor(seconds / 3_600) % 24, "h"],
    [Math.floor(seconds / 60) % 60, "min"],
    [seconds % 60, "s"],
  ] as const;
  const first = parts.findIndex(([count]) => count > 0);
  const shown = parts.slice(first, first + 2).filter(([count]) => count > 0);
  return first < 0 ? "0 s" : shown.map(([count, unit]) => `${count} ${unit}`).join(" ");
}
