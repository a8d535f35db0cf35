import { Writer } from "../../core/bytes/writer.ts";
import { LIMITS } from "../../core/limits.ts";

/** Protocol versions and request codes of untyped first packets (Message Formats: StartupMessage, SSLRequest, …). */
export const PROTOCOL_3_0 = 0x0003_0000;
export const PROTOCOL_3_2 = 0x0003_0002;
export const CANCEL_REQUEST = 80_877_102;
export const SSL_REQUEST = 80_877_103;
export const GSSENC_REQUEST = 80_877_104;
/** ALPN name of direct TLS (and of TLS after SSLRequest, since PostgreSQL 17). */
export const ALPN_NAME = "postgresql";
/** First byte of a TLS handshake record: a client that starts TLS without SSLRequest. */
export const TLS_HANDSHAKE_BYTE = 0x16;

/** The untyped packets that may open a connection (greet.ts); any other is refused. */
export const FIRST_PACKETS: readonly {
  readonly name: string;
  readonly code: number;
  readonly handling: Handling;
  readonly reason: string;
}[] = [
  { name: "StartupMessage 3.0", code: PROTOCOL_3_0, handling: "inspect", reason: "answered here; the target gets one made here" },
  { name: "StartupMessage 3.2", code: PROTOCOL_3_2, handling: "inspect", reason: "the same, with longer cancel keys" },
  { name: "CancelRequest", code: CANCEL_REQUEST, handling: "inspect", reason: "the key is one made here; the target gets its own" },
  { name: "SSLRequest", code: SSL_REQUEST, handling: "inspect", reason: "answered here: the client's TLS ends at the gateway" },
  { name: "GSSENCRequest", code: GSSENC_REQUEST, handling: "inspect", reason: "answered with no" },
];

/** Message types that code asks for by name. One byte may mean two things, one in each direction. */
export const TYPE = {
  bind: 0x42, // B
  close: 0x43, // C
  copyData: 0x64, // d
  copyDone: 0x63, // c
  copyFail: 0x66, // f
  describe: 0x44, // D
  execute: 0x45, // E
  flush: 0x48, // H
  functionCall: 0x46, // F
  parse: 0x50, // P
  password: 0x70, // p
  query: 0x51, // Q
  sync: 0x53, // S
  terminate: 0x58, // X

  authentication: 0x52, // R
  backendKeyData: 0x4b, // K
  bindComplete: 0x32, // 2
  closeComplete: 0x33, // 3
  commandComplete: 0x43, // C
  copyInResponse: 0x47, // G
  copyOutResponse: 0x48, // H
  copyBothResponse: 0x57, // W
  dataRow: 0x44, // D
  emptyQueryResponse: 0x49, // I
  errorResponse: 0x45, // E
  functionCallResponse: 0x56, // V
  negotiateProtocolVersion: 0x76, // v
  noData: 0x6e, // n
  noticeResponse: 0x4e, // N
  notificationResponse: 0x41, // A
  parameterDescription: 0x74, // t
  parameterStatus: 0x53, // S
  parseComplete: 0x31, // 1
  portalSuspended: 0x73, // s
  readyForQuery: 0x5a, // Z
  rowDescription: 0x54, // T
} as const;

/** forward: passed on as it is. inspect: read before it may pass. refuse: ends the session when it comes after startup. */
export type Handling = "forward" | "inspect" | "refuse";

export interface MessageRule {
  readonly letter: string;
  readonly name: string;
  readonly from: "frontend" | "backend";
  readonly handling: Handling;
  /** Largest value of the length field, which counts itself; 0 where the message is refused. */
  readonly limitBytes: number;
  readonly reason: string;
}

/** A length field and nothing after it. */
const EMPTY = 4;
/** Messages that hold a name or a short value. */
const SMALL = 64 * 1024;
const FRONTEND = LIMITS.frontendMessageBytes;
const BACKEND = LIMITS.inspectedBackendMessageBytes;
const STREAMED = LIMITS.backendMessageBytes;

