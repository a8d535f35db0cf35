import type { SideConnection, TextRow } from "./query.ts";

/**
 * Which of a target's own code may change search_path or the role from within: functions, and the relations whose
 * triggers, rules, policies, defaults, checks and views run such code. Read as text, and in doubt counted: a body that says
 * EXECUTE, set_config, SET SCHEMA or the like, or is written in a language that is not read here, may; one that names something
 * that may, may too. Left out is code in C, which only a superuser installs.
 */
export interface MovingCode {
  /** Operators, casts or types lead to such code: any statement may run it. */
  readonly everywhere: boolean;
  /** Event triggers do. */
  readonly onSchemaChange: boolean;
  /** Last names. */
  readonly functions: ReadonlySet<string>;
  readonly relations: ReadonlySet<number>;
}

export const NO_MOVING_CODE: MovingCode = { everywhere: false, onSchemaChange: false, functions: new Set(), relations: new Set() };

/** Functions of PostgreSQL and its contrib modules that set a setting, or run SQL that they are given as text. */
const RUNNERS = "set_config|(query|cursor|table|schema|database)_to_xml[a-z_]*|ts_stat|ts_rewrite|crosstab[0-9a-z_]*|connectby|xpath_table";
const RUNNER = new RegExp(`^(${RUNNERS})$`);
/** What a body in lower case holds if it may do the same. UPDATE … SET is none of it. */
const SUSPECT = new RegExp(`${RUNNERS}|search_path|pg_settings|\\b(schema|role|authorization|execute|reset|create|load)\\b|u&`);
/** Names as the server cuts them out of a body: every character beyond ASCII counts as a letter. */
const WORD = /[a-z_\u0080-\uffff][a-z0-9_$\u0080-\uffff]*/g;
/** A name that bodies' words can be compared with: no others are written without quotes, or their lower case is the locale's. */
const COMPARABLE = /^[a-z_][a-z0-9_$]*$/;
/** Longer bodies are not read, and count as suspect. */
const READABLE_BYTES = 1_000_000;

const OWN = "n.nspname not in ('pg_catalog', 'information_schema')";
/** Oids below are PostgreSQL's own. */
const FIRST_OWN_OID = 16_384;
const RUNNER_OIDS = `select p.oid from pg_proc p join pg_namespace n on n.oid = p.pronamespace where not ${OWN} and p.proname ~ '^(${RUNNERS})$'`;
const calls = (runners: readonly number[]): string => `':(funcid|opfuncid) (${runners.join("|")}) '`;

/** xmin changes with every change of a row. */
const functions = (runners: readonly number[]): string => `
  select p.oid, p.proname, p.xmin::text, l.lanname, exists (
           select from pg_aggregate a where a.aggfnoid = p.oid and array[a.aggtransfn::oid, a.aggfinalfn::oid, a.aggcombinefn::oid,
             a.aggmtransfn::oid, a.aggminvtransfn::oid, a.aggmfinalfn::oid] && array[${runners.join(", ")}]::oid[])
    from pg_proc p join pg_namespace n on n.oid = p.pronamespace join pg_language l on l.oid = p.prolang
   where ${OWN} order by p.oid`;

const bodies = (oids: readonly number[]): string => `
  select oid, case when octet_length(body) <= ${READABLE_BYTES} then body end
    from (select p.oid, concat_ws(' ', p.prosrc, pg_get_function_sqlbody(p.oid), pg_get_function_arguments(p.oid)) as body
            from pg_proc p where p.oid in (${oids.join(", ")})) b`;

const RULES = `select oid, ev_class, xmin::text from pg_rewrite where ev_class >= ${FIRST_OWN_OID} order by oid`;

const rulesThatCall = (oids: readonly number[], runners: readonly number[]): string =>
  `select oid from pg_rewrite where oid in (${oids.join(", ")}) and concat(ev_action::text, ' ', ev_qual::text) ~ ${calls(runners)}`;

/** Other stored expressions that call such a function of PostgreSQL's themselves, by relation; 0: an operator or a domain. */
const stored = (runners: readonly number[]): string => `
  select adrelid from pg_attrdef where adbin::text ~ ${calls(runners)}
  union select conrelid from pg_constraint where conbin::text ~ ${calls(runners)}
  union select polrelid from pg_policy where concat(polqual::text, ' ', polwithcheck::text) ~ ${calls(runners)}
  union select tgrelid from pg_trigger where tgqual::text ~ ${calls(runners)}
  union select 0 from pg_type where typdefaultbin::text ~ ${calls(runners)}
  union select 0 from pg_operator where oid >= ${FIRST_OWN_OID} and oprcode in (${runners.join(", ")})
  union select r.ev_class from pg_rewrite r join pg_depend d on d.classid = 'pg_rewrite'::regclass and d.objid = r.oid
   where r.ev_class >= ${FIRST_OWN_OID} and d.refclassid = 'pg_class'::regclass and d.refobjid = 'pg_catalog.pg_settings'::regclass
  order by 1`;

