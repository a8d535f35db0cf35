import assert from "node:assert/strict";
import { test } from "node:test";
import { relationOf } from "./catalogue-load.ts";

test("columns stand at their numbers, with gaps where columns were dropped", () => {
  const names = new Map<string, string>();
  const relation = relationOf(["16384", "public", "notes", "r", '[[1,"id",23,false],[3,"text",25,true]]'], names);
  assert.deepEqual(relation, {
    oid: 16_384,
    schema: "public",
    name: "notes",
    kind: "r",
    columns: [undefined, "id", undefined, "text"],
    types: new Uint32Array([0, 23, 0, 25]),
    generated: [3],
  });
  assert.deepEqual(relationOf(["7", "s", "none", "v", null], names).columns, []);
  assert.deepEqual([...names.keys()], ["id", "text"]);
});

test("what no server answers is refused before anything is allocated for it", () => {
  const rows: (string | null)[][] = [
    ["16384", "public", "t", "r", '[[1,"a",25,false]'],
    ["16384", "public", "t", "r", '{"1":"a"}'],
    ["16384", "public", "t", "r", '[[1000000000000,"a",25,false]]'],
    ["16384", "public", "t", "r", '[[-1,"a",25,false]]'],
    ["16384", "public", "t", "r", '[[1.5,"a",25,false]]'],
    ["16384", "public", "t", "r", "[[1,7,25,false]]"],
    ["16384", "public", "t", "r", '[[1,"a"]]'],
    ["16384", "public", "t", "r", '[[1,"a",-1,false]]'],
    ["16384", "public", "t", "r", '[[1,"a",4294967296,false]]'],
    ["16384", "public", "t", "r", '[[1,"a",25,0]]'],
    ["16384", "public", "t", "r", "[null]"],
    ["x", "public", "t", "r", null],
    [null, "public", "t", "r", null],
    ["16384", "public"],
    [],
  ];
  for (const row of rows) assert.throws(() => relationOf(row, new Map()), { code: "SLUICE_TARGET_REFUSED" }, JSON.stringify(row));
});
