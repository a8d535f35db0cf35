import { Counter, collectDefaultMetrics, Gauge, Registry } from "prom-client";

/** Values one label may take; further ones are counted under `other`, so that names from outside cannot fill memory. */
export const LABEL_VALUES_MAX = 500;

/** What a worker counted since it last reported. Plain data; everything left out counts nothing. */
export interface WorkerDelta {
  /** Sessions opened, by target. */
  readonly sessions?: Readonly<Record<string, number>>;
  /** Operations decided, by target, then by effect. */
  readonly operations?: Readonly<Record<string, Partial<Readonly<Record<"allow" | "deny" | "approve", number>>>>>;
  /** Refused operations by rule; where no rule matched, under `none`. */
  readonly denied?: Readonly<Record<string, number>>;
  readonly masked?: Readonly<Record<string, number>>;
  /** Times that a limit of the policy stood in the way, or would have. */
  readonly limitHits?: Readonly<Record<string, number>>;
  readonly dialErrors?: Readonly<Record<string, number>>;
  readonly authFailures?: readonly { readonly issuer: string | undefined; readonly code: string; readonly count: number }[];
  readonly bytesFromClients?: number;
  readonly bytesToClients?: number;
  readonly decisionHits?: number;
  readonly decisionMisses?: number;
  readonly journalBytes?: number;
}

/** Why a connection was closed before it could say anything. */
export type Refusal = "descriptors" | "sessions" | "address" | "proxy_header";

/** The gateway's metrics; fed and read on the main thread. */
export interface Metrics {
  add(delta: WorkerDelta): void;
  /** Live sessions by target; a target that is left out has none. */
  live(sessions: Readonly<Record<string, number>>): void;
  reload(result: "ok" | "refused"): void;
  connectionsRefused(reason: Refusal, count: number): void;
  workerRestarted(): void;
  locksInForce(count: number): void;
  /** Prometheus text exposition format 0.0.4. */
  text(): Promise<string>;
}

/** @param options.process false leaves out the metrics of the process itself (memory, event loop, file descriptors) */
export function createMetrics(options: { readonly process?: boolean } = {}): Metrics {
  const registry = new Registry();
  const counter = <T extends string>(name: string, help: string, labelNames: readonly T[] = []) =>
    new Counter({ name: `sluice_${name}`, help, labelNames, registers: [registry] });
  const gauge = <T extends string>(name: string, help: string, labelNames: readonly T[] = []) =>
    new Gauge({ name: `sluice_${name}`, help, labelNames, registers: [registry] });

  const sessionsLive = gauge("sessions_live", "Live sessions.", ["target"]);
  const sessionsTotal = counter("sessions_total", "Sessions opened.", ["target"]);
  const operations = counter("operations_total", "Operations decided.", ["target", "effect"]);
  const denied = counter("denied_total", "Operations refused, by the rule that refused; none: no rule allowed them.", ["rule"]);
  const authFailures = counter("auth_failures_total", "Credentials refused.", ["issuer", "code"]);
  const refusals = counter("connections_refused_total", "Connections closed at once.", ["reason"]);
  const reloads = counter("reload_total", "Reloads of configuration and policy.", ["result"]);
  const bytes = counter("bytes_total", "Bytes relayed.", ["direction"]);
  const cacheHits = counter("decision_cache_hits_total", "Decisions taken from a cache.");
  const cacheMisses = counter("decision_cache_misses_total", "Decisions evaluated.");
  const journalBytes = counter("journal_bytes_total", "Bytes written to the journal.");
  const restarts = counter("worker_restarts_total", "Workers that ended and were replaced.");
  const masked = counter("masked_values_total", "Values masked.", ["rule"]);
  const limitHits = counter("limit_hits_total", "Times that a limit of the policy refused or cut something, or would have (observe).", [
    "limit",
  ]);
  const dialErrors = counter("dial_errors_total", "Connections to targets that failed.", ["target"]);
  const locks = gauge("locks", "Locks in force.");
  if (options.process !== false) collectDefaultMetrics({ register: registry, prefix: "sluice_" });

  const bound = { target: bounded(), rule: bounded(), mask: bounded(), limit: bounded(), issuer: bounded(), code: bounded() };
  const each = (counts: Readonly<Record<string, number>> | undefined, count: (name: string, value: number) => void) => {
    for (const [name, value] of Object.entries(counts ?? {})) if (value > 0) count(name, value);
  };
  const increase = (metric: Counter, value: number | undefined) => {
    if (value !== undefined && value > 0) metric.inc(value);
  };
  // Known from the start, so that a rate over them does not begin with a gap.
  for (const direction of ["from_clients", "to_clients"]) bytes.inc({ direction }, 0);
  for (const result of ["ok", "refused"]) reloads.inc({ result }, 0);
  for (const reason of ["descriptors", "sessions", "address", "proxy_header"]) refusals.inc({ reason }, 0);

  return {
    add(delta) {
      each(delta.sessions, (target, value) => sessionsTotal.inc({ target: bound.target(target) }, value));
      for (const [target, effects] of Object.entries(delta.operations ?? {})) {
        each(effects, (effect, value) => operations.inc({ target: bound.target(target), effect }, value));
      }
      each(delta.denied, (rule, value) => denied.inc({ rule: bound.rule(rule) }, value));
      each(delta.masked, (rule, value) => masked.inc({ rule: bound.mask(rule) }, value));
      each(delta.limitHits, (limit, value) => limitHits.inc({ limit: bound.limit(limit) }, value));
      each(delta.dialErrors, (target, value) => dialErrors.inc({ target: bound.target(target) }, value));
      for (const { issuer, code, count } of delta.authFailures ?? []) {
        if (count > 0) authFailures.inc({ issuer: bound.issuer(issuer ?? "unknown"), code: bound.code(code) }, count);
      }
      if (delta.bytesFromClients !== undefined) bytes.inc({ direction: "from_clients" }, Math.max(0, delta.bytesFromClients));
      if (delta.bytesToClients !== undefined) bytes.inc({ direction: "to_clients" }, Math.max(0, delta.bytesToClients));
      increase(cacheHits, delta.decisionHits);
      increase(cacheMisses, delta.decisionMisses);
      increase(journalBytes, delta.journalBytes);
    },
    live(sessions) {
      sessionsLive.reset();
      for (const [target, count] of Object.entries(sessions)) sessionsLive.inc({ target: bound.target(target) }, count);
    },
    connectionsRefused: (reason, count) => refusals.inc({ reason }, count),
    reload: (result) => reloads.inc({ result }),
    workerRestarted: () => restarts.inc(),
    locksInForce: (count) => locks.set(count),
    text: () => registry.metrics(),
  };
}

function bounded(): (value: string) => string {
  const seen = new Set<string>();
  return (value) => {
    if (seen.has(value)) return value;
    if (seen.size >= LABEL_VALUES_MAX) return "other";
    seen.add(value);
    return value;
  };
}
