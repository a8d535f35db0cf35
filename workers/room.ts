import { timingSafeEqual } from "node:crypto";
import { parentPort, threadId } from "node:worker_threads";
import { type Lockable, matchLock } from "../control/subjects.ts";
import type { Lock } from "../control/types.ts";
import type { ListenerConfig, TargetConfig } from "../core/config/types.ts";
import { type SluiceError, toSluiceError } from "../core/errors.ts";
import { createAuthenticator, type OidcAuthenticator } from "../core/identity/oidc.ts";
import type { Identity } from "../core/identity/types.ts";
import { createMasker } from "../core/mask/masker.ts";
import type { Masker } from "../core/mask/types.ts";
import type { Transport } from "../core/net/types.ts";
import { compilePolicy } from "../core/policy/compile.ts";
import type { MaskRule, Policy } from "../core/policy/types.ts";
import { Allowance, type Exceeded } from "../core/quota/allowance.ts";
import type { QuotaTable } from "../core/quota/table.ts";
import type { Grant } from "../core/verdict.ts";
import { type Catalogue, createCatalogue } from "../protocols/postgres/catalogue.ts";
import { DecisionContexts } from "../protocols/postgres/decide.ts";
import { dial } from "../protocols/postgres/dial.ts";
import type { Relay } from "../protocols/postgres/relay.ts";
import type { RelayRoom } from "../protocols/postgres/relay-options.ts";
import type { Classifier } from "../protocols/postgres/sql/types.ts";
import type { Recorder } from "../store/types.ts";
import { Counters } from "./counters.ts";
import type { Order, Report, Snapshot } from "./messages.ts";
import type { UpstreamSlots } from "./upstream-slots.ts";

/** Characters of what an unauthenticated peer says that go on record. */
const STRANGER_TEXT = 256;
const STRANGERS_PER_SECOND = 20;

interface LiveEntry {
  readonly relay: Relay;
  readonly key: Uint8Array;
}

/** Everything that the sessions of one worker share. One per worker thread. */
export class Room implements RelayRoom {
  readonly slot: number;
  readonly transport: Transport;
  readonly recorder: Recorder;
  readonly classifier: Classifier;
  readonly quotas: QuotaTable;
  readonly upstreamSlots: UpstreamSlots;
  readonly authenticator: OidcAuthenticator;
  readonly contexts = new DecisionContexts();
  readonly counters = new Counters();
  snapshot: Snapshot;
  policy: Policy;
  readonly #maskKey: Buffer;
  readonly #sessions = new Map<number, LiveEntry>();
  readonly #byId = new Map<string, Relay>();
  readonly #catalogues = new Map<string, { readonly target: TargetConfig; readonly catalogue: Catalogue }>();
  readonly #maskers = new Map<string, Masker>();
  readonly #firstListeners: readonly ListenerConfig[];
  #processIds = 0;
  #draining = false;
  /** Refused without an identity within the present second. */
  #strangers = 0;

