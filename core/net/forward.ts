import { LIMITS } from "../limits.ts";
import type { Wire, WireHandler } from "./types.ts";

/** The handler of a wire all of whose bytes go to another as they are; where the other does not keep up, this one waits. */
export const forward = (from: Wire, to: Wire): WireHandler => ({
  onData(bytes, start, end) {
    to.write(bytes, start, end);
    if (to.backlogBytes >= LIMITS.backlogHighBytes) from.pause();
  },
  onDrain: () => to.resume(),
  onEnd: () => to.end(),
  onClose: () => to.destroy(),
  onUnrecorded: () => from.destroy(),
});
