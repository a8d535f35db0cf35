import assert from "node:assert/strict";
import { once } from "node:events";
import { type AddressInfo, createServer, type Server, type Socket } from "node:net";
import { after, test } from "node:test";
import type { TargetConfig } from "../../core/config/types.ts";
import { createSocketTransport } from "../../core/net/sockets.ts";
import type { Grant } from "../../core/verdict.ts";
import { cancel, dial } from "./dial.ts";
import * as messages from "./messages.ts";

/** Servers that do not keep to the protocol. Real ones are dialled in test/dial.test.ts. */
const transport = createSocketTransport();
const servers: Server[] = [];
const sockets = new Set<Socket>();
after(() => {
  transport.close();
  for (const socket of sockets) socket.destroy();
  for (const server of servers) server.close();
});

/** @param answers what the server sends to each chunk it reads, in order */
async function evil(...answers: ((chunk: Buffer, socket: Socket) => Uint8Array | undefined)[]): Promise<number> {
  const server = createServer((socket) => {
    sockets.add(socket);
    const left = [...answers];
    socket.on("error", () => {});
    socket.on("data", (chunk: Buffer) => {
      const bytes = left.shift()?.(chunk, socket);
      if (bytes !== undefined) socket.write(bytes);
    });
  });
  servers.push(server);
  await once(server.listen(0, "127.0.0.1"), "listening");
  return (server.address() as AddressInfo).port;
}

function grantFor(port: number, changes: Partial<TargetConfig> = {}): Grant {
  const target = {
    name: "evil",
    address: { host: "127.0.0.1", port },
    database: "db",
    user: "svc",
    password: "pa55word",
    tls: { mode: "disable", ca: undefined, serverName: undefined },
    ...changes,
  };
  return { target } as unknown as Grant;
}

const NO_PARAMETERS = { parameters: new Map<string, string>(), protocolMinor: 0 } as const;
const dialPort = (port: number, changes: Partial<TargetConfig> = {}) => dial(grantFor(port, changes), transport, NO_PARAMETERS);
const bytes = (...parts: (string | number[] | Uint8Array)[]): Buffer =>
  Buffer.concat(parts.map((part) => (typeof part === "string" ? Buffer.from(part) : Uint8Array.from(part))));
/** An AuthenticationRequest. */
const auth = (method: number, rest: Uint8Array | string = ""): Buffer => {
  const body = Buffer.from(rest);
  const head = Buffer.alloc(9);
  head.write("R");
  head.writeInt32BE(8 + body.length, 1);
  head.writeInt32BE(method, 5);
  return Buffer.concat([head, body]);
};
const SASL = auth(10, "SCRAM-SHA-256\0\0");
const PINNED = bytes(messages.parameterStatus("client_encoding", "UTF8"), messages.parameterStatus("standard_conforming_strings", "on"));

async function refuses(port: number, pattern: RegExp, changes: Partial<TargetConfig> = {}): Promise<void> {
  await assert.rejects(dialPort(port, changes), (error: Error & { code: string }) => {
    assert.equal(error.code, "SLUICE_TARGET_REFUSED");
    assert.match(error.message, pattern);
    assert.match(error.message, /^target evil: /);
    assert.ok(!error.message.includes("pa55word"));
    return true;
  });
}

test("a well-behaved exchange passes, leftover bytes included", async () => {
  const notice = messages.noticeResponse({ severity: "NOTICE", sqlState: "00000", message: "hello" });
  const port = await evil(() =>
    bytes(messages.authenticationOk(), PINNED, messages.backendKeyData(7, new Uint8Array(4)), messages.readyForQuery("I"), notice),
  );
  const upstream = await dialPort(port);
  assert.equal(upstream.backendPid, 7);
  assert.deepEqual(Buffer.from(upstream.leftover), Buffer.from(notice));
  upstream.wire.destroy();
});

test("lengths that cannot be", async () => {
  for (const length of [
    [0, 0, 0, 0],
    [0, 0, 0, 3],
    [0xff, 0xff, 0xff, 0xff],
    [0x7f, 0xff, 0xff, 0xff],
    [0, 2, 0, 0],
  ]) {
    await refuses(await evil(() => bytes("R", length)), /type 0x52 with length/);
  }
});

