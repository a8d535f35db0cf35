import type { Relation } from "./catalogue.ts";
import type { CopyFormat, CopyOut } from "./sql/types.ts";
import { type ColumnAction, maskedAction, type SessionMasks, searchedBinary, searchedText } from "./values.ts";

/** How the rows of one COPY TO STDOUT are masked. */
export interface CopyPlan {
  readonly format: CopyFormat;
  /** One a column; undefined: which columns there are is not known, so every value is searched. */
  readonly actions: readonly (ColumnAction | undefined)[] | undefined;
  /** Each action belongs to its column. Where this is false they only say of which type a replacement should be. */
  readonly exact: boolean;
  /** The catalogue alone says which columns those are, or of which type: it has to be as new as the COPY. */
  readonly fresh: boolean;
  readonly masks: SessionMasks;
}

/** Any value of a column whose type is not known. */
export const SEARCHED: ColumnAction = { kind: "scan", nullOnHit: false, json: "likely" };

/**
 * @param relation what the COPY's table is; undefined: a query's rows, or it is not certain which relation is meant
 * @param masked column masks apply to the relation, or to one that may be meant
 * @returns the plan; undefined: no mask applies; a sentence: what stands in the way
 */
export function planCopy(
  copy: CopyOut,
  relation: Relation | undefined,
  masked: boolean,
  masks: SessionMasks,
): CopyPlan | string | undefined {
  const { scans } = masks.masker;
  if (!masked && !scans) return undefined;
  const { format } = copy;
  if (typeof format === "string") return `COPY TO can only be masked in a format that is known, and ${format}`;
  const attributes = relation === undefined ? undefined : attributesOf(copy, relation);
  const binary = format.kind === "binary";
  const byOid = masked && relation !== undefined ? masks.columns.get(relation.oid) : undefined;
  if (relation === undefined || attributes === undefined || attributes.length === 0) {
    if (masked) return "which columns this COPY sends is not certain, and a column mask applies to its table";
    if (binary) return "COPY in binary format can only be searched for sensitive data where it sends a table; ask for text or CSV";
    return { format, actions: undefined, exact: false, fresh: false, masks };
  }
  const actions: (ColumnAction | undefined)[] = [];
  for (const attribute of attributes) {
    const type = relation.types[attribute] ?? 0;
    const mask = byOid?.get(attribute);
    let action: ColumnAction | "impossible" | undefined;
    if (mask !== undefined) action = maskedAction(mask, type);
    else if (scans) action = binary ? searchedBinary(type) : (searchedText(type) ?? SEARCHED);
    if (action === "impossible")
      return `column ${relation.columns[attribute]} (type OID ${type}) cannot be searched for sensitive data in binary format; ask for text or CSV`;
    actions.push(action);
  }
  return { format, actions, exact: masked || binary, fresh: (masked && copy.columns === undefined) || (binary && scans), masks };
}

/** Numbers of the columns that are sent: those listed, or all but generated ones in their order. undefined: the catalogue does not know them. */
function attributesOf(copy: CopyOut, relation: Relation): number[] | undefined {
  if (copy.columns === undefined) {
    return relation.columns.flatMap((name, attribute) => (name === undefined || relation.generated.includes(attribute) ? [] : [attribute]));
  }
  const attributes = copy.columns.map((name) => relation.columns.indexOf(name));
  return attributes.includes(-1) ? undefined : attributes;
}
