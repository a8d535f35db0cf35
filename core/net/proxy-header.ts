import { SocketAddress } from "node:net";
import { SluiceError } from "../errors.ts";
import { LIMITS } from "../limits.ts";

/** What a load balancer tells in front of a connection. */
export interface ProxyHeader {
  /** Length of the whole header; the connection's own bytes begin behind it. */
  readonly bytes: number;
  /** The client; undefined where the proxy speaks for itself (LOCAL: a health check), does not know, or it is not a TCP connection. */
  readonly source: { readonly host: string; readonly port: number } | undefined;
}

/** The bytes are no PROXY header of version 2. */
export class ProxyHeaderError extends SluiceError {
  constructor(what: string) {
    super("SLUICE_PROTOCOL_VIOLATION", `the proxy's header ${what}`);
    this.name = "ProxyHeaderError";
  }
}

const SIGNATURE = Buffer.from("\r\n\r\n\0\r\nQUIT\n", "latin1");
const VERSION_1 = Buffer.from("PROXY ", "latin1");
const FIXED_BYTES = 16;
/** High half of byte 13: address family; low half: transport. */
const [INET, INET6, FAMILY_MAX] = [1, 2, 3];
const [STREAM, TRANSPORT_MAX] = [1, 2];

/**
 * Read the header in front of a connection (HAProxy, "The PROXY protocol", section 2.2):
 *
 *     12 signature │ 1 version 2, command │ 1 family, transport │ 2 length of the rest │ addresses │ TLVs
 *     TCP over IPv4: source 4, destination 4, source port 2, destination port 2; over IPv6: 16, 16, 2, 2
 *
 * TLVs are skipped (also a checksum: TCP has one), and so are addresses of other kinds.
 * @param bytes everything that has arrived so far
 * @returns undefined: the header goes on; never for as many as LIMITS.proxyHeaderBytes
 * @throws ProxyHeaderError as soon as the bytes cannot become a valid header
 */
export function readProxyHeader(bytes: Uint8Array): ProxyHeader | undefined {
  const view = Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  const signed = Math.min(view.length, SIGNATURE.length);
  if (view.compare(SIGNATURE, 0, signed, 0, signed) !== 0) {
    const old = Math.min(view.length, VERSION_1.length);
    throw new ProxyHeaderError(
      view.compare(VERSION_1, 0, old, 0, old) === 0 ? "is of version 1, which is not accepted: send version 2" : "is missing",
    );
  }
  if (view.length < FIXED_BYTES) return undefined;
  const versionAndCommand = view[12] as number;
  const kind = view[13] as number;
  const length = view.readUInt16BE(14);
  if (versionAndCommand >>> 4 !== 2) throw new ProxyHeaderError(`is of version ${versionAndCommand >>> 4}, not 2`);
  const command = versionAndCommand & 0x0f;
  if (command > 1) throw new ProxyHeaderError(`has the unknown command ${command}`);
  if (FIXED_BYTES + length > LIMITS.proxyHeaderBytes) throw new ProxyHeaderError(`is longer than ${LIMITS.proxyHeaderBytes} bytes`);
  // Of LOCAL everything else is to be ignored, the family included.
  const [family, transport] = command === 0 ? [0, 0] : [kind >>> 4, kind & 0x0f];
  if (family > FAMILY_MAX || transport > TRANSPORT_MAX) throw new ProxyHeaderError("has a reserved address family or transport");
  const isTcp = transport === STREAM && (family === INET || family === INET6);
  const addressBytes = family === INET6 ? 16 : 4;
  if (isTcp && length < 2 * addressBytes + 4) throw new ProxyHeaderError("is too short for its addresses");
  if (view.length < FIXED_BYTES + length) return undefined;
  const end = FIXED_BYTES + length;
  if (!isTcp) return { bytes: end, source: undefined };
  const portAt = FIXED_BYTES + 2 * addressBytes;
  checkTlvs(view, portAt + 4, end);
  const host = hostOf(view.subarray(FIXED_BYTES, FIXED_BYTES + addressBytes));
  return { bytes: end, source: { host, port: view.readUInt16BE(portAt) } };
}

/** Type 1, length 2, value: they must fill the rest of the header. */
function checkTlvs(view: Buffer, start: number, end: number): void {
  let at = start;
  while (end - at >= 3) at += 3 + view.readUInt16BE(at + 1);
  if (at !== end) throw new ProxyHeaderError("has TLVs that do not add up");
}

/** As the system writes addresses, so that a policy sees one spelling; IPv4 inside IPv6 as IPv4. */
function hostOf(address: Buffer): string {
  if (address.length === 4) return address.join(".");
  const isMapped = address.readUInt16BE(10) === 0xffff && address.subarray(0, 10).every((byte) => byte === 0);
  if (isMapped) return address.subarray(12).join(".");
  const groups = Array.from({ length: 8 }, (_, index) => address.readUInt16BE(2 * index).toString(16));
  return new SocketAddress({ address: groups.join(":"), family: "ipv6" }).address;
}