test("messages that do not belong to startup, or come out of order", async () => {
  const ok = messages.authenticationOk();
  const cases: [Uint8Array, RegExp][] = [
    [messages.readyForQuery("I"), /unexpected message of type 0x5a/],
    [PINNED, /unexpected message of type 0x53/],
    [messages.backendKeyData(1, new Uint8Array(4)), /unexpected/],
    [bytes(ok, ok), /unexpected message of type 0x52/],
    [bytes(ok, auth(3)), /unexpected/],
    [bytes(ok, PINNED, messages.readyForQuery("T")), /transaction status/],
    [bytes(ok, messages.readyForQuery("I")), /does not keep client_encoding/],
    [bytes(ok, messages.parameterStatus("client_encoding", "SJIS"), messages.readyForQuery("I")), /does not keep client_encoding/],
    [bytes(ok, messages.backendKeyData(1, new Uint8Array(5))), /cancel key of 5 bytes/],
    [bytes(ok, messages.backendKeyData(1, new Uint8Array(3))), /cancel key of 3 bytes/],
    [bytes(ok, [0x53, 0, 0, 0, 6, 0x61, 0x62]), /without its terminating zero/],
    [messages.negotiateProtocolVersion(0x0003_0002, []), /not offered/],
    [messages.negotiateProtocolVersion(0x0002_0000, []), /not offered/],
    [auth(11, "r=x"), /not in progress/],
    [auth(12, "v=x"), /not in progress/],
    [auth(7), /authentication method 7/],
    [auth(5, "abc"), /ends too early/],
    [bytes("HTTP/1.1 400 Bad Request\r\n"), /length/],
  ];
  for (const [answer, pattern] of cases) await refuses(await evil(() => answer), pattern);
});

test("endless ParameterStatus, mechanisms and notices are cut off", async () => {
  const many = Buffer.concat(Array.from({ length: 2_000 }, (_, i) => messages.parameterStatus(`p${i}`, "x".repeat(50))));
  await refuses(await evil(() => bytes(messages.authenticationOk(), many)), /more than 500 messages/);
  const notices = Buffer.concat(
    Array.from({ length: 2_000 }, () => messages.noticeResponse({ severity: "NOTICE", sqlState: "00000", message: "x" })),
  );
  await refuses(await evil(() => notices), /more than 500 messages/);
  await refuses(await evil(() => auth(10, `${"A\0".repeat(1_000)}\0`)), /too many authentication mechanisms/);
});

test("SCRAM: short cuts, wrong signatures and repeated requests", async () => {
  const nonceOf = (chunk: Buffer): string => /r=([^,\0]+)$/.exec(chunk.toString("latin1"))![1]!;
  const challenge = (chunk: Buffer): Buffer => auth(11, `r=${nonceOf(chunk)}srv,s=AAAAAAAAAAAAAAAAAAAAAA==,i=4096`);
  const ready = bytes(PINNED, messages.readyForQuery("I"));
  await refuses(
    await evil(
      () => SASL,
      () => bytes(messages.authenticationOk(), ready),
    ),
    /before proving itself/,
  );
  await refuses(
    await evil(
      () => SASL,
      challenge,
      () => bytes(messages.authenticationOk(), ready),
    ),
    /before proving itself/,
  );
  await refuses(
    await evil(
      () => SASL,
      challenge,
      () => auth(12, `v=${Buffer.alloc(32).toString("base64")}`),
    ),
    /could not prove/,
  );
  await refuses(
    await evil(
      () => SASL,
      challenge,
      () => auth(12, "e=other-error"),
    ),
    /could not prove/,
  );
  await refuses(
    await evil(
      () => SASL,
      (chunk) => bytes(challenge(chunk), challenge(chunk)),
    ),
    /not in progress/,
  );
  await refuses(
    await evil(
      () => SASL,
      () => SASL,
    ),
    /authentication twice/,
  );
  await refuses(
    await evil(
      () => SASL,
      () => auth(3),
    ),
    /authentication twice/,
  );
  await refuses(
    await evil(
      () => auth(3),
      () => auth(3),
    ),
    /authentication twice/,
  );
  await refuses(
    await evil(
      () => SASL,
      (chunk) => auth(11, `r=${nonceOf(chunk)}x,s=AAAA,i=2000000000`),
    ),
    /iterations/,
  );
  await refuses(
    await evil(
      () => SASL,
      (chunk) => auth(11, `r=${nonceOf(chunk)}${"x".repeat(50_000)},s=AAAA,i=4096`),
    ),
    /too long/,
  );
});

