import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import path from "node:path";
import { before, test } from "node:test";
import { addonFolder, buildNative } from "./build.ts";

const HEAP = path.join(addonFolder(), "sluice_heap.node");
before(() => buildNative({ quiet: true }));

interface Run {
  readonly command?: string;
  readonly args: readonly string[];
  readonly preload?: string;
}

/** What a program says that has the library loaded into it, as JSON. */
function preloaded({ command = process.execPath, args, preload = HEAP }: Run): unknown {
  const { status, signal, stdout, stderr } = spawnSync(command, args, {
    encoding: "utf8",
    timeout: 60_000,
    env: { ...process.env, LD_PRELOAD: preload },
  });
  assert.equal(status, 0, `${signal ?? status}: ${stderr}`);
  assert.equal(stderr, "");
  return JSON.parse(stdout);
}

/** Python calls mmap and munmap by name, so its calls come by the library; it is needed to build it anyway. `python3` may be a script that starts it. */
function python(script: string): unknown {
  return preloaded({ command: pythonCommand(), args: ["-c", `${PYTHON}\n${script}`] });
}

const pythonCommand = (): string =>
  spawnSync("python3", ["-c", "import sys; print(sys.executable)"], { encoding: "utf8", timeout: 20_000 }).stdout.trim();

const PYTHON = `
import ctypes, json, threading
libc = ctypes.CDLL(None, use_errno=True)
libc.mmap64.restype = ctypes.c_void_p
libc.mmap64.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int, ctypes.c_int, ctypes.c_int, ctypes.c_long]
libc.munmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t]
libc.mprotect.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]
CHUNK, REQUEST, BLOCK, HINT = 256 << 10, (512 << 10) - 4096, 2 << 20, 0x123456780000
def ask(length=REQUEST, hint=HINT, protection=3, flags=0x22):
    return libc.mmap64(hint, length, protection, flags, -1, 0)
def chunk():
    at = ask()
    assert libc.munmap(at + CHUNK, REQUEST - CHUNK) == 0
    return at
def resident(at, length):
    with open("/proc/self/pagemap", "rb") as entries:
        entries.seek(at // 4096 * 8)
        data = entries.read(length // 4096 * 8)
    return 4096 * sum(1 for k in range(7, len(data), 8) if data[k] & 0x80)
`;

test("chunks lie beside one another, from the beginning of a block; what a program asks for otherwise is the kernel's", () => {
  const said = python(`
at = [chunk() for _ in range(20)]
for k, a in enumerate(at): ctypes.memset(a, k + 1, CHUNK)
kept = all(ctypes.string_at(a, CHUNK) == bytes([k + 1]) * CHUNK for k, a in enumerate(at))
others = [ask(length=CHUNK), ask(hint=None), ask(hint=HINT + 4096), ask(protection=0), ask(length=REQUEST + 4096), ask(flags=0x21), ask(flags=0x32)]
back = [libc.munmap(a, n) for a, n in zip(others, (CHUNK, REQUEST, REQUEST, REQUEST, REQUEST + 4096, REQUEST, REQUEST))]
print(json.dumps({"steps": [b - a for a, b in zip(at, at[1:])], "aligned": at[0] % BLOCK, "kept": kept, "back": back,
  "within": sum(at[0] <= a < at[0] + (16 << 30) for a in others)}))`);
  assert.deepEqual(said, { steps: Array(19).fill(256 * 1024), aligned: 0, kept: true, back: [0, 0, 0, 0, 0, 0, 0], within: 0 });
});

test("a chunk that is given back is not resident, is the next that is taken, and comes as zeros, also when its end had been cut off, it was read-only or locked", () => {
  const said = python(`
at = [chunk() for _ in range(24)]
for a in at: ctypes.memset(a, 255, CHUNK)
before = resident(at[0], 24 * CHUNK)
assert libc.munmap(at[9] + CHUNK - 8192, 8192) == 0
assert libc.mprotect(at[9], CHUNK - 8192, 1) == 0
assert libc.munmap(at[9], CHUNK - 8192) == 0
assert libc.munmap(at[3], CHUNK) == 0
assert libc.munmap(at[3], CHUNK) == 0
after = resident(at[0], 24 * CHUNK)
assert libc.mlock(ctypes.c_void_p(at[12] + 4096), 4096) == 0
assert libc.munmap(at[12], CHUNK) == 0
again = [chunk(), chunk(), chunk(), chunk()]
zeros = all(ctypes.string_at(a, CHUNK) == bytes(CHUNK) for a in again)
for a in again: ctypes.memset(a, 1, CHUNK)
rest = all(ctypes.string_at(a, CHUNK) == b"\\xff" * CHUNK for k, a in enumerate(at) if k not in (3, 9, 12))
assert libc.munlock(ctypes.c_void_p(at[12] + 4096), 4096) == 0
for a in at: libc.munmap(a, CHUNK)
print(json.dumps({"freed": before - after, "again": [again[0] == at[3], again[1] == at[9], again[2] == at[12], again[3] == at[23] + CHUNK], "zeros": zeros, "rest": rest,
  "left": resident(at[0], 24 * CHUNK)}))`);
  assert.deepEqual(said, { freed: 2 * 256 * 1024, again: [true, true, true, true], zeros: true, rest: true, left: 0 });
});

