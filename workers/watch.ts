import { type FSWatcher, watch } from "node:fs";
import { basename, dirname } from "node:path";

/** Changes of watched files are collected this long before they are told. */
const SETTLE_MILLIS = 150;

/** Editors replace files and configuration management swaps links: the folders are watched, not the files. */
export class FileWatch {
  readonly #changed: () => void;
  readonly #trouble: (folder: string, message: string) => void;
  readonly #watchers: FSWatcher[] = [];
  #settle: NodeJS.Timeout | undefined;
  #ready = false;
  #missed = false;

  /** @param changed called once for changes that come close together, not before ready() */
  constructor(changed: () => void, trouble: (folder: string, message: string) => void) {
    this.#changed = changed;
    this.#trouble = trouble;
  }

  /** Watch these files, and no others any more. */
  follow(files: readonly string[]): void {
    for (const watcher of this.#watchers.splice(0)) watcher.close();
    const byFolder = new Map<string, Set<string>>();
    for (const file of files) {
      const names = byFolder.get(dirname(file)) ?? new Set();
      names.add(basename(file));
      byFolder.set(dirname(file), names);
    }
    for (const [folder, names] of byFolder) {
      try {
        const watcher = watch(folder, { persistent: false }, (_event, name) => {
          if (name === null || names.has(name) || name.startsWith("..")) this.#noticed();
        });
        watcher.on("error", (error) => this.#trouble(folder, `changes in this folder are no longer noticed: ${error.message}`));
        this.#watchers.push(watcher);
      } catch (error) {
        const why = error instanceof Error ? error.message : String(error);
        this.#trouble(folder, `changes in this folder are not noticed (use SIGHUP): ${why}`);
      }
    }
  }

  /** From here on changes are told; what changed since follow() is told now. */
  ready(): void {
    this.#ready = true;
    if (this.#missed) this.#noticed();
  }

  close(): void {
    for (const watcher of this.#watchers.splice(0)) watcher.close();
    clearTimeout(this.#settle);
    this.#ready = false;
  }

  #noticed(): void {
    this.#missed = true;
    clearTimeout(this.#settle);
    if (this.#ready) this.#settle = setTimeout(() => this.#tell(), SETTLE_MILLIS);
  }

  #tell(): void {
    this.#missed = false;
    this.#changed();
  }
}
