import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { once } from "node:events";
import { fstatSync, readdirSync, readlinkSync } from "node:fs";
import { connect, type Socket } from "node:net";
import { after, before, test } from "node:test";
import { setTimeout as sleep } from "node:timers/promises";
import { Worker } from "node:worker_threads";
import { SluiceError } from "../errors.ts";
import {
  AT_LIMIT,
  accept,
  closeFd,
  fdLimit,
  holdAddress,
  holdPeer,
  listen,
  NO_ADDRESS,
  peerAddress,
  releaseHold,
  stop,
} from "./acceptor.ts";
import { buildNative } from "./build.ts";

before(() => buildNative({ quiet: true }));

const sockets = new Set<Socket>();
after(() => {
  for (const socket of sockets) socket.destroy();
});

function dial(port: number, host = "127.0.0.1"): Socket {
  const socket = connect({ port, host });
  sockets.add(socket);
  socket.on("error", () => {});
  return socket;
}

async function until(done: () => boolean, what: string): Promise<void> {
  for (let waited = 0; !done(); waited += 10) {
    if (waited > 5000) throw new Error(`timed out: ${what}`);
    await sleep(10);
  }
}

test("200 connections arrive once each, in batches, open and configured", async () => {
  const listener = listen("127.0.0.1", 0);
  const fds: number[] = [];
  let batchMax = 0;
  const clients = Array.from({ length: 200 }, () => dial(listener.port));
  await Promise.all(clients.map((client) => once(client, "connect")));
  accept(listener.fd, (batch, exhausted) => {
    assert.equal(exhausted, 0);
    batchMax = Math.max(batchMax, batch.length);
    fds.push(...batch);
  });
  await until(() => fds.length === 200, "200 accepted");
  assert.equal(batchMax, 64);
  assert.equal(new Set(fds).size, 200);
  const ports = new Set(clients.map((client) => `127.0.0.1:${client.localPort}`));
  for (const fd of fds) {
    assert.ok(fstatSync(fd).isSocket());
    assert.ok(ports.delete(peerAddress(fd)));
  }
  const ended = clients.map((client) => once(client.resume(), "close"));
  for (const fd of fds) closeFd(fd);
  await Promise.all(ended);
  stop(listener.fd);
});

test("stop closes the socket: later peers are refused, and the number is free again", async () => {
  const listener = listen("127.0.0.1", 0);
  accept(listener.fd, (batch) => batch.forEach(closeFd));
  await once(dial(listener.port), "connect");
  stop(listener.fd);
  assert.throws(() => stop(listener.fd), { code: "EBADF" });
  const [error] = await once(dial(listener.port), "error");
  assert.equal(error.code, "ECONNREFUSED");
  stop(listen("127.0.0.1", listener.port).fd);
});

test("stop inside the callback is safe", async () => {
  const listener = listen("127.0.0.1", 0);
  let calls = 0;
  const accepted = new Promise<void>((resolve) =>
    accept(listener.fd, (batch) => {
      calls++;
      batch.forEach(closeFd);
      stop(listener.fd);
      resolve();
    }),
  );
  dial(listener.port);
  await accepted;
  await sleep(20);
  assert.equal(calls, 1);
});

test("IPv6 and dual-stack addresses", async () => {
  const seen: string[] = [];
  const six = listen("::", 0);
  accept(six.fd, (batch) => {
    for (const fd of batch) {
      seen.push(peerAddress(fd));
      closeFd(fd);
    }
  });
  const four = dial(six.port);
  await once(four, "connect");
  const fourPort = four.localPort;
  const loop = dial(six.port, "::1");
  await once(loop, "connect");
  const loopPort = loop.localPort;
  await until(() => seen.length === 2, "both families");
  assert.deepEqual(new Set(seen), new Set([`127.0.0.1:${fourPort}`, `[::1]:${loopPort}`]));
  stop(six.fd);
});

