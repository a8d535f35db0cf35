import assert from "node:assert/strict";
import { test } from "node:test";
import { classOf, FAMILIES } from "./actions.ts";
import { compileGlobs } from "./globs.ts";
import { INTROSPECTION } from "./introspection.ts";

test("globs", () => {
  const matches: [pattern: string, resource: string, expected: boolean][] = [
    ["public.a", "public.a", true],
    ["public.a", "public.ab", false],
    ["public.*", "public.", true],
    ["public.*", "public.a.b", true],
    ["public.*", "xpublic.a", false],
    ["*.a", "public.a", true],
    ["*.a", "public.ab", false],
    ["*.a", "role:x.a", false],
    ["p*c.*_x", "public.a_x", true],
    ["p*c.*_x", "public.a_y", false],
    ["a*a", "a", false],
    ["a*b*c", "abc", true],
    ["a*bb*c", "abc", false],
    ["**", "role:x", true],
    ["role:*", "role:x", true],
    ["role:*", "public.role:x", false],
    ["*customers*", "public.customers_old", true],
    ["*customers*", "function:customers", false],
    ["public.c?", "public.cx", false],
    ["public.(a)", "public.(a)", true],
  ];
  for (const [pattern, resource, expected] of matches)
    assert.equal(compileGlobs([pattern])(resource), expected, `${pattern} ~ ${resource}`);
  const several = compileGlobs(["public.a", "hr.*", "x*"]);
  assert.deepEqual(["public.a", "hr.b", "x.y", "public.b"].map(several), [true, true, true, false]);
});

test("the actions of the contract have a class", () => {
  const verbs = `select insert update delete merge truncate create alter drop grant copy_in copy_out call do set show explain transaction
    cursor prepare listen notify lock maintenance function_call other`.split(/\s+/);
  assert.deepEqual(Object.keys(FAMILIES["sql"] ?? {}).sort(), verbs.sort());
  for (const unknown of ["sql:new", "sql:constructor", "xyz", "ssh:exec", "constructor:x"])
    assert.equal(classOf(unknown), "admin", unknown);
});

test("introspection leaves out what holds credentials, data or activity", () => {
  for (const name of `pg_authid pg_shadow pg_stats pg_stats_ext pg_stats_ext_exprs pg_statistic pg_statistic_ext_data pg_stat_activity pg_stat_statements
    pg_stat_user_indexes pg_stat_all_tables pg_statio_user_tables pg_user_mapping pg_user_mappings pg_hba_file_rules pg_ident_file_mappings pg_file_settings pg_largeobject pg_subscription
    pg_locks pg_cursors pg_prepared_statements pg_prepared_xacts pg_replication_slots pg_sequences pg_config pg_db_role_setting`.split(
    /\s+/,
  )) {
    assert(!INTROSPECTION.has(`pg_catalog.${name}`), name);
  }
  assert(!INTROSPECTION.has("information_schema.user_mapping_options"));
  for (const name of "pg_class pg_attribute pg_roles pg_user pg_auth_members pg_proc pg_type pg_namespace pg_database pg_settings".split(
    " ",
  )) {
    assert(INTROSPECTION.has(`pg_catalog.${name}`), name);
  }
});
