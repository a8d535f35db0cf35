/**
 * Settings that a client may give in its startup message and that are passed to the target, lower-cased: how values look, and
 * limits that a session sets itself. Not among them: whatever changes how text is read or names are found (client_encoding,
 * standard_conforming_strings, search_path, options, role, session_authorization), replication, and the `_pq_.` extensions.
 */
export const FORWARDED_PARAMETERS: ReadonlySet<string> = new Set([
  "application_name",
  "bytea_output",
  "datestyle",
  "default_transaction_deferrable",
  "default_transaction_isolation",
  "default_transaction_read_only",
  "extra_float_digits",
  "geqo",
  "idle_in_transaction_session_timeout",
  "idle_session_timeout",
  "intervalstyle",
  "lock_timeout",
  "statement_timeout",
  "timezone",
  "transaction_timeout",
]);

/** Sent with every startup: the encoding and the string syntax that statements are read with here. Roles' own settings yield to them. */
export const PINNED_PARAMETERS: ReadonlyMap<string, string> = new Map([
  ["client_encoding", "UTF8"],
  ["standard_conforming_strings", "on"],
]);
