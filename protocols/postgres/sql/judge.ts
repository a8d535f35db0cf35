import { type Grammar, ParserBreakdown, SyntaxRefusal } from "./grammar.ts";
import { stringLiterals } from "./lexer.ts";
import { literalsToKeep, type Shape } from "./shape.ts";
import { newWalk, statement } from "./statements.ts";
import type { Classified } from "./types.ts";
import { Refusal } from "./walk.ts";

/** What was found out about one text, and whether and how it may be cached. */
export interface Judged {
  readonly classified: Classified;
  readonly cacheable: boolean;
  /** Literals that have to stay in the cache key; undefined: none. Only where cacheable. */
  readonly keep: Uint8Array | undefined;
}

/** A text without a tree: what cannot be read may still hold a password. */
const MAY_HOLD_SECRET = /pass|secret|connection|token|credential|dblink/i;

const TOO_DEEP = "The statement is refused: it is too large or nested too deeply to be checked.";

type Ranges = readonly (readonly [number, number])[];

const NO_SECRETS: Ranges = [];

/** A Classified that only refuses. */
export function refusedText(sentence: string, secrets: Ranges = NO_SECRETS): Classified {
  return newWalk().result(0, secrets, sentence);
}

export const uncached = (classified: Classified): Judged => ({ classified, cacheable: false, keep: undefined });

/** String literals of [start, end) of a text; all of it if it cannot be lexed. */
const literalsOf = (text: Uint8Array, start: number, end: number): Ranges => stringLiterals(text, start, end) ?? [[start, end]];

/**
 * Parse and classify one text. Never throws.
 * @param text valid UTF-8 without a zero byte
 * @param shape scratch; overwritten
 */
export function judge(grammar: Grammar, shape: Shape, text: Uint8Array): Judged {
  let tree: ReturnType<Grammar["parse"]>;
  const unread = (sentence: string): Judged => {
    const secrets = MAY_HOLD_SECRET.test(Buffer.from(text.buffer, text.byteOffset, text.byteLength).toString("utf8"));
    return uncached(refusedText(sentence, secrets ? literalsOf(text, 0, text.length) : NO_SECRETS));
  };
  try {
    tree = grammar.parse(text);
  } catch (error) {
    if (error instanceof SyntaxRefusal)
      return unread(`syntax error ${error.message}: this is not a statement of PostgreSQL 18.`.replace(" :", ":"));
    if (error instanceof ParserBreakdown) return unread(TOO_DEEP);
    return unread("The statement is refused: it could not be checked.");
  }
  const statements = tree.stmts ?? [];
  const walk = newWalk();
  const secrets: [number, number][] = [];
  let refusal: string | undefined;
  for (const raw of statements) {
    walk.secret = false;
    try {
      statement(walk, raw.stmt, statements.length === 1);
    } catch (error) {
      // Every statement is looked at, for the secrets of those behind a refused one.
      if (error instanceof Refusal) refusal ??= error.message;
      else if (error instanceof RangeError) refusal ??= TOO_DEEP;
      else refusal ??= "The statement is refused: it could not be checked.";
      if (!(error instanceof Refusal)) walk.secret = true;
    }
    if (!walk.secret) continue;
    const start = raw.stmt_location ?? 0;
    const length = raw.stmt_len ?? 0;
    for (const [from, to] of literalsOf(text, start, length === 0 ? text.length : start + length)) secrets.push([from, to]);
  }
  const classified = walk.result(statements.length, secrets.length === 0 ? NO_SECRETS : secrets, refusal);
  if (secrets.length > 0 || !shape.compute(text, 0, text.length, undefined)) return uncached(classified);
  return { classified, cacheable: true, keep: literalsToKeep(shape, text, walk.inert, walk.fixed) };
}
