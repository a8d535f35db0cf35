import assert from "node:assert/strict";
import { once } from "node:events";
import { before, test } from "node:test";
import { Worker } from "node:worker_threads";
import { below, letters, pick, seeded } from "../mask/samples.ts";
import { buildNative } from "./build.ts";
import { compilePatterns, type Literal, type PatternSet } from "./matcher.ts";

const EMPTY: PatternSet = { literals: [], numbers: [], shapes: [], codes: [] };
before(() => buildNative({ quiet: true }));

/** Bytes in a block of their own, not in a pool: a sanitizer sees a read that goes past them. */
function block(text: string): Uint8Array {
  const bytes = new Uint8Array(new ArrayBuffer(text.length));
  bytes.set(Buffer.from(text, "latin1"));
  return bytes;
}

function hits(set: Partial<PatternSet>, text: string, start = 0, end = text.length): number[] {
  const flags = new Uint32Array(128);
  const count = compilePatterns({ ...EMPTY, ...set }).scan(block(text), start, end, flags);
  return [...flags.subarray(0, count)];
}

function literal(text: string, more: Partial<Literal> = {}): Literal {
  return { text, caseless: false, token: 0, digits: 0, window: 0, joined: false, kinds: 1, ...more };
}

test("literals: last byte of every match, ascending and distinct, absolute in the bytes", () => {
  const literals = [literal("ab"), literal("B", { caseless: true })];
  assert.deepEqual(hits({ literals }, "xxabbxB"), [3, 4, 6]);
  assert.deepEqual(hits({ literals }, "xxabbxB", 3), [3, 4, 6]);
  assert.deepEqual(hits({ literals }, "xxabbxB", 4, 5), [4]);
  assert.deepEqual(hits({ literals }, "xxabbxB", 7), []);
});

test("literals: the same as a plain search, at every place and length", () => {
  const random = seeded(5);
  for (let round = 0; round < 300; round++) {
    const alphabet = pick(random, ["ab", "abC-1", "abcdefgh@+_Q~\xe9"]);
    const texts = Array.from({ length: 1 + below(random, 40) }, () => letters(random, alphabet.replace("\xe9", ""), 1 + below(random, 6)));
    const literals = texts.map((text) => literal(text, { caseless: random() < 0.3 }));
    const database = compilePatterns({ ...EMPTY, literals });
    for (let tries = 0; tries < 10; tries++) {
      const text = letters(random, alphabet, below(random, 90));
      const expected = new Set<number>();
      for (const { text: wanted, caseless } of literals) {
        const [where, what] = caseless ? [text.toLowerCase(), wanted.toLowerCase()] : [text, wanted];
        for (let at = where.indexOf(what); at >= 0; at = where.indexOf(what, at + 1)) expected.add(at + what.length - 1);
      }
      const flags = new Uint32Array(20_000);
      const count = database.scan(block(text), 0, text.length, flags);
      assert.deepEqual(
        [...flags.subarray(0, count)],
        [...expected].sort((a, b) => a - b),
        `${texts.join()} in ${text}`,
      );
    }
  }
});

test("literals: what must follow", () => {
  assert.deepEqual(hits({ literals: [literal("ab", { token: 3 })] }, "abx-1 abx ab_9"), [1]);
  assert.deepEqual(hits({ literals: [literal("+", { digits: 3, window: 6, joined: true })] }, "+1 23 +12x3 +1    23"), [0]);
  assert.deepEqual(hits({ literals: [literal("tel", { digits: 1, window: 4 })] }, "tel: 4 tel none 4"), [2]);
});

/** Numbers of a length that begin with any two digits. */
const ANY_PREFIX = Array.from({ length: 100 }, (_, two) => String(two).padStart(2, "0")).join("");
const thirteen = { length: 13, prefixes: ANY_PREFIX, kinds: 1 };

test("overflow answers -1", () => {
  const bytes = Buffer.from("aaaa 4000000000006 4000000000006");
  const literals = compilePatterns({ ...EMPTY, literals: [literal("a")] });
  assert.equal(literals.scan(bytes, 0, bytes.length, new Uint32Array(7)), -1);
  assert.equal(literals.scan(bytes, 0, bytes.length, new Uint32Array(8)), 4);
  assert.equal(compilePatterns({ ...EMPTY, numbers: [thirteen] }).scan(bytes, 0, bytes.length, new Uint32Array(2)), -1);
});

