import { randomBytes } from "node:crypto";
import fs from "node:fs";
import path from "node:path";

/**
 * Disk space kept back for the records that must be written even when the disk is full: denials, kills and the
 * outcomes of what already runs. Real blocks are written, so that releasing the file frees them.
 */
export class Reserve {
  private readonly file: string;
  private readonly bytes: number;

  constructor(folder: string, bytes: number) {
    this.file = path.join(folder, "reserve");
    this.bytes = bytes;
  }

  /** @returns whether the space is held */
  fill(): boolean {
    if (this.bytes === 0) return true;
    try {
      if (fs.statSync(this.file, { throwIfNoEntry: false })?.size === this.bytes) return true;
      // Not all zeros: a file system that compresses would keep nothing.
      const block = randomBytes(this.bytes);
      fs.writeFileSync(this.file, block, { mode: 0o600 });
      return fs.statSync(this.file).size === this.bytes;
    } catch {
      this.release();
      return false;
    }
  }

  release(): void {
    fs.rmSync(this.file, { force: true });
  }
}
