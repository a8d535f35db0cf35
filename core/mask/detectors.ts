import type { DetectorName } from "../policy/types.ts";
import type { ByteText, Span } from "./bytes.ts";
import { emails } from "./email.ts";
import { ibans } from "./iban.ts";
import { paymentCards, socialSecurityNumbers } from "./numbers.ts";
import { phoneNumbers } from "./phone.ts";
import { cloudKeys, jsonWebTokens, privateKeys } from "./secrets.ts";

/** What a field has at least, so that most fields are passed over without a regular expression. */
export interface FieldFacts {
  readonly bytes: number;
  readonly digits: number;
  readonly dashes: number;
  readonly dots: number;
  /** `@`, or `%` as in `%40`. */
  readonly signs: number;
}

export interface Detector {
  readonly name: DetectorName;
  /** False: find() would find nothing. */
  possible(facts: FieldFacts): boolean;
  /** Exact matches with their validators, in no particular order; may overlap. */
  find(text: ByteText, found: Span[]): void;
}

/** In this order they name a match that several find. */
export const DETECTORS: readonly Detector[] = [
  { name: "private_key", possible: (facts) => facts.bytes >= 21 && facts.dashes >= 3, find: privateKeys },
  { name: "jwt", possible: (facts) => facts.bytes >= 16 && facts.dots >= 1, find: jsonWebTokens },
  { name: "cloud_key", possible: (facts) => facts.bytes >= 20, find: cloudKeys },
  { name: "payment_card", possible: (facts) => facts.digits >= 13, find: paymentCards },
  { name: "iban", possible: (facts) => facts.bytes >= 15 && facts.digits >= 2, find: ibans },
  { name: "us_ssn", possible: (facts) => facts.digits >= 9, find: socialSecurityNumbers },
  { name: "email", possible: (facts) => facts.signs >= 1 && facts.dots >= 1, find: emails },
  { name: "phone", possible: (facts) => facts.digits >= 9, find: phoneNumbers },
];
