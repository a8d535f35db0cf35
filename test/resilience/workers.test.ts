import assert from "node:assert/strict";
import { writeFileSync } from "node:fs";
import { join } from "node:path";
import { after, before, describe, it } from "node:test";
import type { LiveSession } from "../../control/types.ts";
import { query } from "../../protocols/postgres/messages.ts";
import type { RawClient } from "../clients/raw.ts";
import { removeFolder, temporaryFolder, waitFor } from "../helpers/processes.ts";
import { assertHealthy, auditEvents, backends, descriptors, health, liveSessions, metric, type Rig, startRig } from "./rig.ts";

let rig: Rig;
let faults: string;

before(async () => {
  faults = temporaryFolder("faults");
  const preload = join(import.meta.dirname, "fault.mjs");
  rig = await startRig({ env: { NODE_OPTIONS: `--import=${preload}`, SLUICE_TEST_FAULTS: faults } });
});
after(async () => {
  await rig.stop();
  removeFolder(faults);
});

describe("a worker that ends", () => {
  it("gives back the places of its sessions under a limit of the policy", { timeout: 90_000 }, async () => {
    const limited =
      "version: 1\nrules:\n  - { name: all, effect: allow }\nlimits:\n  - { name: two, who: { groups: [two] }, sessions: 2 }\n";
    const reloads = await metric(rig.gateway, 'sluice_reload_total{result="ok"}');
    rig.gateway.writePolicy(limited);
    await waitFor("the policy", async () => (await metric(rig.gateway, 'sluice_reload_total{result="ok"}')) > reloads);
    const open = () => rig.connect({ sub: "double", groups: ["two"] });
    const [first, second] = [await open(), await open()];
    assert.ok((await open()).ended || (await open()).startup.some(({ type }) => type === "E"), "a third one");
    const restarts = await metric(rig.gateway, "sluice_worker_restarts_total");
    writeFileSync(join(faults, "exit"), "");
    await waitFor("a worker has ended", async () => (await metric(rig.gateway, "sluice_worker_restarts_total")) > restarts, 60_000);
    let third: RawClient | undefined;
    await waitFor("its place", async () => {
      third = await open();
      return third.startup.at(-1)?.type === "Z";
    });
    for (const client of [first, second, third]) client?.close();
    await waitFor("two workers", async () => (await health(rig.gateway)).workers === 2, 30_000);
  });

  for (const fault of ["throw", "reject", "heap", "exit"]) {
    it(`by a planted fault (${fault}) takes its own sessions with it, and is replaced`, { timeout: 90_000 }, async () => {
      const { pid } = rig.gateway;
      const before = descriptors(pid);
      const restarts = await metric(rig.gateway, "sluice_worker_restarts_total");
      const clients = new Map<string, RawClient>();
      for (let count = 0; count < 6; count += 1) {
        const known = new Set((await liveSessions(rig.gateway)).map((session) => session.id));
        const client = await rig.connect();
        const [added] = (await liveSessions(rig.gateway)).filter((session) => !known.has(session.id));
        clients.set((added as LiveSession).id, client);
      }
      const sessions = await liveSessions(rig.gateway);
      assert.equal(new Set(sessions.map((session) => session.worker)).size, 2);
      for (const client of clients.values()) client.send(query("select pg_sleep(1), 'under way'"));
      writeFileSync(join(faults, fault), "");
      await waitFor("a worker has ended", async () => (await metric(rig.gateway, "sluice_worker_restarts_total")) === restarts + 1, 60_000);

      const left = new Set((await liveSessions(rig.gateway)).map((session) => session.worker));
      assert.equal(left.size, 1, "sessions of both workers are gone");
      for (const session of sessions) {
        const client = clients.get(session.id) as RawClient;
        if (left.has(session.worker)) {
          const frames = await client.until("Z");
          assert.equal(frames.map((frame) => frame.type).join(""), "TDCZ");
          assert.equal((await client.query("select 7")).length, 4);
          client.close();
        } else await client.closed();
      }
      await waitFor("the worker is replaced", async () => (await health(rig.gateway)).workers === 2, 30_000);
      // The statements of the lost sessions end at the server when it next writes to them.
      await waitFor("no backend is left", async () => (await backends(rig.server)) === 0);
      assert.equal(rig.gateway.pid, pid);
      assert.ok(rig.gateway.isRunning());
      await assertHealthy(rig, { descriptors: before, slack: 10 });

      const lost = new Set(sessions.filter((session) => !left.has(session.worker)).map((session) => session.id));
      const events = await auditEvents(rig.gateway);
      const closed = events.filter((event) => event.type === "session.close" && lost.has(event.session ?? ""));
      assert.equal(closed.length, lost.size, "sessions of the lost worker have no end on record");
      const unknown = events.filter((event) => event.outcome === "unknown" && lost.has(event.session ?? ""));
      assert.ok(unknown.length > 0, "what was in flight in the lost worker is not on record as unknown");
    });
  }

  it("while a statement sleeps does not leave it running at the server forever", { timeout: 30_000 }, async () => {
    const clients = await Promise.all([rig.connect(), rig.connect(), rig.connect(), rig.connect()]);
    for (const client of clients) client.send(query("select pg_sleep(2)"));
    await waitFor("they run", async () => (await backends(rig.server)) === 4);
    writeFileSync(join(faults, "throw"), "");
    await waitFor("the worker is replaced", async () => (await liveSessions(rig.gateway)).length < 4);
    for (const client of clients) client.destroy();
    await waitFor("no backend is left", async () => (await backends(rig.server)) === 0);
  });
});
