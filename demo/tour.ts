import { type CommandResult, rootFolder, run, waitFor } from "../test/helpers/processes.ts";
import type { PersonName } from "./issuer.ts";
import { demoName, type Stage } from "./stage.ts";

/** The command a reader can paste, from the root of the repository. */
export function psqlCommand(port: number, person: PersonName, sql?: string): string {
  const base = `PGPASSWORD=$(cat ${demoName}/tokens/${person}) psql "host=127.0.0.1 port=${port} dbname=orders user=${person}"`;
  return sql === undefined ? base : `${base} -c "${sql}"`;
}

interface Check {
  readonly what: string;
  readonly holds: boolean;
}

const config = `-c ${demoName}/sluice.yaml`;

/** Run every step and print it: the command, what it really answered, and whether that is what it should do. Gives the number of failures. */
export async function runTour(stage: Stage): Promise<number> {
  let failed = 0;
  let number = 0;
  const heading = (title: string) => console.log(`\n${++number}. ${title}`);
  const verdict = (checks: readonly Check[]) => {
    for (const { what, holds } of checks) {
      console.log(`   ${holds ? "✓" : "✗"} ${what}`);
      if (!holds) failed++;
    }
  };
  const step = async (title: string, command: string, checks: (result: CommandResult) => readonly Check[]) => {
    heading(title);
    const result = await shell(command);
    show(command, result);
    verdict(checks(result));
  };
  const { gatewayPort: port, postgres } = stage;

  await step(
    "An analyst reads; personal data stays behind",
    psqlCommand(port, "analyst", "select id, name, email, ssn, note from customers order by id limit 3"),
    (result) => [
      {
        what: "the rows arrive, with names",
        holds: result.code === 0 && result.stdout.includes("Hana Fischer") && result.stdout.includes("(3 rows)"),
      },
      {
        what: "no e-mail address, SSN or card number among them, not in the free text either",
        holds: result.code === 0 && !/@example\.com|\d{3}-\d\d-\d{4}|4242 4242/.test(result.stdout),
      },
    ],
  );

  await step(
    "An administrator changes a row",
    psqlCommand(port, "dba", "update orders set status = 'shipped' where id = 1 returning id, item, status"),
    (result) => [
      {
        what: "the change is done",
        holds: result.code === 0 && /1 \| \w+ +\| shipped/.test(result.stdout) && result.stdout.includes("UPDATE 1"),
      },
    ],
  );
  const after = await postgres.query<{ status: string }>("select status from orders where id = 1", [], "shop");
  verdict([{ what: `the database says so too, asked directly: ${after[0]?.status}`, holds: after[0]?.status === "shipped" }]);

  await step("The same administrator may not drop a table", psqlCommand(port, "dba", "drop table orders"), (result) => [
    {
      what: "refused by the rule no-drop, with its message",
      holds: result.code === 1 && result.stderr.includes("no-drop") && result.stderr.includes("Schema changes go through migrations."),
    },
  ]);
  const tables = await postgres.query("select from pg_tables where tablename = 'orders'", [], "shop");
  verdict([{ what: "the table is still there", holds: tables.length === 1 }]);

  heading("A lock cuts off a running statement");
  await lockStep(stage, verdict);

  const sessions = await sessionsOf("dba");
  heading("A recorded session is played back");
  const recorded = await firstReplay(sessions);
  show(recorded.command, recorded.result);
  verdict([
    {
      what: "the administrator's statement and its answer are on record",
      holds: /update orders set status/i.test(recorded.result.stdout) && recorded.result.stdout.includes("shipped"),
    },
  ]);

  heading("The evidence");
  const tail = `./sluice audit tail ${config}`;
  const printed = await shell(tail);
  show(tail, { ...printed, stdout: lastLines(printed.stdout, 12) });
  const events = await audit();
  const some = (holds: (event: AuditLine) => boolean) => events.some(holds);
  verdict([
    {
      what: "the read is there, with what was masked in it",
      holds: some((event) => event.identity?.user === "demo:analyst" && event.masked !== undefined && event.outcome === "done"),
    },
    {
      what: "the change is there, under the rule that allowed it",
      holds: some((event) => event.decision?.rule === "dba-work" && event.statement?.startsWith("update orders") === true),
    },
    {
      what: "the refusal is there, under the rule that refused it",
      holds: some((event) => event.outcome === "denied" && event.decision?.rule === "no-drop"),
    },
    { what: "the lock is there", holds: some((event) => event.type === "lock") },
    {
      what: "the statement that was cut off is there as killed",
      holds: some((event) => event.outcome === "killed" && (event.statement ?? "").includes("pg_sleep")),
    },
  ]);

  console.log(
    failed === 0
      ? "\nThe tour is complete: every step did what it says."
      : `\n${failed} check(s) failed; ${demoName}/gateway.log may say why.`,
  );
  return failed;
}

