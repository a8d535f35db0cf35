import { isIP } from "node:net";
import type { ListenerConfig } from "../core/config/types.ts";
import { accept, listen, stop } from "../core/native/acceptor.ts";

export interface OpenListener {
  /** `host:port` as bound. */
  readonly address: string;
  close(): void;
}

/**
 * Listen and hand every accepted descriptor on. Runs on the main thread, which never reads from the connections.
 * @throws SluiceError SLUICE_CONFIG_INVALID when the address cannot be bound
 */
export function openListener(
  config: ListenerConfig,
  onConnection: (fd: number) => void,
  onExhausted: (count: number) => void,
): OpenListener {
  const host = config.listen.host === "localhost" ? "127.0.0.1" : config.listen.host;
  const socket = listen(host, config.listen.port);
  let open = true;
  accept(socket.fd, (fds, exhausted) => {
    if (exhausted > 0) onExhausted(exhausted);
    for (const fd of fds) onConnection(fd);
  });
  return {
    address: isIP(host) === 6 ? `[${host}]:${socket.port}` : `${host}:${socket.port}`,
    close: () => {
      if (open) stop(socket.fd);
      open = false;
    },
  };
}