const rule = (
  from: "frontend" | "backend",
  letter: string,
  name: string,
  handling: Handling,
  limitBytes: number,
  reason: string,
): MessageRule => Object.freeze({ letter, name, from, handling, limitBytes, reason });

/**
 * Every typed message of protocol 3.0 and 3.2 (PostgreSQL documentation, Message Formats) and what happens to it once a session
 * is established. A type that is not listed is refused. Startup and authentication messages are read by greet.ts and dial.ts.
 */
export const MESSAGES: readonly MessageRule[] = [
  rule(
    "frontend",
    "B",
    "Bind",
    "inspect",
    FRONTEND,
    "binds parameters to a statement: portals are tracked, values recorded, result formats checked for masks",
  ),
  rule("frontend", "C", "Close", "inspect", SMALL, "closes a statement or portal that is tracked"),
  rule("frontend", "d", "CopyData", "forward", STREAMED, "rows towards a table whose COPY was decided; recorded"),
  rule("frontend", "c", "CopyDone", "forward", EMPTY, "ends the client's rows"),
  rule("frontend", "f", "CopyFail", "forward", SMALL, "gives up the client's COPY"),
  rule("frontend", "D", "Describe", "inspect", SMALL, "names a statement or portal; its answer tells the columns' origins"),
  rule("frontend", "E", "Execute", "inspect", SMALL, "runs a portal: decided again at every execution"),
  rule("frontend", "H", "Flush", "forward", EMPTY, "asks for answers; holds nothing"),
  rule(
    "frontend",
    "F",
    "FunctionCall",
    "refuse",
    FRONTEND,
    "calls a function by number, past the grammar; answered with an error, the session goes on",
  ),
  rule("frontend", "P", "Parse", "inspect", FRONTEND, "carries SQL"),
  rule("frontend", "p", "PasswordMessage", "refuse", 0, "authentication is over; a credential never reaches the target"),
  rule("frontend", "Q", "Query", "inspect", FRONTEND, "carries SQL"),
  rule("frontend", "S", "Sync", "inspect", EMPTY, "ends a pipeline; answers and implicit transactions are counted by it"),
  rule("frontend", "X", "Terminate", "inspect", EMPTY, "ends the session"),

  rule("backend", "R", "Authentication", "refuse", 0, "authentication is over"),
  rule("backend", "K", "BackendKeyData", "refuse", 0, "belongs to startup; clients get a key made here"),
  rule("backend", "2", "BindComplete", "inspect", EMPTY, "answers a Bind in flight"),
  rule("backend", "3", "CloseComplete", "inspect", EMPTY, "answers a Close in flight"),
  rule("backend", "C", "CommandComplete", "inspect", SMALL, "ends an operation"),
  rule("backend", "d", "CopyData", "inspect", STREAMED, "rows of COPY TO STDOUT, which masks cover"),
  rule("backend", "c", "CopyDone", "forward", EMPTY, "ends the server's rows"),
  rule("backend", "G", "CopyInResponse", "inspect", SMALL, "the client's next messages are rows"),
  rule("backend", "H", "CopyOutResponse", "inspect", SMALL, "format of the rows that follow"),
  rule("backend", "W", "CopyBothResponse", "refuse", 0, "streaming replication is not offered"),
  rule("backend", "D", "DataRow", "inspect", STREAMED, "a result row, which masks cover"),
  rule("backend", "I", "EmptyQueryResponse", "inspect", EMPTY, "ends an operation"),
  rule("backend", "E", "ErrorResponse", "inspect", BACKEND, "ends an operation; its fields may quote masked values"),
  rule("backend", "V", "FunctionCallResponse", "refuse", 0, "no FunctionCall is ever forwarded"),
  rule("backend", "v", "NegotiateProtocolVersion", "refuse", 0, "belongs to startup"),
  rule("backend", "n", "NoData", "inspect", EMPTY, "answers a Describe in flight"),
  rule("backend", "N", "NoticeResponse", "inspect", BACKEND, "its fields may quote masked values"),
  rule("backend", "A", "NotificationResponse", "inspect", SMALL, "its payload may quote masked values"),
  rule("backend", "t", "ParameterDescription", "inspect", 4 + 2 + 4 * 65_535, "answers a Describe in flight; types of the parameters"),
  rule("backend", "S", "ParameterStatus", "inspect", SMALL, "a setting changed; some are pinned"),
  rule("backend", "1", "ParseComplete", "inspect", EMPTY, "answers a Parse in flight"),
  rule("backend", "s", "PortalSuspended", "inspect", EMPTY, "ends an Execute that has more rows"),
  rule("backend", "Z", "ReadyForQuery", "inspect", 5, "ends a pipeline; transaction status"),
  rule("backend", "T", "RowDescription", "inspect", BACKEND, "the columns of the rows that follow and where they come from"),
];

