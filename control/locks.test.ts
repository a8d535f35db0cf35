import assert from "node:assert/strict";
import { mkdtempSync, readdirSync, readFileSync, rmSync, statSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, describe, it } from "node:test";
import { LOCK_FILE, openLocks } from "./locks.ts";
import { type Lockable, matchLock, parseSubject } from "./subjects.ts";
import type { Lock } from "./types.ts";

let folder: string;
before(() => {
  folder = mkdtempSync(join(tmpdir(), "sluice-locks-"));
});
after(() => rmSync(folder, { recursive: true }));

const KNOWN = { issuers: ["corp", "partner"], targets: ["orders", "b"] };
const request = (subject: string, expiresMillis?: number) => ({ subject, reason: "left the company", by: "local:ops", expiresMillis });
const code = (expected: string, text?: RegExp) => (thrown: unknown) => {
  assert.equal((thrown as { code?: string }).code, expected);
  if (text !== undefined) assert.match((thrown as Error).message, text);
  return true;
};

describe("subjects", () => {
  it("get the default issuer where none is named", () => {
    assert.deepEqual(parseSubject("user:alice", KNOWN), { kind: "user", value: "corp:alice" });
    assert.deepEqual(parseSubject("group:partner:dba", KNOWN), { kind: "group", value: "partner:dba" });
    assert.deepEqual(parseSubject("user:corp:urn:x", KNOWN), { kind: "user", value: "corp:urn:x" });
    assert.deepEqual(parseSubject("label:env=a=b", KNOWN), { kind: "label", value: "env=a=b" });
  });

  it("that could match nobody are refused", () => {
    for (const text of [
      "alice",
      "",
      "user:",
      "usr:alice",
      "user:crop:alice",
      "user:corp:",
      "label:env",
      "label:=x",
      "issuer:crop",
      "target:a\nb",
      "target:order",
    ]) {
      assert.throws(() => parseSubject(text, KNOWN), code("SLUICE_SUBJECT_INVALID"), text);
    }
    assert.throws(() => parseSubject("user:alice", { issuers: [], targets: [] }), code("SLUICE_SUBJECT_INVALID"));
  });
});

describe("matching", () => {
  const who: Lockable = {
    identity: { issuer: "corp", user: "corp:alice", groups: ["corp:dba"], chain: ["corp:agent"] },
    target: { name: "orders", labels: { env: "prod" } },
    session: "s1",
  };
  const lock = (subject: string, expiresMillis?: number): Lock => ({
    id: "x",
    subject,
    reason: "",
    by: "",
    createdMillis: 0,
    expiresMillis,
  });

  it("each kind covers its own and nothing else", () => {
    for (const subject of [
      "user:corp:alice",
      "user:corp:agent",
      "group:corp:dba",
      "target:orders",
      "session:s1",
      "issuer:corp",
      "label:env=prod",
    ]) {
      assert.equal(matchLock([lock("target:other"), lock(subject)], who)?.subject, subject);
    }
    for (const subject of [
      "user:partner:alice",
      "user:corp:alic",
      "group:partner:dba",
      "group:dba",
      "target:order",
      "session:s2",
      "issuer:partner",
      "label:env=test",
      "label:toString=",
    ]) {
      assert.equal(matchLock([lock(subject)], who), undefined, subject);
    }
  });

  it("an unknown kind locks, an expired lock does not", () => {
    assert.ok(matchLock([lock("planet:earth")], who));
    assert.ok(matchLock([lock("user:corp:alice", 1000)], who, 999));
    assert.equal(matchLock([lock("user:corp:alice", 1000)], who, 1000), undefined);
  });
});

describe("the store", () => {
  it("keeps locks over a restart, in a file of mode 0600, without left-overs", () => {
    const added = openLocks(folder).add(request("user:alice"), KNOWN);
    assert.equal(added.subject, "user:corp:alice");
    const again = openLocks(folder);
    assert.deepEqual(again.list(), [added]);
    assert.equal(statSync(join(folder, LOCK_FILE)).mode & 0o777, 0o600);
    assert.deepEqual(readdirSync(folder), [LOCK_FILE]);
    assert.equal(again.remove("lock-none"), undefined);
    assert.deepEqual(again.remove(added.id), added);
    assert.deepEqual(openLocks(folder).list(), []);
  });

  it("forgets a lock when its time is over", () => {
    let now = 1_000;
    const store = openLocks(folder, () => now);
    const short = store.add(request("target:orders", 2_000), KNOWN);
    assert.deepEqual(store.list(), [short]);
    now = 2_000;
    assert.deepEqual(store.list(), []);
    assert.deepEqual(openLocks(folder, () => now).list(), []);
    store.add(request("target:b"), KNOWN);
    assert.ok(!readFileSync(join(folder, LOCK_FILE), "utf8").includes("orders"));
  });

  it("refuses to start with a file it cannot understand, and names it", () => {
    const file = join(folder, LOCK_FILE);
    for (const text of [
      "",
      "{",
      "[]",
      "null",
      '{"version":2,"locks":[]}',
      '{"version":1,"locks":[{"id":"a"}]}',
      '{"version":1,"locks":[{"id":"a","subject":"x:y","reason":"","by":"","createdMillis":1}]}',
    ]) {
      writeFileSync(file, text);
      assert.throws(
        () => openLocks(folder),
        (thrown) => code("SLUICE_STORE_UNUSABLE")(thrown) && (thrown as Error).message.includes(file),
        text,
      );
    }
    rmSync(file);
  });

  it("changes nothing when it cannot write", () => {
    const gone = openLocks(join(folder, "gone"));
    assert.throws(() => gone.add(request("target:b"), KNOWN), code("SLUICE_RECORD_FAILED"));
    assert.deepEqual(gone.list(), []);
  });
});
