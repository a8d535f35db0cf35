/** Who is connected, as proven by one credential. Values are namespaced by issuer: `corp:alice`. */
export interface Identity {
  /** Name of the issuer in the configuration. */
  readonly issuer: string;
  /** `issuer:value of userClaim`. */
  readonly user: string;
  /** The credential's raw `sub`. */
  readonly subject: string;
  /** `issuer:group`; empty where the claim is missing. */
  readonly groups: readonly string[];
  /** The verified claims, for policy expressions. */
  readonly claims: Readonly<Record<string, unknown>>;
  /** Delegation (RFC 8693 `act`): the acting parties, outermost first; empty when the user acts alone. */
  readonly chain: readonly string[];
  /** When the right to run further statements ends; milliseconds of the Unix epoch. */
  readonly expiresAtMillis: number;
}

/** Proves identities from credentials; one per worker. */
export interface Authenticator {
  /**
   * Verify a credential a client offered (today: an OIDC JWT, compact form).
   * @throws SluiceError SLUICE_CREDENTIAL_INVALID, _EXPIRED or SLUICE_ISSUER_UNAVAILABLE; never with the token in it
   */
  authenticate(credential: string): Promise<Identity>;
}
