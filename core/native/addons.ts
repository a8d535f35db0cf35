import { createRequire } from "node:module";
import { join } from "node:path";
import { SluiceError } from "../errors.ts";
import type { PatternSet } from "./matcher.ts";

/** What the C++ side exports; see acceptor.cc and matcher.cc. The typed wrappers are acceptor.ts and matcher.ts. */
export interface AcceptorAddon {
  listen(host: string, port: number, backlog: number): { fd: number; port: number };
  accept(fd: number, callback: (fds: readonly number[], exhausted: number) => void): void;
  stop(fd: number): void;
  closeFd(fd: number): void;
  peerAddress(fd: number): string;
  fdLimit(): { soft: number; hard: number };
}

export interface MatcherAddon {
  compile(set: PatternSet): object;
  scan(database: object, bytes: Uint8Array, start: number, end: number, flags: Uint32Array): number;
}

const require = createRequire(import.meta.url);

function load<Addon>(name: string): Addon {
  const file = join(import.meta.dirname, "build", "Release", `${name}.node`);
  try {
    return require(file) as Addon;
  } catch (cause) {
    throw new SluiceError("SLUICE_INTERNAL", `the native addon ${name} is not built or does not load on this machine`, {
      hint: "run tools/setup",
      cause,
    });
  }
}

/** The only place that loads native code. @throws SluiceError SLUICE_INTERNAL when it is not built */
export const loadAcceptor = (): AcceptorAddon => load<AcceptorAddon>("sluice_acceptor");

/** @throws SluiceError SLUICE_INTERNAL when it is not built */
export const loadMatcher = (): MatcherAddon => load<MatcherAddon>("sluice_matcher");
