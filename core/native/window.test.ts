import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import fs from "node:fs";
import os from "node:os";
import path from "node:path";
import { after, before, test } from "node:test";
import { Worker } from "node:worker_threads";
import zlib from "node:zlib";
import { MappedWindow } from "./window.ts";

const WINDOW_BYTES = 64 * 1024;
const { EFBIG, EINVAL, EIO, EBADF, ENOSPC, EOPNOTSUPP } = os.constants.errno;
let folder = "";
before(() => {
  folder = fs.mkdtempSync(path.join(os.tmpdir(), "sluice-window-"));
});
after(() => fs.rmSync(folder, { recursive: true, force: true }));

let files = 0;
function newFile(within = folder): { readonly name: string; readonly fd: number } {
  files += 1;
  const name = path.join(within, `file-${files}`);
  return { name, fd: fs.openSync(name, "wx+") };
}

function opened(): MappedWindow {
  const window = MappedWindow.open();
  assert.ok(window !== undefined, "the addon is not built");
  return window;
}

/** A block as the journal's layout has it, made without the addon. */
function block(payload: Buffer, sequence: number): Buffer {
  const bytes = Buffer.alloc(16 + payload.length);
  bytes.write("SBLK", 0, "latin1");
  bytes.writeUInt32LE(payload.length, 8);
  bytes.writeUInt32LE(sequence, 12);
  payload.copy(bytes, 16);
  bytes.writeUInt32LE(zlib.crc32(bytes.subarray(8)), 4);
  return bytes;
}

const mappings = (name: string): number => fs.readFileSync("/proc/self/maps", "utf8").split(name).length - 1;

test("the file's bytes are those of blocks written with system calls, over many windows and buffers", () => {
  const { name, fd } = newFile();
  const window = opened();
  const expected: Buffer[] = [];
  let position = 0;
  for (let sequence = 0; sequence < 2_000; sequence += 1) {
    const payload = Buffer.alloc(sequence % 997, sequence);
    const start = (sequence % 7) * 5;
    const buffer = Buffer.alloc(start + 16 + payload.length + 3);
    payload.copy(buffer, start + 16);
    const total = 16 + payload.length;
    if (position + total > window.end) assert.equal(window.move(fd, position, WINDOW_BYTES), 0);
    assert.equal(window.append(buffer, start, total, position, sequence), 0);
    const wanted = block(payload, sequence);
    // The journal's digest reads the header from the buffer.
    assert.deepEqual(buffer.subarray(start, start + total), wanted);
    expected.push(wanted);
    position += total;
  }
  const image = fs.readFileSync(name);
  assert.ok(image.length > position && position > 4 * WINDOW_BYTES);
  assert.ok(image.subarray(0, position).equals(Buffer.concat(expected)));
  assert.ok(
    image.subarray(position).every((byte) => byte === 0),
    "zeros behind the end",
  );
  assert.equal(mappings(name), 1, "windows left behind are unmapped");
  // Really allocated, not a hole that needs room later.
  assert.ok(fs.fstatSync(fd).blocks * 512 >= image.length);
  window.release();
  assert.equal(mappings(name), 0);
  fs.closeSync(fd);
});

test("nothing is copied that leaves the buffer or the window", () => {
  const { fd } = newFile();
  const window = opened();
  const buffer = Buffer.alloc(1_024);
  assert.equal(window.append(buffer, 0, 100, 0, 0), EINVAL, "no window yet");
  assert.equal(window.move(fd, 8_192, 4_096), 0);
  assert.equal(window.append(buffer, 0, 100, 8_192, 0), 0);
  for (const [start, total, position] of [
    [0, 15, 8_192],
    [0, 1_025, 8_192],
    [1_000, 25, 8_192],
    [1_025, 16, 8_192],
    [0xffff_ffff, 16, 8_192],
    [16, 0xffff_ffff, 8_192],
    [0, 100, 8_191],
    [0, 100, 0],
    [0, 100, 12_189],
    [0, 100, 0xffff_ffff],
  ] as const)
    assert.equal(window.append(buffer, start, total, position, 0), EINVAL, `${start} ${total} ${position}`);
  window.release();
  assert.equal(window.append(buffer, 0, 100, 8_192, 0), EINVAL, "no window any more");
  assert.throws(() => window.move(-1, 0, 4_096), { code: "ERR_INVALID_ARG_TYPE" });
  assert.throws(() => window.move(fd, 0, 0), { code: "ERR_INVALID_ARG_TYPE" });
  for (const [position, bytes] of [
    [2 ** 32, 4_096],
    [2 ** 52, 4_096],
    [2 ** 32 - 4_096, 8_192],
    [0, 2 ** 31],
  ] as const)
    assert.equal(window.move(fd, position, bytes), EFBIG);
  fs.closeSync(fd);
});

test("a file that cannot be allocated or mapped is told by its errno, and the window stays", () => {
  const { name, fd } = newFile();
  const window = opened();
  assert.equal(window.move(fd, 0, 4_096), 0);
  const readOnly = fs.openSync(name, "r");
  assert.equal(window.move(readOnly, 0, 4_096), EBADF);
  const device = fs.openSync("/dev/null", "r+");
  assert.notEqual(window.move(device, 0, 4_096), 0);
  assert.equal(window.append(Buffer.alloc(16), 0, 16, 0, 0), 0);
  for (const one of [fd, readOnly, device]) fs.closeSync(one);
  window.release();
});

