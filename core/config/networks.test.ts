import assert from "node:assert/strict";
import { test } from "node:test";
import { networkProblem, networkTest } from "./networks.ts";

test("networks and single addresses are told from everything else", () => {
  for (const good of [
    "10.0.0.0/8",
    "127.0.0.1",
    "127.0.0.1/32",
    "192.0.2.128/25",
    "2001:db8::/32",
    "::1",
    "fd00::/8",
    "2001:db8::5/128",
    "64:ff9b::1.2.3.4",
  ])
    assert.equal(networkProblem(good), undefined, good);
  for (const bad of [
    "",
    "10.0.0.0/33",
    "10.0.0/8",
    "10.0.0.0/",
    "::/129",
    "example.com",
    "10.0.0.0/8 ",
    "fe80::1%eth0",
    "10.0.0.0/-1",
    "1.2.3.4:5",
  ])
    assert.match(networkProblem(bad) ?? "", /a network such as/, bad);
  for (const open of ["0.0.0.0/0", "::/0", "10.1.2.3/0"]) assert.match(networkProblem(open) ?? "", /every client/, open);
  for (const slip of ["10.0.0.1/8", "192.0.2.129/25", "2001:db8::1/64", "2001:db8:0:1::/48", "::1.2.3.4/100"])
    assert.match(networkProblem(slip) ?? "", /behind its prefix/, slip);
  assert.match(networkProblem("::ffff:10.0.0.0/104") ?? "", /IPv4/);
  assert.match(networkProblem("::FFFF:a00:0/104") ?? "", /IPv4/);
});

test("an address is in a network or not", () => {
  const inside = networkTest(["10.0.0.0/8", "192.0.2.7", "2001:db8::/33"]);
  for (const address of ["10.0.0.0", "10.255.255.255", "192.0.2.7", "2001:db8::1", "2001:db8:7fff::"]) assert.ok(inside(address), address);
  for (const address of ["11.0.0.0", "9.255.255.255", "192.0.2.8", "2001:db8:8000::", "::1", "", "10.0.0.1:5", "localhost"])
    assert.ok(!inside(address), address);
  assert.ok(!networkTest([])("10.0.0.1"));
});
