import { createHash } from "node:crypto";
import type { Masker } from "../../core/mask/types.ts";
import type { Moment, Operation, SessionPolicy } from "../../core/policy/types.ts";
import { type Grant, refuse, type Verdict } from "../../core/verdict.ts";
import type { DecisionRecord } from "../../store/types.ts";
import { type Catalogue, qualify } from "./catalogue.ts";
import { type CopyPlan, planCopy } from "./copy-plan.ts";
import { changesSchema, movesSearchPath } from "./effects.ts";
import { type MaskedRelations, maskedRelations } from "./masked-relations.ts";
import type { Classified, ColumnUse, OriginUse, RelationName } from "./sql/types.ts";
import type { SessionMasks } from "./values.ts";

/** A verdict on one classified message in one context, with what the relay needs to carry it out. */
export interface Decision {
  readonly verdict: Verdict;
  readonly operation: Operation;
  readonly record: DecisionRecord;
  /** Result columns must be looked at by origin. */
  readonly masksColumns: boolean;
  /** Result values must be searched by content. */
  readonly masksContent: boolean;
  readonly moves: Moves;
  /** How each COPY TO STDOUT of the message is masked, in their order. */
  readonly copies: readonly (CopyPlan | undefined)[];
  /** The masks that it was made under, which its rows go through whatever is in force when they come. */
  readonly masks: SessionMasks | undefined;
}

const NO_COPIES: readonly (CopyPlan | undefined)[] = [];

/**
 * Whether carrying a statement out may change search_path or the role in a way that shows neither in the statement nor in what
 * the server reports: 0 no; 1 by a function that it calls or sets off; 2 by DO or a procedure.
 */
export type Moves = 0 | 1 | 2;

/** Asked for every message: where there are no copies, no closure is made. */
const needsFresh = (decision: Decision): boolean => decision.copies.length > 0 && decision.copies.some((plan) => plan?.fresh);

/** A relation that the catalogue does not know: load it anew and ask again. */
export const UNKNOWN_RELATION = Symbol("unknown relation");

interface DecisionStats {
  hits: number;
  misses: number;
}

const CACHED_DECISIONS = 20_000;
const CACHED_CONTEXTS = 5_000;

/**
 * Everything besides the statement that a cached verdict depends on: identity, target and policy version (in the
 * session's policy), catalogue generation, search_path, temporary relations. The target's role is fixed: SET ROLE is
 * refused. A context is shared by the sessions for which all of these are equal, and dropped when one changes.
 */
export class DecisionContext {
  readonly #stats: DecisionStats;
  readonly policy: SessionPolicy;
  readonly catalogue: Catalogue;
  readonly generation: number;
  readonly searchPath: readonly string[] | undefined;
  readonly masks: SessionMasks | undefined;
  readonly #temporary: ReadonlySet<string>;
  readonly #masked: MaskedRelations;
  readonly #decisions = new Map<Classified, Decision>();

