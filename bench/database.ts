import { pgbench } from "../test/helpers/clients.ts";
import { type PostgresServer, startPostgres } from "../test/helpers/postgres.ts";
import type { BenchOptions } from "./options.ts";

export const DATABASE = "bench";

/** About the length of a row as COPY text. */
const BULK_ROW_BYTES = 120;

/** An e-mail address stands in one row of this many. */
const ROWS_PER_EMAIL = 100;

/** A table that is read whole. Its rows differ in one column only. */
export interface BulkTable {
  readonly name: string;
  /** SQL expression over the row's number `i`. */
  readonly note: string;
  /** Of the size that the options ask for. */
  readonly share: number;
  /** One row in so many holds an e-mail address in place of the note; 0: none does. */
  readonly rowsPerEmail: number;
}

/** Numbers, times and prose: little that a content detector would suspect. */
export const PROSE: BulkTable = {
  name: "bulk",
  note: "'order ' || i || ' left the warehouse in good order'",
  share: 1,
  rowsPerEmail: ROWS_PER_EMAIL,
};

/** The same without anything that a detector is there for. */
export const CLEAN: BulkTable = { ...PROSE, name: "bulk_clean", share: 0.5, rowsPerEmail: 0 };

/** Hexadecimal digests: about one in eight contains what may be the beginning of an IBAN, so that the exact matchers must look. */
export const DIGESTS: BulkTable = { name: "bulk_digests", note: "md5(i::text)", share: 0.25, rowsPerEmail: ROWS_PER_EMAIL };

export const bulkRows = (table: BulkTable, options: BenchOptions): number =>
  Math.ceil((options.bulkMegabytes * 1_000_000 * table.share) / BULK_ROW_BYTES);

const noteOf = ({ note, rowsPerEmail }: BulkTable): string =>
  rowsPerEmail === 0 ? note : `case when i % ${rowsPerEmail} = 0 then 'write to user' || i || '@example.com' else ${note} end`;

const createBulk = (table: BulkTable, options: BenchOptions): string =>
  `create unlogged table ${table.name} (id int, account bigint, name text, created timestamptz, amount numeric(12,2), note text);
   insert into ${table.name} select i, 480000000000 + i, 'customer ' || i, timestamptz '2024-01-01Z' + i * interval '13 seconds',
     i % 1000000 / 100.0, ${noteOf(table)}
     from generate_series(1, ${bulkRows(table, options)}) i`;

/** PostgreSQL with everything in memory and no fsync: the server is to be as fast as it can, so that proxies show. */
export async function startDatabase(options: BenchOptions): Promise<PostgresServer> {
  const server = await startPostgres({
    version: 15,
    settings: {
      shared_buffers: "256MB",
      // PgBouncer keeps its connections while another mode has as many open, and those of the mode before it are still ending.
      max_connections: 300 + 3 * Math.max(options.clients, options.activeClients),
      max_wal_size: "4GB",
      autovacuum: false,
      jit: false,
      max_parallel_workers_per_gather: 0,
    },
  });
  try {
    await server.execute(`create database ${DATABASE}`);
    const to = { port: server.port, database: DATABASE, user: server.superuser, password: server.password };
    const made = await pgbench(to, ["-i", "-q", "-s", String(options.scale)], { timeoutMillis: 600_000 });
    if (made.code !== 0) throw new Error(`pgbench -i ended with ${made.code}: ${made.stderr}`);
    await server.execute(
      `create table customers (id int primary key, name text, email text);
       insert into customers select i, 'customer ' || i, 'user' || i || '@example.com' from generate_series(1, 1000) i;
       create table salaries (id int primary key, amount int)`,
      DATABASE,
    );
    for (const table of [PROSE, CLEAN, DIGESTS]) await server.execute(createBulk(table, options), DATABASE);
    // Hint bits are set and statistics made now, not during the first round.
    await server.execute("vacuum analyze", DATABASE);
  } catch (error) {
    await server.stop();
    throw error;
  }
  return server;
}
