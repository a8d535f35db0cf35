import { randomBytes } from "node:crypto";
import type { ListenerConfig, TargetConfig } from "../core/config/types.ts";
import { SluiceError, toSluiceError } from "../core/errors.ts";
import type { Identity } from "../core/identity/types.ts";
import { LIMITS } from "../core/limits.ts";
import { ProxyHeaderError } from "../core/net/proxy-header.ts";
import type { Transport, Wire } from "../core/net/types.ts";
import type { SessionPolicy } from "../core/policy/types.ts";
import { Allowance } from "../core/quota/allowance.ts";
import type { Allowed, Grant } from "../core/verdict.ts";
import { Conversation } from "../protocols/postgres/conversation.ts";
import { fatalResponse } from "../protocols/postgres/deny.ts";
import { cancel, dial, type Upstream } from "../protocols/postgres/dial.ts";
import { askCredential, type Greeting, greet, welcome } from "../protocols/postgres/greet.ts";
import { Relay } from "../protocols/postgres/relay.ts";
import { parseSearchPath } from "../protocols/postgres/search-path.ts";
import { SEARCH_PATH } from "../protocols/postgres/startup-parameters.ts";
import { type Client, directClient, proxiedClient } from "./client.ts";
import { type Room, report, sameTarget } from "./room.ts";

/**
 * The path of one connection, from accept to close:
 *
 *     adopt → (proxy's header) → greet → identify → authorize → dial → relay → close
 *
 * A step that fails ends the connection with an error the client understands; nothing behind it happens. Resolves when
 * both legs are closed and the session's end is on record.
 * @param onProxied the peer is a trusted proxy, whose header comes first; called with the client's address that it tells
 */
export async function serve(wire: Wire, listener: ListenerConfig, room: Room, onProxied?: (clientAddress: string) => void): Promise<void> {
  // Two functions, because one that waits keeps all its variables: the credential must not stay in memory as long as the session.
  const session = await establish(wire, listener, room, onProxied);
  if (session === undefined) return;
  await session.relay.closed;
  session.ended();
}

interface Session {
  readonly relay: Relay;
  /** Called once both legs are closed. */
  readonly ended: () => void;
}

/** @returns the session that has begun, or undefined where the connection was answered for good */
async function establish(
  wire: Wire,
  listener: ListenerConfig,
  room: Room,
  onProxied: ((clientAddress: string) => void) | undefined,
): Promise<Session | undefined> {
  const conversation = new Conversation(wire, { deadlineMillis: LIMITS.handshakeMillis, peer: "client" });
  const client = onProxied === undefined ? directClient(wire) : await throughProxy(conversation);
  if (client === undefined) return undefined;
  onProxied?.(client.address);
  const clientAddress = client.address;
  let greeting: Greeting | undefined;
  let identity: Identity | undefined;
  try {
    greeting = await greet(conversation, listener.tls);
    if (greeting.kind === "cancel") {
      room.routeCancel(greeting.processId, greeting.key);
      conversation.abandon();
      wire.lastWords(NOTHING);
      return undefined;
    }
    identity = await room.authenticator.authenticate(await askCredential(conversation, client.isLocal));
    const target = findTarget(room, greeting.target);
    const grant = authorize(room, identity, target, clientAddress);
    return await openSession(conversation, greeting, grant, clientAddress, room);
  } catch (thrown) {
    const error = toSluiceError(thrown);
    conversation.abandon();
    wire.lastWords(fatalResponse(error));
    refused(room, error, thrown, clientAddress, greeting, identity);
    return undefined;
  }
}

const NOTHING = new Uint8Array(0);

/** Who does not begin as agreed gets no answer: it may be anybody's bytes that the proxy passed on. */
async function throughProxy(conversation: Conversation): Promise<Client | undefined> {
  try {
    return await proxiedClient(conversation);
  } catch (error) {
    const { wire } = conversation;
    if (error instanceof ProxyHeaderError) report({ kind: "bad-proxy-header", peer: wire.remoteAddress, problem: error.message });
    conversation.abandon();
    wire.lastWords(NOTHING);
    return undefined;
  }
}

function findTarget(room: Room, name: string): TargetConfig {
  const target = room.snapshot.config.targets.find((candidate) => candidate.name === name && candidate.protocol === "postgres");
  if (target === undefined) {
    throw new SluiceError("SLUICE_TARGET_UNKNOWN", `target "${name}" is not configured`, {
      hint: "The database name picks the target: psql dbname=TARGET.",
    });
  }
  return target;
}

