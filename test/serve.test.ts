import assert from "node:assert/strict";
import { type ChildProcess, execFile, spawn, spawnSync } from "node:child_process";
import { copyFileSync, existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync, symlinkSync, writeFileSync } from "node:fs";
import { connect } from "node:net";
import { tmpdir } from "node:os";
import { join, resolve } from "node:path";
import { createInterface } from "node:readline";
import { after, before, it } from "node:test";
import { setTimeout as sleep } from "node:timers/promises";
import { addonFolder } from "../core/native/build.ts";

const LAUNCHER = resolve(import.meta.dirname, "..", "sluice");
const RUN_MILLIS = 60_000;
const POLICY = "version: 1\nrules:\n  - { name: read, actions: [read], effect: allow }\n";

interface Ready {
  readonly event: string;
  readonly listeners: readonly string[];
  readonly control: string;
  readonly socket: string;
  readonly pid: number;
}

let folder: string;
const started: ChildProcess[] = [];

before(() => {
  folder = mkdtempSync(join(tmpdir(), "sluice-serve-"));
  writeFileSync(
    join(folder, "sluice.yaml"),
    `version: 1
data: ./data
keys: ./keys
workers: 1
control: { listen: "127.0.0.1:0" }
listeners:
  - { protocol: postgres, listen: "127.0.0.1:0" }
identity:
  issuers:
    - { name: corp, type: oidc, issuer: "http://127.0.0.1:1", audience: sluice }
targets:
  - { name: orders, protocol: postgres, address: "127.0.0.1:1", database: orders, user: svc, password: x, tls: { mode: disable } }
policies: [ ./policy.yaml ]
`,
  );
  writeFileSync(join(folder, "policy.yaml"), POLICY);
});
after(() => {
  for (const child of started) if (child.exitCode === null) child.kill("SIGKILL");
  rmSync(folder, { recursive: true });
});

/** Start a gateway and wait for its ready line; the promise `exited` gives its exit status. */
async function serve(
  env: Readonly<Record<string, string>> = {},
): Promise<{ child: ChildProcess; ready: Ready; exited: Promise<number | null>; lines: string[] }> {
  const child = spawn(LAUNCHER, ["serve"], {
    cwd: folder,
    stdio: ["ignore", "pipe", "pipe"],
    timeout: RUN_MILLIS,
    env: { ...process.env, ...env },
  });
  started.push(child);
  let err = "";
  child.stderr.on("data", (chunk) => {
    err += chunk;
  });
  const exited = new Promise<number | null>((done) => child.once("close", done));
  const lines: string[] = [];
  const ready = await new Promise<Ready>((done, reject) => {
    createInterface(child.stdout).on("line", (line) => {
      lines.push(line);
      done(JSON.parse(line));
    });
    child.once("close", (code) => reject(new Error(`serve ended with ${code}: ${err}`)));
  });
  return { child, ready, exited, lines };
}

function sluice(...parameters: string[]): Promise<{ code: number; out: string; err: string }> {
  return new Promise((done) => {
    execFile(LAUNCHER, parameters, { cwd: folder, timeout: RUN_MILLIS }, (error, out, err) =>
      done({ code: Number(error?.code ?? 0), out, err }),
    );
  });
}

it("serves, is administered over its socket, reloads, keeps locks over a restart, and ends on SIGTERM", {
  timeout: RUN_MILLIS * 2,
}, async () => {
  const first = await serve();
  assert.equal(first.ready.event, "ready");
  assert.equal(first.ready.pid, first.child.pid);
  assert.equal(first.ready.socket, join(folder, "data", "control.sock"));
  for (const address of [...first.ready.listeners, first.ready.control]) {
    const port = Number(address.split(":")[1]);
    await new Promise<void>((done, reject) => {
      const socket = connect(port, "127.0.0.1", () => {
        socket.destroy();
        done();
      });
      socket.once("error", reject);
    });
  }

  const second = await sluice("serve");
  assert.equal(second.code, 2);
  assert.equal(second.out, "");
  assert.match(second.err, new RegExp(`in use by the gateway with process id ${first.ready.pid}`));

  const added = JSON.parse((await sluice("lock", "add", "user:alice", "--reason", "gone", "--ttl", "1h", "-o", "json")).out);
  assert.equal(added.lock.subject, "user:corp:alice");
  assert.equal(added.killed, 0);
  assert.equal((await sluice("sessions", "kill", "none")).code, 1);

  writeFileSync(join(folder, "policy.yaml"), `${POLICY}  - { name: bad, effect: perhaps }\n`);
  await until(async () =>
    (await fetch(`http://${first.ready.control}/metrics`).then((answer) => answer.text())).includes(
      'sluice_reload_total{result="refused"} 1',
    ),
  );
  assert.equal((await fetch(`http://${first.ready.control}/readyz`)).status, 200);
  writeFileSync(join(folder, "policy.yaml"), POLICY);
  first.child.kill("SIGHUP");

  await until(async () => /"type":"config".*"reloaded"/.test((await sluice("audit", "tail", "-o", "json")).out));
  const events = (await sluice("audit", "tail", "-o", "json")).out
    .trim()
    .split("\n")
    .map((line) => JSON.parse(line));
  const lock = events.find((event) => event.type === "lock");
  assert.equal(lock.detail.lock, added.lock.id);
  assert.match(lock.detail.by, /^local:/);

  first.child.kill("SIGTERM");
  assert.equal(await first.exited, 0);
  assert.equal(first.lines.length, 1, "stdout holds more than the ready line");
  assert.ok(!existsSync(first.ready.socket) && !existsSync(join(folder, "data", "gateway.lock")));

  const again = await serve();
  assert.deepEqual(JSON.parse((await sluice("lock", "list", "-o", "json")).out), [added.lock]);
  assert.equal((await sluice("lock", "remove", added.lock.id)).code, 0);
  assert.deepEqual(JSON.parse(readFileSync(join(folder, "data", "locks.json"), "utf8")).locks, []);
  // Killed without a chance to tidy up: the next one takes the folder over.
  again.child.kill("SIGKILL");
  await again.exited;
  const third = await serve();
  third.child.kill("SIGINT");
  assert.equal(await third.exited, 0);
});

