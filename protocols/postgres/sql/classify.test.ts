import assert from "node:assert/strict";
import { after, before, test } from "node:test";
import fc from "fast-check";
import { LIMITS } from "../../../core/limits.ts";
import { createClassifier } from "./classify.ts";
import type { Classified, Classifier } from "./types.ts";

const encoder = new TextEncoder();
let classifier: Classifier;
before(async () => {
  classifier = await createClassifier();
});
after(() => classifier.close());

function classify(sql: string, by = classifier): Classified | Promise<Classified> {
  const bytes = encoder.encode(`xx${sql}yy`);
  return by.classify(bytes, 2, bytes.length - 2);
}

test("a second text of the same shape is the same object; other literals in other positions are not", async () => {
  const same: [string, string][] = [
    [
      "SELECT abalance FROM pgbench_accounts WHERE aid = 12345;",
      "SELECT abalance  FROM pgbench_accounts /* x */ WHERE aid = 7 ; ".replace(" ;", ";"),
    ],
    ["update t set a = a + 5 where b = 'x'", "update t set a = a + 77 where b = 'yyy''y'"],
    ["update t set a = a + -5 where b = -1", "update t set a = a + -77 where b = -12"],
    ["insert into t values (1, 'a', -2), (3, 'b', -4)", "insert into t values (5, '', -6), (7, 'x', -8)"],
    ["select * from t where a in (1, 2) limit 5 offset 6", "select * from t where a in (3, 4) limit 7 offset 8"],
    ["select * from t where a between 1 and 2 and b like 'x%'", "select * from t where a between 3 and 4 and b like '%y'"],
    ["select a from t where b = E'x' order by 1", "select a from t where b = E'\\'' order by 1"],
    ["select lower('X') from t where a = 1", "select lower('X') from t where a = 2"],
  ];
  for (const [one, two] of same) assert.equal(await classify(one), await classify(two), `${one} | ${two}`);
  const different: [string, string][] = [
    ["select a, b from t order by 1", "select a, b from t order by 2"],
    ["select a, b from t group by 1", "select a, b from t group by 2"],
    ["select set_config('search_path', 'a', false)", "select set_config('search_path', 'b', false)"],
    ["explain (analyze 0) delete from t", "explain (analyze 1) delete from t"],
    ["set work_mem = 1", "set work_mem = 2"],
    ["select f(1)", "select f(2)"],
    ["select '1'::regclass", "select '2'::regclass"],
    ["select a from t where a::regclass = 'x'", "select a from t where a::regclass = 'y'"],
    ["select a::varchar(5) from t", "select a::varchar(6) from t"],
    ["select a from t where b = 1", "select a from t where b = '1'"],
    ["select a from t where b = 1", "select a from t where b = 1.0"],
    ["select a from t where b = 'x'", "select a from t where b = E'x'"],
    ["select nextval('a')", "select nextval('b')"],
    ["copy t to stdout (header 0)", "copy t to stdout (header 1)"],
  ];
  for (const [one, two] of different) assert.notEqual(await classify(one), await classify(two), `${one} | ${two}`);
});

test("a statement that is sent again is known by its bytes, and means the same", async () => {
  const known = (sql: string): Classified | undefined => {
    const bytes = encoder.encode(`'1${sql}'1`);
    return classifier.known(bytes, 2, bytes.length - 2);
  };
  // Another text may have been the first of its shape, and others of its slot have to be seen off.
  const often = async (sql: string): Promise<Classified> => {
    for (let i = 0; i < 12; i += 1) await classify(sql);
    return classify(sql);
  };
  for (const [one, two] of [
    ["select a from known_table where b = 1 and c = 'x'", "select a from known_table where b = 234 and c = 'y z'"],
    ["select f(1, 'x') from known_function where b = 1", "select f(1, 'x') from known_function where b = 2"],
    ["begin", "begin"],
  ]) {
    assert.equal(await often(one), known(two), two);
    assert.equal(known(two), await classify(two));
  }
  for (const [one, two] of [
    ["select a, b from known_order order by 1", "select a, b from known_order order by 2"],
    ["select set_config('search_path', 'a', false) where 1 = 1", "select set_config('search_path', 'b', false) where 1 = 1"],
    ["select pg_sleep(1), a from known_sleep where b = 1", "select pg_sleep(2), a from known_sleep where b = 1"],
    ["explain (analyze 0) delete from known_explain", "explain (analyze 1) delete from known_explain"],
  ]) {
    await often(one);
    assert.notEqual(known(one), undefined, one);
    assert.equal(known(two), undefined, two);
  }
  for (const sql of [
    "alter role known password 'hunter2'",
    "set standard_conforming_strings = off",
    "select from where",
    "select 'é\u0000'",
  ]) {
    await often(sql);
    assert.equal(known(sql), undefined, sql);
  }
});

const number = fc.oneof(fc.nat().map(String), fc.constantFrom("0", "-1", "- 2", "1.5", "99999999999", "0x1f", "1e5"));
const string = fc.oneof(
  fc.string({ unit: "binary" }).map((text) => `'${text.replaceAll("\0", "").replaceAll("'", "''")}'`),
  fc.constantFrom("''", "'; drop table t; --'", "'a''b'", "'/*'", "E'\\''", "E'\\\\'", "'back\\'", "'a'\n'b'", "'search_path'", "'on'"),
);
const literal = fc.oneof(number, string);
const template = fc.constantFrom(
  "select a from t where b = ? and c <> ?",
  "select a, ? from t where b in (?, ?) or d like ? order by ?",
  "select f(?), g from t where h(a) = ? limit 5 offset 2",
  "insert into t (a, b) values (?, ?), (?, ?) on conflict (a) do update set b = ? where t.c = ?",
  "update t set a = ?, b = b + ? where c = ?",
  "delete from t where a = ?; select ? from s",
  "select set_config('search_path', ?, false) where ? = ?",
  "with c as (delete from t where a = ? returning b) select * from c where b = ?",
  "merge into t using s on t.a = ? when matched then update set a = ? when not matched then insert values (?, ?)",
  "select a::text = ?, case ? when b then ? end from t group by ? having count(*) > ?",
  "explain (analyze off) select a from t where b = ?",
  "prepare p as select a from t where b = ?",
  "set application_name = ?",
);

