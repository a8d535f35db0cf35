export interface StartupParameterRule {
  /** As it is written in the startup message, lower-cased; `*` stands for the rest of a name. */
  readonly name: string;
  /** forward: passed to the target as it is. inspect: read here. refuse: the connection is refused. */
  readonly handling: "forward" | "inspect" | "refuse";
  readonly reason: string;
}

/** Decides what names mean: workers/connection.ts asks the policy for it. */
export const SEARCH_PATH = "search_path";

const LOOKS = "how values look";
const LIMITS_ITSELF = "a limit or default that a session sets itself";

const forward = (reason: string, names: string): readonly StartupParameterRule[] =>
  names.split(" ").map((name) => ({ name, handling: "forward", reason }));

/**
 * Startup parameters and what happens to them (greet.ts); one that is not listed is refused. Forwarded are only those about how values look, and limits
 * that a session sets itself; never what changes how text is read or names are found.
 */
export const STARTUP_PARAMETERS: readonly StartupParameterRule[] = [
  {
    name: "user",
    handling: "inspect",
    reason: "a label; the target's role is the configured one. Names the target where no database is given",
  },
  { name: "database", handling: "inspect", reason: "names the target; the database there is the configured one" },
  { name: "client_encoding", handling: "inspect", reason: "UTF8 only: statements are read as such. The target gets it from Sluice" },
  { name: "replication", handling: "inspect", reason: "refused unless it says no: streaming replication is not offered" },
  { name: "options", handling: "inspect", reason: "refused unless empty: it sets any setting. SET can be checked" },
  { name: SEARCH_PATH, handling: "inspect", reason: "decided as SET search_path is. The target gets it, and is asked what came of it" },
  { name: "_pq_.*", handling: "inspect", reason: "a protocol extension: turned down by NegotiateProtocolVersion" },
  { name: "application_name", handling: "forward", reason: "a label, printable characters only" },
  ...forward(LOOKS, "bytea_output datestyle extra_float_digits intervalstyle timezone"),
  ...forward(
    LIMITS_ITSELF,
    "default_transaction_deferrable default_transaction_isolation default_transaction_read_only geqo idle_in_transaction_session_timeout idle_session_timeout lock_timeout statement_timeout transaction_timeout",
  ),
  { name: "standard_conforming_strings", handling: "refuse", reason: "changes how text is read. The target gets `on` from Sluice" },
  { name: "role", handling: "refuse", reason: "the session's privileges are not the client's to change" },
  { name: "session_authorization", handling: "refuse", reason: "the session's privileges are not the client's to change" },
  { name: "*", handling: "refuse", reason: "any other setting: SET can be checked" },
];

/** Names of the parameters that are passed to the target. */
export const FORWARDED_PARAMETERS: ReadonlySet<string> = new Set([
  SEARCH_PATH,
  ...STARTUP_PARAMETERS.filter((rule) => rule.handling === "forward").map((rule) => rule.name),
]);

/** Sent with every startup: the encoding and the string syntax that statements are read with here. Roles' own settings yield to them. */
export const PINNED_PARAMETERS: ReadonlyMap<string, string> = new Map([
  ["client_encoding", "UTF8"],
  ["standard_conforming_strings", "on"],
]);
