import { SluiceError } from "../../core/errors.ts";
import { LIMITS } from "../../core/limits.ts";
import type { StatementRecord } from "../../store/types.ts";
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

export type Undo = () => void;

/**
 * Values by name, with changes that can be taken back out of order. Every change of a name has a number; an undo restores
 * what was there before only if no later change has been made. If one has, what the server holds under that name cannot
 * be told, and the name is forgotten: its later use is refused.
 */
export class Names<T> {
  readonly #values = new Map<string, T>();
  readonly #changes = new Map<string, number>();
  /** The unnamed one, which most messages use, stays out of the maps: filling and clearing those costs an allocation each time. */
  #unnamed: T | undefined;
  #unnamedChange = 0;
  #count = 0;

  get size(): number {
    return this.#values.size + (this.#unnamed === undefined ? 0 : 1);
  }

  get(name: string): T | undefined {
    return name === "" ? this.#unnamed : this.#values.get(name);
  }

  has(name: string): boolean {
    return this.get(name) !== undefined;
  }

  keys(): string[] {
    return this.#unnamed === undefined ? [...this.#values.keys()] : ["", ...this.#values.keys()];
  }

  set(name: string, value: T): Undo {
    return this.#change(name, value);
  }

  delete(name: string): Undo {
    return this.#change(name, undefined);
  }

  clear(): void {
    this.#unnamed = undefined;
    if (this.#values.size > 0) this.#values.clear();
  }

  /** Nothing is on its way any more: no undo will come. */
  settle(): void {
    this.#unnamedChange = 0;
    if (this.#changes.size > 0) this.#changes.clear();
  }

  #change(name: string, value: T | undefined): Undo {
    const before = this.get(name);
    const changeBefore = this.#changeOf(name);
    this.#count += 1;
    const change = this.#count;
    this.#put(name, value, change);
    return () => {
      if (this.#changeOf(name) === change) this.#put(name, before, changeBefore);
      else {
        this.#count += 1;
        this.#put(name, undefined, this.#count);
      }
    };
  }

  #changeOf(name: string): number {
    return name === "" ? this.#unnamedChange : (this.#changes.get(name) ?? 0);
  }

  #put(name: string, value: T | undefined, change: number): void {
    if (name === "") {
      this.#unnamed = value;
      this.#unnamedChange = change;
      return;
    }
    if (value === undefined) this.#values.delete(name);
    else this.#values.set(name, value);
    this.#changes.set(name, change);
  }
}

/**
 * Names of statements and portals as the server will hold them once it has worked off what was sent. The server
 * skips messages behind an error up to Sync, so every change comes with its undo, run when an answer shows that the
 * message was not carried out.
 */
export class NamedObjects {
  readonly statements = new Names<PreparedStatement>();
  /** Portals of Bind and cursors of DECLARE: one name space, as in the server. */
  readonly portals = new Names<Portal>();

  setStatement(name: string, statement: PreparedStatement): Undo {
    if (name !== "" && this.statements.size >= LIMITS.preparedStatements && !this.statements.has(name)) {
      throw new SluiceError("SLUICE_LIMIT_EXCEEDED", `more than ${LIMITS.preparedStatements} prepared statements in one session`, {
        hint: "Close or DEALLOCATE statements that are no longer used.",
      });
    }
    return this.statements.set(name, statement);
  }

  deleteStatement(name: string): Undo {
    return this.statements.delete(name);
  }

  setPortal(name: string, portal: Portal): Undo {
    if (this.portals.size >= LIMITS.preparedStatements && !this.portals.has(name)) {
      throw new SluiceError("SLUICE_LIMIT_EXCEEDED", `more than ${LIMITS.preparedStatements} portals in one transaction`);
    }
    return this.portals.set(name, portal);
  }

  deletePortal(name: string): Undo {
    return this.portals.delete(name);
  }

  /** No message awaits its answer. */
  settle(): void {
    this.statements.settle();
    this.portals.settle();
  }
}
