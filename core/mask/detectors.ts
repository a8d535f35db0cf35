import type { DetectorName } from "../policy/types.ts";
import type { ByteText, Span } from "./bytes.ts";
import { emails } from "./email.ts";
import { ibans } from "./iban.ts";
import { paymentCards, socialSecurityNumbers } from "./numbers.ts";
import { phoneNumbers } from "./phone.ts";
import { cloudKeys, jsonWebTokens, privateKeys } from "./secrets.ts";

/** How many a field has of what matches need, so that most fields are passed over without a regular expression. */
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
  /** No shorter text is a match: fields below this are never looked at. */
  readonly leastBytes: number;
  /** False: find() would find nothing. */
  possible(facts: FieldFacts): boolean;
  /** Exact matches with their validators, in no particular order; may overlap. */
  find(text: ByteText, found: Span[]): void;
}

/** In this order they name a match that several find. */
export const DETECTORS: readonly Detector[] = [
  { name: "private_key", leastBytes: 21, possible: (facts) => facts.dashes >= 3, find: privateKeys },
  { name: "jwt", leastBytes: 16, possible: (facts) => facts.dots >= 1, find: jsonWebTokens },
  { name: "cloud_key", leastBytes: 20, possible: () => true, find: cloudKeys },
  { name: "payment_card", leastBytes: 13, possible: (facts) => facts.digits >= 13, find: paymentCards },
  { name: "iban", leastBytes: 15, possible: (facts) => facts.digits >= 2, find: ibans },
  { name: "us_ssn", leastBytes: 11, possible: (facts) => facts.digits >= 9, find: socialSecurityNumbers },
  { name: "email", leastBytes: 6, possible: (facts) => facts.signs >= 1 && facts.dots >= 1, find: emails },
  { name: "phone", leastBytes: 10, possible: (facts) => facts.digits >= 9, find: phoneNumbers },
];
