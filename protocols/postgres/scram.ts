import { createHash, createHmac, pbkdf2, randomBytes, timingSafeEqual } from "node:crypto";
import { promisify } from "node:util";
import { SluiceError } from "../../core/errors.ts";
import { LIMITS } from "../../core/limits.ts";

/**
 * Client side of SCRAM-SHA-256 and SCRAM-SHA-256-PLUS (RFC 5802, RFC 7677; channel binding tls-server-end-point, RFC 5929).
 * PostgreSQL takes the user from the startup packet, so the SCRAM user name stays empty.
 */
const PLAIN = "SCRAM-SHA-256";
const PLUS = "SCRAM-SHA-256-PLUS";
const NONCE_BYTES = 24;
/** The server's nonce, salt and message have no limit in the RFC. */
const MAX_NONCE_CHARACTERS = 1_024;
const MAX_SALT_BYTES = 1_024;
const MAX_MESSAGE_BYTES = 8_192;
const KEY_BYTES = 32;

const derive = promisify(pbkdf2);

/** Keeps the last derivation of one target's password, which takes milliseconds and repeats until the password is changed. */
export interface SaltedPasswordCache {
  last: { readonly salt: string; readonly iterations: number; readonly key: Buffer } | undefined;
}

export class ScramClient {
  readonly mechanism: string;
  readonly #gs2Header: string;
  readonly #channelBinding: Uint8Array;
  readonly #password: string;
  readonly #cache: SaltedPasswordCache;
  readonly #nonce: string;
  #serverSignature: Buffer | undefined;

  /**
   * @param offered mechanism names of AuthenticationSASL
   * @param encrypted the connection is TLS
   * @param certificate DER of the server's certificate, under TLS
   * @throws SluiceError SLUICE_TARGET_REFUSED when no offered mechanism can be used
   */
  constructor(
    offered: readonly string[],
    password: string,
    encrypted: boolean,
    certificate: Uint8Array | undefined,
    cache: SaltedPasswordCache = { last: undefined },
    nonce: string = randomBytes(NONCE_BYTES).toString("base64"),
  ) {
    const binding = encrypted && certificate !== undefined ? tlsServerEndPoint(certificate) : undefined;
    // `p`: bound to the channel. `y`: we could, the server did not offer it; a server that did then sees that somebody removed its
    // offer. `n`: we cannot.
    if (offered.includes(PLUS) && !encrypted) throw refused("the target offers channel binding on a connection without TLS");
    if (offered.includes(PLUS) && binding !== undefined) {
      this.mechanism = PLUS;
      this.#gs2Header = "p=tls-server-end-point,,";
    } else if (offered.includes(PLAIN)) {
      this.mechanism = PLAIN;
      this.#gs2Header = binding !== undefined ? "y,," : "n,,";
    } else {
      throw refused("the target offers no authentication mechanism that is supported here (SCRAM-SHA-256)");
    }
    this.#channelBinding = this.mechanism === PLUS ? binding! : new Uint8Array(0);
    this.#password = password;
    this.#cache = cache;
    this.#nonce = nonce;
  }