/** Start a long statement, lock its user, and watch it end on both sides. */
async function lockStep({ gatewayPort, postgres }: Stage, verdict: (checks: readonly Check[]) => void): Promise<void> {
  const sleeping = psqlCommand(gatewayPort, "analyst", "select pg_sleep(60)");
  const running = "select pid from pg_stat_activity where usename = 'svc_orders' and state = 'active' and query like '%pg_sleep(60)%'";
  const begun = shell(sleeping);
  let pid: number;
  try {
    pid = await waitFor("the statement runs at the target", async () => (await postgres.query<{ pid: number }>(running))[0]?.pid, 10_000);
  } catch {
    show(sleeping, await begun);
    verdict([{ what: "the statement runs at the target", holds: false }]);
    return;
  }
  console.log(`   $ ${sleeping} &`);
  // One connection that answers as soon as the backend has gone: asking anew each time would be slower than what it measures.
  const gone = `do $$ begin for n in 1 .. 10000 loop
    perform pg_stat_clear_snapshot();
    exit when not exists (select from pg_stat_activity where pid = ${pid});
    perform pg_sleep(0.002);
    end loop; end $$`;
  const lock = `./sluice lock add user:analyst --reason "laptop stolen" ${config}`;
  let started = 0;
  const since = () => performance.now() - started;
  const targetGone = postgres.execute(gone).then(since);
  const clientGone = begun.then((result) => ({ result, millis: since() }));
  started = performance.now();
  const locked = await shell(lock);
  const commandMillis = since();
  show(lock, locked);
  const client = await Promise.race([clientGone, new Promise<undefined>((resolve) => setTimeout(resolve, 15_000, undefined))]);
  const targetMillis = await targetGone;
  if (client !== undefined) show("# the analyst's psql", client.result);
  verdict([
    {
      what: `the client is cut off ${millis(client?.millis)} after the command was started (the command itself, Node.js included, took ${millis(commandMillis)})`,
      holds: client !== undefined && client.result.code !== 0 && client.millis < 5_000,
    },
    { what: `the statement is gone from the target's pg_stat_activity after ${millis(targetMillis)}`, holds: targetMillis < 5_000 },
  ]);

  const again = psqlCommand(gatewayPort, "analyst", "select 1");
  const refused = await shell(again);
  show(again, refused);
  const id = /^[\w-]+/.exec(locked.stdout)?.[0] ?? "";
  const unlock = `./sluice lock remove ${id} ${config}`;
  const removed = await shell(unlock);
  show(unlock, removed);
  const welcome = await shell(again);
  verdict([
    { what: "while the lock holds, the analyst does not get in", holds: refused.code !== 0 && /lock/i.test(refused.stderr) },
    { what: "after it is lifted, the analyst does", holds: removed.code === 0 && welcome.code === 0 },
  ]);
}

interface AuditLine {
  readonly type: string;
  readonly identity?: { readonly user: string };
  readonly statement?: string;
  readonly decision?: { readonly effect: string; readonly rule?: string };
  readonly outcome?: string;
  readonly masked?: Readonly<Record<string, number>>;
}

async function audit(): Promise<readonly AuditLine[]> {
  const { stdout } = await shell(`./sluice audit tail --format json ${config}`);
  return stdout
    .split("\n")
    .filter((line) => line !== "")
    .map((line) => JSON.parse(line) as AuditLine);
}

async function sessionsOf(user: string): Promise<readonly string[]> {
  const { stdout } = await shell(`./sluice sessions list --user ${user} -o json ${config}`);
  return (JSON.parse(stdout || "[]") as readonly { id: string }[]).map((session) => session.id);
}

/** The administrator had a session for the change and one for the drop; the one with the change is played back. */
async function firstReplay(sessions: readonly string[]): Promise<{ command: string; result: CommandResult }> {
  let last = {
    command: "./sluice sessions replay",
    result: { stdout: "", stderr: "there is no recorded session of the administrator", code: 1 },
  };
  for (const id of sessions) {
    const command = `./sluice sessions replay ${id} ${config}`;
    last = { command, result: await shell(command) };
    if (/update orders/i.test(last.result.stdout)) break;
  }
  return last;
}

/** Exactly the command that is shown, in the repository's root; the user's own libpq settings stay out of it. */
function shell(command: string): Promise<CommandResult> {
  const env = Object.fromEntries(
    Object.keys(process.env)
      .filter((name) => name.startsWith("PG"))
      .map((name) => [name, undefined]),
  );
  return run("bash", ["-c", command], { cwd: rootFolder, env: { ...env, PSQLRC: "/dev/null", LC_ALL: "C.UTF-8" }, timeoutMillis: 90_000 });
}

function show(command: string, result: CommandResult): void {
  console.log(`   $ ${command}`);
  const output = (result.stdout + result.stderr).trimEnd();
  for (const line of output === "" ? [] : output.split("\n")) console.log(`     ${line.length > 150 ? `${line.slice(0, 149)}…` : line}`);
}

const lastLines = (text: string, count: number): string => text.trimEnd().split("\n").slice(-count).join("\n");
const millis = (value: number | undefined): string => (value === undefined ? "never" : `${Math.round(value)} ms`);
