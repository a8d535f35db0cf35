import { Random } from "../fuzz/random.ts";
import type { Schema } from "./model.ts";

/** Names that many tables have, masked here and not there. */
const NAMES = [
  "email",
  "name",
  "note",
  "code",
  "doc",
  "tags",
  "amount",
  "born",
  "seen",
  "token",
  "photo",
  "home",
  "status",
  "total",
] as const;
const TYPES: Readonly<Record<(typeof NAMES)[number], readonly string[]>> = {
  email: ["text", "varchar(80)", "label"],
  name: ["text", "varchar(80)"],
  note: ["text", "label", "jsonb"],
  code: ["int", "text", "bigint"],
  doc: ["jsonb"],
  tags: ["text[]"],
  amount: ["numeric", "bigint"],
  born: ["date"],
  seen: ["timestamptz", "timestamp", "date"],
  token: ["uuid", "text"],
  photo: ["bytea"],
  home: ["place"],
  status: ["text", "boolean", "int"],
  total: ["int", "numeric"],
};

const PRELUDE = `create type place as (street text, number int);
create domain label as text;
create schema sales;
`;

interface Draft {
  readonly key: string;
  readonly columns: string[];
  readonly masked: Set<string>;
  readonly isView: boolean;
}

/** Tables of many types, generated columns, a partitioned table, an heir, views over tables and over views. */
export function randomSchema(seed: number): Schema {
  const random = new Random(seed);
  let ddl = PRELUDE;
  const masked: string[] = [];
  const derived: string[] = [];
  const opaqueViews: string[] = [];
  const drafts: Draft[] = [];
  const tables = 4 + random.below(3);
  for (let index = 0; index < tables; index += 1) {
    const key = `${random.oneIn(4) ? "sales" : "public"}.t${index}`;
    const columns = ["id int primary key"];
    const draft: Draft = { key, columns: ["id"], masked: new Set(), isView: false };
    // One table in three has nothing to hide.
    const hides = index % 3 !== 2;
    for (const name of NAMES) {
      if (!random.oneIn(2)) continue;
      const type = random.pick(TYPES[name]);
      columns.push(`${name} ${type}`);
      draft.columns.push(name);
      if (hides && random.oneIn(2)) {
        draft.masked.add(name);
        masked.push(`${key}.${name}`);
        // What is computed from it is as secret as it is.
        if ((type === "text" || type === "varchar(80)") && random.oneIn(2)) {
          columns.push(`${name}_made text generated always as ('x' || ${name}) stored`);
          draft.columns.push(`${name}_made`);
          draft.masked.add(`${name}_made`);
          derived.push(`${key}.${name}_made`);
        }
      }
    }
    const partitioned = index === 1;
    ddl += `create table ${key} (${columns.join(", ")})${partitioned ? " partition by range (id)" : ""};\n`;
    if (partitioned) {
      ddl += `create table ${key}_low partition of ${key} for values from (0) to (4);\ncreate table ${key}_high partition of ${key} for values from (4) to (100);\n`;
      for (const part of ["low", "high"]) for (const name of draft.masked) derived.push(`${key}_${part}.${name}`);
    }
    drafts.push(draft);
  }
  const parent = drafts[0] as Draft;
  ddl += `create table public.heir (more text) inherits (${parent.key});\n`;
  for (const name of parent.masked) derived.push(`public.heir.${name}`);
  drafts.push({ key: "public.heir", columns: [...parent.columns, "more"], masked: parent.masked, isView: false });
  for (let index = 0; index < 6; index += 1) {
    const over = random.pick(drafts);
    const shows = over.columns.filter((name) => name === "id" || random.oneIn(2));
    const key = `public.v${index}`;
    const draft: Draft = { key, columns: [], masked: new Set(), isView: true };
    const items = shows.map((name) => {
      // Renamed to what is masked, or not masked, elsewhere.
      const as = name !== "id" && random.oneIn(3) ? `w_${name}` : name;
      draft.columns.push(as);
      if (over.masked.has(name)) {
        draft.masked.add(as);
        derived.push(`${key}.${as}`);
      }
      return `s.${name} as ${as}`;
    });
    const hidden = over.columns.find((name) => over.masked.has(name));
    let where = "";
    // A view that shows a masked column counts as masked altogether, for those over it too.
    let opaque = opaqueViews.includes(over.key) || (over.isView && over.masked.size > 0);
    if (hidden !== undefined && random.oneIn(4)) {
      const way = random.below(3);
      if (way === 0) items.push(`s.${hidden}::text || '!' as mixed`);
      else if (way === 1) items.push("to_jsonb(s) as mixed");
      else where = ` where s.${hidden}::text > 'm'`;
      if (way < 2) {
        draft.columns.push("mixed");
        draft.masked.add("mixed");
        derived.push(`${key}.mixed`);
      }
      opaque = true;
    }
    if (opaque) opaqueViews.push(key);
    const kind = random.oneIn(5) ? "materialized view" : "view";
    ddl += `create ${kind} ${key} as select ${items.join(", ")} from ${over.key} s${where};\n`;
    drafts.push(draft);
  }
  return { name: `random ${seed}`, ddl, masked, derived, opaqueViews };
}
