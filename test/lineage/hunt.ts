import { readdirSync, readFileSync, statSync } from "node:fs";
import { join } from "node:path";
import { bind, close, describe as describeMessage, execute, parse, query, sync } from "../../protocols/postgres/messages.ts";
import { type RawClient, rawConnect } from "../clients/raw.ts";
import { Random } from "../fuzz/random.ts";
import { type Gateway, postgresTarget, startGateway } from "../helpers/gateway.ts";
import { startTestIssuer } from "../helpers/issuer.ts";
import { type PostgresServer, type PostgresVersion, startPostgres } from "../helpers/postgres.ts";
import { type Answer, answerOf, differs } from "./answers.ts";
import { APPLICATIONS } from "./applications.ts";
import { Canaries } from "./canaries.ts";
import { Generator, type Statement } from "./generator.ts";
import { fill, type Model, readModel, type Schema } from "./model.ts";
import { randomSchema } from "./schemas.ts";

// Random statements over random schemas, as somebody to whom masks apply. Each schema stands in two databases that differ in the
// masked values and in nothing else. Three things must hold: no piece of a masked value is in anything that a client gets; what a
// client gets is the same from both databases; and what does not touch a masked column is answered as without a gateway.

export interface Finding {
  readonly kind: "leak" | "difference" | "refused" | "altered" | "ended";
  readonly schema: string;
  readonly version: PostgresVersion;
  readonly how: string;
  readonly steps: readonly string[];
  readonly detail: string;
}

export interface HuntResult {
  readonly findings: Finding[];
  statements: number;
  /** Statements that touch masked columns, and how they ended. */
  touching: number;
  refused: number;
  failed: number;
  masked: number;
  /** Statements that touch none, and those of them that the server itself refused. */
  clean: number;
  cleanFailed: number;
  /** Statements that touch none and were refused because of the form of their result. */
  later: number;
  canaries: number;
  /** Bytes of answers, logs and recordings that were searched. */
  searched: number;
}

export interface HuntOptions {
  readonly seed: number;
  readonly seconds: number;
  readonly versions: readonly PostgresVersion[];
  readonly report?: (line: string) => void;
  /** Default: two random ones and those of the applications. */
  readonly schemas?: readonly Schema[];
}

/** A generated text may be no SQL at all; the server must then say so, too. */
const UNREAD = /syntax error/;
/** Whole results that may be refused for their form, whatever columns they have. */
const LATER = /asked for in binary format|COPY TO cannot be masked/;

interface Site {
  readonly schema: Schema;
  readonly version: PostgresVersion;
  readonly server: PostgresServer;
  readonly model: Model;
  readonly databases: readonly [string, string];
}

const HOWS: Readonly<Record<string, (sql: string) => Uint8Array[]>> = {
  simple: (sql) => [query(sql)],
  extended: (sql) => [parse("", sql), describeMessage("S", ""), bind("", ""), describeMessage("P", ""), execute(""), sync()],
  undescribed: (sql) => [parse("", sql), bind("", ""), execute("", 2), execute(""), sync()],
  binary: (sql) => [close("S", "b"), parse("b", sql), describeMessage("S", "b"), bindBinary("b"), execute(""), sync()],
};

function bindBinary(statement: string): Buffer {
  const body = Buffer.concat([Buffer.from(`\0${statement}\0`), Buffer.from([0, 0, 0, 0, 0, 1, 0, 1])]);
  const head = Buffer.from([0x42, 0, 0, 0, 0]);
  head.writeInt32BE(body.length + 4, 1);
  return Buffer.concat([head, body]);
}

/** A policy under which everything is allowed and the schemas' columns are masked, half of them so that they can be compared for equality: no canary equals what a statement holds. */
function policyOf(sites: readonly Site[]): string {
  const masks = sites.flatMap((site, index) => {
    const targets = `[${site.databases.join(", ")}]`;
    // A random schema's status may be a boolean, which equals something.
    const { masked } = site.schema;
    const comparable = masked.filter((column, position) => position % 2 === 0 && !column.endsWith(".status"));
    const parts = [comparable, masked.filter((column) => !comparable.includes(column))];
    return parts.flatMap((columns, part) =>
      columns.length === 0
        ? []
        : [
            `  - { name: m${index}p${part}, on: { targets: ${targets} }, columns: [${columns.join(", ")}], with: ${part === 0 ? "redact, predicates: equality" : '"null"'} }\n`,
          ],
    );
  });
  return `version: 1\nrules:\n  - { name: all, effect: allow }\nmasks:\n${masks.join("")}`;
}

/** Carry out one step and take what comes, whatever it is. */
async function ask(client: RawClient, how: string, sql: string): Promise<Answer> {
  const frames = await client.ask((HOWS[how] as (sql: string) => Uint8Array[])(sql));
  return answerOf(frames);
}