  constructor(
    policy: SessionPolicy,
    catalogue: Catalogue,
    searchPath: readonly string[] | undefined,
    temporary: ReadonlySet<string>,
    masker: Masker | undefined,
    stats: DecisionStats,
  ) {
    this.#stats = stats;
    this.policy = policy;
    this.catalogue = catalogue;
    this.generation = catalogue.generation;
    this.searchPath = searchPath;
    this.#temporary = temporary;
    this.#masked = maskedRelations(policy.masks, catalogue);
    const contentRule = policy.masks.find((mask) => mask.detect.length > 0)?.name ?? "";
    this.masks = masker === undefined ? undefined : { masker, columns: this.#masked.columns, contentRule };
  }

  /** @param fresh the catalogue was just loaded: a relation it does not know does not exist */
  decide(classified: Classified, moment: () => Moment, fresh: boolean): Decision | typeof UNKNOWN_RELATION {
    const cached = this.#decisions.get(classified);
    // No description of a COPY's rows comes with them: which columns they have must be known as of now.
    if (!fresh && cached !== undefined && needsFresh(cached)) return UNKNOWN_RELATION;
    if (cached !== undefined) {
      this.#stats.hits += 1;
      if (cached.verdict.stable) return cached;
      return this.#complete(classified, cached.operation, moment(), cached);
    }
    this.#stats.misses += 1;
    // A message of several statements that changes search_path on its way looks its later names up under the new one.
    const changes = classified.statements > 1 && classified.effects.some(movesSearchPath);
    let operation = this.#resolve(classified, fresh, changes ? undefined : this.searchPath);
    if (operation !== undefined && classified.statements > 1 && this.#moves(classified, operation) > 0)
      operation = this.#resolve(classified, fresh, undefined);
    if (operation === undefined) return UNKNOWN_RELATION;
    const decision = this.#complete(classified, operation, moment(), undefined);
    if (!fresh && needsFresh(decision)) return UNKNOWN_RELATION;
    if (this.#decisions.size >= CACHED_DECISIONS) this.#decisions.clear();
    this.#decisions.set(classified, decision);
    return decision;
  }

  #complete(classified: Classified, operation: Operation, moment: Moment, before: Decision | undefined): Decision {
    let verdict: Verdict;
    if (classified.refusal !== undefined) {
      verdict = refuse({
        code: "SLUICE_DENIED",
        rule: undefined,
        policyVersion: this.policy.policyVersion,
        stable: true,
        message: classified.refusal,
        hint: "Sluice refuses this kind of statement whatever the policy says; see docs/LIMITS.md.",
      });
    } else verdict = this.policy.decide(operation, moment);
    const masked = this.policy.masks.length > 0 && verdict.kind === "allowed" ? this.#judgeMasks(classified, operation) : undefined;
    if (masked?.refusal !== undefined) {
      verdict = refuse({
        code: "SLUICE_MASK_IMPOSSIBLE",
        rule: masked.rule,
        policyVersion: this.policy.policyVersion,
        stable: verdict.stable,
        message: masked.refusal,
        hint: `Mask rule "${masked.rule}" applies to you on this target.`,
      });
    }
    const moves = before?.moves ?? this.#moves(classified, operation);
    const masking = {
      masksColumns: masked?.columns ?? false,
      masksContent: masked?.content ?? false,
      copies: masked?.copies ?? NO_COPIES,
      masks: this.masks,
    };
    // The record's definition is written once: the same answer as last time is the same record.
    const same = before !== undefined && before.verdict.kind === verdict.kind && before.verdict.rule === verdict.rule;
    if (same && (verdict.kind !== "allowed" || before.record.observed === verdict.observed?.effect)) {
      return { verdict, operation, ...masking, moves, record: before.record };
    }
    return {
      verdict,
      operation,
      ...masking,
      moves,
      record: {
        action: operation.accesses[0]?.action ?? "sql:other",
        resources: operation.tables.length > 0 ? operation.tables : operation.accesses.flatMap((access) => access.resources),
        effect: verdict.kind === "allowed" ? "allow" : verdict.kind === "held" ? "approve" : "deny",
        rule: verdict.rule,
        policyVersion: this.policy.policyVersion,
        observed: verdict.kind === "allowed" ? verdict.observed?.effect : undefined,
        storeSlot: -1,
      },
    };
  }

  /** Names to `schema.relation`; every candidate where more than one may be meant. undefined: not in the catalogue. */
  #resolve(classified: Classified, fresh: boolean, path: readonly string[] | undefined): Operation | undefined {
    const tables = new Set<string>();
    // An empty statement does nothing; drivers send one to see whether the session lives. It is judged like SHOW.
    const accesses: { action: string; resources: string[] }[] = classified.empty ? [{ action: "sql:show", resources: [] }] : [];
    for (const access of classified.accesses) {
      const resources = new Set<string>(access.others);
      for (const relation of access.relations) {
        const names = this.#candidates(relation, access.action === "sql:create", path);
        if (names.length === 0) {
          if (!fresh) return undefined;
          names.push(...this.#creationSchemas(relation, path).map((schema) => qualify(schema, relation.name)));
        }
        for (const name of names) {
          resources.add(name);
          tables.add(name);
        }
      }
      accesses.push({ action: access.action, resources: [...resources] });
    }
    return {
      protocol: "postgres",
      accesses,
      unfiltered: classified.unfiltered,
      statements: classified.statements,
      tables: [...tables],
      columns: classified.columns,
      functions: classified.functions,
    };
  }

  /** How each COPY TO STDOUT of a message is masked, or why one of them cannot be. */
  #planCopies(classified: Classified, masks: SessionMasks): readonly (CopyPlan | undefined)[] | string {
    const plans: (CopyPlan | undefined)[] = [];
    // What goes before it in the message may have changed search_path.
    const path = classified.statements > 1 ? undefined : this.searchPath;
    for (const copy of classified.copies) {
      const names = copy.relation === undefined ? [] : this.#candidates(copy.relation, false, path);
      const relation = names.length === 1 ? this.catalogue.relation(names[0]) : undefined;
      const plan = planCopy(
        copy,
        relation,
        names.some((name) => this.#masked.relations.has(name)),
        masks,
      );
      if (typeof plan === "string") return plan;
      plans.push(plan);
    }
    return plans;
  }

  #candidates(relation: RelationName, creates: boolean, path: readonly string[] | undefined): string[] {
    const names: string[] = [];
    if ((relation.schema === undefined || relation.schema === "pg_temp") && this.#temporary.has(relation.name))
      names.push(qualify("pg_temp", relation.name));
    if (relation.schema === "pg_temp" && names.length === 0) names.push(qualify("pg_temp", relation.name));
    if (relation.schema !== "pg_temp") {
      if (creates) return this.#creationSchemas(relation, path).map((schema) => qualify(schema, relation.name));
      names.push(...this.catalogue.resolve(relation.schema, relation.name, path));
    }
    return names;
  }

  /**
   * Where the server would look for, or put, a name that nothing has yet: the first schema of the path that exists. With
   * an unknown path it may be any.
   */
  #creationSchemas(relation: RelationName, path: readonly string[] | undefined): readonly string[] {
    if (relation.schema !== undefined) return [relation.schema];
    const schema = path?.find((candidate) => this.catalogue.hasSchema(candidate));
    if (schema !== undefined) return [schema];
    return path === undefined ? this.catalogue.schemas() : ["public"];
  }

  #moves(classified: Classified, operation: Operation): Moves {
    const does = (action: string) => operation.accesses.some((access) => access.action === action);
    if (does("sql:do")) return 2;
    const { plain, expressions, predicates } = classified.columnUse;
    // `c.f` may be f(c); a column is only known by that name if no such function is.
    const attributes = [...plain, ...expressions, ...predicates].filter((name) => this.catalogue.hasOtherFunction(name));
    if (!this.catalogue.mayMove([...classified.functions, ...attributes], operation.tables, changesSchema(classified))) return 0;
    return does("sql:call") ? 2 : 1;
  }

