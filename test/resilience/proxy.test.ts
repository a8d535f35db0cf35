import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { connect, type Socket } from "node:net";
import { after, before, describe, it } from "node:test";
import { setTimeout as sleep } from "node:timers/promises";
import { parse } from "yaml";
import { PROTOCOL_3_0, passwordMessage, startupMessage } from "../../protocols/postgres/messages.ts";
import { errors, RawClient, rawConnect } from "../clients/raw.ts";
import { createAuthority, type TestAuthority } from "../helpers/certificates.ts";
import { type Destination, psql } from "../helpers/clients.ts";
import { type Haproxy, startHaproxy } from "../helpers/haproxy.ts";
import { removeFolder, temporaryFolder, waitFor } from "../helpers/processes.ts";
import { auditEvents, liveSessions, metric, type Rig, startRig } from "./rig.ts";

// Native clients behind a load balancer that speaks the PROXY protocol, and peers that misuse it.

const OFFICE = "203.0.113.7";
const OUTSIDE = "198.51.100.23";
const SIX = "2001:db8:1::7";
const SIX_NEIGHBOUR = "2001:db8:1::8";
const SIX_OTHER = "2001:db8:1:1::7";
/** The load balancer connects from here; everything else on this machine is nobody's proxy. */
const PROXY = "127.0.0.9";
const POLICY = `version: 1
rules:
  - { name: all, effect: allow }
  - { name: not-from-outside, when: "client.address.inNetwork('198.51.100.0/24')", effect: deny, message: not from there }
`;

let rig: Rig;
let haproxy: Haproxy;
let folder: string;
let authority: TestAuthority;

before(async () => {
  folder = temporaryFolder("certificates");
  authority = await createAuthority(folder);
  rig = await startRig({
    policy: POLICY,
    tls: await authority.issue("server"),
    listener: { proxyProtocol: { from: [PROXY, "192.0.2.0/24"] } },
  });
  haproxy = await startHaproxy({
    to: rig.gateway.port,
    from: PROXY,
    tell: ["as it is", "socket", OFFICE, OUTSIDE, SIX, SIX_NEIGHBOUR, SIX_OTHER],
    server: "check inter 100ms",
  });
});
after(async () => {
  await haproxy?.stop();
  await rig?.stop();
  removeFolder(folder);
});

const through = async (tell: string, changes: Partial<Destination> = {}): Promise<Destination> => ({
  port: haproxy.port(tell),
  database: "db",
  password: await rig.issuer.token(),
  sslmode: "require",
  ...changes,
});
const badHeaders = (): Promise<number> => metric(rig.gateway, 'sluice_connections_refused_total{reason="proxy_header"}');

/** A header for TCP over IPv4, or LOCAL where no address is told. */
function header(tell?: string): Buffer {
  const start = Buffer.from("\r\n\r\n\0\r\nQUIT\n", "latin1");
  if (tell === undefined) return Buffer.concat([start, Buffer.from([0x20, 0, 0, 0])]);
  return Buffer.concat([start, Buffer.from([0x21, 0x11, 0, 12, ...tell.split(".").map(Number), 127, 0, 0, 1, 0x12, 0x34, 0x15, 0x38])]);
}

const startup = Buffer.from(
  startupMessage(PROTOCOL_3_0, [
    ["user", "anyone"],
    ["database", "db"],
  ]),
);

/** A peer on this machine, connecting from this address. */
const dial = (from: string): Promise<Socket> =>
  new Promise((resolve, reject) => {
    const socket = connect({ host: "127.0.0.1", port: rig.gateway.port, localAddress: from, noDelay: true, allowHalfOpen: true });
    socket.once("error", reject);
    socket.once("connect", () => resolve(socket));
  });

