import { SluiceError } from "../../core/errors.ts";
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
/** Words in a body after which it may do the same, each in any letter case. UPDATE … SET is none of them. */
const SUSPECT = `${RUNNERS}|search_path|pg_settings|\\m(schema|role|authorization|execute|reset|create|load)\\M|u&`;
const READABLE_BYTES = 1_000_000;
/** A name that a body's words can be compared with. */
const PLAIN = "^[[:alpha:]_][[:alnum:]_$]*$";

const OWN = "n.nspname not in ('pg_catalog', 'information_schema')";
/** Oids below are PostgreSQL's own. */
const FIRST_OWN_OID = 16_384;
const RUNNER_OIDS = `select p.oid from pg_proc p join pg_namespace n on n.oid = p.pronamespace where not ${OWN} and p.proname ~ '^(${RUNNERS})$'`;

const FUNCTIONS = `
  with source as (
    select p.oid, p.proname, p.prokind, l.lanname,
           concat_ws(' ', p.prosrc, pg_get_function_sqlbody(p.oid), pg_get_function_arguments(p.oid)) as body
      from pg_proc p join pg_namespace n on n.oid = p.pronamespace join pg_language l on l.oid = p.prolang
     where ${OWN}
  ), named as (
    select lower(proname) as name from source union
    select lower(c.relname) from pg_class c join pg_namespace n on n.oid = c.relnamespace where ${OWN} and c.relkind in ('r', 'v', 'm', 'f', 'p')
  )
  select s.oid, s.proname, lower(s.proname),
         s.lanname not in ('internal', 'c', 'sql', 'plpgsql') or octet_length(s.body) > ${READABLE_BYTES}
           or s.body ~* '${SUSPECT}' or s.proname ~ '^(${RUNNERS})$'
           or exists (select from pg_aggregate a where a.aggfnoid = s.oid and array[a.aggtransfn::oid, a.aggfinalfn::oid, a.aggcombinefn::oid,
                        a.aggmtransfn::oid, a.aggminvtransfn::oid, a.aggmfinalfn::oid] && array(${RUNNER_OIDS})),
         s.proname ~ '${PLAIN}',
         case when s.lanname in ('sql', 'plpgsql') and octet_length(s.body) <= ${READABLE_BYTES} then
           (select json_agg(distinct word) from (select lower(m[1]) as word from regexp_matches(s.body, '([[:alpha:]_][[:alnum:]_$]*)', 'g') m) w
             where word in (select name from named)) end
    from source s order by s.oid`;

/** Stored expressions that call such a function of PostgreSQL's themselves, by relation; 0: an operator or a domain. */
const STORED = `
  with pattern as (select ':(funcid|opfuncid) (' || string_agg(oid::text, '|' order by oid) || ') ' as calls from (${RUNNER_OIDS}) r)
  select ev_class from pg_rewrite, pattern where ev_class >= ${FIRST_OWN_OID} and concat(ev_action::text, ev_qual::text) ~ calls
  union select adrelid from pg_attrdef, pattern where adbin::text ~ calls
  union select conrelid from pg_constraint, pattern where conbin::text ~ calls
  union select polrelid from pg_policy, pattern where concat(polqual::text, ' ', polwithcheck::text) ~ calls
  union select tgrelid from pg_trigger, pattern where tgqual::text ~ calls
  union select 0 from pg_type, pattern where typdefaultbin::text ~ calls
  union select 0 from pg_operator where oid >= ${FIRST_OWN_OID} and oprcode in (${RUNNER_OIDS})
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
  /** As words of bodies are compared. */
  readonly key: string;
  readonly comparable: boolean;
  readonly mentions: readonly string[];
}

/**
 * @param rows runs a statement
 * @param relationNames of the relations outside the system's schemas
 */
export async function loadMovingCode(
  rows: (sql: string, onRow: (row: TextRow) => void) => ReturnType<SideConnection["query"]>,
  relationNames: ReadonlyMap<number, string>,
): Promise<MovingCode> {
  const code = new Map<number, Code>();
  const found: string[] = [];
  await rows(FUNCTIONS, ([oid, name, key, suspect, plain, mentions]) => {
    code.set(Number(oid), {
      name: name ?? "",
      key: key ?? "",
      comparable: plain === "t",
      mentions: mentions == null ? [] : wordsOf(mentions),
    });
    if (suspect !== "f") found.push(`f${oid}`);
  });
  await rows(STORED, ([relation]) => found.push(relation === "0" ? "x0" : `r${relation}`));
  if (found.length === 0) return NO_MOVING_CODE;
  const leads = new Map<string, string[]>();
  const edge = (from: string, to: string): void => {
    const known = leads.get(from);
    if (known === undefined) leads.set(from, [to]);
    else known.push(to);
  };
  await rows(EDGES, ([fromKind, from, toKind, to]) => edge(`${fromKind}${from}`, `${toKind}${to}`));
  for (const [oid, { mentions }] of code) for (const word of mentions) edge(`w${word}`, `f${oid}`);
  return spread(found, leads, code, relationNames);
}

function wordsOf(json: string): string[] {
  let words: unknown;
  try {
    words = JSON.parse(json);
  } catch {}
  if (!Array.isArray(words) || words.some((word) => typeof word !== "string"))
    throw new SluiceError("SLUICE_TARGET_REFUSED", "the target described its functions in a way that PostgreSQL does not");
  return words as string[];
}

/** Everything that leads to what was found. */
export function spread(
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
    const name = isFunction ? code.get(oid)?.key : relationNames.get(oid)?.toLowerCase();
    if (name === undefined) continue;
    // A name that cannot be told from the words of a body may stand in any.
    const comparable = isFunction ? code.get(oid)?.comparable === true : /^[a-z_][a-z0-9_$]*$/.test(name);
    if (comparable) reached.add(`w${name}`);
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
