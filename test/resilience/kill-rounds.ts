import assert from "node:assert/strict";
import { closeSync, fstatSync, openSync, readSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import type { AuditEvent } from "../../store/types.ts";
import { Random } from "../fuzz/random.ts";
import { libpqEnvironment } from "../helpers/clients.ts";
import { ended, spawnTied, waitFor } from "../helpers/processes.ts";
import { auditEvents, backends, type Rig } from "./rig.ts";

/** Every statement carries a number of its own, so that the server's log and the record can be compared. */
const SCRIPTS: Readonly<Record<string, string>> = {
  simple: "\\set id random(1000000000000000000, 9000000000000000000)\nselect :id;\n",
  prepared: "\\set id random(1000000000000000000, 9000000000000000000)\nselect :id::bigint;\n",
};
const ID = /(?<!\d)[1-9]\d{18}(?!\d)/g;

export interface KillTotals {
  statements: number;
  unknown: number;
  done: number;
  sessions: number;
}

/** One gateway, killed and started again as often as asked for; the server goes on. */
export class KillRounds {
  readonly totals: KillTotals = { statements: 0, unknown: 0, done: 0, sessions: 0 };
  readonly #rig: Rig;
  readonly #random: Random;
  readonly #logFile: string;
  #logRead = 0;
  #cursor: string | undefined;

  constructor(rig: Rig, seed: number) {
    this.#rig = rig;
    this.#random = new Random(seed);
    this.#logFile = join(rig.server.folder, "server.log");
  }

  /** Load, kill -9, restart, compare. @throws when the record lacks a statement that ran, or leaves anything open */
  async round(number: number): Promise<void> {
    const { gateway, server, issuer } = this.#rig;
    const mode = number % 2 === 0 ? "simple" : "prepared";
    const token = await issuer.token();
    const scriptFile = join(gateway.folder, `${mode}.sql`);
    writeFileSync(scriptFile, SCRIPTS[mode] ?? "");
    const to = { port: gateway.port, database: "db", password: token };
    const load = spawnTied("pgbench", ["-n", "-M", mode, "-c", "6", "-j", "1", "-T", "30", "-f", scriptFile], {
      env: { ...process.env, ...libpqEnvironment(to) },
      stdio: "ignore",
    });
    const loadEnded = ended(load);
    await waitFor("the load has begun", () => this.#readLog().match(ID) !== null);
    await sleep(this.#random.below(300));
    await gateway.kill9();
    await loadEnded;
    await waitFor("the server has noticed", async () => (await backends(server)) === 0);
    const log = this.#readLog();
    this.#logRead += log.length;
    const ran = new Set(log.match(ID) ?? []);
    await gateway.restart();
    this.#compare(number, ran, await auditEvents(gateway, this.#cursor));
  }

  /** What the server has logged since the last round. */
  #readLog(): string {
    const fd = openSync(this.#logFile, "r");
    const bytes = Buffer.alloc(fstatSync(fd).size - this.#logRead);
    readSync(fd, bytes, 0, bytes.length, this.#logRead);
    closeSync(fd);
    return bytes.toString("latin1");
  }

  #compare(number: number, ran: ReadonlySet<string>, events: readonly AuditEvent[]): void {
    this.#cursor = events.at(-1)?.cursor ?? this.#cursor;
    const recorded = new Map<string, string>();
    const open = new Set<string>();
    for (const event of events) {
      if (event.type === "session.open" && event.session !== undefined) open.add(event.session);
      if (event.type === "session.close" && event.session !== undefined) open.delete(event.session);
      if (event.type !== "operation") continue;
      const ids = `${event.statement ?? ""} ${(event.parameters ?? []).join(" ")}`.match(ID);
      for (const id of ids ?? []) recorded.set(id, event.outcome ?? "none");
    }
    const missing = [...ran].filter((id) => !recorded.has(id));
    assert.deepEqual(missing.slice(0, 5), [], `round ${number}: ${missing.length} of ${ran.size} statements that ran are not on record`);
    assert.ok(ran.size > 0, `round ${number}: nothing ran`);
    assert.deepEqual([...open], [], `round ${number}: sessions without an end`);
    for (const [id, outcome] of recorded) {
      if (outcome === "unknown") this.totals.unknown += 1;
      else if (outcome === "done") this.totals.done += 1;
      // A client that lost its gateway cannot have cancelled; nothing failed at the server.
      else assert.fail(`round ${number}: statement ${id} ended as ${outcome}`);
    }
    this.totals.statements += ran.size;
    this.totals.sessions += events.filter(
      (event) => event.type === "session.close" && event.detail?.["reason"] === "gateway stopped",
    ).length;
  }
}
