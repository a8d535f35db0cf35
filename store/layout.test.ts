import assert from "node:assert/strict";
import { createHash } from "node:crypto";
import fs from "node:fs";
import { test } from "node:test";
import { crc32 } from "node:zlib";
import { framesPath, segmentPath, shardFolder } from "./folder.ts";
import { BLOCK_HEADER_BYTES, BLOCK_MAGIC } from "./layout.ts";
import { readFrames } from "./read.ts";
import { allow, deny, openSession, openTestRecorder, statement, temporaryFolder } from "./testing.ts";
import type { DecisionRecord, Outcome, StatementRecord } from "./types.ts";

/** Writes records as layout.ts describes them, a field after the other. */
class PlainWriter {
  readonly parts: Buffer[] = [];
  length = BLOCK_HEADER_BYTES;

  record(type: number, detail: number, flags: number, bodyBytes: number, fill: (view: DataView) => void, ...rest: Uint8Array[]): number {
    const at = this.length;
    const fixed = new DataView(new ArrayBuffer(8 + bodyBytes));
    const length = fixed.byteLength + rest.reduce((sum, each) => sum + each.length, 0);
    fixed.setUint32(0, length, true);
    fixed.setUint8(4, type);
    fixed.setUint8(5, detail);
    fixed.setUint16(6, flags, true);
    fill(fixed);
    this.parts.push(Buffer.from(fixed.buffer), ...rest.map((each) => Buffer.from(each)));
    this.length += length;
    return at;
  }

  definition(type: number, detail: number, number: number, text: string): void {
    this.record(type, detail, 0, 4, (view) => view.setUint32(8, number, true), Buffer.from(text));
  }

  block(sequence: number): Buffer {
    const payload = Buffer.concat(this.parts);
    const header = Buffer.alloc(BLOCK_HEADER_BYTES);
    header.writeUInt32LE(BLOCK_MAGIC, 0);
    header.writeUInt32LE(payload.length, 8);
    header.writeUInt32LE(sequence, 12);
    header.writeUInt32LE(crc32(Buffer.concat([header.subarray(8), payload])), 4);
    return Buffer.concat([header, payload]);
  }
}

const DECISION = 5;
const STATEMENT = 6;
const INTENT = 7;
const OUTCOME = 8;
const OUTCOMES: readonly Outcome[] = ["done", "denied", "failed", "cancelled", "killed", "unknown"];

interface Asked {
  readonly request: number;
  readonly bytes: Uint8Array;
  readonly decision: DecisionRecord;
  readonly prepared: StatementRecord | undefined;
}

function putIntent(to: PlainWriter, session: number, micros: number, { request, bytes, decision, prepared }: Asked): number {
  const fill = (view: DataView): void => {
    view.setUint32(8, session, true);
    view.setUint32(12, request, true);
    view.setUint32(16, decision.storeSlot, true);
    view.setUint32(20, prepared === undefined ? 0xffff_ffff : prepared.storeSlot, true);
    view.setFloat64(24, micros, true);
  };
  return to.record(INTENT, decision.effect === "deny" ? 1 : 0, 0, 24, fill, bytes);
}

/** The blocks of a segment's file. */
function blocksOf(file: string): { readonly at: number; readonly bytes: Buffer }[] {
  const all = fs.readFileSync(file);
  const blocks = [];
  for (let at = 0; at + BLOCK_HEADER_BYTES <= all.length && all.readUInt32LE(at) === BLOCK_MAGIC; ) {
    const end = at + BLOCK_HEADER_BYTES + all.readUInt32LE(at + 8);
    blocks.push({ at, bytes: all.subarray(at, end) });
    at = end;
  }
  return blocks;
}

