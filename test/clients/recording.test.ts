import assert from "node:assert/strict";
import { createHash } from "node:crypto";
import { after, before, describe, test } from "node:test";
import { bind, describe as describeMessage, execute, parse, query, sync } from "../../protocols/postgres/messages.ts";
import type { AuditEvent } from "../../store/types.ts";
import { waitFor } from "../helpers/processes.ts";
import { type Frame, type RawClient, rows } from "./raw.ts";
import { rawAt, startWorld, type World } from "./world.ts";

// What the record says of a response: its rows, its bytes and its digest are those that the client got, however they were read.

const POLICY = `version: 1
rules:
  - { name: all, when: '!("corp:brief" in identity.groups)', effect: allow }
  - { name: brief, who: { groups: [brief] }, record: { results: head, headBytes: 20B }, effect: allow }
masks:
  - { name: mails, detect: [email], with: redact }
  - { name: names, columns: [public.people.name], with: redact }
`;

let world: World;
before(async () => {
  world = await startWorld({
    policy: POLICY,
    setup:
      "create table people (id int, name text, note text); insert into people select n, 'name ' || n, 'mail' || n || '@example.com' from generate_series(1, 500) n; analyze people;",
    config: { record: { results: "digest" } },
  });
});
after(() => world.stop());

/** The frames as they came over the wire. */
function wireBytes(frames: readonly Frame[]): Buffer {
  return Buffer.concat(
    frames.map(({ type, body }) => {
      const head = Buffer.alloc(5);
      head.write(type, 0, "latin1");
      head.writeInt32BE(body.length + 4, 1);
      return Buffer.concat([head, body]);
    }),
  );
}

async function operations(marker: string, count: number): Promise<AuditEvent[]> {
  let found: AuditEvent[] = [];
  await waitFor(`${count} operations with ${marker} on record`, async () => {
    const { stdout } = await world.gateway.cli(["audit", "tail", "--format", "json"]);
    found = stdout
      .split("\n")
      .filter((line) => line.includes('"operation"') && line.includes(marker))
      .map((line) => JSON.parse(line) as AuditEvent);
    return found.length === count;
  });
  return found;
}

function assertRecorded(event: AuditEvent | undefined, response: readonly Frame[], rowCount: number): void {
  const bytes = wireBytes(response);
  assert.deepEqual(event?.response, { rows: rowCount, bytes: bytes.length, sha256: createHash("sha256").update(bytes).digest("hex") });
}

/** The part of the answer that is an Execute's: from the first row to the CommandComplete. */
const ofExecute = (frames: readonly Frame[]): Frame[] => frames.filter(({ type }) => "DCEs".includes(type));

for (const version of [18, 15] as const) {
  describe(`PostgreSQL ${version}`, () => {
    const open = async (groups: readonly string[] = []): Promise<RawClient> => rawAt(await world.through(version, groups));
    const marker = (name: string): string => `/* ${name} ${version} */`;

    for (const [name, sql, count] of [
      ["one row", "select 1", 1],
      ["masked rows", "select id, name, note from people order by id", 500],
      ["a large result that is not masked", "select n from generate_series(1, 200000) n", 200_000],
      ["a row of several reads", "select repeat('x', 3000000), 1", 1],
      ["nothing", "set application_name = 'x'", 0],
      ["an error behind rows", "select 1 / (400 - n) from generate_series(1, 1000) n", 399],
    ] as const) {
      test(`simple query: ${name}`, { timeout: 30_000 }, async () => {
        const client = await open();
        const frames = await client.query(`${marker(`simple ${name}`)} ${sql}`);
        client.close();
        const [event] = await operations(marker(`simple ${name}`), 1);
        assertRecorded(event, frames, count);
      });

      test(`Execute: ${name}`, { timeout: 30_000 }, async () => {
        const client = await open();
        const text = `${marker(`extended ${name}`)} ${sql}`;
        const frames = await client.ask([parse("", text), bind("", ""), describeMessage("P", ""), execute(""), sync()]);
        client.close();
        const [event] = await operations(marker(`extended ${name}`), 1);
        assertRecorded(event, ofExecute(frames), count);
      });
    }

    test("COPY out", { timeout: 30_000 }, async () => {
      const client = await open();
      const text = `${marker("copy")} copy (select n, repeat('y', 100), case when n % 1000 = 0 then 'a@b.example' end from generate_series(1, 50000) n) to stdout`;
      const frames = await client.query(text);
      client.close();
      const [event] = await operations(marker("copy"), 1);
      assert.equal(event?.outcome, "done");
      assert.deepEqual(event?.masked, { mails: 50 });
      assertRecorded(event, frames, 50_000);
    });

    test("a pipeline: each operation has its own", { timeout: 30_000 }, async () => {
      const client = await open();
      const messages = [1, 2, 3].flatMap((number) => [
        parse("", `${marker("pipeline")} select ${number} as n${number} from generate_series(1, ${number * 10})`),
        bind("", ""),
        execute(""),
      ]);
      const frames = await client.ask([...messages, sync()]);
      client.close();
      const events = await operations(marker("pipeline"), 3);
      const answers: Frame[][] = [[]];
      for (const frame of ofExecute(frames)) {
        answers.at(-1)?.push(frame);
        if (frame.type === "C") answers.push([]);
      }
      events.forEach((event, index) => assertRecorded(event, answers[index] ?? [], (index + 1) * 10));
    });

    test("what the server skips behind a refused Parse is not taken for an operation", { timeout: 30_000 }, async () => {
      const client = await open();
      await client.ask([parse("", `${marker("earlier")} select 1`), sync()]);
      const frames = await client.ask([parse("", `${marker("refused")} alter system set work_mem = 1`), bind("", ""), execute(""), sync()]);
      assert.equal(frames.map(({ type }) => type).join(""), "EZ");
      assert.equal(rows(await client.query(`${marker("later")} select 'on'`))[0]?.[0], "on");
      client.close();
      await operations(marker("later"), 1);
      assert.equal((await operations(marker("refused"), 1))[0]?.outcome, "denied");
      await operations(marker("earlier"), 0);
    });

    test("simple queries in one write: each has its own", { timeout: 30_000 }, async () => {
      const client = await open();
      const texts = [1, 2, 3].map((number) => query(`${marker("together")} select ${number} from generate_series(1, ${number})`));
      const frames = await client.ask(texts, 3);
      client.close();
      const events = await operations(marker("together"), 3);
      const answers: Frame[][] = [[]];
      for (const frame of frames) {
        answers.at(-1)?.push(frame);
        if (frame.type === "Z") answers.push([]);
      }
      events.forEach((event, index) => assertRecorded(event, answers[index] ?? [], index + 1));
    });

    test("a rule's own record goes before the target's, for every operation", { timeout: 30_000 }, async () => {
      const client = await open(["brief"]);
      for (const word of ["first", "second", "third"]) {
        const frames = await client.query(`${marker("brief")} select '${word} kept' || repeat('-', 50) || 'canary-${version}'`);
        assert.match(rows(frames)[0]?.[0] ?? "", /canary/);
      }
      client.close();
      const events = await operations(marker("brief"), 3);
      for (const event of events) assert.equal(event.response?.sha256, undefined);
      const { stdout } = await world.gateway.cli(["sessions", "replay", events[0]?.session ?? ""]);
      const shown = stdout.split("\n").filter((line) => !line.includes("select"));
      assert.doesNotMatch(shown.join("\n"), /canary/);
    });
  });
}
