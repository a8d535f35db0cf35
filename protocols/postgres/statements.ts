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
  /** Copy of the Bind message's parameter section, kept only when a rule reads it or it goes on record. */
  readonly parameters: Uint8Array;
  /** Result formats of Bind: 'text' (all), 'binary' (all), or one a column. */
  readonly formats: "text" | "binary" | readonly number[];
}

export type Undo = () => void;

/**
 * Names of statements and portals as the server will hold them once it has worked off what was sent. The server
 * skips messages behind an error up to Sync, so every change comes with its undo, run when an answer shows that the
 * message was not carried out.
 */
export class NamedObjects {
  readonly statements = new Map<string, PreparedStatement>();
  /** Portals of Bind and cursors of DECLARE: one name space, as in the server. */
  readonly portals = new Map<string, Portal>();

  setStatement(name: string, statement: PreparedStatement): Undo {
    if (name !== "" && this.statements.size >= LIMITS.preparedStatements && !this.statements.has(name)) {
      throw new SluiceError("SLUICE_LIMIT_EXCEEDED", `more than ${LIMITS.preparedStatements} prepared statements in one session`, {
        hint: "Close or DEALLOCATE statements that are no longer used.",
      });
    }
    return put(this.statements, name, statement);
  }

  deleteStatement(name: string): Undo {
    return remove(this.statements, name);
  }

  setPortal(name: string, portal: Portal): Undo {
    if (this.portals.size >= LIMITS.preparedStatements && !this.portals.has(name)) {
      throw new SluiceError("SLUICE_LIMIT_EXCEEDED", `more than ${LIMITS.preparedStatements} portals in one transaction`);
    }
    return put(this.portals, name, portal);
  }

  deletePortal(name: string): Undo {
    return remove(this.portals, name);
  }
}

function put<T>(map: Map<string, T>, name: string, value: T): Undo {
  const previous = map.get(name);
  map.set(name, value);
  return () => {
    if (previous === undefined) map.delete(name);
    else map.set(name, previous);
  };
}

function remove<T>(map: Map<string, T>, name: string): Undo {
  const previous = map.get(name);
  map.delete(name);
  return () => {
    if (previous !== undefined) map.set(name, previous);
  };
}