const byType = (from: "frontend" | "backend"): readonly (MessageRule | undefined)[] => {
  const table: (MessageRule | undefined)[] = Array.from({ length: 256 }, () => undefined);
  for (const entry of MESSAGES) if (entry.from === from) table[entry.letter.charCodeAt(0)] = entry;
  return table;
};

const limitOf = (rule: MessageRule | undefined): number => rule?.limitBytes ?? 0;

/** Rules by type byte; undefined: refused. */
export const FRONTEND_MESSAGES: readonly (MessageRule | undefined)[] = byType("frontend");
export const BACKEND_MESSAGES: readonly (MessageRule | undefined)[] = byType("backend");
/** Of each type its limitBytes, 0 where there is no such type: one memory access a message instead of three. */
export const FRONTEND_LIMITS: Int32Array = Int32Array.from(FRONTEND_MESSAGES, limitOf);
export const BACKEND_LIMITS: Int32Array = Int32Array.from(BACKEND_MESSAGES, limitOf);

/** One typed message: type byte, length field, body. */
function typed(type: number, fill: (writer: Writer) => void = () => {}): Uint8Array {
  const writer = new Writer().byte(type).int32(0);
  fill(writer);
  return withLength(writer.done(), 1);
}

/** One untyped first packet: length field, body. */
function untyped(fill: (writer: Writer) => void): Uint8Array {
  const writer = new Writer().int32(0);
  fill(writer);
  return withLength(writer.done(), 0);
}

function withLength(message: Uint8Array, at: number): Uint8Array {
  new DataView(message.buffer, message.byteOffset).setInt32(at, message.length - at);
  return message;
}

export interface ErrorFields {
  readonly severity: "ERROR" | "FATAL";
  /** Five characters (PostgreSQL documentation, Appendix A). */
  readonly sqlState: string;
  readonly message: string;
  readonly detail?: string | undefined;
  readonly hint?: string | undefined;
}

/** ErrorResponse: fields of one letter and a string each, ended by a zero byte. */
export function errorResponse(fields: ErrorFields): Uint8Array {
  return typed(TYPE.errorResponse, (writer) => errorFields(writer, fields));
}

export function noticeResponse(fields: Omit<ErrorFields, "severity"> & { readonly severity: "WARNING" | "NOTICE" }): Uint8Array {
  return typed(TYPE.noticeResponse, (writer) => errorFields(writer, fields));
}

function errorFields(writer: Writer, fields: Omit<ErrorFields, "severity"> & { readonly severity: string }): void {
  const field = (letter: string, value: string | undefined): void => {
    // Texts may quote what a peer sent; a zero in them would end the field.
    if (value !== undefined) writer.text(letter).cstring(value.replaceAll("\0", ""));
  };
  field("S", fields.severity);
  field("V", fields.severity);
  field("C", fields.sqlState);
  field("M", fields.message);
  field("D", fields.detail);
  field("H", fields.hint);
  writer.byte(0);
}

