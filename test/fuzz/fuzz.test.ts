import assert from "node:assert/strict";
import { join } from "node:path";
import { describe, it } from "node:test";
import { nodeBinary, run } from "../helpers/processes.ts";
import { Random } from "./random.ts";

const fuzz = (...flags: string[]) => run(nodeBinary, [join(import.meta.dirname, "fuzz.ts"), ...flags], { timeoutMillis: 40_000 });

describe("fuzzing the parsers", () => {
  it("gives the same numbers for the same seed", () => {
    const [a, b, c] = [new Random(5), new Random(5), new Random(6)];
    const row = (random: Random) => Array.from({ length: 20 }, () => random.next());
    const first = row(a as Random);
    assert.deepEqual(row(b as Random), first);
    assert.notDeepEqual(row(c as Random), first);
  });

  for (const canary of ["canary-framer", "canary-bind", "canary-proxy-header"]) {
    it(`finds a planted bug (${canary}), and finds it again by its seed`, async () => {
      const { code, stdout } = await fuzz("--canary", "--target", canary, "--seconds", "20");
      assert.equal(code, 1, stdout);
      const seed = new RegExp(`FOUND ${canary} --seed (\\d+): `).exec(stdout)?.[1];
      assert.ok(seed !== undefined, stdout);
      assert.equal((await fuzz("--canary", "--target", canary, "--seed", seed, "--once")).code, 1);
    });
  }

  it("finds nothing in five seconds", async () => {
    const { code, stdout, stderr } = await fuzz("--seconds", "5", "--seed", "20260101");
    assert.equal(code, 0, stdout + stderr);
    for (const count of stdout
      .trim()
      .split("\n")
      .at(-1)
      ?.match(/\d+(?= runs|,)/g) ?? [])
      assert.ok(Number(count) >= 0);
    const runs = [...stdout.matchAll(/(framer|bind|proxy-header|rows|copy|errors|classifier|startup) (\d+)/g)];
    assert.equal(new Set(runs.map((match) => match[1])).size, 8, stdout);
    for (const [, name, count] of runs) assert.ok(Number(count) > 20, `${name} ran ${count} times only`);
  });
});
