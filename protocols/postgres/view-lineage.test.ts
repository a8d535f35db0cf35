import assert from "node:assert/strict";
import { test } from "node:test";
import { readTree } from "./node-tree.ts";
import { viewLineage } from "./view-lineage.ts";

/** Trees as servers write them are read in test/views.test.ts; here what no server should write. */

const variable = (range: number, attribute: number, up = 0): string =>
  `{VAR :varno ${range} :varattno ${attribute} :vartype 25 :varlevelsup ${up}}`;
const target = (expression: string, number: number, name = "a", sorted = 0): string =>
  `{TARGETENTRY :expr ${expression} :resno ${number} :resname ${name} :ressortgroupref ${sorted} :resorigtbl 9 :resorigcol 1 :resjunk false}`;
const table = (oid: number): string => `{RANGETBLENTRY :alias <> :rtekind 0 :relid ${oid} :tablesample <>}`;
const query = (targets: string, ranges: string, more = ""): string =>
  `{QUERY :commandType 1 :cteList <> :rtable (${ranges}) :jointree {FROMEXPR :fromlist ({RANGETBLREF :rtindex 1}) :quals <>} :targetList (${targets}) :setOperations <>${more}}`;

const PLAIN = `(${query(target(variable(1, 2), 1), table(20_000))})`;

test("an output that is a column", () => {
  assert.deepEqual(viewLineage(PLAIN), { outputs: [undefined, { oid: 20_000, attribute: 2 }], used: [] });
});

test("names do not become fields or brackets", () => {
  for (const name of [":expr", ":resjunk", "\\{x", "a\\)", "\\<>", '""', "a\\ :expr\\ 1", "\\\\"]) {
    const found = viewLineage(`(${query(target(variable(1, 2), 1, name), table(20_000))})`);
    assert.deepEqual(found?.outputs[1], { oid: 20_000, attribute: 2 }, name);
  }
});

test("what is sorted, swept or somebody's own", () => {
  const used = [{ oid: 20_000, attribute: 2 }];
  assert.deepEqual(viewLineage(`(${query(target(variable(1, 2), 1, "a", 1), table(20_000))})`)?.used, used);
  assert.deepEqual(viewLineage(`(${query(target(`{NEW_IN_A_LATER_VERSION :x (${variable(1, 2)})}`, 1), table(20_000))})`), {
    outputs: [undefined, undefined],
    used,
  });
  assert.deepEqual(viewLineage(`(${query("", table(20_000), ` :newClause ({X :y ${variable(1, 2)}})`)})`)?.used, used);
  assert.ok(viewLineage(`(${query(target(`{FUNCEXPR :funcid 870 :args (${variable(1, 2)})}`, 1), table(20_000))})`));
  for (const field of ["funcid", "opfuncid", "opno", "aggfnoid", "winfnoid"])
    assert.equal(viewLineage(`(${query(target(`{X :${field} 16384 :args <>}`, 1), table(20_000))})`), undefined, field);
});

test("what cannot be told", () => {
  const wrong = [
    "",
    "<>",
    "()",
    PLAIN.slice(1, -1),
    PLAIN.slice(0, -1),
    PLAIN.slice(1),
    `${PLAIN})`,
    `${PLAIN} x`,
    `${PLAIN}\\`,
    `(${PLAIN.slice(1, -1)} ${PLAIN.slice(1, -1)})`,
    PLAIN.replace(":commandType 1", ":commandType 2"),
    PLAIN.replace("{QUERY", "{OTHER"),
    PLAIN.replace(":rtekind 0", ":rtekind 7"),
    PLAIN.replace(":rtekind 0", ":rtekind 99"),
    PLAIN.replace(":rtekind 0", ":rtekind x"),
    PLAIN.replace(":rtekind 0", ":rtekind 1"),
    PLAIN.replace(":rtekind 0", ":rtekind 6"),
    PLAIN.replace(":rtekind 0", ":rtekind 0 :rtekind 0"),
    PLAIN.replace(":relid 20000", ""),
    PLAIN.replace(":varno 1", ":varno 2"),
    PLAIN.replace(":varno 1", ":varno 0"),
    PLAIN.replace(":varno 1", ":varno -1"),
    PLAIN.replace(":varlevelsup 0", ":varlevelsup 1"),
    PLAIN.replace(":varlevelsup 0", ":varlevelsup -1"),
    PLAIN.replace(":resno 1", ":resno <>"),
    PLAIN.replace("TARGETENTRY", "TARGET"),
    `(${query(target(variable(1, 0), 1), `{RANGETBLENTRY :rtekind 1 :subquery ${PLAIN.slice(1, -1)}}`)})`,
    `(${query(target(variable(1, 2), 1), `{RANGETBLENTRY :rtekind 1 :subquery ${PLAIN.slice(1, -1)}}`)})`,
    `${"(".repeat(500)}${")".repeat(500)}`,
  ];
  for (const text of wrong) assert.equal(viewLineage(text), undefined, text.slice(0, 200));
  // A subquery's column is followed where it is there.
  assert.deepEqual(
    viewLineage(`(${query(target(variable(1, 1), 1), `{RANGETBLENTRY :rtekind 1 :subquery ${PLAIN.slice(1, -1)}}`)})`)?.outputs[1],
    { oid: 20_000, attribute: 2 },
  );
});

test("every token of a tree is read, or none", () => {
  assert.deepEqual(readTree('(1 "a b" <> (b 1 2) x\\ y)'), ["1", '"a', 'b"', "<>", ["b", "1", "2"], "x\\ y"]);
});
