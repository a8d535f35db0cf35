import { integerOf, isNode, listOf, MalformedTree, readTree, type TreeNode, type TreeValue } from "./node-tree.ts";

/**
 * What a view does with the columns that it reads, from the tree that the server itself runs (pg_rewrite.ev_action): columns are
 * numbers there, so that no name has to be looked up. A reference that is an output as it is, through subqueries, WITH and joins, is that
 * output's origin; every other one counts as used.
 */
export interface ViewLineage {
  /** By attribute number: the column that is given out as it is; undefined: something computed, from what is in `used`. */
  readonly outputs: readonly (ColumnId | undefined)[];
  /** Columns that are computed with, or that decide about rows, anywhere in the view. */
  readonly used: readonly ColumnId[];
}

export interface ColumnId {
  readonly oid: number;
  /** 0: the whole row; negative: a system column. */
  readonly attribute: number;
}

/** What one output of a query is; undefined: computed. */
type Outputs = readonly (ColumnId | undefined)[];

/** Values of RTEKind (PostgreSQL's parsenodes.h), which are the same in all versions. */
const RTE = { relation: 0, subquery: 1, join: 2, function: 3, tableFunction: 4, values: 5, cte: 6, result: 8, group: 9 } as const;

const KINDS: ReadonlySet<number> = new Set(Object.values(RTE));

/** Fields that name a function or operator by oid. */
const CODE_FIELDS = ["funcid", "opfuncid", "opno", "aggfnoid", "winfnoid"];
/** Oids below are PostgreSQL's own. */
const FIRST_OWN_OID = 16_384;

interface Level {
  readonly query: TreeNode;
  readonly ranges: readonly TreeNode[];
}

class Tracer {
  readonly #used = new Map<string, ColumnId>();
  /** Queries in FROM and WITH, each looked at once. */
  readonly #known = new Map<TreeNode, Outputs>();

  get used(): readonly ColumnId[] {
    return [...this.#used.values()];
  }

  /** @param around the queries around this one, innermost last */
  query(query: TreeNode, around: readonly Level[]): Outputs {
    const known = this.#known.get(query);
    if (known !== undefined) return known;
    // CMD_SELECT.
    if (query.kind !== "QUERY" || integerOf(query, "commandType") !== 1) throw new MalformedTree();
    const ranges = listOf(query, "rtable").map((range) => {
      if (!isNode(range)) throw new MalformedTree();
      return range;
    });
    const levels = [...around, { query, ranges }];
    for (const cte of listOf(query, "cteList")) this.#outputsOfCte(cte, levels);
    for (const range of ranges) this.#range(range, levels);
    for (const [field, value] of query.fields) if (!APART.has(field)) this.#sweep(value, levels);
    const isSet = isNode(query.fields.get("setOperations"));
    const outputs: (ColumnId | undefined)[] = [undefined];
    for (const target of listOf(query, "targetList")) {
      if (!isNode(target) || target.kind !== "TARGETENTRY") throw new MalformedTree();
      const expression = target.fields.get("expr");
      const sorted = integerOf(target, "ressortgroupref") !== 0;
      const isPlain = isNode(expression) && expression.kind === "VAR" && !isSet;
      const source = isPlain ? this.#variable(expression, levels) : undefined;
      // What DISTINCT, GROUP BY, ORDER BY and windows look at decides about rows.
      if (!isPlain || sorted) this.#sweep(expression, levels);
      if (target.fields.get("resjunk") !== "true") outputs[integerOf(target, "resno")] = source;
    }
    // The arms of a set operation give out one list of columns together: none of them is one arm's alone.
    if (isSet) for (const range of ranges) for (const source of this.#outputsOf(range, levels)) this.#use(source);
    this.#known.set(query, outputs);
    return outputs;
  }

  #range(range: TreeNode, levels: readonly Level[]): void {
    const kind = integerOf(range, "rtekind");
    if (!KINDS.has(kind)) throw new MalformedTree();
    if (kind === RTE.subquery) this.#outputsOf(range, levels);
    // What a join gives out are columns of what it joins; they count where they are named.
    for (const [field, value] of range.fields)
      if (!(kind === RTE.subquery && field === "subquery") && !(kind === RTE.join && field === "joinaliasvars")) this.#sweep(value, levels);
  }

  /** The outputs of a subquery or WITH query in FROM. */
  #outputsOf(range: TreeNode, levels: readonly Level[]): Outputs {
    const kind = integerOf(range, "rtekind");
    if (kind === RTE.subquery) {
      const query = range.fields.get("subquery");
      if (!isNode(query)) throw new MalformedTree();
      return this.query(query, levels);
    }
    if (kind !== RTE.cte) return [];
    const up = levels.length - 1 - integerOf(range, "ctelevelsup");
    const name = range.fields.get("ctename");
    const cte = listOf(levels[up]?.query ?? range, "cteList").find((each) => isNode(each) && each.fields.get("ctename") === name);
    return this.#outputsOfCte(cte, levels.slice(0, up + 1));
  }

