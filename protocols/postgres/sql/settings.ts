import { as, constantText, type Node } from "./ast.ts";

/** Settings that no client may change, with the values that may stand all the same (undefined: none). */
const REFUSED = new Map<string, { readonly values: readonly string[]; readonly why: string }>();

function refuse(why: string, values: readonly string[], names: string): void {
  for (const name of names.split(/\s+/)) REFUSED.set(name, { values, why });
}

const ON = ["on", "true", "yes", "1", "t", "y", "tr", "tru", "ye"];
const LEXING = "it changes how the server reads SQL text, so that what was checked is not what runs";
refuse(LEXING, ON, "standard_conforming_strings");
refuse(LEXING, ["safe_encoding"], "backslash_quote");
refuse(LEXING, ["utf8", "unicode"], "client_encoding");
refuse(
  "the session's credential was injected and its privileges are not the client's to change",
  [],
  "role session_authorization createrole_self_grant",
);
refuse("it switches off triggers and foreign keys", ["origin"], "session_replication_role");
refuse(
  "it loads code into the server",
  [],
  "session_preload_libraries local_preload_libraries shared_preload_libraries dynamic_library_path jit_provider",
);
refuse(
  "it lifts a protection of the server",
  [],
  "allow_system_table_mods allow_in_place_tablespaces lo_compat_privileges extension_control_path",
);

/** Custom settings of procedural languages that name code to run. */
const RUNS_CODE = /(^|\.)(start_proc|on_[a-z_]*init)$/;

/** Names of settings whose value is a secret that must not be recorded. */
export const SECRET_NAME = /pass|secret|token|credential|pwd|api_?key|private_?key/i;

const encodingName = (value: string): string => value.toLowerCase().replace(/[^a-z0-9]/g, "");

/**
 * Why a setting may not be set to this value, as a sentence; undefined: it may.
 * @param value undefined for DEFAULT, RESET, FROM CURRENT and for what is not a constant
 * @param resets RESET or DEFAULT: goes back to what the gateway opened the session with
 */
export function settingRefusal(name: string, value: string | undefined, resets: boolean): string | undefined {
  const lower = name.toLowerCase();
  if (RUNS_CODE.test(lower)) return `SET ${lower} is refused: it names code that the server would run.`;
  const rule = REFUSED.get(lower);
  if (rule === undefined) return undefined;
  if (resets) return undefined;
  const plain = value === undefined ? undefined : lower === "client_encoding" ? encodingName(value) : value.toLowerCase().trim();
  if (plain !== undefined && rule.values.includes(plain)) return undefined;
  return `SET ${lower} is refused: ${rule.why}.`;
}

/** The values of SET as text, joined as the server would; undefined if one of them is not a constant. */
export function settingValue(args: readonly Node[] | undefined): string | undefined {
  if (args === undefined || args.length === 0) return undefined;
  const values: string[] = [];
  for (const arg of args) {
    // SET TIME ZONE INTERVAL '+01:00' wraps the constant in a cast.
    const value = constantText(as(arg, "TypeCast")?.arg ?? arg);
    if (value === undefined) return undefined;
    values.push(value);
  }
  return values.join(", ");
}

/**
 * A search_path in text form (as set_config takes it) into schema names: SplitIdentifierString of the server.
 * Unquoted names fold to lower case. undefined: not well-formed, the server would refuse it.
 */
export function splitSearchPath(text: string): string[] | undefined {
  const schemas: string[] = [];
  // White space as the server's scanner_isspace has it: `\s` and trim() would take a no-break space for one, too.
  let rest = text.replace(/^[ \t\n\v\f\r]+/, "");
  if (rest === "") return schemas;
  while (true) {
    const match = /^(?:"((?:[^"]|"")*)"|([^ \t\n\v\f\r,"]+))[ \t\n\v\f\r]*(,|$)[ \t\n\v\f\r]*/.exec(rest);
    if (match === null) return undefined;
    schemas.push(match[1] !== undefined ? match[1].replaceAll('""', '"') : asciiLower(match[2]));
    rest = rest.slice(match[0].length);
    if (match[3] === "") return schemas;
    if (rest === "") return undefined;
  }
}

const asciiLower = (name: string): string => name.replace(/[A-Z]/g, (letter) => letter.toLowerCase());
