import type { Seen } from "../../../core/bytes/copy.ts";
import type { StatementRecord } from "../../../store/types.ts";

/** A relation as the statement names it; schema undefined: found through search_path. */
export interface RelationName {
  readonly schema: string | undefined;
  readonly name: string;
}

/** One access of a statement before names are resolved against the catalogue. */
export interface StatementAccess {
  /** `sql:select`, `sql:insert`, … (docs/REFERENCE.md lists them). */
  readonly action: string;
  readonly relations: readonly RelationName[];
  /** Resources that are not relations, already qualified: `role:bob`, `schema:hr`, `database:x`, `function:f`, `setting:work_mem`, `extension:…`. */
  readonly others: readonly string[];
}

/** What a statement does to the session's state; applied when the server has confirmed it. */
export type SessionEffect =
  | {
      readonly kind: "search_path" /** undefined: unknown from here on */;
      readonly schemas: readonly string[] | undefined;
      readonly local: boolean;
    }
  | { readonly kind: "role"; readonly local: boolean }
  | { readonly kind: "setting"; readonly name: string; readonly value: string | undefined; readonly local: boolean }
  | { readonly kind: "reset_all" }
  | { readonly kind: "discard"; readonly what: "all" | "plans" | "sequences" | "temp" }
  | { readonly kind: "prepare"; readonly name: string; readonly inner: Classified }
  | { readonly kind: "execute"; readonly name: string }
  | { readonly kind: "deallocate"; readonly name: string | undefined }
  | { readonly kind: "declare"; readonly name: string; readonly inner: Classified }
  | { readonly kind: "fetch"; readonly name: string; readonly returnsRows: boolean }
  | { readonly kind: "close_cursor"; readonly name: string | undefined }
  | { readonly kind: "create_temp"; readonly name: string }
  | { readonly kind: "ddl" }
  | {
      readonly kind: "transaction";
      readonly verb:
        | "begin"
        | "commit"
        | "rollback"
        | "savepoint"
        | "release"
        | "rollback_to"
        | "prepare"
        | "commit_prepared"
        | "rollback_prepared";
    };

/** How columns are used over all levels of the statement; the names are the last ones of each reference. */
export interface ColumnUse {
  /** Output as they are through plain column references (the server's RowDescription names their origin). */
  readonly plain: readonly string[];
  /** `*` or `t.*` stands in a select list or RETURNING. */
  readonly star: boolean;
  /** Names used inside anything else that can reach the output or another table: expressions, set-operation arms, INSERT … SELECT, SET x = …, CREATE TABLE AS, function arguments. */
  readonly expressions: readonly string[];
  /** Names used in WHERE, JOIN, USING, GROUP BY, HAVING, ORDER BY, DISTINCT, windows, ON CONFLICT, MERGE conditions. */
  readonly predicates: readonly string[];
  /** Which relations' columns are used for what. Drives column masks. */
  readonly origins: readonly OriginUse[];
}

/** A column of a relation that a statement names. */
export interface RelationColumn {
  readonly relation: RelationName;
  readonly column: string;
}

/** One use of what may be a relation's column, besides plain output. */
export interface OriginUse {
  /** equality: a condition that only asks whether it equals one of some constants, parameters, or `partner` (conditions.ts). */
  readonly use: "expression" | "predicate" | "equality";
  readonly partner?: RelationColumn | undefined;
  /** undefined: any relation of the statement. */
  readonly relation: RelationName | undefined;
  /** `*`: any column, or the whole row. */
  readonly column: string;
  /** It is used only where none of these relations has this column: `x.name` is then name(x). */
  readonly unless: { readonly column: string; readonly of: readonly RelationName[] } | undefined;
}

/** How the rows of a COPY TO STDOUT are written (PostgreSQL documentation, COPY, File Formats). Bytes are ASCII. */
export interface CopyFormat {
  readonly kind: "text" | "csv" | "binary";
  /** What separates fields; text and CSV only, as everything below. */
  readonly delimiter: number;
  /** What stands for NULL. */
  readonly nullText: string;
  /** The first row holds the names of the columns. */
  readonly header: boolean;
  /** CSV only; 0 in text. */
  readonly quote: number;
  readonly escape: number;
}

/** One COPY TO STDOUT. */
export interface CopyOut {
  /** The table whose rows it sends; undefined: those of a query. */
  readonly relation: RelationName | undefined;
  /** The columns it lists; undefined: it lists none. */
  readonly columns: readonly string[] | undefined;
  /** The format, or in words why it is not known. */
  readonly format: CopyFormat | string;
}

/** A text as it was written, and its place on record. */
export interface WrittenText {
  readonly bytes: Seen;
  readonly record: StatementRecord;
}

/** What the grammar says about one message's SQL text: immutable, independent of identity and session; cached by shape. */
export interface Classified {
  /** A note beside it: the text that Parse brought under this shape last (recordOf). Where there is no cache, there is none. */
  readonly written?: { last: WrittenText | undefined };
  readonly accesses: readonly StatementAccess[];
  readonly statements: number;
  /** UPDATE or DELETE without WHERE, at any level. */
  readonly unfiltered: boolean;
  readonly columns: readonly string[];
  /** Functions called, as written, lower-cased where unquoted; `schema.name` if qualified. */
  readonly functions: readonly string[];
  readonly effects: readonly SessionEffect[];
  readonly columnUse: ColumnUse;
  /** COPY with the client: which way the data go. */
  readonly copy: "none" | "in" | "out";
  /** Every COPY TO STDOUT, in the order in which they run. */
  readonly copies: readonly CopyOut[];
  /** A statement that returns what the server makes itself from masked data (EXPLAIN ANALYZE …). */
  readonly explains: boolean;
  /** A statement of it may be answered with rows, COPY data included. */
  readonly returnsRows: boolean;
  /** Byte ranges [start, end) of the UTF-8 text that hold secrets (PASSWORD 'x', conninfo), never to be recorded. Only for exact-text entries. */
  readonly secrets: readonly (readonly [number, number])[];
  /** Refused for what it is, whatever the policy says; a sentence for the client, or undefined. */
  readonly refusal: string | undefined;
  /** Empty query string. */
  readonly empty: boolean;
}

/** One per worker. */
export interface Classifier {
  /**
   * Classify the SQL text bytes[start, end) (UTF-8, without the terminating zero). Cached by shape: literals in positions
   * proven inert are left out of the key. Never throws: what does not parse gets a `refusal`.
   * Texts over LIMITS.inlineParseBytes that are not cached return a promise (parsed on another thread, with a deadline).
   */
  classify(bytes: Uint8Array, start: number, end: number): Classified | Promise<Classified>;
  /** The same for a statement that was sent of late, and differs in plain literals at most; undefined: ask classify(). */
  known(bytes: Uint8Array, start: number, end: number): Classified | undefined;
  readonly stats: { hits: number; misses: number; refusals: number };
  close(): Promise<void>;
}