export const authenticationOk = (): Uint8Array => typed(TYPE.authentication, (w) => w.int32(0));
export const authenticationCleartextPassword = (): Uint8Array => typed(TYPE.authentication, (w) => w.int32(3));
export const parameterStatus = (name: string, value: string): Uint8Array =>
  typed(TYPE.parameterStatus, (w) => w.cstring(name).cstring(value));
/** @param key 4 bytes in protocol 3.0, 4 to 256 in 3.2 */
export const backendKeyData = (processId: number, key: Uint8Array): Uint8Array =>
  typed(TYPE.backendKeyData, (w) => w.int32(processId).bytes(key));
/** @param status `I` idle, `T` in a transaction block, `E` in a failed one */
export const readyForQuery = (status: "I" | "T" | "E"): Uint8Array => typed(TYPE.readyForQuery, (w) => w.text(status));
/**
 * @param version the newest version spoken here, as a whole version number: that is what servers send and libpq reads, although
 * the documentation calls the field a minor version
 * @param unknownOptions `_pq_.…` startup options that were not recognised
 */
export const negotiateProtocolVersion = (version: number, unknownOptions: readonly string[]): Uint8Array =>
  typed(TYPE.negotiateProtocolVersion, (w) => {
    w.int32(version).int32(unknownOptions.length);
    for (const option of unknownOptions) w.cstring(option);
  });

export const terminate = (): Uint8Array => typed(TYPE.terminate);
export const sync = (): Uint8Array => typed(TYPE.sync);
export const flush = (): Uint8Array => typed(TYPE.flush);
export const query = (sql: string): Uint8Array => typed(TYPE.query, (w) => w.cstring(sql));
export const passwordMessage = (password: string): Uint8Array => typed(TYPE.password, (w) => w.cstring(password));
export const saslInitialResponse = (mechanism: string, response: string): Uint8Array =>
  typed(TYPE.password, (w) => w.cstring(mechanism).int32(Buffer.byteLength(response)).text(response));
export const saslResponse = (response: string): Uint8Array => typed(TYPE.password, (w) => w.text(response));
export const parse = (statement: string, sql: string, parameterTypes: readonly number[] = []): Uint8Array =>
  typed(TYPE.parse, (w) => {
    w.cstring(statement).cstring(sql).int16(parameterTypes.length);
    for (const oid of parameterTypes) w.int32(oid | 0);
  });
/** @param kind `S` a prepared statement, `P` a portal */
export const describe = (kind: "S" | "P", name: string): Uint8Array => typed(TYPE.describe, (w) => w.text(kind).cstring(name));
export const close = (kind: "S" | "P", name: string): Uint8Array => typed(TYPE.close, (w) => w.text(kind).cstring(name));
/** All parameters and results in text form; undefined is NULL. */
export const bind = (portal: string, statement: string, parameters: readonly (string | undefined)[] = []): Uint8Array =>
  typed(TYPE.bind, (w) => {
    w.cstring(portal).cstring(statement).int16(0).int16(parameters.length);
    for (const value of parameters) {
      if (value === undefined) w.int32(-1);
      else w.int32(Buffer.byteLength(value)).text(value);
    }
    w.int16(0);
  });
/** @param maxRows 0: all */
export const execute = (portal: string, maxRows = 0): Uint8Array => typed(TYPE.execute, (w) => w.cstring(portal).int32(maxRows));
export const copyFail = (reason: string): Uint8Array => typed(TYPE.copyFail, (w) => w.cstring(reason));

export const sslRequest = (): Uint8Array => untyped((w) => w.int32(SSL_REQUEST));
export const cancelRequest = (processId: number, key: Uint8Array): Uint8Array =>
  untyped((w) => w.int32(CANCEL_REQUEST).int32(processId).bytes(key));
export const startupMessage = (version: number, parameters: Iterable<readonly [string, string]>): Uint8Array =>
  untyped((w) => {
    w.int32(version);
    for (const [name, value] of parameters) w.cstring(name).cstring(value);
    w.byte(0);
  });