/** What runs what, one step: f(unction), r(elation), e(vent trigger), x (anything). */
const EDGES = `
  with own as (select d.* from pg_depend d where d.refclassid = 'pg_proc'::regclass and d.refobjid >= ${FIRST_OWN_OID} and d.deptype in ('n', 'a', 'i'))
  select 'f', o.refobjid, 'r', t.tgrelid from own o join pg_trigger t on o.classid = 'pg_trigger'::regclass and t.oid = o.objid
  union select 'f', o.refobjid, 'r', w.ev_class from own o join pg_rewrite w on o.classid = 'pg_rewrite'::regclass and w.oid = o.objid
  union select 'f', o.refobjid, 'r', a.adrelid from own o join pg_attrdef a on o.classid = 'pg_attrdef'::regclass and a.oid = o.objid
  union select 'f', o.refobjid, case when c.conrelid = 0 then 'x' else 'r' end, c.conrelid
          from own o join pg_constraint c on o.classid = 'pg_constraint'::regclass and c.oid = o.objid
  union select 'f', o.refobjid, 'r', p.polrelid from own o join pg_policy p on o.classid = 'pg_policy'::regclass and p.oid = o.objid
  union select 'f', o.refobjid, 'r', coalesce(i.indrelid, o.objid)
          from own o left join pg_index i on i.indexrelid = o.objid where o.classid = 'pg_class'::regclass
  union select 'f', o.refobjid, 'f', o.objid from own o where o.classid = 'pg_proc'::regclass
  union select 'f', o.refobjid, 'e', 0 from own o where o.classid = 'pg_event_trigger'::regclass
  union select 'f', o.refobjid, 'x', 0 from own o
         where o.classid not in ('pg_trigger'::regclass, 'pg_rewrite'::regclass, 'pg_attrdef'::regclass, 'pg_constraint'::regclass,
           'pg_policy'::regclass, 'pg_class'::regclass, 'pg_proc'::regclass, 'pg_event_trigger'::regclass)
  union select 'r', d.refobjid, 'r', w.ev_class from pg_depend d join pg_rewrite w on w.oid = d.objid
         where d.classid = 'pg_rewrite'::regclass and d.refclassid = 'pg_class'::regclass and d.refobjid <> w.ev_class and w.ev_class >= ${FIRST_OWN_OID}
  union select 'r', d.refobjid, 'r', p.polrelid from pg_depend d join pg_policy p on p.oid = d.objid
         where d.classid = 'pg_policy'::regclass and d.refclassid = 'pg_class'::regclass and d.refobjid <> p.polrelid
  union select 'r', d.refobjid, 'f', d.objid from pg_depend d where d.classid = 'pg_proc'::regclass and d.refclassid = 'pg_class'::regclass
  union select 'r', conrelid, 'r', confrelid from pg_constraint where contype = 'f' and conrelid <> confrelid
  union select 'r', inhrelid, 'r', inhparent from pg_inherits
  union select 'r', inhparent, 'r', inhrelid from pg_inherits
  order by 1, 2, 3, 4`;

interface Code {
  readonly name: string;
  readonly version: string;
  readonly suspect: boolean;
  /** The body's distinct words in lower case, between blanks: far smaller than a set of them. */
  readonly words: string;
}

type Rows = (sql: string, onRow: (row: TextRow) => void) => ReturnType<SideConnection["query"]>;

/** PostgreSQL's own functions of those names: oids that a server does not change. */
async function runnersOf(fetch: Rows): Promise<readonly number[]> {
  const oids = [0];
  await fetch(RUNNER_OIDS, ([oid]) => oids.push(Number(oid)));
  return oids;
}

/** How many oids one statement names. */
const BATCH = 500;

/** Reads one target's code. Bodies are read once, and again when they change. */
export class CodeReader {
  #runners: readonly number[] | undefined;
  #functions = new Map<number, Code>();
  /** Rules by oid: version, and whether they call what sets settings. */
  #rules = new Map<number, readonly [version: string, calls: boolean]>();