  constructor(parts: {
    slot: number;
    transport: Transport;
    recorder: Recorder;
    classifier: Classifier;
    quotas: QuotaTable;
    upstreamSlots: UpstreamSlots;
    snapshot: Snapshot;
    maskKey: Buffer;
  }) {
    this.slot = parts.slot;
    this.transport = parts.transport;
    this.recorder = parts.recorder;
    this.classifier = parts.classifier;
    this.quotas = parts.quotas;
    this.upstreamSlots = parts.upstreamSlots;
    this.snapshot = parts.snapshot;
    this.#firstListeners = parts.snapshot.config.listeners;
    this.#maskKey = parts.maskKey;
    this.authenticator = createAuthenticator(parts.snapshot.config.issuers);
    this.policy = compile(parts.snapshot);
    this.recorder.onRelieved = () => {
      for (const { relay } of this.#sessions.values()) relay.relieved();
    };
  }

  get draining(): boolean {
    return this.#draining;
  }

  get live(): number {
    return this.#sessions.size;
  }

  /** The listener as configured now; where it was removed meanwhile, as it was when the gateway started. */
  listener(index: number): ListenerConfig {
    const first = this.#firstListeners[index];
    return (
      this.snapshot.config.listeners.find(
        ({ protocol, listen }) => protocol === first.protocol && listen.host === first.listen.host && listen.port === first.listen.port,
      ) ?? first
    );
  }

  /** Positive, unique among the live sessions of all workers: the slot is part of it. */
  nextProcessId(): number {
    const high = (this.slot & 0x7f) << 24;
    do this.#processIds = (this.#processIds + 1) & 0xff_ffff;
    while (this.#sessions.has(high | this.#processIds));
    return high | this.#processIds;
  }

  lockOn(identity: Identity, target: TargetConfig, session: string | undefined): Lock | undefined {
    return matchLock(this.snapshot.locks, { identity, target, session } as Lockable);
  }

  /** The issuer that vouched for this identity is still configured under that name. */
  trusts(identity: Identity): boolean {
    return this.snapshot.config.issuers.some((issuer) => issuer.name === identity.issuer && issuer.issuer === identity.claims.iss);
  }

  catalogue(grant: Grant): Catalogue {
    const { target } = grant;
    const known = this.#catalogues.get(target.name);
    if (known !== undefined && sameTarget(known.target, target)) return known.catalogue;
    const catalogue = createCatalogue(() =>
      dial(grant, this.transport, { applicationName: "sluice catalogue", parameters: new Map(), protocolMinor: 0 }),
    );
    this.#catalogues.set(target.name, { target, catalogue });
    return catalogue;
  }

  masker(masks: readonly MaskRule[]): Masker | undefined {
    if (masks.length === 0) return undefined;
    const key = JSON.stringify(masks);
    let masker = this.#maskers.get(key);
    if (masker === undefined) {
      if (this.#maskers.size > 1_000) this.#maskers.clear();
      masker = createMasker([...masks], this.#maskKey, undefined);
      this.#maskers.set(key, masker);
    }
    return masker;
  }

  opened(relay: Relay, processId: number, key: Uint8Array, application: string | undefined): void {
    this.#sessions.set(processId, { relay, key });
    this.#byId.set(relay.id, relay);
    const { identity, target } = relay.grant;
    this.counters.session(target.name);
    report({
      kind: "opened",
      session: {
        id: relay.id,
        worker: this.slot,
        startedMillis: Date.now(),
        user: identity.user,
        groups: identity.groups,
        target: target.name,
        protocol: "postgres",
        clientAddress: relay.clientAddress,
        application,
        operations: 0,
      },
    });
    if (this.#draining) relay.drain();
  }

  closed(relay: Relay, processId: number): void {
    this.#sessions.delete(processId);
    this.#byId.delete(relay.id);
    report({ kind: "closed", session: relay.id, operations: relay.operations });
  }

  /** A CancelRequest came in; its session may live in another worker. */
  routeCancel(processId: number, key: Uint8Array): void {
    if (!this.cancel(processId, key)) report({ kind: "relay-order", order: { kind: "cancel", processId, key } });
  }

  /** @returns false: no session of this worker has this process id */
  cancel(processId: number, key: Uint8Array): boolean {
    const entry = this.#sessions.get(processId);
    if (entry === undefined) return false;
    if (sameKey(entry.key, key)) entry.relay.cancel();
    return true;
  }

  catalogueChanged(target: string): void {
    report({ kind: "relay-order", order: { kind: "catalogue", target, from: this.slot } });
  }

  obey(order: Order): void {
    switch (order.kind) {
      case "kill": {
        const relay = this.#byId.get(order.session);
        relay?.kill(order.reason);
        report({ kind: "done", ticket: order.ticket, slot: this.slot, count: relay === undefined ? 0 : 1, error: undefined });
        return;
      }
      case "locks": {
        this.snapshot = { ...this.snapshot, locks: order.locks };
        report({ kind: "done", ticket: order.ticket, slot: this.slot, count: this.#applyLocks(), error: undefined });
        return;
      }
      case "snapshot": {
        let error: string | undefined;
        try {
          this.adopt(order.snapshot);
        } catch (thrown) {
          error = thrown instanceof Error ? thrown.message : String(thrown);
        }
        report({ kind: "done", ticket: order.ticket, slot: this.slot, count: 0, error });
        return;
      }
      case "cancel":
        this.cancel(order.processId, order.key);
        return;
      case "catalogue":
        if (order.from !== this.slot) this.#catalogues.get(order.target)?.catalogue.invalidate();
        return;
      case "drain":
        this.#drain(order.deadlineMillis);
        return;
      default:
    }
  }

  #applyLocks(): number {
    let killed = 0;
    for (const { relay } of [...this.#sessions.values()]) {
      const { identity, target } = relay.grant;
      // Labels may have changed since the session was opened.
      const current = this.snapshot.config.targets.find((candidate) => candidate.name === target.name) ?? target;
      const lock = this.lockOn(identity, current, relay.id);
      if (lock === undefined) continue;
      relay.kill(`locked: ${lock.reason || lock.subject}`, "SLUICE_LOCKED");
      killed += 1;
    }
    return killed;
  }

  /** Put a new snapshot in force, for live sessions too: a tightening acts at once. */
  adopt(snapshot: Snapshot): void {
    if (snapshot.generation < this.snapshot.generation) return;
    const policy = compile(snapshot);
    this.authenticator.reconfigure(snapshot.config.issuers);
    this.snapshot = snapshot;
    this.policy = policy;
    this.contexts.clear();
    for (const { relay } of [...this.#sessions.values()]) this.#reconsider(relay);
    this.#applyLocks();
  }

  #reconsider(relay: Relay): void {
    const { identity, target } = relay.grant;
    const current = this.snapshot.config.targets.find((candidate) => candidate.name === target.name);
    if (current === undefined || !this.trusts(identity)) {
      relay.kill(current === undefined ? `target "${target.name}" was removed` : `issuer "${identity.issuer}" was removed`);
      return;
    }
    if (!sameTarget(target, current)) {
      relay.kill(`target "${target.name}" is another one now; reconnect`);
      return;
    }
    const verdict = this.policy.connect(identity, current, relay.clientAddress, Date.now());
    if ("kind" in verdict) {
      relay.kill(`the policy no longer lets you open "${target.name}"`);
      return;
    }
    const policy = this.policy.session(verdict);
    relay.setPolicy(policy, this.masker(policy.masks));
    try {
      relay.limit(policy.limits, () => new Allowance(this.quotas, identity, policy.limits, false));
    } catch (error) {
      relay.kill(`limits cannot be counted: ${toSluiceError(error).message}`);
    }
  }

  #drain(deadlineMillis: number): void {
    this.#draining = true;
    for (const { relay } of [...this.#sessions.values()]) relay.drain();
    setTimeout(() => {
      for (const { relay } of [...this.#sessions.values()]) relay.kill("the gateway is shutting down", "SLUICE_DRAINING");
    }, deadlineMillis).unref();
  }

  /** The worker is about to end: so do its sessions. */
  async endAll(): Promise<void> {
    for (const { relay } of [...this.#sessions.values()]) relay.kill("the gateway is shutting down", "SLUICE_DRAINING");
    // Last words leave in the next turns of the loop.
    await new Promise((resolve) => setTimeout(resolve, 20));
    this.transport.close();
  }

  dialFailed(target: string, error: SluiceError): void {
    this.counters.dialError(target);
    log("warn", `target ${target}: ${error.message}`, { target, code: error.code });
  }

  authFailed(failure: {
    clientAddress: string;
    target: string;
    application: string | undefined;
    identity: Identity | undefined;
    code: string;
    message: string;
    issuer: string | undefined;
  }): void {
    if (failure.code.startsWith("SLUICE_CREDENTIAL") || failure.code === "SLUICE_ISSUER_UNAVAILABLE")
      this.counters.authFailure(failure.issuer, failure.code);
    const { identity } = failure;
    if (identity === undefined && !this.#mayRecordStranger()) return;
    try {
      this.recorder.event({
        type: "auth.failed",
        client: {
          address: failure.clientAddress,
          ...(failure.application === undefined ? {} : { application: failure.application.slice(0, STRANGER_TEXT) }),
        },
        target: failure.target.slice(0, STRANGER_TEXT),
        protocol: "postgres",
        ...(identity === undefined
          ? {}
          : {
              identity: {
                issuer: identity.issuer,
                user: identity.user,
                subject: identity.subject,
                groups: identity.groups,
                chain: identity.chain,
              },
            }),
        error: { code: failure.code, message: failure.message.slice(0, STRANGER_TEXT) },
      });
    } catch (error) {
      this.fault("record", error);
    }
  }

  /** Whoever has no identity must not fill the record: so many a second are written one by one, the others as a number. */
  #mayRecordStranger(): boolean {
    this.#strangers += 1;
    if (this.#strangers === 1) {
      setTimeout(() => {
        const left = this.#strangers - STRANGERS_PER_SECOND;
        this.#strangers = 0;
        if (left <= 0) return;
        try {
          this.recorder.event({ type: "auth.failed", detail: { notListed: left, why: `more than ${STRANGERS_PER_SECOND} a second` } });
        } catch (error) {
          this.fault("record", error);
        }
      }, 1_000).unref();
    }
    return this.#strangers <= STRANGERS_PER_SECOND;
  }

  limitObserved(relay: Relay, { limit, message }: Exceeded): void {
    this.counters.limitHit(limit.name);
    const detail = { action: "limit", observed: "deny", rule: `limit:${limit.name}`, message };
    this.recorder.event({ type: "control", session: relay.id, target: relay.grant.target.name, detail });
  }

  fault(where: string, error: unknown): void {
    log("error", `${where}: ${error instanceof Error ? error.message : String(error)}`, {
      where,
      stack: error instanceof Error ? error.stack : undefined,
    });
  }

  /** Counts since the last call, for the main thread. */
  sendStats(): void {
    const delta = this.counters.take(this.recorder.stats.journalBytes, this.contexts.stats());
    if (delta === undefined) return;
    const operations: Record<string, number> = {};
    for (const [id, relay] of this.#byId) operations[id] = relay.operations;
    report({ kind: "stats", slot: this.slot, delta, operations });
  }
}

function compile(snapshot: Snapshot): Policy {
  return compilePolicy(snapshot.policy, snapshot.config.targets, snapshot.config.issuers);
}

/** Whether knowledge about one holds for the other: the same server, database and role. */
export function sameTarget(a: TargetConfig, b: TargetConfig): boolean {
  return (
    a === b ||
    (JSON.stringify(a.address) === JSON.stringify(b.address) &&
      a.database === b.database &&
      a.user === b.user &&
      a.password === b.password &&
      JSON.stringify(a.tls) === JSON.stringify(b.tls))
  );
}

export function report(message: Report): void {
  parentPort?.postMessage(message);
}

export function log(level: "info" | "warn" | "error", message: string, fields: Record<string, unknown>): void {
  report({ kind: "log", level, message, fields: { thread: threadId, ...fields } });
}

/** Compare in constant time; lengths are no secret. */
function sameKey(a: Uint8Array, b: Uint8Array): boolean {
  return a.length === b.length && timingSafeEqual(a, b);
}
