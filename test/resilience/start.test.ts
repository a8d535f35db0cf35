import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import { chmodSync, mkdirSync, writeFileSync } from "node:fs";
import { createServer, type Server } from "node:net";
import { join } from "node:path";
import { after, before, beforeEach, describe, it } from "node:test";
import { stringify } from "yaml";
import { type CommandResult, removeFolder, rootFolder, run, temporaryFolder } from "../helpers/processes.ts";
import { ALLOW_ALL } from "./rig.ts";

let folder: string;
let taken: Server;
let takenPort: number;

before(async () => {
  taken = createServer();
  await new Promise<void>((resolve) => taken.listen(0, "127.0.0.1", resolve));
  takenPort = (taken.address() as { port: number }).port;
});
after(() => taken.close());
beforeEach((context) => {
  folder = temporaryFolder("start");
  if ("after" in context) context.after(() => removeFolder(folder));
});

const CONFIG = {
  version: 1,
  data: "./data",
  keys: "./keys",
  workers: 1,
  control: { listen: "127.0.0.1:0" },
  listeners: [{ protocol: "postgres", listen: "127.0.0.1:0" }],
  identity: { issuers: [{ name: "corp", type: "oidc", issuer: "http://127.0.0.1:1", audience: "sluice" }] },
  targets: [{ name: "db", protocol: "postgres", address: "127.0.0.1:1", database: "d", user: "u", tls: { mode: "disable" } }],
  policies: ["./policy.yaml"],
};

/** `./sluice serve` on these files; it has to end by itself. */
async function serve(config: object, policy = ALLOW_ALL): Promise<CommandResult & { millis: number }> {
  writeFileSync(join(folder, "sluice.yaml"), stringify(config));
  writeFileSync(join(folder, "policy.yaml"), policy);
  const started = performance.now();
  const result = await run(join(rootFolder, "sluice"), ["serve", "-c", join(folder, "sluice.yaml")], {
    cwd: folder,
    timeoutMillis: 15_000,
  });
  assert.equal(result.stdout, "", "it said that it was ready");
  return { ...result, millis: performance.now() - started };
}

describe("a gateway that cannot start says why and exits 2", () => {
  it("unknown key: file, line, key", async () => {
    const { code, stderr } = await serve({ ...CONFIG, colour: "blue" });
    assert.equal(code, 2);
    assert.match(stderr, /sluice\.yaml:\d+:\d+: colour: unknown key/);
  });

  it("wrong value", async () => {
    const { code, stderr } = await serve({ ...CONFIG, workers: "many" });
    assert.equal(code, 2);
    assert.match(stderr, /sluice\.yaml:4:\d+: workers: expected/);
  });

  it("not YAML", async () => {
    writeFileSync(join(folder, "broken.yaml"), "version: 1\n  data: [\n");
    const { code, stderr } = await run(join(rootFolder, "sluice"), ["serve", "-c", join(folder, "broken.yaml")]);
    assert.equal(code, 2);
    assert.match(stderr, /broken\.yaml:\d+:\d+: not valid YAML/);
  });

  it("bad policy", async () => {
    const { code, stderr } = await serve(CONFIG, "version: 1\nrules:\n  - { name: a, effect: allow, when: 'operation.nonsense ==' }\n");
    assert.equal(code, 2);
    assert.match(stderr, /policy\.yaml:3:\d+: .*when/);
  });

  it("no file", async () => {
    const { code, stderr } = await run(join(rootFolder, "sluice"), ["serve", "-c", join(folder, "none.yaml")]);
    assert.equal(code, 2);
    assert.match(stderr, /none\.yaml/);
  });

  it("an address that is in use", async () => {
    const { code, stderr, millis } = await serve({ ...CONFIG, listeners: [{ protocol: "postgres", listen: `127.0.0.1:${takenPort}` }] });
    assert.equal(code, 2, stderr);
    assert.match(stderr, new RegExp(`127\\.0\\.0\\.1 port ${takenPort}: EADDRINUSE`));
    assert.ok(millis < 12_000);
  });

  it("a control address that is in use", async () => {
    const { code, stderr } = await serve({ ...CONFIG, control: { listen: `127.0.0.1:${takenPort}` } });
    assert.equal(code, 2, stderr);
    assert.match(stderr, new RegExp(`127\\.0\\.0\\.1:${takenPort}`));
  });

  it("a data folder that is a file", async () => {
    writeFileSync(join(folder, "data"), "");
    const { code, stderr } = await serve(CONFIG);
    assert.equal(code, 2, stderr);
    assert.match(stderr, /data/);
  });

  it("a data folder on a file system that is mounted read-only", async (context) => {
    const data = join(folder, "data");
    mkdirSync(data);
    if (spawnSync("mount", ["-t", "tmpfs", "-o", "ro", "tmpfs", data]).status !== 0)
      return context.diagnostic("NOT TESTED: mounting a tmpfs needs root");
    try {
      const { code, stderr } = await serve(CONFIG);
      assert.equal(code, 2, stderr);
      assert.match(stderr, /data/);
      assert.match(stderr, /EROFS|read-only/);
    } finally {
      spawnSync("umount", ["-l", data]);
    }
  });

  it("a damaged key of masks", async () => {
    mkdirSync(join(folder, "keys"));
    writeFileSync(join(folder, "keys", "mask.key"), "short");
    chmodSync(join(folder, "keys", "mask.key"), 0o600);
    const { code, stderr } = await serve(CONFIG);
    assert.equal(code, 2, stderr);
    assert.match(stderr, /mask\.key/);
  });
});
