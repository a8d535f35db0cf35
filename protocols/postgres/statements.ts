import { Seen } from "../../core/bytes/copy.ts";
import { SluiceError } from "../../core/errors.ts";
import { LIMITS } from "../../core/limits.ts";
import type { StatementRecord } from "../../store/types.ts";
import { utf8 } from "./notices.ts";
import type { Columns } from "./rows.ts";
import type { Classified } from "./sql/types.ts";

/** A prepared statement as the server holds it, made by Parse or by SQL PREPARE. */
export interface PreparedStatement {
  readonly classified: Classified;
  readonly text: string;
  readonly record: StatementRecord;
  /** From RowDescription, once seen. */
  columns: Columns | undefined;
  /** The decision context in force when `columns` came. */
  describedIn: object | undefined;
  /** The session's count of schema changes at that time. */
  describedAt: number;
}

/** Longer texts are not kept beside their shape. */
const WRITTEN_MAX_BYTES = 1_024;

/**
 * What Parse's text is on record. Drivers parse the same few texts over and over: their text is decoded, and put on record, once
 * and not every time.
 */
export function recordOf(classified: Classified, bytes: Uint8Array, start: number, end: number): StatementRecord {
  const { written } = classified;
  const last = written?.last;
  if (last !== undefined && last.bytes.is(bytes, start, end)) return last.record;
  const record: StatementRecord = { text: utf8(bytes, start, end), storeSlot: -1 };
  if (written !== undefined && end - start <= WRITTEN_MAX_BYTES) written.last = { bytes: new Seen(bytes, start, end), record };
  return record;
}

/** A portal: a statement bound to parameters and result formats. */
export interface Portal {
  readonly statement: PreparedStatement;
  /** parameters[parametersStart, parametersEnd): copy of the Bind message's parameter section, which never changes there. */
  readonly parameters: Uint8Array;
  readonly parametersStart: number;
  readonly parametersEnd: number;
  /** Result formats of Bind: 'text' (all), 'binary' (all), or one a column. */
  readonly formats: "text" | "binary" | readonly number[];
  /** search_path when it was made, which is when the server looked its names up; undefined: unknown. */
  readonly searchPath: readonly string[] | undefined;
}

/** A change of names that was sent to the server. Of each, one of the two happens once its answer is there, in the order of sending. */
export interface Change {
  /** The server carried it out. */
  confirm(): void;
  /** The server did not: refused it, or skipped it after an error. */
  undo(): void;
}

/** What one change makes of a name. */
export class Version<T> implements Change {
  readonly #names: Names<T>;
  readonly name: string;
  /** undefined: the name is free. */
  readonly value: T | undefined;
  readonly #pipeline: number;
  /** What the name stands for if this change is not carried out. */
  previous: Version<T> | undefined;
  /** The server has said that it carried this out. */
  certain = false;
  undone = false;

  constructor(names: Names<T>, name: string, value: T | undefined, pipeline: number, previous: Version<T> | undefined) {
    this.#names = names;
    this.name = name;
    this.value = value;
    this.#pipeline = pipeline;
    this.previous = previous;
  }

  /**
   * Whether this is what the server will find under the name when it comes to a message of this pipeline. A change of an
   * earlier pipeline, whose answer is not there, may have been skipped; one of the same pipeline takes that message with it.
   */
  holdsIn(pipeline: number): boolean {
    return this.certain || this.#pipeline === pipeline;
  }

  confirm(): void {
    this.certain = true;
    // Answers come in order: whatever was sent before this has been answered too.
    this.previous = undefined;
    this.#names.resolved(this);
  }

  undo(): void {
    this.undone = true;
    this.#names.resolved(this);
  }
}

/**
 * Values by name as the server will hold them once it has worked off what was sent, and what they fall back to where it
 * does not carry a change out.
 */
export class Names<T> {
  /** The unnamed one, which most messages use, stays out of the map. */
  #unnamed: Version<T> | undefined;
  /** Entries of the map: asked of it, that would be a look into its table. */
  #named = 0;
  readonly #latest = new Map<string, Version<T>>();
  /** The name that was asked for last, and what it stands for. */
  #recentName = "";
  #recent: Version<T> | undefined;
  #size = 0;

  /** Names in use. */
  get size(): number {
    return this.#size;
  }

  find(name: string): Version<T> | undefined {
    if (name === "") return this.#unnamed;
    if (name !== this.#recentName) {
      this.#recentName = name;
      this.#recent = this.#latest.get(name);
    }
    return this.#recent;
  }

  get(name: string): T | undefined {
    return this.find(name)?.value;
  }

  has(name: string): boolean {
    return this.get(name) !== undefined;
  }

  /** Names in use, and those that are again if a change on its way is not carried out. */
  keys(): string[] {
    return this.#unnamed === undefined ? [...this.#latest.keys()] : ["", ...this.#latest.keys()];
  }

