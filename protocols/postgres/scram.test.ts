import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { createHash, X509Certificate } from "node:crypto";
import { mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";
import { ScramClient, saslPrep, tlsServerEndPoint } from "./scram.ts";

const SERVER_FIRST = "r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096";
const NONCE = "rOprNGfwEbeRWgbNEkqO";
const refused = { code: "SLUICE_TARGET_REFUSED" };
const plain = (password = "pencil"): ScramClient => new ScramClient(["SCRAM-SHA-256"], password, false, undefined, undefined, NONCE);

/** A self-signed certificate. @param signing what openssl needs to choose key and signature */
function certificate(...signing: string[]): Uint8Array {
  const folder = mkdtempSync(join(tmpdir(), "sluice-scram-"));
  try {
    const file = join(folder, "c.pem");
    execFileSync(
      "openssl",
      ["req", "-x509", "-nodes", "-subj", "/CN=x", "-days", "1", "-keyout", join(folder, "k"), "-out", file, ...signing],
      { stdio: "ignore" },
    );
    return new X509Certificate(readFileSync(file)).raw;
  } finally {
    rmSync(folder, { recursive: true });
  }
}

const EC = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256"];
const RSA = ["-newkey", "rsa:2048"];

test("the shape of the exchange of RFC 7677, section 3, with PostgreSQL's empty user name; a wrong server signature is refused", async () => {
  const client = plain();
  assert.equal(client.mechanism, "SCRAM-SHA-256");
  assert.equal(client.first(), `n,,n=,r=${NONCE}`);
  const final = await client.final(SERVER_FIRST);
  // Proofs are checked against real servers in test/dial.test.ts.
  assert.match(final, /^c=biws,r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj\)hNlF\$k0,p=[A-Za-z0-9+/]{43}=$/);
  assert.throws(() => client.verify("v=6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4="), refused);
  assert.throws(() => client.verify("e=invalid-proof"), refused);
  assert.throws(() => client.verify(""), refused);
});

test("a challenge that is malformed, endless, or not an answer to ours is refused", async () => {
  const salt = "W22ZaJ0SNY7soEsUEjb6gQ==";
  for (const challenge of [
    `r=${NONCE},s=${salt},i=4096`,
    `r=other${NONCE},s=${salt},i=4096`,
    `r=${NONCE}x,s=${salt},i=0`,
    `r=${NONCE}x,s=${salt},i=-1`,
    `r=${NONCE}x,s=${salt},i=10000001`,
    `r=${NONCE}x,s=${salt},i=99999999999999999999`,
    `r=${NONCE}x,s=${salt}`,
    `r=${NONCE}x,s=,i=4096`,
    `r=${NONCE}x,s=***,i=4096`,
    `m=ext,r=${NONCE}x,s=${salt},i=4096`,
    `r=${NONCE}x,s=${salt},i=4096,x=1`,
    `r=${NONCE}${"x".repeat(1_100)},s=${salt},i=4096`,
    `r=${NONCE}x,s=${"QUFB".repeat(1_000)},i=4096`,
    `r=${NONCE}${"x".repeat(100_000)},s=${salt},i=4096`,
    `r=${NONCE}\u00e9,s=${salt},i=4096`,
    "",
  ]) {
    await assert.rejects(plain().final(challenge), refused, challenge.slice(0, 80));
  }
});

test("channel binding flags: p when offered, y when the offer is missing, n when we cannot", () => {
  const der = certificate(...EC);
  const both = ["SCRAM-SHA-256-PLUS", "SCRAM-SHA-256"];
  const bound = new ScramClient(both, "x", true, der);
  assert.equal(bound.mechanism, "SCRAM-SHA-256-PLUS");
  assert.ok(bound.first().startsWith("p=tls-server-end-point,,n=,r="));
  const stripped = new ScramClient(["SCRAM-SHA-256"], "x", true, der);
  assert.ok(stripped.first().startsWith("y,,"));
  assert.ok(new ScramClient(["SCRAM-SHA-256"], "x", false, undefined).first().startsWith("n,,"));
  const unbindable = new ScramClient(both, "x", true, certificate("-newkey", "ed25519"));
  assert.equal(unbindable.mechanism, "SCRAM-SHA-256");
  assert.ok(unbindable.first().startsWith("n,,"));
  assert.throws(() => new ScramClient(both, "x", false, undefined), refused);
  assert.throws(() => new ScramClient(["SCRAM-SHA-1", "PLAIN"], "x", true, der), refused);
  assert.throws(() => new ScramClient(["SCRAM-SHA-256-PLUS"], "x", true, undefined), refused);
});

test("tls-server-end-point takes the certificate's own hash, and SHA-256 for what is weaker", () => {
  const cases: [string[], string][] = [
    [[...EC, "-sha256"], "sha256"],
    [[...EC, "-sha384"], "sha384"],
    [[...RSA, "-sha512"], "sha512"],
    [[...RSA, "-sha1"], "sha256"],
    [[...RSA, "-sha384", "-sigopt", "rsa_padding_mode:pss"], "sha384"],
    [[...RSA, "-sha256", "-sigopt", "rsa_padding_mode:pss"], "sha256"],
  ];
  for (const [signing, hash] of cases) {
    const der = certificate(...signing);
    assert.deepEqual(Buffer.from(tlsServerEndPoint(der)!), createHash(hash).update(der).digest(), signing.join(" "));
    for (let length = 0; length < 60; length++) assert.equal(tlsServerEndPoint(der.subarray(0, length)), undefined);
  }
});

test("every nonce is new, and a derived key serves the same salt only", async () => {
  const fresh = (): string => new ScramClient(["SCRAM-SHA-256"], "x", false, undefined).first();
  assert.notEqual(fresh(), fresh());
  const cache = { last: undefined };
  const with1 = new ScramClient(["SCRAM-SHA-256"], "pencil", false, undefined, cache, NONCE);
  const first = await with1.final(SERVER_FIRST);
  assert.notEqual(cache.last, undefined);
  const again = new ScramClient(["SCRAM-SHA-256"], "pencil", false, undefined, cache, NONCE);
  assert.equal(await again.final(SERVER_FIRST), first);
  const other = SERVER_FIRST.replace("4096", "4097");
  assert.equal(await new ScramClient(["SCRAM-SHA-256"], "pencil", false, undefined, cache, NONCE).final(other), await plain().final(other));
});

test("SASLprep (RFC 4013, section 3, and PostgreSQL's fallback)", () => {
  assert.equal(saslPrep("user"), "user");
  assert.equal(saslPrep("I\u00adX"), "IX");
  assert.equal(saslPrep("\u00aa"), "a");
  assert.equal(saslPrep("\u2168"), "IX");
  assert.equal(saslPrep("a\u00a0b"), "a b");
  assert.equal(saslPrep("bell\u0007\u2168"), "bell\u0007\u2168");
  assert.equal(saslPrep("\u00ad"), "\u00ad");
});
