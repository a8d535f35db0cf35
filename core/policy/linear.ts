import v8 from "node:v8";

// Opens the `l` flag of RegExp: V8's engine without backtracking. Where it is missing, patterns are refused at load.
v8.setFlagsFromString("--enable-experimental-regexp-engine");

/** Longer texts are not searched: the call fails, and what fails never widens what is allowed. */
export const MAX_SEARCHED_LENGTH = 65_536;

/**
 * A regular expression that takes time linear in the text, because clients choose the texts: RE2's common ground
 * (no look-around, no back-references). A leading (?i), (?s) or (?is) sets the flags.
 * @returns undefined: not such a pattern
 */
export function compileLinear(pattern: string): ((text: string) => boolean) | undefined {
  const [, flags = "", body = ""] = /^(?:\(\?([is]{1,2})\))?([^]*)$/.exec(pattern) ?? [];
  // Without the u flag, which the engine lacks, these would mean literal letters.
  if (/\\[pPuxk]/.test(body)) return undefined;
  const ignoreCase = flags.includes("i");
  const source = ignoreCase ? body.replace(/\\[^]|[^\\]+/g, (part) => (part.startsWith("\\") ? part : part.toLowerCase())) : body;
  try {
    const expression = new RegExp(source, flags.includes("s") ? "ls" : "l");
    return ignoreCase ? (text) => expression.test(text.toLowerCase()) : (text) => expression.test(text);
  } catch {
    return undefined;
  }
}
