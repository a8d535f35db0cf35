import { DEFAULT_CIPHERS } from "node:tls";
import type { NativeTlsContext } from "../native/addons.ts";
import type { NativePump } from "../native/pump.ts";
import { KeptContexts, systemRoots } from "./contexts.ts";
import type { TlsClientOptions, TlsServerOptions } from "./types.ts";

/** RFC 7301 §3.1: a protocol's name has a length of one byte, and is not empty. */
const ALPN_NAME_BYTES = 255;

/** Contexts of the pump's own TLS, with the ciphers and versions that node:tls uses. */
export class PumpContexts {
  readonly #native: NativePump;
  readonly #kept = new KeptContexts<NativeTlsContext>();
  readonly #ciphers: string;
  readonly #suites: string;

  constructor(native: NativePump) {
    this.#native = native;
    const all = DEFAULT_CIPHERS.split(":");
    // OpenSSL configures TLS 1.3, whose suites begin so, apart from the versions before it.
    this.#ciphers = all.filter((name) => !name.startsWith("TLS_")).join(":");
    this.#suites = all.filter((name) => name.startsWith("TLS_")).join(":");
  }

  /** @throws when the PEM texts are not a matching certificate and key */
  server(options: TlsServerOptions): NativeTlsContext {
    return this.#kept.find(options.cert, options.key, () =>
      this.#native.serverContext(options.cert, options.key, this.#ciphers, this.#suites),
    );
  }

  /** @throws when the PEM text has no certificate */
  client(options: TlsClientOptions): NativeTlsContext {
    return this.#kept.find(options.ca === undefined ? "system" : "named", options.ca ?? "", () =>
      this.#native.clientContext(options.ca ?? systemRoots().join("\n"), this.#ciphers, this.#suites),
    );
  }
}

/** @throws RangeError when a name cannot be encoded */
export function encodeAlpn(protocols: readonly string[]): Uint8Array {
  const parts = protocols.map((name) => {
    const bytes = Buffer.from(name, "latin1");
    if (bytes.length === 0 || bytes.length > ALPN_NAME_BYTES) throw new RangeError(`"${name}" is no application protocol's name`);
    return Buffer.concat([Buffer.of(bytes.length), bytes]);
  });
  return Buffer.concat(parts);
}
