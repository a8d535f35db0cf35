import assert from "node:assert/strict";
import { once } from "node:events";
import { connect, type Socket } from "node:net";
import { after, before, describe, test } from "node:test";
import { connect as connectTls } from "node:tls";
import { makeCertificate } from "../../test/helpers/certificates.ts";
import { buildNative } from "../native/build.ts";
import { closeAll, Events, type Kind, listen, listenAdopting, listenPouring, newTransport, relay, send, until } from "./rig.ts";
import type { TlsServerOptions, Transport, Wire } from "./types.ts";

before(() => buildNative({ quiet: true }));
after(closeAll);

for (const kind of ["sockets", "pump", "pump with node:tls"] as const) describe(`TLS over ${kind}`, () => tls(kind));

function tls(kind: Kind): void {
  let options: TlsServerOptions;
  let ca = "";
  before(() => {
    const made = makeCertificate("DNS:localhost,IP:127.0.0.1");
    ca = made.cert;
    options = { ...made, alpn: ["postgresql"], requireAlpn: false };
  });

  /** A server that answers the first `s` with `S` and then speaks TLS, or TLS at once; it echoes, and half-closes after the client did. */
  async function tlsPort(transport: Transport, more: Partial<TlsServerOptions>, events: Events, failures: unknown[] = []): Promise<number> {
    return listenAdopting(transport, (wire) => {
      const start = async (alreadyRead?: Uint8Array): Promise<void> => {
        wire.handler = events;
        events.onBytes = (bytes) => wire.write(bytes, 0, bytes.length);
        events.onEnded = () => wire.end();
        await wire
          .acceptTls({ ...options, ...more, ...(alreadyRead === undefined ? {} : { alreadyRead }) })
          .catch((error) => failures.push(error));
      };
      const first = new Events();
      first.onBytes = (bytes) => {
        if (bytes[0] === 0x16) void start(bytes);
        else {
          send(wire, "S");
          void start();
        }
      };
      wire.handler = first;
    });
  }

  test("server side after a plaintext request, client side with startTls, bulk both ways, half-close", { timeout: 20_000 }, async () => {
    const transport = newTransport(kind);
    const port = await tlsPort(transport, {}, new Events());
    const wire = await transport.connect({ host: "127.0.0.1", port }, 1_000);
    const plain = new Events();
    wire.handler = plain;
    send(wire, "s");
    await until(() => plain.text === "S", "the answer to the request");
    const events = new Events();
    wire.handler = events;
    await wire.startTls({ ca, serverName: "localhost", verify: true, alpn: ["postgresql"] });
    assert.equal(wire.encrypted, true);
    assert.equal(wire.alpn, "postgresql");
    assert.ok(wire.peerCertificate()!.length > 200);
    const bulk = Buffer.alloc(3_000_000, "tls-bulk-");
    wire.write(bulk, 0, bulk.length);
    wire.end();
    await until(() => events.ends === 1, "the echo's end");
    assert.ok(Buffer.concat(events.received).equals(bulk));
    await events.closed;
    assert.equal(events.error, undefined);
  });

  test("direct TLS: the ClientHello was already read; ALPN is demanded", { timeout: 20_000 }, async () => {
    const transport = newTransport(kind);
    const failures: unknown[] = [];
    const port = await tlsPort(transport, { requireAlpn: true }, new Events(), failures);
    const good = connectTls({ port, host: "127.0.0.1", ca, ALPNProtocols: ["postgresql"] });
    await once(good, "secureConnect");
    assert.equal(good.alpnProtocol, "postgresql");
    good.write("hello");
    assert.equal(String((await once(good, "data"))[0]), "hello");
    good.end();
    await once(good, "close");
    const without = connectTls({ port, host: "127.0.0.1", ca });
    await new Promise((resolve) => without.on("error", () => {}).once("close", resolve));
    await until(() => failures.length === 1, "the refusal");
    assert.match(String(failures[0]), /application protocol/);
    const other = connectTls({ port, host: "127.0.0.1", ca, ALPNProtocols: ["http/1.1"] });
    await new Promise((resolve) => other.on("error", () => {}).once("close", resolve));
    await until(() => failures.length === 2, "the second refusal");
    // Not demanded, but a client that names others only is on the wrong port (RFC 7301 §3.2).
    const lenient = await tlsPort(transport, {}, new Events(), failures);
    const foreign = connectTls({ port: lenient, host: "127.0.0.1", ca, ALPNProtocols: ["http/1.1"] });
    await new Promise((resolve) => foreign.on("error", () => {}).once("close", resolve));
    await until(() => failures.length === 3, "the third refusal");
  });

  test("garbage, a vanishing peer and a wrong certificate reject the handshake and close the wire", { timeout: 20_000 }, async () => {
    const transport = newTransport(kind);
    const failures: unknown[] = [];
    const events = new Events();
    const port = await tlsPort(transport, {}, events, failures);
    const garbage = connect(port, "127.0.0.1");
    garbage.on("error", () => {});
    garbage.write("s");
    await once(garbage, "data");
    garbage.write("this is no handshake at all, whatever it may be");
    await events.closed;
    await until(() => failures.length === 1, "garbage refused");
    assert.equal((failures[0] as { code: string }).code, "SLUICE_PROTOCOL_VIOLATION");
    assert.equal(events.closes, 1);

    const gone = connect(await tlsPort(transport, {}, new Events(), failures), "127.0.0.1");
    gone.on("error", () => {});
    gone.write("s");
    await once(gone, "data");
    gone.destroy();
    await until(() => failures.length === 2, "a vanished peer");

    const dial = async (verify: boolean, serverName: string, trusted: string | undefined): Promise<Wire> => {
      const wire = await transport.connect({ host: "127.0.0.1", port: await tlsPort(transport, {}, new Events(), []) }, 1_000);
      const plain = new Events();
      wire.handler = plain;
      send(wire, "s");
      await until(() => plain.text === "S", "the answer to the request");
      await wire.startTls({ ca: trusted, serverName, verify, alpn: [] });
      return wire;
    };
    await assert.rejects(dial(true, "elsewhere.example", ca), /does not match|ALTNAME/i);
    await assert.rejects(dial(true, "localhost", undefined), /self.signed|DEPTH_ZERO/i);
    (await dial(true, "127.0.0.1", ca)).destroy();
    (await dial(false, "elsewhere.example", undefined)).destroy();
  });

  test("a TLS peer that does not read: bytes arrive unchanged although the page is used again", { timeout: 20_000 }, async () => {
    const transport = newTransport(kind);
    const events = new Events();
    let server: Wire | undefined;
    const port = await listenAdopting(transport, (wire) => {
      const first = new Events();
      wire.handler = first;
      first.onBytes = (bytes) => {
        wire.handler = events;
        void wire.acceptTls({ ...options, alreadyRead: bytes }).then(() => {
          server = wire;
        });
      };
    });
    const client = connectTls({ port, host: "127.0.0.1", ca, ALPNProtocols: ["postgresql"] });
    await until(() => server !== undefined, "the handshake");
    client.pause();
    const expected: Buffer[] = [];
    for (let i = 0; i < 300; i++) {
      const part = Buffer.alloc(30_000, i & 127);
      expected.push(part);
      server!.write(part, 0, part.length);
      await new Promise((resolve) => setImmediate(resolve));
    }
    const got: Buffer[] = [];
    client.on("data", (chunk: Buffer) => got.push(chunk));
    client.resume();
    server!.end();
    await once(client, "end");
    assert.ok(Buffer.concat(got).equals(Buffer.concat(expected)));
    client.destroy();
  });

  test("bulk through a relay with backpressure on the TLS leg does not stall", { timeout: 20_000 }, async () => {
    const transport = newTransport(kind);
    const total = 32 * 1024 * 1024;
    const client = connectTls({ port: await relay(transport, await listenPouring(total), options), host: "127.0.0.1", ca });
    let got = 0;
    client.on("data", (chunk: Buffer) => (got += chunk.length));
    await once(client, "close");
    assert.equal(got, total);
  });

  test("a ClientHello byte by byte, TLS 1.2, bytes written during the handshake; TLS 1.1 is refused", { timeout: 20_000 }, async () => {
    const transport = newTransport(kind);
    const failures: unknown[] = [];
    const port = await listenAdopting(transport, (wire) => {
      wire.handler = new Events();
      wire.acceptTls(options).catch((error) => failures.push(error));
      send(wire, "early;");
    });
    /** Between client and wire: passes single bytes on. */
    const slicer = await listen((near) => {
      const far = connect(port, "127.0.0.1");
      far.setNoDelay(true);
      far.pipe(near);
      near.on("data", (chunk: Buffer) => {
        for (let i = 0; i < chunk.length; i++) far.write(chunk.subarray(i, i + 1));
      });
      near.on("close", () => far.destroy()).on("error", () => {});
      far.on("error", () => {});
    });
    for (const maxVersion of ["TLSv1.3", "TLSv1.2"] as const) {
      const client = connectTls({ port: slicer, host: "127.0.0.1", ca, maxVersion });
      const [first] = await once(client, "data");
      assert.equal(String(first), "early;");
      assert.equal(client.getProtocol(), maxVersion);
      client.destroy();
    }
    const ciphers = "DEFAULT@SECLEVEL=0";
    const old = connectTls({ port, host: "127.0.0.1", ca, minVersion: "TLSv1.1", maxVersion: "TLSv1.1", ciphers });
    await once(old, "error");
    await until(() => failures.length === 1, "the refusal");
    assert.match(String(failures[0]), /TLS handshake failed: /);
  });

  test("paused during the handshake: the handshake ends, bytes come after resume()", { timeout: 10_000 }, async () => {
    const transport = newTransport(kind);
    const events = new Events();
    let server: Wire | undefined;
    const port = await listenAdopting(transport, (wire) => {
      wire.handler = events;
      const secured = wire.acceptTls(options);
      wire.pause();
      void secured.then(() => {
        server = wire;
      });
    });
    const client = connectTls({ port, host: "127.0.0.1", ca });
    client.end("hello");
    await until(() => server !== undefined, "the handshake");
    await new Promise((resolve) => setTimeout(resolve, 30));
    assert.equal(events.text, "");
    server!.resume();
    await until(() => events.ends === 1, "the end");
    assert.equal(events.text, "hello");
    server!.destroy();
  });

  test("garbage after the handshake closes that wire once, with an error; a sudden end is an end", { timeout: 10_000 }, async () => {
    const transport = newTransport(kind);
    const all: Events[] = [];
    const port = await listenAdopting(transport, (wire) => {
      const events = new Events();
      events.onBytes = (bytes) => wire.write(bytes, 0, bytes.length);
      events.onEnded = () => wire.end();
      wire.handler = events;
      all.push(events);
      void wire.acceptTls(options);
    });
    const dial = async (): Promise<{ raw: Socket; echo: (text: string) => Promise<void> }> => {
      const raw = connect(port, "127.0.0.1");
      raw.on("error", () => {});
      const client = connectTls({ socket: raw, ca, servername: "localhost" });
      client.on("error", () => {});
      await once(client, "secureConnect");
      const echo = async (text: string): Promise<void> => {
        client.write(text);
        assert.equal(String((await once(client, "data"))[0]), text);
      };
      await echo("first");
      return { raw, echo };
    };
    const [bad, sudden, good] = [await dial(), await dial(), await dial()];
    // Not through node:tls, which owns the socket's handle: by the handle itself.
    const handle = (bad.raw as unknown as { _handle: { fd: number } })._handle;
    const { writeSync } = await import("node:fs");
    writeSync(handle.fd, "\x17\x03\x03\x00\x20 this is no record of this session");
    await until(() => all[0]!.closes === 1, "the first wire's end");
    assert.ok(all[0]!.error !== undefined);
    assert.equal(all[0]!.text, "first");
    sudden.raw.destroy();
    await until(() => all[1]!.closes === 1, "the second wire's end");
    await good.echo("second");
    assert.deepEqual([all[1]!.ends, all[2]!.closes], [1, 0]);
    good.raw.destroy();
  });

  test("100 clients shake hands at once", { timeout: 20_000 }, async () => {
    const transport = newTransport(kind);
    const port = await tlsPort(transport, {}, new Events());
    const other = await listenAdopting(transport, (wire) => {
      const events = new Events();
      events.onBytes = (bytes) => wire.write(bytes, 0, bytes.length);
      wire.handler = events;
      wire.acceptTls(options).catch(() => {});
    });
    assert.ok(port !== other);
    await Promise.all(
      Array.from({ length: 100 }, async (_, k) => {
        const client = connectTls({ port: other, host: "127.0.0.1", ca });
        await once(client, "secureConnect");
        client.write(`hello ${k}`);
        assert.equal(String((await once(client, "data"))[0]), `hello ${k}`);
        client.destroy();
      }),
    );
  });

  test("an unusable certificate: nothing is sent in the clear", {
    timeout: 10_000,
  }, async () => {
    const transport = newTransport(kind);
    const got: Buffer[] = [];
    const port = await listen((socket) => socket.on("data", (chunk: Buffer) => got.push(chunk)).on("error", () => {}));
    const dial = (): Promise<Wire> => transport.connect({ host: "127.0.0.1", port }, 1_000);
    const wire = await dial();
    const events = new Events();
    wire.handler = events;
    const other = makeCertificate("DNS:localhost");
    await assert.rejects(wire.acceptTls({ ...options, key: other.key }), { code: "SLUICE_INTERNAL" });
    await assert.rejects((await dial()).acceptTls({ ...options, cert: "no certificate" }), { code: "SLUICE_INTERNAL" });
    send(wire, "secret");
    await events.closed;
    await new Promise((resolve) => setTimeout(resolve, 20));
    assert.ok(!Buffer.concat(got).includes("secret"));
  });

  test("an empty name matches nobody, and a name that begins with a dot is no suffix", { timeout: 20_000 }, async () => {
    const transport = newTransport(kind);
    const made = makeCertificate("DNS:localhost,DNS:db.example.com,DNS:*.wild.example.com");
    const port = await listenAdopting(transport, (accepted) => {
      accepted.handler = new Events();
      accepted.acceptTls({ ...options, ...made }).catch(() => {});
    });
    const dial = async (serverName: string, verify = true): Promise<void> => {
      const wire = await transport.connect({ host: "127.0.0.1", port }, 1_000);
      wire.handler = new Events();
      await wire.startTls({ ca: made.cert, serverName, verify, alpn: [] });
      wire.destroy();
    };
    const strangers = [
      ...["", ".", "..", ".example.com", ".com", "..example.com", ".db.example.com", "example.com", "com"],
      ...[
        "*",
        "*.example.com",
        ".wild.example.com",
        "..wild.example.com",
        "wild.example.com",
        "a.b.wild.example.com",
        "gateway",
        "db.example.com.evil",
      ],
      "db.example.com\0.evil",
    ];
    for (const name of strangers) await assert.rejects(dial(name), { name: "SluiceError" }, `"${name}" was taken`);
    for (const name of ["db.example.com", "DB.Example.com", "db.example.com.", "a.wild.example.com"]) await dial(name);
    for (const name of ["", ".example.com"]) await dial(name, false).catch((error: unknown) => assert.match(String(error), /SluiceError/));
  });
}
