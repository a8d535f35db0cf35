import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { chmodSync, mkdirSync, mkdtempSync, readFileSync, rmSync, symlinkSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join, resolve } from "node:path";
import { after, before, describe, it } from "node:test";
import { ERROR_CODES } from "../core/errors.ts";

const LAUNCHER = resolve(import.meta.dirname, "..", "sluice");
const RUN_MILLIS = 20_000;

let folder: string;
before(() => {
  folder = mkdtempSync(join(tmpdir(), "sluice-cli-"));
});
after(() => rmSync(folder, { recursive: true }));

interface Result {
  readonly code: number | null;
  readonly out: string;
  readonly err: string;
}

function sluice(parameters: readonly string[], env: Record<string, string> = {}, launcher = LAUNCHER): Promise<Result> {
  return new Promise((resolve, reject) => {
    const child = spawn(launcher, parameters, {
      cwd: folder,
      env: { ...process.env, SLUICE_TOKEN: "", ...env },
      stdio: ["ignore", "pipe", "pipe"],
      timeout: RUN_MILLIS,
    });
    let out = "";
    let err = "";
    child.stdout.on("data", (chunk) => {
      out += chunk;
    });
    child.stderr.on("data", (chunk) => {
      err += chunk;
    });
    child.once("error", reject);
    child.once("close", (code) => resolve({ code, out, err }));
  });
}

const CONFIG = `version: 1
data: ./data
keys: ./keys
workers: 1
listeners:
  - { protocol: postgres, listen: "127.0.0.1:15432" }
identity:
  issuers:
    - { name: corp, type: oidc, issuer: "http://127.0.0.1:1", audience: sluice }
targets:
  - { name: orders, protocol: postgres, address: "127.0.0.1:1", database: orders, user: svc, password: "\${env:ORDERS_PASSWORD}", tls: { mode: disable } }
policies: [ ./policy.yaml ]
`;
const POLICY = `version: 1
rules:
  - name: analysts-read
    who: { groups: [analytics] }
    actions: [read]
    resources: ["public.*"]
    effect: allow
  - name: no-drop
    actions: [sql:drop]
    effect: deny
    message: Schema changes go through migrations.
limits:
  - { name: analysts, who: { groups: [analytics] }, rows: 1000, sessions: 5, per: 90s }
  - { name: others, who: { groups: [dba] }, rows: 1000, per: 1h }
`;
const SECRET = { ORDERS_PASSWORD: "correct-horse" };

function write(config = CONFIG, policy = POLICY): void {
  writeFileSync(join(folder, "sluice.yaml"), config);
  writeFileSync(join(folder, "policy.yaml"), policy);
}

describe("check", () => {
  it("passes a good configuration", async () => {
    write();
    const text = await sluice(["check"], SECRET);
    assert.equal(text.code, 0, text.err);
    assert.match(text.out, /is valid: 1 targets, 2 rules/);
    const json = JSON.parse((await sluice(["check", "-c", "sluice.yaml", "-o", "json"], SECRET)).out);
    assert.deepEqual([json.ok, json.targets, json.issuers], [true, ["orders"], ["corp"]]);
  });

  const bad: readonly (readonly [string, () => void, RegExp])[] = [
    ["an unknown key", () => write(CONFIG.replace("workers: 1", "wrokers: 1")), /sluice\.yaml:4:\d+: wrokers/],
    ["a wrong type", () => write(CONFIG.replace("workers: 1", "workers: many")), /sluice\.yaml:4:\d+: workers: expected/],
    ["broken YAML", () => write(CONFIG.replace("keys: ./keys", "keys: [")), /sluice\.yaml:\d+/],
    ["a missing policy file", () => write(CONFIG.replace("policy.yaml", "none.yaml")), /sluice\.yaml:12:\d+: policies\[0\]/],
    [
      "a policy with an unknown effect",
      () => write(CONFIG, POLICY.replace("effect: allow", "effect: perhaps")),
      /policy\.yaml:7:\d+: rules\[0\]\.effect/,
    ],
    [
      "a policy with an unknown action",
      () => write(CONFIG, POLICY.replace("sql:drop", "sql:dorp")),
      /policy\.yaml:9:\d+: rules\[1\]\.actions/,
    ],
  ];
  for (const [name, arrange, expected] of bad) {
    it(`${name}: exit 2 and file, line and key`, async () => {
      arrange();
      // serve loads them the same way; two cases show it.
      for (const command of name.includes("unknown key") || name.includes("effect") ? ["check", "serve"] : ["check"]) {
        const { code, out, err } = await sluice([command], SECRET);
        assert.equal(code, 2, err);
        assert.equal(out, "");
        assert.match(err, expected);
        assert.match(err, /^hint: /m);
        assert.ok(!err.includes("correct-horse"));
      }
    });
  }

  it("a missing file, and a secret that is not set: exit 2", async () => {
    write();
    const missing = await sluice(["check", "-c", "nowhere.yaml"]);
    assert.equal(missing.code, 2);
    assert.match(missing.err, /nowhere\.yaml: cannot be read: no such file/);
    const unset = await sluice(["check"], { ORDERS_PASSWORD: "" });
    assert.equal(unset.code, 2);
    assert.match(unset.err, /targets\[0\]\.password.*ORDERS_PASSWORD/);
  });
});