test("errors name the address and the reason", () => {
  const listener = listen("127.0.0.1", 0);
  assert.throws(
    () => listen("127.0.0.1", listener.port),
    (error: unknown) => error instanceof SluiceError && error.code === "SLUICE_CONFIG_INVALID" && error.message.includes("EADDRINUSE"),
  );
  assert.throws(() => listen("localhost", 0), /not an IPv4 or IPv6 address/);
  assert.throws(() => listen("127.0.0.1", 70_000), /0\.\.65535/);
  assert.throws(() => closeFd(listener.fd), /acceptor itself/);
  assert.throws(() => closeFd(1), TypeError);
  assert.throws(() => closeFd(1_000_000), { code: "EBADF" });
  assert.equal(peerAddress(1_000_000), "");
  stop(listener.fd);
  assert.ok(fdLimit().soft >= 64 && fdLimit().hard >= fdLimit().soft);
});

/** The places that were given; each is owed back. */
function holdAll(addresses: readonly string[], most: number): number[] {
  return addresses.map((address) => holdAddress(address, most));
}

test("connections are counted by IPv4 address and by IPv6 /64", () => {
  const [first, second, refused, other] = holdAll(["192.0.2.1", "192.0.2.1", "192.0.2.1", "192.0.2.2"], 2) as [
    number,
    number,
    number,
    number,
  ];
  assert.ok(first >= 0 && first === second && other >= 0 && other !== first);
  assert.equal(refused, AT_LIMIT);
  assert.equal(holdAddress("::ffff:192.0.2.1", 2), AT_LIMIT, "IPv4 inside IPv6 is the same address");
  assert.equal(holdAddress("192.0.2.1", 0), first, "0 is no limit");
  releaseHold(first);
  assert.equal(holdAddress("192.0.2.1", 2), AT_LIMIT);
  releaseHold(first);
  assert.equal(holdAddress("192.0.2.1", 2), first);
  for (const place of [first, second, other]) releaseHold(place);
  assert.throws(() => releaseHold(first), { code: "EBADF" });

  const six = holdAll(["2001:db8:1:2::1", "2001:db8:1:2:ffff:ffff:ffff:ffff", "2001:db8:1:2::1", "2001:db8:1:3::1", "::", "0.0.0.0"], 2);
  assert.equal(six[0], six[1]);
  assert.equal(six[2], AT_LIMIT);
  assert.equal(new Set([six[0], six[3], six[4], six[5]]).size, 4, "another /64, and the IPv4 address with the same bits, are others");
  for (const place of six) if (place !== AT_LIMIT) releaseHold(place);
  for (const wrong of ["", "localhost", "192.0.2.1:5", "192.0.2.256"]) assert.equal(holdAddress(wrong, 1), NO_ADDRESS, wrong);
  assert.throws(() => holdAddress("192.0.2.1", -1), TypeError);
  assert.throws(() => releaseHold(-1), TypeError);
  assert.throws(() => releaseHold(1_000_000), { code: "EBADF" });
});

test("a descriptor's peer counts with the same address told, until it has gone", async () => {
  const listener = listen("127.0.0.1", 0);
  const fds: number[] = [];
  accept(listener.fd, (batch) => fds.push(...batch));
  const client = dial(listener.port);
  await until(() => fds.length === 1, "accepted");
  const place = holdPeer(fds[0] as number, 1);
  assert.ok(place >= 0);
  assert.equal(holdPeer(fds[0] as number, 1), AT_LIMIT);
  assert.equal(holdAddress("127.0.0.1", 1), AT_LIMIT);
  releaseHold(place);
  client.resetAndDestroy();
  await until(() => peerAddress(fds[0] as number) === "", "reset");
  assert.equal(holdPeer(fds[0] as number, 1), NO_ADDRESS);
  assert.equal(holdPeer(1_000_000, 1), NO_ADDRESS);
  closeFd(fds[0] as number);
  stop(listener.fd);
});

