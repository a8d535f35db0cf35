import { existsSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { rootFolder } from "../helpers/processes.ts";
import { CASES } from "./cases.ts";
import { DRIVER_CASES, DRIVERS } from "./drivers.ts";
import { type Report, runAll } from "./suite.ts";

export const TABLE_FILE = join(rootFolder, "docs/ADVERSARIAL.md");

/** Cases by class, in the order of their files. */
export function countedClasses(): ReadonlyMap<string, number> {
  const counts = new Map<string, number>();
  for (const one of CASES) counts.set(one.class, (counts.get(one.class) ?? 0) + 1);
  return counts;
}

/** Rows of the table as they stand in the file: class, cases, held. */
export function writtenClasses(text: string): ReadonlyMap<string, readonly [cases: number, held: number]> {
  const rows = [...text.matchAll(/^\| ([^|]+?) +\| +(\d+) \| +(\d+) \|$/gm)];
  return new Map(rows.map((row) => [row[1] ?? "", [Number(row[2]), Number(row[3])]]));
}

/** docs/ADVERSARIAL.md for one run. A case is held if every run of it was. */
export function render(report: Report): string {
  const broken = new Set(
    report.outcomes.filter((outcome) => outcome.why !== undefined).map((outcome) => `${outcome.class}\n${outcome.name}`),
  );
  const held = new Map<string, number>();
  for (const one of CASES) {
    const name = one.kind === "sql" ? one.steps.join(" / ") : one.name;
    if (!broken.has(`${one.class}\n${name}`)) held.set(one.class, (held.get(one.class) ?? 0) + 1);
  }
  const rows: (readonly [string, string, string])[] = [...countedClasses()].map(([name, cases]) => [
    name,
    String(cases),
    String(held.get(name) ?? 0),
  ]);
  rows.push(["all", String(CASES.length), String([...held.values()].reduce((sum, count) => sum + count, 0))]);
  const names = Object.keys(DRIVERS);
  return `# Attacks that are tried at every test run

\`test/adversarial\` holds statements and messages with which somebody might get past the guard or the masks of the PostgreSQL path, by class. Every
case runs on PostgreSQL 15 and 18, as a simple query and, where it is one statement, by the extended protocol. ${DRIVER_CASES.length} of them, some of each class that
a driver passes on as it is, also run through ${names.slice(0, -1).join(", ")} and ${names.at(-1)}.

A case is held when its answer is the one that is stated beside it (refused for what it is, refused by policy, refused because it cannot be masked, carried out under
its action, or the server's own error), when no canary shows in any byte that the client got, and when the session goes on. Canaries are random values in masked columns, in
tables that are denied, in a schema nobody may read and, for detectors, card numbers, account numbers and addresses; they are looked for as they are, backwards, in
hex and in base64.

The servers log every statement. What was refused may not be in their logs; every statement in the logs must be on record as allowed; neither the gateway's log nor its
data folder may hold a canary. What is known not to hold stands in [LIMITS.md](LIMITS.md).

Written by \`node test/adversarial/table.ts --write\`; the counts are checked at every test run.

${table(["class", "cases", "held"], rows)}
`;
}

function table(head: readonly [string, string, string], rows: readonly (readonly [string, string, string])[]): string {
  const width = (column: 0 | 1 | 2) => Math.max(...[head, ...rows].map((row) => row[column].length));
  const widths = [width(0), width(1), width(2)] as const;
  const line = (row: readonly [string, string, string]) =>
    `| ${row[0].padEnd(widths[0])} | ${row[1].padStart(widths[1])} | ${row[2].padStart(widths[2])} |`;
  return [
    line(head),
    `| ${"-".repeat(widths[0])} | ${"-".repeat(widths[1] - 1)}: | ${"-".repeat(widths[2] - 1)}: |`,
    ...rows.map(line),
  ].join("\n");
}

if (import.meta.main) {
  const report = await runAll();
  const text = render(report);
  for (const outcome of [...report.outcomes, ...report.drivers]) {
    if (outcome.why !== undefined) console.error(`${outcome.class}: ${outcome.name} (${outcome.how}): ${outcome.why}`);
  }
  if (process.argv.includes("--write")) writeFileSync(TABLE_FILE, text);
  else console.log(text);
}

export const writtenTable = (): string => (existsSync(TABLE_FILE) ? readFileSync(TABLE_FILE, "utf8") : "");