  get #firstBare(): string {
    return `n=,r=${this.#nonce}`;
  }

  /** client-first-message */
  first(): string {
    return this.#gs2Header + this.#firstBare;
  }

  /** @param serverFirst server-first-message. @returns client-final-message */
  async final(serverFirst: string): Promise<string> {
    const { nonce, salt, iterations } = parseServerFirst(serverFirst, this.#nonce);
    const salted = await this.#saltedPassword(salt, iterations);
    const clientKey = hmac(salted, "Client Key");
    const storedKey = createHash("sha256").update(clientKey).digest();
    const binding = Buffer.concat([Buffer.from(this.#gs2Header), this.#channelBinding]).toString("base64");
    const withoutProof = `c=${binding},r=${nonce}`;
    const authMessage = `${this.#firstBare},${serverFirst},${withoutProof}`;
    const clientSignature = hmac(storedKey, authMessage);
    const proof = Buffer.from(clientKey.map((byte, i) => byte ^ clientSignature[i]!));
    this.#serverSignature = hmac(hmac(salted, "Server Key"), authMessage);
    return `${withoutProof},p=${proof.toString("base64")}`;
  }

  /** Check that the server knows the password too. @throws SluiceError SLUICE_TARGET_REFUSED */
  verify(serverFinal: string): void {
    const expected = this.#serverSignature;
    const match = /^v=([A-Za-z0-9+/]+={0,2})$/.exec(serverFinal);
    const got = match === null ? undefined : Buffer.from(match[1]!, "base64");
    if (expected === undefined || got === undefined || got.length !== expected.length || !timingSafeEqual(got, expected)) {
      throw refused("the target could not prove that it knows the password (SCRAM server signature)");
    }
  }

  async #saltedPassword(salt: Buffer, iterations: number): Promise<Buffer> {
    const saltText = salt.toString("base64");
    const { last } = this.#cache;
    if (last !== undefined && last.salt === saltText && last.iterations === iterations) return last.key;
    const key = await derive(saslPrep(this.#password), salt, iterations, KEY_BYTES, "sha256");
    this.#cache.last = { salt: saltText, iterations, key };
    return key;
  }
}

function parseServerFirst(message: string, clientNonce: string): { nonce: string; salt: Buffer; iterations: number } {
  if (message.length > MAX_MESSAGE_BYTES) throw refused("the target's SCRAM challenge is too long");
  const match = /^r=([\x21-\x2b\x2d-\x7e]+),s=([A-Za-z0-9+/]+={0,2}),i=([1-9][0-9]{0,9})$/.exec(message);
  if (match === null) throw refused("the target's SCRAM challenge is malformed");
  const [, nonce, saltText, iterationsText] = match as unknown as [string, string, string, string];
  if (nonce.length > MAX_NONCE_CHARACTERS) throw refused("the target's SCRAM nonce is too long");
  if (!nonce.startsWith(clientNonce) || nonce.length === clientNonce.length) throw refused("the target's SCRAM nonce does not extend ours");
  const iterations = Number(iterationsText);
  if (iterations > LIMITS.scramIterations)
    throw refused(`the target asks for ${iterations} SCRAM iterations; the limit is ${LIMITS.scramIterations}`);
  const salt = Buffer.from(saltText, "base64");
  if (salt.length === 0 || salt.length > MAX_SALT_BYTES) throw refused("the target's SCRAM salt has an unusable length");
  return { nonce, salt, iterations };
}

const hmac = (key: Uint8Array, text: string): Buffer => createHmac("sha256", key).update(text, "utf8").digest();

/**
 * SASLprep (RFC 4013) as PostgreSQL applies it: a password that the profile prohibits is used as it is. Bidirectional rules and
 * code points unassigned in Unicode 3.2 are not checked.
 */
export function saslPrep(password: string): string {
  if (/^[\x20-\x7e]*$/.test(password)) return password;
  const mapped = password
    // RFC 3454, C.1.2 (U+200B is in both tables; PostgreSQL maps it to a space as well).
    .replace(/[\u00a0\u1680\u2000-\u200b\u202f\u205f\u3000]/g, " ")
    // RFC 3454, B.1.
    .replace(/[\u00ad\u034f\u1806\u180b-\u180d\u200c\u200d\u2060\ufe00-\ufe0f\ufeff]/g, "")
    .normalize("NFKC");
  // RFC 3454, C.2 to C.9: controls, private use, surrogates, non-characters, tagging and display characters.
  const prohibited =
    /[\p{Cc}\p{Co}\p{Cs}\p{Noncharacter_Code_Point}\u06dd\u070f\u180e\u2028\u2029\u2061-\u2063\u206a-\u206f\ufff9-\ufffd\u2ff0-\u2ffb\u0340\u0341\u200e\u200f\u202a-\u202e\u{1d173}-\u{1d17a}\u{e0001}\u{e0020}-\u{e007f}]/u;
  return mapped === "" || prohibited.test(mapped) ? password : mapped;
}

/** Hash for tls-server-end-point by the DER of the certificate's signature algorithm; MD5 and SHA-1 give way to SHA-256 (RFC 5929, 4.1). */
const HASHES: Readonly<Record<string, string>> = {
  "2a864886f70d010104": "sha256", // md5WithRSAEncryption
  "2a864886f70d010105": "sha256", // sha1WithRSAEncryption
  "2a864886f70d01010b": "sha256",
  "2a864886f70d01010c": "sha384",
  "2a864886f70d01010d": "sha512",
  "2a864886f70d01010e": "sha224",
  "2a8648ce3d0401": "sha256", // ecdsa-with-SHA1
  "2a8648ce3d040301": "sha224",
  "2a8648ce3d040302": "sha256",
  "2a8648ce3d040303": "sha384",
  "2a8648ce3d040304": "sha512",
};
const RSA_PSS = "2a864886f70d01010a";
/** Digest algorithms as RSASSA-PSS-params names them. */
const PSS_HASHES: Readonly<Record<string, string>> = {
  "2b0e03021a": "sha256", // SHA-1
  "608648016503040201": "sha256",
  "608648016503040202": "sha384",
  "608648016503040203": "sha512",
  "608648016503040204": "sha224",
};

/** Channel binding data, or undefined where RFC 5929 defines no hash (Ed25519 and whatever is unknown here). */
export function tlsServerEndPoint(certificate: Uint8Array): Uint8Array | undefined {
  const hash = signatureHash(certificate);
  return hash === undefined ? undefined : createHash(hash).update(certificate).digest();
}

/** Certificate ::= SEQUENCE { tbsCertificate SEQUENCE, signatureAlgorithm SEQUENCE { algorithm OID, parameters ANY }, … } */
function signatureHash(certificate: Uint8Array): string | undefined {
  const outer = element(certificate, 0, certificate.length);
  const toBeSigned = outer && element(certificate, outer.start, outer.end);
  const algorithm = toBeSigned && element(certificate, toBeSigned.end, outer.end);
  if (algorithm === undefined) return undefined;
  const oid = element(certificate, algorithm.start, algorithm.end);
  if (oid === undefined) return undefined;
  const name = hex(certificate, oid);
  if (name !== RSA_PSS) return HASHES[name];
  // RSASSA-PSS-params ::= SEQUENCE { [0] { SEQUENCE { hash OID } } DEFAULT sha1, … }
  const parameters = element(certificate, oid.end, algorithm.end);
  const tagged = parameters && element(certificate, parameters.start, parameters.end);
  if (tagged === undefined || certificate[parameters!.start] !== 0xa0) return "sha256";
  const identifier = element(certificate, tagged.start, tagged.end);
  const digest = identifier && element(certificate, identifier.start, identifier.end);
  return digest && PSS_HASHES[hex(certificate, digest)];
}

const hex = (bytes: Uint8Array, range: { start: number; end: number }): string =>
  Buffer.from(bytes.subarray(range.start, range.end)).toString("hex");

/** Where the content of the DER element at `at` starts and ends; undefined when it does not fit in `limit`. */
function element(bytes: Uint8Array, at: number, limit: number): { start: number; end: number } | undefined {
  if (at + 2 > limit) return undefined;
  let length = bytes[at + 1]!;
  let start = at + 2;
  if (length >= 0x80) {
    const count = length & 0x7f;
    if (count === 0 || count > 3 || start + count > limit) return undefined;
    length = 0;
    for (let i = 0; i < count; i++) length = length * 256 + bytes[start + i]!;
    start += count;
  }
  return start + length > limit ? undefined : { start, end: start + length };
}

function refused(message: string): SluiceError {
  return new SluiceError("SLUICE_TARGET_REFUSED", message);
}