  #judgeMasks(classified: Classified, operation: Operation): MaskJudgement {
    const content = this.masks?.masker.scans ?? false;
    const plans = classified.copies.length === 0 || this.masks === undefined ? NO_COPIES : this.#planCopies(classified, this.masks);
    const copies = typeof plans === "string" ? NO_COPIES : plans;
    const no = { columns: false, content, rule: "", refusal: undefined, copies };
    if (content && typeof plans === "string") return { ...no, rule: this.masks?.contentRule ?? "", refusal: plans };
    if (this.#masked.relations.size === 0) return no;
    const past = this.#pastMasks(operation);
    if (past !== undefined) return { ...no, rule: this.#masked.anyRule, refusal: past };
    const touched = operation.tables.filter((table) => this.#masked.relations.has(table));
    const use = classified.columnUse;
    const attribute = this.#attributeCall(use, operation.tables);
    if (attribute !== undefined) {
      return {
        ...no,
        rule: this.#masked.anyRule,
        refusal: `${attribute} may be a function of a whole row here, whose result cannot be traced, and a column mask applies on this target`,
      };
    }
    const unknown = classified.functions.find((name) => !this.catalogue.isBuiltinFunction(name));
    if (touched.length === 0) {
      if (unknown === undefined) return this.#besideMasked(classified, operation, no);
      return {
        ...no,
        rule: this.#masked.anyRule,
        refusal: `function ${unknown} is not part of PostgreSQL; what it returns cannot be traced to its columns, and a column mask applies on this target`,
      };
    }
    const rule = this.#masked.ruleOf.get(touched[0]) ?? this.#masked.anyRule;
    const refused = (refusal: string) => ({ columns: true, content, rule, refusal, copies });
    const view = touched.find((table) => this.#masked.untraced.has(table));
    if (view !== undefined)
      return refused(
        `${view} works on masked columns otherwise than by giving them out as they are, and what comes through it cannot be traced`,
      );
    if (unknown !== undefined)
      return refused(`function ${unknown} is not part of PostgreSQL; what it returns from masked data cannot be traced`);
    if (typeof plans === "string") return refused(plans);
    const path = this.#pathOf(classified, operation);
    for (const origin of use.origins) {
      const found = this.#maskedColumn(origin, touched, path);
      if (found === undefined) continue;
      const { column, why } = found;
      if (column === "*" && origin.column === "*" && origin.relation === undefined)
        return refused("the columns of this statement cannot be traced to their tables, and one of them may be masked");
      if (column === "*")
        return refused("a whole row of a table with masked columns is used as a value, or compared, which cannot be traced");
      return refused(`masked column ${column} is used ${why}`);
    }
    return { columns: true, content, rule, refusal: undefined, copies };
  }

  /** A change through a view over other columns can still fail on a value of a masked one: then the error may quote it. */
  #besideMasked(classified: Classified, operation: Operation, no: MaskJudgement): MaskJudgement {
    if (!operation.tables.some((table) => this.#masked.besides.has(table))) return no;
    if (classified.copy !== "out") return { ...no, columns: true };
    if (operation.accesses.every(({ action }) => READS.has(action))) return no;
    return { ...no, rule: this.#masked.anyRule, refusal: "COPY TO is refused beside a change to a relation that has masked columns" };
  }

  /**
   * The masked column that this use is about, `*` for a whole row or any column, and why it is refused; undefined: none, or it may be so used.
   * @param touched relations of the statement with masked columns
   */
  #maskedColumn(origin: OriginUse, touched: readonly string[], path: readonly string[] | undefined): MaskedUse | undefined {
    const { relation, column, use, unless } = origin;
    const tables = relation === undefined ? touched : this.#candidates(relation, false, path).filter((table) => touched.includes(table));
    for (const table of tables) {
      const columns = this.#masked.predicates.get(table);
      if (columns === undefined || !(column === "*" || columns.has(column))) continue;
      if (unless?.of.some((each) => this.#hasColumn(each, unless.column, path))) continue;
      if (use === "expression" || column === "*") return { column, why: "inside an expression; select it as it is" };
      const level = columns.get(column);
      if (level === "allow") continue;
      if (level === "deny") return { column, why: "in a condition, which would tell its value (predicates: deny)" };
      const why = use === "equality" ? this.#notComparable(origin, path) : "in a condition other than a bare = (or IN, = ANY)";
      if (why !== undefined) return { column, why: `${why}; compare it by = with constants or parameters only (predicates: equality)` };
    }
    return undefined;
  }

  /** Why a comparison by = is refused although the column's masks say `predicates: equality`. */
  #notComparable({ partner }: OriginUse, path: readonly string[] | undefined): string | undefined {
    if (this.catalogue.hasOwnEquality)
      return "in a condition, and the target has operators named =, or implicit casts, of its own, by which = may mean something else";
    if (partner === undefined) return undefined;
    const tables = this.#candidates(partner.relation, false, path);
    const isMasked = (table: string): boolean => (this.#masked.predicates.get(table)?.get(partner.column) ?? "deny") !== "deny";
    if (tables.length > 0 && tables.every(isMasked)) return undefined;
    return `beside ${partner.column}, to which no such mask applies and which could list its values`;
  }

  /** Whatever relation the name means has this column. */
  #hasColumn(relation: RelationName, column: string, path: readonly string[] | undefined): boolean {
    const tables = this.#candidates(relation, false, path);
    return tables.length > 0 && (SYSTEM_NAMES.has(column) || tables.every((table) => this.catalogue.hasColumn(table, column)));
  }

  /** A message of several statements that changes search_path on its way looks its later names up under the new one. */
  #pathOf(classified: Classified, operation: Operation): readonly string[] | undefined {
    const changes = classified.statements > 1 && (classified.effects.some(movesSearchPath) || this.#moves(classified, operation) > 0);
    return changes ? undefined : this.searchPath;
  }

  /**
   * `c.f` is f(c) where c has no column f (PostgreSQL documentation, Using Composite Types in Queries). A name that some
   * user function has is taken for a column only if every table of the statement has such a column.
   */
  #attributeCall(use: ColumnUse, tables: readonly string[]): string | undefined {
    const isCall = (name: string) =>
      this.catalogue.hasOtherFunction(name) && !(tables.length > 0 && tables.every((table) => this.catalogue.hasColumn(table, name)));
    return use.plain.find(isCall) ?? use.expressions.find(isCall) ?? use.predicates.find(isCall);
  }

  /** Why a statement could read masked columns past their table, or take the table out of the mask's reach. */
  #pastMasks(operation: Operation): string | undefined {
    for (const { action, resources } of operation.accesses) {
      if (action === "sql:do") return "DO runs code that cannot be looked into, and a column mask applies on this target";
      for (const resource of resources) {
        if (action === "sql:create" && resource.startsWith("function:"))
          return "a function's body cannot be looked into, a trigger may run it, and a column mask applies on this target";
        if ((action === "sql:create" || action === "sql:alter") && FOREIGN.test(resource))
          return "what comes through a foreign server cannot be traced to its columns, and a column mask applies on this target";
        if (HOLDS_VALUES.has(resource) || resource.startsWith("pg_toast.")) {
          return `${resource} holds values of tables' columns, and a column mask applies on this target`;
        }
        if (action === "sql:alter" && (this.#masked.relations.has(resource) || this.#masked.schemas.has(resource))) {
          return `a column mask applies to ${resource}, which could get out of its reach by being altered`;
        }
      }
    }
    return undefined;
  }
}

interface MaskedUse {
  readonly column: string;
  readonly why: string;
}

interface MaskJudgement {
  readonly columns: boolean;
  readonly content: boolean;
  readonly rule: string;
  readonly refusal: string | undefined;
  readonly copies: Decision["copies"];
}

/** Actions of which the server's errors are not about rows that are written. */
const READS: ReadonlySet<string> = new Set(["sql:select", "sql:copy_out", "sql:transaction", "sql:show", "sql:cursor"]);

/** Statistics show values of the columns that they are about. */
const HOLDS_VALUES = new Set(
  ["pg_statistic", "pg_statistic_ext_data", "pg_stats", "pg_stats_ext", "pg_stats_ext_exprs"].map((name) => `pg_catalog.${name}`),
);

const SYSTEM_NAMES: ReadonlySet<string> = new Set(["ctid", "xmin", "xmax", "cmin", "cmax", "tableoid"]);

/** A foreign server may lead back to this one. */
const FOREIGN = /^(?:server|foreign_data_wrapper|subscription):/;

const NO_TEMPORARY: ReadonlySet<string> = new Set();

/** The decision contexts of one worker, shared between sessions that agree in everything a verdict depends on. */
export class DecisionContexts {
  readonly #contexts = new Map<string, DecisionContext>();
  readonly #stats: DecisionStats = { hits: 0, misses: 0 };

  stats(): Readonly<DecisionStats> {
    return this.#stats;
  }

  get(
    grant: Grant,
    policy: SessionPolicy,
    catalogue: Catalogue,
    searchPath: readonly string[] | undefined,
    temporary: ReadonlySet<string>,
    masker: Masker | undefined,
    identityKey: string,
  ): DecisionContext {
    if (temporary.size > 0) return new DecisionContext(policy, catalogue, searchPath, new Set(temporary), masker, this.#stats);
    const path = searchPath === undefined ? "?" : JSON.stringify(searchPath);
    const key = `${policy.policyVersion}\n${grant.target.name}\n${identityKey}\n${catalogue.serial}.${catalogue.generation}\n${path}`;
    let context = this.#contexts.get(key);
    if (context === undefined) {
      if (this.#contexts.size >= CACHED_CONTEXTS) this.#contexts.clear();
      context = new DecisionContext(policy, catalogue, searchPath, NO_TEMPORARY, masker, this.#stats);
      this.#contexts.set(key, context);
    }
    return context;
  }

  clear(): void {
    this.#contexts.clear();
  }
}

/** A key that is equal for two identities only if no policy expression can tell them apart. */
export function identityKey(grant: Grant): string {
  const { issuer, user, subject, groups, claims, chain } = grant.identity;
  return createHash("sha256")
    .update(JSON.stringify([issuer, user, subject, groups, claims, chain]))
    .digest("base64");
}
