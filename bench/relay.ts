import { accept, closeFd, listen } from "../core/native/acceptor.ts";
import { forward } from "../core/net/forward.ts";
import { createTransport } from "../core/net/transport.ts";
import type { Wire } from "../core/net/types.ts";

/**
 * The gateway's acceptor and transport without a gateway: it forwards bytes that nobody looks at, in one thread. What it costs is the
 * least that any mode of Sluice can cost. `relay.ts PORT` connects to that port of 127.0.0.1; it prints the port that it listens on.
 */
const target = { host: "127.0.0.1", port: Number(process.argv[2]) };
const CONNECT_MILLIS = 10_000;

const transport = createTransport();
transport.onFault = (error) => console.error(error);

/** The client speaks first, and may do so before the target is connected: until then its bytes wait in the kernel. */
async function serve(fd: number): Promise<void> {
  let back: Wire;
  try {
    back = await transport.connect(target, CONNECT_MILLIS);
  } catch (error) {
    closeFd(fd);
    console.error(error instanceof Error ? error.message : error);
    return;
  }
  const front = transport.adopt(fd);
  front.handler = forward(front, back);
  back.handler = forward(back, front);
}

const socket = listen("127.0.0.1", 0);
accept(socket.fd, (fds) => {
  for (const fd of fds) void serve(fd);
});
console.log(socket.port);