async function runSteps(client: RawClient, how: string, statement: Statement): Promise<Answer[]> {
  const answers: Answer[] = [];
  await client.ask([query("begin")]);
  for (const sql of statement.steps) {
    if (client.ended) break;
    answers.push(await ask(client, how, sql));
  }
  if (!client.ended) await client.ask([query("rollback")]);
  return answers;
}

export async function hunt(options: HuntOptions): Promise<HuntResult> {
  const { seed, seconds, versions, report = () => {} } = options;
  const schemas = options.schemas ?? [randomSchema(seed), randomSchema(seed + 1), ...APPLICATIONS];
  const canaries = new Canaries(seed);
  const issuer = await startTestIssuer();
  const servers = await Promise.all(versions.map((version) => startPostgres({ version, auth: "password" })));
  let gateway: Gateway | undefined;
  const result: HuntResult = {
    findings: [],
    statements: 0,
    touching: 0,
    refused: 0,
    failed: 0,
    masked: 0,
    clean: 0,
    cleanFailed: 0,
    later: 0,
    canaries: 0,
    searched: 0,
  };
  try {
    const sites = (await Promise.all(servers.map((server) => build(server, schemas, canaries)))).flat();
    gateway = await startGateway({
      issuer,
      targets: sites.flatMap((site) =>
        site.databases.map((database) => postgresTarget(database, site.server, { database: database.replace(/^pg\d+-/, "") })),
      ),
      policy: policyOf(sites),
      config: { policies: ["./policy.yaml"], record: { results: "full" } },
    });
    result.canaries = canaries.count;
    const password = await issuer.token({ expiresInSeconds: Math.ceil(seconds) + 300 });
    const hunts = sites.map(
      (site, index) => new SiteHunt(site, gateway as Gateway, password, canaries, result, new Random(seed * 31 + index)),
    );
    const until = Date.now() + seconds * 1_000;
    let said = Date.now();
    await Promise.all(
      hunts.map(async (each) => {
        while (Date.now() < until) {
          await each.next();
          if (Date.now() - said <= 20_000) continue;
          said = Date.now();
          report(summary(result));
        }
      }),
    );
    for (const each of hunts) each.close();
    // Everything recorded is flushed when the gateway has stopped.
    await gateway.stop({ keep: true });
    searchFiles(gateway, canaries, result);
    return result;
  } finally {
    await gateway?.stop();
    await Promise.all([...servers.map((server) => server.stop()), issuer.stop()]);
  }
}

export const summary = (result: HuntResult): string =>
  `${result.statements} statements, ${result.canaries} canaries, ${result.searched} bytes searched; ${result.touching} touched masked columns: ` +
  `${result.refused} refused (${Math.round((100 * result.refused) / Math.max(1, result.touching))} %), ${result.masked} carried out, ${result.failed} errors of the server; ` +
  `${result.clean} touched none: ${result.clean - result.cleanFailed - result.later} carried out, ${result.cleanFailed} errors of the server, ${result.later} refused for the form of their result; ${result.findings.length} findings`;

/** The first findings, for whoever has to look into them. */
export function shown(result: HuntResult, most = 8): string {
  const lines = result.findings
    .slice(0, most)
    .map(
      ({ kind, schema, version, how, steps, detail }) =>
        `${kind} (${schema}, PostgreSQL ${version}, ${how}): ${steps.join(" / ")}\n  ${detail}`,
    );
  return [...lines, `${result.findings.length} findings`].join("\n");
}

/** Two databases a schema, alike but for the canaries. */
async function build(server: PostgresServer, schemas: readonly Schema[], canaries: Canaries): Promise<Site[]> {
  const sites: Site[] = [];
  for (const [index, schema] of schemas.entries()) {
    const names = [`s${index}a`, `s${index}b`] as const;
    let model: Model | undefined;
    for (const name of names) {
      await server.execute(`create database ${name}`);
      await server.execute(schema.ddl, name);
      model = await readModel(server, name, schema);
      await server.execute(fill(model, canaries), name);
      const views = await server.query<{ m: string }>("select format('%I.%I', schemaname, matviewname) as m from pg_matviews", [], name);
      for (const { m } of views) await server.execute(`refresh materialized view ${m}`, name);
    }
    const targets = names.map((name) => `pg${server.version}-${name}`) as unknown as readonly [string, string];
    sites.push({ schema, version: server.version, server, model: model as Model, databases: targets });
  }
  return sites;
}

