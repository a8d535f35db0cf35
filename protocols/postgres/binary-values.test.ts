import assert from "node:assert/strict";
import { test } from "node:test";
import fc from "fast-check";
import { createMasker } from "../../core/mask/masker.ts";
import { KIND_BITS } from "../../core/mask/prefilter.ts";
import type { DetectorName } from "../../core/policy/types.ts";
import { binaryForm, GIVE_UP, maskBinary, type Search } from "./binary-values.ts";

/** Finds SECRET and the digits 4242. */
const search: Search = (bytes, start, end) => {
  const text = Buffer.from(bytes.subarray(start, end)).toString("latin1");
  if (text.includes("GONE")) return null;
  return /SECRET|4242/.test(text) ? Buffer.from(text.replaceAll(/SECRET|4242/g, "-"), "latin1") : undefined;
};
const mask = (type: number, value: Uint8Array): Buffer | null | undefined => {
  // Within other bytes, as in a row.
  const chunk = Buffer.concat([Buffer.from("42"), value, Buffer.from("42")]);
  const found = maskBinary(type, chunk, 2, 2 + value.length, search);
  return found == null ? found : Buffer.from(found);
};
const int64 = (value: bigint): Buffer => {
  const bytes = Buffer.alloc(8);
  bytes.writeBigInt64BE(value);
  return bytes;
};

test("numbers that show a find become NULL", () => {
  assert.equal(mask(20, int64(1_424_200_000_000n)), null);
  assert.equal(mask(20, int64(-1_424_200_000_000n)), null);
  for (const value of [1n, 4242n, -4242n, 2n ** 39n - 4242n]) assert.equal(mask(20, int64(value)), undefined, String(value));
  const double = Buffer.alloc(8);
  double.writeDoubleBE(1_424_200_000_000.5);
  assert.equal(mask(701, double), null);
  for (const value of [Number.NaN, Number.POSITIVE_INFINITY, 4242e20, 1.5, 4242.5, -4242]) {
    double.writeDoubleBE(value);
    assert.equal(mask(701, double), undefined, String(value));
  }
});

test("in the numbers that are passed over no detector finds anything", () => {
  const rule = { name: "r", columns: [], detect: Object.keys(KIND_BITS) as DetectorName[], with: "redact", predicates: "deny" } as const;
  const masker = createMasker([rule], Buffer.alloc(32, 1), undefined);
  const harmless = (text: string) => assert.equal(masker.field(Buffer.from(text), 0, text.length), undefined, text);
  const most = 2 ** 39 - 1;
  fc.assert(
    fc.property(fc.double({ min: -most, max: most, noNaN: true }), (value) => harmless(String(value))),
    { numRuns: 5_000 },
  );
  fc.assert(
    fc.property(fc.integer({ min: -most, max: most }), fc.bigInt({ min: 0n, max: 10n ** 17n }), (whole, fraction) => {
      harmless(String(whole));
      harmless(String(Number(`${whole}.${fraction}`)));
    }),
    { numRuns: 5_000 },
  );
  // The digits of a card, behind the point.
  harmless("0.4111111111111111");
});

/** PostgreSQL's numeric of a decimal number, without zeros at either end of its groups. */
function numeric(text: string): Buffer {
  const [, sign = "", whole = "", fraction = ""] = /^(-?)([0-9]+)(?:\.([0-9]+))?$/.exec(text) ?? [];
  const left = whole.padStart(Math.ceil(whole.length / 4) * 4, "0");
  const right = fraction.padEnd(Math.ceil(fraction.length / 4) * 4, "0");
  const groups = (left + right).match(/.{4}/g)?.map(Number) ?? [];
  let weight = left.length / 4 - 1;
  while (groups.length > 0 && groups[0] === 0) {
    groups.shift();
    weight -= 1;
  }
  while (groups.length > 0 && groups.at(-1) === 0) groups.pop();
  const bytes = Buffer.alloc(8 + groups.length * 2);
  bytes.writeUInt16BE(groups.length, 0);
  bytes.writeInt16BE(groups.length === 0 ? 0 : weight, 2);
  bytes.writeUInt16BE(sign === "" || groups.length === 0 ? 0 : 0x4000, 4);
  bytes.writeUInt16BE(fraction.length, 6);
  groups.forEach((group, index) => {
    bytes.writeUInt16BE(group, 8 + index * 2);
  });
  return bytes;
}