test("an odd word bounds what is read closely, and tells what is left", () => {
  const database = compilePatterns({ ...EMPTY, numbers: [thirteen], literals: [literal("a")] });
  const scan = (text: string, work: number): readonly [found: number, left: number] => {
    const flags = new Uint32Array(2 * 8 + 1);
    flags[16] = work;
    const bytes = Buffer.from(text);
    return [database.scan(bytes, 0, bytes.length, flags), flags[16]];
  };
  const number = "4000000000006";
  assert.deepEqual(scan(number, 100), [1, 100 - number.length]);
  assert.deepEqual(scan(number, number.length), [1, 0]);
  assert.deepEqual(scan(number, number.length - 1), [-1, 0]);
  // One run is one piece of work, however long, and what is none costs nothing.
  assert.deepEqual(scan("5".repeat(1_000_000), 999_999), [-1, 0]);
  assert.deepEqual(scan("nothing else".replaceAll("a", "e"), 0), [0, 0]);
  assert.ok(scan("a".repeat(8), 1_000)[1] < 1_000);
  assert.equal(scan("a", 0)[0], -1);
});

test("arguments are checked", () => {
  assert.throws(() => hits({ literals: [literal("")] }, ""), TypeError);
  assert.throws(() => hits({ literals: [literal("x".repeat(65))] }, ""), TypeError);
  assert.throws(() => hits({ literals: [literal("x", { kinds: 0 })] }, ""), TypeError);
  assert.throws(() => hits({ numbers: [{ ...thirteen, length: 20 }] }, ""), TypeError);
  assert.throws(() => hits({ numbers: [{ ...thirteen, prefixes: "123" }] }, ""), TypeError);
  assert.throws(() => hits({ codes: [{ prefix: "DE", rest: "nx", kinds: 1 }] }, ""), TypeError);
  const database = compilePatterns({ ...EMPTY, numbers: [thirteen] });
  const flags = new Uint32Array(2);
  assert.throws(() => database.scan(Buffer.alloc(4), 0, 5, flags), TypeError);
  assert.throws(() => database.scan(Buffer.alloc(4), 3, 2, flags), TypeError);
  assert.throws(() => database.scan(Buffer.alloc(4), -1, 2, flags), TypeError);
});

test("kinds stand in the second half; those of all matches that end at one byte come together", () => {
  const database = compilePatterns({
    ...EMPTY,
    literals: [literal("9", { kinds: 1 }), literal("89", { kinds: 2 }), literal("x", { kinds: 8 })],
    shapes: [
      {
        groups: [
          [3, 3],
          [2, 2],
          [4, 4],
        ],
        zeros: 0,
        digits: 9,
        kinds: 4,
      },
    ],
  });
  const flags = new Uint32Array(20);
  const bytes = Buffer.from("9 123-45-6789 x");
  assert.equal(database.scan(bytes, 0, bytes.length, flags), 3);
  assert.deepEqual([...flags.subarray(0, 3)], [0, 12, 14]);
  assert.deepEqual([...flags.subarray(10, 13)], [1, 7, 8]);
});

const luhn = (digits: string): boolean =>
  [...digits].reverse().reduce((sum, digit, i) => sum + (i % 2 === 0 ? Number(digit) : [0, 2, 4, 6, 8, 1, 3, 5, 7, 9][Number(digit)]), 0) %
    10 ===
  0;

test("numbers: every one whose check digit holds, at any place, over tight separators only", () => {
  const random = seeded(9);
  const numbers = [13, 16, 19].map((length) => ({ length, prefixes: length === 16 ? "4155" : ANY_PREFIX, kinds: 1 }));
  const database = compilePatterns({ ...EMPTY, numbers });
  const flags = new Uint32Array(2_000);
  for (let round = 0; round < 2_000; round++) {
    const digits = letters(random, "0123456789", 10 + below(random, 40));
    const lead = letters(random, "ab1 ", below(random, 70));
    // Groups of three and more but the last.
    const written = pick(random, [
      digits,
      digits.replace(/(.{4})(?=.)/g, "$1 "),
      digits.replace(/(.{4})(?=.)/g, "$1\xc2\xa0"),
      digits.replace(/^(.{11})/, "$1-"),
      digits.replace(/^(.{12})/, "$1\xe2\x80\x91"),
    ]);
    const text = `${lead}\0${written}\0`;
    const expected = new Set<number>();
    for (const { length, prefixes } of numbers) {
      for (let from = 0; from + length <= digits.length; from++) {
        const number = digits.slice(from, from + length);
        const admitted = Array.from(prefixes.matchAll(/../g), ([two]) => two).includes(number.slice(0, 2));
        // Groups of the writing break where the number begins in the middle of one; those must be found too.
        if (!admitted || !luhn(number)) continue;
        let seen = -1;
        for (let at = lead.length + 1; at < text.length; at++) {
          if (/[0-9]/.test(text[at]) && ++seen === from + length - 1) expected.add(at);
        }
      }
    }
    const count = database.scan(block(text), 0, text.length, flags);
    const found = new Set(flags.subarray(0, count));
    for (const at of expected) assert.ok(found.has(at), `${text}: ${at}`);
    for (const at of found) assert.ok(expected.has(at) || at < lead.length, `${text}: ${at} without reason`);
  }
  assert.deepEqual(hits({ numbers: [thirteen] }, "4000000000.006"), []);
  assert.deepEqual(hits({ numbers: [thirteen] }, "4000000000    006"), []);
  assert.deepEqual(hits({ numbers: [thirteen] }, "400000000000\x006"), []);
});

