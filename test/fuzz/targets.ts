import assert from "node:assert/strict";
import { isIP } from "node:net";
import { SluiceError } from "../../core/errors.ts";
import { LIMITS } from "../../core/limits.ts";
import { createMasker } from "../../core/mask/masker.ts";
import { type ProxyHeader, ProxyHeaderError, readProxyHeader } from "../../core/net/proxy-header.ts";
import type { MaskRule } from "../../core/policy/types.ts";
import { NameReader, readBind, readParameters } from "../../protocols/postgres/bind.ts";
import { createCopyMasker } from "../../protocols/postgres/copy-masker.ts";
import { FORWARD, MessageFramer, type MessageVisitor, REPLACE } from "../../protocols/postgres/frame.ts";
import { bind, errorResponse, FRONTEND_MESSAGES } from "../../protocols/postgres/messages.ts";
import { errorFields, maskedError } from "../../protocols/postgres/notices.ts";
import { actsAlways, planColumns, RowMasker, readColumns } from "../../protocols/postgres/rows.ts";
import { createClassifier } from "../../protocols/postgres/sql/classify.ts";
import type { CopyFormat } from "../../protocols/postgres/sql/types.ts";
import type { SessionMasks } from "../../protocols/postgres/values.ts";
import { cuts, mutate, shuffle } from "./mutate.ts";
import type { Random } from "./random.ts";
import { statements } from "./recordings.ts";

/** One thing to feed with bad input. A SluiceError is a right answer; anything else that is thrown is a finding. */
export interface FuzzTarget {
  readonly name: string;
  run(random: Random): void | Promise<void>;
  close?(): Promise<void>;
}

/** Counts what passes; limits are the real ones. */
class Collector implements MessageVisitor {
  replacement: Uint8Array | undefined;
  readonly passesEnding = -1;
  readonly out: Buffer[] = [];
  messages = 0;

  limit(type: number): number {
    return FRONTEND_MESSAGES[type]?.limitBytes ?? 0;
  }
  streams(type: number): boolean {
    return type === 0x64;
  }
  passesUpTo(type: number, _bytes: Uint8Array, start: number, available: number): number {
    return type === 0x64 ? available : start;
  }
  passed(_type: number, count: number): void {
    this.messages += count;
  }
  message(type: number): number {
    this.messages += 1;
    // As for a refused statement: nothing goes out in its place.
    return type === 0x51 ? REPLACE : FORWARD;
  }
  run(bytes: Uint8Array, start: number, end: number): void {
    assert.ok(start >= 0 && start <= end && end <= bytes.length, `run(${start}, ${end}) of ${bytes.length}`);
    this.out.push(Buffer.from(bytes.subarray(start, end)));
  }
  emit(replacement: Uint8Array | undefined): void {
    if (replacement !== undefined) this.out.push(Buffer.from(replacement));
  }
}

interface Framed {
  readonly out: Buffer;
  readonly failed: boolean;
}

/** @param canary plant a bug: a read that ends within a header loses its last byte */
function frame(stream: Buffer, at: readonly number[], canary: boolean): Framed {
  const visitor = new Collector();
  const framer = new MessageFramer(visitor);
  let failed = false;
  let start = 0;
  try {
    for (const end of [...at, stream.length]) {
      // The slab of a transport: what a handler was given is overwritten by the next read.
      const slab = Buffer.from(stream.subarray(start, end));
      framer.push(slab, 0, canary && framer.keptBytes > 0 && framer.keptBytes < 4 ? slab.length - 1 : slab.length);
      slab.fill(0xee);
      assert.ok(framer.keptBytes <= stream.length, "more is kept than arrived");
      start = end;
    }
  } catch (error) {
    if ((error as { name?: string }).name !== "SluiceError") throw error;
    failed = true;
  }
  return { out: Buffer.concat(visitor.out), failed };
}

/** What the framer must give, found in the plainest way. */
function reference(stream: Buffer): Framed {
  const out: Buffer[] = [];
  let at = 0;
  while (stream.length - at >= 5) {
    const type = stream[at] as number;
    const length = stream.readInt32BE(at + 1);
    const limit = FRONTEND_MESSAGES[type]?.limitBytes ?? 0;
    if (limit === 0 || length < 4 || length > limit) return { out: Buffer.concat(out), failed: true };
    const end = at + 1 + length;
    // CopyData passes in pieces, everything else whole.
    if (end > stream.length && type !== 0x64) break;
    if (type !== 0x51) out.push(stream.subarray(at, end));
    at = end;
  }
  return { out: Buffer.concat(out), failed: false };
}

