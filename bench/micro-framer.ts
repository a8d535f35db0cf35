import { FORWARD, MessageFramer, type MessageVisitor } from "../protocols/postgres/frame.ts";
import { bind, describe, execute, sync } from "../protocols/postgres/messages.ts";
import type { MicroCases } from "./micro.ts";

const EXCHANGES = 16;

/** What a client sends with `pgbench -M prepared`, sixteen times in one read; and the same cut at every 100th byte. */
export function framerCases(): MicroCases {
  const exchange = [bind("", "P0_1", ["4711"]), describe("P", ""), execute(""), sync()];
  const chunk = Buffer.concat(Array.from({ length: EXCHANGES }, () => exchange).flat());
  const visitor: MessageVisitor = {
    limit: () => 1_000_000,
    streams: () => false,
    passesUpTo: (_type, _bytes, start) => start,
    passed: () => undefined,
    passesEnding: -1,
    message: () => FORWARD,
    replacement: undefined,
    run: () => undefined,
    emit: () => undefined,
  };
  const whole = new MessageFramer(visitor);
  const cut = new MessageFramer(visitor);
  const operations = EXCHANGES * exchange.length;
  return {
    cases: [
      { name: "framer, whole messages", operations, unit: "message", run: () => whole.push(chunk, 0, chunk.length) },
      {
        name: "framer, reads of 100 bytes",
        operations,
        unit: "message",
        run: () => {
          for (let start = 0; start < chunk.length; start += 100) cut.push(chunk, start, Math.min(start + 100, chunk.length));
        },
      },
    ],
  };
}
