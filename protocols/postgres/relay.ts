import { SluiceError, toSluiceError } from "../../core/errors.ts";
import { LIMITS as limits } from "../../core/limits.ts";
import type { Masker } from "../../core/mask/types.ts";
import type { Wire } from "../../core/net/types.ts";
import type { LimitRule, SessionPolicy } from "../../core/policy/types.ts";
import type { Allowance } from "../../core/quota/allowance.ts";
import type { Grant } from "../../core/verdict.ts";
import type { SessionRecorder } from "../../store/types.ts";
import { BackendReader } from "./backend.ts";
import type { Catalogue } from "./catalogue.ts";
import { type DecisionContext, identityKey } from "./decide.ts";
import { fatalResponse } from "./deny.ts";
import { FrontendReader } from "./frontend.ts";
import { PendingQueue } from "./pending.ts";
import { Quotas } from "./quotas.ts";
import type { RelayOptions, RelayRoom } from "./relay-options.ts";
import { SearchPath } from "./search-path.ts";
import { NamedObjects } from "./statements.ts";

// Of its own, as in frame.ts.
const LIMITS = limits;

/**
 * One PostgreSQL session between its two wires, from ReadyForQuery to close. Client messages go through
 * frontend.ts (inspect, decide, record, forward), server messages through backend.ts (match, mask, record, forward);
 * this class holds what both share and the ways a session can end.
 */
export class Relay {
  // What messages look at stands together, what both directions look at in the middle: with thousands of sessions each cache line of one
  // is a miss.
  readonly client: Wire;
  #upstreamPaused = false;
  /** The policy in force has masks. */
  hasMasks = false;
  #waiting: (() => void)[] | undefined;
  /** This transaction has changed the schema, relations included. */
  schemaUncommitted = false;
  /** This transaction has made or changed functions, types or the like, which the catalogue does not show yet. */
  objectsChanged = false;
  /** Bytes of Bind parameters kept for messages that await their answers. */
  parameterBytes = 0;

  #ended = false;
  #expired = false;
  #draining = false;
  readonly room: RelayRoom;
  readonly queue = new PendingQueue();
  readonly recorder: SessionRecorder;
  /** undefined: no limit has applied to this session so far. */
  quotas: Quotas | undefined;
  readonly names = new NamedObjects();
  readonly searchPath: SearchPath;
  /** Transaction status of the last ReadyForQuery: 'I', 'T' or 'E'. */
  transactionStatus = 0x49;
  /** Messages of the extended protocol were sent behind the last Sync, and no Query behind them was answered. */
  inPipeline = false;
  /** Such a Query was answered, but what was sent before it is still open: a Sync would end it. */
  unsynced = false;
  /** A COPY FROM STDIN was sent and not answered; nothing else is sent before. */
  copyAwaited = false;
  /** The server asked for COPY data and the client has not ended them. */
  copyIn = false;
  /** CopyData has been sent since the server asked for them. */
  copyStarted = false;
  /** Sync messages held back in copy-in mode behind CopyData. */
  syncsInCopy = 0;
  #copyWaiting: (() => void)[] | undefined;
  #clientPaused = false;

  /** Something came from the client since the idle timer last looked. */
  active = false;
  /** The server ignores what comes until Sync, and no Sync is on its way to it. */
  skipping = false;
  readonly upstream: Wire;
  /** Schema changes that were sent and are not confirmed: nothing is decided until they are. */
  schemaChanges = 0;
  readonly catalogue: Catalogue;
  #context: DecisionContext | undefined;
  #contextPath: readonly string[] | undefined;
  readonly grant: Grant;
  /** Operations decided so far. */
  operations = 0;

  readonly #temporary = new Set<string>();
  readonly id: string;
  readonly clientAddress: string;
  readonly closed: Promise<string>;
  /** Counts this session's schema changes: temporary tables come and go without the catalogue showing it. */
  schemaEpoch = 0;
  #policy: SessionPolicy;
  #masker: Masker | undefined;
  #identityKey: string;
  readonly #options: RelayOptions;
  readonly #frontend: FrontendReader;
  readonly #backend: BackendReader;
  #expiryTimer: NodeJS.Timeout | undefined;
  #idleTimer: NodeJS.Timeout | undefined;
  #resolveClosed: (reason: string) => void = () => {};

