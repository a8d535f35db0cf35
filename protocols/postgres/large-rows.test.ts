import assert from "node:assert/strict";
import { test } from "node:test";
import { LIMITS } from "../../core/limits.ts";
import { createMasker } from "../../core/mask/masker.ts";
import { KIND_BITS } from "../../core/mask/prefilter.ts";
import type { DetectorName } from "../../core/policy/types.ts";
import { createCopyMasker } from "./copy-masker.ts";
import type { CopyPlan } from "./copy-plan.ts";
import { RowMasker } from "./rows.ts";
import type { CopyFormat } from "./sql/types.ts";
import { type ColumnAction, type SessionMasks, searchedBinary, searchedText } from "./values.ts";

// What one row may cost the thread that masks it. The budgets are counted, so what comes out is the same on every machine.

const RULE = { name: "r", columns: [], detect: Object.keys(KIND_BITS) as DetectorName[], with: "redact", predicates: "deny" } as const;
const masks: SessionMasks = { masker: createMasker([RULE], Buffer.alloc(32, 1), undefined), columns: new Map(), contentRule: "r" };
const TEXT: CopyFormat = { kind: "text", delimiter: 9, nullText: "\\N", header: false, quote: 0, escape: 0x5c };
const CSV: CopyFormat = { kind: "csv", delimiter: 0x2c, nullText: "", header: false, quote: 0x22, escape: 0x22 };
const MIB = 1024 * 1024;
const MAIL = "a.person@corp.example ";
const NO_CARD = "4111 1111 1111 1112 ";
const PROSE = "nothing to see here, 12 of 34. ";

const filled = (piece: string, bytes: number): Buffer => Buffer.from(piece.repeat(Math.ceil(bytes / piece.length)).slice(0, bytes));

function int32(...values: readonly number[]): Buffer {
  const bytes = Buffer.alloc(4 * values.length);
  values.forEach((value, index) => {
    bytes.writeInt32BE(value, 4 * index);
  });
  return bytes;
}

function message(type: string, ...parts: readonly Uint8Array[]): Buffer {
  const body = Buffer.concat(parts);
  return Buffer.concat([Buffer.from(type), int32(body.length + 4), body]);
}

const row = (values: readonly Uint8Array[]): Buffer =>
  message("D", Buffer.from([values.length >> 8, values.length & 255]), ...values.flatMap((value) => [int32(value.length), value]));

const array = (element: number, values: readonly Uint8Array[]): Buffer =>
  Buffer.concat([int32(1, 0, element, values.length, 1), ...values.flatMap((value) => [int32(value.length), value])]);

const int64 = (value: bigint): Buffer => {
  const bytes = Buffer.alloc(8);
  bytes.writeBigInt64BE(value);
  return bytes;
};

/** @returns the row's values as they go out; undefined: NULL */
function masked(values: readonly Uint8Array[], actions: readonly (ColumnAction | undefined)[]): (string | undefined)[] {
  const bytes = row(values);
  const always = actions.some((action) => action?.kind === "decode");
  const out = Buffer.from(new RowMasker().row(bytes, 0, bytes.length, bytes.length, actions, masks, always, new Map()) ?? bytes);
  const shown: (string | undefined)[] = [];
  for (let at = 7; at < out.length; ) {
    const length = out.readInt32BE(at);
    shown.push(length < 0 ? undefined : out.toString("latin1", at + 4, at + 4 + length));
    at += 4 + Math.max(0, length);
  }
  return shown;
}

function copied(format: CopyFormat, field: string, value: Uint8Array): string {
  const plan: CopyPlan = { format, actions: undefined, exact: false, fresh: false, masks };
  const bytes = message("d", Buffer.from(field.split("|")[0] ?? ""), value, Buffer.from(`${field.split("|")[1] ?? ""}\n`));
  const out = createCopyMasker(plan, 0, 1).message(bytes, 0, bytes.length, bytes.length, new Map()) ?? bytes;
  return Buffer.from(out.subarray(5)).toString("latin1");
}

const text = searchedText(25);
const as = (type: number): ColumnAction | undefined => {
  const action = searchedBinary(type);
  assert.notEqual(action, "impossible");
  return action as ColumnAction | undefined;
};

