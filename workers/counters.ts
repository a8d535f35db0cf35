import type { WorkerDelta } from "../control/metrics.ts";
import type { RelayCounters } from "../protocols/postgres/relay-options.ts";

/** What a worker counts between two reports. The relay adds to plain numbers; names are counted where operations end. */
export class Counters implements RelayCounters {
  operations = 0;
  denied = 0;
  failed = 0;
  masked = 0;
  rows = 0;
  fromClientBytes = 0;
  toClientBytes = 0;
  #sessions = new Map<string, number>();
  #decided = new Map<string, { allow: number; deny: number }>();
  #deniedBy = new Map<string, number>();
  #maskedBy = new Map<string, number>();
  #limitHits = new Map<string, number>();
  #dialErrors = new Map<string, number>();
  #authFailures = new Map<string, { issuer: string | undefined; code: string; count: number }>();
  #journalBytes = 0;
  #hits = 0;
  #misses = 0;
  #changed = false;

  session(target: string): void {
    increase(this.#sessions, target, 1);
    this.#changed = true;
  }

  decided(target: string, effect: "allow" | "deny", rule: string | undefined): void {
    let counts = this.#decided.get(target);
    if (counts === undefined) {
      counts = { allow: 0, deny: 0 };
      this.#decided.set(target, counts);
    }
    counts[effect] += 1;
    if (effect === "deny") increase(this.#deniedBy, rule ?? "none", 1);
    this.#changed = true;
  }

  maskedBy(rule: string, count: number): void {
    increase(this.#maskedBy, rule, count);
  }

  limitHit(limit: string): void {
    increase(this.#limitHits, limit, 1);
    this.#changed = true;
  }

  dialError(target: string): void {
    increase(this.#dialErrors, target, 1);
    this.#changed = true;
  }

  authFailure(issuer: string | undefined, code: string): void {
    const key = `${issuer ?? ""}\n${code}`;
    const entry = this.#authFailures.get(key) ?? { issuer, code, count: 0 };
    entry.count += 1;
    this.#authFailures.set(key, entry);
    this.#changed = true;
  }

  /** undefined: nothing happened since the last call. */
  take(journalBytes: number, decisions: { readonly hits: number; readonly misses: number }): WorkerDelta | undefined {
    if (!this.#changed && this.fromClientBytes === 0 && this.toClientBytes === 0) return undefined;
    const delta: WorkerDelta = {
      sessions: Object.fromEntries(this.#sessions),
      operations: Object.fromEntries(this.#decided),
      denied: Object.fromEntries(this.#deniedBy),
      masked: Object.fromEntries(this.#maskedBy),
      limitHits: Object.fromEntries(this.#limitHits),
      dialErrors: Object.fromEntries(this.#dialErrors),
      authFailures: [...this.#authFailures.values()],
      bytesFromClients: this.fromClientBytes,
      bytesToClients: this.toClientBytes,
      decisionHits: decisions.hits - this.#hits,
      decisionMisses: decisions.misses - this.#misses,
      journalBytes: journalBytes - this.#journalBytes,
    };
    this.#sessions = new Map();
    this.#decided = new Map();
    this.#deniedBy = new Map();
    this.#maskedBy = new Map();
    this.#limitHits = new Map();
    this.#dialErrors = new Map();
    this.#authFailures = new Map();
    this.#journalBytes = journalBytes;
    this.#hits = decisions.hits;
    this.#misses = decisions.misses;
    this.fromClientBytes = 0;
    this.toClientBytes = 0;
    this.#changed = false;
    return delta;
  }
}

function increase(map: Map<string, number>, key: string, by: number): void {
  map.set(key, (map.get(key) ?? 0) + by);
}