  #outputsOfCte(cte: TreeValue | undefined, levels: readonly Level[]): Outputs {
    const query = isNode(cte) ? cte.fields.get("ctequery") : undefined;
    // A recursive query gives out what it reads of itself.
    if (!isNode(cte) || !isNode(query) || cte.fields.get("cterecursive") !== "false") throw new MalformedTree();
    return this.query(query, levels);
  }

  /** What a reference stands for; undefined: something computed. */
  #variable(variable: TreeNode, levels: readonly Level[]): ColumnId | undefined {
    const up = levels.length - 1 - integerOf(variable, "varlevelsup");
    const seen = levels.slice(0, up + 1);
    const range = seen[up]?.ranges[integerOf(variable, "varno") - 1];
    const attribute = integerOf(variable, "varattno");
    if (range === undefined) throw new MalformedTree();
    const kind = integerOf(range, "rtekind");
    if (kind === RTE.relation) return { oid: integerOf(range, "relid"), attribute };
    // A whole row of anything else, or a column that is not there.
    if (attribute < 1) throw new MalformedTree();
    if (kind === RTE.subquery || kind === RTE.cte) {
      const outputs = this.#outputsOf(range, seen);
      if (attribute >= outputs.length) throw new MalformedTree();
      return outputs[attribute];
    }
    if (kind !== RTE.join) return undefined;
    const joined = listOf(range, "joinaliasvars")[attribute - 1];
    if (isNode(joined) && joined.kind === "VAR") return this.#variable(joined, seen);
    this.#sweep(joined, seen);
    return undefined;
  }

  #use(source: ColumnId | undefined): void {
    if (source !== undefined) this.#used.set(`${source.oid}.${source.attribute}`, source);
  }

  /** Everything that is referred to below is used. */
  #sweep(value: TreeValue | undefined, levels: readonly Level[]): void {
    if (value === undefined || typeof value === "string") return;
    if (!isNode(value)) {
      for (const item of value) this.#sweep(item, levels);
      return;
    }
    if (value.kind === "QUERY") {
      for (const source of this.query(value, levels)) this.#use(source);
      return;
    }
    if (value.kind === "VAR") {
      this.#use(this.#variable(value, levels));
      return;
    }
    for (const field of CODE_FIELDS) if (Number(value.fields.get(field) ?? 0) >= FIRST_OWN_OID) throw new MalformedTree();
    for (const below of value.fields.values()) this.#sweep(below, levels);
  }
}

/** Fields of a query that are looked at on their own. */
const APART: ReadonlySet<string> = new Set(["cteList", "rtable", "targetList"]);

/** @param action pg_rewrite.ev_action of a view's own rule @returns undefined: it cannot be told, or somebody's own functions or operators take part */
export function viewLineage(action: string): ViewLineage | undefined {
  try {
    const actions = readTree(action);
    const [query, more] = typeof actions === "string" || isNode(actions) ? [] : actions;
    if (!isNode(query) || more !== undefined) return undefined;
    const tracer = new Tracer();
    const outputs = tracer.query(query, []);
    return { outputs, used: tracer.used };
  } catch (thrown) {
    if (thrown instanceof MalformedTree || thrown instanceof RangeError) return undefined;
    throw thrown;
  }
}
