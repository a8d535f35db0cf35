import { readdirSync, readFileSync, statSync } from "node:fs";
import { join } from "node:path";
import type { AuditEvent } from "../../store/types.ts";
import { VERSIONS } from "../clients/world.ts";
import { removeFolder, temporaryFolder } from "../helpers/processes.ts";
import { auditEvents } from "../resilience/rig.ts";
import { CASES } from "./cases.ts";
import { DRIVERS, runDriver } from "./drivers.ts";
import { FORBIDDEN, foundCanary, SHOWN } from "./policy.ts";
import { type Outcome, type Suite, startSuite } from "./run.ts";
import { contradictions, eventsByMarker, loggedStatements, undecided } from "./witness.ts";

export interface Report {
  readonly outcomes: readonly Outcome[];
  readonly drivers: readonly Outcome[];
  /** Statements that the server logged, by version, and those of them without a decision. */
  readonly logged: ReadonlyMap<number, number>;
  readonly undecided: readonly string[];
  readonly contradictions: readonly string[];
  /** Files of the data folder, and the gateway's log, that hold a canary. */
  readonly stored: readonly string[];
  /** The canary that may be seen was found in the data folder by the same search. */
  readonly searchWorks: boolean;
}

/** Every case against both servers, then what the servers' logs, the record and the data folder say about it. */
export async function runAll(): Promise<Report> {
  const suite = await startSuite();
  const folder = temporaryFolder("adversarial");
  try {
    const outcomes: Outcome[] = [];
    const drivers: Outcome[] = [];
    // One line of work a server.
    await Promise.all(
      VERSIONS.map(async (version) => {
        await show(suite, version);
        for (const one of CASES) outcomes.push(...(await suite.run(one, version)));
        for (const name of Object.keys(DRIVERS)) drivers.push(...(await runDriver(suite, name, version, folder)));
      }),
    );
    await suite.world.gateway.stop({ keep: true });
    const events = await auditEvents(suite.world.gateway);
    return { outcomes, drivers, ...compare(suite, [...outcomes, ...drivers], events), ...searched(suite) };
  } finally {
    await suite.world.stop();
    removeFolder(folder);
  }
}

/** Somebody reads what may be read. */
async function show(suite: Suite, version: (typeof VERSIONS)[number]): Promise<void> {
  const shown = { kind: "sql", class: "shown", group: "all", expect: "runs", steps: ["select * from readable"] } as const;
  const wrong = (await suite.run(shown, version)).find((outcome) => outcome.why !== undefined);
  if (wrong !== undefined) throw new Error(`what is allowed does not run: ${wrong.why}`);
}

function compare(suite: Suite, outcomes: readonly Outcome[], events: readonly AuditEvent[]) {
  const logged = new Map<number, number>();
  const missing: string[] = [];
  const found: string[] = [];
  const markers = eventsByMarker(events);
  for (const version of VERSIONS) {
    const log = suite.world.server(version).readLog();
    const statements = loggedStatements(log);
    logged.set(version, statements.length);
    missing.push(
      ...undecided(
        statements,
        events.filter((event) => event.target === `pg${version}`),
      ),
    );
    for (const outcome of outcomes) {
      if (outcome.how.startsWith(`PostgreSQL ${version},`) && outcome.why === undefined)
        found.push(...contradictions(outcome, log, markers));
    }
  }
  return { logged, undecided: missing, contradictions: found };
}

function searched(suite: Suite): Pick<Report, "stored" | "searchWorks"> {
  const { gateway } = suite.world;
  const stored: string[] = [];
  let searchWorks = false;
  const look = (name: string, bytes: Buffer) => {
    const canary = foundCanary(bytes, FORBIDDEN);
    if (canary !== undefined) stored.push(`${name}: ${canary}`);
    searchWorks ||= foundCanary(bytes, [SHOWN]) !== undefined;
  };
  look("the gateway's log", Buffer.from(gateway.logs() + gateway.output()));
  const walk = (folder: string): void => {
    for (const entry of readdirSync(folder)) {
      const path = join(folder, entry);
      if (statSync(path).isDirectory()) walk(path);
      else look(entry, readFileSync(path));
    }
  };
  walk(gateway.dataFolder);
  return { stored, searchWorks };
}
