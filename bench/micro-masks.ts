import { createMasker } from "../core/mask/masker.ts";
import { parsePolicies } from "../core/policy/parse.ts";
import { FORWARD, MessageFramer, type MessageVisitor, REPLACE } from "../protocols/postgres/frame.ts";
import { RowMasker } from "../protocols/postgres/rows.ts";
import type { ColumnAction, SessionMasks } from "../protocols/postgres/values.ts";
import type { MicroCases } from "./micro.ts";
import { POLICY } from "./policy.ts";

const BATCH = 100;

function times(run: () => void): () => void {
  return () => {
    for (let i = 0; i < BATCH; i++) run();
  };
}

/** DataRow (PostgreSQL, Message Formats): type, length, number of columns, then length and bytes of each. */
function dataRow(values: readonly string[]): Buffer {
  const fields = values.map((value) => {
    const field = Buffer.alloc(4 + Buffer.byteLength(value));
    field.writeInt32BE(field.length - 4);
    field.write(value, 4);
    return field;
  });
  const body = Buffer.concat(fields);
  const head = Buffer.from("D\0\0\0\0\0\0", "latin1");
  head.writeInt32BE(6 + body.length, 1);
  head.writeInt16BE(values.length, 5);
  return Buffer.concat([head, body]);
}

const COLUMNS = 6;

/** 64 KiB of rows. @param every one field in so many is an e-mail address; 0: none */
function chunkOf(every: number): Buffer {
  const rows: Buffer[] = [];
  for (let id = 0, bytes = 0; bytes < 65_536; id++) {
    const values = [
      String(id),
      String(480_000_000_000 + id),
      `customer ${id}`,
      "2024-01-01 00:00:13+00",
      "1234.56",
      "a sentence that holds nothing",
    ];
    for (let column = 0; every > 0 && column < COLUMNS; column++) {
      if ((id * COLUMNS + column) % every === 0) values[column] = `user${id}@example.com`;
    }
    const row = dataRow(values);
    rows.push(row);
    bytes += row.length;
  }
  return Buffer.concat(rows);
}

/** A chunk on its way to the client: cut into rows, searched, masked. */
function passage(masks: SessionMasks, chunk: Buffer): () => void {
  const rows = new RowMasker();
  const actions: ColumnAction[] = Array.from({ length: COLUMNS }, () => ({ kind: "scan", nullOnHit: false }));
  const counts = new Map<string, number>();
  let passed = 0;
  const visitor: MessageVisitor = {
    replacement: undefined,
    passesEnding: -1,
    limit: () => 1_000_000,
    streams: () => false,
    passesUpTo: (_type, bytes, start, available) => rows.passUpTo(masks, bytes, start, available),
    passed: () => undefined,
    message(_type, bytes, start, end, available) {
      visitor.replacement = rows.row(bytes, start, end, available, actions, masks, false, counts);
      return visitor.replacement === undefined ? FORWARD : REPLACE;
    },
    run: (_bytes, start, end) => {
      passed += end - start;
    },
    emit: (replacement) => {
      passed += replacement?.length ?? 0;
    },
  };
  const framer = new MessageFramer(visitor);
  return () => {
    rows.newChunk();
    framer.push(chunk, 0, chunk.length);
    if (passed === 0) throw new Error("nothing of the benchmark's rows got through");
  };
}

export function maskCases(): MicroCases {
  const masks = parsePolicies([{ file: "policy.yaml", text: POLICY }]).masks.map(({ mask }) => mask);
  const masker = createMasker(masks, new Uint8Array(32), undefined);
  const small = dataRow(["-1234"]);
  const chunk = chunkOf(0);
  const matching = chunkOf(100);
  const session: SessionMasks = { masker, columns: new Map(), contentRule: "personal-data" };
  const note = Buffer.from("please write to user4711@example.com about it");
  const card = Buffer.from("480000004711");
  return {
    cases: [
      {
        name: "mask prefilter, one row of one short value",
        operations: BATCH,
        unit: "scan",
        run: times(() => masker.scan(small, 0, small.length)),
      },
      {
        name: "mask prefilter, 64 KiB of rows",
        operations: 1,
        unit: "scan",
        bytes: chunk.length,
        run: () => void masker.scan(chunk, 0, chunk.length),
      },
      { name: "masking, 64 KiB of clean rows", operations: 1, unit: "chunk", bytes: chunk.length, run: passage(session, chunk) },
      {
        name: "masking, 64 KiB of rows, one field in 100 matches",
        operations: 1,
        unit: "chunk",
        bytes: matching.length,
        run: passage(session, matching),
      },
      {
        name: "mask, field with an e-mail address",
        operations: BATCH,
        unit: "field",
        run: times(() => masker.field(note, 0, note.length)),
      },
      {
        name: "mask, field of 12 digits, none of the kinds",
        operations: BATCH,
        unit: "field",
        run: times(() => masker.field(card, 0, card.length)),
      },
    ],
  };
}
