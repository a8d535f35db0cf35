/**
 * How a tool sends a query: `simple` in one Query message; `extended` with an unnamed statement, text results; `named` with a named
 * statement that runs twice; `binary` likewise, with all results in binary form.
 */
export type Mode = "simple" | "extended" | "named" | "binary";

export interface Asked {
  readonly tool: string;
  readonly what: string;
  readonly mode: Mode;
  readonly sql: string;
  /** Of the parameters, in text form; undefined is NULL. */
  readonly values: readonly (string | undefined)[];
}

type Text = string | { readonly sql: string; readonly values: readonly (string | undefined)[] };

export const of = (tool: string, mode: Mode, queries: Readonly<Record<string, Text>>): Asked[] =>
  Object.entries(queries).map(([what, text]) =>
    typeof text === "string" ? { tool, what, mode, sql: text, values: [] } : { tool, what, mode, ...text },
  );

/** A parameter that is a list of schemas. */
export const SCHEMAS = "{public,hr}";