for (const results of ["head", "full", "digest"] as const) {
  test(`a batch's bytes are those of a plain writer: intents of every length, outcomes of every kind, ${results}`, async () => {
    using folder = temporaryFolder();
    const recorder = openTestRecorder(folder.path);
    const session = openSession(recorder, "s1", results);
    const journal = segmentPath(shardFolder(folder.path, 1), 1);
    const before = blocksOf(journal);
    const opening = before.at(-1)!.bytes;
    const number = opening.readUInt32LE(BLOCK_HEADER_BYTES + 8);
    const decisions = [allow(), deny()];
    const prepared = statement("SELECT é FROM t WHERE id = $1");
    const source = Buffer.from(Array.from({ length: 6_000 }, (_, index) => (index * 31) & 0xff));

    const asked: Asked[] = [];
    const lengths = [...Array.from({ length: 41 }, (_, index) => index), 127, 128, 129, 163, 255, 256, 257, 300, 5_001];
    for (const [index, length] of lengths.entries()) {
      const decision = decisions[index % 5 === 4 ? 1 : 0]!;
      const of = index % 2 === 0 ? prepared : undefined;
      const start = index % 9;
      const request = session.intent(decision, of, source, start, start + length);
      asked.push({ request, bytes: source.subarray(start, start + length), decision, prepared: of });
    }
    recorder.commit();
    const first = blocksOf(journal)[before.length]!;
    const plain = new PlainWriter();
    // Definitions stand before the first intent that needs them; the time is the batch's.
    const offsets = new Map<number, number>();
    const micros = first.bytes.readDoubleLE(first.bytes.indexOf(new Uint8Array([INTENT, 0, 0, 0, number, 0, 0, 0, 1, 0, 0, 0])) - 4 + 24);
    assert.ok(Math.abs(micros / 1000 - Date.now()) < 10_000);
    const defined = new Set<object>();
    for (const each of asked) {
      const { decision } = each;
      if (!defined.has(decision)) {
        const { action, resources, effect, rule, policyVersion, observed } = decision;
        const json = JSON.stringify({ action, resources, effect, rule, policyVersion, observed });
        plain.definition(DECISION, effect === "deny" ? 1 : 0, decision.storeSlot, json);
        defined.add(decision);
      }
      if (each.prepared !== undefined && !defined.has(prepared)) {
        plain.definition(STATEMENT, 0, prepared.storeSlot, prepared.text);
        defined.add(prepared);
      }
      offsets.set(each.request, first.at + putIntent(plain, number, micros, each));
    }
    assert.deepEqual(first.bytes, plain.block(before.length));

    // Answers of no, one, many and very many bytes; errors, masks, both, neither; out of order here and there.
    const order = asked.map(({ request }) => request);
    [order[3], order[4]] = [order[4]!, order[3]!];
    const ended = order.map((request, index) => {
      const answer = source.subarray(index % 7, (index % 7) + [0, 1, 70, 4_096, 4_097][index % 5]!);
      const rows = [0, 1, 3_000_000_000, 2 ** 40][index % 4]!;
      const bytes = [answer.length, 5_000_000_000, 0][index % 3]!;
      const error = index % 3 === 1 ? { code: "42P01", message: `relation "ü" ${"x".repeat(index)}` } : undefined;
      const masked = [undefined, new Map<string, number>(), new Map([["email", 2 + index]])][(index >> 1) % 3];
      const outcome = OUTCOMES[index % OUTCOMES.length]!;
      // In two pieces, so that a digest of one call and a running one are both made.
      const half = answer.length >> 1;
      session.toClient(request, answer, 0, half, 0, half);
      session.toClient(request, answer, half, answer.length, half, answer.length);
      session.outcome(request, outcome, rows, bytes, error, masked);
      return { request, answer, rows, bytes, error, masked, outcome };
    });
    const last: Asked = { request: asked.length + 1, bytes: source.subarray(0, 13), decision: decisions[0]!, prepared: undefined };
    assert.equal(session.intent(last.decision, undefined, last.bytes, 0, 13), last.request);
    recorder.commit();
    const second = blocksOf(journal)[before.length + 1]!;
    const later = second.bytes.readDoubleLE(BLOCK_HEADER_BYTES + 16);
    assert.ok(later >= micros && later / 1000 < Date.now() + 10_000);
    const outcomes = new PlainWriter();
    for (const { request, answer, rows, bytes, error, masked, outcome } of ended) {
      const digest = results === "head" ? Buffer.alloc(0) : createHash("sha256").update(answer).digest();
      const names = masked === undefined || masked.size === 0 ? undefined : Object.fromEntries(masked);
      const json =
        error === undefined && names === undefined ? "" : JSON.stringify({ code: error?.code, message: error?.message, masked: names });
      const fill = (view: DataView): void => {
        view.setUint32(8, number, true);
        view.setUint32(12, request, true);
        view.setFloat64(16, later, true);
        view.setFloat64(24, rows, true);
        view.setFloat64(32, bytes, true);
        view.setUint32(40, 1, true);
        view.setUint32(44, offsets.get(request)!, true);
      };
      const flags = (digest.length > 0 ? 1 : 0) | (json === "" ? 0 : 2);
      outcomes.record(OUTCOME, OUTCOMES.indexOf(outcome), flags, 40, fill, digest, Buffer.from(json));
    }
    putIntent(outcomes, number, later, last);
    assert.deepEqual(second.bytes, outcomes.block(before.length + 1));
    await recorder.close();
  });
}

test("a frame's bytes are those of a plain writer, for every length and both directions", async () => {
  using folder = temporaryFolder();
  const recorder = openTestRecorder(folder.path);
  const session = openSession(recorder, "s1", "head", 1_000_000);
  const source = Buffer.from(Array.from({ length: 700 }, (_, index) => (index * 13) & 0xff));
  for (let length = 1; length <= 600; length += length < 40 ? 1 : 37) {
    const request = session.intent(allow(), undefined, source, 0, 5);
    session.fromClient(source, length % 7, (length % 7) + length);
    session.toClient(request, source, length % 5, (length % 5) + length, 0, 0);
    session.outcome(request, "done", 0, 0, undefined, undefined);
  }
  await recorder.flush();
  const file = fs.readFileSync(framesPath(shardFolder(folder.path, 1), 1));
  const plain: Buffer[] = [];
  for await (const frame of readFrames(folder.path, "s1")) {
    const header = new DataView(new ArrayBuffer(26));
    header.setUint8(0, 0x95);
    header.setUint8(1, 0xce);
    header.setUint32(2, 1);
    header.setUint8(6, 0xce);
    header.setUint32(7, frame.request);
    header.setUint8(11, frame.direction === "fromClient" ? 0 : 1);
    header.setUint8(12, 0xcb);
    header.setFloat64(13, frame.micros);
    header.setUint8(21, 0xc6);
    header.setUint32(22, frame.bytes.length);
    plain.push(Buffer.from(header.buffer), Buffer.from(frame.bytes));
  }
  assert.ok(plain.length > 200);
  assert.ok(file.includes(Buffer.concat(plain)));
  await recorder.close();
});
