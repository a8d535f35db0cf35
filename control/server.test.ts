import assert from "node:assert/strict";
import { execFileSync, spawn } from "node:child_process";
import { existsSync, mkdtempSync, readFileSync, rmSync, statSync, writeFileSync } from "node:fs";
import { request as httpRequest } from "node:http";
import { connect, createServer } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, beforeEach, describe, it } from "node:test";
import { connect as connectTls } from "node:tls";
import { BODY_BYTES } from "./api.ts";
import { DATA_LOCK_FILE, dataFolderHolder, lockDataFolder } from "./data-lock.ts";
import { type LockStore, openLocks } from "./locks.ts";
import { type ControlServer, startControl } from "./server.ts";
import type { GatewayControl, GatewayHealth, LiveSession } from "./types.ts";

const session: LiveSession = {
  id: "s-1",
  worker: 0,
  startedMillis: 1,
  user: "corp:alice",
  groups: ["corp:dba"],
  target: "orders",
  protocol: "postgres",
  clientAddress: "127.0.0.1:5000",
  application: "psql",
  operations: 3,
};

let folder: string;
let locks: LockStore;
let server: ControlServer;
let port: number;
let calls: string[];
let health: GatewayHealth;

/** The gateway as the interface describes it, with a real lock store behind it. */
const control: GatewayControl = {
  sessions: () => [session],
  kill: async (id, reason, by) => {
    calls.push(`kill ${id} ${reason} ${by}`);
    return id === session.id;
  },
  locks: () => locks.list(),
  addLock: async (lock) => ({ lock: locks.add(lock, { issuers: ["corp"], targets: ["orders"] }), killed: 1 }),
  removeLock: async (id) => locks.remove(id) !== undefined,
  reload: async (by) => {
    calls.push(`reload ${by}`);
    return calls.length > 1 ? { ok: false, error: "sluice.yaml:3: workers: must be a number" } : { ok: true, policyVersion: "abcd" };
  },
  audit: () => {},
  health: () => health,
  metrics: async () => {
    if (!health.ready) throw new Error("secret detail");
    return "sluice_locks 0\n";
  },
};

before(async () => {
  folder = mkdtempSync(join(tmpdir(), "sluice-control-"));
  locks = openLocks(folder);
  const mask = process.umask(0);
  server = await startControl(control, { control: { listen: { host: "127.0.0.1", port: 0 }, tls: undefined } }, folder);
  process.umask(mask);
  port = Number(server.addresses.tcp?.split(":")[1]);
});
after(async () => {
  await server.close();
  rmSync(folder, { recursive: true });
});
beforeEach(() => {
  calls = [];
  health = { ready: true, draining: false, workers: 2, sessions: 1, policyVersion: "abcd", configGeneration: 1, reloadError: undefined };
});

interface Reply {
  readonly status: number;
  readonly text: string;
  readonly json: Record<string, unknown>;
}

function ask(
  method: string,
  path: string,
  options: { body?: string; headers?: Record<string, string>; tcp?: boolean } = {},
): Promise<Reply> {
  const where = options.tcp === true ? { host: "127.0.0.1", port } : { socketPath: server.addresses.socket };
  return new Promise((resolve, reject) => {
    const headers = {
      host: "localhost",
      ...(options.body === undefined ? {} : { "content-type": "application/json" }),
      ...options.headers,
    };
    const sent = httpRequest({ ...where, method, path, headers, agent: false }, (response) => {
      const chunks: Buffer[] = [];
      response.on("data", (chunk: Buffer) => chunks.push(chunk));
      response.on("end", () => {
        const text = Buffer.concat(chunks).toString();
        const json = text.startsWith("{") && method !== "HEAD" ? JSON.parse(text) : {};
        resolve({ status: response.statusCode ?? 0, text, json });
      });
    });
    sent.on("error", reject);
    sent.end(options.body);
  });
}
const error = (reply: Reply) => reply.json.error as { code: string; message: string };

