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
  for (let index = 0; index < 12; index += 1) {
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
    // What works on masked columns counts as masked altogether, and so does what reads it.
    let opaque = opaqueViews.includes(over.key);
    if (hidden !== undefined && random.oneIn(4)) {
      const way = random.below(3);
      if (way === 0) items.push(`s.${hidden}::text || '!' as mixed${index}`);
      else if (way === 1) items.push(`to_jsonb(s) as mixed${index}`);
      else where = ` where s.${hidden}::text > 'm'`;
      if (way < 2) {
        draft.columns.push(`mixed${index}`);
        draft.masked.add(`mixed${index}`);
        derived.push(`${key}.mixed${index}`);
      }
      opaque = true;
    }
    const list = items.join(", ");
    const showsMasked = draft.masked.size > 0;
    const inner = [...new Set([...shows, ...(hidden === undefined ? [] : [hidden])])];
    // A masked column inside that no output shows is one too many.
    const readsMore = hidden !== undefined && !shows.includes(hidden);
    const other = random.pick(drafts);
    const ways: (() => string)[] = [
      () => `select ${list} from ${over.key} s${where}`,
      () => `select ${list} from (select ${shows.join(", ")} from ${over.key}) s`,
      () => `with w as (select * from ${over.key}), s as (select ${inner.join(", ")} from w) select ${list} from s${where}`,
      () => `select ${list} from ${other.key} o, lateral (select ${inner.join(", ")} from ${over.key} i where i.id = o.id) s${where}`,
      () => `select ${list}, o.id as other_id${index} from ${over.key} s left join ${other.key} o on o.id = s.id${where}`,
      () =>
        `select ${list}, (select count(*) from ${other.key} o where o.id > s.id) as counted${index} from ${other.key} o join ${over.key} s using (id)${where}`,
      () => `select j.* from (select ${list} from ${over.key} s${where}) j order by j.id`,
      () => `select ${list} from ${over.key} s${where} order by ${random.pick(shows.filter((name) => !over.masked.has(name)))}, 1`,
      () => `select ${list} from ${over.key} s${where} order by ${shows.length}`,
      () => `select distinct ${list} from ${over.key} s${where}`,
      () => `select ${list} from ${over.key} s${where} union all select ${list} from ${over.key} s`,
    ];
    const way = random.below(ways.length);
    const joins = way === 3 || way === 4 || way === 5;
    // The inner list of the second holds nothing for a condition or an expression to work with.
    const text = way === 1 && opaque && hidden !== undefined ? ways[0] : ways[way];
    if (way === 4) draft.columns.push(`other_id${index}`);
    if (way === 5) draft.columns.push(`counted${index}`);
    if (joins && opaqueViews.includes(other.key)) opaque = true;
    // All of a relation is read where one says so, and its masked columns are not shown.
    if (way === 2 && [...over.masked].some((name) => !shows.includes(name))) opaque = true;
    if (way === 3 && readsMore) opaque = true;
    if (way === 8 && over.masked.has(shows.at(-1) as string)) opaque = true;
    if (way > 8 && showsMasked) opaque = true;
    if (opaque) opaqueViews.push(key);
    const kind = random.oneIn(5) ? "materialized view" : "view";
    ddl += `create ${kind} ${key} as ${(text as () => string)()};\n`;
    drafts.push(draft);
  }
  return { name: `random ${seed}`, ddl, masked, derived, opaqueViews };
}