/** May this identity open this target at all? Locks go before policy. */
function authorize(room: Room, identity: Identity, target: TargetConfig, clientAddress: string): Grant {
  if (!room.trusts(identity)) throw new SluiceError("SLUICE_CREDENTIAL_INVALID", `issuer "${identity.issuer}" is not configured any more`);
  const lock = room.lockOn(identity, target, undefined);
  if (lock !== undefined) throw new SluiceError("SLUICE_LOCKED", `locked: ${lock.reason || lock.subject}`);
  const verdict = room.policy.connect(identity, target, clientAddress, Date.now());
  if ("kind" in verdict) throw new SluiceError(verdict.code, verdict.message, verdict.hint === undefined ? {} : { hint: verdict.hint });
  return verdict;
}

async function openSession(
  conversation: Conversation,
  greeting: Extract<Greeting, { kind: "session" }>,
  grant: Grant,
  clientAddress: string,
  room: Room,
): Promise<Session> {
  const { target, identity } = grant;
  const { wire } = conversation;
  const id = randomBytes(10).toString("hex");
  // Before anything is done at the target, or waited for.
  const { limits } = room.policy.session(grant);
  const searchPath = greeting.parameters.get(SEARCH_PATH);
  if (searchPath !== undefined) decideSearchPath(room.policy.session(grant), searchPath, clientAddress);
  let allowance = limits.length === 0 ? undefined : new Allowance(room.quotas, identity, limits, true);
  let giveBack = (): void => {};
  let upstream: Upstream | undefined;
  let relay: Relay | undefined;
  try {
    giveBack = await room.upstreamSlots.acquire(target.name, room.snapshot.targetSlots[target.name] ?? 0, target.connections.max);
    // Read before dialling: from dial's answer on, the wire must not wait for anything.
    const catalogue = room.catalogue(grant);
    if (!catalogue.loaded) await catalogue.refresh();
    upstream = await dial(grant, room.transport, {
      applicationName: greeting.applicationName,
      parameters: greeting.parameters,
      protocolMinor: greeting.protocolMinor,
    });
    // Policy, targets and locks may have changed while the target was dialled.
    const current = authorize(room, identity, findTarget(room, target.name), clientAddress);
    if (!sameTarget(current.target, target)) {
      throw new SluiceError("SLUICE_TARGET_UNREACHABLE", `target "${target.name}" was changed meanwhile`, { hint: "Connect again." });
    }
    const policy = room.policy.session(current);
    const decided = searchPath === undefined ? undefined : decideSearchPath(policy, searchPath, clientAddress);
    if (allowance !== undefined) allowance.adjust(policy.limits);
    else if (policy.limits.length > 0) allowance = new Allowance(room.quotas, identity, policy.limits, true);
    const processId = room.nextProcessId();
    const key = randomBytes(greeting.protocolMinor === 2 ? 32 : 4);
    const recorder = room.recorder.open({
      id,
      identity,
      clientAddress,
      application: greeting.applicationName,
      target: target.name,
      protocol: "postgres",
      record: target.record,
      startedMillis: Date.now(),
    });
    if (current.observed !== undefined) {
      const { effect, rule } = current.observed;
      room.recorder.event({
        type: "control",
        session: id,
        target: target.name,
        detail: { action: "connect", observed: effect, rule: rule ?? null },
      });
    }
    if (decided !== undefined) {
      const detail = { action: "connect", searchPath, rule: decided.rule ?? null, observed: decided.observed?.effect ?? null };
      room.recorder.event({ type: "control", session: id, target: target.name, detail });
    }
    const { backendPid, backendKey, cancelTarget } = upstream;
    relay = new Relay({
      room,
      id,
      grant: current,
      policy,
      masker: room.masker(policy.masks),
      allowance,
      catalogue,
      recorder,
      client: wire,
      upstream: upstream.wire,
      clientAddress,
      searchPath: initialSearchPath(upstream, greeting, catalogue.searchPath, target.user),
      statuses: upstream.parameters,
      cancelUpstream: cancels({ backendPid, backendKey, cancelTarget }, room.transport),
      onExpiry: room.snapshot.config.onExpiry,
      idleMillis: room.snapshot.config.limits.idleMillis,
    });
    if (allowance?.observed !== undefined) {
      room.limitObserved(relay, allowance.observed);
      allowance.settle();
    }
    welcome(conversation, upstream.parameters, processId, key);
    room.opened(relay, processId, key, greeting.applicationName);
    try {
      relay.start(conversation.release(), upstream.leftover);
    } catch (error) {
      // The client went away in the very moment of the welcome.
      relay.fail(toSluiceError(error));
    }
    return sessionOf(relay, processId, allowance, giveBack, room);
  } catch (error) {
    giveBack();
    (relay?.quotas?.allowance ?? allowance)?.close();
    // A relay closes its wires itself, last words first.
    if (relay === undefined) upstream?.wire.destroy();
    else relay.fail(toSluiceError(error));
    throw error;
  }
}