test("a full disk is told when the window is allocated, not when it is written", (context) => {
  const disk = path.join(folder, "disk");
  fs.mkdirSync(disk);
  if (spawnSync("mount", ["-t", "tmpfs", "-o", "size=64k", "tmpfs", disk]).status !== 0) return context.skip("mounting needs privileges");
  try {
    const { fd } = newFile(disk);
    const window = opened();
    assert.equal(window.move(fd, 0, 128 * 1024), ENOSPC);
    assert.equal(window.move(fd, 0, 32 * 1024, 48 * 1024), ENOSPC, "not enough would be left");
    assert.equal(fs.fstatSync(fd).blocks, 0);
    assert.equal(window.move(fd, 0, 32 * 1024), 0);
    const filler = fs.openSync(path.join(disk, "filler"), "w");
    assert.throws(
      () => {
        for (;;) fs.writeSync(filler, Buffer.alloc(4_096, 1));
      },
      { code: "ENOSPC" },
    );
    fs.closeSync(filler);
    for (let at = 0; at < 32 * 1024; at += 1_024) assert.equal(window.append(Buffer.alloc(1_024), 0, 1_024, at, 0), 0);
    window.release();
    fs.closeSync(fd);
  } finally {
    spawnSync("umount", ["-l", disk]);
  }
});

test("a file system that may need more room for what is allocated gets no window", (context) => {
  const base = path.join(folder, "base");
  for (const part of ["base", "base/lower", "base/upper"]) fs.mkdirSync(path.join(folder, part));
  const mount = (...argv: string[]): boolean => spawnSync("mount", argv).status === 0;
  // An overlay's upper folder must not be on an overlay itself.
  const upper = path.join(base, "upper");
  if (!mount("-t", "tmpfs", "tmpfs", upper)) return context.skip("mounting needs privileges");
  try {
    for (const part of ["files", "work", "seen"]) fs.mkdirSync(path.join(upper, part));
    const seen = path.join(upper, "seen");
    const options = `lowerdir=${path.join(base, "lower")},upperdir=${path.join(upper, "files")},workdir=${path.join(upper, "work")}`;
    if (!mount("-t", "overlay", "-o", options, "overlay", seen)) return context.skip("no overlay file system");
    const { fd } = newFile(seen);
    assert.equal(opened().move(fd, 0, WINDOW_BYTES), EOPNOTSUPP);
    assert.equal(fs.fstatSync(fd).size, 0);
    fs.closeSync(fd);
    spawnSync("umount", ["-l", seen]);
  } finally {
    spawnSync("umount", ["-l", upper]);
  }
});

test("a file that somebody cuts under the window fails the append; the process lives on", () => {
  const { name, fd } = newFile();
  const window = opened();
  const buffer = Buffer.alloc(10_000, 1);
  assert.equal(window.move(fd, 0, WINDOW_BYTES), 0);
  assert.equal(window.append(buffer, 0, 100, 0, 0), 0);
  fs.truncateSync(name, 100);
  for (let time = 0; time < 3; time += 1) assert.equal(window.append(buffer, 0, 10_000, 8_000, 1), EIO);
  assert.equal(window.move(fd, 100, WINDOW_BYTES), 0);
  assert.equal(window.append(buffer, 0, 10_000, 100, 1), 0);
  window.release();
  fs.closeSync(fd);
});

test("a file that somebody cuts within the page being written fails the append as well, though nothing faults", () => {
  const { name, fd } = newFile();
  const window = opened();
  const buffer = Buffer.alloc(200, 1);
  assert.equal(window.move(fd, 0, WINDOW_BYTES), 0);
  for (const position of [0, 200]) assert.equal(window.append(buffer, 0, 200, position, position / 200), 0);
  for (const size of [400, 599, 600]) {
    fs.truncateSync(name, size);
    assert.equal(window.append(buffer, 0, 200, 400, 2), EIO);
  }
  assert.equal(window.move(fd, 400, WINDOW_BYTES), 0);
  assert.equal(fs.readFileSync(name).readUInt32LE(400), 0, "what was refused has no header, should the file grow again");
  assert.equal(window.append(buffer, 0, 200, 400, 2), 0);
  // Up to the window's last byte: the page that tells is one more.
  fs.truncateSync(name, 400 + WINDOW_BYTES - 1);
  assert.equal(window.append(buffer, 0, 200, 400 + WINDOW_BYTES - 200, 3), EIO);
  window.release();
  fs.closeSync(fd);
});

test("any other SIGBUS ends the process as before", () => {
  const program = `
    const { MappedWindow } = await import(${JSON.stringify(path.join(import.meta.dirname, "window.ts"))});
    if (MappedWindow.open() === undefined) process.exit(1);
    process.kill(process.pid, "SIGBUS");
    setTimeout(() => {}, 10_000);`;
  const run = spawnSync(process.execPath, ["--input-type=module", "-e", program], { timeout: 20_000 });
  assert.equal(run.signal, "SIGBUS");
});

test("a worker that is terminated leaves no mapping behind", async () => {
  const { name, fd } = newFile();
  const program = `
    const { parentPort } = require("node:worker_threads");
    import(${JSON.stringify(path.join(import.meta.dirname, "window.ts"))}).then(({ MappedWindow }) => {
      globalThis.window = MappedWindow.open();
      parentPort.postMessage(globalThis.window.move(${fd}, 0, 65536));
      setInterval(() => {}, 1000);
    });`;
  const worker = new Worker(program, { eval: true });
  const answer = await new Promise((resolve, reject) => {
    worker.once("message", resolve);
    worker.once("error", reject);
  });
  assert.equal(answer, 0);
  assert.equal(mappings(name), 1);
  await worker.terminate();
  assert.equal(mappings(name), 0);
  fs.closeSync(fd);
});
