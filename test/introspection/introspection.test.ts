import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { after, before, describe, test } from "node:test";
import { bind, close, describe as describeMessage, execute, parse, query, sync } from "../../protocols/postgres/messages.ts";
import { type RawClient } from "../clients/raw.ts";
import { rawAt, startWorld, VERSIONS, type World } from "../clients/world.ts";
import { type Destination, java, pgDump, psql, python } from "../helpers/clients.ts";
import type { CommandResult } from "../helpers/processes.ts";
import { rootFolder } from "../helpers/processes.ts";
import { type Answer, answerOf, differs } from "../lineage/answers.ts";
import type { Asked } from "./asked.ts";
import { METADATA } from "./jdbc.ts";
import { PRISMA_STARTUP } from "./prisma.ts";
import { ASKED } from "./queries.ts";
import { masked, POLICY, SETUP } from "./schema.ts";
import { INSPECTOR, MAPPER } from "./sqlalchemy.ts";

// Whoever may read public.* and has masks on a few columns works as without Sluice: what tools ask about the schema, and their reads
// beside the masked columns, are answered the same. What is refused all the same stands, with its reason, in docs/POLICY.md.

const PSQL =
  `\\d|\\d customers|\\d+ customers|\\d orders|\\d+ v_names|\\d+ v_mails|\\d m_names|\\d+ parts|\\d counter|\\d customers_pkey|\\dS+ pg_class|\\da|\\dA+|\\db+|\\dc|\\dC|\\dd
\\dD+|\\ddp|\\dE|\\des|\\deu|\\dew|\\det|\\df+|\\df add|\\dft|\\dF|\\dFp|\\dFd|\\dFt|\\dg+|\\di+|\\dl|\\dL+|\\dm+|\\dn+|\\do =|\\dO|\\dp|\\dP+|\\drds|\\dRp+|\\dRs|\\ds+|\\dt|\\dt+ *.*|\\dtvmsE+
\\dT+|\\du|\\du+|\\dv+|\\dx|\\dx+|\\dX|\\dy+|\\l|\\l+|\\sf add|\\sv v_names|\\sv v_mails|\\z|\\encoding|\\conninfo|select id, name from customers order by id;|table v_names;|explain (costs off) select name from customers where id = 3;`
    .split(/[|\n]/)
    .map((command) => command.trim());