test("counts stay right over many addresses that come and go", () => {
  const model = new Map<string, number[]>();
  let state = 1;
  const below = (limit: number): number => (state = (Math.imul(state, 1_103_515_245) + 12_345) >>> 0) % limit;
  for (let round = 0; round < 50_000; round += 1) {
    const address = below(2) === 0 ? `10.0.${below(4)}.${below(64)}` : `2001:db8:${below(64).toString(16)}:${below(4)}::${below(9)}`;
    const key = address.includes(":") ? address.split(":").slice(0, 4).join(":") : address;
    const places = model.get(key) ?? [];
    model.set(key, places);
    if (below(5) < 2 && places.length > 0) releaseHold(places.pop() as number);
    else {
      const place = holdAddress(address, 5);
      assert.equal(place === AT_LIMIT, places.length >= 5, `${address} has ${places.length}`);
      if (place !== AT_LIMIT) places.push(place);
      assert.equal(new Set(places).size, 1, "one address, one place");
    }
  }
  const inUse = [...model.values()].filter((places) => places.length > 0);
  assert.equal(new Set(inUse.map((places) => places[0])).size, inUse.length, "no two addresses share a place");
  for (const place of inUse.flat()) releaseHold(place);
});

test("an exception in the callback is an uncaughtException and does not surface elsewhere", async () => {
  const script = `
    import { accept, closeFd, listen, stop } from ${JSON.stringify(new URL("./acceptor.ts", import.meta.url).href)};
    import { connect } from "node:net";
    const listener = listen("127.0.0.1", 0);
    let calls = 0;
    const caught = [];
    process.on("uncaughtException", (error) => caught.push(error.message));
    accept(listener.fd, (fds) => { fds.forEach(closeFd); if (++calls === 1) throw new Error("first"); });
    await new Promise((resolve) => connect(listener.port, "127.0.0.1").on("error", () => {}).on("close", resolve).resume());
    await new Promise((resolve) => connect(listener.port, "127.0.0.1").on("error", () => {}).on("close", resolve).resume());
    stop(listener.fd);
    console.log(JSON.stringify({ calls, caught }));`;
  assert.deepEqual(JSON.parse(await runScript(script)), { calls: 2, caught: ["first"] });
});

/** Run a module in a child of its own, optionally under a descriptor limit; resolves with its stdout. */
async function runScript(script: string, fdMax?: number): Promise<string> {
  const argv = [process.execPath, "--input-type=module", "-e", script];
  const child =
    fdMax === undefined ? spawn(argv[0] as string, argv.slice(1)) : spawn("sh", ["-c", `ulimit -n ${fdMax}; exec "$@"`, "sh", ...argv]);
  let out = "";
  let err = "";
  child.stdout.on("data", (bytes: Buffer) => (out += bytes));
  child.stderr.on("data", (bytes: Buffer) => (err += bytes));
  const timer = setTimeout(() => child.kill("SIGKILL"), 15_000);
  const [code, signal] = await once(child, "close");
  clearTimeout(timer);
  assert.equal(code, 0, `${signal} ${err}`);
  return out;
}