test("more suspicious text than may be read closely is replaced whole, the values beside it are not", () => {
  const below = filled(NO_CARD, LIMITS.suspiciousBytes / 2);
  const above = filled(NO_CARD, LIMITS.suspiciousBytes * 2);
  const prose = filled(PROSE, 8 * MIB);
  assert.deepEqual(
    masked([below], [text]).map((value) => value?.length),
    [below.length],
  );
  const [name, digits, mail, after] = masked(
    [Buffer.from("Jane 12-34"), above, Buffer.from(MAIL), prose.subarray(0, 1_000)],
    [text, text, text, text],
  );
  assert.deepEqual([name, digits, mail], ["Jane 12-34", "[REDACTED]", "[REDACTED:email] "]);
  assert.equal(after, prose.toString("latin1", 0, 1_000));
  assert.equal(masked([prose], [text])[0]?.length, prose.length);
  // The next row begins anew, in the same chunk too.
  const rows = [row([above]), row([below])];
  const chunk = Buffer.concat(rows);
  const masker = new RowMasker();
  const [first, second] = [rows[0]?.length ?? 0, chunk.length];
  assert.ok(masker.row(chunk, 0, first, first, [text], masks, false, new Map()) !== undefined);
  assert.equal(masker.row(chunk, first, second, second, [text], masks, false, new Map()), undefined);
});

test("values of one row share what is matched exactly; what no longer fits is replaced whole", () => {
  const values = Array.from({ length: 1_600 }, () => filled(MAIL, 2_200));
  const shown = masked(
    values,
    values.map(() => text),
  );
  const exact = "[REDACTED:email] ".repeat(100);
  const count = shown.filter((value) => value === exact).length;
  assert.ok(count > 10 && count < 100, `${count}`);
  assert.ok(shown.every((value, index) => value === (index < count ? exact : "[REDACTED]")));
});

test("arrays: only elements in which something is suspected count, and numbers that could be a card", () => {
  const words = Array.from({ length: 100_000 }, (_, index) => Buffer.from(`word ${index}`));
  const [few] = masked([array(25, [...words, Buffer.from("a@b.example")])], [as(1009)]);
  assert.equal(few, array(25, [...words, Buffer.from("[REDACTED:email]")]).toString("latin1"));
  const mails = Array.from({ length: LIMITS.maskedElements + 1 }, () => Buffer.from("a@b.example"));
  assert.deepEqual(masked([array(25, mails)], [as(1009)]), [undefined]);
  const small = array(
    20,
    Array.from({ length: 100_000 }, (_, index) => int64(BigInt(index))),
  );
  assert.deepEqual(masked([small], [as(1016)]), [small.toString("latin1")]);
  const large = (count: number) =>
    array(
      20,
      Array.from({ length: count }, () => int64(4_111_111_111_111_112n)),
    );
  assert.deepEqual(masked([large(LIMITS.maskedElements)], [as(1016)]), [large(LIMITS.maskedElements).toString("latin1")]);
  assert.deepEqual(masked([large(LIMITS.maskedElements + 1)], [as(1016)]), [undefined]);
});

test("COPY: a large value with escapes is searched as far as they are few, else replaced whole", () => {
  for (const [format, field, escape] of [
    [TEXT, "|", "\\n"],
    [CSV, '"|"', '""'],
  ] as const) {
    const few = filled(`${PROSE}${PROSE}${escape}`, 64_000 * (2 * PROSE.length + 2));
    assert.equal(copied(format, field, few).length, few.length + field.length, format.kind);
    assert.match(copied(format, field, filled(escape, 2 * MIB)), /^"?\[REDACTED\]"?\n$/, format.kind);
    const hidden = Buffer.concat([few, Buffer.from(format === TEXT ? "4\\061111111\\0611111111" : '4111""1')]);
    const shown = copied(format, field, hidden);
    if (format === TEXT) assert.equal(shown, "[REDACTED]\n");
    assert.match(copied(format, field, Buffer.concat([few, Buffer.from(MAIL)])), /^"?\[REDACTED\]"?\n$/, format.kind);
    // A small value is matched exactly, escapes and all.
    assert.match(copied(format, field, Buffer.from(`${escape}${escape} ${MAIL}`)), /\[REDACTED:email\]/);
  }
});
