import { bind, describe, execute, parse, query, sync } from "../../protocols/postgres/messages.ts";
import { errors, type Frame, type RawClient, type RawOptions, rawConnect, rows } from "../clients/raw.ts";
import { startWorld, type World } from "../clients/world.ts";
import type { Destination } from "../helpers/clients.ts";
import type { PostgresVersion } from "../helpers/postgres.ts";
import type { Case, Expectation, Group, SqlCase, WireCase, WireContext } from "./case.ts";
import { FORBIDDEN, foundCanary, POLICY, SETUP, TARGET_ROLE } from "./policy.ts";

/** One case, run one way. `why` says what did not hold. */
export interface Outcome {
  readonly class: string;
  readonly name: string;
  readonly how: string;
  readonly why: string | undefined;
  /** In every statement of the run. */
  readonly marker: string;
  readonly expect: Expectation | "wire";
}

/** What a step's marker looks like: the run's number, the step's, and whether the server may see it. */
let runs = 0;
const nextMarker = (): string => `adv${process.pid}x${(runs += 1)}y`;

export interface Suite {
  readonly world: World;
  destination(version: PostgresVersion, group: string): Promise<Destination>;
  /** Run one case every way that fits it. */
  run(one: Case, version: PostgresVersion, forbidden?: readonly string[]): Promise<readonly Outcome[]>;
}

export async function startSuite(): Promise<Suite> {
  const world = await startWorld({
    setup: SETUP,
    policy: POLICY,
    postgres: { logStatements: true, settings: { wal_level: "logical" } },
    targetChanges: TARGET_ROLE,
    config: { record: { results: "full" } },
  });
  const shared = new Map<string, RawClient>();
  const known = new Map<string, Promise<Destination>>();
  const destination = (version: PostgresVersion, group: string): Promise<Destination> => {
    const key = `${version} ${group}`;
    const found = known.get(key) ?? world.through(version, [group]);
    known.set(key, found);
    return found;
  };
  return {
    world,
    destination,
    run: async (one, version, forbidden = FORBIDDEN) => {
      const context: RunContext = { world, version, forbidden, shared, destination: (group: string) => destination(version, group) };
      if (one.kind === "wire") return [await runWire(one, context)];
      const outcomes = [await runSql(one, context, "simple query")];
      if (hasExtended(one)) outcomes.push(await runSql(one, context, "extended query"));
      return outcomes;
    },
  };
}

interface RunContext {
  readonly world: World;
  readonly version: PostgresVersion;
  readonly forbidden: readonly string[];
  /** Sessions by version and group. */
  readonly shared: Map<string, RawClient>;
  destination(group: string): Promise<Destination>;
}

async function open(context: RunContext, group: string, options: Partial<RawOptions> = {}): Promise<RawClient> {
  const client = await rawConnect({ ...(await optionsOf(context, group)), ...options });
  client.received = [];
  return client;
}

async function optionsOf(context: RunContext, group: string): Promise<RawOptions> {
  const to = await context.destination(group);
  return { port: to.port, user: "anyone", database: to.database, password: to.password };
}

/** The extended protocol takes one statement a message; what is refused whole may be several. */
const hasExtended = (one: SqlCase): boolean => one.steps.every((step) => !step.includes(";"));

/** Send and take everything up to ReadyForQuery; COPY FROM STDIN gets no rows. */
async function exchange(client: RawClient, text: string, how: string): Promise<Frame[]> {
  if (how === "simple query") client.send(query(text));
  else client.send(parse("", text), bind("", ""), describe("P", ""), execute(""), sync());
  const frames: Frame[] = [];
  for (;;) {
    const frame = await client.next(10_000);
    frames.push(frame);
    if (frame.type === "G") client.send(Buffer.from([0x63, 0, 0, 0, 4]), ...(how === "simple query" ? [] : [sync()]));
    if (frame.type === "Z") return frames;
  }
}

const GUARD_HINT = /^Sluice refuses this kind of statement whatever the policy says/;
const POLICY_HINT = /^No rule of the policy allows |^The rule \S+ of the policy denies /;
const MASK_HINT = /^Mask rule |^Ask for the result |^Commit the schema change /;

