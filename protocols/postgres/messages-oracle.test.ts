import assert from "node:assert/strict";
import { PassThrough } from "node:stream";
import { test } from "node:test";
import { parse as parseBackend, serialize } from "pg-protocol";
import * as messages from "./messages.ts";

/** What another implementation of the protocol reads out of our bytes. */
async function read(bytes: Uint8Array): Promise<Record<string, unknown>[]> {
  const found: Record<string, unknown>[] = [];
  const stream = new PassThrough();
  const done = parseBackend(
    stream,
    (message) => void found.push({ ...message, ...(message instanceof Error ? { message: message.message } : {}) }),
  );
  stream.end(bytes);
  await done;
  return found;
}

test("pg-protocol reads the messages that we make for clients", async () => {
  const [error] = await read(messages.errorResponse({ severity: "ERROR", sqlState: "42501", message: "no", detail: "why", hint: "what" }));
  assert.deepEqual(
    { name: error.name, severity: error.severity, code: error.code, message: error.message, detail: error.detail, hint: error.hint },
    { name: "error", severity: "ERROR", code: "42501", message: "no", detail: "why", hint: "what" },
  );
  const [status] = await read(messages.parameterStatus("TimeZone", "UTC"));
  assert.equal(status.parameterName, "TimeZone");
  assert.equal(status.parameterValue, "UTC");
  const [key] = await read(messages.backendKeyData(77, Buffer.from([0, 0, 1, 2])));
  assert.deepEqual([key.processID, key.secretKey], [77, 258]);
  const [ready] = await read(messages.readyForQuery("T"));
  assert.equal(ready.status, "T");
  const [cleartext] = await read(messages.authenticationCleartextPassword());
  assert.equal(cleartext.name, "authenticationCleartextPassword");
});

test("our messages towards the target are byte for byte those of pg-protocol", () => {
  const same = (ours: Uint8Array, theirs: Uint8Array) => assert.deepEqual(Buffer.from(ours), Buffer.from(theirs));
  same(messages.query("select 1"), serialize.query("select 1"));
  same(messages.parse("s", "select $1", [23]), serialize.parse({ name: "s", text: "select $1", types: [23] }));
  same(messages.describe("S", "s"), serialize.describe({ type: "S", name: "s" }));
  same(messages.execute("", 5), serialize.execute({ portal: "", rows: 5 }));
  same(messages.close("P", "p"), serialize.close({ type: "P", name: "p" }));
  same(messages.flush(), serialize.flush());
  same(messages.sync(), serialize.sync());
  same(messages.terminate(), serialize.end());
  same(messages.passwordMessage("token"), serialize.password("token"));
  same(messages.sslRequest(), serialize.requestSsl());
});
