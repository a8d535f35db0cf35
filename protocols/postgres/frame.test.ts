import assert from "node:assert/strict";
import { test } from "node:test";
import fc from "fast-check";
import { FORWARD, FORWARD_AND_ADD, HOLD, MessageFramer, type MessageVisitor, REPLACE } from "./frame.ts";

/** Writes down what comes out, and answers as told. */
class Witness implements MessageVisitor {
  replacement: Uint8Array | undefined;
  readonly messages: string[] = [];
  readonly unseen: { type: number; count: number; bytes: number }[] = [];
  out = Buffer.alloc(0);
  answers: (type: number, body: string) => number = () => FORWARD;
  streamed: readonly number[] = [];
  /** Types that pass without message(), up to the next byte 0xff. */
  passing: readonly number[] = [];
  passesEnding = -1;
  max = 1_000_000;

  limit(type: number): number {
    return type === 0x21 ? 0 : this.max;
  }
  streams(type: number): boolean {
    return this.streamed.includes(type);
  }
  passesUpTo(type: number, bytes: Uint8Array, start: number, available: number): number {
    if (!this.passing.includes(type)) return start;
    const stop = bytes.indexOf(0xff, start);
    return stop < 0 || stop > available ? available : stop;
  }
  passed(type: number, count: number, start: number, end: number): void {
    this.unseen.push({ type, count, bytes: end - start });
  }
  message(type: number, bytes: Uint8Array, start: number, end: number): number {
    const body = Buffer.from(bytes.subarray(start + 5, end)).toString("latin1");
    const answer = this.answers(type, body);
    if (answer !== HOLD) this.messages.push(String.fromCharCode(type) + body);
    if (answer === REPLACE || answer === FORWARD_AND_ADD) this.replacement = Buffer.from("<r>");
    return answer;
  }
  run(bytes: Uint8Array, start: number, end: number): void {
    this.out = Buffer.concat([this.out, bytes.subarray(start, end)]);
  }
  emit(replacement: Uint8Array | undefined): void {
    if (replacement !== undefined) this.out = Buffer.concat([this.out, replacement]);
  }
}

const message = (type: string, body: string): Buffer => {
  const bytes = Buffer.alloc(5 + body.length);
  bytes.write(type, 0, "latin1");
  bytes.writeInt32BE(4 + body.length, 1);
  bytes.write(body, 5, "latin1");
  return bytes;
};

const conversation = fc.array(fc.tuple(fc.constantFrom("Q", "P", "B", "d", "r", "a"), fc.string({ maxLength: 40 })), { maxLength: 30 });
const cuts = fc.array(fc.nat({ max: 200 }), { maxLength: 60 });

function feed(framer: MessageFramer, stream: Buffer, lengths: readonly number[]): void {
  let at = 0;
  for (const length of [...lengths, stream.length]) {
    // A copy that is overwritten afterwards: whoever keeps a view of the chunk is found out.
    const chunk = Buffer.from(stream.subarray(at, at + length));
    framer.push(chunk, 0, chunk.length);
    chunk.fill(0xee);
    at += length;
  }
}

test("every split of a stream gives the same messages and the same bytes", () => {
  fc.assert(
    fc.property(conversation, cuts, (messages, lengths) => {
      const make = () => {
        const witness = new Witness();
        witness.answers = (type) => (type === 0x72 ? REPLACE : type === 0x61 ? FORWARD_AND_ADD : FORWARD);
        return witness;
      };
      const stream = Buffer.concat(messages.map(([type, body]) => message(type, body)));
      const whole = make();
      feed(new MessageFramer(whole), stream, []);
      const split = make();
      feed(new MessageFramer(split), stream, lengths);
      assert.deepEqual(split.messages, whole.messages);
      assert.deepEqual(split.out, whole.out);
      assert.deepEqual(
        whole.messages,
        messages.map(([type, body]) => type + body),
      );
    }),
    { numRuns: 500 },
  );
});

test("streamed messages pass byte for byte in any split, without being assembled", () => {
  fc.assert(
    fc.property(conversation, cuts, (messages, lengths) => {
      const witness = new Witness();
      witness.streamed = [0x64];
      const stream = Buffer.concat(messages.map(([type, body]) => message(type, body)));
      const framer = new MessageFramer(witness);
      feed(framer, stream, lengths);
      assert.deepEqual(witness.out, stream);
      assert.equal(framer.atBoundary, true);
    }),
    { numRuns: 500 },
  );
});