  constructor(options: RelayOptions) {
    this.#options = options;
    this.room = options.room;
    this.id = options.id;
    this.grant = options.grant;
    this.#masker = options.masker;
    this.catalogue = options.catalogue;
    this.recorder = options.recorder;
    this.client = options.client;
    this.upstream = options.upstream;
    this.clientAddress = options.clientAddress;
    this.searchPath = new SearchPath(options.searchPath);
    this.#policy = options.policy;
    this.hasMasks = options.policy.masks.length > 0;
    this.#identityKey = identityKey(options.grant);
    if (options.allowance !== undefined) this.quotas = new Quotas(this, options.allowance);
    this.#frontend = new FrontendReader(this);
    this.#backend = new BackendReader(this);
    this.closed = new Promise((resolve) => {
      this.#resolveClosed = resolve;
    });
  }

  /** Start relaying; the arguments are what either peer sent beyond the handshake. */
  start(clientRest: Uint8Array, upstreamRest: Uint8Array): void {
    this.client.handler = this.#frontend;
    this.upstream.handler = this.#backend;
    this.#armExpiry();
    if (this.#options.idleMillis > 0) this.#armIdle();
    if (upstreamRest.length > 0) this.#backend.onData(upstreamRest, 0, upstreamRest.length);
    if (clientRest.length > 0) this.#frontend.onData(clientRest, 0, clientRest.length);
    this.client.resume();
    this.upstream.resume();
  }

  get ended(): boolean {
    return this.#ended;
  }

  /** What the target reported at the session's start. */
  get statuses(): ReadonlyMap<string, string> {
    return this.#options.statuses;
  }

  get policy(): SessionPolicy {
    return this.#policy;
  }

  get masker(): Masker | undefined {
    return this.#masker;
  }

  get busy(): boolean {
    return this.queue.size > 0;
  }

  /** Something that must be over before names are looked up again: a schema change under way, or a catalogue that is out of date. */
  settling(): Promise<unknown> | undefined {
    if (this.schemaChanges > 0 && this.queue.size > 0) return this.nextAnswer();
    return this.catalogue.loaded ? undefined : this.catalogue.refresh();
  }

  /** Resolves when an answer has come, and then some may still be on their way. */
  nextAnswer(): Promise<void> {
    return new Promise((resolve) => {
      this.#waiting ??= [];
      this.#waiting.push(resolve);
    });
  }

  /** Resolves when the server has asked for COPY data, or will not. */
  copyAnswered(): Promise<void> {
    return new Promise((resolve) => {
      this.#copyWaiting ??= [];
      this.#copyWaiting.push(resolve);
    });
  }

  /** The server answered a COPY FROM STDIN. @param asks it asks for data */
  copyAnswer(asks: boolean): void {
    this.copyIn = asks;
    this.copyStarted = false;
    this.syncsInCopy = 0;
    this.copyAwaited = false;
    const waiting = this.#copyWaiting;
    if (waiting === undefined) return;
    this.#copyWaiting = undefined;
    for (const resolve of waiting) resolve();
  }

  /** Schema changes of this session are committed: everyone's knowledge of the catalogue is out of date. */
  schemaChanged(): void {
    this.catalogue.invalidate();
    this.room.catalogueChanged(this.grant.target.name);
  }

  /** The backend worked off an answer that someone may wait for. */
  answered(): void {
    const waiting = this.#waiting;
    if (waiting === undefined || this.schemaChanges > 0) return;
    this.#waiting = undefined;
    for (const resolve of waiting) resolve();
  }

  /** Put another compiled policy in force for the statements to come. */
  setPolicy(policy: SessionPolicy, masker: Masker | undefined): void {
    this.#policy = policy;
    this.hasMasks = policy.masks.length > 0;
    this.#masker = masker;
    this.#context = undefined;
  }

  /**
   * Put other limits in force.
   * @param make for a session that had none so far
   * @throws SluiceError SLUICE_QUOTA_SESSIONS when the counters do not suffice
   */
  limit(limits: readonly LimitRule[], make: () => Allowance): void {
    if (this.quotas !== undefined) this.quotas.allowance.adjust(limits);
    else if (limits.length > 0) this.quotas = new Quotas(this, make());
  }

  /** A temporary table of this name was made: a name may mean another one from here on. */
  addTemporary(name: string): void {
    if (this.#temporary.has(name)) return;
    this.#temporary.add(name);
    this.#context = undefined;
  }

  /** Everything that a cached decision depends on, as it stands now. */
  context(): DecisionContext {
    const path = this.searchPath.value;
    const context = this.#context;
    if (context !== undefined && context.generation === this.catalogue.generation && this.#contextPath === path) return context;
    this.#contextPath = path;
    this.#context = this.room.contexts.get(
      this.grant,
      this.#policy,
      this.catalogue,
      path,
      this.#temporary,
      this.#masker,
      this.#identityKey,
    );
    return this.#context;
  }

  /** The same with an unknown search_path: a name means every relation that has it. */
  contextOfAnyPath(): DecisionContext {
    return this.room.contexts.get(this.grant, this.#policy, this.catalogue, undefined, this.#temporary, this.#masker, this.#identityKey);
  }

  /** False once the right to run further statements has ended. */
  mayRun(): boolean {
    return !this.#expired;
  }

  sendToClient(bytes: Uint8Array, start: number, end: number): void {
    this.room.counters.toClientBytes += end - start;
    this.client.write(bytes, start, end);
    if (!this.#upstreamPaused && (this.client.backlogBytes > LIMITS.backlogHighBytes || this.room.recorder.congested)) {
      this.#upstreamPaused = true;
      this.upstream.pause();
    }
  }

  /** The client took what waited for it, or the recorder did: read on if nothing else stands in the way. */
  relieved(): void {
    if (!this.#upstreamPaused || this.#ended || this.room.recorder.congested || this.client.backlogBytes > LIMITS.backlogHighBytes) return;
    this.#upstreamPaused = false;
    this.upstream.resume();
  }

  sendToServer(bytes: Uint8Array, start: number, end: number): void {
    this.upstream.write(bytes, start, end);
    if (!this.#clientPaused && this.upstream.backlogBytes > LIMITS.backlogHighBytes) this.#pauseClient();
  }

  /** The client's next message waits for `until`; it is presented again afterwards. */
  hold(until: Promise<unknown>): void {
    this.#pauseClient();
    until.then(
      () => this.#guard(() => this.#frontend.resume()),
      (error) => this.fail(toSluiceError(error)),
    );
  }

  /** Called by the frontend when it is ready for more, and by the backend as answers come. */
  resumeClient(): void {
    if (!this.#clientPaused || this.#ended || this.#frontend.held) return;
    if (this.upstream.backlogBytes > LIMITS.backlogLowBytes || this.queue.size > LIMITS.pipelineDepth / 2) return;
    this.#clientPaused = false;
    this.client.resume();
  }

  pipelineFull(): void {
    if (!this.#clientPaused) this.#pauseClient();
  }

  /** ReadyForQuery came and nothing is pending: the moment to leave if the session has to. */
  whenIdle(): void {
    if (this.#expired)
      this.fail(new SluiceError("SLUICE_CREDENTIAL_EXPIRED", "your credential has expired", { hint: "Sign in again and reconnect." }));
    else if (this.#draining && this.transactionStatus === 0x49) this.fail(drainingError());
  }

  /** The client said Terminate. */
  terminated(): void {
    this.#end("client terminated", "unknown", false);
  }

  /** The client asked to cancel what runs. */
  cancel(): void {
    if (this.busy) void this.#options.cancelUpstream();
  }

  /** Cancel what runs. Resolves once the request can strike nothing that is sent later. */
  async cancelRunning(): Promise<void> {
    await this.#options.cancelUpstream();
  }

  drain(): void {
    this.#draining = true;
    // A held message is under way too: it is about to be sent.
    if (!this.busy && !this.#frontend.held) this.whenIdle();
  }

  /** End at once, here and at the target. */
  kill(reason: string, code: "SLUICE_KILLED" | "SLUICE_LOCKED" | "SLUICE_DRAINING" = "SLUICE_KILLED"): void {
    if (this.#ended) return;
    this.client.lastWords(fatalResponse(new SluiceError(code, reason)));
    this.#end(reason, "killed", true);
  }

  /** End because of an error: the client learns which. */
  fail(error: SluiceError): void {
    if (this.#ended) return;
    if (error.code === "SLUICE_INTERNAL") this.room.fault("relay", error.cause ?? error);
    this.client.lastWords(fatalResponse(error));
    this.#end(error.code, "failed", this.busy);
  }

  #guard(step: () => void): void {
    if (this.#ended) return;
    try {
      step();
    } catch (error) {
      this.fail(toSluiceError(error));
    }
  }

  /** PostgreSQL has no half-close: a client that stops sending is gone, and what it left running is cancelled. */
  clientGone(): void {
    this.#end("client disconnected", "cancelled", this.busy);
  }

  /** The target has closed its connection, or ended it. */
  targetGone(): void {
    if (this.#ended) return;
    // What the target said before it closed has been forwarded; only a silent end is explained.
    if (!this.#backend.sawFatal) {
      this.client.lastWords(
        fatalResponse(new SluiceError("SLUICE_TARGET_UNREACHABLE", `target "${this.grant.target.name}" closed the connection`)),
      );
    }
    this.#end("target closed the connection", "failed", false);
  }

  /** What was to be sent could not be recorded, and was not sent. */
  unrecorded(error: Error): void {
    this.room.fault("record", error);
    this.fail(
      new SluiceError("SLUICE_RECORD_FAILED", "the operation could not be recorded, so it was not carried out", {
        hint: "The gateway's log says why.",
      }),
    );
  }

  #pauseClient(): void {
    this.#clientPaused = true;
    this.client.pause();
  }

  #armExpiry(): void {
    const millis = this.grant.identity.expiresAtMillis - Date.now();
    // setTimeout takes at most 2^31 − 1 ms; longer waits are armed again.
    this.#expiryTimer = setTimeout(
      () => {
        if (this.grant.identity.expiresAtMillis > Date.now()) this.#armExpiry();
        else this.#expire();
      },
      Math.min(Math.max(millis, 0), 0x7fff_ffff),
    );
    this.#expiryTimer.unref();
  }

  #expire(): void {
    this.#expired = true;
    if (this.#options.onExpiry === "cut" || !this.busy) {
      if (this.busy) void this.#options.cancelUpstream();
      this.fail(new SluiceError("SLUICE_CREDENTIAL_EXPIRED", "your credential has expired", { hint: "Sign in again and reconnect." }));
    }
  }

  #armIdle(): void {
    const { idleMillis } = this.#options;
    // setInterval takes at most 2^31 − 1 ms, and makes 1 ms of a longer one.
    const everyMillis = Math.min(Math.max(1_000, idleMillis / 4), 0x7fff_ffff);
    let quietMillis = 0;
    this.#idleTimer = setInterval(() => {
      // Counted in intervals without traffic: the time of each read would have to be asked for.
      quietMillis = this.active || this.busy ? 0 : quietMillis + everyMillis;
      this.active = false;
      if (quietMillis >= idleMillis) {
        this.fail(
          new SluiceError("SLUICE_DEADLINE", `no traffic for ${Math.round(idleMillis / 1000)} s`, {
            hint: "limits.idle of the gateway's configuration.",
          }),
        );
      }
    }, everyMillis);
    this.#idleTimer.unref();
  }

  #end(reason: string, outcome: "cancelled" | "killed" | "failed" | "unknown", cancel: boolean): void {
    if (this.#ended) return;
    this.#ended = true;
    clearTimeout(this.#expiryTimer);
    clearInterval(this.#idleTimer);
    this.#frontend.stop();
    this.#backend.stop();
    if (cancel) void this.#options.cancelUpstream();
    try {
      for (let index = 0; index < this.queue.size; index += 1) this.#settle(index, outcome, reason);
      this.recorder.close(reason);
    } catch (error) {
      this.room.fault("record", error);
    }
    this.upstream.lastWords(TERMINATE);
    // After its own last words a wire ignores these.
    this.client.lastWords(NOTHING);
    this.#resolveClosed(reason);
  }

  #settle(index: number, outcome: "cancelled" | "killed" | "failed" | "unknown", reason: string): void {
    const entry = this.queue.at(index);
    if (entry.request === 0 || entry.refusal !== undefined) return;
    const bytes = index === 0 ? this.#backend.responseBytes : 0;
    const code = outcome === "failed" ? "08006" : "57014";
    // The server has said already what became of it, although not yet that it is ready for more.
    const ended = entry.failed === undefined ? outcome : "failed";
    this.recorder.outcome(entry.request, ended, entry.rows, bytes, entry.failed ?? { code, message: reason }, entry.masked);
  }
}

/** Terminate: 'X', length 4. */
const TERMINATE = new Uint8Array([0x58, 0, 0, 0, 4]);
const NOTHING = new Uint8Array(0);

const drainingError = () => new SluiceError("SLUICE_DRAINING", "the gateway is shutting down", { hint: "Reconnect." });
