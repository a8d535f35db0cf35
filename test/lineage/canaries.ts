import { Random } from "../fuzz/random.ts";
import type { ValueType } from "./model.ts";

// Values of masked columns, made so that a part of one cannot come about by chance: text alternates between letters that are not
// hexadecimal and digits that are not in base32, so that neither a hash mask's token nor a UUID can look like it.

const LETTERS = "ghjkmnpqrstvwxz";
const DIGITS = "0189";
const TEXT_WINDOW = 6;
const NUMBER_WINDOW = 8;

const ALTERNATING = /(?:[g-z][0189]){3}[g-z]?(?:[0189][g-z])*|(?:[0189][g-z]){3}[0189]?/g;
const HEX = /(?:(?:6[7-9a-f]|7[0-9a])3[0189]){3}|(?:3[0189](?:6[7-9a-f]|7[0-9a])){3}/g;
const NUMBERS = /\d{8,}/g;
const DATES = /\d{4}-\d\d-\d\d/g;
const UUIDS = /[0-9a-f]{8}-[0-9a-f]{4}/g;

/** Everything that stands in masked columns of one database, and in what forms it would be recognised. */
export class Canaries {
  readonly #random: Random;
  readonly #text = new Set<string>();
  readonly #numbers = new Set<string>();
  readonly #words = new Set<string>();
  count = 0;

  constructor(seed: number) {
    this.#random = new Random(seed);
  }

  #alternating(): string {
    const length = 12 + this.#random.below(8);
    let text = "";
    for (let at = 0; at < length; at += 1) text += this.#random.pick([...(at % 2 === 0 ? LETTERS : DIGITS)]);
    const forms = [text, [...text].reverse().join("")];
    for (const form of forms) {
      for (let at = 0; at + TEXT_WINDOW <= form.length; at += 1) {
        const window = form.slice(at, at + TEXT_WINDOW);
        this.#text.add(window);
        this.#words.add(Buffer.from(window).toString("hex"));
      }
    }
    this.count += 1;
    return text;
  }

  #digits(first: string, length: number): string {
    let text = first;
    while (text.length < length) text += String(this.#random.below(10));
    for (let at = 0; at + NUMBER_WINDOW <= text.length; at += 1) this.#numbers.add(text.slice(at, at + NUMBER_WINDOW));
    this.count += 1;
    return text;
  }

  #date(): string {
    const two = (most: number) => String(1 + this.#random.below(most)).padStart(2, "0");
    const date = `${6_000 + this.#random.below(3_900)}-${two(12)}-${two(28)}`;
    this.#words.add(date);
    this.#numbers.add(date.replaceAll("-", ""));
    this.count += 1;
    return date;
  }

  /** An SQL literal of this type that holds a canary. */
  literal(type: ValueType): string {
    switch (type) {
      case "int":
        return this.#digits("1", 9);
      case "num":
        return `${this.#digits("7", 11)}.25`;
      case "date":
        return `'${this.#date()}'`;
      case "time":
        return `'${this.#date()} 01:02:03'`;
      case "uuid": {
        const uuid = this.#random
          .bytes(16)
          .toString("hex")
          .replace(/^(.{8})(.{4})(.{4})(.{4})/, "$1-$2-$3-$4-");
        this.#words.add(uuid.slice(0, 13));
        this.count += 1;
        return `'${uuid}'`;
      }
      case "json":
        return `'{"k": "${this.#alternating()}", "n": ${this.#digits("5", 12)}, "l": ["${this.#alternating()}"], "${this.#alternating()}": 1}'`;
      case "bytes":
        return `'\\x${Buffer.from(this.#alternating()).toString("hex")}'`;
      case "list":
        return `array['${this.#alternating()}', '${this.#alternating()}']`;
      case "place":
        return `row('${this.#alternating()}', ${this.#digits("1", 9)})`;
      case "bool":
        return this.#random.oneIn(2) ? "true" : "false";
      default:
        return `'${this.#alternating()}'`;
    }
  }

  /** What of a canary is in these bytes: a piece of six characters, as it is, backwards or in hex, a number, a date, a UUID. */
  find(bytes: Uint8Array): string | undefined {
    const text = Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength).toString("latin1").toLowerCase();
    for (const [pattern, known, size] of [
      [ALTERNATING, this.#text, TEXT_WINDOW],
      [HEX, this.#words, TEXT_WINDOW * 2],
      [NUMBERS, this.#numbers, NUMBER_WINDOW],
      [DATES, this.#words, 10],
      [UUIDS, this.#words, 13],
    ] as const) {
      for (const [match] of text.matchAll(pattern)) {
        for (let at = 0; at + size <= match.length; at += 1) if (known.has(match.slice(at, at + size))) return match;
      }
    }
    return undefined;
  }
}
