import { readProxyHeader } from "../core/net/proxy-header.ts";
import type { Wire } from "../core/net/types.ts";
import { isLoopbackAddress } from "../core/net/wire.ts";
import type { Conversation } from "../protocols/postgres/conversation.ts";

/** Who is at the far end of a connection, whatever stands in between. */
export interface Client {
  /** `address:port`. */
  readonly address: string;
  /** The bytes never leave this machine: nothing but loopback is known to lie between client and gateway. */
  readonly isLocal: boolean;
}

/** The client is the peer itself. */
export const directClient = (wire: Wire): Client => ({ address: wire.remoteAddress, isLocal: wire.isLoopback });

/**
 * The client that a proxy's header tells, read in front of everything else, TLS included.
 * @throws ProxyHeaderError, SluiceError SLUICE_DEADLINE
 */
export async function proxiedClient(conversation: Conversation): Promise<Client> {
  const { wire } = conversation;
  const { source } = await conversation.prologue(readProxyHeader);
  // Nobody is told: a health check, or the proxy cannot say whom it serves. Neither counts as somebody on this machine.
  if (source === undefined) return { address: wire.remoteAddress, isLocal: false };
  const { host, port } = source;
  return { address: host.includes(":") ? `[${host}]:${port}` : `${host}:${port}`, isLocal: wire.isLoopback && isLoopbackAddress(host) };
}