describe("clients behind a load balancer", () => {
  for (const [tell, written] of [
    [OFFICE, /^203\.0\.113\.7:\d+$/],
    [SIX, /^\[2001:db8:1::7\]:\d+$/],
  ] as const) {
    it(`psql is known by the address that the load balancer tells: ${tell}`, { timeout: 30_000 }, async () => {
      const running = psql(await through(tell), "select pg_sleep(1); select 42");
      const session = await waitFor("the session", async () => (await liveSessions(rig.gateway))[0]);
      assert.match(session.clientAddress, written);
      assert.equal((await running).stdout.trim(), "42", (await running).stderr);
      const opened = (await auditEvents(rig.gateway)).findLast((event) => event.type === "session.open");
      assert.equal(opened?.client?.address, session.clientAddress);
    });
  }

  it("policy decides by that address", { timeout: 30_000 }, async () => {
    const refused = await psql(await through(OUTSIDE), "select 42");
    assert.notEqual(refused.code, 0);
    assert.match(refused.stderr, /not from there/);
    assert.equal((await psql(await through(OFFICE), "select 42")).stdout.trim(), "42");
  });

  it("a credential that is refused is recorded under that address", { timeout: 30_000 }, async () => {
    assert.notEqual((await psql(await through(OUTSIDE, { password: "no token" }), "select 42")).code, 0);
    const event = (await auditEvents(rig.gateway)).findLast((each) => each.type === "auth.failed");
    assert.match(event?.client?.address ?? "", /^198\.51\.100\.23:\d+$/);
  });

  it("direct TLS follows the header", { timeout: 30_000 }, async () => {
    const client = await rawConnect({ ...(await through(OFFICE)), tls: "direct" });
    assert.equal(client.startup.at(-1)?.type, "Z");
    client.close();
  });

  it("a token without TLS is taken from clients on this machine only, not from whoever comes through a proxy on it", {
    timeout: 30_000,
  }, async () => {
    const local = await psql(await through("as it is", { sslmode: "disable" }), "select 42");
    assert.equal(local.stdout.trim(), "42", local.stderr);
    for (const [tell, host] of [
      [OFFICE, "127.0.0.1"],
      [SIX, "127.0.0.1"],
      ["socket", haproxy.folder],
    ] as const) {
      const refused = await psql(await through(tell, { host, sslmode: "disable" }), "select 42");
      assert.notEqual(refused.code, 0, tell);
      assert.match(refused.stderr, /only taken over TLS/, tell);
    }
  });

  it("the load balancer's health checks are no violation", async () => {
    const before = await badHeaders();
    await sleep(500);
    assert.equal(await badHeaders(), before);
  });
});

async function reload(changes: Readonly<Record<string, unknown>>): Promise<void> {
  const reloads = () => metric(rig.gateway, 'sluice_reload_total{result="ok"}');
  const before = await reloads();
  rig.gateway.writeConfig(changes);
  await waitFor("a reload", async () => (await reloads()) > before);
}

describe("the header", () => {
  async function byteByByte(bytes: Uint8Array): Promise<RawClient> {
    const socket = await dial(PROXY);
    for (const byte of bytes) {
      socket.write(Buffer.from([byte]));
      await sleep(1);
    }
    return new RawClient(socket);
  }

  it("is read byte by byte as well", { timeout: 30_000 }, async () => {
    const client = await byteByByte(Buffer.concat([header("127.0.0.77"), startup]));
    assert.equal((await client.next()).body.readInt32BE(0), 3);
    assert.equal((await client.ask([passwordMessage(await rig.issuer.token())])).at(-1)?.type, "Z");
    assert.equal((await liveSessions(rig.gateway))[0]?.clientAddress, "127.0.0.77:4660");
    client.close();
    await waitFor("it is over", async () => (await liveSessions(rig.gateway)).length === 0);
  });

  it("without an address (LOCAL) leaves the proxy's own, which need not be a client on this machine", { timeout: 30_000 }, async () => {
    const client = await byteByByte(Buffer.concat([header(), startup]));
    assert.match(errors(await client.closed())[0]?.M ?? "", /only taken over TLS/);
    const event = (await auditEvents(rig.gateway)).findLast((each) => each.type === "auth.failed");
    assert.match(event?.client?.address ?? "", /^127\.0\.0\.9:\d+$/);
  });

  const v1 = Buffer.from("PROXY TCP4 203.0.113.7 127.0.0.1 4660 5432\r\n");
  const broken: readonly (readonly [string, Buffer, isCounted: boolean])[] = [
    ["none", startup, true],
    ["version 1", Buffer.concat([v1, startup]), true],
    ["a reserved family", Buffer.concat([Buffer.from(header(OFFICE)).fill(0x51, 13, 14), startup]), true],
    ["too long", Buffer.concat([Buffer.from(header(OFFICE)).fill(0x7f, 14, 15), Buffer.alloc(70_000)]), true],
    ["two of them", Buffer.concat([header(OFFICE), header(OFFICE), startup]), false],
    ["cut off", header(OFFICE).subarray(0, 20), false],
  ];
  for (const [name, bytes, isCounted] of broken) {
    it(`${name}: the connection is closed`, { timeout: 20_000 }, async () => {
      const before = await badHeaders();
      const socket = await dial(PROXY);
      const client = new RawClient(socket);
      client.received = [];
      socket.write(bytes);
      // Only the one that would wait for more is told that there is none.
      if (name === "cut off") socket.end();
      const started = performance.now();
      const frames = await client.closed();
      assert.ok(!frames.some((frame) => frame.type === "R"), "no credential is asked for");
      assert.ok(performance.now() - started < 5_000, "it is not the deadline that closed it");
      if (isCounted) {
        assert.equal(Buffer.concat(client.received).length, 0, "nothing is answered");
        await waitFor("the metric", async () => (await badHeaders()) === before + 1);
      }
      socket.destroy();
    });
  }

  it("violations are logged, at most once a second", { timeout: 20_000 }, async () => {
    await sleep(1_100);
    const logged = rig.gateway.logs().length;
    for (let count = 0; count < 20; count += 1) (await dial(PROXY)).on("error", () => undefined).end(v1);
    const lines = () =>
      rig.gateway
        .logs()
        .slice(logged)
        .match(/without a valid PROXY header/g)?.length ?? 0;
    await waitFor("a line", () => lines() > 0);
    await sleep(300);
    assert.equal(lines(), 1);
    assert.match(rig.gateway.logs().slice(logged), /"count":20.*version 1/);
  });

  it("that never comes is not waited for beyond the handshake's deadline", { timeout: 30_000 }, async () => {
    const socket = await dial(PROXY);
    socket.write(header(OFFICE).subarray(0, 27));
    const started = performance.now();
    await new RawClient(socket).closed();
    const took = performance.now() - started;
    assert.ok(took > 14_000 && took < 18_000, `${took} ms`);
    socket.destroy();
  });

  it("of somebody who is no proxy is not read: no address is taken from it, and without one all is as ever", {
    timeout: 30_000,
  }, async () => {
    const before = await badHeaders();
    const socket = await dial("127.0.0.1");
    const client = new RawClient(socket);
    socket.write(Buffer.concat([header("127.0.0.77"), startup]));
    const frames = await client.closed();
    assert.match(errors(frames)[0]?.M ?? "", /protocol violation/);
    socket.destroy();
    const plain = await rig.connect();
    assert.match((await liveSessions(rig.gateway))[0]?.clientAddress ?? "", /^127\.0\.0\.1:/);
    plain.close();
    assert.equal(await badHeaders(), before);
  });
});

