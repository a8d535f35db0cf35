import assert from "node:assert/strict";
import { once } from "node:events";
import { before, test } from "node:test";
import { Worker } from "node:worker_threads";
import { below, letters, pick, seeded } from "../mask/samples.ts";
import { buildNative } from "./build.ts";
import { compilePatterns, type Literal, type PatternSet } from "./matcher.ts";

const EMPTY: PatternSet = { literals: [], run: 0, shapes: [], codes: [] };
before(() => buildNative({ quiet: true }));

function hits(set: Partial<PatternSet>, text: string, start = 0, end = text.length): number[] {
  const flags = new Uint32Array(64);
  const count = compilePatterns({ ...EMPTY, ...set }).scan(Buffer.from(text, "latin1"), start, end, flags);
  return [...flags.subarray(0, count)];
}

function literal(text: string, more: Partial<Literal> = {}): Literal {
  return { text, caseless: false, token: 0, digits: 0, window: 0, joined: false, ...more };
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
      const flags = new Uint32Array(10_000);
      const count = database.scan(Buffer.from(text, "latin1"), 0, text.length, flags);
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

test("overflow answers -1", () => {
  const bytes = Buffer.from("aaaa 1234 5678");
  const database = compilePatterns({ ...EMPTY, literals: [literal("a")] });
  assert.equal(database.scan(bytes, 0, 14, new Uint32Array(3)), -1);
  assert.equal(database.scan(bytes, 0, 14, new Uint32Array(4)), 4);
  assert.equal(compilePatterns({ ...EMPTY, run: 4 }).scan(bytes, 0, 14, new Uint32Array(1)), -1);
});

test("arguments are checked", () => {
  assert.throws(() => hits({ literals: [literal("")] }, ""), TypeError);
  assert.throws(() => hits({ literals: [literal("x".repeat(65))] }, ""), TypeError);
  assert.throws(() => hits({ run: 65 }, ""), TypeError);
  const database = compilePatterns({ ...EMPTY, run: 3 });
  const flags = new Uint32Array(1);
  assert.throws(() => database.scan(Buffer.alloc(4), 0, 5, flags), TypeError);
  assert.throws(() => database.scan(Buffer.alloc(4), 3, 2, flags), TypeError);
  assert.throws(() => database.scan(Buffer.alloc(4), -1, 2, flags), TypeError);
});

test("runs of digits are flagged once per run length, over tight separators only", () => {
  assert.deepEqual(hits({ run: 4 }, "123 45-678\xc2\xa09"), [4, 9]);
  assert.deepEqual(hits({ run: 4 }, "12345678"), [3, 7]);
  assert.deepEqual(hits({ run: 4 }, "123.4567"), [7]);
  assert.deepEqual(hits({ run: 4 }, "123\x004"), []);
  assert.deepEqual(hits({ run: 4 }, "123    4"), []);
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
  const pairs = [{ groups: Array.from({ length: 5 }, () => [2, 2] as const), zeros: 1, digits: 10 }];
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
            },
          ],
        },
        "",
      ),
    TypeError,
  );
});

test("codes: two letters, two digits and the rest of the length", () => {
  const codes = [{ prefix: "DE", length: 8 }];
  for (let shift = 0; shift < 40; shift++) {
    assert.deepEqual(hits({ codes }, `${"-".repeat(shift)}De12 3x-45`), [shift + 9]);
  }
  assert.deepEqual(hits({ codes }, "DE12345"), []);
  assert.deepEqual(hits({ codes }, "FR123456"), []);
  assert.deepEqual(hits({ codes }, "DE12,3456"), []);
});

test("a worker may end with databases alive", async () => {
  const worker = new Worker(
    `import(${JSON.stringify(new URL("./matcher.ts", import.meta.url).href)}).then(({ compilePatterns }) => {
       globalThis.kept = compilePatterns({ literals: [{ text: "ab", caseless: false, token: 0, digits: 0, window: 0, joined: false }], run: 3, shapes: [], codes: [] });
       const flags = new Uint32Array(9);
       const count = kept.scan(Buffer.from("ab 123"), 0, 6, flags);
       require("node:worker_threads").parentPort.postMessage([...flags.subarray(0, count)]);
       setInterval(() => {}, 1000);
     });`,
    { eval: true },
  );
  assert.deepEqual(await once(worker, "message"), [[1, 5]]);
  assert.equal(await worker.terminate(), 1);
});
