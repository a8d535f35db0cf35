import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import { closeSync, openSync, rmSync, statfsSync, writeSync } from "node:fs";
import { join } from "node:path";
import { after, before, describe, it } from "node:test";
import { setTimeout as sleep } from "node:timers/promises";
import { query } from "../../protocols/postgres/messages.ts";
import { errors, type RawClient } from "../clients/raw.ts";
import { removeFolder, temporaryFolder, waitFor } from "../helpers/processes.ts";
import { assertHealthy, auditEvents, metric, type Rig, sqlStateOf, startRig } from "./rig.ts";

/** The store keeps 128 MiB free; this leaves it some more to begin with. */
const DISK_MIB = 200;
const MIB = 1024 * 1024;
/** More than the journal has allocated ahead, so that each needs room of its own. */
const STATEMENT_BYTES = 1_500_000;
let rig: Rig;
let disk: string;
let mounted = false;

before(async () => {
  disk = temporaryFolder("disk");
  mounted = spawnSync("mount", ["-t", "tmpfs", "-o", `size=${DISK_MIB}m,mode=0700`, "tmpfs", disk]).status === 0;
  rig = await startRig({
    config: { data: mounted ? join(disk, "data") : "./data", record: { results: "full" } },
    postgres: { logStatements: true },
  });
  await rig.server.execute("create table notes (text text)");
});
after(async () => {
  await rig.stop();
  if (mounted) spawnSync("umount", ["-l", disk]);
  removeFolder(disk);
});

const freeMiB = (): number => {
  const { bavail, bsize } = statfsSync(disk);
  return (bavail * bsize) / MIB;
};

/** Take space until only so much is left. */
function fill(leaveMiB: number): string {
  const file = join(disk, `filler-${leaveMiB}`);
  const fd = openSync(file, "w");
  const block = Buffer.alloc(64 * 1024, 1);
  try {
    while (freeMiB() > leaveMiB) writeSync(fd, block);
  } catch {
    // Full.
  }
  closeSync(fd);
  return file;
}

/** Whether eight sessions in a row are let in: every worker finds out for itself that there is room again. */
async function allTaken(): Promise<boolean> {
  for (let count = 0; count < 8; count += 1) {
    const probe = await rig.connect();
    probe.close();
    if (probe.startup.at(-1)?.type !== "Z") return false;
  }
  return true;
}

/** Marks of the statements that ran at the server. */
const ran = (mark: string): number => rig.server.readLog().split(`statement: insert into notes values ('${mark}`).length - 1;

describe("a data folder that is full", () => {
  it("forwards nothing unrecorded, says so, and recovers when there is room", { timeout: 60_000 }, async (context) => {
    if (!mounted) {
      // Not a file system of its own, not a full one.
      return context.diagnostic("NOT TESTED: mounting a tmpfs needs root; the store's own tests cover a file size limit");
    }
    const client = await rig.connect();
    assert.equal(errors(await client.query("insert into notes values ('before')")).length, 0);
    assert.equal(ran("before"), 1);

    // Under the store's floor: no new sessions, and no results that would be recorded.
    const first = fill(64);
    // Every worker looks for itself, at most every 5 ms.
    await sleep(50);
    for (let count = 0; count < 8; count += 1) {
      const refused = await rig.connect();
      refused.close();
      assert.equal(sqlStateOf(refused.startup), "58030");
      const text = refused.startup.find((frame) => frame.type === "E")?.body.toString() ?? "";
      assert.match(text, /recorded|free/);
    }

    // Not a byte left: live sessions are refused their statements, or end; either way nothing reaches the server unrecorded.
    const second = fill(0);
    const sent: string[] = [];
    let current: RawClient = client;
    for (let count = 0; count < 200; count += 1) {
      const mark = `during-${count}`;
      if (current.ended) break;
      sent.push(mark);
      await current.query(`insert into notes values ('${mark}${"x".repeat(STATEMENT_BYTES)}')`).catch(() => []);
    }
    assert.ok(current.ended, "a session goes on although nothing can be recorded");
    assert.ok(rig.gateway.isRunning());
    assert.match(rig.gateway.logs(), /record/);

    rmSync(second);
    rmSync(first);
    await waitFor("sessions are taken again", allTaken);
    current = await rig.connect();
    assert.equal(errors(await current.query("insert into notes values ('after')")).length, 0);
    current.close();
    await assertHealthy(rig);
    const recorded = (await auditEvents(rig.gateway)).filter((event) => event.type === "operation").map((event) => event.statement ?? "");
    for (const mark of sent) {
      const times = ran(`${mark}x`);
      const noted = recorded.filter((statement) => statement.includes(`'${mark}x`)).length;
      assert.ok(times <= noted, `${mark} ran ${times} times and is recorded ${noted} times`);
    }
    assert.ok(
      sent.some((mark) => ran(`${mark}x`) === 0),
      "the disk was never full for a statement",
    );
    assert.equal(await metric(rig.gateway, "sluice_worker_restarts_total"), 0);
  });

  it("keeps locks and kills at work", { timeout: 60_000 }, async (context) => {
    if (!mounted) return context.diagnostic("NOT TESTED: mounting a tmpfs needs root");
    const client = await rig.connect({ sub: "mallory" });
    client.send(query("select pg_sleep(30)"));
    await waitFor(
      "it runs",
      async () => (await rig.server.query("select from pg_stat_activity where query = 'select pg_sleep(30)'")).length === 1,
    );
    const filler = fill(2);
    const { code, stderr } = await rig.gateway.cli(["lock", "add", "user:mallory", "--reason", "full or not"]);
    assert.equal(code, 0, stderr);
    assert.equal(sqlStateOf(await client.closed()), "57P01");
    rmSync(filler);
    const locks = await rig.gateway.cli(["lock", "list", "-o", "json"]);
    for (const lock of JSON.parse(locks.stdout) as { id: string }[]) await rig.gateway.cli(["lock", "remove", lock.id]);
    await waitFor("sessions are taken again", allTaken);
  });
});
