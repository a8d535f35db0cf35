import { execFileSync } from "node:child_process";
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { mustRun } from "./processes.ts";

export interface ServerCertificate {
  readonly certFile: string;
  readonly keyFile: string;
  readonly cert: string;
  readonly key: string;
}

export interface TestAuthority {
  readonly caFile: string;
  readonly ca: string;
  /** A certificate for these names. @param days validity; a negative number gives one that has expired */
  issue(name: string, options?: { hosts?: readonly string[]; days?: number; keyType?: "ec" | "rsa" }): Promise<ServerCertificate>;
}

/** A certificate authority of its own in `folder`, made with the openssl command. */
export async function createAuthority(folder: string, commonName = "Sluice test CA"): Promise<TestAuthority> {
  const caFile = join(folder, "ca.crt");
  const caKeyFile = join(folder, "ca.key");
  const openssl = (...args: string[]) => mustRun("openssl", args, { cwd: folder });
  await openssl("ecparam", "-name", "prime256v1", "-genkey", "-noout", "-out", caKeyFile);
  const caExtensions = ["-addext", "basicConstraints=critical,CA:TRUE", "-addext", "keyUsage=critical,keyCertSign,cRLSign"];
  await openssl(
    "req",
    "-new",
    "-x509",
    "-sha256",
    "-key",
    caKeyFile,
    "-subj",
    `/CN=${commonName}`,
    "-days",
    "30",
    ...caExtensions,
    "-out",
    caFile,
  );
  return {
    caFile,
    ca: readFileSync(caFile, "utf8"),
    issue: async (name, options = {}) => {
      const hosts = options.hosts ?? ["localhost", "127.0.0.1", "::1"];
      const certFile = join(folder, `${name}.crt`);
      const keyFile = join(folder, `${name}.key`);
      const requestFile = join(folder, `${name}.csr`);
      const extensionFile = join(folder, `${name}.ext`);
      if (options.keyType === "rsa") await openssl("genpkey", "-algorithm", "RSA", "-pkeyopt", "rsa_keygen_bits:2048", "-out", keyFile);
      else await openssl("ecparam", "-name", "prime256v1", "-genkey", "-noout", "-out", keyFile);
      await openssl("req", "-new", "-key", keyFile, "-subj", `/CN=${hosts[0] ?? name}`, "-out", requestFile);
      const names = hosts.map((host) => `${/^[\d.]+$|:/.test(host) ? "IP" : "DNS"}:${host}`).join(",");
      writeFileSync(extensionFile, `basicConstraints=CA:FALSE\nextendedKeyUsage=serverAuth\nsubjectAltName=${names}\n`);
      const days = String(options.days ?? 30);
      const serial = `0x${Buffer.from(crypto.getRandomValues(new Uint8Array(8))).toString("hex")}`;
      const signing = ["-CA", caFile, "-CAkey", caKeyFile, "-set_serial", serial, "-days", days, "-extfile", extensionFile];
      await openssl("x509", "-req", "-sha256", "-in", requestFile, ...signing, "-out", certFile);
      return { certFile, keyFile, cert: readFileSync(certFile, "utf8"), key: readFileSync(keyFile, "utf8") };
    },
  };
}

interface SelfSigned {
  readonly cert: string;
  readonly key: string;
}

/** A self-signed certificate. @param names openssl's subjectAltName. */
export function makeCertificate(names: string): SelfSigned {
  const folder = mkdtempSync(join(tmpdir(), "sluice-tls-"));
  try {
    execFileSync(
      "openssl",
      [
        ...["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2", "-subj", "/CN=gateway"],
        ...["-addext", `subjectAltName=${names}`, "-keyout", join(folder, "key"), "-out", join(folder, "cert")],
      ],
      { stdio: "ignore" },
    );
    return { cert: readFileSync(join(folder, "cert"), "utf8"), key: readFileSync(join(folder, "key"), "utf8") };
  } finally {
    rmSync(folder, { recursive: true });
  }
}
