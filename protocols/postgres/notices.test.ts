import assert from "node:assert/strict";
import { test } from "node:test";
import { LIMITS } from "../../core/limits.ts";
import { createMasker } from "../../core/mask/masker.ts";
import type { MaskRule } from "../../core/policy/types.ts";
import { errorResponse, parameterStatus } from "./messages.ts";
import { errorFields, maskedError, maskedString } from "./notices.ts";

const rule = (name: string, changes: Partial<MaskRule>): MaskRule => ({
  name,
  columns: [],
  detect: [],
  with: "redact",
  predicates: "deny",
  ...changes,
});
const masker = createMasker([rule("mails", { detect: ["email"] })], new Uint8Array(32), undefined);
const error = errorResponse({
  severity: "ERROR",
  sqlState: "22P02",
  message: "bad a@example.com",
  detail: "Key b@example.com",
  hint: "c@example.com",
});

test("each masked field is counted under the rule that masked it", () => {
  const counts = new Map<string, number>();
  const masked = maskedError(error, 0, error.length, masker, undefined, false, counts);
  assert.ok(masked !== undefined && !Buffer.from(masked).includes("example.com"));
  assert.deepEqual([...counts], [["mails", 3]]);
});

test("fields that are withheld count under the column mask in force", () => {
  const counts = new Map<string, number>();
  const masked = maskedError(error, 0, error.length, masker, "pii", false, counts);
  assert.equal(errorFields(masked as Uint8Array, 0, masked?.length ?? 0).message, "bad [REDACTED:email]");
  assert.deepEqual(
    counts,
    new Map([
      ["pii", 2],
      ["mails", 1],
    ]),
  );
  counts.clear();
  maskedError(error, 0, error.length, undefined, "pii", true, counts);
  assert.deepEqual([...counts], [["pii", 3]], "the message may quote a value");
});

test("the fields of a message share what may be searched, as the values of a row do", () => {
  const dense = "a@example.com ".repeat(3_000);
  const shown = "[REDACTED:email] ".repeat(3_000);
  const large = errorResponse({ severity: "ERROR", sqlState: "22P02", message: dense, detail: dense, hint: "d@example.com and more" });
  const masked = Buffer.from(maskedError(large, 0, large.length, masker, undefined, false, new Map()) ?? large).toString("latin1");
  assert.equal(masked.split(shown).length - 1, 1);
  assert.ok(masked.includes("D[REDACTED]\0") && !masked.includes("example.com"));
  // The prefilter's share too: the second field is suspected although nothing is in it.
  const cards = createMasker([rule("cards", { detect: ["payment_card"] })], new Uint8Array(32), undefined);
  const digits = "4111 1111 1111 1112 ".repeat(LIMITS.suspiciousBytes / 20 - 100);
  const numbers = errorResponse({ severity: "ERROR", sqlState: "22P02", message: digits, detail: digits, hint: "no" });
  const whole = Buffer.from(maskedError(numbers, 0, numbers.length, cards, undefined, false, new Map()) ?? numbers).toString("latin1");
  assert.equal(whole.split(digits).length - 1, 1);
  assert.ok(whole.includes("D[REDACTED]\0") && whole.includes("Hno\0"));
});

test("nothing is counted where nothing changes", () => {
  const counts = new Map<string, number>();
  const plain = errorResponse({ severity: "ERROR", sqlState: "42601", message: "no" });
  assert.equal(maskedError(plain, 0, plain.length, masker, "pii", false, counts), undefined);
  const status = parameterStatus("application_name", "me@example.com");
  const from = status.indexOf(0, 5) + 1;
  assert.equal(counts.size, 0);
  assert.ok(maskedString(status, 0, from, status.length, masker, counts) !== undefined);
  assert.deepEqual([...counts], [["mails", 1]]);
});
