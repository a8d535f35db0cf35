import { dirname, isAbsolute, resolve } from "node:path";
import type { Command } from "commander";
import { readText } from "../../core/config/inputs.ts";
import { Problems } from "../../core/config/problems.ts";
import { readYaml } from "../../core/config/yaml.ts";
import { ERROR_CODES, SluiceError, toSluiceError } from "../../core/errors.ts";
import { jsonLine, manyLines, oneLine } from "../../core/printable.ts";

/** Options that every command has. */
export interface Common {
  readonly config: string;
  readonly output?: string;
}

/** Add a command with `-c` and, where it prints data, `-o`. */
export function command(parent: Command, usage: string, description: string, data = true): Command {
  const made = parent.command(usage).description(description).option("-c, --config <file>", "configuration file", "./sluice.yaml");
  return data ? made.option("-o, --output <format>", "text or json", outputFormat, "text") : made;
}

function outputFormat(value: string): string {
  if (value === "text" || value === "json") return value;
  throw new SluiceError("SLUICE_USAGE", `-o takes text or json, not ${JSON.stringify(value)}`);
}

export const wantsJson = (options: Common): boolean => options.output === "json";

/**
 * The values a command about a running or stopped gateway needs, read without resolving secrets: an operator's shell
 * seldom has them. Nothing here is trusted for more than finding the data folder and names.
 */
export interface Places {
  readonly data: string;
  readonly issuers: readonly string[];
  readonly targets: readonly string[];
  readonly listeners: readonly { readonly protocol: string; readonly listen: string; readonly tls: boolean }[];
}

/** @throws SluiceError SLUICE_CONFIG_INVALID */
export function readPlaces(file: string): Places {
  const read = readText(file);
  if ("error" in read)
    throw new SluiceError("SLUICE_CONFIG_INVALID", `${file}: cannot be read: ${read.error}`, {
      hint: "Name the configuration file with -c FILE.",
    });
  const problems = new Problems();
  const hint = "`sluice check` says more.";
  const value = readYaml(file, read.text, problems)?.value;
  problems.throwIfAny("SLUICE_CONFIG_INVALID", hint);
  const root = object(value);
  if (typeof root.data !== "string" || root.data.includes("${"))
    throw new SluiceError("SLUICE_CONFIG_INVALID", `${file}: data: expected a path`, { hint });
  return {
    data: isAbsolute(root.data) ? root.data : resolve(dirname(resolve(file)), root.data),
    issuers: names(object(root.identity).issuers),
    targets: names(root.targets),
    listeners: list(root.listeners).map((entry) => ({
      protocol: String(entry.protocol),
      listen: String(entry.listen),
      tls: entry.tls !== undefined,
    })),
  };
}

const object = (value: unknown): Readonly<Record<string, unknown>> =>
  typeof value === "object" && value !== null ? (value as Readonly<Record<string, unknown>>) : {};
const list = (value: unknown): readonly Readonly<Record<string, unknown>>[] => (Array.isArray(value) ? value.map(object) : []);
const names = (value: unknown): readonly string[] => list(value).flatMap((entry) => (typeof entry.name === "string" ? [entry.name] : []));

/** `alice` → `corp:alice`, where corp is the default issuer. */
export function qualifyName(name: string, issuers: readonly string[]): string {
  const [first] = issuers;
  return issuers.some((issuer) => name.startsWith(`${issuer}:`)) || first === undefined ? name : `${first}:${name}`;
}

export function printJson(value: unknown): void {
  process.stdout.write(`${jsonLine(value)}\n`);
}

/** A line of text whose parts may come from outside. */
export function print(text: string): void {
  process.stdout.write(`${manyLines(text)}\n`);
}

/** Columns for people; values from outside are made harmless. */
export function printTable(head: readonly string[], rows: readonly (readonly (string | number | undefined)[])[], empty: string): void {
  if (rows.length === 0) {
    process.stdout.write(`${empty}\n`);
    return;
  }
  const cells = [head, ...rows].map((row) => row.map((cell) => clip(oneLine(String(cell ?? "-")))));
  const widths = head.map((_, column) => Math.max(...cells.map((row) => [...(row[column] ?? "")].length)));
  for (const row of cells) {
    const line = row.map((cell, column) => cell + " ".repeat(Math.max(0, (widths[column] ?? 0) - [...cell].length))).join("  ");
    process.stdout.write(`${line.trimEnd()}\n`);
  }
}

const CELL_WIDTH = 100;
const clip = (text: string): string => (text.length > CELL_WIDTH ? `${text.slice(0, CELL_WIDTH - 1)}…` : text);

/** Say on stderr what failed and what to do about it; the process then ends with the code's exit status. */
export function fail(thrown: unknown): void {
  const error = toSluiceError(thrown);
  process.stderr.write(`sluice: ${manyLines(error.message)}\n`);
  if (error.hint !== undefined) process.stderr.write(`hint: ${manyLines(error.hint)}\n`);
  // Only where nobody foresaw the fault is its origin worth a reader's time.
  if (error.code === "SLUICE_INTERNAL" && error.cause instanceof Error)
    process.stderr.write(`${manyLines(error.cause.stack ?? error.cause.message)}\n`);
  process.exitCode = ERROR_CODES[error.code];
}

/** Run a command's body; whatever it throws is reported once. */
export function run<T extends unknown[]>(body: (...parameters: T) => Promise<void> | void): (...parameters: T) => Promise<void> {
  return async (...parameters) => {
    try {
      await body(...parameters);
    } catch (thrown) {
      fail(thrown);
    }
  };
}

export function ago(millis: number): string {
  const seconds = Math.max(0, Math.round((Date.now() - millis) / 1000));
  if (seconds < 120) return `${seconds} s`;
  if (seconds < 7_200) return `${Math.round(seconds / 60)} min`;
  return seconds < 172_800 ? `${Math.round(seconds / 3_600)} h` : `${Math.round(seconds / 86_400)} d`;
}
