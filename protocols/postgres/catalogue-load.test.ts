import assert from "node:assert/strict";
import { test } from "node:test";
import { relationOf } from "./catalogue-load.ts";

test("columns stand at their numbers, with gaps where columns were dropped", () => {
  const names = new Map<string, string>();
  const relation = relationOf(["16384", "public", "notes", "r", '[[1,"id"],[3,"text"]]'], names);
  assert.deepEqual(relation, { oid: 16_384, schema: "public", name: "notes", kind: "r", columns: [undefined, "id", undefined, "text"] });
  assert.deepEqual(relationOf(["7", "s", "none", "v", null], names).columns, []);
  assert.deepEqual([...names.keys()], ["id", "text"]);
});

test("what no server answers is refused before anything is allocated for it", () => {
  const rows: (string | null)[][] = [
    ["16384", "public", "t", "r", '[[1,"a"]'],
    ["16384", "public", "t", "r", '{"1":"a"}'],
    ["16384", "public", "t", "r", '[[1000000000000,"a"]]'],
    ["16384", "public", "t", "r", '[[-1,"a"]]'],
    ["16384", "public", "t", "r", '[[1.5,"a"]]'],
    ["16384", "public", "t", "r", "[[1,7]]"],
    ["16384", "public", "t", "r", "[null]"],
    ["x", "public", "t", "r", null],
    [null, "public", "t", "r", null],
    ["16384", "public"],
    [],
  ];
  for (const row of rows) assert.throws(() => relationOf(row, new Map()), { code: "SLUICE_TARGET_REFUSED" }, JSON.stringify(row));
});
