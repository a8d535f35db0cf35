import { type RawOptions, rawConnect } from "../test/clients/raw.ts";

/**
 * Opens sessions, lets each answer one query, and keeps them. Orders and reports are messages to the process that forked it:
 * a number N opens sessions up to N in all; the report is the number of seconds it took, or a sentence.
 */
export interface IdleOrder {
  readonly to: RawOptions;
  readonly upTo: number;
  /** Opened at the same time. */
  readonly wave: number;
}

let open = 0;

async function openUpTo({ to, upTo, wave }: IdleOrder): Promise<number> {
  const started = performance.now();
  while (open < upTo) {
    const count = Math.min(wave, upTo - open);
    await Promise.all(Array.from({ length: count }, () => openOne(to)));
    open += count;
  }
  return (performance.now() - started) / 1_000;
}

/** A session that has been used: only then does PgBouncer have a server connection for it. */
async function openOne(to: RawOptions): Promise<void> {
  const client = await rawConnect(to);
  const last = client.startup.at(-1);
  if (last?.type !== "Z") throw new Error(`no session: ${last?.body.toString("latin1") ?? "the connection ended"}`);
  const answer = await client.query("select 1");
  if (!answer.some(({ type }) => type === "D"))
    throw new Error(`no answer: ${answer.map(({ body }) => body.toString("latin1")).join(" ")}`);
}

process.on("message", (order: IdleOrder) => {
  openUpTo(order).then(
    (seconds) => process.send?.(seconds),
    (error: unknown) => process.send?.(error instanceof Error ? error.message : String(error)),
  );
});
