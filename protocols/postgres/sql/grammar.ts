import { createRequire } from "node:module";
import type { ParseResult } from "./ast.ts";

/**
 * PostgreSQL's own parser (libpg_query, PostgreSQL 18) in WebAssembly. The package's wrapper keeps one instance for
 * good; here an instance can be replaced, because a trap leaves its memory in an unknown state.
 */

/** What emscripten's module offers (libpg-query/wasm/libpg-query.js); pointers are byte offsets into HEAPU8. */
interface PgQueryModule {
  readonly HEAPU8: Uint8Array;
  readonly HEAPU32: Uint32Array;
  _malloc(bytes: number): number;
  _free(pointer: number): void;
  /** @returns a pointer to PgQueryParseResult { char *parse_tree; char *stderr_buffer; PgQueryError *error } */
  _wasm_parse_query_raw(text: number): number;
  _wasm_free_parse_result(result: number): void;
}

type PgQueryFactory = (options: { print: () => void; printErr: () => void }) => Promise<PgQueryModule>;

const require = createRequire(import.meta.url);
/** Memory of an instance never shrinks: one that grew by more than this is replaced. */
const GROWTH_BYTES = 64 * 1024 * 1024;

/** The text is not SQL that PostgreSQL 18 accepts. Carries no part of the text, which may hold a secret. */
export class SyntaxRefusal extends Error {}

/** The parser broke down (stack or memory exhausted). Its instance is being replaced. */
export class ParserBreakdown extends Error {}

export class Grammar {
  #module: PgQueryModule | undefined;
  #initialBytes = 0;
  #loading: Promise<void> | undefined;

  static async load(): Promise<Grammar> {
    const grammar = new Grammar();
    await grammar.ready();
    return grammar;
  }

  /** False while an instance is being replaced; then await ready() before parse(). */
  get usable(): boolean {
    return this.#module !== undefined;
  }

  async ready(): Promise<void> {
    if (this.#module !== undefined) return;
    this.#loading ??= this.#instantiate();
    await this.#loading;
  }

  async #instantiate(): Promise<void> {
    const factory = require("libpg-query/wasm/libpg-query.js") as PgQueryFactory;
    try {
      const module = await factory({ print: () => undefined, printErr: () => undefined });
      this.#initialBytes = module.HEAPU8.length;
      this.#module = module;
    } finally {
      this.#loading = undefined;
    }
  }

  #replace(): void {
    this.#module = undefined;
    // The next ready() tries again and reports to its caller.
    this.ready().catch(() => undefined);
  }

  /**
   * @param text valid UTF-8 without a zero byte
   * @throws SyntaxRefusal; ParserBreakdown
   */
  parse(text: Uint8Array): ParseResult {
    const module = this.#module;
    if (module === undefined) throw new ParserBreakdown("the SQL parser is being replaced");
    const { exitCode } = process;
    let json: string | SyntaxRefusal;
    try {
      json = call(module, text);
    } catch (error) {
      // Out of memory, PostgreSQL's code calls exit(1), which emscripten turns into an exception and an exit code.
      process.exitCode = exitCode;
      this.#replace();
      throw new ParserBreakdown("the SQL parser broke down", { cause: error });
    }
    if (module.HEAPU8.length > this.#initialBytes + GROWTH_BYTES) this.#replace();
    if (typeof json !== "string") throw json;
    return JSON.parse(json) as ParseResult;
  }
}

function call(module: PgQueryModule, text: Uint8Array): string | SyntaxRefusal {
  const pointer = module._malloc(text.length + 1);
  if (pointer === 0) throw new RangeError("out of memory");
  module.HEAPU8.set(text, pointer);
  module.HEAPU8[pointer + text.length] = 0;
  const result = module._wasm_parse_query_raw(pointer);
  module._free(pointer);
  if (result === 0) throw new RangeError("out of memory");
  const tree = module.HEAPU32[result >> 2];
  const error = module.HEAPU32[(result >> 2) + 2];
  let answer: string | SyntaxRefusal;
  if (error !== 0) {
    // PgQueryError { char *message, *funcname, *filename; int lineno, cursorpos; char *context }
    const position = module.HEAPU32[(error >> 2) + 4];
    answer = new SyntaxRefusal(position > 0 ? `at character ${position}` : "");
  } else answer = textAt(module, tree);
  module._wasm_free_parse_result(result);
  return answer;
}

function textAt(module: PgQueryModule, pointer: number): string {
  const end = module.HEAPU8.indexOf(0, pointer);
  return Buffer.from(module.HEAPU8.buffer, module.HEAPU8.byteOffset + pointer, end - pointer).toString("utf8");
}