test("a numeric is searched in the digits that its text shows", () => {
  const shown = (value: Buffer): string => {
    let text = "";
    maskBinary(1700, value, 0, value.length, (bytes, start, end) => {
      text = Buffer.from(bytes.subarray(start, end)).toString();
      return undefined;
    });
    return text;
  };
  for (const text of ["0", "0.00", "4111111111110000", "-4111111111111111.50", "0.0000000042", "100000000", "12345.678900"])
    assert.equal(shown(numeric(text)), text.replace("-0", "0"));
  fc.assert(
    fc.property(fc.bigInt({ min: -(10n ** 30n), max: 10n ** 30n }), fc.stringMatching(/^[0-9]{0,20}$/), (whole, fraction) => {
      const text = `${whole}${fraction === "" ? "" : `.${fraction}`}`;
      assert.equal(shown(numeric(text)), text.replace(/^-(?=[0.]*$)/, ""));
    }),
  );
  assert.equal(mask(1700, numeric("14242")), null);
  assert.equal(mask(1700, numeric("1")), undefined);
  for (const sign of [0xc000, 0xd000, 0xf000]) {
    const special = Buffer.alloc(8);
    special.writeUInt16BE(sign, 4);
    assert.equal(mask(1700, special), undefined);
  }
  // Ten bytes that stand for 131,072 digits.
  const huge = Buffer.from([0, 1, 0x7f, 0xff, 0, 0, 0, 0, 0, 1]);
  assert.ok(shown(huge).length < 100);
});

test("JSON stays JSON, with its version byte where it has one", () => {
  assert.equal(mask(114, Buffer.from('{"a": "SECRET"}'))?.toString(), '{"a": "-"}');
  assert.equal(mask(3802, Buffer.from('\x01{"a": "SECRET"}'))?.toString(), '\x01{"a": "-"}');
  assert.equal(mask(3802, Buffer.from('\x01{"a": 4242}')), null);
  assert.equal(mask(3802, Buffer.from("\x01{}")), undefined);
  assert.throws(() => mask(3802, Buffer.from("\x02{}")), { code: "SLUICE_PROTOCOL_VIOLATION" });
  assert.equal(mask(17, Buffer.from("\0SECRET")), null);
});

function array(element: number, values: readonly (Buffer | null)[], dimensions = 1): Buffer {
  const parts: Buffer[] = [];
  const int = (value: number): void => {
    const bytes = Buffer.alloc(4);
    bytes.writeInt32BE(value);
    parts.push(bytes);
  };
  int(dimensions);
  int(values.includes(null) ? 1 : 0);
  int(element);
  for (let index = 0; index < dimensions; index += 1) {
    int(index === 0 ? values.length : 1);
    int(1);
  }
  for (const value of values) {
    int(value === null ? -1 : value.length);
    if (value !== null) parts.push(value);
  }
  return Buffer.concat(parts);
}

test("arrays are searched element by element, whatever stands before one", () => {
  const text = (...values: (string | null)[]): Buffer =>
    array(
      25,
      values.map((value) => (value === null ? null : Buffer.from(value))),
    );
  assert.deepEqual(mask(1009, text("a", "xSECRETx", null, "SECRET")), text("a", "x-x", null, "-"));
  assert.deepEqual(mask(1009, text("a", "GONE", "b")), text("a", null, "b"));
  assert.equal(mask(1009, text("a", null)), undefined);
  assert.equal(mask(1009, array(25, [], 0)), undefined);
  assert.deepEqual(mask(1016, array(20, [int64(4242n), int64(4_242_000_000_000n)])), array(20, [int64(4242n), null]));
  assert.deepEqual(mask(3807, array(3802, [Buffer.from('\x01"SECRET"')], 2)), array(3802, [Buffer.from('\x01"-"')], 2));
  assert.equal(binaryForm(1007), "inert");
  assert.equal(binaryForm(1009), "array");
});

test("too much to search: the whole value becomes NULL", () => {
  const value = array(25, [Buffer.from("a"), Buffer.from("b"), Buffer.from("c")]);
  let asked = 0;
  const wearied: Search = () => (++asked === 2 ? GIVE_UP : undefined);
  assert.equal(maskBinary(1009, value, 0, value.length, wearied), null);
  assert.equal(asked, 2);
  assert.equal(
    maskBinary(25, Buffer.from("a"), 0, 1, () => GIVE_UP),
    null,
  );
});

test("what is not a value of its type ends the session", () => {
  const whole = array(25, [Buffer.from("SECRET"), null]);
  for (let end = 0; end < whole.length; end += 1) {
    // An array may end behind any of its elements: only its dimensions, which nobody needs here, would tell.
    if (end === 20 || end === 30) continue;
    assert.throws(() => mask(1009, whole.subarray(0, end)), { code: "SLUICE_PROTOCOL_VIOLATION" }, String(end));
  }
  for (const [type, value] of [
    [1009, array(23, [])],
    [1009, Buffer.from([0, 0, 0, 7, 0, 0, 0, 0, 0, 0, 0, 25])],
    [1009, Buffer.from([255, 255, 255, 255, 0, 0, 0, 0, 0, 0, 0, 25])],
    [20, Buffer.alloc(7)],
    [701, Buffer.alloc(9)],
    [1700, Buffer.alloc(7)],
    [1700, Buffer.from([0, 1, 0, 0, 0, 0, 0, 0])],
    [3802, Buffer.alloc(0)],
  ] as const) {
    assert.throws(() => mask(type, value), { code: "SLUICE_PROTOCOL_VIOLATION" }, String(type));
  }
});