describe("policy", () => {
  const explain = (statement: string, group: string, ...more: string[]) =>
    sluice(["policy", "explain", "--user", "alice", "--group", group, "--target", "orders", "--statement", statement, ...more], SECRET);

  it("explain says which rule decides, and why the others do not", async () => {
    write();
    const allowed = await explain("select * from customers", "analytics");
    assert.equal(allowed.code, 0, allowed.err);
    assert.match(allowed.out, /allow.*analysts-read/);
    assert.match(allowed.out, /no-drop/);
    assert.match(allowed.out, /^limit +analysts: 1000 rows per 90 s, 5 sessions$/m);
    assert.doesNotMatch(allowed.out, /others/);
    const denied = JSON.parse((await explain("drop table customers", "analytics", "-o", "json")).out);
    assert.equal(denied.effect, "deny");
    assert.equal(denied.rule, "no-drop");
    const stranger = await explain("select 1", "marketing");
    assert.equal(stranger.code, 0);
    assert.match(stranger.out, /deny/);
  });

  it("test: exit 0 when all cases hold, 1 when one does not, 2 for a bad file", async () => {
    write();
    const file = join(folder, "cases.yaml");
    const cases = (expect: string) => `version: 1
tests:
  - name: analysts read customers
    identity: { user: alice, groups: [analytics] }
    target: orders
    statement: select * from customers
    expect: ${expect}
`;
    writeFileSync(file, cases("allow"));
    const good = await sluice(["policy", "test", "cases.yaml"], SECRET);
    assert.equal(good.code, 0, good.err + good.out);
    writeFileSync(file, cases("deny"));
    const wrong = await sluice(["policy", "test", "cases.yaml"], SECRET);
    assert.equal(wrong.code, 1, wrong.err + wrong.out);
    assert.match(wrong.out, /analysts read customers/);
    writeFileSync(file, cases("maybe"));
    const bad = await sluice(["policy", "test", "cases.yaml"], SECRET);
    assert.equal(bad.code, 2, bad.out);
    assert.match(bad.err, /cases\.yaml:7/);
  });
});

describe("without a gateway", () => {
  before(() => write());

  it("reading works, secrets are not needed, and what needs a gateway says so", async () => {
    assert.deepEqual(JSON.parse((await sluice(["sessions", "list", "-o", "json"])).out), []);
    assert.deepEqual(JSON.parse((await sluice(["lock", "list", "-o", "json"])).out), []);
    assert.deepEqual(await sluice(["audit", "tail", "--format", "json"]), { code: 0, out: "", err: "" });
    for (const parameters of [
      ["lock", "add", "user:alice"],
      ["lock", "remove", "lock-1"],
      ["sessions", "kill", "s-1"],
    ]) {
      const { code, out, err } = await sluice(parameters);
      assert.equal(code, ERROR_CODES.SLUICE_GATEWAY_UNREACHABLE);
      assert.equal(out, "");
      assert.match(err, /cannot reach the gateway.*no gateway runs there\nhint: /);
    }
    assert.equal((await sluice(["sessions", "show", "none"])).code, ERROR_CODES.SLUICE_NOT_FOUND);
    assert.equal((await sluice(["sessions", "replay", "none"])).code, ERROR_CODES.SLUICE_NOT_FOUND);
  });

  it("locks of a stopped gateway are listed; an unreadable lock file is named", async () => {
    mkdirSync(join(folder, "data"), { recursive: true });
    const file = join(folder, "data", "locks.json");
    writeFileSync(
      file,
      JSON.stringify({
        version: 1,
        locks: [{ id: "lock-1", subject: "user:corp:alice", reason: "\u001b[2Jgone", by: "local:ops", createdMillis: 1 }],
      }),
    );
    const { out } = await sluice(["lock", "list"]);
    assert.match(out, /lock-1 +user:corp:alice/);
    assert.ok(!out.includes("\u001b"), "a terminal sequence came through");
    writeFileSync(file, "{");
    const broken = await sluice(["lock", "list"]);
    assert.equal(broken.code, 2);
    assert.match(broken.err, /locks\.json is not JSON/);
    rmSync(file);
  });

  it("usage errors exit 1 with a hint", async () => {
    for (const parameters of [
      ["bogus"],
      ["lock", "add", "user:a", "--ttl", "soon"],
      ["sessions", "list", "--limit", "0"],
      ["audit", "tail", "--format", "cef"],
      ["check", "-o", "xml"],
    ]) {
      const { code, err } = await sluice(parameters);
      assert.equal(code, 1, parameters.join(" "));
      assert.notEqual(err, "");
    }
  });

  it("doctor names what will not work", async () => {
    mkdirSync(join(folder, "data"), { recursive: true });
    chmodSync(join(folder, "data"), 0o755);
    const { code, out } = await sluice(["doctor", "-o", "json"], SECRET);
    assert.equal(code, 1);
    const findings = JSON.parse(out) as { check: string; status: string; detail: string }[];
    const status = (check: string) => findings.find((finding) => finding.check === check)?.status;
    assert.equal(status("node"), "ok");
    assert.equal(status("configuration"), "ok");
    assert.equal(status("data folder"), "warn");
    assert.equal(status("issuer and clock"), "fail");
  });
});

