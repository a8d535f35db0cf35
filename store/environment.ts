import fs from "node:fs";
import path from "node:path";
import { type Database, open, type RootDatabase } from "lmdb";
import type { SessionInfo } from "./layout.ts";

/** What the session index keeps: the opening, and once it ended the end. */
export interface StoredSession extends SessionInfo {
  readonly shard: number;
  /** Number of the session in its shard. */
  readonly number: number;
  readonly firstSegment: number;
  readonly firstBlock: number;
  readonly endedMicros?: number;
  readonly lastSegment?: number;
  readonly lastBlock?: number;
  readonly operations?: number;
  readonly reason?: string;
}

/** One LMDB environment of a shard. */
export interface Environment {
  readonly root: RootDatabase;
  /** [startedMillis, number] → StoredSession (MessagePack). */
  readonly sessions: Database<StoredSession, [number, number]>;
  /** Session id → its key in `sessions`. */
  readonly ids: Database<[number, number], string>;
  /** Number of a run's first block → where its blocks lie in the frames segments, and whose they are (frame-index.ts). */
  readonly places: Database<Buffer, number>;
  /** "synced" → the segment before which the session index needs no repair. */
  readonly meta: Database<number, string>;
}

/**
 * Open a shard's environment. In the process that writes, every open of it uses these same options; other processes
 * open it read-only. No `commitDelay`: with batching by event turn off its timer starts a write of nothing, which faults.
 * `noMemInit` stays off: unused page space would carry fragments of the heap to disk, secrets included.
 */
export function openEnvironment(folder: string, readOnly: boolean): Environment {
  const lock = path.join(folder, "lock.mdb");
  // The lock file is memory-mapped; were it sparse, a full disk would end the process with SIGBUS at its first use.
  if (!readOnly && !fs.existsSync(lock)) fs.writeFileSync(lock, Buffer.alloc(16 * 1024), { mode: 0o600 });
  const root = open({ path: folder, readOnly, maxDbs: 8, mapSize: 64 * 2 ** 30, eventTurnBatching: false });
  const environment: Environment = {
    root,
    sessions: root.openDB({ name: "sessions", encoding: "msgpack" }),
    ids: root.openDB({ name: "ids", encoding: "msgpack" }),
    places: root.openDB({ name: "places", encoding: "binary", keyEncoding: "uint32" }),
    meta: root.openDB({ name: "meta", encoding: "msgpack" }),
  };
  if (!readOnly) for (const name of ["data.mdb", "lock.mdb"]) fs.chmodSync(path.join(folder, name), 0o600);
  return environment;
}