test("messages that pass unseen are counted, stop where they are told to, and no byte is lost, in any split", () => {
  const bodies = fc
    .tuple(fc.nat({ max: 300 }), fc.nat({ max: 9 }))
    .map(([length, last]) => "a".repeat(length) + (last === 0 ? "\u00ff" : ""));
  const many = fc.array(fc.tuple(fc.constantFrom("d", "d", "d", "Q", "r"), bodies), { minLength: 10, maxLength: 80 });
  let unseen = 0;
  fc.assert(
    fc.property(many, fc.array(fc.integer({ min: 0, max: 6_000 }), { maxLength: 10 }), (messages, lengths) => {
      const witness = new Witness();
      witness.passing = [0x64];
      witness.answers = (type) => (type === 0x72 ? REPLACE : FORWARD);
      const stream = Buffer.concat(messages.map(([type, body]) => message(type, body)));
      const framer = new MessageFramer(witness);
      feed(framer, stream, lengths);
      const out = messages.map(([type, body]) => (type === "r" ? Buffer.from("<r>") : message(type, body)));
      assert.deepEqual(witness.out, Buffer.concat(out));
      const passed = witness.unseen.reduce((sum, { count }) => sum + count, 0);
      assert.equal(passed + witness.messages.length, messages.length);
      assert.ok(witness.unseen.every(({ type }) => type === 0x64));
      // What holds the byte at which passing ends is seen.
      const seen = witness.messages.filter((text) => text.startsWith("d") && text.includes("\u00ff"));
      assert.equal(seen.length, messages.filter(([type, body]) => type === "d" && body.includes("\u00ff")).length);
      unseen += passed;
    }),
    { numRuns: 500 },
  );
  assert.ok(unseen > 1_000, `only ${unseen} messages passed unseen`);
});

test("where only messages with a certain end pass unseen, the others are seen", () => {
  const witness = new Witness();
  witness.passing = [0x64];
  witness.passesEnding = 0x0a;
  const whole = message("d", `${"x".repeat(900)}\n`);
  const part = message("d", "y".repeat(900));
  const empty = message("d", "");
  feed(new MessageFramer(witness), Buffer.concat([whole, whole, part, whole, empty, whole, whole, whole]), []);
  const passed = witness.unseen.reduce((sum, { count }) => sum + count, 0);
  assert.equal(passed + witness.messages.length, 8);
  assert.ok(passed >= 3, `${passed} passed`);
  for (const unseen of ["d" + "y".repeat(900), "d"]) assert.ok(witness.messages.includes(unseen));
});

test("a message that declares a wrong length does not pass unseen", () => {
  for (const length of [3, -1, 1_000_001, 0x7fff_ffff]) {
    const witness = new Witness();
    witness.passing = [0x64];
    const good = message("d", "x".repeat(1_000));
    const bad = Buffer.from(good);
    bad.writeInt32BE(length, 1);
    assert.throws(() => feed(new MessageFramer(witness), Buffer.concat([good, bad, good, good]), []), /SLUICE|message/);
    assert.deepEqual(witness.unseen, [{ type: 0x64, count: 1, bytes: good.length }]);
  }
});

test("a held message is presented again, with everything behind it in order", () => {
  fc.assert(
    fc.property(conversation, cuts, (messages, lengths) => {
      const witness = new Witness();
      let release = false;
      witness.answers = (_type, body) => (body.includes("a") && !release ? HOLD : FORWARD);
      const stream = Buffer.concat(messages.map(([type, body]) => message(type, body)));
      const framer = new MessageFramer(witness);
      feed(framer, stream, lengths);
      const held = messages.findIndex(([, body]) => body.includes("a"));
      assert.equal(framer.held, held >= 0);
      assert.equal(witness.messages.length, held >= 0 ? held : messages.length);
      release = true;
      framer.resume();
      assert.deepEqual(witness.out, stream);
    }),
    { numRuns: 500 },
  );
});

test("lengths below four, above the limit or of an unknown type are refused before anything is kept", () => {
  for (const [type, length] of [
    ["Q", 3],
    ["Q", -1],
    ["Q", -2_147_483_648],
    ["Q", 1_000_001],
    ["Q", 0x7fff_ffff],
    ["!", 4],
  ] as const) {
    const header = Buffer.alloc(5);
    header.write(type, 0);
    header.writeInt32BE(length, 1);
    for (const cut of [5, 1, 4]) {
      const framer = new MessageFramer(new Witness());
      assert.throws(() => feed(framer, header, [cut]), /SLUICE|message/);
      assert.ok(framer.keptBytes <= 5);
    }
  }
});

test("what a peer only declares is not allocated", () => {
  const witness = new Witness();
  witness.max = 0x3fff_ffff;
  const framer = new MessageFramer(witness);
  const header = Buffer.from([0x51, 0x3f, 0xff, 0xff, 0xff, 1, 2, 3]);
  const before = process.memoryUsage().arrayBuffers;
  framer.push(header, 0, header.length);
  assert.ok(process.memoryUsage().arrayBuffers - before < 100_000);
  assert.equal(framer.keptBytes, 8);
});
