import assert from "node:assert/strict";
import { after, before, describe, test } from "node:test";
import { ASKED } from "../protocols/postgres/doubt.ts";
import { bind, execute, parse, sync } from "../protocols/postgres/messages.ts";
import { errors, type RawClient, rawConnect, rows } from "./clients/raw.ts";
import { startWorld, VERSIONS, type World } from "./clients/world.ts";

// When the server is asked for search_path and role, and when it need not be.

const SETUP = `
  create schema hr;
  create table shared (note text); insert into shared values ('public');
  create table hr.shared (note text); insert into hr.shared values ('hidden');
  create table single (note text); insert into single values ('one');
  create function harmless() returns int language plpgsql volatile as $$ begin update single set note = note; return 1; end $$;
  create function unclear() returns int language plpgsql as $$ begin execute 'select 1'; return 1; end $$;
`;

const POLICY = `version: 1
rules:
  - { name: not-hr, resources: ["hr.*"], effect: deny }
  - { name: all, effect: allow }
`;

describe("questions of the gateway's own", () => {
  let world: World;
  before(async () => {
    world = await startWorld({ setup: SETUP, policy: POLICY, postgres: { logStatements: true } });
  });
  after(() => world?.stop());

  for (const version of VERSIONS) {
    /** Run statements in a session and say how often the server was asked meanwhile. */
    const asked = async (run: (client: RawClient) => Promise<void>): Promise<number> => {
      const count = () => world.server(version).readLog().split(ASKED[0]).length;
      const to = await world.through(version);
      const client = await rawConnect({ port: to.port, user: "anyone", database: to.database, password: to.password });
      const start = count();
      await run(client);
      await client.query("select 'last'");
      client.close();
      return count() - start;
    };
    const runs = async (client: RawClient, ...texts: readonly string[]): Promise<void> => {
      for (const text of texts) assert.deepEqual(errors(await client.query(text)), [], text);
    };

    test(`PostgreSQL ${version}: a function that is known not to is never asked about`, { timeout: 60_000 }, async () => {
      const times = await asked((client) =>
        runs(client, "select harmless()", "select note from shared", "select harmless(), note from shared", "select note from single"),
      );
      assert.equal(times, 0);
    });

    test(`PostgreSQL ${version}: nor where a name means one relation only`, { timeout: 60_000 }, async () => {
      const times = await asked(async (client) => {
        for (let round = 0; round < 5; round += 1) await runs(client, "select unclear()", "select unclear(), note from single", "select 1");
        const pipeline = [bind("", "s"), execute(""), bind("", "s"), execute(""), sync()];
        await client.ask([parse("s", "select unclear(), note from single"), sync()]);
        assert.equal(rows(await client.ask(pipeline)).length, 2);
      });
      assert.equal(times, 0);
    });

    test(`PostgreSQL ${version}: once, where it makes a difference`, { timeout: 60_000 }, async () => {
      const times = await asked((client) =>
        runs(client, "select unclear()", "select note from shared", "select note from shared", "update shared set note = note"),
      );
      assert.equal(times, 1);
    });

    test(`PostgreSQL ${version}: once behind DO, whatever comes next, and again behind a block`, { timeout: 60_000 }, async () => {
      const times = await asked((client) =>
        runs(
          client,
          "do $$ begin end $$",
          "select 1",
          "select note from shared",
          "begin",
          "do $$ begin end $$",
          "select 1",
          "commit",
          "select note from shared",
        ),
      );
      assert.equal(times, 3);
    });

    test(`PostgreSQL ${version}: a failed transaction is not asked, the next one is`, { timeout: 60_000 }, async () => {
      const times = await asked(async (client) => {
        await runs(client, "begin", "select unclear()");
        assert.equal(errors(await client.query("select 1 / 0"))[0]?.C, "22012");
        // Under either name: what the transaction has done to the path is not known.
        assert.notEqual(errors(await client.query("select note from shared")).length, 0);
        await runs(client, "rollback", "select note from shared");
      });
      assert.equal(times, 1);
    });
  }
});
