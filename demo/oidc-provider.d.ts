/** The part of oidc-provider 9 that the demo uses; the package brings no types. */
declare module "oidc-provider" {
  import type { IncomingMessage, ServerResponse } from "node:http";

  interface ResourceServer {
    readonly scope: string;
    /** The access token's `aud`. */
    readonly audience: string;
    readonly accessTokenTTL: number;
    readonly accessTokenFormat: "jwt";
    readonly jwt: { readonly sign: { readonly alg: string } };
  }

  interface IssuedToken {
    readonly accountId?: string;
    readonly clientId?: string;
  }

  interface Configuration {
    readonly clients: readonly Readonly<Record<string, unknown>>[];
    readonly jwks: { readonly keys: readonly object[] };
    readonly cookies: { readonly keys: readonly string[] };
    readonly claims: Readonly<Record<string, readonly string[]>>;
    readonly scopes: readonly string[];
    readonly features: Readonly<Record<string, unknown>> & {
      readonly resourceIndicators: {
        readonly enabled: boolean;
        readonly defaultResource: () => string;
        readonly useGrantedResource: () => boolean;
        readonly getResourceServerInfo: () => ResourceServer;
      };
    };
    readonly ttl: Readonly<Record<string, number>>;
    readonly extraTokenClaims: (context: unknown, token: IssuedToken) => Readonly<Record<string, unknown>> | undefined;
    readonly findAccount: (
      context: unknown,
      sub: string,
    ) => { readonly accountId: string; readonly claims: () => Readonly<Record<string, unknown>> } | undefined;
    readonly pkce: { readonly required: () => boolean };
  }

  export class Provider {
    constructor(issuer: string, configuration: Configuration);
    callback(): (request: IncomingMessage, response: ServerResponse) => void;
    on(event: "server_error", listener: (context: unknown, error: Error) => void): this;
  }
}