const framerTarget = (canary: boolean): FuzzTarget => ({
  name: canary ? "canary-framer" : "framer",
  run(random) {
    const stream = Buffer.concat(shuffle(random, statements()));
    const expected = reference(stream);
    const got = frame(stream, cuts(random, stream.length), canary);
    assert.equal(got.failed, expected.failed, "a stream is refused or let through depending on its cuts");
    // Before a violation the framer may keep back what came in the same read.
    if (expected.failed) assert.ok(expected.out.subarray(0, got.out.length).equals(got.out), "other bytes than the stream's come out");
    else assert.ok(got.out.equals(expected.out), `${got.out.length} bytes come out, not ${expected.out.length}`);
  },
});

const bindTarget = (canary: boolean): FuzzTarget => ({
  name: canary ? "canary-bind" : "bind",
  run(random) {
    const values = Array.from({ length: random.below(5) }, () =>
      random.oneIn(4) ? undefined : random.bytes(random.below(20)).toString("hex"),
    );
    const message = mutate(random, bind(random.pick(["", "p"]), random.pick(["", "s"]), values));
    const padded = Buffer.concat([message, Buffer.alloc(random.below(40), 0x30)]);
    const found = readBind(padded, 0, message.length, new NameReader());
    assert.ok(found.parametersStart >= 7 && found.parametersEnd <= message.length, "the parameters leave the message");
    // A copy of its own, as a portal keeps it. The planted bug loses its last byte.
    const section = new Uint8Array(message.subarray(found.parametersStart, found.parametersEnd - (canary ? 1 : 0)));
    for (const value of readParameters(section)) assert.ok(value === undefined || value.length <= section.length);
  },
});

/** A PROXY header as a load balancer sends it, with TLVs or without. */
function proxyHeader(random: Random): Buffer {
  const [kind, addresses] = random.pick([
    [0x11, 12],
    [0x21, 36],
    [0x12, 12],
    [0x31, 216],
    [0x00, 0],
  ] as const);
  const tlvs = Array.from({ length: random.below(3) }, () => {
    const value = random.bytes(random.below(90));
    return Buffer.concat([Buffer.from([random.below(256), 0, value.length]), value]);
  });
  const rest = Buffer.concat([random.bytes(addresses), ...tlvs]);
  const fixed = Buffer.from([0x20 + random.below(2), kind, rest.length >>> 8, rest.length & 0xff]);
  return Buffer.concat([Buffer.from("\r\n\r\n\0\r\nQUIT\n", "latin1"), fixed, rest]);
}

/** How a stream that begins with a header is taken when it arrives with these cuts. */
function readCut(stream: Buffer, at: readonly number[]): ProxyHeader | "refused" | undefined {
  try {
    for (const end of [...at, stream.length]) {
      const header = readProxyHeader(stream.subarray(0, end));
      if (header !== undefined) return header;
      assert.ok(end < LIMITS.proxyHeaderBytes, "it waits beyond its limit");
    }
    return undefined;
  } catch (error) {
    if (error instanceof ProxyHeaderError) return "refused";
    throw error;
  }
}

const proxyHeaderTarget = (canary: boolean): FuzzTarget => ({
  name: canary ? "canary-proxy-header" : "proxy-header",
  run(random) {
    const header = random.oneIn(4) ? proxyHeader(random) : mutate(random, proxyHeader(random));
    const stream = Buffer.concat([header, random.bytes(random.below(40))]);
    const whole = readCut(stream, []);
    const cut = readCut(stream, cuts(random, stream.length));
    assert.deepEqual(cut, whole, "a header is taken or refused depending on its cuts");
    if (whole === undefined || whole === "refused") return;
    const { bytes, source } = whole;
    // The planted bug takes TLVs for the client's bytes.
    assert.equal(canary && bytes > 100 ? bytes - 1 : bytes, 16 + stream.readUInt16BE(14));
    assert.ok(bytes <= stream.length && bytes <= LIMITS.proxyHeaderBytes);
    if (source === undefined) return;
    const kind = stream[13];
    assert.equal(stream[12], 0x21);
    assert.equal(source.port, stream.readUInt16BE(kind === 0x11 ? 24 : 48));
    if (kind === 0x11) assert.equal(source.host, stream.subarray(16, 20).join("."));
    else assert.ok(kind === 0x21 && isIP(source.host) > 0, `${source.host} of kind ${kind}`);
  },
});

const RULE: MaskRule = {
  name: "pii",
  columns: [],
  detect: ["email", "iban", "payment_card"],
  with: "redact",
  predicates: "deny",
} as unknown as MaskRule;