/** Why the answer is not what was expected; undefined: it is. */
export function judge(expect: Expectation, frames: readonly Frame[]): string | undefined {
  const [error] = errors(frames);
  const [word = "", detail] = expect.split(/ (.*)/);
  const got = error === undefined ? "was carried out" : `${error.C} ${error.M} (${error.D ?? ""} ${error.H ?? ""})`;
  switch (word) {
    case "clean":
      return undefined;
    case "runs":
      return error === undefined ? undefined : got;
    case "fails":
      return error?.C === detail ? undefined : got;
    case "guard":
      return error?.C === "42501" && GUARD_HINT.test(error["H"] ?? "") ? undefined : got;
    case "mask":
      return error?.C === "42501" && MASK_HINT.test(error["H"] ?? "") ? undefined : got;
    default: {
      const byRule = detail === undefined || error?.D?.includes(`rule "${detail}"`) === true;
      return error?.C === "42501" && POLICY_HINT.test(error["H"] ?? "") && byRule ? undefined : got;
    }
  }
}

/** What is refused, and what only reads, changes nothing about a session: such cases of one group share one, which has to go on. */
function leavesSession({ steps, expect }: SqlCase): boolean {
  const [text = ""] = steps;
  if (steps.length > 1) return false;
  return (
    /^(?:guard|policy|mask)/.test(expect) || (/^(?:select|table|with|explain|update) /.test(text) && !/set_config|pg_notify|;/.test(text))
  );
}

async function runSql(one: SqlCase, context: RunContext, how: string): Promise<Outcome> {
  const marker = nextMarker();
  const outcome = (why: string | undefined): Outcome => ({
    class: one.class,
    name: one.steps.join(" / "),
    how: `PostgreSQL ${context.version}, ${one.group}, ${how}`,
    why,
    marker,
    expect: one.expect,
  });
  const shares = leavesSession(one);
  const key = `${context.version} ${one.group}`;
  const client = (shares ? context.shared.get(key) : undefined) ?? (await open(context, one.group));
  const why = await attempt(one, client, marker, how).catch((error: unknown) => (error as Error).message);
  if (shares && why === undefined) context.shared.set(key, client);
  else {
    if (shares) context.shared.delete(key);
    client.destroy();
  }
  const found = foundCanary(Buffer.concat(client.received ?? []), context.forbidden);
  client.received = [];
  return outcome(found === undefined ? why : `LEAKED ${found}`);
}

async function attempt(one: SqlCase, client: RawClient, marker: string, how: string): Promise<string | undefined> {
  let frames: Frame[] = [];
  for (const [index, step] of one.steps.entries()) {
    const last = index === one.steps.length - 1;
    const mayFail = step.startsWith("?");
    frames = await exchange(client, `/*${marker}${last ? "last" : index}*/ ${mayFail ? step.slice(1) : step}`, how);
    const [error] = errors(frames);
    if (!last && !mayFail && error !== undefined) return `step ${index + 1}, ${step}: ${error.C} ${error.M}`;
  }
  const wrong = judge(one.expect, frames);
  if (wrong !== undefined) return wrong;
  await exchange(client, `/*${marker}end*/ rollback`, "simple query");
  const alive = rows(await exchange(client, `/*${marker}end*/ select 'alive'`, "simple query"));
  return alive[0]?.[0] === "alive" ? undefined : "the session does not go on";
}

async function runWire(one: WireCase, context: RunContext): Promise<Outcome> {
  const marker = nextMarker();
  const opened: RawClient[] = [];
  const wire: WireContext = {
    version: context.version,
    marker,
    open: async (group: Group, options) => {
      const client = await open(context, group, options);
      opened.push(client);
      return client;
    },
    destination: (group) => optionsOf(context, group),
    direct: (text) => context.world.server(context.version).query(text),
  };
  let why: string | undefined;
  try {
    await one.run(wire);
  } catch (error) {
    why = (error as Error).message;
  }
  for (const client of opened) {
    client.destroy();
    const found = foundCanary(Buffer.concat(client.received ?? []), context.forbidden);
    if (found !== undefined) why = `LEAKED ${found}`;
  }
  return { class: one.class, name: one.name, how: `PostgreSQL ${context.version}, messages`, why, marker, expect: "wire" };
}
