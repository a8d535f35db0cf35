import { request } from "node:http";
import { join } from "node:path";
import { ERROR_CODES, type ErrorCode, SluiceError } from "../../core/errors.ts";
import { SOCKET_FILE } from "../data-lock.ts";

const ANSWER_BYTES = 256 * 1024 * 1024;
const ANSWER_MILLIS = 30_000;

/**
 * Ask the running gateway through its socket in the data folder.
 * @throws SluiceError SLUICE_GATEWAY_UNREACHABLE when none runs there; the gateway's own error otherwise
 */
export function ask<T>(dataFolder: string, method: "GET" | "POST" | "DELETE", path: string, body?: object): Promise<T> {
  const socketPath = join(dataFolder, SOCKET_FILE);
  const payload = body === undefined ? undefined : JSON.stringify(body);
  const headers = {
    host: "localhost",
    ...(payload === undefined ? {} : { "content-type": "application/json", "content-length": Buffer.byteLength(payload) }),
  };
  return new Promise((resolve, reject) => {
    const sent = request({ socketPath, method, path, headers, agent: false, timeout: ANSWER_MILLIS }, (response) => {
      const chunks: Buffer[] = [];
      let bytes = 0;
      response.on("data", (chunk: Buffer) => {
        bytes += chunk.length;
        if (bytes > ANSWER_BYTES) response.destroy(new Error("the answer is too large"));
        else chunks.push(chunk);
      });
      response.on("error", () => reject(unreachable(socketPath, "it broke the connection off")));
      response.on("end", () => {
        try {
          const answer: unknown = JSON.parse(Buffer.concat(chunks).toString("utf8"));
          if ((response.statusCode ?? 500) < 300) resolve(answer as T);
          else reject(errorOf(answer));
        } catch {
          reject(unreachable(socketPath, "what answered is not a gateway"));
        }
      });
    });
    sent.on("timeout", () =>
      sent.destroy(new SluiceError("SLUICE_DEADLINE", `the gateway did not answer within ${ANSWER_MILLIS / 1000} seconds`)),
    );
    sent.on("error", (error: NodeJS.ErrnoException) =>
      reject(error instanceof SluiceError ? error : unreachable(socketPath, reasonOf(error.code))),
    );
    sent.end(payload);
  });
}

function reasonOf(code: string | undefined): string {
  if (code === "ENOENT" || code === "ECONNREFUSED") return "no gateway runs there";
  if (code === "EACCES" || code === "EPERM") return "it belongs to another user";
  return code ?? "the connection failed";
}

const unreachable = (socketPath: string, why: string): SluiceError =>
  new SluiceError("SLUICE_GATEWAY_UNREACHABLE", `cannot reach the gateway at ${socketPath}: ${why}`, {
    hint: "Start it with `sluice serve`, run this as the gateway's user, or name its configuration with -c FILE.",
  });

function errorOf(answer: unknown): SluiceError {
  const { error } = (answer ?? {}) as { error?: { code?: string; message?: string; hint?: string } };
  const code = error?.code !== undefined && Object.hasOwn(ERROR_CODES, error.code) ? (error.code as ErrorCode) : "SLUICE_INTERNAL";
  return new SluiceError(
    code,
    error?.message ?? "the gateway refused without a reason",
    error?.hint === undefined ? {} : { hint: error.hint },
  );
}
