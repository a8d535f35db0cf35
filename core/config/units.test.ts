import assert from "node:assert/strict";
import { test } from "node:test";
import { parseHostPort, parseTargetAddress } from "./address.ts";
import { parseBytes, parseDurationMillis } from "./units.ts";

test("sizes", () => {
  const sizes: Record<string, number | undefined> = {
    "50MB": 50_000_000,
    "1MiB": 1_048_576,
    "1.5KB": 1_500,
    "512B": 512,
    "2 GiB": 2 ** 31,
    "1": undefined,
    "1mb": undefined,
    "-1MB": undefined,
    "1.5B": undefined,
    "99999999TB": undefined,
    "1constructor": undefined,
    "": undefined,
  };
  for (const [text, expected] of Object.entries(sizes)) assert.equal(parseBytes(text), expected, text);
});

test("durations", () => {
  const durations: Record<string, number | undefined> = {
    "500ms": 500,
    "60s": 60_000,
    "15m": 900_000,
    "1h": 3_600_000,
    "1.5h": 5_400_000,
    "7d": 604_800_000,
    "0s": 0,
    "1": undefined,
    "1w": undefined,
    "0.5ms": undefined,
    "1h30m": undefined,
  };
  for (const [text, expected] of Object.entries(durations)) assert.equal(parseDurationMillis(text), expected, text);
});

test("addresses", () => {
  assert.deepEqual(parseHostPort("127.0.0.1:0"), { host: "127.0.0.1", port: 0 });
  assert.deepEqual(parseHostPort("[::1]:8443"), { host: "::1", port: 8443 });
  for (const text of ["127.0.0.1", "::1:80", "a b:1", "x:65536", ":5"]) assert.equal(parseHostPort(text), undefined, text);
  const at = (text: string) => parseTargetAddress(text, "/etc/sluice");
  assert.deepEqual(at("db.example:5432"), { host: "db.example", port: 5432 });
  assert.deepEqual(at("[fd00::5]:5432"), { host: "fd00::5", port: 5432 });
  assert.deepEqual(at("/var/run/postgresql"), { path: "/var/run/postgresql/.s.PGSQL.5432" });
  assert.deepEqual(at("/var/run/postgresql/"), { path: "/var/run/postgresql/.s.PGSQL.5432" });
  assert.deepEqual(at("/var/run/postgresql:6432"), { path: "/var/run/postgresql/.s.PGSQL.6432" });
  assert.deepEqual(at("/run/.s.PGSQL.5433"), { path: "/run/.s.PGSQL.5433" });
  assert.deepEqual(at("./sock"), { path: "/etc/sluice/sock/.s.PGSQL.5432" });
  for (const text of ["db.example", "db.example:0", "/run:0", "/run:70000", `/${"x".repeat(100)}`]) assert.equal(at(text), undefined, text);
});
