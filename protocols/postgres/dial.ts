import { createHash } from "node:crypto";
import { performance } from "node:perf_hooks";
import { Reader } from "../../core/bytes/reader.ts";
import type { TargetConfig } from "../../core/config/types.ts";
import { SluiceError } from "../../core/errors.ts";
import { LIMITS } from "../../core/limits.ts";
import type { Transport, Wire } from "../../core/net/types.ts";
import type { Grant } from "../../core/verdict.ts";
import { Conversation } from "./conversation.ts";
import * as messages from "./messages.ts";
import { ALPN_NAME, PROTOCOL_3_0, PROTOCOL_3_2, TYPE } from "./messages.ts";
import { type SaltedPasswordCache, ScramClient } from "./scram.ts";
import { FORWARDED_PARAMETERS, PINNED_PARAMETERS } from "./startup-parameters.ts";

/** Messages a server may send between the startup packet and ReadyForQuery; real ones send about twenty. */
const MAX_STARTUP_MESSAGES = 500;
const MAX_SASL_MECHANISMS = 16;
const MIN_KEY_BYTES = 4;
const MAX_KEY_BYTES = 256;
const CANCEL_MILLIS = 5_000;

/** What dial needs of a target; the password stays inside this module. */
export type CancelTarget = Pick<TargetConfig, "name" | "address" | "tls">;

/** A target connection, authenticated and idle. */
export interface Upstream {
  readonly wire: Wire;
  /** Bytes after ReadyForQuery that came with it (a notice, usually nothing). */
  readonly leftover: Uint8Array;
  /** ParameterStatus by name, as the server spells it. */
  readonly parameters: Map<string, string>;
  readonly backendPid: number;
  /** 4 bytes in protocol 3.0, 4 to 256 in 3.2; empty where the server sends none. */
  readonly backendKey: Uint8Array;
  /** 0x00030000 or 0x00030002, as agreed. */
  readonly protocolVersion: number;
  readonly transactionStatus: "I" | "T" | "E";
  readonly cancelTarget: CancelTarget;
}

export interface DialStartup {
  readonly applicationName?: string | undefined;
  /** The client's startup parameters; only those in FORWARDED_PARAMETERS are accepted. */
  readonly parameters: ReadonlyMap<string, string>;
  readonly protocolMinor: 0 | 2;
}

/** Derived keys live as long as the configuration they come from. */
const saltedPasswords = new WeakMap<TargetConfig, SaltedPasswordCache>();

/**
 * Connect to the grant's target and authenticate with the target's own credential. The caller must set the wire's handler at once.
 * @throws SluiceError SLUICE_TARGET_UNREACHABLE (no connection, TLS, time), SLUICE_TARGET_REFUSED (authentication, protocol)
 */
export async function dial(grant: Grant, transport: Transport, startup: DialStartup): Promise<Upstream> {
  const { target } = grant;
  const deadline = performance.now() + LIMITS.dialMillis;
  const parameters = startupParameters(target, startup);
  const conversation = await open(target, transport, deadline);
  try {
    const version = startup.protocolMinor === 2 ? PROTOCOL_3_2 : PROTOCOL_3_0;
    conversation.send(messages.startupMessage(version, parameters));
    return await new Startup(conversation, target, version).run();
  } catch (error) {
    conversation.abandon();
    conversation.wire.destroy();
    throw targetError(target, error);
  }
}

/**
 * Ask the target to cancel what the upstream runs, on a connection of its own (TLS like the session's). Best effort: the protocol
 * has no answer. @returns whether the request was sent; never throws
 */
export async function cancel(
  upstream: Pick<Upstream, "backendPid" | "backendKey" | "cancelTarget">,
  transport: Transport,
): Promise<boolean> {
  if (upstream.backendKey.length < MIN_KEY_BYTES) return false;
  let conversation: Conversation | undefined;
  let sent = false;
  try {
    conversation = await open(upstream.cancelTarget, transport, performance.now() + CANCEL_MILLIS);
    conversation.send(messages.cancelRequest(upstream.backendPid, upstream.backendKey));
    conversation.wire.end();
    sent = true;
    // The server closes once it has signalled the backend; a connection cut before that may lose the request.
    await conversation.firstByte();
  } catch {
    // Closing is the only answer there is.
  }
  conversation?.abandon();
  conversation?.wire.destroy();
  return sent;
}

/** TCP or Unix connection, with TLS as the target asks for it. Over a Unix socket TLS does not exist. */
async function open(target: CancelTarget, transport: Transport, deadline: number): Promise<Conversation> {
  let conversation: Conversation | undefined;
  try {
    const wire = await transport.connect(target.address, left(deadline));
    conversation = new Conversation(wire, { deadlineMillis: left(deadline), peer: "target" });
    if ("host" in target.address && target.tls.mode !== "disable") await encrypt(conversation, target, target.address.host);
    return conversation;
  } catch (error) {
    conversation?.abandon();
    conversation?.wire.destroy();
    throw targetError(target, error);
  }
}

const left = (deadline: number): number => Math.max(1, Math.ceil(deadline - performance.now()));

