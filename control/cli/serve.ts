import type { Command } from "commander";
import type { Gateway } from "../../workers/gateway.ts";
import { lockDataFolder } from "../data-lock.ts";
import type { ControlServer } from "../server.ts";
import { type Common, command, printJson, readPlaces, run } from "./context.ts";

export function addServeCommand(program: Command): void {
  command(program, "serve", "run the gateway; prints one JSON line when every listener is up", false).action(
    run(async (options: Common) => {
      // Imported here: other commands need neither workers nor native code.
      const { startGateway } = await import("../../workers/gateway.ts");
      const { loadConfig } = await import("../../core/config/load.ts");
      loadConfig(options.config);
      const hangup = noteHangup();
      // Before anything is opened below it: two gateways must never write to one data folder.
      const lock = lockDataFolder(readPlaces(options.config).data);
      try {
        const gateway = await startGateway(options.config);
        try {
          await serve(gateway, hangup);
        } finally {
          await gateway.close();
        }
      } finally {
        lock.release();
      }
      // Handles that others left open must not keep a gateway alive that has closed.
      process.exit();
    }),
  );
}

async function serve(gateway: Gateway, hangup: { taken(): boolean }): Promise<void> {
  const signals = handleSignals(gateway);
  if (hangup.taken()) process.kill(process.pid, "SIGHUP");
  let control: ControlServer | undefined;
  try {
    const { startControl } = await import("../server.ts");
    control = await startControl(gateway, present(gateway), gateway.config.data);
    const { tcp, socket } = control.addresses;
    printJson({ event: "ready", listeners: gateway.addresses.listeners, control: tcp ?? null, socket, pid: process.pid });
    await gateway.closed;
    // Nobody asked for it: it gave up, and a supervisor that looks at the status has to start another.
    if (!signals.asked) process.exitCode = 1;
  } finally {
    signals.stop();
    await control?.close();
  }
}

/** The configuration as it is when it is asked for: a reload replaces it. */
const present = (gateway: Gateway) => ({
  get control() {
    return gateway.config.control;
  },
});

/** A SIGHUP while the gateway starts would end the process; it is kept for when there is something to reload. */
function noteHangup(): { taken(): boolean } {
  let noted = false;
  const note = (): void => {
    noted = true;
  };
  process.on("SIGHUP", note);
  return {
    taken() {
      process.off("SIGHUP", note);
      return noted;
    },
  };
}

/** The first SIGTERM or SIGINT lets statements end, a second one ends at once; SIGHUP reads the files again. */
function handleSignals(gateway: Gateway): { readonly asked: boolean; stop(): void } {
  let asked = false;
  const end = (): void => {
    const ending = asked ? gateway.close() : gateway.drain();
    asked = true;
    ending.catch(crash);
  };
  const reload = (): void => {
    // Its outcome is in the log, in health and on record.
    gateway.reload("signal SIGHUP").catch(crash);
  };
  process.on("SIGTERM", end);
  process.on("SIGINT", end);
  process.on("SIGHUP", reload);
  return {
    get asked() {
      return asked;
    },
    stop() {
      process.off("SIGTERM", end);
      process.off("SIGINT", end);
      process.off("SIGHUP", reload);
    },
  };
}

/** A gateway that cannot end or reload in an orderly way is in an unknown state: its supervisor starts a new one. */
function crash(thrown: unknown): never {
  process.stderr.write(`sluice: ${thrown instanceof Error ? (thrown.stack ?? thrown.message) : String(thrown)}\n`);
  process.exit(1);
}
