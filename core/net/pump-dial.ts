import { ADDRCONFIG, lookup } from "node:dns";
import { getDefaultAutoSelectFamilyAttemptTimeout, isIP } from "node:net";
import { constants } from "node:os";
import { SluiceError } from "../errors.ts";
import type { NativePump } from "../native/pump.ts";
import type { PumpTransport } from "./pump.ts";
import { PumpWire, systemError } from "./pump-wire.ts";
import type { Wire } from "./types.ts";

const { ETIMEDOUT } = constants.errno;

/**
 * Connect to the first address of a host that answers, in the resolver's order. An address that is silent is given up for
 * the next one after net's default time (250 ms and more); the last one has all the time there is.
 * @throws SluiceError SLUICE_TARGET_UNREACHABLE, SLUICE_DEADLINE
 */
export function dialFirst(
  transport: PumpTransport,
  native: NativePump,
  address: { readonly host: string; readonly port: number } | { readonly path: string },
  deadlineMillis: number,
): Promise<Wire> {
  const where = "path" in address ? address.path : `${address.host}:${address.port}`;
  return new Promise((resolve, reject) => {
    let wire: PumpWire | undefined;
    let isOver = false;
    let firstError: NodeJS.ErrnoException | undefined;
    let patience: NodeJS.Timeout | undefined;
    const deadline = setTimeout(
      () => {
        wire?.destroy();
        over();
        reject(new SluiceError("SLUICE_DEADLINE", `cannot connect to ${where} within ${deadlineMillis} ms`));
      },
      Math.max(1, deadlineMillis),
    );
    const over = (): void => {
      isOver = true;
      clearTimeout(deadline);
      clearTimeout(patience);
    };
    const unreachable = (error: NodeJS.ErrnoException): void => {
      over();
      const message = `cannot connect to ${where}: ${error.code ?? "connection failed"}`;
      reject(new SluiceError("SLUICE_TARGET_UNREACHABLE", message, { cause: error }));
    };
    const attempt = (candidates: readonly string[], index: number): void => {
      const next = (error: Error): void => {
        if (isOver) return;
        clearTimeout(patience);
        firstError ??= error;
        if (index + 1 < candidates.length) attempt(candidates, index + 1);
        else unreachable(firstError);
      };
      const trying = new PumpWire(transport, native);
      wire = trying;
      try {
        const isLocal = "path" in address;
        const slot = isLocal ? native.connectUnix(address.path) : native.connectTcp(candidates[index]!, address.port);
        trying.attachConnecting(slot, isLocal, (errno) => {
          if (errno === 0) {
            over();
            return resolve(trying);
          }
          trying.destroy();
          next(systemError("connect", errno));
        });
      } catch (thrown) {
        return next(thrown instanceof Error ? thrown : new Error("connection failed"));
      }
      if (index + 1 < candidates.length) {
        patience = setTimeout(() => {
          trying.destroy();
          next(systemError("connect", ETIMEDOUT));
        }, getDefaultAutoSelectFamilyAttemptTimeout());
      }
    };
    if ("path" in address) return attempt([address.path], 0);
    if (isIP(address.host) !== 0) return attempt([address.host], 0);
    lookup(address.host, { all: true, hints: ADDRCONFIG }, (error, found) => {
      if (isOver) return;
      if (error !== null) return unreachable(error);
      attempt(
        found.map((entry) => entry.address),
        0,
      );
    });
  });
}
