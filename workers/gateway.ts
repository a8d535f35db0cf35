import { randomBytes } from "node:crypto";
import { BroadcastChannel } from "node:worker_threads";
import { type Logger, pino } from "pino";
import { type LockStore, openLocks } from "../control/locks.ts";
import { createMetrics, type Metrics, type Refusal } from "../control/metrics.ts";
import type { GatewayControl, GatewayHealth, LiveSession, Lock } from "../control/types.ts";
import { type LoadedConfig, loadConfig } from "../core/config/load.ts";
import { SluiceError } from "../core/errors.ts";
import { LIMITS } from "../core/limits.ts";
import { closeFd, fdLimit, peerAddress } from "../core/native/acceptor.ts";
import { transportName } from "../core/net/transport.ts";
import { compilePolicy } from "../core/policy/compile.ts";
import { openRecorder, recoverOrphans } from "../store/recorder.ts";
import type { Recorder } from "../store/types.ts";
import { type OpenListener, openListener } from "./acceptor.ts";
import { Clients } from "./clients.ts";
import { maskKey, prepareFolder, refuseFixed } from "./folders.ts";
import { type Order, type Report, type Snapshot, TARGET_SLOTS } from "./messages.ts";
import { WorkerPool } from "./pool.ts";
import { TurnedAway } from "./turned-away.ts";
import { FileWatch } from "./watch.ts";

export interface Gateway extends GatewayControl {
  readonly addresses: { readonly listeners: readonly string[] };
  readonly config: LoadedConfig["config"];
  /** Resolves when the gateway has closed, for whatever reason. */
  readonly closed: Promise<void>;
  /** Stop accepting, let transactions end, then close; what is left at the deadline is cut. */
  drain(): Promise<void>;
  close(): Promise<void>;
}

/** How long the main thread waits for every worker to carry an order out. */
const ORDER_MILLIS = 2_000;
const START_MILLIS = 30_000;
/** Workers that end this often within a minute without one staying up: the process gives up, for its supervisor to restart it. */
const LOSSES_PER_MINUTE = 20;
const MAX_DESCRIPTORS = 1_048_576;
/** Clients do not get the last descriptors: an operator must reach the control API, and files must open, when a crowd has taken the rest. */
const SPARE_DESCRIPTORS = 32;

/**
 * Start a gateway from its configuration file and wait until every listener is up.
 * @throws SluiceError SLUICE_CONFIG_INVALID, SLUICE_POLICY_INVALID, SLUICE_STORE_UNUSABLE
 */
export async function startGateway(file: string): Promise<Gateway> {
  const loaded = loadConfig(file);
  const gateway = new RunningGateway(file, loaded);
  try {
    await gateway.start();
  } catch (error) {
    await gateway.close();
    throw error;
  }
  return gateway;
}

interface Ticket {
  readonly waiting: Set<number>;
  count: number;
  readonly errors: string[];
  readonly resolve: () => void;
}

class RunningGateway implements Gateway {
  readonly closed: Promise<void>;
  readonly #file: string;
  readonly #log: Logger;
  readonly #metrics: Metrics = createMetrics();
  readonly #sessions = new Map<string, LiveSession>();
  readonly #operations = new Map<string, number>();
  readonly #workers = new Map<number, number>();
  readonly #tickets = new Map<number, Ticket>();
  readonly #channelName = `sluice-${randomBytes(8).toString("hex")}`;
  readonly #channel = new BroadcastChannel(this.#channelName);
  readonly #targetSlots: Record<string, number> = {};
  readonly #watch: FileWatch;
  readonly #turnedAway: TurnedAway;
  readonly #clients: Clients;
  #loaded: LoadedConfig;
  #policyVersion: string;
  #locks!: LockStore;
  #recorder: Recorder | undefined;
  #pool: WorkerPool | undefined;
  #listeners: OpenListener[] = [];
  #generation = 1;
  #ticket = 0;
  #reloadError: string | undefined;
  #ready = false;
  #draining = false;
  #descriptorsMax = 0;
  #losses: number[] = [];
  readonly #refused: number[] = [];
  #startFailed: (error: Error) => void = () => {};
  #lockTimer: NodeJS.Timeout | undefined;
  #reloading: Promise<unknown> = Promise.resolve();
  #closing: Promise<void> | undefined;
  #resolveClosed: () => void = () => {};