test("at the descriptor limit peers see a close, and accepting goes on afterwards", async () => {
  const script = `
    import { accept, closeFd, fdLimit, listen, stop } from ${JSON.stringify(new URL("./acceptor.ts", import.meta.url).href)};
    import { createInterface } from "node:readline";
    const listener = listen("127.0.0.1", 0);
    const held = [];
    let exhausted = 0;
    accept(listener.fd, (fds, turnedAway) => { held.push(...fds); exhausted += turnedAway; });
    console.log(JSON.stringify({ port: listener.port, soft: fdLimit().soft }));
    createInterface({ input: process.stdin }).on("line", (line) => {
      if (line === "report") console.log(JSON.stringify({ held: held.length, exhausted }));
      if (line === "release") held.splice(0).forEach(closeFd);
      if (line === "end") { held.forEach(closeFd); stop(listener.fd); process.stdin.destroy(); }
    });`;
  const child = spawn("sh", ["-c", 'ulimit -n 64; exec "$@"', "sh", process.execPath, "--input-type=module", "-e", script], {
    stdio: ["pipe", "pipe", "inherit"],
  });
  const timer = setTimeout(() => child.kill("SIGKILL"), 15_000);
  const lines: string[] = [];
  child.stdout.setEncoding("utf8").on("data", (text: string) => lines.push(...text.split("\n").filter((line) => line !== "")));
  const ask = async (line: string): Promise<{ held: number; exhausted: number }> => {
    const known = lines.length;
    child.stdin.write(`${line}\n`);
    await until(() => lines.length > known, line);
    return JSON.parse(lines.at(-1) as string);
  };
  await until(() => lines.length > 0, "child listens");
  const { port, soft } = JSON.parse(lines[0] as string);
  assert.equal(soft, 64);
  let closed = 0;
  for (let i = 0; i < 100; i++) {
    dial(port)
      .on("close", () => closed++)
      .resume();
  }
  let state = await ask("report");
  for (let tries = 0; state.held + state.exhausted < 100 && tries < 200; tries++) {
    await sleep(10);
    state = await ask("report");
  }
  assert.equal(state.held + state.exhausted, 100);
  assert.ok(state.exhausted >= 40, JSON.stringify(state));
  await until(() => closed === state.exhausted, "the ones turned away are closed");
  child.stdin.write("release\n");
  await until(() => closed === 100, "the held ones are released");
  await once(dial(port), "connect");
  for (let tries = 0; state.held !== 1 && tries < 200; tries++) state = await ask("report");
  assert.equal(state.held, 1);
  child.stdin.write("end\n");
  const [code] = await once(child, "close");
  clearTimeout(timer);
  assert.equal(code, 0);
});

/** Descriptors of this process that are sockets or the reserve. */
function openSockets(): number {
  return readdirSync("/proc/self/fd").filter((fd) => {
    try {
      return readlinkSync(`/proc/self/fd/${fd}`).startsWith("socket:");
    } catch {
      return false;
    }
  }).length;
}

test("ending a worker closes its listeners and leaves the process alive", async () => {
  for (const socket of sockets) socket.destroy();
  await sleep(20);
  const earlier = openSockets();
  for (const ending of ["terminate", "exit", "idle listener"]) {
    const worker = new Worker(
      `const { parentPort } = require("node:worker_threads");
       import(${JSON.stringify(new URL("./acceptor.ts", import.meta.url).href)}).then(({ accept, closeFd, listen }) => {
         const listener = listen("127.0.0.1", 0);
         listen("127.0.0.1", 0);
         accept(listener.fd, (fds) => { fds.forEach(closeFd); ${ending === "exit" ? "process.exit(0);" : ""} parentPort.postMessage("accepted"); });
         parentPort.postMessage(listener.port);
       });`,
      { eval: true },
    );
    const [port] = await once(worker, "message");
    const exited = once(worker, "exit");
    const client = dial(port);
    await once(client.resume(), "close");
    if (ending !== "exit") await worker.terminate();
    await exited;
    const [error] = await once(dial(port), "error");
    assert.equal(error.code, "ECONNREFUSED", ending);
  }
  await sleep(20);
  assert.equal(openSockets(), earlier);
});

test("a process that never calls stop exits cleanly by process.exit", async () => {
  const script = `
    import { accept, listen } from ${JSON.stringify(new URL("./acceptor.ts", import.meta.url).href)};
    accept(listen("127.0.0.1", 0).fd, () => {});
    setTimeout(() => { console.log("bye"); process.exit(0); }, 20);`;
  assert.equal((await runScript(script)).trim(), "bye");
});
