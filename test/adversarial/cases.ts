import type { Case } from "./case.ts";
import { CONTENT } from "./cases-content.ts";
import { DOUBT } from "./cases-doubt.ts";
import { EQUALITY } from "./cases-equality.ts";
import { FUNCTIONS } from "./cases-functions.ts";
import { MASKS } from "./cases-masks.ts";
import { MESSAGES } from "./cases-messages.ts";
import { NAMES } from "./cases-names.ts";
import { STATEMENTS } from "./cases-statements.ts";
import { TEXT } from "./cases-text.ts";
import { VIEWS } from "./cases-views.ts";
import { WIRE } from "./cases-wire.ts";

export const CASES: readonly Case[] = [
  ...STATEMENTS,
  ...FUNCTIONS,
  ...NAMES,
  ...TEXT,
  ...MASKS,
  ...EQUALITY,
  ...VIEWS,
  ...CONTENT,
  ...WIRE,
  ...MESSAGES,
  ...DOUBT,
];
