import { base64, below, clock, day, digits, hex, letters, pick, type Random } from "./samples.ts";

const WORDS =
  "the order was shipped to Berlin and invoice paid on time by customer without delay see note below iPhone price 12 of 40".split(" ");

/**
 * What databases are full of and nobody needs masked, by kind. Fixed: a seed gives the same values in every version, so that the
 * rate of false alarms can be compared.
 */
export const BENIGN: Readonly<Record<string, (random: Random) => string>> = {
  integer: (random) => digits(random, 1 + below(random, 12)),
  order: (random) =>
    pick(random, [`ORD-${digits(random, 8)}`, `2024-${digits(random, 6)}`, `SO${digits(random, 7)}`, `#${digits(random, 10)}`]),
  epoch: (random) => `1${digits(random, pick(random, [9, 12, 15, 18]))}`,
  timestamp: (random) =>
    `${day(random)}${pick(random, [" ", "T"])}${clock(random)}${pick(random, ["", `.${digits(random, 6)}`, "+00", "Z", "+02:00"])}`,
  compact: (random) => `${day(random).replaceAll("-", "")}${clock(random).replaceAll(":", "")}`,
  range: (random) => `[${day(random)},${day(random)})`,
  decimal: (random) => String(random() * 10 ** below(random, 6)),
  money: (random) => `${digits(random, 3)},${digits(random, 3)}.${digits(random, 2)}`,
  uuid: (random) => `${hex(random, 8)}-${hex(random, 4)}-4${hex(random, 3)}-a${hex(random, 3)}-${hex(random, 12)}`,
  hash: (random) => hex(random, pick(random, [32, 40, 64, 128])),
  base64: (random) => `${base64(random, 43)}=`,
  address: (random) => Array.from({ length: 4 }, () => below(random, 256)).join("."),
  version: (random) => `${below(random, 20)}.${below(random, 40)}.${below(random, 99)}-rc.${below(random, 9)}`,
  code: (random) =>
    pick(random, [
      "git@github.com:org/repo.git",
      "@app.route('/x')",
      "a[i] = b@c;",
      "lodash@4.17.21",
      "logo@2x.png",
      "if (x > 10) return y - 20;",
      "eyJ",
      "SELECT 1",
    ]),
  prose: (random) => Array.from({ length: 6 + below(random, 12) }, () => pick(random, WORDS)).join(" "),
  isbn: (random) => `978-3-16-${digits(random, 6)}-${digits(random, 1)}`,
  street: (random) => `${below(random, 999)} Main St, Springfield ${digits(random, 5)}-${digits(random, 4)}`,
  coordinates: (random) => `${(random() * 180 - 90).toFixed(6)},${(random() * 360 - 180).toFixed(6)}`,
  invoice: (random) =>
    pick(random, [
      `INV-2024-${digits(random, 6)}`,
      `PO ${digits(random, 10)}`,
      `${letters(random, "ABCDEFGHJKLMNPQRSTUVWXYZ", 3)}-${digits(random, 4)}-${digits(random, 4)}`,
      `${digits(random, 3)}-${digits(random, 7)}-${digits(random, 7)}`,
      `1Z${letters(random, "ABCDEFGHJKLMNPQRSTUVWXYZ0123456789", 16)}`,
    ]),
  http: (random) =>
    pick(random, [
      `Mon, ${10 + below(random, 18)} Jan 2024 ${clock(random)} GMT`,
      `10/Oct/2024:${clock(random)} +0200`,
      `${day(random)} ${clock(random)},${digits(random, 3)} INFO [worker-${below(random, 16)}] done in ${below(random, 5000)} ms`,
    ]),
  ulid: (random) => `01${letters(random, "0123456789ABCDEFGHJKMNPQRSTVWXYZ", 24)}`,
  objectId: (random) => hex(random, 24),
  digest: (random) => pick(random, [`sha256:${hex(random, 64)}`, `W/"${hex(random, 16)}"`, hex(random, 40).toUpperCase()]),
  serial: (random) => `${hex(random, 2)}:${hex(random, 2)}:${hex(random, 2)}:${hex(random, 2)}:${hex(random, 2)}:${hex(random, 2)}`,
  address6: (random) => `2001:db8:${hex(random, 4)}:${hex(random, 4)}::${hex(random, 4)}`,
  json: (random) => `{"id":${digits(random, 6)},"at":"${day(random)}T${clock(random)}Z","tags":["a","b"],"score":${random().toFixed(6)}}`,
  array: (random) => `{${Array.from({ length: 8 }, () => below(random, 10_000)).join(",")}}`,
  row: (random) => Array.from({ length: 6 }, () => below(random, 1_000_000)).join(" "),
  path: (random) => `/srv/app/releases/${day(random).replaceAll("-", "")}${digits(random, 6)}/lib/file_${digits(random, 4)}.rb`,
  url: (random) => `https://example.com/items/${digits(random, 9)}?page=${below(random, 99)}&ref=${hex(random, 12)}#part-2`,
  source: (random) => {
    const name = pick(random, ["total", "rowCount", "next_id", "buffer"]);
    const number = below(random, 10_000);
    return pick(random, [
      `const ${name} = items.reduce((sum, item) => sum + item.price * ${number}, 0);`,
      `for (let i = 0; i < ${number}; i++) ${name}[i] = i & 0xff;`,
      `#define ${name.toUpperCase()} 0x${hex(random, 8)}UL`,
      `@Override public int ${name}() { return ${number}; }`,
      `self.${name} = np.zeros((${number}, ${number}), dtype=np.float32)  # shape`,
      `SELECT ${name}, count(*) FROM orders o JOIN items i USING (id) WHERE o.day > '${day(random)}' LIMIT ${number}`,
      `if ! grep -q "${name}" "$1"; then echo "line ${number}: $@" >&2; exit 1; fi`,
      `x @ W + b  # ${number}.${number}`,
      `${name}: &str = "v${below(random, 9)}.${below(random, 30)}.${number}";`,
    ]);
  },
  letter: (random) =>
    `On ${day(random)} we sent ${below(random, 900)} boxes (${below(random, 90)} kg each) to hall ${below(random, 20)}; call the office in the morning, ` +
    `${pick(random, WORDS)} ${pick(random, WORDS)} by ${clock(random)}. See pages ${below(random, 300)}-${300 + below(random, 300)}.`,
};
