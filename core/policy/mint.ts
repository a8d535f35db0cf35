import type { Allowed, Grant } from "../verdict.ts";

/** The only place where grants and verdicts come into being; imported by core/policy alone (tools/check enforces it). */
export const mintGrant = (fields: Omit<Grant, keyof { [K in keyof Grant as K extends symbol ? K : never]: 1 }>): Grant =>
  Object.freeze(fields) as Grant;
export const mintAllowed = (fields: Pick<Allowed, "rule" | "policyVersion" | "stable" | "observed" | "record">): Allowed =>
  Object.freeze({ kind: "allowed", ...fields }) as Allowed;
