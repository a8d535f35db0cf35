import assert from "node:assert/strict";
import { test } from "node:test";
import * as messages from "./messages.ts";

test("the table holds every message of the protocol once, and each direction's bytes do not collide", () => {
  const letters = (from: string): string =>
    messages.MESSAGES.filter((entry) => entry.from === from)
      .map((entry) => entry.letter)
      .sort()
      .join("");
  assert.equal(letters("frontend"), [..."BCdcfDEHFPpQSX"].sort().join(""));
  assert.equal(letters("backend"), [..."RK23CdcGHWDIEVvnNAtS1sZT"].sort().join(""));
});

test("what ends the session has no limit, what is read has one of at least the length field", () => {
  for (const entry of messages.MESSAGES) {
    // FunctionCall is read so that it can be answered with an error.
    if (entry.handling === "refuse" && entry.name !== "FunctionCall") assert.equal(entry.limitBytes, 0, entry.name);
    else assert.ok(entry.limitBytes >= 4, entry.name);
    assert.ok(entry.reason.length > 10, entry.name);
  }
  assert.equal(messages.FRONTEND_MESSAGES[0x46]?.handling, "refuse");
  assert.equal(messages.BACKEND_MESSAGES[0x57]?.handling, "refuse");
  assert.equal(messages.FRONTEND_MESSAGES[0], undefined);
  assert.equal(messages.FRONTEND_MESSAGES.length, 256);
});

const hex = (bytes: Uint8Array): string => Buffer.from(bytes).toString("hex");

test("encoders, byte by byte", () => {
  assert.equal(hex(messages.sslRequest()), "0000000804d2162f");
  assert.equal(hex(messages.cancelRequest(1, Buffer.from("aabbccdd", "hex"))), "0000001004d2162e00000001aabbccdd");
  assert.equal(hex(messages.startupMessage(messages.PROTOCOL_3_0, [["user", "u"]])), `0000001000030000${hex(Buffer.from("user\0u\0\0"))}`);
  assert.equal(hex(messages.terminate()), "5800000004");
  assert.equal(hex(messages.authenticationOk()), "520000000800000000");
  assert.equal(hex(messages.authenticationCleartextPassword()), "520000000800000003");
  assert.equal(hex(messages.readyForQuery("E")), "5a0000000545");
  assert.equal(hex(messages.backendKeyData(7, new Uint8Array(32))), `4b0000002800000007${"00".repeat(32)}`);
  assert.equal(hex(messages.negotiateProtocolVersion(0x30002, ["_pq_.a"])), `76000000130003000200000001${hex(Buffer.from("_pq_.a\0"))}`);
  assert.equal(hex(messages.query("é")), "5100000007c3a900");
  assert.equal(hex(messages.saslInitialResponse("M", "né")), "700000000d4d00000000036ec3a9");
  assert.equal(hex(messages.bind("", "s", ["x", undefined])), "4200000016007300000000020000000178ffffffff0000");
});

test("an error's text cannot break out of its field", () => {
  const bytes = messages.errorResponse({ severity: "ERROR", sqlState: "42501", message: "no\0Mfake", hint: "ask" });
  assert.equal(Buffer.from(bytes.subarray(5)).toString(), "SERROR\0VERROR\0C42501\0MnoMfake\0Hask\0\0");
  assert.equal(new DataView(bytes.buffer).getInt32(1), bytes.length - 1);
});
