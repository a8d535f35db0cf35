import type { Allowance, Exceeded } from "../../core/quota/allowance.ts";
import { type Refused, refuse } from "../../core/verdict.ts";
import type { DecisionRecord } from "../../store/types.ts";
import { Cutter } from "./cut.ts";
import type { Decision } from "./decide.ts";
import { refusalResponse, sqlState } from "./deny.ts";
import { query, TYPE } from "./messages.ts";
import { LIMITED, LIMITED_CAREFULLY, type Pending } from "./pending.ts";
import type { Relay } from "./relay.ts";
import type { Classified } from "./sql/types.ts";

/** Undone with the transaction or not at all: a result of nothing else can be cut wherever the server is. */
const READING = new Set(["sql:select", "sql:copy_out", "sql:show", "sql:cursor", "sql:prepare"]);
/** PostgreSQL's own functions that a transaction's end decides about. */
const ACTING =
  /^(?:pg_catalog\.)?(?:set_config|pg_notify|pg_logical_emit_message|lo_\w+|lowrite|setval|pg_\w*advisory\w*|pg_export_snapshot)$/;
const BEGIN = query("BEGIN");
const IDLE = 0x49;

/**
 * Limits of the policy in one session: statements are refused before they run, rows beyond a limit do not reach the client.
 *
 * A result can only be cut with the transaction left as an error leaves it if nothing was sent behind it that the server may
 * already have carried out. So while a result may be cut, what comes behind it waits for it: everything but a Sync, and that
 * too if the statement does more than read. A simple query that does more than read outside a block commits before its last rows
 * arrive; it runs in a transaction of the gateway's own instead.
 */
export class Quotas {
  readonly #relay: Relay;
  readonly #cutter: Cutter;
  readonly allowance: Allowance;
  #rowBytes = 0;
  /** Something besides reading was sent since the last Sync, which an error of what is sent now would undo. */
  #acted = false;
  /** Likewise something that begins or ends a transaction: whether one is open shows only when Sync was answered. */
  #unclear = false;
  readonly #acting = new WeakMap<Classified, { readonly generation: number; readonly acts: boolean }>();
  readonly #denials = new WeakMap<DecisionRecord, Map<string, DecisionRecord>>();
  #waiting: (() => void)[] = [];

  constructor(relay: Relay, allowance: Allowance) {
    this.#relay = relay;
    this.allowance = allowance;
    this.#cutter = new Cutter(relay);
  }

  /** undefined: nothing is being cut, and no transaction is the gateway's own. */
  get cutter(): Cutter | undefined {
    return this.#cutter.atRest ? undefined : this.#cutter;
  }

  /** The client's next message has to wait, until inStep() resolves. Otherwise it is about to be looked at. */
  mustWait(type: number): boolean {
    const waits = WAITS.has(type) && !this.#relay.copyIn && this.#waitsFor(type);
    if (type === TYPE.sync && !waits) {
      this.#acted = false;
      this.#unclear = false;
    }
    return waits;
  }

  #waitsFor(type: number): boolean {
    if (this.#cutter.isBusy) return true;
    const { queue } = this.#relay;
    if (queue.size === 0 || !this.allowance.cuts) return false;
    // Whether it begins outside a block must be known.
    if (type === TYPE.query) return true;
    const last = queue.at(queue.size - 1);
    if (last.limited === LIMITED) return type !== TYPE.sync || last.kind === "query";
    if (last.limited === LIMITED_CAREFULLY) return true;
    return last.kind === "sync" && queue.size > 1 && queue.at(queue.size - 2).limited !== 0;
  }