test("shapes: first group as suffix, last as prefix, middle exact", () => {
  const shapes = [
    {
      groups: [
        [3, 3],
        [2, 2],
        [4, 4],
      ],
      zeros: 0,
      digits: 9,
      kinds: 1,
    },
  ] as const;
  assert.deepEqual(hits({ shapes }, "123-45-6789"), [10]);
  assert.deepEqual(hits({ shapes }, "9123 45 67899"), [11]);
  assert.deepEqual(hits({ shapes }, "x123) (45\xc2\xa06789y"), [14]);
  assert.deepEqual(hits({ shapes }, "123-456-7890"), []);
  assert.deepEqual(hits({ shapes }, "1-123-45-6789 1 2 3 123-45-6789"), [12, 30]);
  for (let lead = 0; lead < 130; lead++) {
    assert.deepEqual(hits({ shapes }, `${"x".repeat(lead)}123-45-6789`), [lead + 10]);
    assert.deepEqual(hits({ shapes }, `${"2024-05-01 12:34:56.789 ".repeat(lead)}123 45 6789`), [lead * 24 + 10]);
  }
  const pairs = [{ groups: Array.from({ length: 5 }, () => [2, 2] as const), zeros: 1, digits: 10, kinds: 1 }];
  for (let lead = 0; lead < 70; lead++) assert.deepEqual(hits({ shapes: pairs }, `${"x".repeat(lead)}01 23 45 67 89`), [lead + 13]);
  const zeros = [
    {
      groups: [
        [3, 5],
        [3, 4],
        [3, 4],
      ],
      zeros: 1,
      digits: 10,
      kinds: 1,
    },
  ] as const;
  assert.deepEqual(hits({ shapes: zeros }, "9020 7946 0958"), [12]);
  assert.deepEqual(hits({ shapes: zeros }, "9220 7946 0958"), []);
});

test("shapes that the scan could miss are refused", () => {
  assert.throws(
    () =>
      hits(
        {
          shapes: [
            {
              groups: [
                [3, 3],
                [2, 2],
              ],
              zeros: 0,
              digits: 5,
              kinds: 1,
            },
          ],
        },
        "",
      ),
    TypeError,
  );
  assert.throws(
    () =>
      hits(
        {
          shapes: [
            {
              groups: [
                [1, 1],
                [4, 4],
              ],
              zeros: 0,
              digits: 5,
              kinds: 1,
            },
          ],
        },
        "",
      ),
    TypeError,
  );
});

test("codes: two letters, two digits, the rest in its classes, and the check digits", () => {
  // 97 98 … leaves 1 with check digits that make it so.
  const codes = [{ prefix: "DE", rest: "nnac", kinds: 1 }];
  const check = (body: string): string => {
    const value = [...`${body}DE00`].map((character) => Number.parseInt(character, 36)).join("");
    return String(98n - (BigInt(value) % 97n)).padStart(2, "0");
  };
  const good = check("12XY");
  for (let shift = 0; shift < 140; shift++) {
    assert.deepEqual(hits({ codes }, `${"-".repeat(shift)}De${good} 12x-Y5`), [shift + 9]);
  }
  assert.deepEqual(hits({ codes }, `DE${good}12X`), []);
  assert.deepEqual(hits({ codes }, `FR${good}12XY`), []);
  assert.deepEqual(hits({ codes }, `DE${good}12,XY`), []);
  assert.deepEqual(hits({ codes }, `DE${check("1XXY")}1XXY`), [], "a letter in place of a digit");
  assert.deepEqual(hits({ codes }, `DE${check("1234")}1234`), [], "a digit in place of a letter");
  assert.deepEqual(hits({ codes }, `DE${String((Number(good) + 1) % 100).padStart(2, "0")}12XY`), []);
});

test("a worker may end with databases alive", async () => {
  const worker = new Worker(
    `import(${JSON.stringify(new URL("./matcher.ts", import.meta.url).href)}).then(({ compilePatterns }) => {
       globalThis.kept = compilePatterns({ literals: [{ text: "ab", caseless: false, token: 0, digits: 0, window: 0, joined: false, kinds: 1 }], numbers: [], shapes: [], codes: [] });
       const flags = new Uint32Array(18);
       const count = kept.scan(Buffer.from("ab abx"), 0, 6, flags);
       require("node:worker_threads").parentPort.postMessage([...flags.subarray(0, count)]);
       setInterval(() => {}, 1000);
     });`,
    { eval: true },
  );
  assert.deepEqual(await once(worker, "message"), [[1, 4]]);
  assert.equal(await worker.terminate(), 1);
});
