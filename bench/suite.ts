import type { PostgresServer } from "../test/helpers/postgres.ts";
import { startDatabase } from "./database.ts";
import type { Figure, Figures, WorkloadKind } from "./figures.ts";
import { type MachineFacts, machineFacts } from "./machine.ts";
import { type Mode, makeCertificate, residentMegabytes, Servers, startMode } from "./modes.ts";
import { isGateway, type ModePlan } from "./modes-list.ts";
import type { BenchOptions } from "./options.ts";
import { type Spread, spread } from "./statistics.ts";
import { type Subject, type Workload, workloadsOf } from "./workloads.ts";

export type Spreads = Partial<Record<Figure, Spread>>;

export interface WorkloadResult {
  readonly name: string;
  readonly kind: WorkloadKind;
  /** Transactions a second that were asked for, where the rate is fixed. */
  readonly rate?: number;
  /** By the mode's id; what failed before its first figure is missing. */
  readonly modes: Readonly<Record<string, Spreads>>;
  /** By the id of a mode of the gateway: its figure divided by PgBouncer's of the same round. */
  readonly ratios: Readonly<Record<string, Spreads>>;
}

export interface Failure {
  readonly mode: string;
  readonly during: string;
  readonly message: string;
}

export interface BenchResult {
  readonly version: 2;
  readonly machine: MachineFacts;
  readonly options: BenchOptions;
  readonly workloads: readonly WorkloadResult[];
  /** Resident memory of the proxy at the end, 10^6 bytes. */
  readonly residentMegabytes: Readonly<Record<string, number>>;
  readonly failures: readonly Failure[];
  readonly tookSeconds: number;
}

type Say = (line: string) => void;

/** @param earlierRates rates of an earlier run by workload: two runs compare at the same rate only */
export function runSuite(options: BenchOptions, earlierRates: ReadonlyMap<string, number>, say: Say): Promise<BenchResult> {
  return new Suite(options, say).run(earlierRates);
}

/** Figures of one mode in one workload, one entry a round. */
type Measured = Map<Workload, Map<string, Figures[]>>;

class Suite {
  readonly #options: BenchOptions;
  readonly #say: Say;
  readonly #servers = new Servers();
  readonly #failures: Failure[] = [];
  readonly #modes = new Map<ModePlan, Mode>();
  readonly #rates = new Map<Workload, number>();
  readonly #measured: Measured = new Map();
  readonly #workloads: readonly Workload[];

  constructor(options: BenchOptions, say: Say) {
    this.#options = options;
    this.#say = say;
    this.#workloads = workloadsOf(options);
  }

  async run(earlierRates: ReadonlyMap<string, number>): Promise<BenchResult> {
    const started = performance.now();
    const machine = machineFacts(new Date());
    const options = this.#options;
    try {
      this.#say(`starting PostgreSQL; pgbench scale ${options.scale}, table of ${options.bulkMegabytes} MB`);
      const database = this.#servers.add(await startDatabase(options));
      await this.#startModes(database);
      if (options.warmupSeconds > 0) await this.#warmUp(database);
      await this.#chooseRates(earlierRates);
      await this.#measure(database);
      const resident: Record<string, number> = {};
      for (const [, mode] of this.#alive()) {
        const megabytes = residentMegabytes(mode);
        if (megabytes !== undefined) resident[mode.id] = megabytes;
      }
      return {
        version: 2,
        machine,
        options,
        workloads: this.#workloads.map((workload) => this.#summarise(workload)),
        residentMegabytes: resident,
        failures: this.#failures,
        tookSeconds: (performance.now() - started) / 1_000,
      };
    } finally {
      await this.#servers.stop();
    }
  }

