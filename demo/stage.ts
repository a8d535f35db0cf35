import { randomBytes } from "node:crypto";
import { mkdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { createServer } from "node:net";
import { join } from "node:path";
import { serve } from "../test/helpers/gateway.ts";
import { type PostgresServer, startPostgres } from "../test/helpers/postgres.ts";
import { freePort, isAlive, rootFolder, stopProcess } from "../test/helpers/processes.ts";
import { seed } from "./data.ts";
import { personNames, startDemoIssuer, tokenLifeSeconds } from "./issuer.ts";

/** Everything that the demo runs. */
export interface Stage {
  readonly postgres: PostgresServer;
  readonly gatewayPort: number;
  readonly issuerUrl: string;
  /** When the gateway ends by itself: what it had to say. */
  readonly gatewayEnded: Promise<string>;
  stop(): Promise<void>;
}

/** Folder at the root of the repository, made anew at every start. A test of the demo takes one of its own. */
export const demoName = `.demo${process.env.SLUICE_DEMO_SUFFIX?.replace(/[^\w-]/g, "") ?? ""}`;
const demoFolder = join(rootFolder, demoName);
const pidFile = join(demoFolder, "pid");
const logFile = join(demoFolder, "gateway.log");

/** Start PostgreSQL, the issuer and the gateway. @param say told when each is up */
export async function setStage(say: (line: string) => void): Promise<Stage> {
  refuseSecondDemo();
  rmSync(demoFolder, { recursive: true, force: true });
  for (const folder of ["", "secrets", "tokens"]) mkdirSync(join(demoFolder, folder), { mode: 0o700 });
  writeFileSync(pidFile, String(process.pid));
  const ends: (() => Promise<unknown>)[] = [];
  const stop = async () => {
    for (const end of ends.splice(0).reverse()) await end();
    rmSync(pidFile, { force: true });
  };
  try {
    const password = randomBytes(18).toString("base64url");
    writeFileSync(join(demoFolder, "secrets/svc_orders"), password, { mode: 0o600 });
    let started = performance.now();
    const lap = (what: string) => {
      say(`${what.padEnd(58)} ${((performance.now() - started) / 1_000).toFixed(1)} s`);
      started = performance.now();
    };

    const postgres = await startPostgres();
    ends.push(() => postgres.stop());
    await postgres.execute("create database shop");
    await postgres.execute(seed(password), "shop");
    lap(`PostgreSQL 18 with customers and orders, on port ${postgres.port}`);

    const issuer = await startDemoIssuer(await portNear(15_556));
    ends.push(() => issuer.stop());
    const writeTokens = async () => {
      for (const name of personNames) writeFileSync(join(demoFolder, "tokens", name), await issuer.token(name), { mode: 0o600 });
    };
    await writeTokens();
    const renewal = setInterval(
      () => void writeTokens().catch((error: unknown) => say(`tokens were not renewed: ${String(error)}`)),
      tokenLifeSeconds * 500,
    );
    ends.push(async () => clearInterval(renewal));
    lap(`OpenID issuer, ${issuer.issuer}`);

    const gatewayPort = await portNear(15_432);
    const ports: Readonly<Record<string, string | number>> = {
      control: await portNear(18_443),
      gateway: gatewayPort,
      issuer: new URL(issuer.issuer).port,
      postgres: postgres.port,
    };
    for (const name of ["sluice.yaml", "policy.yaml"]) {
      const text = readFileSync(join(rootFolder, "demo", name), "utf8").replace(/^# Configuration of the demo.*\n/, "");
      writeFileSync(
        join(demoFolder, name),
        text.replace(/@(\w+)@/g, (marker, port: string) => String(ports[port] ?? marker)),
      );
    }
    const { child } = await serve(join(demoFolder, "sluice.yaml"), { cwd: demoFolder, logFile });
    child.ref();
    let isStopping = false;
    ends.push(() => {
      isStopping = true;
      return stopProcess(child, "SIGTERM", 10_000);
    });
    const gatewayEnded = new Promise<string>((resolve) => {
      child.once("exit", (code, signal) => {
        if (!isStopping) resolve(`the gateway ended with ${code ?? signal}:\n${readFileSync(logFile, "utf8").slice(-2_000)}`);
      });
    });
    lap(`Sluice, on port ${gatewayPort}`);
    return { postgres, gatewayPort, issuerUrl: issuer.issuer, gatewayEnded, stop };
  } catch (error) {
    await stop();
    throw error;
  }
}

function refuseSecondDemo(): void {
  let pid = 0;
  try {
    pid = Number(readFileSync(pidFile, "utf8"));
  } catch {
    return;
  }
  if (pid !== process.pid && pid > 0 && isAlive(pid)) throw new Error(`a demo runs already, as process ${pid}; end it with Ctrl-C first`);
}

/** The usual port where it is free, so that commands stay the same from one run to the next; otherwise any. */
async function portNear(usual: number): Promise<number> {
  const isFree = await new Promise<boolean>((resolve) => {
    const probe = createServer();
    probe.once("error", () => resolve(false));
    probe.listen(usual, "127.0.0.1", () => probe.close(() => resolve(true)));
  });
  return isFree ? usual : freePort();
}
