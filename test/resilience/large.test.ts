import assert from "node:assert/strict";
import { once } from "node:events";
import { after, before, test } from "node:test";
import { Worker } from "node:worker_threads";
import { bind, execute, parse, sync } from "../../protocols/postgres/messages.ts";
import { rawAt, startWorld, type World } from "../clients/world.ts";
import type { Destination } from "../helpers/clients.ts";

// One session's huge value or statement must not keep the other sessions of its worker waiting.

const MOST_MILLIS = 50;
/** The machine itself stops everybody now and then: what is the gateway's doing shows every time. Waits are as on a machine that has time. */
const ATTEMPTS = 3;
const FURTHER_ATTEMPTS = 2;

/** How much longer than alone a thread takes here at present, because others want the processors too; 1: not at all. */
function busyness(): number {
  const used = () => process.threadCpuUsage().user;
  const [began, before] = [performance.now(), used()];
  while (used() - before < 30_000);
  return Math.max(1, (performance.now() - began) / 30);
}

const filled = (piece: string, megabytes = 6): string => `repeat('${piece}', ${Math.ceil((megabytes * 1_000_000) / piece.length)})`;
const SETUP = `
create table customers (id int, email text);
insert into customers values (1, 'a.person@corp.example');
create table notes (id int, body text);
insert into notes values (1, ${filled("nothing to see here, 12 of 34. ")}), (2, ${filled("4111 1111 1111 1112 ", 12)}),
  (3, ${filled("a.person@corp.example ")}), (4, ${filled("DE89 3704 0044 0532 0130 01 ")}), (5, ${filled("phone: ", 12)}),
  (6, ${filled("a line of prose, and then another\\n")}), (7, ${filled("@")});
`;
const POLICY = `version: 1
rules:
  - { name: all, effect: allow }
masks:
  - { name: column, columns: [public.customers.email], with: redact }
  - { name: content, detect: [payment_card, us_ssn, email, iban, phone, jwt, private_key, cloud_key], with: redact }
`;

const many = (count: number, one: (index: number) => string, between = ","): string =>
  Array.from({ length: count }, (_, index) => one(index)).join(between);

const LARGE: Readonly<Record<string, string>> = {
  "6 MB of prose": "select body from notes where id = 1",
  "12 MB of numbers that are no cards": "select body from notes where id = 2",
  "6 MB of addresses": "select body from notes where id = 3",
  "6 MB of IBANs that are none": "select body from notes where id = 4",
  "12 MB of labels": "select body from notes where id = 5",
  "6 MB of @": "select body from notes where id = 7",
  "6 MB of lines, by COPY": "copy (select body from notes where id = 6) to stdout",
  "12 MB of numbers, by COPY": "copy (select body from notes where id = 2) to stdout (format csv, force_quote *)",
  "a row of 1,000 addresses and cards": `select ${many(1_000, (index) => `'a.person${index}@corp.example 4111 1111 1111 1111'`)}`,
  "5,000 rows of addresses and cards": "select 'a.person' || i || '@corp.example', '4111 1111 1111 1111' from generate_series(1, 5000) i",
  "an array of 100,000 addresses": "select array_agg('a.person' || i || '@corp.example') from generate_series(1, 100000) i",
  "300,000 items of IN": `select id from customers where id in (${many(300_000, (index) => String(index))})`,
  "20,000 nested parentheses": `select ${"(".repeat(20_000)}1${")".repeat(20_000)}`,
  "50,000 conditions": `select 1 from customers where ${many(50_000, (index) => `id = ${index}`, " or ")}`,
  "100,000 unknown columns": `select ${many(100_000, (index) => `c${index}`)} from customers`,
  "a literal of 2 MB": `select length('${"x".repeat(2_000_000)}')`,
};

let world: World;
before(async () => {
  world = await startWorld({ setup: SETUP, policy: POLICY, config: { workers: 1 } });
});
after(() => world.stop());

/** A session in a thread of its own, so that it does not wait while this one reads large answers. */
class Victim {
  readonly #worker: Worker;

  constructor(to: Destination) {
    const source = `
      import { parentPort, workerData } from "node:worker_threads";
      import { rawAt } from ${JSON.stringify(new URL("../clients/world.ts", import.meta.url).href)};
      const session = await rawAt(workerData);
      let asks = false;
      parentPort.on("message", (word) => {
        asks = word === "ask";
        if (asks) void ask();
      });
      async function ask() {
        let longest = 0;
        while (asks) {
          const began = performance.now();
          await session.query("select 1");
          longest = Math.max(longest, performance.now() - began);
        }
        parentPort.postMessage(longest);
      }
      parentPort.postMessage("ready");
    `;
    this.#worker = new Worker(new URL(`data:text/javascript,${encodeURIComponent(source)}`), { workerData: to });
  }

  async ready(): Promise<void> {
    await once(this.#worker, "message");
  }

  /** @returns milliseconds of the longest `select 1` while the attack went on */
  async longestDuring(attack: () => Promise<unknown>): Promise<number> {
    this.#worker.postMessage("ask");
    await attack();
    const answer = once(this.#worker, "message");
    this.#worker.postMessage("stop");
    const [longest] = (await answer) as [number];
    return longest;
  }

  async stop(): Promise<void> {
    await this.#worker.terminate();
  }
}

test("nobody waits for another session's huge value or statement", { timeout: 300_000 }, async (context) => {
  const to = await world.through(15);
  const victim = new Victim(to);
  await victim.ready();
  const tooLong: string[] = [];
  for (const [name, text] of Object.entries(LARGE)) {
    const waits: number[] = [];
    const shortest = () => Math.min(...waits);
    while (waits.length < ATTEMPTS || (shortest() > MOST_MILLIS && waits.length < ATTEMPTS + FURTHER_ATTEMPTS)) {
      const attacker = await rawAt(to);
      const simple = waits.length % 2 === 0 || text.startsWith("copy");
      const attack = () => (simple ? attacker.query(text) : attacker.ask([parse("", text), bind("", ""), execute("", 0), sync()]));
      const busy = busyness();
      const wait = await victim.longestDuring(attack);
      waits.push(wait / Math.max(1, (busy + busyness()) / 2));
      attacker.close();
    }
    const shown = `${name}: ${waits.map((wait) => wait.toFixed(0)).join(", ")} ms`;
    context.diagnostic(shown);
    if (shortest() > MOST_MILLIS) tooLong.push(shown);
  }
  await victim.stop();
  assert.deepEqual(tooLong, []);
});
