const firstNames = [
  "Ada",
  "Bela",
  "Chen",
  "Dina",
  "Emil",
  "Fatou",
  "Goran",
  "Hana",
  "Ivo",
  "Jamila",
  "Kofi",
  "Lena",
  "Mateo",
  "Nadia",
  "Omar",
  "Petra",
];
const lastNames = [
  "Adler",
  "Bianchi",
  "Castro",
  "Dubois",
  "Eriksen",
  "Fischer",
  "Garcia",
  "Horvat",
  "Ito",
  "Jansen",
  "Kowalski",
  "Lindqvist",
];
const cities = ["Lisbon", "Oslo", "Graz", "Turin", "Ghent", "Riga", "Porto", "Brno"];
const items = ["bicycle", "kettle", "lamp", "desk", "tent", "radio", "globe", "loom"];
const states = ["placed", "packed", "shipped", "returned"];

/** SQL that makes the demo's tables: made-up people, the same ones every time. */
export function seed(servicePassword: string): string {
  const customers: string[] = [];
  const orders: string[] = [];
  for (let id = 1; id <= 48; id++) {
    const first = pick(firstNames, id * 7);
    const last = pick(lastNames, id * 5);
    const email = `${first}.${last}${id}@example.com`.toLowerCase();
    const ssn = `${100 + ((id * 37) % 560)}-${String(10 + ((id * 13) % 80))}-${String(1_000 + ((id * 7_919) % 8_999))}`;
    const card = cardNumber(id);
    const note = id % 3 === 0 ? `Pays with ${card}` : id % 3 === 1 ? `Write to ${email}` : "Likes to be called in the morning";
    customers.push(`(${id}, '${first} ${last}', '${email}', '${ssn}', '${card}', '${pick(cities, id)}', '${note}')`);
    for (let n = 0; n < 1 + (id % 4); n++) {
      orders.push(
        `(${id}, '${pick(items, id + n)}', ${1_000 + ((id * 977 + n * 131) % 90_000)}, '${pick(states, id + n * 3)}', date '2026-01-01' + ${(id * 3 + n) % 200})`,
      );
    }
  }
  return `
    create role svc_orders login password '${servicePassword}';
    alter schema public owner to svc_orders;
    set role svc_orders;
    create table customers (id int primary key, name text not null, email text not null, ssn text not null, card text not null, city text not null, note text);
    create table orders (id int generated always as identity primary key, customer_id int not null references customers, item text not null, amount_cents int not null, status text not null, placed_on date not null);
    insert into customers values ${customers.join(",\n")};
    insert into orders (customer_id, item, amount_cents, status, placed_on) values ${orders.join(",\n")};
    create index on orders (customer_id);
    reset role;
    analyze;`;
}

const pick = (from: readonly string[], at: number): string => from[at % from.length] as string;

/** A card number in the range that networks keep for tests, with its check digit (ISO/IEC 7812-1, Luhn). */
function cardNumber(id: number): string {
  const digits = `42424242${String(id * 104_729)
    .padStart(7, "0")
    .slice(-7)}`;
  let sum = 0;
  for (let at = 0; at < digits.length; at++) {
    const digit = Number(digits[at]);
    sum += at % 2 === 1 ? digit : digit > 4 ? digit * 2 - 9 : digit * 2;
  }
  return `${digits}${(10 - (sum % 10)) % 10}`.replace(/(\d{4})(?=\d)/g, "$1 ");
}