async function encrypt(conversation: Conversation, target: CancelTarget, host: string): Promise<void> {
  conversation.send(messages.sslRequest());
  const answer = await conversation.byte();
  if (answer === 0x4e /* N */) throw refused("it does not offer TLS, which `tls.mode` demands");
  // An ErrorResponse here comes from nobody in particular: its text is not shown.
  if (answer !== 0x53 /* S */) throw refused("it did not answer the request for TLS as PostgreSQL does");
  await conversation.startTls({
    ca: target.tls.ca,
    serverName: target.tls.serverName ?? host,
    verify: target.tls.mode === "verify-full",
    alpn: [ALPN_NAME],
  });
}

function startupParameters(target: TargetConfig, startup: DialStartup): Map<string, string> {
  const parameters = new Map<string, string>([["user", target.user], ["database", target.database], ...PINNED_PARAMETERS]);
  for (const [name, value] of startup.parameters) {
    const key = name.toLowerCase();
    if (!FORWARDED_PARAMETERS.has(key)) {
      throw new SluiceError("SLUICE_PROTOCOL_VIOLATION", `startup parameter "${name.slice(0, 64)}" is not passed on`, {
        hint: "Set it with SET after connecting, where policy allows that.",
      });
    }
    parameters.set(key, value);
  }
  if (startup.applicationName !== undefined) parameters.set("application_name", startup.applicationName);
  return parameters;
}

/** Reads the server's messages from the startup packet to the first ReadyForQuery. */
class Startup {
  readonly #conversation: Conversation;
  readonly #target: TargetConfig;
  readonly #parameters = new Map<string, string>();
  #version: number;
  #authenticated = false;
  #sasl: ScramClient | undefined;
  #saslStep: "none" | "first" | "final" | "verified" = "none";
  #passwordSent = false;
  #backendPid = 0;
  #backendKey: Uint8Array = new Uint8Array(0);

  constructor(conversation: Conversation, target: TargetConfig, version: number) {
    this.#conversation = conversation;
    this.#target = target;
    this.#version = version;
  }

