import assert from "node:assert/strict";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { parseArgs } from "node:util";
import { fuzzLive } from "./fuzz/live.ts";
import { Random } from "./fuzz/random.ts";
import { pgbench } from "./helpers/clients.ts";
import { nodeBinary, rootFolder, run } from "./helpers/processes.ts";
import { hunt, shown, summary } from "./lineage/hunt.ts";
import { KillRounds } from "./resilience/kill-rounds.ts";
import { assertHealthy, control, descriptors, health, metric, residentMiB, startRig } from "./resilience/rig.ts";
import { runSanitized, SANITIZERS } from "./sanitizers/sanitizers.ts";

// `npm run soak`: the long versions of what `npm test` does for seconds. Every part prints how it gets on; the first
// failure is printed and the exit status is 1.
//   --minutes N   the fuzzers' time and, apart from that, the load's (default 10)
//   --rounds N    kill -9 under load (default 200)
//   --seed N      of everything that is random (default: from the clock, printed)
//   --part NAME   one of them alone; may be repeated:
//     kill        kill -9 under load
//     fuzz, live  the parsers; a running gateway
//     lineage     random statements over masked columns
//     load        load, reconnects and reloads at once
//     sanitizers  the tests of native code, with AddressSanitizer and then UndefinedBehaviorSanitizer
//     sockets     all of `npm test` over Node.js's sockets in place of the pump
const { values: options } = parseArgs({
  options: {
    minutes: { type: "string", default: "10" },
    rounds: { type: "string", default: "200" },
    seed: { type: "string", default: String(Date.now() % 0xffff_ffff) },
    part: { type: "string", multiple: true },
  },
});
const minutes = Number(options.minutes);
const rounds = Number(options.rounds);
const seed = Number(options.seed);
if (!(minutes > 0) || !(rounds >= 0) || !Number.isSafeInteger(seed)) {
  console.error("soak: --minutes takes a number above 0, --rounds and --seed whole numbers");
  process.exit(2);
}

const MIX = `\\set id random(1, 1000000)
begin;
insert into notes values (:id, 'x');
select count(*) from notes where id = :id;
commit;
select relname from pg_class where oid = :id;
`;

// What is waited for may be a process that does not keep this one alive.
setInterval(() => {}, 1_000);

const parts: Readonly<Record<string, () => Promise<void>>> = { kill, fuzz, live, lineage, load, sanitizers, sockets };
const chosen = options.part ?? Object.keys(parts);
for (const name of chosen) {
  const part = parts[name];
  if (part === undefined) {
    console.error(`soak: no part is named ${name}; there are ${Object.keys(parts).join(", ")}`);
    process.exit(2);
  }
  const started = performance.now();
  say(name, `begins, seed ${seed}`);
  try {
    await part();
  } catch (error) {
    say(name, `FAILED, seed ${seed}: ${error instanceof Error ? (error.stack ?? error.message) : String(error)}`);
    process.exit(1);
  }
  say(name, `passed in ${Math.round((performance.now() - started) / 1_000)} s`);
}
process.exit(0);

function say(part: string, text: string): void {
  console.log(`${new Date().toISOString()} ${part}: ${text}`);
}

/** kill -9 under load, with the server's log as witness. */
async function kill(): Promise<void> {
  const rig = await startRig({ postgres: { logStatements: true } });
  try {
    const killing = new KillRounds(rig, seed);
    for (let round = 1; round <= rounds; round += 1) {
      await killing.round(round);
      if (round % 10 === 0 || round === rounds) say("kill", `${round} of ${rounds} rounds, ${JSON.stringify(killing.totals)}`);
    }
  } finally {
    await rig.stop();
  }
}

/** The parsers, in a process of their own that is given up when it hangs. */
async function fuzz(): Promise<void> {
  const script = join(import.meta.dirname, "fuzz", "fuzz.ts");
  // In slices, so that there is progress to see and a hang costs one slice.
  const slices = Math.max(1, Math.round(minutes));
  const seconds = (minutes * 60) / slices;
  for (let slice = 0; slice < slices; slice += 1) {
    const sliceSeed = (seed + slice * 104_729) >>> 0;
    const flags = ["--seconds", String(seconds), "--seed", String(sliceSeed)];
    const { code, stdout, stderr } = await run(nodeBinary, [script, ...flags], { timeoutMillis: (seconds + 60) * 1_000 });
    if (code !== 0) throw new Error(`fuzz ${flags.join(" ")} ended with ${code}:\n${stdout}${stderr}`);
    say("fuzz", `slice ${slice + 1} of ${slices}: ${stdout.trim().split("\n").at(-1)}`);
  }
}

