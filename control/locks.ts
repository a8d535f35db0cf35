import { randomBytes } from "node:crypto";
import { closeSync, fchmodSync, fsyncSync, openSync, readFileSync, renameSync, statSync, writeSync } from "node:fs";
import { join } from "node:path";
import { SluiceError } from "../core/errors.ts";
import { formatSubject, type Known, parseSubject } from "./subjects.ts";
import type { Lock } from "./types.ts";

export const LOCK_FILE = "locks.json";
const MAX_LOCKS = 10_000;
const MAX_FILE_BYTES = 16 * 1024 * 1024;
const MAX_REASON_CHARACTERS = 1_000;

/**
 * The kill switch's memory: locks in `<data>/locks.json`. Changes are on disk (fsync of file and folder, atomic rename)
 * before a call returns. Used by the main thread only; calls block it for one small write.
 */
export interface LockStore {
  /** Locks in force, oldest first. */
  list(nowMillis?: number): readonly Lock[];
  /**
   * @param known names of the configured issuers, the default first, and of the targets
   * @throws SluiceError SLUICE_SUBJECT_INVALID, SLUICE_LIMIT_EXCEEDED, SLUICE_RECORD_FAILED (nothing changed)
   */
  add(lock: Omit<Lock, "id" | "createdMillis">, known: Known): Lock;
  /** The removed lock, or undefined when there was none. @throws SluiceError SLUICE_RECORD_FAILED */
  remove(id: string): Lock | undefined;
}

/**
 * @param dataFolder absolute; exists
 * @throws SluiceError SLUICE_STORE_UNUSABLE when the file cannot be read or understood: starting without the locks would open what somebody closed
 */
export function openLocks(dataFolder: string, now: () => number = Date.now): LockStore {
  const file = join(dataFolder, LOCK_FILE);
  let locks = read(file);
  const inForce = (nowMillis: number): Lock[] => locks.filter((lock) => lock.expiresMillis === undefined || nowMillis < lock.expiresMillis);

  return {
    list: (nowMillis = now()) => inForce(nowMillis),
    add(request, known) {
      const kept = inForce(now());
      if (kept.length >= MAX_LOCKS)
        throw new SluiceError("SLUICE_LIMIT_EXCEEDED", `there are already ${MAX_LOCKS} locks`, { hint: "Remove some, or lock a group." });
      const lock: Lock = Object.freeze({
        id: `lock-${randomBytes(6).toString("hex")}`,
        subject: formatSubject(parseSubject(request.subject, known)),
        reason: request.reason.slice(0, MAX_REASON_CHARACTERS),
        by: request.by,
        createdMillis: now(),
        expiresMillis: request.expiresMillis,
      });
      const next = [...kept, lock];
      write(dataFolder, file, next);
      locks = next;
      return lock;
    },
    remove(id) {
      const found = locks.find((lock) => lock.id === id);
      if (found === undefined) return undefined;
      const next = inForce(now()).filter((lock) => lock.id !== id);
      write(dataFolder, file, next);
      locks = next;
      return found;
    },
  };
}

function read(file: string): readonly Lock[] {
  let text: string;
  try {
    if (statSync(file).size > MAX_FILE_BYTES) throw unusable(file, `is larger than ${MAX_FILE_BYTES} bytes`);
    text = readFileSync(file, "utf8");
  } catch (thrown) {
    if ((thrown as NodeJS.ErrnoException).code === "ENOENT") return [];
    if (thrown instanceof SluiceError) throw thrown;
    throw unusable(file, `cannot be read (${(thrown as NodeJS.ErrnoException).code ?? "unknown error"})`);
  }
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch {
    throw unusable(file, "is not JSON");
  }
  const { version, locks } = (value ?? {}) as { version?: unknown; locks?: unknown };
  if (version !== 1 || !Array.isArray(locks)) throw unusable(file, "is not a list of locks of version 1");
  return locks.map((lock, index) => {
    if (!isLock(lock)) throw unusable(file, `has a malformed lock at position ${index + 1}`);
    return Object.freeze({ ...lock, expiresMillis: lock.expiresMillis ?? undefined });
  });
}

function isLock(value: unknown): value is Lock {
  if (typeof value !== "object" || value === null) return false;
  const { id, subject, reason, by, createdMillis, expiresMillis } = value as Record<string, unknown>;
  return (
    typeof id === "string" &&
    typeof subject === "string" &&
    /^(user|group|target|session|issuer|label):./.test(subject) &&
    typeof reason === "string" &&
    typeof by === "string" &&
    Number.isFinite(createdMillis) &&
    (expiresMillis === undefined || expiresMillis === null || Number.isFinite(expiresMillis))
  );
}

const unusable = (file: string, what: string): SluiceError =>
  new SluiceError("SLUICE_STORE_UNUSABLE", `the lock file ${file} ${what}`, {
    hint: "Repair it from a backup, or delete it if no lock must stay in force.",
  });

function write(folder: string, file: string, locks: readonly Lock[]): void {
  const temporary = `${file}.tmp`;
  try {
    const fd = openSync(temporary, "w", 0o600);
    try {
      // An old temporary file may have had another mode.
      fchmodSync(fd, 0o600);
      const bytes = Buffer.from(`${JSON.stringify({ version: 1, locks }, undefined, 2)}\n`);
      let written = 0;
      while (written < bytes.length) written += writeSync(fd, bytes, written);
      fsyncSync(fd);
    } finally {
      closeSync(fd);
    }
    renameSync(temporary, file);
    const directory = openSync(folder, "r");
    try {
      fsyncSync(directory);
    } finally {
      closeSync(directory);
    }
  } catch (thrown) {
    throw new SluiceError(
      "SLUICE_RECORD_FAILED",
      `the lock file ${file} cannot be written (${(thrown as NodeJS.ErrnoException).code ?? "unknown error"}); nothing was changed`,
      {
        hint: "Check free space and permissions of the data folder.",
        cause: thrown,
      },
    );
  }
}
