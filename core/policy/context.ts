import type { TargetConfig } from "../config/types.ts";
import type { Identity } from "../identity/types.ts";
import { classOf } from "./actions.ts";
import { CelClient, type CelContext, CelIdentity, CelOperation, CelTarget, CelTime } from "./cel.ts";
import type { Moment, Operation } from "./types.ts";

/** The variables of `when` for one session; filled only when a `when` is reached. */
export class WhenContext implements CelContext {
  readonly identity: CelIdentity;
  readonly target: CelTarget;
  readonly operation = new CelOperation();
  readonly client = new CelClient();
  readonly time = new CelTime();

  constructor(identity: Identity, target: TargetConfig) {
    const { issuer, user, subject, groups, claims } = identity;
    this.identity = Object.assign(new CelIdentity(), { issuer, user, subject, groups, claims });
    const { name, protocol, labels, database } = target;
    // Picked one by one: the target's credential must not be within an expression's reach.
    this.target = Object.assign(new CelTarget(), { name, protocol, labels, database });
  }

  fill(operation: Operation, moment: Moment): void {
    const { accesses } = operation;
    const variables = this.operation;
    variables.actions = accesses.map((access) => access.action);
    variables.resources = [...new Set(accesses.flatMap((access) => access.resources))];
    variables.tables = operation.tables;
    variables.columns = operation.columns;
    variables.functions = operation.functions;
    variables.unfiltered = operation.unfiltered;
    variables.statements = BigInt(operation.statements);
    variables.text = moment.text;
    variables.parameters = moment.parameters.map((value) => value ?? null);
    variables.transaction = moment.transaction;
    this.client.address = withoutPort(moment.clientAddress);
    const date = new Date(moment.nowMillis);
    this.time.hour = BigInt(date.getUTCHours());
    this.time.minute = BigInt(date.getUTCMinutes());
    this.time.weekday = BigInt(date.getUTCDay());
    this.time.epochSeconds = BigInt(Math.floor(moment.nowMillis / 1_000));
  }

  judge(action: string): void {
    this.operation.action = action;
    this.operation.class = classOf(action);
  }
}

/** `10.0.0.1:555` → `10.0.0.1`, `[::1]:555` → `::1`; an address without a port stays. */
export function withoutPort(address: string): string {
  const match = /^\[(.*)\](?::\d+)?$/.exec(address) ?? /^([^:]*):\d+$/.exec(address);
  return match?.[1] ?? address;
}
