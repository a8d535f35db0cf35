import { Reader } from "../../core/bytes/reader.ts";
import type { ServerTls } from "../../core/config/types.ts";
import { SluiceError } from "../../core/errors.ts";
import { LIMITS } from "../../core/limits.ts";
import type { Conversation } from "./conversation.ts";
import {
  ALPN_NAME,
  authenticationCleartextPassword,
  authenticationOk,
  backendKeyData,
  CANCEL_REQUEST,
  GSSENC_REQUEST,
  negotiateProtocolVersion,
  PROTOCOL_3_2,
  parameterStatus,
  readyForQuery,
  SSL_REQUEST,
  TLS_HANDSHAKE_BYTE,
  TYPE,
} from "./messages.ts";
import { FORWARDED_PARAMETERS } from "./startup-parameters.ts";

/** What a client asks for before it says who it is. */
export type Greeting =
  | { readonly kind: "cancel"; readonly processId: number; readonly key: Uint8Array }
  | {
      readonly kind: "session";
      /** `dbname`: the name of a target. */
      readonly target: string;
      readonly applicationName: string | undefined;
      /** Startup parameters that go on to the target, by their names in lower case. */
      readonly parameters: ReadonlyMap<string, string>;
      readonly protocolMinor: 0 | 2;
    };

const UTF8_NAMES = new Set(["utf8", "utf-8", "unicode", "auto", "sql_ascii", "'utf8'", "'utf-8'"]);
const NO = new Set(["", "0", "off", "false", "no", "f", "n"]);

/**
 * Startup up to the StartupMessage (PostgreSQL documentation, Message Flow: Start-up, SSL Session Encryption, Cancelling
 * Requests in Progress): direct TLS, SSLRequest, GSSENCRequest (answered N), CancelRequest.
 * @throws SluiceError SLUICE_PROTOCOL_VIOLATION, SLUICE_DEADLINE
 */
export async function greet(conversation: Conversation, tls: ServerTls | undefined): Promise<Greeting> {
  const { wire } = conversation;
  if ((await conversation.firstByte()) === TLS_HANDSHAKE_BYTE) {
    if (tls === undefined) throw new SluiceError("SLUICE_PROTOCOL_VIOLATION", "this listener has no TLS");
    await conversation.acceptTls({ ...tls, alpn: [ALPN_NAME], requireAlpn: true }, true);
  }
  // One SSLRequest and one GSSENCRequest at most, as the server has it.
  let askedTls = wire.encrypted;
  let askedGss = false;
  for (;;) {
    const packet = await conversation.startupPacket();
    const reader = new Reader(packet);
    const code = reader.int32();
    if (code === SSL_REQUEST && !askedTls) {
      askedTls = true;
      if (tls === undefined) {
        conversation.send(ANSWER_NO);
        continue;
      }
      if (conversation.bufferedBytes > 0) throw new SluiceError("SLUICE_PROTOCOL_VIOLATION", "unencrypted bytes after SSLRequest");
      conversation.send(ANSWER_TLS);
      await conversation.acceptTls({ ...tls, alpn: [ALPN_NAME], requireAlpn: false }, false);
      continue;
    }
    if (code === GSSENC_REQUEST && !askedGss) {
      askedGss = true;
      conversation.send(ANSWER_NO);
      continue;
    }
    if (code === CANCEL_REQUEST) {
      if (packet.length < 12 || packet.length > 8 + 256) throw new SluiceError("SLUICE_PROTOCOL_VIOLATION", "malformed CancelRequest");
      return { kind: "cancel", processId: reader.int32(), key: new Uint8Array(packet.subarray(8)) };
    }
    return readStartup(conversation, code, reader);
  }
}

function readStartup(conversation: Conversation, version: number, reader: Reader): Greeting {
  const major = version >>> 16;
  const minor = version & 0xffff;
  if (major !== 3)
    throw new SluiceError("SLUICE_PROTOCOL_VIOLATION", `unsupported frontend protocol ${major}.${minor}: Sluice speaks 3.0 and 3.2`);
  const values = new Map<string, string>();
  const unknownOptions: string[] = [];
  for (;;) {
    const name = reader.cstring();
    if (name === "") break;
    const value = reader.cstring();
    if (values.size + unknownOptions.length >= LIMITS.startupParameters)
      throw new SluiceError("SLUICE_PROTOCOL_VIOLATION", "too many startup parameters");
    if (name.startsWith("_pq_.")) {
      unknownOptions.push(name);
      continue;
    }
    if (values.has(name)) throw new SluiceError("SLUICE_PROTOCOL_VIOLATION", `startup parameter ${name} was sent twice`);
    values.set(name, value);
  }
  if (reader.left > 0) throw new SluiceError("SLUICE_PROTOCOL_VIOLATION", "bytes after the startup parameters");
  // 3.1 was never used; what is newer than 3.2 is asked to come down (Message Formats, NegotiateProtocolVersion).
  const protocolMinor = minor >= 2 ? 2 : 0;
  if (minor === 1 || minor > 2 || unknownOptions.length > 0) {
    conversation.send(negotiateProtocolVersion(minor >= 2 ? PROTOCOL_3_2 : 0x0003_0000, unknownOptions));
  }
  return { kind: "session", ...pick(values), protocolMinor };
}