test("a server's error is passed on with its SQLSTATE, without control characters", async () => {
  const error = messages.errorResponse({ severity: "FATAL", sqlState: "28000", message: "no\nentry\u001b[2J" });
  await refuses(await evil(() => error), /^target evil: no entry {1}\[2J \(SQLSTATE 28000\)$/);
});

test("TLS: refusal, nonsense, and bytes behind the answer", async () => {
  const tls = { tls: { mode: "require", ca: undefined, serverName: undefined } } as const;
  await refuses(await evil(() => bytes("N")), /does not offer TLS/, tls);
  await refuses(
    await evil(() => messages.errorResponse({ severity: "FATAL", sqlState: "28000", message: "fake" })),
    /as PostgreSQL does/,
    tls,
  );
  await refuses(await evil(() => bytes("S", messages.authenticationOk())), /before the TLS handshake/, tls);
  await assert.rejects(
    dialPort(
      await evil(
        () => bytes("S"),
        () => bytes("not a handshake"),
      ),
      tls,
    ),
    { code: "SLUICE_TARGET_UNREACHABLE" },
  );
});

test("a server that closes or says nothing", { timeout: 20_000 }, async (context) => {
  await refuses(
    await evil((_, socket) => {
      socket.end();
      return undefined;
    }),
    /closed the connection/,
  );
  context.mock.timers.enable({ apis: ["setTimeout"] });
  const silent = dialPort(await evil(() => undefined));
  const outcome = silent.then(
    () => "connected",
    (error: Error & { code: string }) => `${error.code} ${error.message}`,
  );
  for (let i = 0; i < 40; i++) {
    await new Promise((resolve) => setImmediate(resolve));
    context.mock.timers.tick(500);
  }
  assert.equal(await outcome, "SLUICE_TARGET_UNREACHABLE target evil: the target did not finish its part in time");
});

test("a cleartext password never goes to another machine without TLS", async () => {
  let sent = "";
  const port = await evil(
    () => auth(3),
    (chunk) => {
      sent = chunk.toString();
      return undefined;
    },
  );
  // The same connection, as if its peer were elsewhere.
  const elsewhere: typeof transport = Object.assign(Object.create(transport), {
    connect: async (...args: Parameters<typeof transport.connect>) => {
      const wire = await transport.connect(...args);
      Object.defineProperty(wire, "isLoopback", { value: false });
      return wire;
    },
  });
  await assert.rejects(dial(grantFor(port), elsewhere, NO_PARAMETERS), /clear text/);
  assert.equal(sent, "");
});

test("cancel sends pid and key, and nothing without a key", async () => {
  let got = "";
  const port = await evil((chunk, socket) => {
    got = chunk.toString("hex");
    socket.end();
    return undefined;
  });
  const { target } = grantFor(port);
  assert.equal(await cancel({ backendPid: 5, backendKey: new Uint8Array([1, 2, 3, 4]), cancelTarget: target }, transport), true);
  assert.equal(got, "0000001004d2162e0000000501020304");
  assert.equal(await cancel({ backendPid: 5, backendKey: new Uint8Array(0), cancelTarget: target }, transport), false);
  assert.equal(
    await cancel(
      { backendPid: 5, backendKey: new Uint8Array(4), cancelTarget: { ...target, address: { host: "127.0.0.1", port: 1 } } },
      transport,
    ),
    false,
  );
});
