import { writeFileSync } from "node:fs";
import { join } from "node:path";
import pg from "pg";
import { type Destination, java, psql, python } from "../helpers/clients.ts";
import type { PostgresVersion } from "../helpers/postgres.ts";
import type { Case, SqlCase } from "./case.ts";
import { CASES } from "./cases.ts";
import { FORBIDDEN, foundCanary } from "./policy.ts";
import type { Outcome, Suite } from "./run.ts";

// A part of the cases through the clients that applications use: one text each, by what every driver passes on as it is.

/** Drivers read backslashes, question marks, braces, percent signs and semicolons their own way, and COPY needs code of its own. */
const passesAsItIs = (one: Case): one is SqlCase =>
  one.kind === "sql" &&
  one.steps.length === 1 &&
  !/[\\?{};%\n\t]|:[a-z'"]|^copy .*std(in|out)/i.test((one.steps[0] ?? "").replaceAll("::", "")) &&
  // What has no end takes in what a driver puts behind it.
  !/unterminated|\/\* \/\*/.test(one.steps[0] ?? "") &&
  /^(?:guard|policy|mask|runs|fails)/.test(one.expect) &&
  (one.steps[0] ?? "").length < 2_000;

const PER_CLASS = 1;

/** The first few of each class. */
export const DRIVER_CASES: readonly SqlCase[] = (() => {
  const taken = new Map<string, number>();
  return CASES.filter(passesAsItIs).filter((one) => {
    const key = `${one.class} ${one.expect}`;
    taken.set(key, (taken.get(key) ?? 0) + 1);
    return (taken.get(key) ?? 0) <= PER_CLASS;
  });
})();

interface Task {
  readonly group: string;
  readonly password: string;
  readonly text: string;
}

/** What a driver did with each task, SQLSTATE or 00000, and everything that it showed. */
interface Report {
  readonly states: ReadonlyMap<number, string>;
  readonly seen: Buffer;
}

type Driver = (to: Destination, tasks: readonly Task[], folder: string) => Promise<Report>;

const byLine = (output: string): ReadonlyMap<number, string> =>
  new Map([...output.matchAll(/^#(\d+) (\w{5})$/gm)].map((match) => [Number(match[1]), match[2] ?? ""]));

const throughPsql: Driver = async (to, tasks) => {
  let group = "";
  const script = tasks.map((task, index) => {
    const reconnect =
      task.group === group ? "" : `\\setenv PGPASSWORD ${task.password}\n\\connect -reuse-previous=off "dbname=${to.database}"\n`;
    group = task.group;
    return `${reconnect}${task.text};\n\\echo\n\\echo #${index} :SQLSTATE\n`;
  });
  const { stdout, stderr } = await psql(to, script.join(""));
  return { states: byLine(stdout), seen: Buffer.from(stdout + stderr) };
};

const throughNodePostgres: Driver = async (to, tasks) => {
  const states = new Map<number, string>();
  const seen: unknown[] = [];
  let client: pg.Client | undefined;
  let group = "";
  for (const [index, task] of tasks.entries()) {
    if (task.group !== group || client === undefined) {
      await client?.end();
      client = new pg.Client({ host: "127.0.0.1", port: to.port, user: "anyone", password: task.password, database: to.database });
      client.on("notice", (notice) => seen.push({ ...notice }));
      await client.connect();
      group = task.group;
    }
    // Prepared by name every second time.
    const config = index % 2 === 0 ? { text: task.text } : { text: task.text, name: `n${index}` };
    await client.query(config).then(
      (result) => {
        states.set(index, "00000");
        seen.push(result.rows);
      },
      (error: pg.DatabaseError) => {
        states.set(index, error.code ?? "?");
        seen.push({ ...error }, error.message);
      },
    );
  }
  await client?.end();
  return { states, seen: Buffer.from(JSON.stringify(seen)) };
};

const PYTHON = `
import psycopg2, sys
last, c = None, None
for index, line in enumerate(open(sys.argv[1], encoding="utf-8").read().split("\\n")[:-1]):
    password, text = line.split("\\t")
    if password != last:
        if c: c.close()
        c = psycopg2.connect("", password=password); c.set_session(autocommit=True); last = password
    k = c.cursor()
    try:
        k.execute(text)
        state = "00000"
        if k.description: print(k.fetchall())
    except psycopg2.Error as e:
        state = e.pgcode; print(str(e), {f: getattr(e.diag, f) for f in dir(e.diag) if not f.startswith("_")})
    print(c.notices); c.notices.clear()
    print("#%d %s" % (index, state))
`;

const JAVA = `
import java.nio.file.*; import java.sql.*; import java.util.*;
public class Adversary {
  public static void main(String[] a) throws Exception {
    String last = null; Connection c = null; int index = 0;
    for (String line : Files.readAllLines(Paths.get(a[3]))) {
      String[] parts = line.split("\\t", 2);
      if (!parts[0].equals(last)) { if (c != null) c.close(); c = DriverManager.getConnection(a[0], a[1], parts[0]); last = parts[0]; }
      String state = "00000";
      // Twice, as applications do.
      for (int round = 0; round < 2 && state.equals("00000"); round++) {
        try (PreparedStatement s = c.prepareStatement(parts[1])) {
          s.setEscapeProcessing(false);
          boolean rows = s.execute();
          if (rows) try (ResultSet r = s.getResultSet()) {
            int n = r.getMetaData().getColumnCount();
            while (r.next()) for (int i = 1; i <= n; i++) System.out.println(r.getMetaData().getColumnName(i) + "=" + r.getString(i));
          }
          for (SQLWarning w = s.getWarnings(); w != null; w = w.getNextWarning()) System.out.println(w.getMessage());
        } catch (SQLException e) { state = e.getSQLState(); System.out.println(e); }
      }
      System.out.println("#" + index++ + " " + state);
    }
    c.close();
  }
}
`;

let lists = 0;

/** A file of its own for each run: both servers' runs share the folder. */
const listed = (tasks: readonly Task[], folder: string, name: string): string => {
  const file = join(folder, `${name}-${(lists += 1)}.tasks`);
  writeFileSync(file, tasks.map((task) => `${task.password}\t${task.text}\n`).join(""));
  return file;
};

const throughPsycopg: Driver = async (to, tasks, folder) => {
  const { stdout, stderr } = await python(to, PYTHON, [listed(tasks, folder, "psycopg2")]);
  return { states: byLine(stdout), seen: Buffer.from(stdout + stderr) };
};

const throughJdbc: Driver = async (to, tasks, folder) => {
  const { stdout, stderr } = await java(to, "Adversary", JAVA, [listed(tasks, folder, "jdbc")]);
  return { states: byLine(stdout), seen: Buffer.from(stdout + stderr) };
};

export const DRIVERS: Readonly<Record<string, Driver>> = {
  psql: throughPsql,
  "node-postgres": throughNodePostgres,
  psycopg2: throughPsycopg,
  JDBC: throughJdbc,
};

let runs = 0;

/** Run the part through one driver. */
export async function runDriver(suite: Suite, name: string, version: PostgresVersion, folder: string): Promise<readonly Outcome[]> {
  const driver = DRIVERS[name];
  if (driver === undefined) throw new Error(`there is no driver ${name}`);
  const cases = [...DRIVER_CASES].sort((a, b) => a.group.localeCompare(b.group));
  const tasks: Task[] = [];
  const markers: string[] = [];
  for (const one of cases) {
    const marker = `adv${process.pid}d${(runs += 1)}y`;
    markers.push(marker);
    const { password } = await suite.destination(version, one.group);
    tasks.push({ group: one.group, password, text: `/*${marker}last*/ ${one.steps[0]}` });
  }
  const to = await suite.destination(version, cases[0]?.group ?? "all");
  const report = await driver(to, tasks, folder);
  const found = foundCanary(report.seen, FORBIDDEN);
  return cases.map((one, index) => {
    const state = report.states.get(index);
    const [word, detail] = one.expect.split(/ (.*)/);
    const expected = word === "runs" ? "00000" : word === "fails" ? detail : "42501";
    const why = found !== undefined ? `LEAKED ${found}` : state === expected ? undefined : `SQLSTATE ${state ?? "missing"}`;
    const how = `PostgreSQL ${version}, ${one.group}, ${name}`;
    return { class: one.class, name: one.steps[0] ?? "", how, why, marker: markers[index] ?? "", expect: one.expect };
  });
}
