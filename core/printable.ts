/** Control, formatting and line-separating characters: what a terminal might act on, and what makes text look other than it is. */
const ACTIVE = /[\p{Cc}\p{Cf}\p{Zl}\p{Zp}]/gu;
const ACTIVE_BUT_LAYOUT = /(?![\n\t])[\p{Cc}\p{Cf}\p{Zl}\p{Zp}]/gu;

const escaped = (character: string): string => {
  if (character === "\n") return "\\n";
  if (character === "\r") return "\\r";
  if (character === "\t") return "\\t";
  return `\\u{${(character.codePointAt(0) ?? 0).toString(16)}}`;
};

/** Text from outside made fit for one line of a terminal: whatever could act there is written as an escape. */
export const oneLine = (text: string): string => text.toWellFormed().replace(ACTIVE, escaped);

/**
 * JSON on one line for a terminal or a pipe: what could act on a terminal is written in JSON's own escapes, so that the
 * parsed value stays the same.
 */
export const jsonLine = (value: unknown): string =>
  JSON.stringify(value).replace(ACTIVE, (character) =>
    character.replace(/[^]/g, (unit) => `\\u${unit.charCodeAt(0).toString(16).padStart(4, "0")}`),
  );

/** Like oneLine for several lines: line feeds and tabs stay. */
export const manyLines = (text: string): string => text.toWellFormed().replace(ACTIVE_BUT_LAYOUT, escaped);