  /** The sum over all values that are kept once what has the name now, if that is certain, is replaced. */
  held(name: string, sizeOf: (value: T) => number): number {
    let sum = 0;
    const add = (latest: Version<T>): void => {
      for (let version: Version<T> | undefined = latest; version !== undefined; version = version.previous) {
        if (version.value !== undefined && !(version.name === name && version.certain)) sum += sizeOf(version.value);
      }
    };
    if (this.#unnamed !== undefined) add(this.#unnamed);
    for (const latest of this.#latest.values()) add(latest);
    return sum;
  }

  /** @param value undefined frees the name. @param pipeline what is skipped together */
  change(name: string, value: T | undefined, pipeline: number): Version<T> {
    const version = new Version(this, name, value, pipeline, this.find(name));
    this.#put(name, version);
    return version;
  }

  /** The transaction has ended, and everything is gone that was made before its end; what is on its way comes behind it. */
  clear(): void {
    if (this.#unnamed !== undefined) this.#clear(this.#unnamed);
    if (this.#named > 0) for (const latest of this.#latest.values()) this.#clear(latest);
  }

  #clear(latest: Version<T>): void {
    if (latest.certain) {
      this.#put(latest.name, undefined);
      return;
    }
    let oldest = latest;
    while (oldest.previous !== undefined && !oldest.previous.certain) oldest = oldest.previous;
    oldest.previous = undefined;
  }

  /** The server's answer to a change is there. */
  resolved(version: Version<T>): void {
    let latest = this.find(version.name);
    if (latest === version && version.certain) {
      if (version.value === undefined) this.#put(version.name, undefined);
      return;
    }
    // Beneath a later change it waits in the chain, and is passed over if that one is undone, too.
    if (latest === undefined || !latest.undone) return;
    while (latest?.undone === true) latest = latest.previous;
    this.#put(version.name, latest?.certain === true && latest.value === undefined ? undefined : latest);
  }

  #put(name: string, version: Version<T> | undefined): void {
    const before = this.find(name)?.value === undefined ? 0 : 1;
    this.#size += (version?.value === undefined ? 0 : 1) - before;
    if (name === this.#recentName) this.#recent = version;
    if (name === "") {
      this.#unnamed = version;
      return;
    }
    if (version === undefined) this.#latest.delete(name);
    else this.#latest.set(name, version);
    this.#named = this.#latest.size;
  }
}

/** Several changes that one message makes. */
export function together(changes: readonly Change[]): Change | undefined {
  if (changes.length <= 1) return changes[0];
  return {
    confirm: () => {
      for (const change of changes) change.confirm();
    },
    undo: () => {
      for (const change of [...changes].reverse()) change.undo();
    },
  };
}

const textLength = ({ text }: PreparedStatement): number => text.length;
const parameterBytes = ({ parametersStart, parametersEnd }: Portal): number => parametersEnd - parametersStart;

/** Their number bounds what small ones take; large ones are added up. @throws SluiceError SLUICE_LIMIT_EXCEEDED */
function admit<T>(names: Names<T>, name: string, value: T, bytesOf: (value: T) => number, what: string): void {
  const bytes = bytesOf(value);
  if (bytes < LIMITS.namedLargeBytes || bytes + names.held(name, bytesOf) <= LIMITS.namedBytes) return;
  throw new SluiceError("SLUICE_LIMIT_EXCEEDED", `more than ${LIMITS.namedBytes} bytes of ${what} in one session`, {
    hint: "Close those that are no longer used, and send Sync more often.",
  });
}

/**
 * Names of statements and portals as the server will hold them once it has worked off what was sent. The server
 * skips messages behind an error up to Sync, so every change is confirmed or undone when its answer is there.
 */
export class NamedObjects {
  readonly statements = new Names<PreparedStatement>();
  /** Portals of Bind and cursors of DECLARE: one name space, as in the server. */
  readonly portals = new Names<Portal>();
  /** Number of the pipeline that is being sent: what stands between two Sync messages, or one Query. */
  pipeline = 0;

  setStatement(name: string, statement: PreparedStatement): Change {
    if (name !== "" && this.statements.size >= LIMITS.preparedStatements && !this.statements.has(name)) {
      throw new SluiceError("SLUICE_LIMIT_EXCEEDED", `more than ${LIMITS.preparedStatements} prepared statements in one session`, {
        hint: "Close or DEALLOCATE statements that are no longer used.",
      });
    }
    admit(this.statements, name, statement, textLength, "texts of prepared statements");
    return this.statements.change(name, statement, this.pipeline);
  }

  deleteStatement(name: string): Change {
    return this.statements.change(name, undefined, this.pipeline);
  }

  setPortal(name: string, portal: Portal): Change {
    if (this.portals.size >= LIMITS.preparedStatements && !this.portals.has(name)) {
      throw new SluiceError("SLUICE_LIMIT_EXCEEDED", `more than ${LIMITS.preparedStatements} portals in one transaction`);
    }
    admit(this.portals, name, portal, parameterBytes, "parameters of portals");
    return this.portals.change(name, portal, this.pipeline);
  }

  deletePortal(name: string): Change {
    return this.portals.change(name, undefined, this.pipeline);
  }
}
