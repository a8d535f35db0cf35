import type { TargetConfig } from "../core/config/types.ts";
import { SluiceError } from "../core/errors.ts";
import type { Identity } from "../core/identity/types.ts";
import type { Lock } from "./types.ts";

/** What a lock is about, taken apart. */
interface Subject {
  readonly kind: "user" | "group" | "target" | "session" | "issuer" | "label";
  /** `issuer:value` for users and groups, `key=value` for labels, else a name. */
  readonly value: string;
}

/** Who tries to do something where: what a lock is compared with. */
export interface Lockable {
  readonly identity: Pick<Identity, "issuer" | "user" | "groups" | "chain">;
  readonly target: Pick<TargetConfig, "name" | "labels">;
  /** Session id; undefined before the session has one. */
  readonly session: string | undefined;
}

/** What a subject may name. */
export interface Known {
  /** Names of the configured issuers, the default first. */
  readonly issuers: readonly string[];
  readonly targets: readonly string[];
}

const KINDS: readonly string[] = ["user", "group", "target", "session", "issuer", "label"] satisfies Subject["kind"][];
const SUBJECT_CHARACTERS = 512;

/**
 * Read a lock's subject: `user:corp:alice`, `group:corp:dba`, `target:orders`, `session:…`, `issuer:corp`, `label:env=prod`.
 * Users and groups without an issuer get the default one.
 * @throws SluiceError SLUICE_SUBJECT_INVALID; a lock that would silently match nobody is worse than an error
 */
export function parseSubject(text: string, { issuers, targets }: Known): Subject {
  const colon = text.indexOf(":");
  const kind = text.slice(0, Math.max(colon, 0));
  const value = text.slice(colon + 1);
  if (!KINDS.includes(kind) || value === "" || text.length > SUBJECT_CHARACTERS || /[\p{Cc}\p{Bidi_Control}\p{Zl}\p{Zp}]/u.test(text)) {
    throw wrong(text, "it is none of user:…, group:…, target:…, session:…, issuer:… and label:key=value");
  }
  if (kind === "label" && !/^[^=]+=/.test(value)) throw wrong(text, "a label is written label:key=value");
  if (kind === "issuer" && !issuers.includes(value))
    throw wrong(text, `no issuer has that name; there are ${issuers.join(", ") || "none"}`);
  if (kind === "target" && !targets.includes(value)) throw wrong(text, "no target has that name");
  if (kind === "user" || kind === "group") return { kind, value: qualify(text, value, issuers) };
  return { kind: kind as Subject["kind"], value };
}

export const formatSubject = (subject: Subject): string => `${subject.kind}:${subject.value}`;

function qualify(text: string, value: string, issuers: readonly string[]): string {
  const colon = value.indexOf(":");
  if (colon === -1) {
    const first = issuers[0];
    if (first === undefined) throw wrong(text, "there is no issuer that it could belong to");
    return `${first}:${value}`;
  }
  // A misspelt issuer must not turn into a name of the default issuer.
  if (!issuers.includes(value.slice(0, colon)))
    throw wrong(text, `no issuer is named ${JSON.stringify(value.slice(0, colon))}; there are ${issuers.join(", ") || "none"}`);
  if (colon === value.length - 1) throw wrong(text, "nothing follows the issuer");
  return value;
}

const wrong = (text: string, why: string): SluiceError =>
  new SluiceError("SLUICE_SUBJECT_INVALID", `${JSON.stringify(text.slice(0, 80))} is not the subject of a lock: ${why}`, {
    hint: "Write for example user:corp:alice, group:corp:dba, target:orders or label:env=prod.",
  });

/**
 * The first lock in force that covers this; pure, so that workers can ask it with a copy of the list.
 * A user lock also covers sessions in which that user takes part as an actor (Identity.chain).
 */
export function matchLock(locks: readonly Lock[], who: Lockable, nowMillis = Date.now()): Lock | undefined {
  return locks.find((lock) => (lock.expiresMillis === undefined || nowMillis < lock.expiresMillis) && covers(lock.subject, who));
}

function covers(subject: string, { identity, target, session }: Lockable): boolean {
  const colon = subject.indexOf(":");
  const value = subject.slice(colon + 1);
  switch (subject.slice(0, colon)) {
    case "user":
      return identity.user === value || identity.chain.includes(value);
    case "group":
      return identity.groups.includes(value);
    case "issuer":
      return identity.issuer === value;
    case "target":
      return target.name === value;
    case "session":
      return session === value;
    case "label": {
      const equals = value.indexOf("=");
      const key = value.slice(0, equals);
      return Object.hasOwn(target.labels, key) && target.labels[key] === value.slice(equals + 1);
    }
    default:
      // The store lets no other kind in; should one appear nevertheless, it locks.
      return true;
  }
}