  constructor(file: string, loaded: LoadedConfig) {
    this.#file = file;
    this.#loaded = loaded;
    this.#watch = new FileWatch(
      () => void this.reload("file change"),
      (folder, message) => this.#log.warn({ folder }, message),
    );
    // From now on: what changes while the workers start is noticed as well.
    this.#watch.follow(loaded.files);
    this.#policyVersion = compilePolicy(loaded.policy, loaded.config.targets, loaded.config.issuers).version;
    this.#log = pino({ level: loaded.config.log.level, base: undefined, timestamp: pino.stdTimeFunctions.isoTime }, pino.destination(2));
    this.#turnedAway = new TurnedAway(this.#log, this.#metrics);
    this.#clients = new Clients(loaded.config);
    this.closed = new Promise((resolve) => {
      this.#resolveClosed = resolve;
    });
  }

  get config(): LoadedConfig["config"] {
    return this.#loaded.config;
  }

  get addresses(): { readonly listeners: readonly string[] } {
    return { listeners: this.#listeners.map((listener) => listener.address) };
  }

  async start(): Promise<void> {
    const { config } = this.#loaded;
    prepareFolder(config.data, "data");
    prepareFolder(config.keys, "keys");
    await recoverOrphans(config.data, 0);
    this.#recorder = openRecorder(config.data, 0, { onError: (error) => this.#log.error(`recorder: ${error.message}`) });
    this.#locks = openLocks(config.data);
    const failed = new Promise<never>((_resolve, reject) => {
      this.#startFailed = reject;
    });
    const timer = setTimeout(
      () => this.#startFailed(new SluiceError("SLUICE_INTERNAL", `the workers were not ready within ${START_MILLIS / 1000} s`)),
      START_MILLIS,
    );
    try {
      this.#descriptorsMax = Math.min(fdLimit().soft, MAX_DESCRIPTORS);
      this.#pool = new WorkerPool(
        {
          channel: this.#channelName,
          maskKey: maskKey(config.keys),
          snapshot: this.#snapshot(),
          size: config.workers,
          maxDescriptors: this.#descriptorsMax,
        },
        {
          send: (order) => this.#channel.postMessage(order),
          report: (message) => this.#received(message),
          ended: (offer) => this.#clients.ended(offer),
          lost: (slot, error, expected) => this.#lost(slot, error, expected),
        },
      );
      await Promise.race([this.#pool.ready, failed]);
    } finally {
      clearTimeout(timer);
    }
    this.#listeners = [];
    config.listeners.forEach((listener, index) => {
      this.#listeners.push(
        openListener(
          listener,
          (fd) => this.#accepted(fd, index),
          (count) => this.#turnedAway.add("descriptors", count),
        ),
      );
    });
    this.#armLockExpiry();
    this.#ready = true;
    this.#watch.ready();
    this.audit({
      type: "config",
      by: "gateway",
      detail: { change: "started", policyVersion: this.#policyVersion, workers: config.workers },
    });
    this.#log.info(
      { listeners: this.addresses.listeners, workers: config.workers, transport: transportName(), policyVersion: this.#policyVersion },
      "gateway is up",
    );
  }

  #accepted(fd: number, listener: number): void {
    if (this.#draining || this.#pool === undefined) return closeFd(fd);
    // The kernel gives the lowest number that is free.
    if (fd >= this.#descriptorsMax - SPARE_DESCRIPTORS) return this.#turnAway(fd, "descriptors");
    if (this.#pool.placed >= this.config.limits.sessions) return this.#turnAway(fd, "sessions");
    const isProxied = this.#clients.isProxy(fd, listener);
    const place = this.#clients.admit(fd, isProxied);
    if (place === "refused") return this.#turnAway(fd, "address");
    if (place === "gone") return closeFd(fd);
    this.#clients.placed(this.#pool.place(fd, listener, isProxied), place);
  }

  #turnAway(fd: number, reason: Refusal): void {
    this.#turnedAway.add(reason, 1, () => ({ address: peerAddress(fd) }));
    closeFd(fd);
  }

  /** Refusals of one turn go out together: workers hear every order. */
  #refuse(offer: number): void {
    if (this.#refused.push(offer) > 1) return;
    setImmediate(() => this.#channel.postMessage({ kind: "refuse", offers: this.#refused.splice(0) } satisfies Order));
  }

  #snapshot(): Snapshot {
    for (const target of this.config.targets) {
      if (this.#targetSlots[target.name] === undefined) {
        const next = Object.keys(this.#targetSlots).length;
        if (next >= TARGET_SLOTS)
          throw new SluiceError("SLUICE_CONFIG_INVALID", `more than ${TARGET_SLOTS} different targets since the gateway started`, {
            hint: "Restart the gateway.",
          });
        this.#targetSlots[target.name] = next;
      }
    }
    return {
      generation: this.#generation,
      config: this.config,
      policy: this.#loaded.policy,
      locks: this.#locks.list(),
      targetSlots: { ...this.#targetSlots },
    };
  }

  #received(message: Report): void {
    switch (message.kind) {
      case "ready":
        this.#workers.set(message.slot, message.thread);
        this.#channel.postMessage({ kind: "start", thread: message.thread, snapshot: this.#snapshot() } satisfies Order);
        return;
      case "opened":
        this.#sessions.set(message.session.id, message.session);
        return;
      case "closed":
        this.#sessions.delete(message.session);
        this.#operations.delete(message.session);
        return;
      case "done": {
        const ticket = this.#tickets.get(message.ticket);
        if (ticket === undefined) return;
        ticket.count += message.count;
        if (message.error !== undefined) ticket.errors.push(message.error);
        ticket.waiting.delete(message.slot);
        if (ticket.waiting.size === 0) ticket.resolve();
        return;
      }
      case "stats":
        this.#metrics.add(message.delta);
        for (const [id, count] of Object.entries(message.operations)) if (this.#sessions.has(id)) this.#operations.set(id, count);
        return;
      case "log":
        this.#log[message.level](message.fields, message.message);
        return;
      case "client":
        if (this.#clients.told(message.offer, message.address)) return;
        this.#turnedAway.add("address", 1, () => ({ address: message.address }));
        this.#refuse(message.offer);
        return;
      case "bad-proxy-header":
        this.#turnedAway.add("proxy_header", 1, () => ({ proxy: message.peer, problem: message.problem }));
        return;
      case "relay-order":
        this.#channel.postMessage(message.order);
        return;
      default:
    }
  }

  /** A worker thread ended: its sessions ended with it. */
  async #lost(slot: number, error: Error | undefined, expected: boolean): Promise<void> {
    this.#workers.delete(slot);
    let sessions = 0;
    for (const [id, session] of this.#sessions) {
      if (session.worker !== slot) continue;
      sessions += 1;
      this.#sessions.delete(id);
      this.#operations.delete(id);
    }
    for (const ticket of this.#tickets.values()) {
      ticket.waiting.delete(slot);
      if (ticket.waiting.size === 0) ticket.resolve();
    }
    if (expected) return;
    this.#metrics.workerRestarted();
    this.#log.error({ slot, sessions, err: error }, "a worker ended; its sessions are closed and it is being replaced");
    if (!this.#ready) this.#startFailed(error ?? new SluiceError("SLUICE_INTERNAL", "a worker could not start"));
    const now = Date.now();
    this.#losses = [...this.#losses.filter((time) => now - time < 60_000), now];
    if (this.#losses.length > LOSSES_PER_MINUTE) {
      this.#log.fatal("workers keep ending; the gateway stops");
      void this.close();
      return;
    }
    if (slot === 0) return;
    try {
      await openRecorder(this.config.data, slot).close();
    } catch (failure) {
      this.#log.error({ err: failure }, "the shard of the ended worker could not be put right; it will be when the gateway starts again");
    }
  }

  /** Tell all workers and wait until each has answered, or the time is up. */
  async #order(
    make: (ticket: number) => Order,
  ): Promise<{ readonly count: number; readonly errors: readonly string[]; readonly complete: boolean }> {
    this.#ticket += 1;
    const number = this.#ticket;
    const waiting = new Set(this.#workers.keys());
    if (waiting.size === 0) return { count: 0, errors: [], complete: true };
    let timer: NodeJS.Timeout | undefined;
    const ticket = await new Promise<Ticket>((resolve) => {
      const entry: Ticket = { waiting, count: 0, errors: [], resolve: () => resolve(entry) };
      this.#tickets.set(number, entry);
      timer = setTimeout(() => resolve(entry), ORDER_MILLIS);
      this.#channel.postMessage(make(number));
    });
    clearTimeout(timer);
    this.#tickets.delete(number);
    return { count: ticket.count, errors: ticket.errors, complete: ticket.waiting.size === 0 };
  }

  sessions(): readonly LiveSession[] {
    return [...this.#sessions.values()].map((session) => ({
      ...session,
      operations: this.#operations.get(session.id) ?? session.operations,
    }));
  }

  async kill(session: string, reason: string, by: string): Promise<boolean> {
    if (!this.#sessions.has(session)) return false;
    const text = reason === "" ? `killed by ${by}` : `killed by ${by}: ${reason}`;
    const { count } = await this.#order((ticket) => ({ kind: "kill", session, reason: text, ticket }));
    this.audit({ type: "control", by, detail: { action: "kill", session, reason, killed: count } });
    return count > 0;
  }

  locks(): readonly Lock[] {
    return this.#locks.list();
  }

  async addLock(request: Omit<Lock, "id" | "createdMillis">): Promise<{ readonly lock: Lock; readonly killed: number }> {
    const lock = this.#locks.add(request, {
      issuers: this.config.issuers.map((issuer) => issuer.name),
      targets: this.config.targets.map((target) => target.name),
    });
    const { count, complete } = await this.#order((ticket) => ({ kind: "locks", locks: this.#locks.list(), ticket }));
    this.#metrics.locksInForce(this.#locks.list().length);
    this.#armLockExpiry();
    this.audit({
      type: "lock",
      by: request.by,
      detail: { action: "add", lock: lock.id, subject: lock.subject, reason: lock.reason, killed: count, allWorkersAnswered: complete },
    });
    if (!complete) this.#log.error({ lock: lock.id }, "not every worker confirmed the lock in time");
    return { lock, killed: count };
  }

  async removeLock(id: string, by: string): Promise<boolean> {
    const removed = this.#locks.remove(id);
    if (removed === undefined) return false;
    await this.#order((ticket) => ({ kind: "locks", locks: this.#locks.list(), ticket }));
    this.#metrics.locksInForce(this.#locks.list().length);
    this.audit({ type: "lock", by, detail: { action: "remove", lock: id, subject: removed.subject } });
    return true;
  }

  /** Locks end by themselves in the workers; this only keeps the metric true. */
  #armLockExpiry(): void {
    clearInterval(this.#lockTimer);
    this.#lockTimer = setInterval(() => this.#metrics.locksInForce(this.#locks.list().length), 5_000);
    this.#lockTimer.unref();
    this.#metrics.locksInForce(this.#locks.list().length);
  }

  reload(by: string): ReturnType<GatewayControl["reload"]> {
    const result = this.#reloading.then(() => this.#reload(by));
    this.#reloading = result.catch(() => {});
    return result;
  }

  async #reload(by: string): ReturnType<GatewayControl["reload"]> {
    const before = this.#loaded;
    const seen = new Set(before.files);
    try {
      const loaded = loadConfig(this.#file, process.env, seen);
      this.#log.level = loaded.config.log.level;
      refuseFixed(before.config, loaded.config);
      const version = compilePolicy(loaded.policy, loaded.config.targets, loaded.config.issuers).version;
      this.#loaded = loaded;
      this.#generation += 1;
      this.#policyVersion = version;
      const { errors, complete } = await this.#order((ticket) => ({ kind: "snapshot", snapshot: this.#snapshot(), ticket }));
      if (errors.length > 0) throw new SluiceError("SLUICE_INTERNAL", `a worker could not take the configuration: ${errors[0]}`);
      if (!complete) this.#log.error("not every worker confirmed the reload in time");
      this.#clients.configure(loaded.config);
      if (loaded.config.workers !== before.config.workers) await this.#pool?.resize(loaded.config.workers, this.#snapshot());
    } catch (thrown) {
      const error = thrown instanceof Error ? thrown.message : String(thrown);
      if (this.#loaded !== before) await this.#restore(before);
      this.#log.level = before.config.log.level;
      // Those in force, and those of the refused attempt, which may be mended.
      this.#watch.follow([...seen]);
      this.#reloadError = error;
      this.#metrics.reload("refused");
      this.#log.error({ by }, `reload refused, the old configuration stays in force: ${error}`);
      this.audit({ type: "config", by, detail: { change: "refused", error } });
      return { ok: false, error };
    }
    this.#watch.follow(this.#loaded.files);
    this.#reloadError = undefined;
    this.#metrics.reload("ok");
    this.#log.info({ by, policyVersion: this.#policyVersion }, "configuration reloaded");
    this.audit({ type: "config", by, detail: { change: "reloaded", policyVersion: this.#policyVersion, workers: this.config.workers } });
    return { ok: true, policyVersion: this.#policyVersion };
  }

  /** Workers that took the new configuration go back to the old one. */
  async #restore(before: LoadedConfig): Promise<void> {
    this.#loaded = before;
    this.#clients.configure(before.config);
    this.#generation += 1;
    this.#policyVersion = compilePolicy(before.policy, before.config.targets, before.config.issuers).version;
    await this.#order((ticket) => ({ kind: "snapshot", snapshot: this.#snapshot(), ticket }));
  }

  audit(event: Parameters<GatewayControl["audit"]>[0]): void {
    try {
      this.#recorder?.event({ type: event.type, detail: { by: event.by, ...event.detail } });
    } catch (error) {
      this.#log.error({ err: error }, "an event of the control plane could not be recorded");
    }
  }

  health(): GatewayHealth {
    return {
      ready: this.#ready && !this.#draining && this.#workers.size > 0,
      draining: this.#draining,
      workers: this.#workers.size,
      sessions: this.#sessions.size,
      policyVersion: this.#policyVersion,
      configGeneration: this.#generation,
      reloadError: this.#reloadError,
    };
  }

  metrics(): Promise<string> {
    const live: Record<string, number> = {};
    for (const session of this.#sessions.values()) live[session.target] = (live[session.target] ?? 0) + 1;
    this.#metrics.live(live);
    return this.#metrics.text();
  }

  async drain(): Promise<void> {
    if (this.#draining) return this.closed;
    this.#draining = true;
    for (const listener of this.#listeners) listener.close();
    this.#log.info({ sessions: this.#sessions.size }, "draining");
    this.#channel.postMessage({ kind: "drain", deadlineMillis: LIMITS.drainMillis } satisfies Order);
    const deadline = Date.now() + LIMITS.drainMillis + 1_000;
    while (this.#sessions.size > 0 && Date.now() < deadline) await new Promise((resolve) => setTimeout(resolve, 20));
    await this.close();
  }

  close(): Promise<void> {
    this.#closing ??= this.#close();
    return this.#closing;
  }

  async #close(): Promise<void> {
    this.#draining = true;
    for (const listener of this.#listeners) listener.close();
    this.#watch.close();
    clearInterval(this.#lockTimer);
    try {
      await this.#pool?.close();
      if (this.#ready) this.audit({ type: "config", by: "gateway", detail: { change: "stopped" } });
      await this.#recorder?.close();
    } finally {
      this.#channel.close();
      this.#log.info("gateway has stopped");
      this.#log.flush();
      this.#resolveClosed();
    }
  }
}
