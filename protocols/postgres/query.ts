import { Reader } from "../../core/bytes/reader.ts";
import { SluiceError } from "../../core/errors.ts";
import { Conversation } from "./conversation.ts";
import type { Upstream } from "./dial.ts";
import { describeError } from "./dial.ts";
import * as messages from "./messages.ts";
import { TYPE } from "./messages.ts";

/** Fields of one row in text form; null for NULL. */
export type TextRow = readonly (string | null)[];

/** Runs statements of the gateway's own on a target connection that serves no client. Close it when done. */
export class SideConnection {
  readonly #conversation: Conversation;

  /** @param deadlineMillis for everything done on it. @param maxRowBytes longest row accepted */
  constructor(upstream: Upstream, deadlineMillis: number, maxRowBytes: number) {
    this.#conversation = new Conversation(upstream.wire, {
      deadlineMillis,
      maxMessageBytes: maxRowBytes,
      peer: "target",
      leftover: upstream.leftover,
    });
  }

  /**
   * Run SQL text (one or more statements) and hand over each row as it comes.
   * @throws SluiceError SLUICE_TARGET_REFUSED with the server's message, SLUICE_DEADLINE, SLUICE_PROTOCOL_VIOLATION; then the
   * connection must be closed
   */
  async query(sql: string, onRow: (row: TextRow) => void = () => {}): Promise<void> {
    this.#conversation.send(messages.query(sql));
    let failure: SluiceError | undefined;
    for (;;) {
      const { type, body } = await this.#conversation.message();
      switch (type) {
        case TYPE.dataRow:
          onRow(textRow(body));
          break;
        case TYPE.errorResponse:
          failure = new SluiceError("SLUICE_TARGET_REFUSED", describeError(body));
          break;
        case TYPE.readyForQuery:
          if (failure !== undefined) throw failure;
          return;
        case TYPE.rowDescription:
        case TYPE.commandComplete:
        case TYPE.emptyQueryResponse:
        case TYPE.noticeResponse:
        case TYPE.notificationResponse:
        case TYPE.parameterStatus:
          break;
        default:
          throw new SluiceError("SLUICE_PROTOCOL_VIOLATION", `the target answered a query with a message of type 0x${type.toString(16)}`);
      }
    }
  }

  close(): void {
    this.#conversation.send(messages.terminate());
    this.#conversation.abandon();
    this.#conversation.wire.end();
    // The server closes its side at once; what does not is cut.
    setTimeout(() => this.#conversation.wire.destroy(), 1_000).unref();
  }
}

/** All rows of one statement, for results known to be small. Closes the connection. */
export async function query(upstream: Upstream, sql: string, deadlineMillis = 10_000): Promise<TextRow[]> {
  const side = new SideConnection(upstream, deadlineMillis, 1024 * 1024);
  const rows: TextRow[] = [];
  try {
    await side.query(sql, (row) => rows.push(row));
  } finally {
    side.close();
  }
  return rows;
}

function textRow(body: Uint8Array): TextRow {
  const reader = new Reader(body);
  const row: (string | null)[] = [];
  for (let left = reader.uint16(); left > 0; left--) {
    const length = reader.int32();
    row.push(length === -1 ? null : Buffer.from(reader.take(length)).toString("utf8"));
  }
  reader.finish();
  return row;
}
