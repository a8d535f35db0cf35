const NONE = Symbol("none");

/**
 * The session's search_path as far as it is known for certain. Unknown (undefined) makes name resolution take every
 * schema that has the name, which is always the stricter reading.
 *
 * Transaction rules (PostgreSQL documentation, SET): a SET inside a transaction block is undone by ROLLBACK, SET LOCAL
 * ends with the transaction.
 */
export class SearchPath {
  // The first four are looked at for every statement.
  #current: readonly string[] | undefined;
  /** Changes sent to the server whose ReadyForQuery has not come. */
  #unconfirmed = 0;
  /** Something ran that may have changed it, or the role, unseen, and the server has not been asked since. */
  #doubted = false;
  #inVain = false;
  readonly #initial: readonly string[] | undefined;
  #committed: readonly string[] | undefined;
  /** What COMMIT makes of it; NONE: no SET in this block. */
  #atCommit: readonly string[] | undefined | typeof NONE = NONE;
  /** Those of them behind which the role counts at once. */
  #urgentUnconfirmed = 0;
  /** The server reports the setting by itself (PostgreSQL 18). */
  #reports = false;
  #urgent = false;
  /** It was asked for inside this block; what holds behind the block is another matter. */
  #askedInBlock = false;

  constructor(initial: readonly string[] | undefined) {
    this.#initial = initial;
    this.#committed = initial;
    this.#current = initial;
  }

  get value(): readonly string[] | undefined {
    return this.#unconfirmed > 0 || this.#doubted ? undefined : this.#current;
  }

  /** The end of the transaction block, or a rollback to a savepoint, may bring back another value. */
  get boundToBlock(): boolean {
    return this.#unconfirmed > 0 || this.#askedInBlock || this.#atCommit !== NONE || this.#current !== this.#committed;
  }

  /** Changes are on their way; once they are answered more is known. */
  get underWay(): boolean {
    return this.#unconfirmed > 0;
  }

  /** Asking the server may tell. */
  get askable(): boolean {
    return !this.#inVain;
  }

  /** DO or a procedure ran: the role counts before the next statement, whatever names that one has. */
  get urgent(): boolean {
    return this.#urgentUnconfirmed > 0 || (this.#urgent && !this.#inVain);
  }

  /** Code ran that may have changed search_path or the role. @param urgent in a way that matters at once */
  doubt(urgent: boolean): void {
    this.#doubted = true;
    this.#inVain = false;
    if (urgent) this.#urgent = true;
    this.lost();
  }

  /** The server was asked, and the role is the session's own. @param schemas undefined: not readable. @param inBlock inside a transaction block */
  asked(schemas: readonly string[] | undefined, inBlock: boolean): void {
    this.#doubted = false;
    this.#urgent = false;
    this.#inVain = schemas === undefined;
    this.#askedInBlock = inBlock;
    this.#current = schemas;
    this.#committed = inBlock ? undefined : schemas;
    this.#atCommit = NONE;
  }

  askedInVain(): void {
    this.#inVain = true;
  }

  /** The server has worked off something else: asking again may tell more. */
  mayAskAgain(): void {
    this.#inVain = false;
  }

  /** A statement that may change the setting went to the server. @param urgent DO or a procedure */
  sent(urgent = false): void {
    this.#unconfirmed += 1;
    if (urgent) this.#urgentUnconfirmed += 1;
  }

  /** ReadyForQuery came for a change that was sent. */
  settled(urgent = false): void {
    if (this.#unconfirmed > 0) this.#unconfirmed -= 1;
    if (urgent && this.#urgentUnconfirmed > 0) this.#urgentUnconfirmed -= 1;
  }

  /** ParameterStatus came. */
  reported(schemas: readonly string[] | undefined): void {
    this.#reports = true;
    this.#current = schemas;
  }

  /** A SET ran. @param inBlock inside a transaction block */
  set(schemas: readonly string[] | undefined, local: boolean, inBlock: boolean): void {
    if (this.#reports || (local && !inBlock)) return;
    this.#current = schemas;
    if (!inBlock) this.#committed = schemas;
    else if (!local) this.#atCommit = schemas;
  }

  /** RESET ALL or DISCARD ALL ran. */
  reset(inBlock: boolean): void {
    this.set(this.#initial, false, inBlock);
  }

  /** The transaction block ended. */
  ended(how: "commit" | "rollback"): void {
    this.#doubtBehindBlock();
    if (this.#reports) return;
    if (how === "commit" && this.#atCommit !== NONE) this.#committed = this.#atCommit;
    this.#atCommit = NONE;
    this.#current = this.#committed;
  }

  /** A transaction block ended in a way that does not tell whether its changes hold. */
  unclear(): void {
    this.#doubtBehindBlock();
    if (this.#atCommit !== NONE || this.#current !== this.#committed) this.lost();
  }

  #doubtBehindBlock(): void {
    if (this.#askedInBlock) this.#doubted = true;
    this.#askedInBlock = false;
  }

  /** Something happened after which the value cannot be known. */
  lost(): void {
    if (this.#reports) return;
    this.#current = undefined;
    this.#committed = undefined;
    this.#atCommit = NONE;
  }
}

/** The value of the setting as ParameterStatus or SHOW gives it (`"$user", public`), as schema names. undefined: not readable. */
export function parseSearchPath(value: string, user: string): readonly string[] | undefined {
  const schemas: string[] = [];
  // The server's own idea of white space and of lower case (SplitIdentifierString): ASCII only. A vertical tab is white space to
  // PostgreSQL 16 and later, and before that a part of a name: outside quotes the value is not readable.
  const element = /[ \t\n\f\r]*(?:"((?:[^"]|"")*)"|([^", \t\n\v\f\r]+))[ \t\n\f\r]*(,|$)/gy;
  if (/^[ \t\n\f\r]*$/.test(value)) return schemas;
  for (;;) {
    const match = element.exec(value);
    if (match === null) return undefined;
    const name = match[1] !== undefined ? match[1].replaceAll('""', '"') : match[2].replaceAll(/[A-Z]/g, (letter) => letter.toLowerCase());
    // Where a byte is a character (LATIN1 and the like) the server's locale says what is lower case beyond ASCII.
    if (match[2] !== undefined && name !== name.toLowerCase()) return undefined;
    // The server cuts longer names; what is left need not be what a schema is called.
    if (Buffer.byteLength(name) > 63) return undefined;
    schemas.push(name === "$user" ? user : name);
    if (match[3] === "") return element.lastIndex === value.length ? schemas : undefined;
  }
}