/** Rows of the table in docs/POLICY.md: tools and what they ask. */
function statedRows(): Set<string> {
  const text = readFileSync(join(rootFolder, "docs/POLICY.md"), "utf8");
  const section = text.slice(text.indexOf("### What tools ask and do not get"));
  const rows = [...section.slice(0, section.indexOf("\n##", 5)).matchAll(/^\| ([^|]+?) \| ([^|]+?) \| [^|]+ \|$/gm)];
  const named = rows.flatMap(([, tools, what]) => (tools as string).split(", ").map((tool) => `${tool}: ${what?.replaceAll("`", "")}`));
  return new Set(named.filter((row) => !/^(tool: asks|-+:)/.test(row)));
}

const stated = statedRows();

let world: World;
before(async () => {
  // Vacuum changes the numbers of pages and rows that tools ask for.
  world = await startWorld({ setup: SETUP, policy: POLICY, postgres: { settings: { autovacuum: false } } });
});
after(() => world.stop());

/** What each command printed, errors included. */
async function commands(to: Destination): Promise<Map<string, string>> {
  const script = PSQL.map(
    (command) => `\\echo <<${command.replaceAll("\\", "/")}>>\n\\warn <<${command.replaceAll("\\", "/")}>>\n${command}\n`,
  ).join("");
  const { stdout, stderr } = await psql(to, script, ["-v", "ON_ERROR_STOP=0"]);
  const parts = (text: string) => text.split(/^<<.*>>$/m).slice(1);
  const [printed, complained] = [parts(stdout), parts(stderr)];
  return new Map(PSQL.map((command, index) => [command, `${printed[index] ?? ""}${complained[index] ?? ""}`.trim()]));
}

/** Send it as its tool does. */
async function answers(client: RawClient, { mode, sql, values }: Asked): Promise<Answer> {
  if (mode === "simple") return answerOf(await client.ask([query(sql)]));
  const name = mode === "extended" ? "" : "s1";
  const bound = mode === "binary" ? binaryResults(bind("", name, values)) : bind("", name, values);
  const run = [bound, describeMessage("P", ""), execute(""), sync()];
  if (mode === "extended") return answerOf(await client.ask([parse("", sql), ...run]));
  const frames = await client.ask([parse(name, sql), describeMessage("S", name), sync()]);
  if (frames.some((frame) => frame.type === "E")) return answerOf(frames);
  await client.ask(run);
  const answer = answerOf(await client.ask(run));
  await client.ask([close("S", name), sync()]);
  return answer;
}

/** The message with all results in binary form: `bind` ends in a count of no formats. */
function binaryResults(message: Uint8Array): Uint8Array {
  const changed = Buffer.concat([message.subarray(0, -2), Buffer.from([0, 1, 0, 1])]);
  changed.writeInt32BE(changed.length - 1, 1);
  return changed;
}

const behindMasks = (answer: Answer): Answer => ({ ...answer, rows: answer.rows.map((row) => unframed(row)) });

/** A row with masked values, without the lengths, which masks change. */
const unframed = (row: string): string =>
  masked(row) === row && !row.includes("[REDACTED") ? row : masked(row).replaceAll(/\0\0\0./gs, "|");

const refusedSomewhere = new Set<string>();

/** Note it as refused. @returns it stands on the list of docs/POLICY.md */
function isStated(tool: string, what: string): boolean {
  refusedSomewhere.add(`${tool}: ${what}`);
  return stated.has(`${tool}: ${what}`);
}

/** What a program prints directly and through Sluice, line by line; REFUSED lines must be stated, others the same behind the masks. */
async function compare(
  tool: string,
  to: readonly [Destination, Destination],
  program: (to: Destination) => Promise<CommandResult>,
): Promise<number> {
  const [direct, through] = to;
  const expected = await program(direct);
  const got = await program(through);
  assert.equal(expected.stderr, "");
  assert.equal(got.stderr, "");
  const lines = (result: CommandResult) => result.stdout.trimEnd().split("\n");
  const left = new Map<string, number>();
  for (const line of lines(expected)) left.set(masked(line), (left.get(masked(line)) ?? 0) + 1);
  const wrong: string[] = lines(expected).filter((line) => line.startsWith("FAILED"));
  assert.ok(lines(expected).at(-1) === "done" && lines(got).at(-1) === "done");
  let refusals = 0;
  for (const line of lines(got)) {
    const refused = /^REFUSED (.+?)(?::| \()/.exec(line);
    if (refused?.[1] !== undefined) {
      if (!isStated(tool, refused[1])) wrong.push(line);
      refusals += 1;
    } else if ((left.get(line) ?? 0) > 0) left.set(line, (left.get(line) as number) - 1);
    else wrong.push(`not without Sluice: ${line}`);
  }
  const missing = [...left].flatMap(([line, count]) => Array<string>(count).fill(line));
  // A refusal stands in the place of one line.
  if (missing.length !== refusals) wrong.push(...missing.map((line) => `only without Sluice: ${line}`));
  assert.deepEqual(wrong, []);
  return lines(got).length;
}

for (const version of VERSIONS) {
  describe(`PostgreSQL ${version}`, () => {
    for (const tool of new Set(ASKED.map((asked) => asked.tool))) {
      const queries = ASKED.filter((asked) => asked.tool === tool);
      test(`${queries.length} queries of ${tool}`, { timeout: 60_000 }, async () => {
        const parameters = tool === "Prisma" ? PRISMA_STARTUP : {};
        const through = await rawAt(await world.through(version), { parameters });
        const direct = await rawAt(world.direct(version), { parameters });
        const wrong: string[] = [];
        for (const asked of queries) {
          const { what, sql } = asked;
          const [got, expected] = [await answers(through, asked), await answers(direct, asked)];
          if (expected.code !== undefined) wrong.push(`${what}: the server itself says ${expected.code} ${expected.message}`);
          else if (got.byGateway) {
            if (!isStated(tool, what)) wrong.push(`${what}: ${got.message}`);
          } else {
            const difference = sql.includes("backend") ? undefined : differs([behindMasks(got)], [behindMasks(expected)], true);
            if (difference !== undefined) wrong.push(`${what}: ${difference}`);
          }
        }
        through.close();
        direct.close();
        assert.deepEqual(wrong, []);
      });
    }

    test("SQLAlchemy's Inspector and reflection", { timeout: 60_000 }, async (context) => {
      const to = [world.direct(version), await world.through(version)] as const;
      const lines = await compare("SQLAlchemy", to, (each) => python(each, INSPECTOR));
      context.diagnostic(`${lines} answers`);
      assert.ok(lines > 300);
    });

    for (const [who, args] of [
      ["readers", []],
      ["writers", ["writes"]],
    ] as const) {
      test(`SQLAlchemy's mapper, ${who}`, { timeout: 60_000 }, async () => {
        const to = [world.direct(version), await world.through(version, [who])] as const;
        assert.ok((await compare("SQLAlchemy", to, (each) => python(each, MAPPER, args))) > 30);
      });
    }

    for (const [how, properties] of [
      ["as it comes", {}],
      [
        "a schema at connection, named statements and binary from the first execution",
        { prepareThreshold: "-1", binaryTransfer: "true", currentSchema: "public" },
      ],
    ] as const) {
      test(`JDBC: all of DatabaseMetaData, ${how}`, { timeout: 120_000 }, async (context) => {
        const to = [world.direct(version), await world.through(version)] as const;
        const lines = await compare("JDBC", to, (each) => java(each, "Metadata", METADATA, [], properties));
        context.diagnostic(`${lines} lines`);
        assert.ok(lines > 5_000);
      });
    }

    test(`${PSQL.length} commands of psql`, { timeout: 60_000 }, async () => {
      const got = await commands(await world.through(version));
      const expected = await commands(world.direct(version));
      const wrong: string[] = [];
      for (const command of PSQL) {
        // Where masks are in force an error of the server comes without its hint.
        const said = (all: Map<string, string>) => all.get(command)?.replace(/\nHINT: .*/, "");
        if (said(got) === said(expected) || command === "\\conninfo") continue;
        if (got.get(command)?.includes("Sluice") === true) {
          if (isStated("psql", command)) continue;
        }
        wrong.push(`${command}: ${got.get(command)?.slice(0, 300)}`);
      }
      assert.deepEqual(wrong, []);
    });
  });
}

test("pg_dump --schema-only, the same as without Sluice", { timeout: 60_000 }, async () => {
  const args = ["--schema-only", "--schema=public", "--no-subscriptions"];
  const got = await pgDump(await world.through(15), args);
  const expected = await pgDump(world.direct(15), args);
  assert.equal(got.code, 0, got.stderr);
  const body = (text: string) => text.replace(/^\\(?:un)?restrict .*$/gm, "");
  assert.equal(body(got.stdout), body(expected.stdout));
});

test("the list of what is refused is complete and has nothing more", () => {
  assert.deepEqual([...stated].sort(), [...refusedSomewhere].sort());
});