test("a block of which a chunk was given back is none for large pages until it is whole again, or empty", (context) => {
  const said = python(`
libc.madvise.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]
def advised(at):
    inside = False
    for line in open("/proc/self/smaps"):
        words = line.split()
        if "-" in words[0] and not words[0].endswith(":"):
            first, end = (int(part, 16) for part in words[0].split("-"))
            inside = first <= at < end
        elif inside and words[0] == "AnonHugePages:": large = int(words[1])
        elif inside and words[0] == "VmFlags:": return ["hg" if "hg" in words else "nh" if "nh" in words else "", large]
at = [chunk() for _ in range(24)]
for a in at: ctypes.memset(a, 1, CHUNK)
steps, whole_before = [advised(at[8])[0]], advised(at[8])[1]
libc.munmap(at[9], CHUNK)
libc.munmap(at[10], CHUNK)
steps += [advised(at[8])[0], advised(at[0])[0]]
ctypes.memset(chunk(), 1, CHUNK)
steps += [advised(at[8])[0]]
ctypes.memset(chunk(), 1, CHUNK)
steps += [advised(at[8])[0]]
collapsed = advised(at[8])[1] == whole_before
# Whether the kernel can do that at all.
other = ask(length=2 * BLOCK, hint=None)
whole = -(-other // BLOCK) * BLOCK
libc.madvise(whole, BLOCK, 15)
ctypes.memset(whole, 1, BLOCK)
libc.madvise(whole, BLOCK, 14)
can = libc.madvise(whole, BLOCK, 25) == 0
for a in at[8:16]: libc.munmap(a, CHUNK)
print(json.dumps([steps + [advised(at[8])[0]], collapsed or not can]))`);
  if ((said as [string[]])[0][0] === "") return context.skip("the kernel has no large pages");
  assert.deepEqual(said, [["hg", "nh", "hg", "nh", "hg", "hg"], true]);
});

test("where all chunks are taken, the kernel gives others, and what lies behind the last one stays as it is", () => {
  const said = python(`
at = [chunk() for _ in range((16 << 30) // CHUNK)]
behind = at[-1] + CHUNK
# Had it been unmapped, this would get the address.
taken = libc.mmap64(behind, REQUEST - CHUNK, 3, 0x100022, -1, 0)
libc.munmap(at[-1], CHUNK)
again = chunk()
other = ask()
print(json.dumps({"first": (at[-1] - at[0]) // CHUNK, "refused": taken == 2 ** 64 - 1, "again": again == at[-1],
  "outside": not at[0] <= other < behind, "back": libc.munmap(other, REQUEST)}))`);
  assert.deepEqual(said, { first: 65535, refused: true, again: true, outside: true, back: 0 });
});

test("of a large page that is given back in part the system has the memory", () => {
  // Global counters: of 100 pages nearly all count here, or hardly any.
  const said = python(`
def counter(name):
    return sum(int(line.split()[1]) for line in open("/proc/vmstat") if line.split()[0] == name)
at = [chunk() for _ in range(800)]
for a in at: ctypes.memset(a, 1, CHUNK)
before = counter("thp_deferred_split_page")
for k, a in enumerate(at):
    if k % 8 != 0: libc.munmap(a, CHUNK)
print(json.dumps(counter("thp_deferred_split_page") - before < 50))`);
  assert.equal(said, true);
});

test("a chunk that cannot be made writable again is not given to anybody", () => {
  const said = python(`
import resource
at = [chunk() for _ in range(3)]
ctypes.memset(at[0], 1, CHUNK)
assert libc.mprotect(at[0], CHUNK, 1) == 0
limits = resource.getrlimit(resource.RLIMIT_DATA)
resource.setrlimit(resource.RLIMIT_DATA, (4096, limits[1]))
back = libc.munmap(at[0], CHUNK)
resource.setrlimit(resource.RLIMIT_DATA, limits)
left = resident(at[0], CHUNK)
again = chunk()
ctypes.memset(again, 1, CHUNK)
print(json.dumps({"back": back, "left": left, "next": again == at[2] + CHUNK}))`);
  assert.deepEqual(said, { back: 0, left: 0, next: true });
});

