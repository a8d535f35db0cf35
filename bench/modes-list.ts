/** Every way from the client to the database, from nothing between them to everything. */
export const MODES = [
  "direct",
  "haproxy",
  "relay",
  "pgbouncer",
  "sluice-bare",
  "sluice-policy",
  "sluice",
  "sluice-digest",
  "sluice-full",
  "sluice-sockets",
  "sluice-small-pages",
] as const;
export type ModeName = (typeof MODES)[number];

export const USUAL_MODES: readonly ModeName[] = ["direct", "haproxy", "pgbouncer", "sluice"];

const LABELS: Readonly<Record<ModeName, string>> = {
  direct: "direct",
  haproxy: "HAProxy",
  relay: "relay",
  pgbouncer: "PgBouncer",
  "sluice-bare": "Sluice bare",
  "sluice-policy": "Sluice policy",
  sluice: "Sluice",
  "sluice-digest": "Sluice, digests",
  "sluice-full": "Sluice, full record",
  "sluice-sockets": "Sluice sockets",
  "sluice-small-pages": "Sluice, small pages",
};

/** A mode as it is run: the same mode may run with several numbers of workers. */
export interface ModePlan {
  /** Key of its figures: the mode's name, with `/N` behind it where it has N workers and N is not 1. */
  readonly id: string;
  readonly name: ModeName;
  readonly workers: number;
}

export const isGateway = (name: string): boolean => name.startsWith("sluice");

/** The first number of workers goes for every mode of the gateway; `sluice` itself runs once with each. */
export function planModes(names: readonly ModeName[], workers: readonly number[]): readonly ModePlan[] {
  return names.flatMap((name) => {
    if (!isGateway(name)) return [{ id: name, name, workers: 1 }];
    const counts = name === "sluice" ? workers : workers.slice(0, 1);
    return counts.map((count) => ({ id: count === 1 ? name : `${name}/${count}`, name, workers: count }));
  });
}

/** A mode's key in words; the key itself where it is of another version. */
export function labelOf(id: string): string {
  const [name = "", workers] = id.split("/");
  const label = LABELS[name as ModeName] ?? name;
  return workers === undefined ? label : `${label}, ${workers} workers`;
}
