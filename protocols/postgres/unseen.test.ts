import assert from "node:assert/strict";
import { before, test } from "node:test";
import fc from "fast-check";
import { createMasker } from "../../core/mask/masker.ts";
import { buildNative } from "../../core/native/build.ts";
import type { MaskRule } from "../../core/policy/types.ts";
import { BackendReader } from "./backend.ts";
import type { CopyPlan } from "./copy-plan.ts";
import { PendingQueue } from "./pending.ts";
import type { Relay } from "./relay.ts";
import { SearchPath } from "./search-path.ts";
import type { SessionMasks } from "./values.ts";

// The target's side of a session as a whole: what reaches the client and the record is the same whether rows pass unseen or not.

before(() => buildNative({ quiet: true }));

const RULE: MaskRule = { name: "content", columns: [], detect: ["payment_card", "email", "iban"], with: "redact", predicates: "deny" };
const TABLE = 7;
let masks: SessionMasks;
before(() => {
  masks = {
    masker: createMasker([RULE], Buffer.alloc(32, 7), undefined),
    columns: new Map([[TABLE, new Map([[1, { rule: "column", method: "redact" as const }]])]]),
    contentRule: "content",
  };
});

const message = (type: string, ...parts: readonly (Buffer | string)[]): Buffer => {
  const body = Buffer.concat(parts.map((part) => (typeof part === "string" ? Buffer.from(part) : part)));
  const head = Buffer.alloc(5);
  head.write(type);
  head.writeInt32BE(body.length + 4, 1);
  return Buffer.concat([head, body]);
};
const words = (...values: readonly number[]): Buffer => Buffer.from(values.flatMap((value) => [(value >> 8) & 255, value & 255]));
const long = (value: number): Buffer => Buffer.from([value >> 24, value >> 16, value >> 8, value]);

const COLUMNS = 2;
const description = (table: number): Buffer =>
  message(
    "T",
    words(COLUMNS),
    ...[1, 2].flatMap((attribute) => ["c\0", long(table), words(attribute), long(25), words(-1), long(-1), words(0)]),
  );
const dataRow = (row: readonly string[]): Buffer =>
  message("D", words(row.length), ...row.flatMap((text) => [long(Buffer.byteLength(text)), text]));
const copyRow = (row: readonly string[]): Buffer =>
  message("d", `${row.map((text) => text.replaceAll("\\", "\\\\").replaceAll("\t", "\\t")).join("\t")}\n`);
const copyOut = message("H", Buffer.from([0]), words(COLUMNS, 0, 0));
const notice = (text: string): Buffer => message("N", `SNOTICE\0VNOTICE\0C00000\0M${text}\0\0`);
const failure = message("E", "SERROR\0VERROR\0C22012\0Mdivision by zero\0\0");
const complete = message("C", "COPY 3\0");
const ready = message("Z", "I");

type MaskKind = "none" | "content" | "column";
type Result =
  | { readonly kind: "rows" | "copy"; readonly rows: readonly (readonly string[])[]; readonly end: "whole" | "failed" }
  | { readonly kind: "empty" };
interface Operation {
  readonly kind: "query" | "execute";
  readonly masks: MaskKind;
  readonly results: readonly Result[];
  readonly between: string | undefined;
}

/** What the server answers to one operation. @param started COPY that are told of, for their plans */
function answer(operation: Operation): Buffer[] {
  const out: Buffer[] = [];
  let failed = false;
  for (const result of operation.kind === "query" ? operation.results : operation.results.slice(0, 1)) {
    if (result.kind === "empty") {
      out.push(complete);
      continue;
    }
    if (result.kind === "copy") out.push(copyOut);
    else if (operation.kind === "query") out.push(description(operation.masks === "column" ? TABLE : 0));
    for (const [index, row] of result.rows.entries()) {
      out.push(result.kind === "copy" ? copyRow(row) : dataRow(row));
      if (operation.between !== undefined && index % 7 === 3) {
        out.push(notice(operation.between), message("S", `application_name\0${operation.between}\0`));
      }
    }
    failed = result.end === "failed";
    if (failed) {
      out.push(failure);
      break;
    }
    if (result.kind === "copy") out.push(message("c"));
    out.push(complete);
  }
  return out;
}

/** Which of recorder.outcome()'s arguments. */
const ROWS = 2;