test("where addresses are limited, there is no span", () => {
  const script = `ulimit -v 33554432 && exec env LD_PRELOAD="$1" "$2" -c '
print(sum(1 for line in open("/proc/self/maps") if int(line.split()[0].split("-")[1], 16) - int(line.split()[0].split("-")[0], 16) > 1 << 30))'`;
  const { stdout, stderr } = spawnSync("sh", ["-c", script, "sh", HEAP, pythonCommand()], { encoding: "utf8", timeout: 60_000 });
  assert.deepEqual([stdout, stderr], ["0\n", ""]);
});

test("threads get chunks of their own", () => {
  const said = python(`
taken, failed = [], []
def work(mark):
    mine = []
    for turn in range(300):
        a = chunk(); ctypes.memset(a, mark, 4096); mine.append(a)
        if turn % 3 == 2:
            b = mine.pop(turn % len(mine))
            if ctypes.string_at(b, 4096) != bytes([mark]) * 4096: failed.append(b)
            libc.munmap(b, CHUNK)
    taken.extend(mine)
threads = [threading.Thread(target=work, args=(k + 1,)) for k in range(4)]
for t in threads: t.start()
for t in threads: t.join()
print(json.dumps({"taken": len(taken), "different": len(set(taken)), "failed": len(failed)}))`);
  assert.deepEqual(said, { taken: 800, different: 800, failed: 0 });
});

test("V8's heap is there, of workers too, and is what was stored in it", () => {
  const script = `
    const { Worker } = require("node:worker_threads");
    const fill = (turn) => Array.from({ length: 300_000 }, (_, k) => ({ k, text: "t" + turn + k }));
    const wrong = (all, turn) => all.filter(({ k, text }, at) => k !== at || text !== "t" + turn + k).length;
    const start = () => new Promise((resolve) => {
      const worker = new Worker(\`
        const fill = \${fill}, wrong = \${wrong};
        let sum = 0;
        for (let turn = 0; turn < 3; turn++) sum += wrong(fill(turn), turn);
        require("node:worker_threads").parentPort.postMessage(sum);\`, { eval: true });
      worker.once("message", (sum) => worker.terminate().then(() => resolve(sum)));
    });
    (async () => {
      const kept = fill(7);
      let sum = 0;
      for (let turn = 0; turn < 3; turn++) {
        for (const each of await Promise.all([start(), start()])) sum += each;
        globalThis.gc();
        sum += wrong(kept, 7);
      }
      const scattered = require("node:fs").readFileSync("/proc/self/maps", "utf8").split("\\n").filter((line) => {
        const [from, to] = line.split(" ")[0].split("-").map((part) => parseInt(part, 16));
        return to - from === 256 * 1024 && line.includes(" rw-p 00000000 00:00 0");
      }).length;
      console.log(JSON.stringify({ sum, scattered: scattered > 10 }));
    })();`;
  const args = ["--expose-gc", "-e", script];
  assert.deepEqual(preloaded({ args }), { sum: 0, scattered: false });
  // The kernel lays other things of that size beside one another, so a few may look like it; without the library there are many more.
  assert.deepEqual(preloaded({ args, preload: "" }), { sum: 0, scattered: true });
});

test("V8's code range is advised to have large pages", (context) => {
  const script = `
    let size = 0, advised = 0;
    for (const line of require("node:fs").readFileSync("/proc/self/smaps", "utf8").split("\\n")) {
      if (line.startsWith("Size:")) size = parseInt(line.slice(5)) / 1024;
      if (line.startsWith("VmFlags:") && / hg( |$)/.test(line)) advised += size;
    }
    console.log(JSON.stringify(advised / 1024));`;
  const gibibytes = preloaded({ args: ["-e", script] }) as number;
  if (gibibytes === 0) return context.skip("the kernel has no large pages");
  assert.ok(gibibytes > 16.25, `${gibibytes} GiB are advised`);
});

test("programs that it starts do not have it, but what else was to be preloaded", () => {
  const says = [
    "-p",
    `JSON.stringify([process.env.LD_PRELOAD ?? null, require("node:fs").readFileSync("/proc/self/maps", "utf8").includes("sluice_heap")])`,
  ];
  assert.deepEqual(preloaded({ args: says }), [null, true]);
  assert.deepEqual(preloaded({ args: says, preload: `libm.so.6:${HEAP}` }), ["libm.so.6", true]);
});
