import { mkdirSync } from "node:fs";
import { resolve } from "node:path";
import type { ServerCertificate } from "../test/helpers/certificates.ts";
import type { Destination } from "../test/helpers/clients.ts";
import { type Gateway, startGateway } from "../test/helpers/gateway.ts";
import { startTestIssuer, type TestIssuer } from "../test/helpers/issuer.ts";
import { DATABASE } from "./database.ts";
import type { Mode, Upstream } from "./modes.ts";
import { type ModeName, type ModePlan } from "./modes-list.ts";
import type { BenchOptions } from "./options.ts";
import { GROUPS, POLICY, POLICY_BARE, POLICY_WITHOUT_MASKS } from "./policy.ts";
import { proveGateway } from "./prove.ts";

/** What a mode of the gateway has switched on. Identity, a decision and an intent on record are not to be had without. */
export interface Features {
  readonly rules: boolean;
  readonly masks: boolean;
}

interface Variant extends Features {
  readonly policy: string;
  readonly record: Readonly<Record<string, unknown>>;
  readonly env?: Readonly<Record<string, string>>;
}

const HEAD = { results: "head", headBytes: "1MB" };
const EVERYTHING: Variant = { rules: true, masks: true, policy: POLICY, record: HEAD };

const VARIANTS: Partial<Record<ModeName, Variant>> = {
  // A digest is the least that is recorded of a result.
  "sluice-bare": { rules: false, masks: false, policy: POLICY_BARE, record: { results: "digest" } },
  "sluice-policy": { rules: true, masks: false, policy: POLICY_WITHOUT_MASKS, record: HEAD },
  sluice: EVERYTHING,
  "sluice-digest": { ...EVERYTHING, record: { results: "digest" } },
  "sluice-full": { ...EVERYTHING, record: { results: "full" } },
  "sluice-sockets": { ...EVERYTHING, env: { SLUICE_TRANSPORT: "sockets" } },
  "sluice-small-pages": { ...EVERYTHING, env: { SLUICE_LARGE_PAGES: "off" } },
};

export interface GatewaySetup {
  readonly upstream: Upstream;
  readonly tls: ServerCertificate | undefined;
  /** Sessions at once. */
  readonly sessions: number;
  /** Show before anything is measured that the mode does what it is named for; where the upstream is the benchmark's database. */
  readonly prove: boolean;
}

export async function startGatewayMode(plan: ModePlan, setup: GatewaySetup, options: BenchOptions): Promise<Mode> {
  const variant = VARIANTS[plan.name];
  if (variant === undefined) throw new Error(`${plan.name} is no mode of the gateway`);
  const { upstream, tls } = setup;
  const issuer = await startTestIssuer();
  let gateway: Gateway | undefined;
  const stop = async (): Promise<void> => {
    await gateway?.stop();
    await issuer.stop();
  };
  const profile = options.profileFolder === undefined ? {} : profiled(options.profileFolder);
  try {
    gateway = await startGateway({
      issuer,
      targets: [
        {
          name: "bench",
          protocol: "postgres",
          address: `${upstream.host}:${upstream.port}`,
          database: DATABASE,
          user: upstream.superuser,
          password: upstream.password,
          tls: { mode: "disable" },
          connections: { max: setup.sessions },
        },
      ],
      policy: variant.policy,
      config: { workers: plan.workers, record: variant.record, limits: { sessions: setup.sessions } },
      ...(tls && { tls }),
      env: { ...variant.env, ...profile },
    });
    const sslmode = tls === undefined ? "disable" : "require";
    const port = gateway.port;
    const destination = async (group: string): Promise<Destination> => {
      return { port, database: "bench", password: await token(issuer, group), sslmode };
    };
    const to = await destination(GROUPS.masked);
    const unmasked = await destination(GROUPS.unmasked);
    if (setup.prove) await proveGateway(gateway, to, unmasked, variant);
    return { id: plan.id, pid: gateway.pid, to, unmasked, logs: () => gateway?.logs() ?? "", stop };
  } catch (error) {
    await stop();
    throw error;
  }
}

const token = (issuer: TestIssuer, group: string): Promise<string> =>
  issuer.token({ sub: `bench-${group}`, groups: [group, "staff"], expiresInSeconds: 86_400 });

function profiled(folder: string): Record<string, string> {
  const path = resolve(folder);
  mkdirSync(path, { recursive: true });
  return { NODE_OPTIONS: `--cpu-prof --cpu-prof-dir=${path}` };
}
