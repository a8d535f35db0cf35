import assert from "node:assert/strict";
import fs from "node:fs";
import os from "node:os";
import path from "node:path";
import { test } from "node:test";
import { loadJournal } from "./addons.ts";
import { alignedBuffer, setDirect } from "./direct.ts";

test("aligned memory begins where it has to, is as long as it has to be, and is nobody else's", () => {
  const buffers = Array.from({ length: 50 }, (_, index) => alignedBuffer(1 + index * 997, 4_096));
  for (const [index, buffer] of buffers.entries()) {
    assert.equal(buffer.length, 1 + index * 997);
    assert.equal(loadJournal().misalignment(buffer, 4_096), 0);
    buffer.fill(index);
  }
  for (const [index, buffer] of buffers.entries()) assert.ok(buffer.every((byte) => byte === index));
  const one = alignedBuffer(100, 4_096);
  assert.equal(loadJournal().misalignment(one.subarray(7), 4_096), 7);
});

test("a descriptor is made direct and undone, and its other flags stay; what is no open descriptor is refused", () => {
  const folder = fs.mkdtempSync(path.join(os.tmpdir(), "sluice-direct-"));
  try {
    const fd = fs.openSync(path.join(folder, "file"), fs.constants.O_CREAT | fs.constants.O_WRONLY | fs.constants.O_APPEND);
    const flags = (): number =>
      Number.parseInt(/^flags:\s*([0-7]+)$/m.exec(fs.readFileSync(`/proc/self/fdinfo/${fd}`, "latin1"))?.[1] ?? "", 8);
    const before = flags();
    const is = setDirect(fd, true);
    assert.equal(flags(), is ? before | fs.constants.O_DIRECT : before);
    assert.equal(setDirect(fd, false), true);
    assert.equal(flags(), before);
    fs.closeSync(fd);
    assert.equal(setDirect(fd, true), false);
  } finally {
    fs.rmSync(folder, { recursive: true });
  }
});

test("arguments of another kind are refused", () => {
  const { direct, misalignment } = loadJournal();
  assert.throws(() => direct(-1, true), /descriptor/);
  assert.throws(() => (direct as (fd: number) => number)(0), /descriptor/);
  assert.throws(() => direct(0, 1 as unknown as boolean), /whether/);
  assert.throws(() => misalignment(new Uint16Array(1) as unknown as Uint8Array, 1), /bytes/);
  assert.throws(() => misalignment(new Uint8Array(1), 0), /unit/);
});
