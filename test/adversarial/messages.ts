import assert from "node:assert/strict";
import { bind, execute, parse } from "../../protocols/postgres/messages.ts";
import { errors, type RawClient, rows, types } from "../clients/raw.ts";
import type { WireContext } from "./case.ts";

// What the cases of messages are made of.

export const message = (type: string, body: Uint8Array, length = body.length + 4): Buffer => {
  const head = Buffer.alloc(5);
  head.write(type, "latin1");
  head.writeInt32BE(length, 1);
  return Buffer.concat([head, body]);
};
export const bindFormats = (portal: string, statement: string, ...formats: readonly number[]): Buffer => {
  const tail = Buffer.alloc(2 + formats.length * 2);
  tail.writeInt16BE(formats.length, 0);
  formats.forEach((format, index) => tail.writeInt16BE(format, 2 + index * 2));
  return message("B", Buffer.concat([Buffer.from(`${portal}\0${statement}\0\0\0\0\0`), tail]));
};
export const copyData = (text: string): Buffer => message("d", Buffer.from(text));
export const extended = (text: string): Buffer => Buffer.concat([parse("", text), bind("", ""), execute("")]);

/** The statement that must not get through. */
export const refused = (context: WireContext, text = "table secret"): string => `/*${context.marker}-refused*/ ${text}`;
export const allowed = (context: WireContext, text: string): string => `/*${context.marker}*/ ${text}`;

export const isRefusal = (frames: Parameters<typeof errors>[0], why = ""): void => {
  const [error] = errors(frames);
  assert.equal(error?.C, "42501", `${why} ${types(frames)} ${JSON.stringify(error)}`);
};

/** The session still answers, in order. */
export async function isAlive(client: RawClient, context: WireContext): Promise<void> {
  await client.query(allowed(context, "rollback"));
  assert.deepEqual(rows(await client.query(allowed(context, "select 'alive'"))), [["alive"]]);
  client.close();
}

/** The session was ended with a FATAL of one of these states, and what came behind did not run. */
export async function isEnded(client: RawClient, ...accepted: readonly string[]): Promise<void> {
  const frames = await client.closed();
  const error = errors(frames).at(-1);
  assert.ok(client.ended, "the session goes on");
  assert.ok(!frames.some((frame) => frame.type === "D" || frame.type === "d"), "rows came");
  assert.ok(error !== undefined && accepted.includes(error.C ?? ""), JSON.stringify(error));
}
