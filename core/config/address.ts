import { isAbsolute, join, resolve } from "node:path";
import type { ListenAddress } from "./types.ts";

/** `127.0.0.1:8443`, `[::1]:8443`, `gateway.example:0`; undefined: not an address. */
export function parseHostPort(text: string): ListenAddress | undefined {
  const match = /^(?:\[([0-9A-Fa-f:.]+)\]|([A-Za-z0-9_.-]+)):(\d{1,5})$/.exec(text);
  const host = match?.[1] ?? match?.[2];
  const port = Number(match?.[3]);
  return host === undefined || port > 65_535 ? undefined : { host, port };
}

/** sun_path of unix(7), without its terminating zero. */
const MAX_SOCKET_PATH_BYTES = 107;

/**
 * Address of a PostgreSQL server. What starts with `/`, `./` or `../` is a path: a socket file is named `.s.PGSQL.PORT`
 * (PostgreSQL, unix_socket_directories); any other path is the folder of that file, with `:PORT` behind it (default 5432).
 * @returns undefined: neither
 */
export function parseTargetAddress(text: string, folder: string): { host: string; port: number } | { path: string } | undefined {
  if (!/^\.{0,2}\//.test(text)) {
    const address = parseHostPort(text);
    return address === undefined || address.port === 0 ? undefined : address;
  }
  const path = socketPath(isAbsolute(text) ? text : resolve(folder, text));
  return path === undefined || Buffer.byteLength(path) > MAX_SOCKET_PATH_BYTES ? undefined : { path };
}

function socketPath(path: string): string | undefined {
  if (/\/\.s\.PGSQL\.\d{1,5}$/.test(path)) return path;
  const [, directory = path, port = "5432"] = /^(.*):(\d{1,5})$/.exec(path) ?? [];
  const number = Number(port);
  return number < 1 || number > 65_535 ? undefined : join(directory, `.s.PGSQL.${number}`);
}

/** The host can only be this machine. Names other than localhost are not looked up. */
export function isLoopbackHost(host: string): boolean {
  const bare = host.replace(/^\[|\]$/g, "").toLowerCase();
  return bare === "localhost" || bare === "::1" || /^127(\.\d{1,3}){3}$/.test(bare);
}