function pick(values: ReadonlyMap<string, string>): {
  target: string;
  applicationName: string | undefined;
  parameters: ReadonlyMap<string, string>;
} {
  const parameters = new Map<string, string>();
  for (const [name, value] of values) {
    switch (name) {
      case "user":
      case "database":
        break;
      case "application_name":
        parameters.set(name, printable(value));
        break;
      case "client_encoding":
        if (!UTF8_NAMES.has(value.toLowerCase())) {
          throw new SluiceError("SLUICE_PROTOCOL_VIOLATION", `client_encoding ${value} is not supported; Sluice reads statements as UTF8`, {
            hint: "Set PGCLIENTENCODING=UTF8.",
          });
        }
        break;
      case "replication":
        if (!NO.has(value.toLowerCase())) throw new SluiceError("SLUICE_DENIED", "replication connections are not let through");
        break;
      case "options":
        if (value.trim() !== "") {
          throw new SluiceError("SLUICE_DENIED", "the startup parameter options is not let through", {
            hint: "Unset PGOPTIONS and use SET after connecting.",
          });
        }
        break;
      default:
        setOnce(parameters, name, value);
    }
  }
  const target = values.get("database") || values.get("user") || "";
  return { target, applicationName: parameters.get("application_name"), parameters };
}

/** Names of settings know no case, at the server and behind here. */
function setOnce(parameters: Map<string, string>, name: string, value: string): void {
  const key = name.toLowerCase();
  if (!FORWARDED_PARAMETERS.has(key))
    throw new SluiceError("SLUICE_DENIED", `the startup parameter ${name} is not let through`, { hint: "Use SET after connecting." });
  if (parameters.has(key)) throw new SluiceError("SLUICE_PROTOCOL_VIOLATION", `startup parameter ${key} was sent twice`);
  parameters.set(key, value);
}

/** As the server does: everything but printable ASCII becomes a question mark; 63 bytes at most (NAMEDATALEN). */
const printable = (value: string): string => value.replaceAll(/[^\x20-\x7e]/g, "?").slice(0, 63);

/**
 * Ask for the credential (AuthenticationCleartextPassword, PasswordMessage).
 * @param isLocal the client is on this machine: then, and only then, the credential may come without TLS
 * @throws SluiceError SLUICE_CREDENTIAL_NEEDS_TLS, SLUICE_CREDENTIAL_MISSING, SLUICE_PROTOCOL_VIOLATION
 */
export async function askCredential(conversation: Conversation, isLocal: boolean): Promise<string> {
  const { wire } = conversation;
  if (!wire.encrypted && !isLocal) {
    throw new SluiceError("SLUICE_CREDENTIAL_NEEDS_TLS", "credentials are only taken over TLS", {
      hint: "Connect with sslmode=require or stricter.",
    });
  }
  conversation.send(authenticationCleartextPassword());
  const message = await conversation.message(LIMITS.credentialBytes);
  if (message.type !== TYPE.password) throw new SluiceError("SLUICE_PROTOCOL_VIOLATION", "expected a password message");
  const reader = new Reader(message.body);
  const credential = reader.cstring();
  message.body.fill(0);
  if (credential === "") {
    throw new SluiceError("SLUICE_CREDENTIAL_MISSING", "the password is empty", {
      hint: "Put a token of a configured issuer in PGPASSWORD.",
    });
  }
  return credential;
}

/** Everything between a good credential and the first statement. */
export function welcome(conversation: Conversation, parameters: ReadonlyMap<string, string>, processId: number, key: Uint8Array): void {
  conversation.send(authenticationOk());
  for (const [name, value] of parameters) conversation.send(parameterStatus(name, value));
  conversation.send(backendKeyData(processId, key));
  conversation.send(readyForQuery("I"));
}

const ANSWER_NO = Buffer.from("N");
const ANSWER_TLS = Buffer.from("S");
