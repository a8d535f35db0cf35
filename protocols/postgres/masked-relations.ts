import type { MaskRule } from "../../core/policy/types.ts";
import { type Catalogue, type MaskedRelations as MaskSet, qualify, type Relation } from "./catalogue.ts";
import type { ColumnMask } from "./values.ts";

/** What conditions may do with a masked column: the strictest of what its masks say. */
export type Predicates = MaskRule["predicates"];

/** Which relations of one catalogue the masks of one session are about. */
export interface MaskedRelations {
  readonly columns: ReadonlyMap<number, ReadonlyMap<number, ColumnMask>>;
  /** Tables with masked columns and everything that reads them. */
  readonly relations: ReadonlySet<string>;
  /** Those of which it cannot be told what of it is masked. */
  readonly untraced: ReadonlySet<string>;
  readonly besides: ReadonlySet<string>;
  /** `schema:name` of each schema with masked columns. */
  readonly schemas: ReadonlySet<string>;
  /** Masked columns by relation and name. */
  readonly predicates: ReadonlyMap<string, ReadonlyMap<string, Predicates>>;
  readonly ruleOf: ReadonlyMap<string, string>;
  readonly anyRule: string;
}

/**
 * Types of which every value is equal to itself only, or to another way of writing it: bytea, name, int8, int2, int4, text, oid, cidr, float4, float8,
 * macaddr8, money, macaddr, inet, bpchar, varchar, date, time, timestamp, timestamptz, interval, timetz, bit, varbit, numeric, uuid, jsonb; bool, "char".
 * (= of boxes and circles compares areas.)
 */
const EQUATABLE: ReadonlySet<number> = new Set([
  16, 17, 18, 19, 20, 21, 23, 25, 26, 650, 700, 701, 774, 790, 829, 869, 1042, 1043, 1082, 1083, 1114, 1184, 1186, 1266, 1560, 1562, 1700,
  2950, 3802,
]);

/** What is computed tells of what it is computed from whatever the expression says. */
const isEquatable = (relation: Relation, attribute: number, computed: MaskSet["computed"]): boolean =>
  EQUATABLE.has(relation.types[attribute] ?? 0) && computed.get(relation.oid)?.has(attribute) !== true;

export function maskedRelations(masks: readonly MaskRule[], catalogue: Catalogue): MaskedRelations {
  const patterns: { pattern: string; rule: MaskRule }[] = masks.flatMap((rule) => rule.columns.map((pattern) => ({ pattern, rule })));
  const columns = new Map<number, Map<number, ColumnMask>>();
  const schemas = new Set<string>();
  const predicates = new Map<string, Map<string, Predicates>>();
  const ruleOf = new Map<string, string>();
  const anyRule = patterns[0]?.rule.name ?? "";
  const none: ReadonlySet<string> = new Set();
  if (patterns.length === 0) return { columns, relations: none, untraced: none, besides: none, schemas, predicates, ruleOf, anyRule };
  const found = catalogue.maskedRelations(patterns.map((entry) => entry.pattern));
  // One column may be masked by several rules, also as one's parent, child, or source: each of them counts.
  const under = (level: Predicates) => {
    const of = patterns.filter(({ rule }) => rule.predicates === level).map(({ pattern }) => pattern);
    return of.length === 0 ? undefined : catalogue.maskedRelations(of).columns;
  };
  const [denied, compared] = [under("deny"), under("equality")];
  for (const [oid, attributes] of found.columns) {
    const byAttribute = new Map<number, ColumnMask>();
    columns.set(oid, byAttribute);
    for (const [attribute, index] of attributes) {
      const rule = patterns[index].rule;
      byAttribute.set(attribute, { rule: rule.name, method: rule.with });
      const origin = catalogue.columnOrigin(oid, attribute);
      if (origin === undefined) continue;
      const table = qualify(origin.schema, origin.table);
      const relation = catalogue.relation(table);
      schemas.add(`schema:${origin.schema}`);
      if (!ruleOf.has(table)) ruleOf.set(table, rule.name);
      let level: Predicates = "allow";
      if (compared?.get(oid)?.has(attribute))
        level = relation !== undefined && isEquatable(relation, attribute, found.computed) ? "equality" : "deny";
      if (denied?.get(oid)?.has(attribute)) level = "deny";
      const known = predicates.get(table);
      if (known === undefined) predicates.set(table, new Map([[origin.column, level]]));
      else known.set(origin.column, level);
    }
  }
  return {
    columns,
    relations: found.relations,
    untraced: found.untraced,
    besides: found.besides,
    schemas,
    predicates,
    ruleOf,
    anyRule,
  };
}
