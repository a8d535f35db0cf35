import { isUtf8 } from "node:buffer";
import { LIMITS } from "../../../core/limits.ts";
import { Grammar } from "./grammar.ts";
import { type Judged, judge, refusedText } from "./judge.ts";
import { OffThread } from "./off-thread.ts";
import { Shape, ShapeCache } from "./shape.ts";
import { Templates } from "./templates.ts";
import type { Classified, Classifier } from "./types.ts";

/** Keys of the cache, in bytes; what is cached beside a key is of the key's order. */
const CACHED_KEY_BYTES = 32 * 1024 * 1024;
/** A text that our lexer does not understand is parsed inline only up to this length. */
const UNLEXED_INLINE_BYTES = 512;

export interface ClassifierOptions {
  /** Cached classifications; default LIMITS.cachedShapes. */
  readonly capacity?: number;
  /** Module of the thread that parses long texts. */
  readonly workerEntry?: URL;
  /** Of processor time for one text on that thread, and five times as long by the clock; default 2 s. */
  readonly deadlineMillis?: number;
}

const ZERO = refusedText("The statement is refused: it contains a zero byte.");
const NOT_UTF8 = refusedText("The statement is refused: it is not valid UTF-8.");
const TOO_LONG = refusedText(`The statement is refused: it is longer than ${LIMITS.statementBytes} bytes.`);

class ShapeClassifier implements Classifier {
  readonly stats = { hits: 0, misses: 0, refusals: 0 };
  readonly #grammar: Grammar;
  readonly #offThread: OffThread;
  readonly #shape = new Shape();
  readonly #cache: ShapeCache<Classified>;
  readonly #templates = new Templates<Classified>();

  constructor(grammar: Grammar, options: ClassifierOptions) {
    this.#grammar = grammar;
    this.#offThread = new OffThread(options.workerEntry, options.deadlineMillis);
    this.#cache = new ShapeCache(options.capacity ?? LIMITS.cachedShapes, CACHED_KEY_BYTES);
  }

  known(bytes: Uint8Array, start: number, end: number): Classified | undefined {
    const known = this.#templates.find(bytes, start, end);
    if (known !== undefined) this.stats.hits += 1;
    return known;
  }

  classify(bytes: Uint8Array, start: number, end: number): Classified | Promise<Classified> {
    const known = this.known(bytes, start, end);
    if (known !== undefined) return known;
    const shape = this.#shape;
    const length = end - start;
    if (length > LIMITS.statementBytes) return this.#refused(TOO_LONG);
    const lexed = shape.compute(bytes, start, end, undefined);
    if (lexed) {
      if (shape.zero) return this.#refused(ZERO);
      if (shape.nonAscii && !isUtf8(bytes.subarray(start, end))) return this.#refused(NOT_UTF8);
      const heavy = shape.heavy;
      const cached = this.#cache.find(shape, bytes, start, end);
      if (cached !== undefined) {
        this.stats.hits += 1;
        if (cached.refusal === undefined) this.#templates.learn(shape, bytes, start, end, cached);
        else this.stats.refusals += 1;
        return cached;
      }
      return this.#parse(bytes.slice(start, end), heavy || length > LIMITS.inlineParseBytes);
    }
    const text = bytes.slice(start, end);
    if (text.includes(0)) return this.#refused(ZERO);
    if (!isUtf8(text)) return this.#refused(NOT_UTF8);
    return this.#parse(text, length > UNLEXED_INLINE_BYTES);
  }

  #parse(text: Uint8Array, away: boolean): Classified | Promise<Classified> {
    this.stats.misses += 1;
    if (away) return this.#offThread.judge(text).then((judged) => this.#keep(text, judged));
    if (this.#grammar.usable) return this.#keep(text, judge(this.#grammar, this.#shape, text));
    return this.#parseLater(text);
  }

  /** While the parser is being replaced. Another text may break the new one before this one's turn. */
  async #parseLater(text: Uint8Array): Promise<Classified> {
    try {
      while (!this.#grammar.usable) await this.#grammar.ready();
    } catch {
      return this.#refused(refusedText("The statement is refused: the SQL parser could not be loaded."));
    }
    return this.#keep(text, judge(this.#grammar, this.#shape, text));
  }

  #keep(text: Uint8Array, judged: Judged): Classified {
    if (judged.cacheable) this.#cache.store(this.#shape, text, 0, text.length, judged.keep, judged.classified);
    return judged.classified.refusal === undefined ? judged.classified : this.#refused(judged.classified);
  }

  #refused(classified: Classified): Classified {
    this.stats.refusals += 1;
    return classified;
  }

  close(): Promise<void> {
    return this.#offThread.close();
  }
}

/** Load PostgreSQL's grammar and make a classifier; one a worker. */
export async function createClassifier(options: ClassifierOptions = {}): Promise<Classifier> {
  return new ShapeClassifier(await Grammar.load(), options);
}
