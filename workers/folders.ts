import { randomBytes } from "node:crypto";
import { chmodSync, existsSync, linkSync, mkdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import type { Config } from "../core/config/types.ts";
import { SluiceError } from "../core/errors.ts";

/** What a running gateway cannot change. */
export function refuseFixed(before: Config, after: Config): void {
  const changed = [
    ["data", before.data !== after.data],
    ["keys", before.keys !== after.keys],
    ["listeners", JSON.stringify(before.listeners.map(fixedPart)) !== JSON.stringify(after.listeners.map(fixedPart))],
    ["control", JSON.stringify(before.control.listen) !== JSON.stringify(after.control.listen)],
  ].find(([, differs]) => differs);
  if (changed !== undefined)
    throw new SluiceError("SLUICE_CONFIG_INVALID", `${after.file}: ${changed[0]}: cannot be changed while the gateway runs; restart it`);
}

const fixedPart = (listener: Config["listeners"][number]) => ({ protocol: listener.protocol, listen: listener.listen });

/** @throws SluiceError SLUICE_STORE_UNUSABLE */
export function prepareFolder(folder: string, key: string): void {
  try {
    mkdirSync(folder, { recursive: true, mode: 0o700 });
    if (key === "data") chmodSync(folder, 0o700);
  } catch (error) {
    throw new SluiceError(
      "SLUICE_STORE_UNUSABLE",
      `${key}: the folder ${folder} cannot be used: ${error instanceof Error ? error.message : String(error)}`,
      {
        hint: "Check its owner and mode.",
        cause: error,
      },
    );
  }
}

/** The secret of `hash` masks: made once, kept with the signing keys, so that tokens stay the same over restarts. */
export function maskKey(keys: string): Buffer {
  const file = join(keys, "mask.key");
  if (!existsSync(file)) {
    // Whole or not at all, and never over one that another process has just made.
    const draft = join(keys, `.mask.key.${randomBytes(6).toString("hex")}`);
    writeFileSync(draft, randomBytes(32), { mode: 0o600, flag: "wx", flush: true });
    try {
      linkSync(draft, file);
    } catch (error) {
      if (!existsSync(file)) throw error;
    } finally {
      rmSync(draft);
    }
  }
  const key = readFileSync(file);
  if (key.length < 32)
    throw new SluiceError("SLUICE_STORE_UNUSABLE", `${file}: shorter than 32 bytes`, {
      hint: "Restore it from a backup, or delete it to have a new one made (tokens of `hash` masks then change).",
    });
  return key;
}
