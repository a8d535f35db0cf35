import type { SecureContext } from "node:tls";
import { createSecureContext, getCACertificates } from "node:tls";
import type { TlsClientOptions, TlsServerOptions } from "./types.ts";

/** Certificate generations and trust stores that one worker keeps; older ones are made again when needed. */
const KEPT_CONTEXTS = 16;
const MIN_VERSION = "TLSv1.2";

/**
 * Contexts by the PEM texts they were made from. Making one parses certificates and keys (milliseconds), using one is
 * free, and sessions are resumed only within the same context.
 */
export class KeptContexts<Context> {
  readonly #kept: { readonly first: string; readonly second: string; readonly context: Context }[] = [];

  find(first: string, second: string, make: () => Context): Context {
    const found = this.#kept.find((entry) => entry.first === first && entry.second === second);
    if (found !== undefined) return found.context;
    const context = make();
    if (this.#kept.length >= KEPT_CONTEXTS) this.#kept.shift();
    this.#kept.push({ first, second, context });
    return context;
  }
}

/** Contexts of node:tls. */
export class SecureContexts {
  readonly #kept = new KeptContexts<SecureContext>();

  /** @throws when the PEM texts are not a matching certificate and key */
  server(options: TlsServerOptions): SecureContext {
    return this.#kept.find(options.cert, options.key, () =>
      createSecureContext({ cert: options.cert, key: options.key, minVersion: MIN_VERSION }),
    );
  }

  client(options: TlsClientOptions): SecureContext {
    return this.#kept.find(options.ca === undefined ? "system" : "named", options.ca ?? "", () =>
      createSecureContext({ ca: options.ca === undefined ? systemRoots() : options.ca, minVersion: MIN_VERSION }),
    );
  }
}

/** The operating system's trust store; where it is empty (minimal containers), the one that comes with Node. */
export function systemRoots(): string[] {
  const system = getCACertificates("system");
  return system.length > 0 ? system : getCACertificates("default");
}