interface Told {
  client: Buffer[];
  /** Bytes on record as the response to an operation. */
  responses: Map<number, Buffer[]>;
  outcomes: unknown[][];
  passed: number;
  error: string | undefined;
}

function through(operations: readonly Operation[], answers: readonly Buffer[], lengths: readonly number[], passes: boolean): Told {
  const told: Told = { client: [], responses: new Map(), outcomes: [], passed: 0, error: undefined };
  const queue = new PendingQueue();
  const nothing = (): void => {};
  const relay = {
    queue,
    quotas: undefined,
    policy: { masks: [RULE] },
    masker: masks.masker,
    transactionStatus: 0x49,
    parameterBytes: 0,
    searchPath: new SearchPath([]),
    room: { counters: { maskedBy: nothing } },
    names: { portals: { clear: nothing } },
    recorder: {
      toClient(request: number, bytes: Uint8Array, _start: number, _end: number, from: number, to: number) {
        if (from === to) return;
        const list = told.responses.get(request) ?? [];
        told.responses.set(request, list);
        list.push(Buffer.from(bytes.subarray(from, to)));
      },
      outcome: (...values: unknown[]) => told.outcomes.push(values),
    },
    sendToClient: (bytes: Uint8Array, start: number, end: number) => told.client.push(Buffer.from(bytes.subarray(start, end))),
    copyAnswer: nothing,
    answered: nothing,
    whenIdle: nothing,
    resumeClient: nothing,
  };
  for (const [index, operation] of operations.entries()) {
    const entry = queue.push(operation.kind);
    entry.request = index + 1;
    entry.masks = operation.masks !== "none";
    const plan: CopyPlan = {
      format: { kind: "text", delimiter: 9, nullText: "\\N", header: false, quote: 0, escape: 0x5c },
      actions:
        operation.masks === "column"
          ? [{ kind: "column", mask: { rule: "column", method: "redact" }, asNull: false }, undefined]
          : undefined,
      exact: operation.masks === "column",
      fresh: false,
      masks,
    };
    entry.decision = {
      masks,
      masksColumns: operation.masks === "column",
      masksContent: true,
      copies: operation.results.map(() => (operation.masks === "none" ? undefined : plan)),
      moves: 0,
    } as unknown as NonNullable<typeof entry.decision>;
    if (operation.kind === "execute") {
      entry.statement = {
        columns: {
          count: COLUMNS,
          tableOids: new Uint32Array(COLUMNS).fill(operation.masks === "column" ? TABLE : 0),
          attributes: Int16Array.of(1, 2),
          typeOids: new Uint32Array(COLUMNS).fill(25),
          formats: new Int16Array(COLUMNS),
        },
      } as unknown as NonNullable<typeof entry.statement>;
      queue.push("sync");
    }
  }
  const reader = new BackendReader(relay as unknown as Relay);
  if (!passes) reader.passesUpTo = (_type, _bytes, start) => start;
  const { passed } = reader;
  reader.passed = (type, count, start, end) => {
    told.passed += count;
    passed.call(reader, type, count, start, end);
  };
  const stream = Buffer.concat(answers);
  let at = 0;
  try {
    for (const length of [...lengths, stream.length]) {
      const chunk = Buffer.from(stream.subarray(at, at + length));
      reader.push(chunk, 0, chunk.length);
      chunk.fill(0xee);
      at += length;
    }
  } catch (error) {
    told.error = (error as Error).message;
  }
  return told;
}

const SECRETS = ["4111 1111 1111 1111", "ann@example.com", "DE89370400440532013000"];
const value = fc.oneof(
  { weight: 60, arbitrary: fc.constant("order 17 left the warehouse") },
  { weight: 3, arbitrary: fc.constantFrom(...SECRETS, "", "x".repeat(300), "tab\tback\\slash") },
);
const rows = fc.oneof(fc.array(fc.tuple(value, value), { minLength: 40, maxLength: 300, size: "max" }), fc.array(fc.tuple(value, value)));
const result: fc.Arbitrary<Result> = fc.oneof(
  fc.record({
    kind: fc.constantFrom("rows" as const, "copy" as const),
    rows,
    end: fc.oneof({ weight: 5, arbitrary: fc.constant("whole" as const) }, fc.constant("failed" as const)),
  }),
  fc.constant({ kind: "empty" as const }),
);
const operation: fc.Arbitrary<Operation> = fc.record({
  kind: fc.constantFrom("query" as const, "execute" as const),
  masks: fc.constantFrom("none" as const, "content" as const, "column" as const),
  results: fc.array(result, { minLength: 1, maxLength: 3 }),
  between: fc.option(fc.constantFrom("a notice", "of ann@example.com"), { nil: undefined }),
});
const operations = fc.array(operation, { minLength: 1, maxLength: 6 });
const chunks = fc.array(fc.integer({ min: 1, max: 20_000 }), { maxLength: 8 });