  async run(): Promise<Upstream> {
    for (let count = 0; count < MAX_STARTUP_MESSAGES; count++) {
      const { type, body } = await this.#conversation.message();
      const reader = new Reader(body);
      if (type === TYPE.errorResponse) throw refused(describeError(body));
      if (type === TYPE.noticeResponse) continue;
      if (type === TYPE.negotiateProtocolVersion && !this.#authenticated) this.#negotiate(reader);
      else if (type === TYPE.authentication && !this.#authenticated) await this.#authenticate(reader);
      else if (type === TYPE.parameterStatus && this.#authenticated) this.#parameters.set(reader.cstring(), reader.cstring());
      else if (type === TYPE.backendKeyData && this.#authenticated) this.#keepKey(reader);
      else if (type === TYPE.readyForQuery && this.#authenticated) return this.#ready(reader);
      else throw refused(`it sent an unexpected message of type 0x${type.toString(16)} during startup`);
    }
    throw refused(`it sent more than ${MAX_STARTUP_MESSAGES} messages during startup`);
  }

  #ready(reader: Reader): Upstream {
    const status = String.fromCharCode(reader.byte());
    reader.finish();
    if (status !== "I") throw refused(`it starts a session in transaction status "${status}"`);
    for (const [name, value] of PINNED_PARAMETERS) {
      const actual = this.#parameters.get(name);
      if (actual?.toLowerCase() !== value.toLowerCase()) throw refused(`it does not keep ${name} at ${value}`);
    }
    return {
      wire: this.#conversation.wire,
      leftover: this.#conversation.release(),
      parameters: this.#parameters,
      backendPid: this.#backendPid,
      backendKey: this.#backendKey,
      protocolVersion: this.#version,
      transactionStatus: status,
      cancelTarget: { name: this.#target.name, address: this.#target.address, tls: this.#target.tls },
    };
  }

  /** NegotiateProtocolVersion: the newest version the server speaks, and startup options it does not know. */
  #negotiate(reader: Reader): void {
    const version = reader.int32();
    const unknown = reader.int32();
    if (version < PROTOCOL_3_0 || version > this.#version || unknown !== 0)
      throw refused("it negotiates a protocol version that was not offered");
    reader.finish();
    // 3.1 was never used.
    this.#version = version < PROTOCOL_3_2 ? PROTOCOL_3_0 : version;
  }

  #keepKey(reader: Reader): void {
    this.#backendPid = reader.int32();
    const length = reader.left;
    const longest = this.#version === PROTOCOL_3_0 ? MIN_KEY_BYTES : MAX_KEY_BYTES;
    if (length < MIN_KEY_BYTES || length > longest) throw refused(`it sent a cancel key of ${length} bytes`);
    this.#backendKey = Uint8Array.from(reader.take(length));
  }

  async #authenticate(reader: Reader): Promise<void> {
    const method = reader.int32();
    switch (method) {
      case 0: // AuthenticationOk
        reader.finish();
        if (this.#saslStep !== "none" && this.#saslStep !== "verified") throw refused("it accepted before proving itself (SCRAM)");
        this.#authenticated = true;
        return;
      case 3: // AuthenticationCleartextPassword
        reader.finish();
        this.#sendPassword(this.#cleartext());
        return;
      case 5: // AuthenticationMD5Password: four bytes of salt
        return this.#sendPassword(md5Password(this.#target.user, this.#password(), reader.take(4)));
      case 10: // AuthenticationSASL: mechanism names, ended by an empty one
        return this.#startSasl(reader);
      case 11: {
        // AuthenticationSASLContinue
        if (this.#sasl === undefined || this.#saslStep !== "first") throw refused("it answers a SCRAM exchange that is not in progress");
        this.#saslStep = "final";
        this.#conversation.send(messages.saslResponse(await this.#sasl.final(text(reader))));
        return;
      }
      case 12: // AuthenticationSASLFinal
        if (this.#sasl === undefined || this.#saslStep !== "final") throw refused("it answers a SCRAM exchange that is not in progress");
        this.#sasl.verify(text(reader));
        this.#saslStep = "verified";
        return;
      default:
        throw refused(`it asks for authentication method ${method}, which is not supported here`);
    }
  }

  #startSasl(reader: Reader): void {
    if (this.#sasl !== undefined || this.#passwordSent) throw refused("it asks for authentication twice");
    const offered: string[] = [];
    for (let name = reader.cstring(); name !== ""; name = reader.cstring()) {
      if (offered.length >= MAX_SASL_MECHANISMS) throw refused("it offers too many authentication mechanisms");
      offered.push(name);
    }
    reader.finish();
    const { wire } = this.#conversation;
    let cache = saltedPasswords.get(this.#target);
    if (cache === undefined) saltedPasswords.set(this.#target, (cache = { last: undefined }));
    this.#sasl = new ScramClient(offered, this.#password(), wire.encrypted, wire.peerCertificate(), cache);
    this.#saslStep = "first";
    this.#conversation.send(messages.saslInitialResponse(this.#sasl.mechanism, this.#sasl.first()));
  }

  #sendPassword(password: string): void {
    if (this.#sasl !== undefined || this.#passwordSent) throw refused("it asks for authentication twice");
    this.#passwordSent = true;
    this.#conversation.send(messages.passwordMessage(password));
  }

  #cleartext(): string {
    const { wire } = this.#conversation;
    if (!wire.encrypted && !wire.isLoopback) {
      throw refused("it asks for the password in clear text on a connection without TLS; set `tls.mode` or use scram-sha-256 there");
    }
    return this.#password();
  }

  #password(): string {
    if (this.#target.password === undefined) throw refused("it asks for a password and the configuration has none for it");
    return this.#target.password;
  }
}

const text = (reader: Reader): string => Buffer.from(reader.take(reader.left)).toString("utf8");

/** `md5` and the hex digest of md5(md5(password, user), salt). */
function md5Password(user: string, password: string, salt: Uint8Array): string {
  const inner = createHash("md5").update(password).update(user).digest("hex");
  return `md5${createHash("md5").update(inner).update(salt).digest("hex")}`;
}

/** Message and SQLSTATE of an ErrorResponse body, shortened and without control characters. */
export function describeError(body: Uint8Array): string {
  const reader = new Reader(body);
  let message = "an error without a message";
  let sqlState = "";
  while (reader.left > 1) {
    const field = reader.byte();
    if (field === 0) break;
    const value = reader.cstring();
    if (field === 0x4d /* M */) message = value;
    if (field === 0x43 /* C */) sqlState = value;
  }
  const clean = message.replace(/\p{C}/gu, " ").slice(0, 500);
  return /^[0-9A-Z]{5}$/.test(sqlState) ? `${clean} (SQLSTATE ${sqlState})` : clean;
}

function refused(reason: string): SluiceError {
  return new SluiceError("SLUICE_TARGET_REFUSED", reason);
}

/** The target's name in front, and codes that say whose fault it was. */
function targetError(target: CancelTarget, thrown: unknown): SluiceError {
  if (!(thrown instanceof SluiceError))
    return new SluiceError("SLUICE_INTERNAL", "internal error while connecting to the target", { cause: thrown });
  const code = CODES[thrown.code];
  if (code === undefined || thrown.message.startsWith(`target ${target.name}: `)) return thrown;
  return new SluiceError(code, `target ${target.name}: ${thrown.message}`, {
    cause: thrown,
    ...(thrown.hint === undefined ? {} : { hint: thrown.hint }),
  });
}

const CODES: { readonly [code: string]: "SLUICE_TARGET_REFUSED" | "SLUICE_TARGET_UNREACHABLE" | undefined } = {
  SLUICE_PROTOCOL_VIOLATION: "SLUICE_TARGET_REFUSED",
  SLUICE_TARGET_REFUSED: "SLUICE_TARGET_REFUSED",
  SLUICE_TARGET_UNREACHABLE: "SLUICE_TARGET_UNREACHABLE",
  SLUICE_DEADLINE: "SLUICE_TARGET_UNREACHABLE",
};