// Closures of a session's whole life are made out here: one made inside openSession would keep all that openSession knows.
const cancels =
  (upstream: Pick<Upstream, "backendPid" | "backendKey" | "cancelTarget">, transport: Transport): (() => Promise<boolean>) =>
  () =>
    cancel(upstream, transport);

const sessionOf = (relay: Relay, processId: number, allowance: Allowance | undefined, giveBack: () => void, room: Room): Session => ({
  relay,
  ended: () => {
    room.closed(relay, processId);
    giveBack();
    (relay.quotas?.allowance ?? allowance)?.close();
  },
});

/** The client asks for a search_path as it connects: may it set that? @throws SluiceError where it may not, or not at once */
function decideSearchPath(policy: SessionPolicy, value: string, clientAddress: string): Allowed {
  const names = { tables: [], columns: [], functions: [] };
  const accesses = [{ action: "sql:set", resources: [`setting:${SEARCH_PATH}`] }];
  const verdict = policy.decide(
    { protocol: "postgres", accesses, unfiltered: false, statements: 1, ...names },
    { text: `SET ${SEARCH_PATH} = ${value}`, parameters: [], transaction: "idle", clientAddress, nowMillis: Date.now() },
  );
  if (verdict.kind === "allowed") return verdict;
  const why = verdict.kind === "refused" ? verdict.message : "setting it needs an approval";
  throw new SluiceError("SLUICE_DENIED", `the startup parameter ${SEARCH_PATH} is not let through: ${why}`, {
    hint: "Connect without it.",
  });
}

/** The setting as the server reported it, or as the catalogue's own connection found it. What the client asked for, a pooler may have left out. */
function initialSearchPath(
  upstream: Upstream,
  greeting: Extract<Greeting, { kind: "session" }>,
  usual: readonly string[] | undefined,
  user: string,
): readonly string[] | undefined {
  const told = upstream.parameters.get(SEARCH_PATH);
  if (told !== undefined) return parseSearchPath(told, user);
  // Unknown: the server is asked where it makes a difference.
  return greeting.parameters.has(SEARCH_PATH) ? undefined : usual;
}

function refused(
  room: Room,
  error: SluiceError,
  thrown: unknown,
  clientAddress: string,
  greeting: Greeting | undefined,
  identity: Identity | undefined,
): void {
  const target = greeting?.kind === "session" ? greeting.target : undefined;
  const known = target !== undefined && room.snapshot.config.targets.some((candidate) => candidate.name === target);
  if (error.code === "SLUICE_INTERNAL") room.fault("connection", error.cause ?? error);
  if (error.code === "SLUICE_TARGET_UNREACHABLE" || error.code === "SLUICE_TARGET_REFUSED")
    room.dialFailed(known ? (target ?? "unknown") : "unknown", error);
  // A port scanner's noise is not evidence, and neither is a target that is down; whoever is turned away here, is.
  if (greeting?.kind !== "session" || !TURNED_AWAY.has(error.code)) return;
  room.authFailed({
    clientAddress,
    target: target ?? "",
    application: greeting.applicationName,
    identity,
    code: error.code,
    message: error.message,
    issuer: issuerOf(thrown),
  });
}

const TURNED_AWAY: ReadonlySet<string> = new Set([
  "SLUICE_CREDENTIAL_MISSING",
  "SLUICE_CREDENTIAL_INVALID",
  "SLUICE_CREDENTIAL_EXPIRED",
  "SLUICE_CREDENTIAL_NEEDS_TLS",
  "SLUICE_ISSUER_UNAVAILABLE",
  "SLUICE_TARGET_UNKNOWN",
  "SLUICE_LOCKED",
  "SLUICE_DENIED",
  "SLUICE_QUOTA_SESSIONS",
  "SLUICE_APPROVAL_UNAVAILABLE",
]);

function issuerOf(thrown: unknown): string | undefined {
  return thrown instanceof Error && "issuer" in thrown && typeof thrown.issuer === "string" ? thrown.issuer : undefined;
}
