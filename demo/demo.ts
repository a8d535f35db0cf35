import { spawnSync } from "node:child_process";
import { demoName, setStage } from "./stage.ts";
import { psqlCommand, runTour } from "./tour.ts";

// `npm run demo`: everything on this machine, until Ctrl-C. `npm run demo -- --tour`: a scripted tour, then the end.
const unknown = process.argv.slice(2).filter((word) => word !== "--tour");
if (unknown.length > 0) {
  console.error(`unknown option ${unknown.join(" ")}; usage: npm run demo [-- --tour]`);
  process.exit(2);
}
const isTour = process.argv.includes("--tour");
const hasPsql = spawnSync("psql", ["--version"]).status === 0;
if (!hasPsql) {
  console.error("psql is not installed (Debian: postgresql-client).");
  if (isTour) process.exit(1);
}

console.log("Sluice demo");
const stage = await setStage((line) => console.log(`  ${line}`)).catch((error: unknown) => {
  console.error(error instanceof Error ? error.message : error);
  process.exit(1);
});
let isEnding = false;
const end = async (status: number) => {
  if (isEnding) process.exit(status); // a second Ctrl-C: what is left ends with this process
  isEnding = true;
  await stage.stop();
  process.exit(status);
};
process.on("SIGINT", () => {
  if (!isEnding) console.log("\nStopping …");
  void end(isTour ? 130 : 0);
});
process.on("SIGTERM", () => void end(143));
void stage.gatewayEnded.then((why) => {
  console.error(why);
  return end(1);
});

if (isTour) {
  const failed = await runTour(stage);
  await end(failed === 0 ? 0 : 1);
}

console.log(`
Paste in another terminal, in this folder. The token is the password; who you are comes from it.

  An analyst (reads; personal data is masked)
    ${psqlCommand(stage.gatewayPort, "analyst")}
    ${psqlCommand(stage.gatewayPort, "analyst", "select id, name, email, ssn, note from customers limit 5")}
  An administrator (reads and writes, unmasked; must not drop)
    ${psqlCommand(stage.gatewayPort, "dba")}
    ${psqlCommand(stage.gatewayPort, "dba", "drop table orders")}
  A machine (orders only)
    ${psqlCommand(stage.gatewayPort, "ci", "select count(*) from orders")}

  What happened, who is on, and the kill switch
    ./sluice audit tail --follow -c ${demoName}/sluice.yaml
    ./sluice sessions list -c ${demoName}/sluice.yaml
    ./sluice lock add user:analyst --reason "tour" -c ${demoName}/sluice.yaml

Policy: ${demoName}/policy.yaml (edit it; it is reloaded). Log: ${demoName}/gateway.log. Ctrl-C ends everything.`);
