import { as, type Body, constantText, type Node, strings } from "./ast.ts";
import type { CopyFormat, CopyOut } from "./types.ts";

const BACKSLASH = 0x5c;
/** Delimiters that COPY does not take in text format, because its escapes begin with or consist of them. */
const NO_TEXT_DELIMITER = /^[\\.a-z0-9]$/;

/** What a COPY TO STDOUT sends, as far as its text says. */
export function copyOut(body: Body<"CopyStmt">): CopyOut {
  const { relation } = body;
  return {
    relation: relation?.relname === undefined ? undefined : { schema: relation.schemaname, name: relation.relname },
    columns: body.attlist === undefined ? undefined : strings(body.attlist),
    format: copyFormat(body.options),
  };
}

/**
 * The options that shape COPY's rows. What the server would refuse, and what this does not know, gives the reason instead: rows
 * are only taken apart by rules that are certain.
 */
function copyFormat(options: readonly Node[] | undefined): CopyFormat | string {
  const given = new Map<string, Node | undefined>();
  for (const node of options ?? []) {
    const option = as(node, "DefElem");
    const name = option?.defname ?? "";
    if (given.has(name)) return `the option ${name} stands there twice`;
    if (!KNOWN.has(name)) return `the option ${name} is not known to Sluice`;
    given.set(name, option?.arg);
  }
  const text = (name: string, otherwise: string): string | undefined => (given.has(name) ? constantText(given.get(name)) : otherwise);
  const kind = text("format", "text");
  if (kind !== "text" && kind !== "csv" && kind !== "binary") return "its format is not text, csv or binary";
  const only = ONLY_FOR[kind];
  for (const name of given.keys()) if (!only.has(name)) return `the option ${name} does not go with the format ${kind}`;
  const encoding = text("encoding", "utf8")
    ?.toLowerCase()
    .replace(/[^a-z0-9]+/g, "");
  if (encoding !== "utf8" && encoding !== "unicode") return "its encoding is not UTF8";
  const header = given.has("header") ? headerChoice(given.get("header")) : false;
  if (header === undefined) return "its header is neither on nor off";
  const csv = kind === "csv";
  const delimiter = text("delimiter", csv ? "," : "\t");
  if (delimiter === undefined || !isByte(delimiter) || (!csv && NO_TEXT_DELIMITER.test(delimiter))) return "its delimiter is not usable";
  const quote = text("quote", '"');
  const escape = text("escape", quote ?? "");
  if (quote === undefined || !isByte(quote) || quote === delimiter) return "its quote character is not usable";
  if (escape === undefined || !isByte(escape)) return "its escape character is not usable";
  const nullText = text("null", csv ? "" : "\\N");
  if (nullText === undefined || /[\r\n\0]/.test(nullText) || nullText.includes(delimiter) || (csv && nullText.includes(quote)))
    return "what stands for NULL is not usable";
  // Behind a backslash that is not its own, a delimiter or the end of the row could be either that or a part of a value.
  if (!csv && nullText !== "\\N" && nullText.includes("\\")) return "what stands for NULL holds a backslash";
  return {
    kind,
    delimiter: delimiter.charCodeAt(0),
    nullText,
    header,
    quote: csv ? quote.charCodeAt(0) : 0,
    escape: csv ? escape.charCodeAt(0) : BACKSLASH,
  };
}

const BINARY = new Set(["format", "encoding"]);
const TEXT = new Set([...BINARY, "delimiter", "null", "header"]);
const CSV = new Set([...TEXT, "quote", "escape", "force_quote"]);
const ONLY_FOR = { binary: BINARY, text: TEXT, csv: CSV };
const KNOWN = CSV;

/** One ASCII character that does not end a row. */
const isByte = (text: string): boolean => text.length === 1 && text > "\0" && text < "\x80" && text !== "\n" && text !== "\r";

/** undefined: `match`, which goes with COPY FROM only, or no choice at all. */
function headerChoice(value: Node | undefined): boolean | undefined {
  if (value === undefined) return true;
  const text = constantText(value)?.toLowerCase();
  if (text === "true" || text === "on" || text === "1") return true;
  return text === "false" || text === "off" || text === "0" ? false : undefined;
}