test("what reaches the client and the record is the same, whether rows pass unseen or not", () => {
  let passed = 0;
  fc.assert(
    fc.property(operations, chunks, (made, lengths) => {
      const answers = made.flatMap((each) => [...answer(each), ready]);
      const [unseen, seen] = [true, false].map((passes) => through(made, answers, lengths, passes)) as [Told, Told];
      passed += unseen.passed;
      assert.equal(seen.passed, 0);
      assert.equal(seen.error, undefined);
      assert.equal(unseen.error, undefined);
      const text = (told: Told): string => Buffer.concat(told.client).toString("latin1");
      assert.equal(text(unseen), text(seen));
      const responses = (told: Told) => [...told.responses].map(([request, parts]) => [request, Buffer.concat(parts).toString("latin1")]);
      assert.deepEqual(responses(unseen), responses(seen));
      assert.deepEqual(unseen.outcomes, seen.outcomes);
      if (made.every((each) => each.masks === "content")) for (const secret of SECRETS) assert.ok(!text(unseen).includes(secret));
    }),
    { numRuns: 300 },
  );
  assert.ok(passed > 10_000, `only ${passed} rows passed unseen`);
});

test("the same of a stream that is no longer what a server sends", () => {
  let failed = 0;
  const change = fc.tuple(fc.nat(), fc.oneof(fc.constantFrom(0, 4, 10, 0x44, 0x5c, 0x64), fc.integer({ min: 0, max: 255 })));
  fc.assert(
    fc.property(operations, chunks, fc.array(change, { minLength: 1, maxLength: 4 }), (made, lengths, changes) => {
      const stream = Buffer.concat(made.flatMap((each) => [...answer(each), ready]));
      for (const [at, byte] of changes) stream[at % stream.length] = byte;
      const [unseen, seen] = [true, false].map((passes) => through(made, [stream], lengths, passes)) as [Told, Told];
      if (seen.error !== undefined) failed += 1;
      assert.equal(unseen.error, seen.error);
      assert.equal(Buffer.concat(unseen.client).toString("latin1"), Buffer.concat(seen.client).toString("latin1"));
      // A COPY message with several rows, which is none of PostgreSQL's, counts as one where it passes unseen.
      const others = (told: Told) => told.outcomes.map((outcome) => outcome.filter((_value, index) => index !== ROWS));
      assert.deepEqual(others(unseen), others(seen));
    }),
    { numRuns: 500 },
  );
  assert.ok(failed > 30, `only ${failed} streams were refused`);
});

test("rows of another result in the middle of COPY end the session", () => {
  const clean = ["order 17 left the warehouse", "another value"];
  const made: Operation[] = [{ kind: "query", masks: "content", results: [{ kind: "empty" }], between: undefined }];
  const many = (one: Buffer, count: number): Buffer[] => Array.from({ length: count }, () => one);
  const secret = ["ann@example.com", "4111 1111 1111 1111"];
  // The one prefilter's flags would be taken for what it said of the other's rows.
  const stream = [
    description(0),
    copyOut,
    ...many(copyRow(clean), 40),
    copyRow(secret),
    ...many(copyRow(clean), 40),
    dataRow(clean),
    ...many(dataRow(clean), 40),
    copyRow(secret),
    ...many(copyRow(clean), 40),
    copyRow(secret),
    ...many(copyRow(clean), 80),
  ];
  for (const lengths of [[], [3_000], [5_000, 300]]) {
    const told = through(made, stream, lengths, true);
    assert.ok(!Buffer.concat(told.client).toString("latin1").includes("ann@"));
    assert.match(told.error ?? "", /unexpected DataRow/);
  }
});