describe("limits.connectionsPerAddress behind a load balancer", () => {
  it("counts whom the load balancer tells, not the load balancer", { timeout: 60_000 }, async () => {
    await waitFor("no session is left", async () => (await liveSessions(rig.gateway)).length === 0);
    await reload({ limits: { connectionsPerAddress: 2 } });
    const refusals = () => metric(rig.gateway, 'sluice_connections_refused_total{reason="address"}');
    const before = await refusals();
    const open = async (tell: string) => rawConnect({ ...(await through(tell)), tls: "request" }).catch(() => undefined);
    const inside = [await open(OFFICE), await open(OFFICE), await open(SIX), await open(SIX_NEIGHBOUR), await open(SIX_OTHER)];
    for (const [index, client] of inside.entries()) assert.equal(client?.startup.at(-1)?.type, "Z", `client ${index}`);
    // The gateway hears the address from a worker, so the client may get a little further than nothing.
    for (const tell of [OFFICE, SIX, SIX_NEIGHBOUR]) {
      const late = await open(tell);
      if (late !== undefined) await late.closed();
    }
    await waitFor("the refusals are counted", async () => (await refusals()) === before + 3);
    await waitFor("they are logged", () => /connectionsPerAddress is reached/.test(rig.gateway.logs()));
    await waitFor("only those inside are left", async () => (await liveSessions(rig.gateway)).length === inside.length);
    for (const client of inside) assert.equal((await client?.query("select 1"))?.at(-1)?.type, "Z");
    inside[0]?.close();
    await waitFor("one has left", async () => (await liveSessions(rig.gateway)).length === inside.length - 1);
    await waitFor("there is room for one", async () => {
      const again = await open(OFFICE);
      const isIn = again?.startup.at(-1)?.type === "Z" && (await again.query("select 1")).at(-1)?.type === "Z";
      again?.close();
      return isIn;
    });
    for (const client of inside) client?.close();
  });
});

describe("a reload of proxyProtocol", () => {
  it("takes trust from a proxy: its next connections have no header read", { timeout: 30_000 }, async () => {
    const { listeners } = parse(readFileSync(rig.gateway.configFile, "utf8")) as { listeners: readonly object[] };
    await reload({ limits: {}, listeners: [{ ...listeners[0], proxyProtocol: { from: ["192.0.2.0/24"] } }] });
    const plain = new RawClient(await dial(PROXY));
    plain.send(startup);
    assert.equal((await plain.next()).type, "R");
    plain.destroy();
    const client = new RawClient(await dial(PROXY));
    client.send(header(OFFICE), startup);
    assert.match(errors(await client.closed())[0]?.M ?? "", /protocol violation/);
  });
});