it("keeps a SIGHUP that comes while it starts, and reloads once it is up", { timeout: RUN_MILLIS }, async () => {
  const starting = serve();
  await until(async () => existsSync(join(folder, "data", "gateway.lock")));
  started.at(-1)?.kill("SIGHUP");
  const { child, exited } = await starting;
  await until(async () =>
    /"by":"signal SIGHUP","change":"reloaded"/.test((await sluice("audit", "tail", "-o", "json")).out.split("\n").slice(-4).join("\n")),
  );
  child.kill("SIGTERM");
  assert.equal(await exited, 0);
});

/** How many chunks of V8's heap lie where V8 put them: mappings of 256 KiB with nothing beside them. */
function scatteredChunks(pid: number): number {
  const ranges = readFileSync(`/proc/${pid}/maps`, "utf8").split("\n");
  return ranges.filter((line) => {
    const [from = 0, to = 0] = (line.split(" ")[0] ?? "").split("-").map((part) => Number.parseInt(part, 16));
    return to - from === 256 * 1024 && line.includes(" rw-p 00000000 00:00 0");
  }).length;
}

it("has V8's heap in one place, unless SLUICE_LARGE_PAGES says off", { timeout: RUN_MILLIS }, async () => {
  const library = (pid: number): boolean => readFileSync(`/proc/${pid}/maps`, "utf8").includes("sluice_heap.node");
  for (const [setting, there] of [["on", true] as const, ["off", false] as const]) {
    const { ready, child, exited } = await serve({ SLUICE_LARGE_PAGES: setting });
    assert.equal(library(ready.pid), there, setting);
    const chunks = scatteredChunks(ready.pid);
    assert.ok(there ? chunks < 20 : chunks > 40, `${setting}: ${chunks} chunks lie scattered`);
    child.kill("SIGTERM");
    assert.equal(await exited, 0);
  }
  const refused = spawnSync(LAUNCHER, ["serve"], { cwd: folder, encoding: "utf8", env: { ...process.env, SLUICE_LARGE_PAGES: "some" } });
  assert.equal(refused.status, 1);
  assert.match(refused.stderr, /SLUICE_LARGE_PAGES is "some"[^]*on \(as without it\) or off/);
});

it("starts from any folder, and preloads from those that the dynamic linker's list can name", { timeout: RUN_MILLIS }, () => {
  const stub = `const maps = require("node:fs").readFileSync("/proc/self/maps", "utf8");
    console.log(JSON.stringify([maps.includes("sluice_heap.node"), process.env.LD_PRELOAD ?? null, process.argv.slice(2)]));`;
  for (const [name, there] of [["plain", true] as const, ["a b", false] as const, ["a:b", false] as const, ["a$LIB", false] as const]) {
    const root = join(folder, name);
    for (const part of ["core/native/build/Release", "node_modules/.bin", "control/cli"]) mkdirSync(join(root, part), { recursive: true });
    copyFileSync(LAUNCHER, join(root, "sluice"));
    copyFileSync(join(addonFolder(), "sluice_heap.node"), join(root, "core/native/build/Release/sluice_heap.node"));
    symlinkSync(process.execPath, join(root, "node_modules/.bin/node"));
    writeFileSync(join(root, "control/cli/main.ts"), stub);
    symlinkSync(join(root, "sluice"), join(folder, `link ${name}`));
    const { status, stdout, stderr } = spawnSync(join(folder, `link ${name}`), ["serve", "-c", "x y"], { encoding: "utf8" });
    assert.deepEqual([status, stderr, JSON.parse(stdout)], [0, "", [there, null, ["serve", "-c", "x y"]]], name);
  }
});

async function until(holds: () => Promise<boolean>): Promise<void> {
  const deadline = Date.now() + 15_000;
  while (!(await holds())) {
    assert.ok(Date.now() < deadline, "it did not happen in time");
    await sleep(100);
  }
}