  /**
   * @param rows runs a statement whose rows tell whether anything has changed. @param fetch runs others
   * @param relationNames of the relations outside the system's schemas
   */
  async read(rows: Rows, fetch: Rows, relationNames: ReadonlyMap<number, string>): Promise<MovingCode> {
    const found: string[] = [];
    const runners = (this.#runners ??= await runnersOf(fetch));
    await this.#readFunctions(rows, fetch, found, runners);
    await this.#readRules(rows, fetch, found, runners);
    await rows(stored(runners), ([relation]) => found.push(relation === "0" ? "x0" : `r${relation}`));
    if (found.length === 0) return NO_MOVING_CODE;
    const leads = new Map<string, string[]>();
    await rows(EDGES, ([fromKind, from, toKind, to]) => append(leads, `${fromKind}${from}`, `${toKind}${to}`));
    const names = new Set<string>();
    for (const { name } of this.#functions.values()) names.add(name.toLowerCase());
    for (const name of relationNames.values()) names.add(name.toLowerCase());
    for (const [oid, { words }] of this.#functions)
      for (const word of words.split(" ")) if (names.has(word)) append(leads, `w${word}`, `f${oid}`);
    return spread(found, leads, this.#functions, relationNames);
  }

  async #readFunctions(rows: Rows, fetch: Rows, found: string[], runners: readonly number[]): Promise<void> {
    const now = new Map<number, Code>();
    const unread: number[] = [];
    await rows(functions(runners), ([oidText, nameText, versionText, language, isRunner]) => {
      const oid = Number(oidText);
      const [name, version] = [nameText ?? "", versionText ?? ""];
      const known = this.#functions.get(oid);
      if (known !== undefined && known.version === version) now.set(oid, known);
      else {
        const read = language === "sql" || language === "plpgsql";
        const suspect = isRunner !== "f" || RUNNER.test(name) || !(read || language === "c" || language === "internal");
        now.set(oid, { name, version, suspect, words: "" });
        if (!suspect) unread.push(oid);
      }
    });
    for (let from = 0; from < unread.length; from += BATCH) {
      await fetch(bodies(unread.slice(from, from + BATCH)), ([oidText, body]) => {
        const oid = Number(oidText);
        const code = now.get(oid);
        if (code !== undefined) now.set(oid, { ...code, ...readBody(body) });
      });
    }
    this.#functions = now;
    for (const [oid, { suspect }] of now) if (suspect) found.push(`f${oid}`);
  }

  async #readRules(rows: Rows, fetch: Rows, found: string[], runners: readonly number[]): Promise<void> {
    const now = new Map<number, readonly [version: string, calls: boolean]>();
    const relations = new Map<number, string>();
    const unread: number[] = [];
    await rows(RULES, ([oidText, relation, version]) => {
      const oid = Number(oidText);
      relations.set(oid, relation ?? "");
      const known = this.#rules.get(oid);
      if (known !== undefined && known[0] === version) now.set(oid, known);
      else {
        now.set(oid, [version ?? "", false]);
        unread.push(oid);
      }
    });
    for (let from = 0; from < unread.length; from += BATCH) {
      await fetch(rulesThatCall(unread.slice(from, from + BATCH), runners), ([oidText]) => {
        const oid = Number(oidText);
        now.set(oid, [now.get(oid)?.[0] ?? "", true]);
      });
    }
    this.#rules = now;
    for (const [oid, [, calls]] of now) if (calls) found.push(`r${relations.get(oid)}`);
  }
}

/** @param body null: too long. C functions have the name of a symbol for one. */
function readBody(body: string | null): Pick<Code, "suspect" | "words"> {
  const text = body?.toLowerCase();
  if (text === undefined || SUSPECT.test(text)) return { suspect: true, words: "" };
  return { suspect: false, words: [...new Set(text.match(WORD))].join(" ") };
}

function append(map: Map<string, string[]>, key: string, value: string): void {
  const list = map.get(key);
  if (list === undefined) map.set(key, [value]);
  else list.push(value);
}

/** Everything that leads to what was found. */
function spread(
  found: readonly string[],
  leads: ReadonlyMap<string, readonly string[]>,
  code: ReadonlyMap<number, Code>,
  relationNames: ReadonlyMap<number, string>,
): MovingCode {
  const reached = new Set(found);
  // A set hands out what is added while it is walked.
  for (const each of reached) {
    const oid = Number(each.slice(1));
    for (const next of leads.get(each) ?? []) reached.add(next);
    const isFunction = each.startsWith("f");
    if (!isFunction && !each.startsWith("r")) continue;
    const name = (isFunction ? code.get(oid)?.name : relationNames.get(oid))?.toLowerCase();
    if (name === undefined) continue;
    // A name that cannot be told from the words of a body may stand in any.
    if (COMPARABLE.test(name)) reached.add(`w${name}`);
    else for (const other of code.keys()) reached.add(`f${other}`);
  }
  const oids = (kind: string): number[] => [...reached].filter((each) => each.startsWith(kind)).map((each) => Number(each.slice(1)));
  return {
    everywhere: reached.has("x0"),
    onSchemaChange: reached.has("e0"),
    functions: new Set(oids("f").map((oid) => code.get(oid)?.name ?? "")),
    relations: new Set(oids("r")),
  };
}
