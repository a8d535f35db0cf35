/** A figure over the rounds of a run. */
export interface Spread {
  readonly median: number;
  readonly min: number;
  readonly max: number;
  /** One value a round, in the order of the rounds. */
  readonly rounds: readonly number[];
}

/** @throws RangeError for no values: a figure that was not measured must not look like one */
export function spread(rounds: readonly number[]): Spread {
  const sorted = [...rounds].sort((a, b) => a - b);
  const middle = sorted.length >> 1;
  const upper = sorted[middle];
  const lower = sorted[(sorted.length - 1) >> 1];
  const min = sorted[0];
  const max = sorted.at(-1);
  if (upper === undefined || lower === undefined || min === undefined || max === undefined) throw new RangeError("no values to summarise");
  return { median: (lower + upper) / 2, min, max, rounds };
}

/**
 * Nearest-rank percentile: the smallest value that at least `percent` per cent of all values do not exceed.
 * @param ascending sorted values
 * @param percent above 0, up to 100
 */
export function percentile(ascending: Float64Array, percent: number): number {
  const value = ascending[Math.max(0, Math.ceil((percent / 100) * ascending.length) - 1)];
  if (value === undefined) throw new RangeError("no values to take a percentile of");
  return value;
}
