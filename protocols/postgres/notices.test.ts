import assert from "node:assert/strict";
import { test } from "node:test";
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
