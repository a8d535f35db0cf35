import { type MessagePort, parentPort } from "node:worker_threads";
import { Grammar } from "./grammar.ts";
import { judge } from "./judge.ts";
import { Shape } from "./shape.ts";

/** Entry of the thread that parses what would hold up a worker's loop. It takes a text and answers with a Judged. */

const port = parentPort as MessagePort;
const grammar = await Grammar.load();
const shape = new Shape();

port.on("message", (text: Uint8Array) => {
  grammar
    .ready()
    .then(() => port.postMessage(judge(grammar, shape, text)))
    // An exception nobody catches ends this thread; a new one takes its place.
    .catch((error: unknown) => {
      setImmediate(() => {
        throw error;
      });
    });
});
port.postMessage("ready");
