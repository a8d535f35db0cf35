import assert from "node:assert/strict";
import { test } from "node:test";
import type { Span } from "./bytes.ts";
import { emails } from "./email.ts";

const found = (text: string): string[] => {
  const spans: Span[] = [];
  emails(text, spans);
  return spans.map(({ start, end }) => text.slice(start, end));
};

test("where a domain ends, and what is none", () => {
  const long = "a".repeat(63);
  for (const [text, expected] of [
    ["a@b.example", ["a@b.example"]],
    ["a@mail2.b.example.", ["a@mail2.b.example"]],
    [`a@${long}.example`, [`a@${long}.example`]],
    [`a@${long}a.example`, []],
    [`a@b.${long}`, [`a@b.${long}`]],
    [`a@b.${long}a`, []],
    // What follows an unfit label is not part of the domain.
    ["a@b.example..com", ["a@b.example"]],
    [`a@b.example.${long}a.com`, ["a@b.example"]],
    ["a@.example", []],
    ["a@b", []],
    ["a@b.c", []],
    // No top-level domain has a digit in it, but a common one may have a number directly behind it.
    ["a@b.c3po", []],
    ["a@b.example.c3", ["a@b.example"]],
    ["a@b.com2024", ["a@b.com"]],
    ["a@163.com", ["a@163.com"]],
    ["pkg@1.2.3-rc.next", []],
    ["logo@x2.PNG", []],
    ["getty@tty1.service", []],
    ["git@host.example:path b@c.example:path", ["b@c.example"]],
    ["x,!a!b@c.example", ["a!b@c.example"]],
    ["a%40b.example", ["a%40b.example"]],
  ] as const) {
    assert.deepEqual(found(text), expected, text);
  }
});
