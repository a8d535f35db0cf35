import { BlockList, isIP, SocketAddress } from "node:net";

interface Network {
  readonly address: string;
  readonly family: "ipv4" | "ipv6";
  readonly prefixBits: number;
}

/** `10.0.0.0/8`, `2001:db8::/32`, or a single address. */
function parse(text: string): Network | undefined {
  const [, address = "", prefix] = /^([0-9A-Fa-f.:]+)(?:\/(\d{1,3}))?$/.exec(text) ?? [];
  const version = isIP(address);
  const longest = version === 4 ? 32 : 128;
  const prefixBits = prefix === undefined ? longest : Number(prefix);
  if (version === 0 || prefixBits > longest) return undefined;
  return { address, family: version === 4 ? "ipv4" : "ipv6", prefixBits };
}

/** What was expected instead, undefined where the text is a network to trust. Strict: a slip here decides who may name any address. */
export function networkProblem(text: string): string | undefined {
  const network = parse(text);
  if (network === undefined) return "a network such as 10.0.0.0/8 or 2001:db8::/32, or one address";
  if (network.prefixBits === 0) return "the networks of your own load balancers (/0 would let every client name any address)";
  // Compared as IPv4 (core/native/acceptor.ts, peerAddress), so this would never match.
  if (network.family === "ipv6" && canonical(network.address, "ipv6").startsWith("::ffff:")) return "an IPv4 network in its own form";
  return hostBits(network) === 0n ? undefined : "a network address: no bits set behind its prefix";
}

function hostBits({ address, family, prefixBits }: Network): bigint {
  const hostLength = BigInt((family === "ipv4" ? 32 : 128) - prefixBits);
  return numberOf(address, family) & ((1n << hostLength) - 1n);
}

function numberOf(address: string, family: "ipv4" | "ipv6"): bigint {
  if (family === "ipv4") return address.split(".").reduce((sum, part) => (sum << 8n) | BigInt(part), 0n);
  const [head = "", tail] = withoutDots(address).split("::");
  const groups = (part: string): string[] => (part === "" ? [] : part.split(":"));
  const first = groups(head);
  const last = groups(tail ?? "");
  const zeros = Array<string>(8 - first.length - last.length).fill("0");
  return [...first, ...zeros, ...last].reduce((sum, group) => (sum << 16n) | BigInt(`0x${group}`), 0n);
}

/** `::1.2.3.4` → `::102:304`. */
function withoutDots(address: string): string {
  const [, head, four] = /^(.*:)(\d+\.\d+\.\d+\.\d+)$/.exec(address) ?? [];
  if (head === undefined || four === undefined) return address;
  const value = numberOf(four, "ipv4");
  return `${head}${(value >> 16n).toString(16)}:${(value & 0xffffn).toString(16)}`;
}

const canonical = (address: string, family: "ipv4" | "ipv6"): string => new SocketAddress({ address, family }).address;

/**
 * A test for addresses without port, in these networks. Everything that is not an address is outside.
 * @param networks texts without a networkProblem()
 */
export function networkTest(networks: readonly string[]): (address: string) => boolean {
  const list = new BlockList();
  for (const text of networks) {
    const network = parse(text);
    if (network !== undefined) list.addSubnet(network.address, network.prefixBits, network.family);
  }
  return (address) => {
    const version = isIP(address);
    return version !== 0 && list.check(address, version === 4 ? "ipv4" : "ipv6");
  };
}