describe("the socket", () => {
  it("has mode 0600 in a folder of mode 0700, even with a permissive umask", () => {
    assert.equal(statSync(server.addresses.socket).mode & 0o777, 0o600);
    assert.equal(statSync(folder).mode & 0o777, 0o700);
  });

  it("lists and shows sessions", async () => {
    assert.deepEqual((await ask("GET", "/v1/sessions")).json, { sessions: [session] });
    assert.deepEqual((await ask("GET", "/v1/sessions/s-1")).json, { session });
    assert.equal((await ask("GET", "/v1/sessions/none")).status, 404);
  });

  it("kills under the local user's name", async () => {
    assert.equal((await ask("POST", "/v1/sessions/s-1/kill", { body: '{"reason":"bad query"}' })).status, 200);
    assert.equal((await ask("POST", "/v1/sessions/a%2Fb/kill")).status, 404);
    assert.equal((await ask("POST", "/v1/sessions/s-1/kill", { body: '{"reasons":"misspelt"}' })).status, 400);
    assert.equal(calls.length, 2);
    assert.match(calls[0] ?? "", /^kill s-1 bad query local:\S+$/);
    assert.match(calls[1] ?? "", /^kill a\/b ended by an operator local:/);
  });

  it("adds, lists and removes locks", async () => {
    const added = await ask("POST", "/v1/locks", { body: '{"subject":"user:alice","reason":"x","ttlSeconds":60}' });
    assert.equal(added.status, 201);
    const lock = added.json.lock as { id: string; subject: string; by: string; expiresMillis: number; createdMillis: number };
    assert.equal(lock.subject, "user:corp:alice");
    assert.match(lock.by, /^local:/);
    assert.ok(Math.abs(lock.expiresMillis - lock.createdMillis - 60_000) < 1_000);
    assert.deepEqual((await ask("GET", "/v1/locks")).json, { locks: [lock] });
    assert.equal((await ask("DELETE", `/v1/locks/${lock.id}`)).status, 200);
    assert.equal((await ask("DELETE", `/v1/locks/${lock.id}`)).status, 404);
  });

  it("says what is wrong with a lock", async () => {
    for (const [body, text] of [
      ['{"subject":"alice"}', /user:…/],
      ["{}", /subject is missing/],
      ['{"subject":"user:a","ttl":1}', /"ttl"/],
      ['{"subject":"user:a","ttlSeconds":0}', /ttlSeconds/],
      ['{"subject":7}', /must be a string/],
      ["[1]", /JSON object/],
      ["{", /JSON object/],
    ] as const) {
      const reply = await ask("POST", "/v1/locks", { body });
      assert.equal(reply.status, 400, body);
      assert.match(error(reply).message, text);
    }
    assert.equal((await ask("POST", "/v1/locks", { body: '{"subject":"user:a"}', headers: { "content-type": "text/plain" } })).status, 400);
    assert.deepEqual(locks.list(), []);
  });

  it("reloads, and reports a refused configuration", async () => {
    assert.deepEqual((await ask("POST", "/v1/reload")).json, { ok: true, policyVersion: "abcd" });
    const refusedReload = await ask("POST", "/v1/reload");
    assert.equal(refusedReload.status, 409);
    assert.match(error(refusedReload).message, /sluice.yaml:3/);
  });

  it("refuses wrong methods, paths, hosts, web pages and large bodies", async () => {
    assert.equal((await ask("DELETE", "/v1/sessions")).status, 405);
    assert.equal((await ask("GET", "/v1/sessions/s-1/kill")).status, 405);
    assert.equal((await ask("HEAD", "/v1/reload")).status, 405);
    assert.equal((await ask("GET", "/v2/sessions")).status, 404);
    assert.equal((await ask("GET", "/v1/sessions/%zz")).status, 400);
    assert.equal((await ask("GET", "/v1/sessions", { headers: { host: "evil.example" } })).status, 421);
    assert.equal((await ask("GET", "/v1/sessions", { headers: { origin: "http://localhost" } })).status, 403);
    const large = await ask("POST", "/v1/locks", { body: JSON.stringify({ subject: "x".repeat(BODY_BYTES) }) });
    assert.equal(large.status, 413);
    assert.deepEqual(calls, []);
  });

  it("keeps details of internal errors to itself", async () => {
    health = { ...health, ready: false };
    const reply = await ask("GET", "/metrics");
    assert.equal(reply.status, 500);
    assert.equal(error(reply).code, "SLUICE_INTERNAL");
    assert.ok(!reply.text.includes("secret"));
  });
});

describe("the TCP address", () => {
  it("serves health and metrics", async () => {
    assert.equal((await ask("GET", "/healthz", { tcp: true })).status, 200);
    assert.equal((await ask("HEAD", "/readyz", { tcp: true })).text, "");
    assert.equal((await ask("GET", "/metrics", { tcp: true })).text, "sluice_locks 0\n");
    health = { ...health, draining: true };
    assert.deepEqual(await ask("GET", "/readyz", { tcp: true }), { status: 503, text: "draining\n", json: {} });
    assert.equal((await ask("GET", "/healthz", { tcp: true })).status, 200);
  });

  it("administers nothing, and says where that is done", async () => {
    for (const [method, path] of [
      ["GET", "/v1/sessions"],
      ["POST", "/v1/sessions/s-1/kill"],
      ["POST", "/v1/locks"],
      ["DELETE", "/v1/locks/x"],
      ["POST", "/v1/reload"],
      ["GET", "/v1/health"],
    ] as const) {
      const reply = await ask(method, path, { tcp: true, ...(method === "POST" ? { body: "{}" } : {}) });
      assert.equal(reply.status, 403, path);
      assert.match(error(reply).message, /control\.sock/);
    }
    assert.deepEqual(calls, []);
  });

  it("on loopback refuses foreign host names", async () => {
    assert.equal((await ask("GET", "/metrics", { tcp: true, headers: { host: "rebound.example" } })).status, 421);
    assert.equal((await ask("GET", "/metrics", { tcp: true, headers: { host: `127.0.0.1:${port}` } })).status, 200);
  });

  it("ends protocol changes", async () => {
    const reply = await new Promise<string>((resolve, reject) => {
      const raw = connect(port, "127.0.0.1", () => raw.write("CONNECT x:1 HTTP/1.1\r\nHost: localhost\r\n\r\n"));
      let text = "";
      raw.on("data", (chunk) => {
        text += chunk;
      });
      raw.on("error", reject);
      raw.on("close", () => resolve(text));
    });
    assert.equal(reply, "");
  });

  it("without TLS must be on loopback", async () => {
    const other = mkdtempSync(join(tmpdir(), "sluice-control-"));
    const config = { control: { listen: { host: "0.0.0.0", port: 0 }, tls: undefined } };
    await assert.rejects(startControl(control, config, other), { code: "SLUICE_CONFIG_INVALID" });
    assert.ok(!existsSync(join(other, DATA_LOCK_FILE)) && !existsSync(join(other, "control.sock")), "left something behind");
    rmSync(other, { recursive: true });
  });
});

