import { closeSync, constants, fstatSync, openSync, readFileSync } from "node:fs";
import { isAbsolute, resolve } from "node:path";
import { describeValue, type Path, type Problems, pathText, positionOf } from "./problems.ts";
import type { YamlFile } from "./yaml.ts";

/** Certificates, secrets and policies are small. */
const MAX_FILE_BYTES = 4 * 1024 * 1024;

/**
 * Read a regular file of bounded size.
 * @returns its text, or why it cannot be read
 */
export function readText(path: string): { readonly text: string } | { readonly error: string } {
  let descriptor: number | undefined;
  try {
    // Without O_NONBLOCK a FIFO would block the load.
    descriptor = openSync(path, constants.O_RDONLY | constants.O_NONBLOCK);
    const status = fstatSync(descriptor);
    if (!status.isFile()) return { error: "not a file" };
    if (status.size > MAX_FILE_BYTES) return { error: `larger than ${MAX_FILE_BYTES} bytes` };
    return { text: readFileSync(descriptor, "utf8") };
  } catch (error) {
    const code = (error as NodeJS.ErrnoException).code ?? "";
    return {
      error:
        ({ ENOENT: "no such file", EACCES: "permission denied", EISDIR: "a folder, not a file" } as Record<string, string>)[code] ?? code,
    };
  } finally {
    if (descriptor !== undefined) closeSync(descriptor);
  }
}

const REFERENCE = /\$(\$\{|\{([^{}]*)\})/g;

/** What a configuration file pulls in: environment variables and files. Remembers every file, for the reload to watch. */
export class Inputs {
  readonly files = new Set<string>();
  readonly folder: string;
  readonly #env: Readonly<Record<string, string | undefined>>;
  /** Texts that held a reference, as written; errors show these instead of the value. */
  readonly #written = new Map<string, string>();
  readonly #problems: Problems;

  constructor(folder: string, env: Readonly<Record<string, string | undefined>>, problems: Problems) {
    this.folder = folder;
    this.#env = env;
    this.#problems = problems;
  }

  absolute(path: string): string {
    return isAbsolute(path) ? path : resolve(this.folder, path);
  }

  /** Read a file that a key of `document` names; undefined after adding to the problems. */
  read(document: YamlFile, path: Path, name: string): string | undefined {
    const absolute = this.absolute(name);
    this.files.add(absolute);
    const result = readText(absolute);
    if ("text" in result) return result.text;
    const shown = this.show(path, name);
    this.#problems.add(
      document.file,
      positionOf(document.positions, path),
      path,
      `expected a readable file, got ${shown} (${result.error})`,
    );
    return undefined;
  }

  /** Replace `${env:X}` and `${file:path}` in every text of the document; `$${` stands for `${`. */
  resolve(document: YamlFile): YamlFile {
    return { ...document, value: this.#walk(document, document.value, []) };
  }

  /** A value as an error may show it: never a secret, never what a reference stood for. */
  show(path: Path, value: unknown): string {
    const written = this.#written.get(pathText(path));
    if (written !== undefined) return `the value of ${JSON.stringify(written)}`;
    return path.at(-1) === "password" ? "a value that is not shown" : describeValue(value);
  }

  #walk(document: YamlFile, value: unknown, path: Path): unknown {
    if (typeof value === "string") return this.#text(document, value, path);
    if (Array.isArray(value)) return value.map((item, index) => this.#walk(document, item, [...path, index]));
    if (value === null || typeof value !== "object") return value;
    return Object.fromEntries(Object.entries(value).map(([key, item]) => [key, this.#walk(document, item, [...path, key])]));
  }

  #text(document: YamlFile, text: string, path: Path): string {
    if (!text.includes("${")) return text;
    // A literal secret may stand beside a reference: only the references are shown.
    this.#written.set(pathText(path), (text.match(REFERENCE) ?? ["${…"]).join("…"));
    const complain = (what: string): string => {
      this.#problems.add(document.file, positionOf(document.positions, path), path, what);
      return "";
    };
    return text.replace(REFERENCE, (whole, _inner: string, reference: string | undefined) => {
      if (reference === undefined) return "${";
      const colon = reference.indexOf(":");
      const scheme = reference.slice(0, Math.max(colon, 0));
      const name = reference.slice(colon + 1);
      if (name === "" || (scheme !== "env" && scheme !== "file")) {
        return complain(`expected \${env:NAME} or \${file:path}, got ${describeValue(whole)} (write $\${ for a literal \${)`);
      }
      if (scheme === "env") {
        const value = this.#env[name];
        if (value !== undefined && value !== "") return value;
        return complain(`expected the environment variable ${name} to be set, got ${value === undefined ? "none" : "an empty one"}`);
      }
      const content = this.read(document, path, name);
      if (content === undefined) return "";
      const secret = content.replace(/\r?\n$/, "");
      return secret === "" ? complain(`expected a secret in the file ${describeValue(name)}, got an empty file`) : secret;
    });
  }
}
