import assert from "node:assert/strict";
import { before, describe, test } from "node:test";
import { VERSIONS } from "../clients/world.ts";
import type { SqlCase } from "./case.ts";
import { CASES } from "./cases.ts";
import { DRIVER_CASES, DRIVERS } from "./drivers.ts";
import { DETECTED, FORBIDDEN, foundCanary, HIDDEN, SHOWN } from "./policy.ts";
import { judge, type Outcome, startSuite } from "./run.ts";
import { type Report, runAll } from "./suite.ts";
import { countedClasses, writtenClasses, writtenTable } from "./table.ts";
import { contradictions, eventsByMarker, loggedStatements, undecided } from "./witness.ts";

const wrongOnes = (outcomes: readonly Outcome[]): readonly string[] =>
  outcomes.flatMap((outcome) =>
    outcome.why === undefined ? [] : [`${outcome.name} (${outcome.how}): ${outcome.expect}, but ${outcome.why}`],
  );

describe("every attack is held", { timeout: 180_000 }, () => {
  let report: Report;
  before(async () => {
    report = await runAll();
  });

  for (const name of countedClasses().keys()) {
    test(name, () => {
      const mine = report.outcomes.filter((outcome) => outcome.class === name);
      assert.ok(mine.length >= 2 * (countedClasses().get(name) ?? 0), "every case ran on both servers");
      assert.deepEqual(wrongOnes(mine), []);
    });
  }

  for (const name of Object.keys(DRIVERS)) {
    test(`through ${name}`, () => {
      const mine = report.drivers.filter((outcome) => outcome.how.endsWith(`, ${name}`));
      assert.equal(mine.length, DRIVER_CASES.length * VERSIONS.length);
      assert.deepEqual(wrongOnes(mine), []);
    });
  }

  test("what the servers logged, what the gateway recorded and what clients were told agree", () => {
    assert.deepEqual(report.contradictions, []);
  });

  test("no statement at the servers is without a decision", () => {
    for (const version of VERSIONS)
      assert.ok((report.logged.get(version) ?? 0) > 1_000, `${report.logged.get(version)} statements were logged`);
    assert.deepEqual(report.undecided, []);
  });

  test("no canary is in the gateway's log or data folder", () => {
    assert.ok(report.searchWorks, "a value that was shown is in the data folder");
    assert.deepEqual(report.stored, []);
  });

  test("docs/ADVERSARIAL.md counts these cases, and says that all are held", () => {
    const written = writtenClasses(writtenTable());
    const expected = new Map([...countedClasses()].map(([name, cases]) => [name, [cases, cases]]));
    expected.set("all", [CASES.length, CASES.length]);
    assert.deepEqual(written, expected, "run `node test/adversarial/table.ts --write`");
    assert.ok(CASES.length >= 250 && DRIVER_CASES.length >= 20);
  });
});

// Each check must be able to fail.

const one = (expect: SqlCase["expect"], ...steps: readonly string[]): SqlCase => ({
  kind: "sql",
  class: "self-test",
  group: "all",
  expect,
  steps,
});

