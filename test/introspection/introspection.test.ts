import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { after, before, describe, test } from "node:test";
import { query } from "../../protocols/postgres/messages.ts";
import { rawAt, startWorld, VERSIONS, type World } from "../clients/world.ts";
import { type Destination, pgDump, psql } from "../helpers/clients.ts";
import { rootFolder } from "../helpers/processes.ts";
import { answerOf, differs } from "../lineage/answers.ts";
import { ASKED } from "./queries.ts";

// Whoever may read public.* and has masks on a few columns works as without Sluice: what tools ask about the schema, and their reads
// beside the masked columns, are answered the same. What is refused all the same stands, with its reason, in docs/POLICY.md.

const SETUP = `
create schema hr;
create type mood as enum ('sad', 'ok');
create domain positive as int check (value > 0);
create table regions (id int primary key, name text not null);
create table customers (id serial primary key, name text not null default 'x', email text unique, ssn varchar(20), mood mood, region int references regions, amount positive);
create table orders (id bigint generated always as identity primary key, customer int references customers on delete cascade, region int references regions, item text, amount numeric, at timestamptz);
create index on customers (lower(name));
create index on orders (item) where amount > 0;
create table parts (id int, at date) partition by range (id);
create table parts_low partition of parts for values from (0) to (100);
create view v_names as select id, name from customers;
create view v_mails as select id, email from customers;
create materialized view m_names as select name from customers;
create sequence counter start 5;
create function add(a int, b int default 1) returns int language sql immutable as $$ select a + b $$;
create function touched() returns trigger language plpgsql as $$ begin return new; end $$;
create trigger touch before update on customers for each row execute function touched();
create table hr.people (id int);
comment on table customers is 'who pays';
comment on column customers.email is 'where they are reached';
insert into regions values (1, 'north'), (2, 'south');
insert into customers (name, email, ssn, mood, region, amount) select 'name ' || n, n || '@corp.example', n, 'ok', 1 + n % 2, n from generate_series(1, 6) n;
insert into orders (customer, region, item, amount, at) select n, 1, 'item ' || n, n, '2024-01-01' from generate_series(1, 6) n;
refresh materialized view m_names;
analyze;
`;

const POLICY = `version: 1
rules:
  - { name: readers, actions: [read, session, sql:lock], resources: ["public.*"], effect: allow }
masks:
  - { name: pii, columns: [public.customers.email, public.customers.ssn], with: redact }
`;

const PSQL =
  `\\d|\\d customers|\\d+ customers|\\d orders|\\d+ v_names|\\d+ v_mails|\\d m_names|\\d+ parts|\\d counter|\\d customers_pkey|\\dS+ pg_class|\\da|\\dA+|\\db+|\\dc|\\dC|\\dd
\\dD+|\\ddp|\\dE|\\des|\\deu|\\dew|\\det|\\df+|\\df add|\\dft|\\dF|\\dFp|\\dFd|\\dFt|\\dg+|\\di+|\\dl|\\dL+|\\dm+|\\dn+|\\do =|\\dO|\\dp|\\dP+|\\drds|\\dRp+|\\dRs|\\ds+|\\dt|\\dt+ *.*|\\dtvmsE+
\\dT+|\\du|\\du+|\\dv+|\\dx|\\dx+|\\dX|\\dy+|\\l|\\l+|\\sf add|\\sv v_names|\\sv v_mails|\\z|\\encoding|\\conninfo|select id, name from customers order by id;|table v_names;|explain (costs off) select name from customers where id = 3;`
    .split(/[|\n]/)
    .map((command) => command.trim());

/** Rows of the table in docs/POLICY.md: tool and what it asks. */
function stated(): Set<string> {
  const text = readFileSync(join(rootFolder, "docs/POLICY.md"), "utf8");
  const section = text.slice(text.indexOf("### What tools ask and do not get"));
  const rows = [...section.slice(0, section.indexOf("\n##", 5)).matchAll(/^\| ([^|]+?) \| ([^|]+?) \| [^|]+ \|$/gm)];
  return new Set(rows.map(([, tool, what]) => `${tool}: ${what?.replaceAll("`", "")}`).filter((row) => !/^(tool: asks|-+:)/.test(row)));
}

let world: World;
before(async () => {
  world = await startWorld({ setup: SETUP, policy: POLICY });
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

const refusedSomewhere = new Set<string>();
for (const version of VERSIONS) {
  describe(`PostgreSQL ${version}`, () => {
    test(`${ASKED.length} queries of tools`, { timeout: 60_000 }, async () => {
      const through = await rawAt(await world.through(version));
      const direct = await rawAt(world.direct(version));
      const wrong: string[] = [];
      for (const { tool, what, sql } of ASKED) {
        const [got, expected] = [answerOf(await through.ask([query(sql)])), answerOf(await direct.ask([query(sql)]))];
        if (expected.code !== undefined) wrong.push(`${tool}, ${what}: the server itself says ${expected.code} ${expected.message}`);
        else if (got.byGateway) {
          refusedSomewhere.add(`${tool}: ${what}`);
          if (!stated().has(`${tool}: ${what}`)) wrong.push(`${tool}, ${what}: ${got.message}`);
        } else {
          const difference = /backend|with a masked column/.test(`${sql} ${what}`) ? undefined : differs([got], [expected], true);
          if (difference !== undefined) wrong.push(`${tool}, ${what}: ${difference}`);
        }
      }
      through.close();
      direct.close();
      assert.deepEqual(wrong, []);
    });

    test(`${PSQL.length} commands of psql`, { timeout: 60_000 }, async () => {
      const got = await commands(await world.through(version));
      const expected = await commands(world.direct(version));
      const wrong: string[] = [];
      for (const command of PSQL) {
        // Where masks are in force an error of the server comes without its hint.
        const said = (all: Map<string, string>) => all.get(command)?.replace(/\nHINT: .*/, "");
        if (said(got) === said(expected) || command === "\\conninfo") continue;
        if (got.get(command)?.includes("Sluice") === true) {
          refusedSomewhere.add(`psql: ${command}`);
          if (stated().has(`psql: ${command}`)) continue;
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
  assert.deepEqual([...stated()].sort(), [...refusedSomewhere].sort());
});
