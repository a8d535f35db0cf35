import { connect } from "node:net";
import { accept, listen, stop } from "../../core/native/acceptor.ts";
import { createSocketTransport } from "../../core/net/sockets.ts";
import { Conversation } from "../../protocols/postgres/conversation.ts";
import { askCredential, greet } from "../../protocols/postgres/greet.ts";
import {
  cancelRequest,
  PROTOCOL_3_0,
  PROTOCOL_3_2,
  passwordMessage,
  sslRequest,
  startupMessage,
} from "../../protocols/postgres/messages.ts";
import { mutate, shuffle } from "./mutate.ts";
import type { Random } from "./random.ts";
import type { FuzzTarget } from "./targets.ts";

const DEADLINE_MILLIS = 2_000;

/** greet() and askCredential() over real wires: whatever a client says, they end, with an answer or a SluiceError. */
export function startupTarget(): FuzzTarget {
  const transport = createSocketTransport();
  let fault: unknown;
  transport.onFault = (error) => {
    fault = error;
  };
  const listener = listen("127.0.0.1", 0);
  let accepted: (fd: number) => void = () => {};
  accept(listener.fd, (fds) => fds.forEach((fd) => accepted(fd)));

  async function serve(fd: number): Promise<void> {
    const wire = transport.adopt(fd);
    const conversation = new Conversation(wire, { deadlineMillis: DEADLINE_MILLIS, peer: "client" });
    const started = performance.now();
    try {
      const greeting = await greet(conversation, undefined);
      if (greeting.kind === "session") await askCredential(conversation, wire.isLoopback);
    } finally {
      conversation.abandon();
      wire.lastWords(new Uint8Array(0));
    }
    if (performance.now() - started > DEADLINE_MILLIS + 1_000) throw new Error("the deadline does not hold");
  }

  return {
    name: "startup",
    async run(random: Random) {
      const packets = shuffle(random, [
        sslRequest(),
        startupMessage(random.pick([PROTOCOL_3_0, PROTOCOL_3_2, 0x0003_0009]), [
          ["user", "anyone"],
          ["database", "db"],
          ["application_name", random.bytes(random.below(80)).toString("hex")],
          ["client_encoding", random.pick(["UTF8", "LATIN1"])],
        ]),
        passwordMessage("token"),
        cancelRequest(7, random.bytes(4)),
      ]);
      const done = new Promise<void>((resolve, reject) => {
        accepted = (fd) => serve(fd).then(resolve, reject);
      });
      const socket = connect({ host: "127.0.0.1", port: listener.port });
      socket.on("error", () => undefined);
      socket.resume();
      socket.end(random.oneIn(8) ? mutate(random, Buffer.concat(packets)) : Buffer.concat(packets));
      try {
        await done;
      } finally {
        socket.destroy();
      }
      if (fault !== undefined) throw fault;
    },
    close: async () => {
      stop(listener.fd);
      transport.close();
    },
  };
}