describe("the suite notices what does not hold", { timeout: 60_000 }, () => {
  test("an answer other than the expected one, a canary, a statement that reached the server", async () => {
    const suite = await startSuite();
    try {
      const why = async (each: SqlCase, forbidden?: readonly string[]) =>
        (await suite.run(each, 18, forbidden)).map((outcome) => outcome.why ?? "held").join("\n");
      assert.match(await why(one("guard", "select 1")), /was carried out/);
      assert.match(await why(one("policy", "select 1")), /was carried out/);
      assert.match(await why(one("mask", "select 1")), /was carried out/);
      assert.match(await why(one("guard", "select * from secret")), /is denied/);
      assert.match(await why(one("policy", "select pg_read_file('postgresql.conf')")), /is refused/);
      assert.match(await why(one("policy other", "select * from secret")), /no-secret/);
      assert.match(await why(one("runs", "select * from secret")), /is denied/);
      assert.match(await why(one("fails 22012", "select 'x'::int")), /22P02/);
      assert.match(await why(one("clean", "select nothing", "select 1")), /step 1/);
      assert.match(await why(one("runs", "select * from readable")), /^held\nheld$/);
      assert.match(await why(one("runs", "select * from readable"), [SHOWN]), /LEAKED shown.*\nLEAKED shown/);
      assert.match(await why(one("clean", "select email from customers")), /LEAKED email/);
      assert.match(await why(one("clean", "select number from cards")), /LEAKED \d{16}/);
      // The server's log holds what ran and not what was refused.
      const log = suite.world.server(18).readLog();
      const [ran] = await suite.run(one("runs", "select 'marked'"), 18);
      assert.ok(!log.includes(`${ran?.marker}last`) && suite.world.server(18).readLog().includes(`${ran?.marker}last`));
      assert.ok(loggedStatements(suite.world.server(18).readLog()).some((statement) => statement.text.includes(`${ran?.marker}last`)));
    } finally {
      await suite.world.stop();
    }
  });

  test("every form of a canary", () => {
    const bytes = Buffer.from(HIDDEN.email);
    for (const text of [
      `x${HIDDEN.email}y`,
      HIDDEN.email.toUpperCase(),
      [...HIDDEN.email].reverse().join(""),
      bytes.toString("hex"),
      `"${bytes.toString("base64")}"`,
      HIDDEN.email.slice(3),
      DETECTED.card,
      DETECTED.card.replace(/(.{4})(?=.)/g, "$1 "),
      DETECTED.card.replace(/(.{4})(?=.)/g, "$1-"),
      DETECTED.mail,
      DETECTED.iban,
    ]) {
      assert.notEqual(foundCanary(Buffer.from(`before ${text} behind`), FORBIDDEN), undefined, text);
    }
    assert.equal(foundCanary(Buffer.from(`[REDACTED] ${SHOWN}`)), undefined);
  });

  test("a log that says more than the record", () => {
    const line = (pid: number, text: string) => `2030-01-01 00:00:00.000 UTC [${pid}] svc@postgres LOG:  ${text}\n`;
    const log = [
      line(1, "connection authorized: user=svc database=postgres application_name=sluice catalogue"),
      line(1, "statement: select 'of the gateway itself'"),
      line(2, "statement: select 1,\n\t2"),
      line(2, "execute <unnamed>: select 3"),
      line(2, "execute fetch from s/p: select 3"),
      line(2, "disconnection: session time"),
      "2030-01-01 00:00:00.000 UTC [3] postgres@postgres LOG:  statement: select 'of the test'\n",
    ].join("");
    const logged = loggedStatements(log);
    assert.deepEqual(
      logged.map((statement) => statement.text),
      ["select 1,\n2", "select 3", "select 3"],
    );
    const event = (statement: string, effect: "allow" | "deny", outcome: "done" | "denied") =>
      ({ type: "operation", statement, decision: { effect }, outcome }) as unknown as Parameters<typeof undecided>[1][number];
    const events = [event("select 1,\n2", "allow", "done"), event("select 3", "allow", "done"), event("select 3", "deny", "denied")];
    assert.deepEqual(undecided(logged, events), ["select 3"]);
    assert.deepEqual(undecided(logged, []), ["select 1,\n2", "select 3", "select 3"]);
  });

  test("an outcome that the log or the record contradicts", () => {
    const outcome = (expect: Outcome["expect"]): Outcome => ({
      class: "c",
      name: "n",
      how: "h",
      why: undefined,
      marker: "adv1x1y",
      expect,
    });
    const none = eventsByMarker([]);
    assert.match(contradictions(outcome("guard"), "/*adv1x1ylast*/ x", none).join(), /reached the server.*not on record/);
    assert.match(contradictions(outcome("runs"), "", none).join(), /not in the server's log.*on record as nothing/);
    assert.match(contradictions(outcome("wire"), "/*adv1x1y-refused*/ x", none).join(), /must be refused/);
    assert.deepEqual(contradictions(outcome("wire"), "/*adv1x1y*/ x", none), []);
    assert.equal(judge("runs", []), undefined);
  });
});