  #fail(mode: string, during: string, error: unknown): void {
    const message = error instanceof Error ? error.message : String(error);
    this.#failures.push({ mode, during, message });
    this.#say(`FAILED  ${mode}, ${during}: ${message}`);
  }

  /** A mode that has failed once has no further runs: its rounds then still match the others'. */
  #alive(): readonly (readonly [ModePlan, Mode])[] {
    return [...this.#modes].filter(([{ id }]) => !this.#failures.some((failure) => failure.mode === id));
  }

  async #startModes(database: PostgresServer): Promise<void> {
    const tls = await makeCertificate(this.#options, this.#servers);
    for (const plan of this.#options.modes) {
      this.#say(`starting ${plan.id}`);
      try {
        this.#modes.set(plan, this.#servers.add(await startMode(plan, database, tls, this.#options)));
      } catch (error) {
        this.#fail(plan.id, "start", error);
      }
    }
  }

  #subject(plan: ModePlan, mode: Mode, workload: Workload, database: PostgresServer): Subject {
    return { plan, mode, options: this.#options, rate: this.#rates.get(workload) ?? 0, database };
  }

  async #warmUp(database: PostgresServer): Promise<void> {
    for (const [plan, mode] of this.#alive()) {
      this.#say(`warming up ${plan.id}`);
      try {
        for (const workload of this.#workloads) await workload.warmUp?.(this.#subject(plan, mode, workload, database));
      } catch (error) {
        this.#fail(plan.id, "warm-up", error);
      }
    }
  }

  /** One rate a workload for all modes and rounds: as asked for, as in the earlier run, or half of what PgBouncer reaches now. */
  async #chooseRates(earlierRates: ReadonlyMap<string, number>): Promise<void> {
    for (const workload of this.#workloads) {
      if (workload.saturate === undefined) continue;
      const given = this.#options.rate ?? earlierRates.get(workload.name);
      if (given !== undefined) {
        this.#rates.set(workload, given);
        continue;
      }
      const [plan, mode] = this.#alive().find(([{ name }]) => name === "pgbouncer") ?? this.#alive()[0] ?? [];
      if (plan === undefined || mode === undefined) return;
      try {
        const best = await workload.saturate(mode, this.#options);
        this.#rates.set(workload, Math.max(1, Math.round(best / 2)));
        this.#say(`${workload.name}: ${plan.id} reaches ${best.toFixed(0)}/s, so the rate is ${this.#rates.get(workload)}/s`);
      } catch (error) {
        this.#fail(plan.id, `saturation, ${workload.name}`, error);
      }
    }
  }

  async #measure(database: PostgresServer): Promise<void> {
    const { rounds } = this.#options;
    for (const workload of this.#workloads) this.#measured.set(workload, new Map());
    for (let round = 1; round <= rounds; round++) {
      for (const workload of this.#workloads) {
        if (round > (workload.rounds ?? rounds)) continue;
        if (workload.saturate !== undefined && !this.#rates.has(workload)) continue;
        for (const [plan, mode] of this.#alive()) {
          if (workload.without?.(plan) === true) continue;
          try {
            const figures = await workload.run(this.#subject(plan, mode, workload, database));
            append(this.#measured.get(workload), plan.id, figures);
            this.#say(`round ${round}/${rounds}  ${workload.name.padEnd(33)} ${plan.id.padEnd(14)} ${brief(figures)}`);
          } catch (error) {
            this.#fail(plan.id, `round ${round}, ${workload.name}`, error);
          }
        }
      }
    }
  }

  #summarise(workload: Workload): WorkloadResult {
    const byMode = this.#measured.get(workload) ?? new Map<string, Figures[]>();
    const bouncer = byMode.get("pgbouncer") ?? [];
    const modes: Record<string, Spreads> = {};
    const ratios: Record<string, Spreads> = {};
    for (const [id, rounds] of byMode) {
      modes[id] = overRounds(rounds);
      if (!isGateway(id)) continue;
      const ofRounds = rounds.flatMap((figures, round) => {
        const base = bouncer[round];
        return base === undefined ? [] : [ratio(figures, base)];
      });
      if (ofRounds.length > 0) ratios[id] = overRounds(ofRounds);
    }
    const rate = this.#rates.get(workload);
    return { name: workload.name, kind: workload.kind, ...(rate !== undefined && { rate }), modes, ratios };
  }
}

function append(byMode: Map<string, Figures[]> | undefined, id: string, figures: Figures): void {
  const rounds = byMode?.get(id);
  if (rounds === undefined) byMode?.set(id, [figures]);
  else rounds.push(figures);
}

const brief = (figures: Figures): string =>
  Object.entries(figures)
    .map(([name, value]) => `${name} ${value.toPrecision(4)}`)
    .join("  ");

/** Where the base is too small to be measured there is no ratio. */
const ratio = (figures: Figures, base: Figures): Figures =>
  Object.fromEntries(
    Object.entries(figures).flatMap(([name, value]) => {
      const below = base[name as Figure];
      return below === undefined || below === 0 ? [] : [[name, value / below]];
    }),
  );

/** Figures that every round has. */
function overRounds(rounds: readonly Figures[]): Spreads {
  const names = Object.keys(rounds[0] ?? {}) as Figure[];
  return Object.fromEntries(
    names.flatMap((name) => {
      const values = rounds.flatMap((figures) => figures[name] ?? []);
      return values.length === rounds.length ? [[name, spread(values)]] : [];
    }),
  );
}