/** Mutated conversations against a running gateway. */
async function live(): Promise<void> {
  const result = await fuzzLive(seed, minutes * 60, (line) => say("live", line));
  say("live", `${result.conversations} conversations`);
}

/** Random statements over masked columns, with new schemas every minute. */
async function lineage(): Promise<void> {
  const rounds = Math.max(1, Math.round(minutes));
  for (let round = 0; round < rounds; round += 1) {
    const roundSeed = (seed + round * 7_919) % 0xffff_ffff;
    const result = await hunt({ seed: roundSeed, seconds: (minutes * 60) / rounds, versions: [15, 18] });
    say("lineage", `round ${round + 1} of ${rounds}, seed ${roundSeed}: ${summary(result)}`);
    assert.equal(result.findings.length, 0, shown(result));
  }
}

/** Native code, with every access to memory and every operation checked. */
async function sanitizers(): Promise<void> {
  for (const sanitizer of SANITIZERS) await runSanitized(sanitizer, (line) => say("sanitizers", line));
}

/** Every test over the transport that stands in for the pump. */
async function sockets(): Promise<void> {
  const script = join(rootFolder, "tools", "run-tests.ts");
  const { code, stdout, stderr } = await run(nodeBinary, [script], { env: { SLUICE_TRANSPORT: "sockets" }, timeoutMillis: 3_600_000 });
  if (code !== 0) throw new Error(`the tests ended with ${code}:\n${(stdout + stderr).slice(-20_000)}`);
  say("sockets", `${/tests (\d+)/.exec(stdout)?.[1]} tests`);
}

/** Steady load, reconnect storms and reloads at once; memory and descriptors must not creep. */
async function load(): Promise<void> {
  const rig = await startRig();
  const random = new Random(seed);
  try {
    await rig.server.execute("create table notes (id bigint, text text)");
    await assertHealthy(rig);
    const baseline = { descriptors: descriptors(rig.gateway.pid), slack: 12 };
    const until = Date.now() + minutes * 60_000;
    const resident: number[] = [];
    for (let wave = 1; Date.now() < until; wave += 1) {
      const seconds = Math.max(2, Math.min(20, Math.round((until - Date.now()) / 1_000)));
      const to = { port: rig.gateway.port, database: "db", password: await rig.issuer.token() };
      const mode = random.pick(["simple", "extended", "prepared"]);
      const runs = [
        pgbench(to, ["-n", "-M", mode, "-c", "8", "-T", String(seconds), "-f", "-"], { input: MIX, timeoutMillis: (seconds + 60) * 1_000 }),
        // A connection for every transaction: the storm.
        pgbench(to, ["-n", "-C", "-c", "4", "-T", String(seconds), "-f", "-"], { input: MIX, timeoutMillis: (seconds + 60) * 1_000 }),
      ];
      const reloads = Math.floor(seconds / 2);
      for (let count = 0; count < reloads; count += 1) {
        await sleep(1_500);
        assert.equal((await control(rig.gateway, "POST", "/v1/reload")).status, 200);
      }
      for (const { code, stderr } of await Promise.all(runs)) assert.equal(code, 0, stderr);
      await assertHealthy(rig, baseline);
      resident.push(residentMiB(rig.gateway.pid));
      const sessions = await metric(rig.gateway, 'sluice_sessions_total{target="db"}');
      say(
        "load",
        `wave ${wave} (${mode}): ${sessions} sessions so far, ${Math.round(resident.at(-1) ?? 0)} MiB, ${descriptors(rig.gateway.pid)} descriptors`,
      );
    }
    assert.equal((await health(rig.gateway)).workers, 2);
    assert.equal(await metric(rig.gateway, "sluice_worker_restarts_total"), 0);
    // The heap finds its size in the first waves; after that it may breathe, not grow.
    const settled = resident[Math.floor(resident.length / 2)] ?? 0;
    assert.ok(
      (resident.at(-1) ?? 0) < settled * 1.5 + 100,
      `resident memory went from ${Math.round(settled)} to ${Math.round(resident.at(-1) ?? 0)} MiB`,
    );
  } finally {
    await rig.stop();
  }
}