describe("the data folder", () => {
  const bare = { control: { listen: undefined, tls: undefined } };
  let other: string;
  before(() => {
    other = mkdtempSync(join(tmpdir(), "sluice-data-"));
  });
  after(() => rmSync(other, { recursive: true }));

  it("belongs to one live process", async () => {
    const child = spawn(process.execPath, ["-e", "process.stdin.resume()"], { stdio: ["pipe", "ignore", "ignore"] });
    try {
      writeFileSync(join(other, DATA_LOCK_FILE), JSON.stringify({ pid: child.pid, started: "" }));
      assert.equal(dataFolderHolder(other), child.pid);
      await assert.rejects(startControl(control, bare, other), (thrown) => {
        assert.equal((thrown as { code?: string }).code, "SLUICE_DATA_IN_USE");
        return (thrown as Error).message.includes(String(child.pid));
      });
    } finally {
      child.stdin?.end();
      await new Promise((resolve) => child.once("exit", resolve));
    }
    // The process has ended: its lock is taken over.
    await (await startControl(control, bare, other)).close();
    assert.ok(!existsSync(join(other, DATA_LOCK_FILE)));
  });

  it("of a process id that another process got since is free", () => {
    writeFileSync(join(other, DATA_LOCK_FILE), JSON.stringify({ pid: process.ppid, started: "another-boot/1" }));
    const lock = lockDataFolder(other);
    const second = lockDataFolder(other);
    lock.release();
    lock.release();
    assert.equal(dataFolderHolder(other), process.pid);
    second.release();
    assert.equal(dataFolderHolder(other), undefined);
  });

  it("a socket that nobody answers on is replaced, one that answers is not", async () => {
    const path = join(other, "control.sock");
    const living = createServer();
    await new Promise<void>((resolve) => living.listen(path, resolve));
    await assert.rejects(startControl(control, bare, other), { code: "SLUICE_DATA_IN_USE" });
    await new Promise((resolve) => living.close(resolve));

    const dying = spawn(process.execPath, [
      "-e",
      `require("net").createServer().listen(${JSON.stringify(path)}, () => process.kill(process.pid, "SIGKILL"))`,
    ]);
    await new Promise((resolve) => dying.once("exit", resolve));
    assert.ok(existsSync(path));
    await (await startControl(control, bare, other)).close();
    assert.ok(!existsSync(path));

    writeFileSync(path, "");
    await assert.rejects(startControl(control, bare, other), { code: "SLUICE_STORE_UNUSABLE" });
  });
});

describe("the TCP address with TLS", () => {
  const certificate = (name: string) => {
    const [cert, key] = [join(folder, `${name}.crt`), join(folder, `${name}.key`)];
    const made = ["-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2", "-subj", `/CN=${name}`];
    execFileSync("openssl", ["req", ...made, "-keyout", key, "-out", cert], { stdio: "ignore" });
    return { cert: readFileSync(cert, "utf8"), key: readFileSync(key, "utf8") };
  };

  it("serves a renewed certificate at the next connection", async () => {
    const other = mkdtempSync(join(tmpdir(), "sluice-tls-"));
    const listen = { host: "127.0.0.1", port: 0 };
    const config = { control: { listen, tls: certificate("before") } };
    const renewed = certificate("after");
    const secure = await startControl(control, config, other);
    const served = () =>
      new Promise((resolve, reject) => {
        const tls = connectTls({ port: Number(secure.addresses.tcp?.split(":")[1]), rejectUnauthorized: false });
        tls.once("error", reject).once("secureConnect", () => {
          resolve(tls.getPeerCertificate().subject.CN);
          tls.destroy();
        });
      });
    try {
      assert.equal(await served(), "before");
      config.control.tls = renewed;
      assert.equal(await served(), "after");
      // What OpenSSL does not take leaves the last one in use.
      config.control.tls = { cert: "broken", key: "broken" };
      assert.equal(await served(), "after");
    } finally {
      await secure.close();
      rmSync(other, { recursive: true });
    }
  });
});
