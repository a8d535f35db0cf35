import { type Document, isAlias, isMap, isScalar, isSeq, LineCounter, type Node, parseAllDocuments } from "yaml";
import { type Path, type Position, type Positions, type Problems, pathText } from "./problems.ts";

export interface YamlFile {
  readonly file: string;
  readonly value: unknown;
  readonly positions: Positions;
}

/** Configuration files are small; more than this is a mistake. */
const MAX_TEXT_LENGTH = 4 * 1024 * 1024;

/** Own words per parser error: the parser's may quote the text, which may be a secret. */
const SYNTAX: Readonly<Record<string, string>> = {
  ALIAS_PROPS: "an alias may not have an anchor or a tag",
  BAD_ALIAS: "the alias is not valid, or its anchor does not stand before it",
  BAD_INDENT: "the indentation is not consistent",
  BLOCK_AS_IMPLICIT_KEY: "a block may not stand in one line with its key",
  BLOCK_IN_FLOW: "a block may not stand inside { } or [ ]",
  DUPLICATE_KEY: "the key stands here twice",
  MISSING_CHAR: "a closing quote or bracket, a comma or a colon is missing",
  MULTILINE_IMPLICIT_KEY: "a key must stand on one line; a colon may be missing before",
  TAB_AS_INDENT: "tabs may not be used as indentation",
  TAG_RESOLVE_FAILED: "the tag is not known",
  UNEXPECTED_TOKEN: "something stands where YAML does not expect it; quote values that contain { } [ ] , # or :",
};

/**
 * Parse one YAML document and note where every node stands.
 * @returns undefined after adding to `problems`
 */
export function readYaml(file: string, text: string, problems: Problems): YamlFile | undefined {
  if (text.length > MAX_TEXT_LENGTH) {
    problems.add(file, [1, 1], [], `expected at most ${MAX_TEXT_LENGTH} characters`);
    return undefined;
  }
  const lines = new LineCounter();
  const documents = parseAllDocuments(text, { lineCounter: lines, prettyErrors: false, version: "1.2", strict: true });
  const at = (offset: number): Position => {
    const { line, col } = lines.linePos(offset);
    return [Math.max(line, 1), Math.max(col, 1)];
  };
  const document: Document | undefined = "empty" in documents ? undefined : documents[0];
  if (document === undefined) {
    problems.add(file, [1, 1], [], "expected a YAML document, got an empty file");
    return undefined;
  }
  const before = problems.count;
  if (documents.length > 1) problems.add(file, at(documents[1]?.range[0] ?? 0), [], "expected one YAML document, got several");
  for (const error of [...document.errors, ...document.warnings]) {
    problems.add(file, at(error.pos[0]), [], `not valid YAML: ${SYNTAX[error.code] ?? "the syntax is wrong here"}`);
  }
  if (problems.count > before) return undefined;
  const positions: Record<string, Position> = { "": [1, 1] };
  note(document.contents, [], undefined);
  let value: unknown;
  try {
    value = document.toJS({ maxAliasCount: 1_000 });
  } catch {
    problems.add(file, [1, 1], [], "not valid YAML: too many aliases");
    return undefined;
  }
  return { file, value, positions };

  function note(node: unknown, path: Path, keyPosition: Position | undefined, depth = 0): void {
    if (depth > 64) return problems.add(file, keyPosition ?? [1, 1], [], "expected at most 64 levels");
    const range = (node as Node | null)?.range;
    const position = range == null ? keyPosition : at(range[0]);
    if (position !== undefined) positions[pathText(path)] = position;
    const target = isAlias(node) ? undefined : node;
    if (isMap(target)) {
      for (const pair of target.items) {
        if (!isScalar(pair.key)) continue;
        const start = pair.key.range === undefined || pair.key.range === null ? ([1, 1] as const) : at(pair.key.range[0]);
        const child = [...path, String(pair.key.value)];
        positions[`${pathText(child)}#`] = start;
        note(pair.value, child, start, depth + 1);
      }
    } else if (isSeq(target)) {
      target.items.forEach((item, index) => note(item, [...path, index], position, depth + 1));
    }
  }
}
