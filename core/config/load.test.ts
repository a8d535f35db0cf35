import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { mkdirSync, mkdtempSync, rmSync, symlinkSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, test } from "node:test";
import { SluiceError } from "../errors.ts";
import { type LoadedConfig, loadConfig } from "./load.ts";

const folder = mkdtempSync(join(tmpdir(), "sluice-config-"));
after(() => rmSync(folder, { recursive: true }));
const at = (name: string): string => join(folder, name);

mkdirSync(at("tls"));
for (const name of ["server", "other"]) {
  const options = [
    "req",
    "-x509",
    "-newkey",
    "ec",
    "-pkeyopt",
    "ec_paramgen_curve:prime256v1",
    "-nodes",
    "-days",
    "2",
    "-subj",
    "/CN=localhost",
  ];
  execFileSync("openssl", [...options, "-keyout", at(`tls/${name}.key`), "-out", at(`tls/${name}.crt`)], { stdio: "ignore" });
}
writeFileSync(at("policy.yaml"), "version: 1\nrules: [{ name: r, effect: allow }]\n");
writeFileSync(at("password"), "from-a-file\n");

const BASE = `version: 1
data: ./data
keys: ./keys
listeners:
  - { protocol: postgres, listen: 127.0.0.1:15432, tls: { cert: tls/server.crt, key: tls/server.key } }
identity:
  issuers:
    - { name: corp, type: oidc, issuer: https://idp.example.com, audience: sluice }
targets:
  - name: orders
    protocol: postgres
    address: 10.0.0.5:5432
    database: orders
    user: svc_orders
    password: \${env:ORDERS_PASSWORD}
policies: [./policy.yaml]
`;
const ENV = { ORDERS_PASSWORD: "s3cret-value" };
let number = 0;

function load(text: string, env: Record<string, string | undefined> = ENV): LoadedConfig {
  const file = at(`sluice-${++number}.yaml`);
  writeFileSync(file, text);
  return loadConfig(file, env);
}

/** The lines of the error, without the file's folder and number. */
function errors(text: string, env: Record<string, string | undefined> = ENV): string[] {
  try {
    load(text, env);
  } catch (error) {
    assert(error instanceof SluiceError, String(error));
    assert(!error.message.includes("s3cret-value") && !error.message.includes("from-a-file"), "a secret stands in the error");
    return error.message.split("\n").map((line) => line.replace(`${folder}/`, "").replace(/^sluice-\d+/, "sluice"));
  }
  return [];
}

const change = (from: string | RegExp, to: string): string => {
  const text = BASE.replace(from, to);
  assert.notEqual(text, BASE, String(from));
  return text;
};

test("defaults are filled in, paths are absolute, and the result is plain data", () => {
  const loaded = load(BASE);
  const { config } = structuredClone(loaded);
  assert.equal(config.data, at("data"));
  assert.equal(config.keys, at("keys"));
  assert(config.workers >= 1);
  assert.deepEqual(config.control, { listen: undefined, tls: undefined });
  assert.match(config.listeners[0]?.tls?.cert ?? "", /BEGIN CERTIFICATE/);
  assert.deepEqual(config.issuers[0], {
    name: "corp",
    type: "oidc",
    issuer: "https://idp.example.com",
    audience: ["sluice"],
    groupsClaim: "groups",
    userClaim: "sub",
    algorithms: ["RS256", "ES256", "PS256", "EdDSA"],
    clockSkewSeconds: 30,
  });
  assert.deepEqual(config.targets[0], {
    name: "orders",
    protocol: "postgres",
    address: { host: "10.0.0.5", port: 5432 },
    database: "orders",
    user: "svc_orders",
    password: "s3cret-value",
    tls: { mode: "verify-full", ca: undefined, serverName: undefined },
    labels: {},
    connections: { max: 100 },
    record: { results: "head", headBytes: 1_000_000 },
  });
  assert.equal(config.onExpiry, "finish");
  assert.deepEqual(config.limits, { sessions: 10_000, connectionsPerAddress: 0, idleMillis: 0 });
  assert.deepEqual(config.log, { level: "info" });
  assert.equal(loaded.policy.rules[0]?.name, "r");
  assert.deepEqual(
    loaded.policySources.map((source) => source.file),
    [at("policy.yaml")],
  );
});

