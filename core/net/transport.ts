import { SluiceError } from "../errors.ts";
import { isPumpBuilt } from "../native/pump.ts";
import { createPumpTransport } from "./pump.ts";
import { createSocketTransport } from "./sockets.ts";
import type { Transport } from "./types.ts";

export type TransportName = "pump" | "sockets";

/**
 * Which transport this process uses: the native pump where its addon loads, node's sockets otherwise. The environment
 * variable SLUICE_TRANSPORT (`pump` or `sockets`) decides instead where it is set.
 * @throws SluiceError SLUICE_CONFIG_INVALID when it has another value
 */
export function transportName(wanted: string | undefined = process.env.SLUICE_TRANSPORT): TransportName {
  if (wanted === "pump" || wanted === "sockets") return wanted;
  if (wanted === undefined || wanted === "") return isPumpBuilt() ? "pump" : "sockets";
  throw new SluiceError("SLUICE_CONFIG_INVALID", `SLUICE_TRANSPORT is "${wanted}"`, {
    hint: "Set it to pump or sockets, or leave it out.",
  });
}

/** @throws SluiceError SLUICE_INTERNAL when `pump` is asked for and its addon is not built */
export function createTransport(name: TransportName = transportName()): Transport {
  return name === "pump" ? createPumpTransport() : createSocketTransport();
}
