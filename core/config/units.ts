/** Sizes and durations as people write them in configuration: `1MB`, `64KiB`, `15m`, `500ms`. */

const BYTE_UNITS: Readonly<Record<string, number>> = {
  B: 1,
  kB: 1e3,
  KB: 1e3,
  MB: 1e6,
  GB: 1e9,
  TB: 1e12,
  KiB: 2 ** 10,
  MiB: 2 ** 20,
  GiB: 2 ** 30,
  TiB: 2 ** 40,
};

const MILLIS_UNITS: Readonly<Record<string, number>> = { ms: 1, s: 1_000, m: 60_000, h: 3_600_000, d: 86_400_000 };

const QUANTITY = /^(\d{1,15}(?:\.\d{1,6})?)\s?([A-Za-z]+)$/;

function parse(text: string, units: Readonly<Record<string, number>>): number | undefined {
  const match = QUANTITY.exec(text);
  if (match === null) return undefined;
  const [, amount, unit] = match;
  if (amount === undefined || unit === undefined || !Object.hasOwn(units, unit)) return undefined;
  const value = Number(amount) * (units[unit] ?? Number.NaN);
  return Number.isSafeInteger(value) ? value : undefined;
}

/** `50MB` (10^6), `1MiB` (2^20), `512B` → bytes; undefined: not a size, or not a whole number of bytes below 2^53. */
export const parseBytes = (text: string): number | undefined => parse(text, BYTE_UNITS);

/** `500ms`, `60s`, `15m`, `1h`, `7d` → milliseconds; undefined: not a duration, or not a whole number of milliseconds. */
export const parseDurationMillis = (text: string): number | undefined => parse(text, MILLIS_UNITS);