test("what the cache answers is what the parser says, whatever the literals", async () => {
  const cached = await createClassifier({ capacity: 400 });
  await fc.assert(
    fc.asyncProperty(template, fc.array(literal, { minLength: 12, maxLength: 12 }), async (sql, literals) => {
      let next = 0;
      const text = sql.replace(/\?/g, () => literals[next++]);
      const fresh = await createFresh(text);
      const got = await classify(text, cached);
      assert.deepEqual(plain(got), plain(fresh), text);
    }),
    { numRuns: 2_000 },
  );
  assert.ok(cached.stats.hits > 100, `the cache was used: ${cached.stats.hits} hits`);
  await cached.close();
});

/** A comment at the start changes nothing; a cache of one entry that another text took has nothing to say. */
async function createFresh(sql: string): Promise<Classified> {
  tiny ??= await createClassifier({ capacity: 1 });
  await classify("select 'evict' from e1", tiny);
  await classify("select 'evict' from e2", tiny);
  await classify("select 'evict' from e3", tiny);
  return classify(sql, tiny);
}
let tiny: Classifier | undefined;
after(() => tiny?.close());

/** Refusals of syntax name a position, which depends on the literals' length. */
const plain = (classified: Classified): unknown =>
  JSON.parse(JSON.stringify({ ...classified, refusal: classified.refusal?.replace(/\d+/g, "N") }));

test("statements with secrets are not cached, and say where the secrets lie", async () => {
  const sql = "alter role bob password 'hunter2'";
  const one = await classify(sql);
  const two = await classify(sql);
  assert.notEqual(one, two);
  assert.deepEqual(one.secrets, [[sql.indexOf("'"), sql.length]]);
  const role = await classify("set role x; alter role é password 'hunter2'");
  assert.ok(role.refusal !== undefined);
  assert.deepEqual(role.secrets, [[35, 44]]);
});

test("zero bytes and invalid UTF-8 are refused, also where the shape is known", async () => {
  assert.equal((await classify("select a from t where b = 'x'")).refusal, undefined);
  for (const bytes of [[0], [0xff], [0xc3], [0xed, 0xa0, 0x80]]) {
    const text = Buffer.concat([Buffer.from("select a from t where b = '"), Buffer.from(bytes), Buffer.from("'")]);
    const classified = await classifier.classify(text, 0, text.length);
    assert.match(classified.refusal ?? "", bytes[0] === 0 ? /zero byte/ : /not valid UTF-8/);
    const comment = Buffer.concat([Buffer.from("select 1 /*"), Buffer.from(bytes), Buffer.from("*/")]);
    assert.notEqual((await classifier.classify(comment, 0, comment.length)).refusal, undefined);
  }
});

test("texts that would hold up the loop are answered in bounded time", { timeout: 60_000 }, async () => {
  const texts: [string, RegExp | undefined][] = [
    [`select ${"(".repeat(20_000)}1${")".repeat(20_000)}`, /refused|syntax error/],
    [`select * from t where a in (${Array.from({ length: 300_000 }, (_, i) => i).join(",")})`, undefined],
    [`select ${"not ".repeat(8_000)}true`, /too large or nested too deeply/],
    [`select ${"a||".repeat(10_000)}a`, /too large or nested too deeply/],
    [`update t set (${Array(4_000).fill("a").join(",")}) = (${Array(4_000).fill("1").join(",")})`, /took too long|too large/],
  ];
  const another = await createClassifier();
  for (const [sql, refusal] of texts) {
    const start = performance.now();
    const classified = await classify(sql, another);
    // Two seconds of processor time, which are ten by the clock at most.
    assert.ok(performance.now() - start < 11_000, sql.slice(0, 40));
    if (refusal === undefined) assert.equal(classified.refusal, undefined);
    else assert.match(classified.refusal ?? "", refusal);
  }
  // The parser works on after each of these.
  assert.equal((await classify("select works from on_after", another)).refusal, undefined);
  await another.close();
});

test("a long text is classified away from the loop, and then cached", async () => {
  const sql = `select a from long_text where b = '${"x".repeat(LIMITS.inlineParseBytes)}'`;
  const first = classify(sql);
  assert.ok(first instanceof Promise);
  assert.deepEqual((await first).accesses, [{ action: "sql:select", relations: [{ schema: undefined, name: "long_text" }], others: [] }]);
  assert.equal(classify(sql), await first);
});

test("a text beyond the deadline is refused, and those behind it are not", { timeout: 20_000 }, async () => {
  const hasty = await createClassifier({ deadlineMillis: 300 });
  const slow = classify(`update t set (${Array(3_000).fill("a").join(",")}) = (${Array(3_000).fill("1").join(",")})`, hasty);
  const next = classify(`select a from waiting where b = '${"x".repeat(LIMITS.inlineParseBytes)}'`, hasty);
  assert.match((await slow).refusal ?? "", /took too long/);
  assert.equal((await next).refusal, undefined);
  await hasty.close();
  assert.match((await classify(`select '${"x".repeat(LIMITS.inlineParseBytes)}'`, hasty)).refusal ?? "", /closing/);
});
