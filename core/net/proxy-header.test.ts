import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { isIP } from "node:net";
import { describe, test } from "node:test";
import { LIMITS } from "../limits.ts";
import { ProxyHeaderError, readProxyHeader } from "./proxy-header.ts";

const SIGNATURE = "0d0a0d0a000d0a515549540a";
const hex = (text: string): Buffer => Buffer.from(text.replaceAll(/[\s|]/g, ""), "hex");

/** A header as it is on the wire; the length is counted. */
function header(versionAndCommand: string, kind: string, rest: string): Buffer {
  const body = hex(rest);
  const length = Buffer.alloc(2);
  length.writeUInt16BE(body.length);
  return Buffer.concat([hex(SIGNATURE + versionAndCommand + kind), length, body]);
}

const IPV4 = "c6336417 cb007105 d431 1538"; // 198.51.100.23 → 203.0.113.5, 54321 → 5432
const IPV6 = "20010db8000000000000000000000001 20010db8000000000000000000000002 d431 1538";
const TLVS = "02 0003 616263 | 04 0000 | e1 0001 ff"; // authority, NOOP, custom
const UNIX = "2f".repeat(216);

const GOOD: readonly (readonly [string, Buffer, string | undefined, number])[] = [
  ["TCP4", header("21", "11", IPV4), "198.51.100.23", 54_321],
  ["TCP4 with TLVs", header("21", "11", IPV4 + TLVS), "198.51.100.23", 54_321],
  ["TCP6", header("21", "21", IPV6), "2001:db8::1", 54_321],
  ["TCP6 with TLVs", header("21", "21", IPV6 + TLVS), "2001:db8::1", 54_321],
  ["IPv4 in TCP6", header("21", "21", `00000000000000000000ffff7f000001${IPV6.slice(32)}`), "127.0.0.1", 54_321],
  ["UDP4", header("21", "12", IPV4), undefined, 0],
  ["UDP6, whatever it holds", header("21", "22", "ff"), undefined, 0],
  ["a Unix socket", header("21", "31", UNIX), undefined, 0],
  ["unspecified", header("21", "00", ""), undefined, 0],
  ["unspecified, with bytes", header("21", "00", "aabbcc"), undefined, 0],
  ["LOCAL", header("20", "00", ""), undefined, 0],
  ["LOCAL with addresses, which do not count", header("20", "11", IPV4), undefined, 0],
  ["LOCAL with a reserved family", header("20", "f9", "00"), undefined, 0],
  ["the longest", header("21", "11", `${IPV4} 04 01f9 ${"00".repeat(505)}`), "198.51.100.23", 54_321],
];

const BAD: readonly (readonly [string, Buffer, RegExp])[] = [
  ["version 1", Buffer.from("PROXY TCP4 198.51.100.23 203.0.113.5 54321 5432\r\n"), /version 1/],
  ["a StartupMessage", hex("00000008 04d2162f"), /is missing/],
  ["a ClientHello", hex("16030100c8"), /is missing/],
  ["a signature with another last byte", hex(`${SIGNATURE.slice(0, 22)}0d 21 11 000c ${IPV4}`), /is missing/],
  ["version 3", header("31", "11", IPV4), /version 3/],
  ["version 0", header("01", "11", IPV4), /version 0/],
  ["command 2", header("22", "11", IPV4), /command 2/],
  ["family 4", header("21", "41", IPV4), /reserved/],
  ["transport 3", header("21", "13", IPV4), /reserved/],
  ["TCP4 without its last byte", header("21", "11", IPV4.slice(0, -2)), /too short/],
  ["TCP6 with IPv4 addresses", header("21", "21", IPV4), /too short/],
  ["TCP4 without addresses", header("21", "11", ""), /too short/],
  ["one byte too long", header("21", "11", `${IPV4} 04 01fa ${"00".repeat(506)}`), /longer than 536/],
  ["as long as the field allows", hex(`${SIGNATURE} 21 11 ffff`), /longer than 536/],
  ["LOCAL, too long", hex(`${SIGNATURE} 20 00 0209`), /longer than 536/],
  ["a TLV that reaches past the end", header("21", "11", `${IPV4} 04 0002 00`), /add up/],
  ["two bytes of a TLV", header("21", "11", `${IPV4} 04 00`), /add up/],
  ["a byte behind a TLV", header("21", "21", `${IPV6}${TLVS}00`), /add up/],
];

describe("PROXY header", () => {
  for (const [name, bytes, host, port] of GOOD) {
    test(`${name}: read at every split, and what follows stays`, () => {
      for (let end = 0; end < bytes.length; end += 1) assert.equal(readProxyHeader(bytes.subarray(0, end)), undefined, `${end} bytes`);
      const expected = { bytes: bytes.length, source: host === undefined ? undefined : { host, port } };
      assert.deepEqual(readProxyHeader(bytes), expected);
      assert.deepEqual(readProxyHeader(Buffer.concat([bytes, bytes])), expected);
    });
  }

  for (const [name, bytes, message] of BAD) {
    test(`${name}: refused, at the earliest byte and ever after`, () => {
      let refusedAt: number | undefined;
      for (let end = 0; end <= bytes.length; end += 1) {
        try {
          assert.equal(readProxyHeader(bytes.subarray(0, end)), undefined);
          assert.equal(refusedAt, undefined, `refused at ${refusedAt}, taken at ${end}`);
        } catch (error) {
          if (!(error instanceof ProxyHeaderError)) throw error;
          assert.equal(error.code, "SLUICE_PROTOCOL_VIOLATION");
          assert.match(error.message, message);
          refusedAt ??= end;
        }
      }
      // The first wrong byte, the fixed part, or, for TLVs, the whole.
      assert.ok(refusedAt !== undefined && (/add up/.test(message.source) || refusedAt <= 16), `refused at ${refusedAt}`);
      assert.throws(() => readProxyHeader(Buffer.concat([bytes, Buffer.alloc(LIMITS.proxyHeaderBytes)])), ProxyHeaderError);
    });
  }

  test("a view into a larger buffer is read in its bounds", () => {
    const bytes = header("21", "11", IPV4);
    const slab = Buffer.concat([Buffer.alloc(7, 0xaa), bytes, Buffer.alloc(9, 0xbb)]);
    assert.deepEqual(readProxyHeader(new Uint8Array(slab.buffer, slab.byteOffset + 7, bytes.length)), readProxyHeader(bytes));
    assert.equal(readProxyHeader(new Uint8Array(slab.buffer, slab.byteOffset + 7, bytes.length - 1)), undefined);
  });

  test("IPv6 addresses are written as inet_ntop writes them", () => {
    const addresses = [
      "::",
      "::1",
      "fe80::1",
      "2001:db8:0:1:0:0:0:1",
      "2001:0:0:1::",
      "1:2:3:4:5:6:7:8",
      "64:ff9b::1.2.3.4",
      "::1.2.3.4",
      "a:0:b::",
    ];
    const script =
      "import socket,sys\nfor a in sys.argv[1:]:\n p=socket.inet_pton(socket.AF_INET6,a); print(p.hex(), socket.inet_ntop(socket.AF_INET6,p))";
    for (const line of execFileSync("python3", ["-c", script, ...addresses], { encoding: "utf8" })
      .trim()
      .split("\n")) {
      const [packed = "", text] = line.split(" ");
      const found = readProxyHeader(header("21", "21", packed + IPV6.slice(32)))?.source?.host ?? "";
      assert.equal(found, text);
      assert.equal(isIP(found), 6);
    }
  });
});
