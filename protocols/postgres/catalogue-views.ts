import type { SideConnection, TextRow } from "./query.ts";
import { type ViewLineage, viewLineage } from "./view-lineage.ts";

/** Longer trees are not read: their views count as untraceable. */
const READABLE_BYTES = 512 * 1024;
/** How many oids one statement names. */
const BATCH = 100;

/** The rule that makes a relation a view; xmin changes with every change of it. Oids below 16384 are PostgreSQL's own. */
const RULES = `
  select r.oid, r.ev_class, r.xmin::text from pg_rewrite r join pg_class c on c.oid = r.ev_class
   where r.ev_type = '1' and r.is_instead and c.relkind in ('v', 'm') and c.oid >= 16384 order by r.oid`;

const trees = (oids: readonly number[]): string => `
  select oid, case when octet_length(ev_action::text) <= ${READABLE_BYTES} then ev_action::text end from pg_rewrite where oid in (${oids.join(", ")})`;

type Rows = (sql: string, onRow: (row: TextRow) => void) => ReturnType<SideConnection["query"]>;

interface Rule {
  readonly view: number;
  readonly version: string;
  readonly lineage: ViewLineage | undefined;
}

/** Reads what one target's views do with columns. A tree names everything by oid, so it is read once, and again when it changes. */
export class ViewReader {
  #rules = new Map<number, Rule>();

  /** @param rows runs a statement whose rows tell whether anything has changed. @param fetch runs others. @returns by the view's oid */
  async read(rows: Rows, fetch: Rows): Promise<ReadonlyMap<number, ViewLineage>> {
    const now = new Map<number, Rule>();
    const unread: number[] = [];
    await rows(RULES, ([oidText, view, versionText]) => {
      const oid = Number(oidText);
      const version = versionText ?? "";
      const known = this.#rules.get(oid);
      if (known !== undefined && known.version === version) now.set(oid, known);
      else {
        now.set(oid, { view: Number(view), version, lineage: undefined });
        unread.push(oid);
      }
    });
    for (let from = 0; from < unread.length; from += BATCH) {
      await fetch(trees(unread.slice(from, from + BATCH)), ([oidText, tree]) => {
        const rule = now.get(Number(oidText));
        if (rule !== undefined && tree != null) now.set(Number(oidText), { ...rule, lineage: viewLineage(tree) });
      });
    }
    this.#rules = now;
    const lineages = new Map<number, ViewLineage>();
    for (const { view, lineage } of now.values()) if (lineage !== undefined) lineages.set(view, lineage);
    return lineages;
  }
}
