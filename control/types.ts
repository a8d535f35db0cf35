/** What the control API and the command line need of a running gateway; workers/gateway.ts implements it. */
export interface GatewayControl {
  /** Live sessions, oldest first. */
  sessions(): readonly LiveSession[];
  /** End a session: its client connection, its upstream connection, and the statement running there. False: no such live session. */
  kill(session: string, reason: string, by: string): Promise<boolean>;
  locks(): readonly Lock[];
  /** Add a lock; live sessions that match it are ended before the promise resolves. `killed` counts them. */
  addLock(lock: Omit<Lock, "id" | "createdMillis">): Promise<{ readonly lock: Lock; readonly killed: number }>;
  removeLock(id: string, by: string): Promise<boolean>;
  /** Re-read configuration and policies, all or nothing. */
  reload(by: string): Promise<{ readonly ok: true; readonly policyVersion: string } | { readonly ok: false; readonly error: string }>;
  /** Put an event of the control plane on record. */
  audit(event: {
    readonly type: "control" | "lock" | "config";
    readonly by: string;
    readonly detail: Readonly<Record<string, unknown>>;
  }): void;
  health(): GatewayHealth;
  /** Prometheus text exposition format 0.0.4. */
  metrics(): Promise<string>;
}

export interface LiveSession {
  readonly id: string;
  readonly worker: number;
  readonly startedMillis: number;
  readonly user: string;
  readonly groups: readonly string[];
  readonly target: string;
  readonly protocol: string;
  readonly clientAddress: string;
  readonly application: string | undefined;
  readonly operations: number;
}

/** `user:corp:alice`, `target:orders`, `session:…`, `group:…`, `issuer:…`, `label:env=prod`. */
export interface Lock {
  readonly id: string;
  readonly subject: string;
  readonly reason: string;
  readonly by: string;
  readonly createdMillis: number;
  /** undefined: until removed. */
  readonly expiresMillis: number | undefined;
}

export interface GatewayHealth {
  readonly ready: boolean;
  readonly draining: boolean;
  readonly workers: number;
  readonly sessions: number;
  readonly policyVersion: string;
  readonly configGeneration: number;
  /** Why the last reload was refused, if it was. */
  readonly reloadError: string | undefined;
}