describe("connect", () => {
  const TOKEN = "eyJhbGciOiJub25lIn0.e30.x";
  before(() => write());

  it("prints a command without the token", async () => {
    const variable = await sluice(["connect", "orders", "--print"], { SLUICE_TOKEN: TOKEN });
    assert.equal(
      variable.out,
      `PGPASSWORD="$SLUICE_TOKEN" psql 'host=127.0.0.1 port=15432 dbname=orders user=sluice sslmode=disable gssencmode=disable'\n`,
    );
    writeFileSync(join(folder, "my token"), TOKEN);
    const file = await sluice(["connect", "orders", "--print", "--token-file", "my token", "--port", "1", "--", "-c", "select 'a'"]);
    assert.match(file.out, /^PGPASSWORD="\$\(cat 'my token'\)" psql 'host=127\.0\.0\.1 port=1 .*' -c 'select '\\''a'\\'''\n$/);
  });

  it("gives psql the token in its environment, never as an argument, and passes its exit status on", async () => {
    const bin = join(folder, "bin");
    mkdirSync(bin);
    writeFileSync(join(bin, "psql"), '#!/bin/sh\nprintf "%s\\n" "$PGPASSWORD" "${SLUICE_TOKEN-unset}" "$@" > seen\nexit 3\n', {
      mode: 0o755,
    });
    const { code } = await sluice(["connect", "orders"], { SLUICE_TOKEN: TOKEN, PATH: `${bin}:${process.env.PATH}` });
    assert.equal(code, 3);
    const [password, variable, ...parameters] = readFileSync(join(folder, "seen"), "utf8").trimEnd().split("\n");
    assert.deepEqual([password, variable], [TOKEN, "unset"]);
    assert.ok(parameters.length === 1 && !parameters[0]?.includes(TOKEN));
  });

  it("refuses an unknown target, a missing token, and a token without TLS beyond this machine", async () => {
    assert.match((await sluice(["connect", "nope"])).err, /no target is named "nope"\nhint: There are: orders/);
    assert.match((await sluice(["connect", "orders"])).err, /there is no token/);
    assert.match((await sluice(["connect", "orders", "--host", "gw.example"], { SLUICE_TOKEN: TOKEN })).err, /has no tls/);
  });
});

describe("the launcher", () => {
  it("works through links, and says what is missing when the project is not set up", async () => {
    symlinkSync(LAUNCHER, join(folder, "first"));
    symlinkSync("first", join(folder, "second"));
    assert.match((await sluice(["--version"], {}, join(folder, "second"))).out, /^\d+\.\d+\.\d+\n$/);
    const bare = join(folder, "bare");
    mkdirSync(bare);
    writeFileSync(join(bare, "sluice"), readFileSync(LAUNCHER), { mode: 0o755 });
    const { code, err } = await sluice(["check"], {}, join(bare, "sluice"));
    assert.equal(code, 1);
    assert.match(err, /not set up\.\nhint: run `npm install`/);
  });
});