  inStep(): Promise<void> {
    return new Promise((resolve) => this.#waiting.push(resolve));
  }

  wake(): void {
    if (this.#waiting.length === 0 || this.#relay.queue.size > 0 || this.#cutter.isBusy) return;
    for (const resolve of this.#waiting.splice(0)) resolve();
  }

  /** What the backend read at once is worked off. */
  afterRead(): void {
    this.allowance.newTurn();
    this.wake();
  }

  /** Does a limit stand in the way of what the policy allows? Counts the statements if none does. */
  judge(decision: Decision, classified: Classified, isQuery: boolean): Decision {
    if (decision.verdict.kind !== "allowed") return decision;
    const judged = this.#judge(decision, classified, isQuery);
    // Rows are counted when they come, which may be hours later.
    this.allowance.newTurn();
    return judged;
  }

  #judge(decision: Decision, classified: Classified, isQuery: boolean): Decision {
    const { allowance } = this;
    allowance.newTurn();
    const limit = allowance.cutting;
    if (limit !== undefined && classified.returnsRows) {
      const cannot = (what: string, hint: string): Decision =>
        this.#refused(decision, { limit, message: `${what} cannot be held to limit "${limit.name}"` }, hint);
      if (classified.statements > 1 && endsTransaction(classified))
        return cannot("a message that returns rows and ends a transaction", "Send the statement that ends the transaction by itself.");
      if (isQuery && this.#unclear) return cannot("a simple query behind a transaction command without Sync", "Send Sync first.");
    }
    // Somebody whose statements are used up can still leave a transaction.
    const leaves = classified.statements === 1 && endsTransaction(classified);
    const exceeded =
      (classified.returnsRows ? allowance.exhausted() : undefined) ??
      (leaves ? undefined : allowance.statements(Math.max(1, classified.statements)));
    if (exceeded !== undefined) return this.#refused(decision, exceeded, undefined);
    const { observed } = allowance;
    return observed === undefined ? decision : { ...decision, record: this.#record(decision.record, observed, true) };
  }

  /** An operation is about to be sent. @returns what to send before it */
  admitted(entry: Pending, classified: Classified): Uint8Array | undefined {
    if (!this.allowance.cuts) return undefined;
    const acts = this.#acted || this.#acts(classified);
    // A Query ends the implicit transaction that it is part of.
    this.#acted = acts && entry.kind !== "query";
    this.#unclear = entry.kind !== "query" && (this.#unclear || classified.effects.some(({ kind }) => kind === "transaction"));
    if (!classified.returnsRows) return undefined;
    entry.limited = acts ? LIMITED_CAREFULLY : LIMITED;
    if (!acts || entry.kind !== "query" || this.#relay.transactionStatus !== IDLE || managesTransactions(classified)) return undefined;
    this.#cutter.wrap();
    return BEGIN;
  }

  /** A row for the client. @returns false: it must not be sent; the result is being cut */
  row(head: Pending, bytes: number): boolean {
    if (this.#cutter.cut !== undefined) return false;
    const exceeded = this.allowance.row(bytes);
    if (exceeded === undefined) {
      this.#rowBytes += bytes;
      return true;
    }
    const { limit, message } = exceeded;
    this.#relay.room.counters.limitHit(limit.name);
    const refusal = this.#refusal(exceeded, `${head.rows} rows of this result came before.`);
    const response = refusalResponse(refusal, `${this.#relay.id}/${head.request}`);
    this.#cutter.start(head, { response, failed: { code: sqlState(refusal.code), message } });
    return false;
  }

  /** An operation has ended; `bytes` of its response went to the client. */
  responded(bytes: number): void {
    const { allowance } = this;
    if (bytes > this.#rowBytes) allowance.overhead(bytes - this.#rowBytes);
    this.#rowBytes = 0;
    if (allowance.observed !== undefined) this.#relay.room.limitObserved(this.#relay, allowance.observed);
    allowance.settle();
  }

  #refused(decision: Decision, exceeded: Exceeded, hint: string | undefined): Decision {
    this.#relay.room.counters.limitHit(exceeded.limit.name);
    return { ...decision, verdict: this.#refusal(exceeded, hint), record: this.#record(decision.record, exceeded, false) };
  }

  #refusal({ limit, message }: Exceeded, hint: string | undefined): Refused {
    const { policyVersion } = this.#relay.policy;
    return refuse({ code: "SLUICE_QUOTA_EXCEEDED", rule: ruleOf(limit.name), policyVersion, stable: false, message, hint });
  }

  /** The same record for the same answer: each is written to the journal once. */
  #record(record: DecisionRecord, { limit }: Exceeded, observed: boolean): DecisionRecord {
    let byLimit = this.#denials.get(record);
    if (byLimit === undefined) {
      byLimit = new Map();
      this.#denials.set(record, byLimit);
    }
    const key = `${observed} ${limit.name}`;
    let made = byLimit.get(key);
    if (made === undefined) {
      made = observed
        ? { ...record, observed: "deny", storeSlot: -1 }
        : { ...record, effect: "deny", rule: ruleOf(limit.name), observed: undefined, storeSlot: -1 };
      byLimit.set(key, made);
    }
    return made;
  }

  /** Does it do anything besides reading? Functions that are not PostgreSQL's own may. */
  #acts(classified: Classified): boolean {
    const { catalogue } = this.#relay;
    const known = this.#acting.get(classified);
    if (known?.generation === catalogue.generation) return known.acts;
    const acts =
      classified.accesses.some(({ action }) => !READING.has(action)) ||
      classified.effects.some(({ kind }) => kind !== "fetch" && kind !== "execute") ||
      classified.functions.some((name) => ACTING.test(name) || !catalogue.isBuiltinFunction(name));
    this.#acting.set(classified, { generation: catalogue.generation, acts });
    return acts;
  }
}

/** Messages that do something at the server; others cannot come while a result is under way, or change nothing. */
const WAITS: ReadonlySet<number> = new Set([
  TYPE.query,
  TYPE.parse,
  TYPE.bind,
  TYPE.execute,
  TYPE.describe,
  TYPE.close,
  TYPE.sync,
  TYPE.functionCall,
]);

const ruleOf = (limit: string): string => `limit:${limit}`;

const endsTransaction = (classified: Classified): boolean =>
  classified.effects.some((effect) => effect.kind === "transaction" && ENDS.has(effect.verb));

const ENDS: ReadonlySet<string> = new Set(["commit", "rollback", "prepare", "commit_prepared", "rollback_prepared"]);

/** It begins or ends transactions itself, as procedures and DO blocks may when they run alone. */
const managesTransactions = (classified: Classified): boolean =>
  classified.effects.some(({ kind }) => kind === "transaction") ||
  (classified.statements === 1 && classified.accesses.some(({ action }) => action === "sql:call" || action === "sql:do"));