function searchFiles(gateway: Gateway, canaries: Canaries, result: HuntResult): void {
  const found = (where: string, bytes: Buffer): void => {
    result.searched += bytes.length;
    const leaked = canaries.find(bytes);
    if (leaked !== undefined)
      result.findings.push({ kind: "leak", schema: "", version: 15, how: "file", steps: [where], detail: `${leaked} is in the file` });
  };
  found("the log", Buffer.from(gateway.logs()));
  const walk = (folder: string): void => {
    for (const entry of readdirSync(folder)) {
      const path = join(folder, entry);
      if (statSync(path).isDirectory()) walk(path);
      else found(path, readFileSync(path));
    }
  };
  walk(gateway.dataFolder);
}

/** One schema on one server: its connections and its stream of statements. */
class SiteHunt {
  readonly #site: Site;
  readonly #gateway: Gateway;
  readonly #password: string;
  readonly #canaries: Canaries;
  readonly #result: HuntResult;
  readonly #random: Random;
  #through: (RawClient | undefined)[] = [undefined, undefined];
  #direct: RawClient | undefined;

  constructor(site: Site, gateway: Gateway, password: string, canaries: Canaries, result: HuntResult, random: Random) {
    this.#site = site;
    this.#gateway = gateway;
    this.#password = password;
    this.#canaries = canaries;
    this.#result = result;
    this.#random = random;
  }

  async #client(index: number): Promise<RawClient> {
    let client = this.#through[index];
    if (client === undefined || client.ended) {
      const database = this.#site.databases[index] as string;
      client = await rawConnect({ port: this.#gateway.port, user: "anyone", database, password: this.#password });
      client.received = [];
      this.#through[index] = client;
    }
    return client;
  }

  async #server(): Promise<RawClient> {
    if (this.#direct === undefined || this.#direct.ended) {
      const { port, superuser, password } = this.#site.server;
      const database = this.#site.databases[0].replace(/^pg\d+-/, "");
      this.#direct = await rawConnect({ port, user: superuser, database, password });
    }
    return this.#direct;
  }

  async next(): Promise<void> {
    const result = this.#result;
    const clean = this.#random.oneIn(3);
    const statement = Generator.statement(this.#random, this.#site.model, clean, this.#site.version >= 17);
    const several = statement.steps.some((step) => step.includes("; "));
    const how = several || this.#random.oneIn(2) ? "simple" : this.#random.pick(["extended", "undescribed", "binary"]);
    const client = await this.#client(0);
    const first = await runSteps(client, how, statement);
    result.statements += 1;
    const bytes = Buffer.concat(client.received ?? []);
    client.received = [];
    result.searched += bytes.length;
    const leaked = this.#canaries.find(bytes);
    if (leaked !== undefined) this.#found("leak", how, statement, leaked);
    if (client.ended) this.#found("ended", how, statement, "the session ended");
    if (statement.touched) {
      result.touching += 1;
      const error = first.find((answer) => answer.code !== undefined);
      if (error?.byGateway === true) result.refused += 1;
      else if (error !== undefined) result.failed += 1;
      else result.masked += 1;
      // What was refused said nothing of the rows.
      if (first.every((answer) => answer.byGateway || answer.code === "25P02") || !statement.repeats) return;
      const other = await this.#client(1);
      const second = await runSteps(other, how, statement);
      other.received = [];
      const difference = differs(first, second, false);
      if (difference !== undefined) this.#found("difference", how, statement, difference);
      return;
    }
    result.clean += 1;
    // What comes after an error of the server follows from that.
    const error = first.find((answer) => answer.code !== undefined);
    if (error?.byGateway === true) {
      if (LATER.test(error.message ?? "")) result.later += 1;
      else if (UNREAD.test(error.message ?? "") && (await this.#serverSays("42601", how, statement))) result.cleanFailed += 1;
      else this.#found("refused", how, statement, error.message ?? "");
      return;
    }
    if (first.some((answer) => answer.byGateway)) return;
    const plain = await runSteps(await this.#server(), how, statement);
    if (plain.some((answer) => answer.code !== undefined)) result.cleanFailed += 1;
    const difference = statement.repeats ? differs(first, plain, true) : undefined;
    if (difference !== undefined) this.#found("altered", how, statement, difference);
  }

  /** Whether the server's own first error is this one. */
  async #serverSays(code: string, how: string, statement: Statement): Promise<boolean> {
    const answers = await runSteps(await this.#server(), how, statement);
    return answers.find((answer) => answer.code !== undefined)?.code === code;
  }

  #found(kind: Finding["kind"], how: string, statement: Statement, detail: string): void {
    const { schema, version } = this.#site;
    this.#result.findings.push({ kind, schema: schema.name, version, how, steps: statement.steps, detail });
  }

  close(): void {
    for (const client of [...this.#through, this.#direct]) client?.destroy();
  }
}