function masks(): SessionMasks {
  const masker = createMasker([RULE], Buffer.alloc(32, 7), undefined);
  const method = "partial" as const;
  return { masker, columns: new Map([[4711, new Map([[1, { rule: "pii", method }]])]]), contentRule: "pii" };
}

/** RowDescription and a DataRow that belong together. */
function result(random: Random): { description: Buffer; row: Buffer } {
  const count = 1 + random.below(4);
  const columns: Buffer[] = [];
  const values: Buffer[] = [];
  for (let index = 0; index < count; index += 1) {
    const numbers = Buffer.alloc(18);
    numbers.writeUInt32BE(random.oneIn(2) ? 4711 : 0, 0);
    numbers.writeInt16BE(1 + random.below(2), 4);
    numbers.writeUInt32BE(random.pick([25, 23, 3802, 17, 16]), 6);
    numbers.writeInt16BE(random.oneIn(4) ? 1 : 0, 16);
    columns.push(Buffer.from(`c${index}\0`), numbers);
    const value = random.pick([
      Buffer.from("alice@example.com"),
      Buffer.from("4111111111111111"),
      random.bytes(random.below(60)),
      undefined,
    ]);
    const length = Buffer.alloc(4);
    length.writeInt32BE(value?.length ?? -1);
    values.push(length, value ?? Buffer.alloc(0));
  }
  const message = (type: string, parts: readonly Buffer[]): Buffer => {
    const body = Buffer.concat(parts);
    const head = Buffer.alloc(7);
    head.write(type, 0, "latin1");
    head.writeInt32BE(body.length + 6, 1);
    head.writeInt16BE(count, 5);
    return Buffer.concat([head, body]);
  };
  return { description: message("T", columns), row: message("D", values) };
}

function rowsTarget(): FuzzTarget {
  const session = masks();
  const rows = new RowMasker();
  return {
    name: "rows",
    run(random) {
      const { description, row } = result(random);
      const first = random.oneIn(2) ? mutate(random, description) : description;
      const columns = readColumns(first, 0, first.length);
      assert.equal(columns.count, columns.typeOids.length);
      const actions = planColumns(columns, random.pick([undefined, "text", "binary"]), session, true);
      if (actions === undefined) return;
      const second = mutate(random, row);
      const padded = Buffer.concat([second, Buffer.alloc(64, 0x61)]);
      const counts = new Map<string, number>();
      rows.newChunk();
      const masked = rows.row(padded, 0, second.length, second.length, actions, session, actsAlways(actions), counts);
      if (masked === undefined) return;
      const view = Buffer.from(masked);
      assert.equal(view.readInt32BE(1), view.length - 1, "the length of a masked row is wrong");
      assert.ok(counts.size > 0);
      // Read back: every value lies within the message.
      let at = 7;
      for (let left = view.readInt16BE(5); left > 0; left -= 1) at += 4 + Math.max(view.readInt32BE(at), 0);
      assert.equal(at, view.length, "a masked row does not add up");
    },
  };
}

const COPY_FORMATS: readonly CopyFormat[] = [
  { kind: "text", delimiter: 9, nullText: "\\N", header: false, quote: 0, escape: 0x5c },
  { kind: "text", delimiter: 0x2d, nullText: "", header: true, quote: 0, escape: 0x5c },
  { kind: "csv", delimiter: 0x2c, nullText: "", header: false, quote: 0x22, escape: 0x22 },
  { kind: "csv", delimiter: 0x3b, nullText: "NULL", header: true, quote: 0x27, escape: 0x5c },
  { kind: "binary", delimiter: 9, nullText: "\\N", header: false, quote: 0, escape: 0x5c },
];
const COPIED = [
  "1\talice@example.com\tx\\ty\n",
  '2,"a ""b"" alice@example.com",\n',
  "3-\\-4111\\-1111\\-1111\\-1111-\\N\n",
  "'c\\';';NULL;x\n",
].map((line) => Buffer.from(line));
/** The header of a binary COPY, one row of three fields, the trailer. */
const BINARY_COPY = Buffer.concat([
  Buffer.from("PGCOPY\n\xff\r\n\0\0\0\0\0\0\0\0\0\0\x03\0\0\0\x11alice@example.com\0\0\0\x02\x01{", "latin1"),
  Buffer.from([255, 255, 255, 255, 255, 255]),
]);