test("a secret in a place where it does not belong is not repeated", () => {
  const cases: readonly (readonly [string, RegExp])[] = [
    [change("10.0.0.5:5432", '"postgres://svc:pa/ss@w@db.example:5432/orders?x=y"'), /got "postgres:\/\/\(not shown\)@db\.example/],
    [change("10.0.0.5:5432", `"host=db Password = 's3cret-\\\\'v alue' port=5432"`), /got "host=db Password = \(not shown\) port=5432"/],
    [change("https://idp.example.com", "https://svc:s3cret-value@idp.example.com/?x"), /got "https:\/\/\(not shown\)@idp/],
    [change("key: tls/server.key", 'key: "-----BEGIN PRIVATE KEY-----\\nMC4CAQAw"'), /key: expected a path, got "\(PEM text\)"/],
  ];
  for (const [text, shown] of cases) {
    const lines = errors(text).join("\n");
    assert.match(lines, shown);
    assert.doesNotMatch(lines, /pa\/ss|w@db|s3cret|alue|MC4/);
  }
});

test("more workers than there are slots for, twice over, are refused", () => {
  assert.equal(load(change("listeners:", "workers: 64\nlisteners:")).config.workers, 64);
  assert.match(
    errors(change("listeners:", "workers: 65\nlisteners:")).join(),
    /workers: expected auto or a whole number from 1 to 64, got 65/,
  );
});

test("everything that can be set", () => {
  const { config, files } = load(
    `version: 1
data: ./data
keys: ./keys
workers: 3
control: { listen: "[::1]:0", tls: { cert: tls/server.crt, key: tls/server.key } }
listeners:
  - { protocol: postgres, listen: 127.0.0.1:0 }
  - { protocol: postgres, listen: 127.0.0.1:0, proxyProtocol: { from: [10.0.0.0/8, "fd00::/8", 192.0.2.1] } }
identity:
  onExpiry: cut
  issuers:
    - { name: dev, type: oidc, issuer: http://127.0.0.1:8080, audience: [a, b], groups: roles, userClaim: email, algorithms: [ES384], clockSkewSeconds: 0 }
targets:
  - name: a
    protocol: postgres
    address: /var/run/postgresql:5433
    database: x
    user: y
    password: "\${file:password}"
    labels: { env: test }
    record: { results: full }
  - { name: b, protocol: postgres, address: "db:5432", database: x, user: "u_\${env:PART}_$\${x}", tls: { mode: verify-full, ca: tls/other.crt, serverName: db } }
  - { name: c, protocol: postgres, address: "127.0.0.1:5432", database: x, user: y, record: { headBytes: 64KiB } }
record: { results: digest, headBytes: 2MB }
limits: { sessions: 5, connectionsPerAddress: 7, idle: 1h }
log: { level: debug }
policies: [policy.yaml]
`,
    { PART: "p" },
  );
  assert.equal(config.workers, 3);
  assert.deepEqual(config.control.listen, { host: "::1", port: 0 });
  assert.equal(config.onExpiry, "cut");
  assert.deepEqual(
    config.listeners.map((listener) => listener.proxyProtocol),
    [undefined, { from: ["10.0.0.0/8", "fd00::/8", "192.0.2.1"] }],
  );
  assert.deepEqual(config.issuers[0]?.audience, ["a", "b"]);
  assert.equal(config.issuers[0]?.groupsClaim, "roles");
  const [a, b, c] = config.targets;
  assert.deepEqual(a?.address, { path: "/var/run/postgresql/.s.PGSQL.5433" });
  assert.equal(a?.password, "from-a-file");
  assert.equal(a?.tls.mode, "disable");
  assert.deepEqual(a?.record, { results: "full", headBytes: 2_000_000 });
  assert.equal(b?.user, "u_p_${x}");
  assert.match(b?.tls.ca ?? "", /BEGIN/);
  assert.equal(c?.tls.mode, "disable");
  assert.deepEqual(c?.record, { results: "digest", headBytes: 65_536 });
  assert.deepEqual(config.limits, { sessions: 5, connectionsPerAddress: 7, idleMillis: 3_600_000 });
  for (const name of ["tls/server.crt", "tls/server.key", "tls/other.crt", "password", "policy.yaml"])
    assert(files.includes(at(name)), name);
});

const cases: [what: string, text: () => string, expected: string][] = [
  [
    "unknown key",
    () => change("keys: ./keys", "keys: ./keys\nworkrs: 2"),
    "sluice.yaml:4:1: workrs: unknown key; expected one of version, data",
  ],
  [
    "nested unknown key",
    () => change("audience: sluice", "audiense: sluice"),
    "sluice.yaml:8:66: identity.issuers[0].audiense: unknown key",
  ],
  [
    "missing key",
    () => change("    database: orders\n", ""),
    "sluice.yaml:10:5: targets[0].database: expected text on one line, got nothing (the key is missing)",
  ],
  ["wrong version", () => change("version: 1", "version: 2"), "sluice.yaml:1:10: version: expected 1, got 2"],
  [
    "wrong type",
    () => change("listeners:", "workers: many\nlisteners:"),
    'sluice.yaml:4:10: workers: expected auto or a whole number from 1 to 64, got "many"',
  ],
  [
    "a protocol of later",
    () => change(/ {2}- \{ protocol: postgres.*\n/, "  - { protocol: ssh, listen: 127.0.0.1:1, hostKeys: [k] }\n"),
    'sluice.yaml:5:17: listeners[0].protocol: expected postgres, got "ssh": this protocol is not available in this version',
  ],
  [
    "a protocol of never",
    () => change("protocol: postgres\n", "protocol: gopher\n"),
    'sluice.yaml:11:15: targets[0].protocol: expected postgres, got "gopher"',
  ],
  [
    "http issuer",
    () => change("https://idp", "http://idp"),
    'sluice.yaml:8:41: identity.issuers[0].issuer: expected https (plain http is accepted for loopback hosts only), got "http://idp.example.com"',
  ],
  [
    "loopback by name only",
    () => change("https://idp.example.com", "http://127.0.0.1.evil.example"),
    "sluice.yaml:8:41: identity.issuers[0].issuer: expected https",
  ],
  [
    "issuer with password",
    () => change("https://idp", "https://u:hunter2@idp"),
    "sluice.yaml:8:41: identity.issuers[0].issuer: expected the issuer's URL without user and password",
  ],
  [
    "algorithm none",
    () => change("audience: sluice", "audience: sluice, algorithms: [none]"),
    "sluice.yaml:8:97: identity.issuers[0].algorithms[0]: expected one of RS256",
  ],
  [
    "symmetric algorithm",
    () => change("audience: sluice", "audience: sluice, algorithms: [HS256]"),
    "sluice.yaml:8:97: identity.issuers[0].algorithms[0]: expected one of RS256",
  ],
  [
    "skew",
    () => change("audience: sluice", "audience: sluice, clockSkewSeconds: 61"),
    "sluice.yaml:8:102: identity.issuers[0].clockSkewSeconds: expected a whole number from 0 to 60, got 61",
  ],
  [
    "no audience",
    () => change("audience: sluice", "audience: []"),
    "sluice.yaml:8:76: identity.issuers[0].audience: expected text or a list of texts that is not empty",
  ],
  [
    "address",
    () => change("10.0.0.5:5432", "10.0.0.5"),
    'sluice.yaml:12:14: targets[0].address: expected host:port, [IPv6]:port or the path of a PostgreSQL socket, got "10.0.0.5"',
  ],
  ["port", () => change("10.0.0.5:5432", "10.0.0.5:70000"), "sluice.yaml:12:14: targets[0].address: expected host:port"],
  [
    "listen port",
    () => change("127.0.0.1:15432", "127.0.0.1:99999"),
    'sluice.yaml:5:35: listeners[0].listen: expected a port from 0 to 65535, got "127.0.0.1:99999"',
  ],
  [
    "missing certificate",
    () => change("cert: tls/server.crt", "cert: tls/none.crt"),
    'sluice.yaml:5:65: listeners[0].tls.cert: expected a readable file, got "tls/none.crt" (no such file)',
  ],
  [
    "not a certificate",
    () => change("cert: tls/server.crt", "cert: policy.yaml"),
    "sluice.yaml:5:65: listeners[0].tls.cert: expected a PEM file with a certificate",
  ],
  [
    "a key that does not belong",
    () => change("key: tls/server.key", "key: tls/other.key"),
    "sluice.yaml:5:86: listeners[0].tls.key: expected the private key that belongs to cert, got another",
  ],
  [
    "a key that is none",
    () => change("key: tls/server.key", "key: tls/server.crt"),
    "sluice.yaml:5:86: listeners[0].tls.key: expected a PEM file with a private key",
  ],
  [
    "proxies without networks",
    () => change("listen: 127.0.0.1:15432", "proxyProtocol: { from: [] }, listen: 127.0.0.1:15432"),
    "sluice.yaml:5:50: listeners[0].proxyProtocol.from: expected a list of networks such as 10.0.0.0/8 that is not empty",
  ],
  [
    "proxies that are no network",
    () => change("listen: 127.0.0.1:15432", "proxyProtocol: { from: [10.0.0.0/8, lb.example] }, listen: 127.0.0.1:15432"),
    'sluice.yaml:5:63: listeners[0].proxyProtocol.from[1]: expected a network such as 10.0.0.0/8 or 2001:db8::/32, or one address, got "lb.example"',
  ],
  [
    "everybody as a proxy",
    () => change("listen: 127.0.0.1:15432", "proxyProtocol: { from: [0.0.0.0/0] }, listen: 127.0.0.1:15432"),
    "sluice.yaml:5:51: listeners[0].proxyProtocol.from[0]: expected the networks of your own load balancers",
  ],
  [
    "fewer than no connections",
    () => `${BASE}limits: { connectionsPerAddress: -1 }\n`,
    "sluice.yaml:17:34: limits.connectionsPerAddress: expected a whole number from 0 to 1000000, got -1",
  ],
  [
    "control without TLS",
    () => change("listeners:", "control: { listen: 0.0.0.0:8443 }\nlisteners:"),
    "sluice.yaml:4:10: control: expected tls (cert, key), got none",
  ],
  [
    "keys inside data",
    () => change("keys: ./keys", "keys: ./data/keys"),
    'sluice.yaml:3:7: keys: expected a folder outside data, got "./data/keys"',
  ],
  ["keys are data", () => change("keys: ./keys", "keys: data"), "sluice.yaml:3:7: keys: expected a folder outside data"],
  [
    "address twice",
    () => change("listeners:", "control: { listen: 127.0.0.1:15432 }\nlisteners:"),
    'sluice.yaml:6:35: listeners[0].listen: expected an address of its own, got "127.0.0.1:15432" a second time',
  ],
  [
    "target twice",
    () => change("policies:", "  - { name: orders, protocol: postgres, address: 'a:1', database: d, user: u }\npolicies:"),
    'sluice.yaml:16:13: targets[1].name: expected a name of its own, got "orders" a second time',
  ],
  [
    "TLS on a socket",
    () => change("10.0.0.5:5432", "/run\n    tls: { mode: require }"),
    "sluice.yaml:13:18: targets[0].tls.mode: expected disable (PostgreSQL has no TLS on sockets), got require",
  ],
  [
    "a label that is no text",
    () => change("    database", "    labels: { tier: 1 }\n    database"),
    "sluice.yaml:13:21: targets[0].labels.tier: expected text (quote numbers and true or false), got 1",
  ],
  [
    "a literal password of a wrong type",
    () => change(/password: .*/, "password: 271828"),
    "sluice.yaml:15:15: targets[0].password: expected text, got a value that is not shown",
  ],
  [
    "an unknown reference",
    () => change("${env:ORDERS", "${vault:ORDERS"),
    'sluice.yaml:15:15: targets[0].password: expected ${env:NAME} or ${file:path}, got "${vault:ORDERS_PASSWORD}"',
  ],
  [
    "a missing secret file",
    () => change(/\$\{env.*\}/, "${file:nope}"),
    'sluice.yaml:15:15: targets[0].password: expected a readable file, got the value of "${file:nope}" (no such file)',
  ],
  [
    "a secret in the wrong place",
    () => change("10.0.0.5:5432", "${env:ORDERS_PASSWORD}"),
    'sluice.yaml:12:14: targets[0].address: expected host:port, [IPv6]:port or the path of a PostgreSQL socket, got the value of "${env:ORDERS_PASSWORD}"',
  ],
  [
    "a missing policy",
    () => change("./policy.yaml", "./nope.yaml"),
    'sluice.yaml:16:12: policies[0]: expected a readable file, got "./nope.yaml" (no such file)',
  ],
  [
    "idle without a unit",
    () => `${BASE}limits: { idle: 60 }\n`,
    "sluice.yaml:17:17: limits.idle: expected a duration such as 30m or 1h, or 0 for never, got 60",
  ],
  ["not YAML", () => change("keys: ./keys", "keys: [ s3cret-value } ]"), "sluice.yaml:3:"],
];

for (const [what, text, expected] of cases) {
  test(`refused: ${what}`, () => {
    const found = errors(text());
    assert(
      found.some((line) => line.startsWith(expected)),
      `${expected}\n${found.join("\n")}`,
    );
    assert(!found.join().includes("hunter2") && !found.join().includes("271828"));
  });
}

test("a missing or empty variable is named with its key", () => {
  assert.deepEqual(errors(BASE, {}), [
    "sluice.yaml:15:15: targets[0].password: expected the environment variable ORDERS_PASSWORD to be set, got none",
  ]);
  assert.deepEqual(errors(BASE, { ORDERS_PASSWORD: "" }), [
    "sluice.yaml:15:15: targets[0].password: expected the environment variable ORDERS_PASSWORD to be set, got an empty one",
  ]);
});

test("all errors are reported, those of the policy too", () => {
  writeFileSync(at("bad-policy.yaml"), "version: 1\nrules:\n  - { name: r, effect: maybe }\n");
  const text = BASE.replace("./policy.yaml", "./bad-policy.yaml")
    .replace("audience: sluice", "audience: 7")
    .replace("database:", "databse:");
  const found = errors(text, {});
  assert.deepEqual(
    found.map((line) => line.split(" ").slice(0, 2).join(" ")),
    [
      "sluice.yaml:8:76: identity.issuers[0].audience:",
      "sluice.yaml:10:5: targets[0].database:",
      "sluice.yaml:13:5: targets[0].databse:",
      "sluice.yaml:15:15: targets[0].password:",
      "bad-policy.yaml:3:24: rules[0].effect:",
    ],
  );
});

test("what a policy names must be configured", () => {
  writeFileSync(at("stray.yaml"), "version: 1\nrules:\n  - { name: r, effect: deny, on: { targets: [nowhere] } }\n");
  try {
    load(BASE.replace("./policy.yaml", "stray.yaml"));
    assert.fail("loaded");
  } catch (error) {
    assert(error instanceof SluiceError && error.code === "SLUICE_POLICY_INVALID", String(error));
    assert.match(error.message, /stray.yaml:3:46: rules\[0\].on.targets\[0\]: expected the name of a configured target, got "nowhere"/);
  }
});

test("a symbolic link does not hide that keys lie in data", () => {
  mkdirSync(at("real-data"));
  symlinkSync(at("real-data"), at("link"));
  assert.match(
    errors(BASE.replace("./data", "./real-data").replace("./keys", "./link/keys")).join(),
    /keys: expected a folder outside data/,
  );
});

test("a file that is not there", () => {
  assert.throws(() => loadConfig(at("none.yaml")), { code: "SLUICE_CONFIG_INVALID", message: /none.yaml: cannot be read: no such file/ });
  assert.throws(() => loadConfig(folder), { code: "SLUICE_CONFIG_INVALID" });
});
