import { Ajv2020, type AnySchemaObject, type ErrorObject, type ValidateFunction } from "ajv/dist/2020.js";
import { describeValue, type Path, type Problems, positionOf } from "./problems.ts";
import type { YamlFile } from "./yaml.ts";

/**
 * Compile a published schema. `x-expected` in it is the phrase for error messages where a pattern alone would not
 * help the reader.
 */
export function compileSchema(schema: AnySchemaObject): ValidateFunction {
  const ajv = new Ajv2020({ allErrors: true, verbose: true, allowUnionTypes: true, strictTypes: false, strictRequired: false });
  ajv.addVocabulary(["x-expected"]);
  return ajv.compile(schema);
}

/**
 * Check a document against its schema and translate what is wrong into `file:line:column: key: expected …, got …`.
 * @param shown a value as it may be printed (a secret becomes its reference)
 * @param later explains a value that a later version will know; then the problems below its map are left out
 */
export function checkSchema(
  validate: ValidateFunction,
  document: YamlFile,
  problems: Problems,
  shown: (path: Path, value: unknown) => string = (_path, value) => describeValue(value),
  later: (path: Path, value: unknown) => string | undefined = () => undefined,
): boolean {
  if (validate(document.value)) return true;
  const errors = validate.errors ?? [];
  const unavailable: string[] = [];
  for (const error of errors) {
    const path = pointerPath(error.instancePath, document.value);
    const reason = error.keyword === "enum" ? later(path, error.data) : undefined;
    if (reason === undefined) continue;
    problems.add(document.file, positionOf(document.positions, path), path, reason);
    unavailable.push(error.instancePath.replace(/\/[^/]*$/, ""));
  }
  for (const error of errors) {
    if (unavailable.some((pointer) => error.instancePath === pointer || error.instancePath.startsWith(`${pointer}/`))) continue;
    report(error, document, problems, shown, validate.schema as AnySchemaObject);
  }
  return false;
}

function report(
  error: ErrorObject,
  document: YamlFile,
  problems: Problems,
  shown: (path: Path, value: unknown) => string,
  root: AnySchemaObject,
): void {
  const path = pointerPath(error.instancePath, document.value);
  const add = (where: Path, text: string, ofKey = false): void =>
    problems.add(document.file, positionOf(document.positions, where, ofKey), where, text);
  const params = error.params as Record<string, unknown>;
  const schema = (error.parentSchema ?? {}) as Record<string, unknown>;
  const properties = (schema["properties"] ?? {}) as Record<string, Record<string, unknown>>;
  const got = (): string => shown(path, error.data);
  const expected = typeof schema["x-expected"] === "string" ? schema["x-expected"] : undefined;
  switch (error.keyword) {
    case "required": {
      const key = String(params["missingProperty"]);
      return add([...path, key], `expected ${phrase(dereference(properties[key], root))}, got nothing (the key is missing)`);
    }
    case "additionalProperties": {
      const key = String(params["additionalProperty"]);
      const known = Object.keys(properties);
      const near = nearest(key, known);
      return add([...path, key], `unknown key; expected ${oneOf(known)}${near === undefined ? "" : ` (did you mean ${near}?)`}`, true);
    }
    case "if":
      return;
    case "false schema":
      return add(path, `expected this key only ${expected ?? "elsewhere"}`, true);
    case "enum":
    case "const":
      return add(path, `expected ${expected ?? allowed(schema)}, got ${got()}`);
    case "minItems":
    case "minProperties":
    case "minLength":
      return add(path, `expected ${expected ?? phrase(schema)} that is not empty`);
    case "maxItems":
    case "maxLength":
      return add(
        path,
        `expected ${phrase(schema)} of at most ${String(params["limit"])} ${error.keyword === "maxItems" ? "entries" : "characters"}`,
      );
    case "uniqueItems":
      return add(path, "expected no value twice");
    default:
      return add(path, `expected ${expected ?? phrase(schema)}, got ${got()}`);
  }
}

/** References in these schemas are all local: `#/$defs/name`. */
function dereference(schema: Record<string, unknown> | undefined, root: AnySchemaObject): Record<string, unknown> | undefined {
  const name = typeof schema?.["$ref"] === "string" ? schema["$ref"].replace("#/$defs/", "") : undefined;
  if (name === undefined) return schema;
  return { ...(root["$defs"] as Record<string, Record<string, unknown>>)[name], ...schema };
}

const allowed = (schema: Record<string, unknown>): string =>
  oneOf((Array.isArray(schema["enum"]) ? schema["enum"] : [schema["const"]]).map((value) => String(value)));

function oneOf(values: readonly string[]): string {
  const unique = [...new Set(values)];
  return unique.length === 1 ? String(unique[0]) : `one of ${unique.join(", ")}`;
}

/** What a schema wants, in words. */
function phrase(schema: Record<string, unknown> | undefined): string {
  if (schema === undefined) return "a value";
  if (typeof schema["x-expected"] === "string") return schema["x-expected"];
  if (schema["enum"] !== undefined || schema["const"] !== undefined) return allowed(schema);
  const names: Readonly<Record<string, string>> = {
    string: "text",
    integer: "a whole number",
    number: "a number",
    boolean: "true or false",
    array: "a list",
    object: "a map",
    null: "nothing",
  };
  const types = (Array.isArray(schema["type"]) ? schema["type"] : [schema["type"]]).map((type) => names[String(type)] ?? "a value");
  const { minimum, maximum } = schema;
  const range =
    minimum === undefined
      ? ""
      : maximum === undefined
        ? ` of at least ${String(minimum)}`
        : ` from ${String(minimum)} to ${String(maximum)}`;
  return types.join(" or ") + range;
}

/** A JSON pointer (RFC 6901) as path; numbers where the document has a list. */
function pointerPath(pointer: string, root: unknown): Path {
  const path: (string | number)[] = [];
  let value: unknown = root;
  for (const raw of pointer.split("/").slice(1)) {
    const key = raw.replaceAll("~1", "/").replaceAll("~0", "~");
    const part = Array.isArray(value) ? Number(key) : key;
    path.push(part);
    value = (value as Record<string | number, unknown> | undefined)?.[part];
  }
  return path;
}

/** The known key that differs from `key` by at most two edits. */
function nearest(key: string, known: readonly string[]): string | undefined {
  return known.find((other) => Math.abs(other.length - key.length) <= 2 && distance(key.toLowerCase(), other.toLowerCase()) <= 2);
}

function distance(a: string, b: string): number {
  let row = Array.from({ length: b.length + 1 }, (_, index) => index);
  for (let i = 1; i <= a.length; i++) {
    const next = [i];
    for (let j = 1; j <= b.length; j++) {
      next.push(Math.min((row[j] ?? 0) + 1, (next[j - 1] ?? 0) + 1, (row[j - 1] ?? 0) + (a[i - 1] === b[j - 1] ? 0 : 1)));
    }
    row = next;
  }
  return row[b.length] ?? 0;
}