/** Damaged rows are masked alike, or refused alike, in whatever messages they come. */
function copyTarget(): FuzzTarget {
  const session = masks();
  const actionOf = [
    undefined,
    { kind: "scan", nullOnHit: false, json: "likely" },
    { kind: "column", mask: { rule: "pii", method: "partial" }, asNull: false },
    { kind: "decode", type: 3802, text: false },
  ] as const;
  return {
    name: "copy",
    run(random) {
      const format = random.pick(COPY_FORMATS);
      const binary = format.kind === "binary";
      const actions = Array.from({ length: 3 }, () => actionOf[random.below(binary ? 4 : 3)]);
      const lines = Array.from({ length: 1 + random.below(4) }, () => random.pick(COPIED));
      const stream = mutate(random, binary ? BINARY_COPY : Buffer.concat(lines));
      const through = (pieces: readonly Buffer[]): Buffer | string => {
        const masker = createCopyMasker({ format, actions, exact: true, fresh: true, masks: session }, binary ? 1 : 0, 3);
        const out: Buffer[] = [];
        try {
          for (const piece of pieces) {
            const message = Buffer.concat([Buffer.from([0x64, 0, 0, 0, 0]), piece]);
            message.writeInt32BE(piece.length + 4, 1);
            masker.newChunk();
            const masked = Buffer.from(masker.message(message, 0, message.length, message.length, new Map()) ?? message);
            if (masked.length > 0) assert.equal(masked.readInt32BE(1), masked.length - 1, "the length of a masked CopyData is wrong");
            out.push(masked.subarray(5));
          }
          masker.end();
        } catch (error) {
          if (error instanceof SluiceError) return error.code;
          throw error;
        }
        return Buffer.concat(out);
      };
      const at = cuts(random, stream.length);
      const pieces = [0, ...at].map((from, index) => stream.subarray(from, at[index]));
      const [whole, parts] = [through([stream]), through(pieces)];
      // A message in which nothing is suspected is not cut into fields, so that their number is not noticed.
      if (typeof parts !== typeof whole && !actsAlways(actions)) return;
      assert.deepEqual(parts, whole, "other messages, another result");
    },
  };
}

function errorsTarget(): FuzzTarget {
  const { masker } = masks();
  const plain = errorResponse({
    severity: "ERROR",
    sqlState: "22P02",
    message: "bad input alice@example.com",
    detail: "row (1, 2)",
    hint: "none",
  });
  return {
    name: "errors",
    run(random) {
      const message = mutate(random, plain);
      const padded = Buffer.concat([message, Buffer.alloc(16, 0x41)]);
      const found = errorFields(padded, 0, message.length);
      assert.ok(found.message.length <= message.length);
      const masked = maskedError(padded, 0, message.length, masker, "mask", true, new Map());
      if (masked === undefined) return;
      assert.equal(Buffer.from(masked).readInt32BE(1), masked.length - 1);
      errorFields(masked, 0, masked.length);
    },
  };
}

const TEXTS = [
  "select a, b from t where c = 1 and d in ('x', 'y') order by 2",
  "with x as (delete from t returning *) insert into u select * from x",
  "copy (select * from s.t) to stdout with (format csv)",
  "select $1::text || E'\\'x' || U&'\\0041' || $q$ body $q$ /* c /* d */ */ -- e",
  "explain analyze update t set a = (select max(b) from u) where c between 1 and 2",
  'begin; set local search_path = a, "B"; declare c cursor for select 1; fetch all c; commit',
  "create table t (a int default 1, check (a > 0)) partition by range (a)",
];

async function classifierTarget(): Promise<FuzzTarget> {
  const classifier = await createClassifier();
  return {
    name: "classifier",
    async run(random) {
      const bytes = mutate(random, Buffer.from(random.pick(TEXTS)));
      const padded = Buffer.concat([random.bytes(random.below(4)), bytes, Buffer.from("; drop table t")]);
      const start = padded.length - bytes.length - 14;
      const found = await classifier.classify(padded, start, start + bytes.length);
      if (found.refusal !== undefined) return;
      assert.ok(found.statements <= bytes.length + 1);
      for (const [from, to] of found.secrets) assert.ok(from >= 0 && from <= to && to <= bytes.length, "a secret outside the text");
      // The same text again, now perhaps from the cache: the same answer.
      const again = await classifier.classify(bytes, 0, bytes.length);
      assert.deepEqual(again.accesses, found.accesses);
    },
    close: () => classifier.close(),
  };
}

/** All targets that work in memory alone. */
export async function memoryTargets(canary: boolean): Promise<FuzzTarget[]> {
  if (canary) return [framerTarget(true), bindTarget(true), proxyHeaderTarget(true)];
  return [
    framerTarget(false),
    bindTarget(false),
    proxyHeaderTarget(false),
    rowsTarget(),
    copyTarget(),
    errorsTarget(),
    await classifierTarget(),
  ];
}

/** A message never needs more than its limit, its copy and the reader's spare. */
export const MEMORY_MIB = (3 * LIMITS.frontendMessageBytes) / 1024 / 1024;
