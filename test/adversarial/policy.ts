import { randomBytes, randomInt } from "node:crypto";

const random = (name: string): string => `${name}x${randomBytes(9).toString("hex")}`;

const luhn = (digits: string): string => {
  let sum = 0;
  for (let index = 0; index < digits.length; index += 1) {
    const digit = Number(digits[digits.length - 1 - index]);
    const doubled = index % 2 === 0 ? digit * 2 : digit;
    sum += doubled > 9 ? doubled - 9 : doubled;
  }
  return `${digits}${(10 - (sum % 10)) % 10}`;
};

const iban = (): string => {
  const account = Array.from({ length: 18 }, () => randomInt(10)).join("");
  // ISO 13616: country and 00 behind the account, letters as numbers, 98 minus the remainder by 97.
  const check = 98n - (BigInt(`${account}131400`) % 97n);
  return `DE${String(check).padStart(2, "0")}${account}`;
};

/** Names as long as the server keeps them. */
export const LONG = `long_${"n".repeat(58)}`;
/** One byte is left before the limit: a character of two bytes behind it is cut off whole. */
export const ALMOST_LONG = `wide_${"m".repeat(57)}`;
export const LONG_SCHEMA = `path_${"s".repeat(58)}`;

/** What no client of the suite may get to see, by where it stands. */
export const HIDDEN = {
  secret: random("secret"),
  hr: random("hr"),
  long: random("long"),
  wide: random("wide"),
  odd: random("odd"),
  path: random("path"),
  file: random("file"),
  email: random("email"),
  email2: random("mail2"),
  ssn: random("ssn"),
  phone: random("phone"),
  doc: random("doc"),
  tag: random("tag"),
  photo: random("photo"),
  child: random("child"),
  event: random("event"),
  extra: random("extra"),
  person: random("person"),
  kind: random("kind"),
  label: random("label"),
} as const;

/** What detectors must find. */
export const DETECTED = {
  card: luhn(`4539${Array.from({ length: 11 }, () => randomInt(10)).join("")}`),
  iban: iban(),
  mail: `${random("mail")}@corp.example`,
} as const;

/** May be seen, so that the search for the others is known to find something. */
export const SHOWN = random("shown");

const grouped = (digits: string, by: string): string => digits.match(/.{1,4}/g)?.join(by) ?? digits;

/** Every form of every canary that is searched for, in lower case. */
export const FORBIDDEN: readonly string[] = [
  ...Object.values(HIDDEN).flatMap((canary) => {
    const bytes = Buffer.from(canary);
    return [canary, [...canary].reverse().join(""), bytes.toString("hex"), canary.slice(-14), bytes.toString("base64").slice(2, -4)];
  }),
  ...[DETECTED.card, DETECTED.iban].flatMap((digits) => [digits, grouped(digits, " "), grouped(digits, "-")]),
  DETECTED.mail,
].map((form) => form.toLowerCase());

/** The canary whose trace is in these bytes. */
export function foundCanary(bytes: Uint8Array, forms: readonly string[] = FORBIDDEN): string | undefined {
  const text = Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength).toString("latin1").toLowerCase();
  return forms.find((form) => text.includes(form));
}

/** The role that the gateway works as, so that its statements can be told from the test's own in the server's log. */
export const TARGET_ROLE = { user: "svc", password: "svc-password" } as const;

export const SETUP = `
create role ${TARGET_ROLE.user} superuser login password '${TARGET_ROLE.password}';
create role elsewhere;
create schema hr;
create schema ${LONG_SCHEMA};
create table orders (id int primary key, total int, note text, customer int);
insert into orders values (1, 10, 'one', 1), (2, 20, 'two', 2);
create table hr.orders (id int primary key, total int, note text, customer int);
insert into hr.orders values (1, 666, '${HIDDEN.hr}', 1);
create table ${LONG_SCHEMA}.orders (id int primary key, total int, note text, customer int);
insert into ${LONG_SCHEMA}.orders values (1, 666, '${HIDDEN.path}', 1);
create table secret (what text);
insert into secret values ('${HIDDEN.secret}');
create table ${LONG} (what text);
insert into ${LONG} values ('${HIDDEN.long}');
create table ${ALMOST_LONG}\u00e9 (what text);
insert into ${ALMOST_LONG}\u00e9 values ('${HIDDEN.wide}');
create table "Odd "".name" (what text);
insert into "Odd "".name" values ('${HIDDEN.odd}');
create table log (what text unique, n int);
insert into log values ('first', 1);
create table readable (what text);
insert into readable values ('${SHOWN}');
create sequence ids;
create sequence hr.ids;
create type mood as enum ('fine', 'bad');
create domain positive as int check (value > 0);
create table customers (
  id int primary key, name text, email text unique, ssn varchar(60) check (ssn <> 'bad'), phone text, doc jsonb, tags text[], photo bytea,
  region text not null default 'eu',
  check (region <> 'panic' or email::int > 0)
);
insert into customers values
  (1, 'Ann', '${HIDDEN.email}', '${HIDDEN.ssn}', '${HIDDEN.phone}', '{"k": "${HIDDEN.doc}"}', array['${HIDDEN.tag}'], '${HIDDEN.photo}'),
  (2, 'Bob', '${HIDDEN.email2}', 'plain', null, null, null, null);
create table child (more text) inherits (customers);
insert into child (id, name, email, more) values (3, 'Cy', '${HIDDEN.child}', 'm');
create table events (id int, who text) partition by range (id);
create table events_1 partition of events for values from (0) to (100);
insert into events values (1, '${HIDDEN.event}');
create table extra (id int, email text);
insert into extra values (1, '${HIDDEN.extra}');
create table people (email text primary key);
insert into people values ('${HIDDEN.person}');
create domain tagged as text;
create table kinds (id int, email text, label tagged, area box, feel mood, letter text generated always as (left(email, 1)) stored);
insert into kinds values (1, '${HIDDEN.kind}', '${HIDDEN.label}', '((0,0),(1,1))', 'fine');
create view v_kinds as select email as e, letter as l, label, area from kinds;
create view v_all as select * from customers;
create view v_email as select id, email as contact from customers;
create view v_safe as select id, name from customers;
create view v_rows as select c.name, to_jsonb(c) from customers c;
create view v_nested as select contact as mail, id as number from v_email;
create view v_joined as select o.note, c.email, c.ssn as code from orders o left join customers c on c.id = o.customer;
create view v_filtered as select id, email from customers where email > 'm';
create view v_upper as select id, upper(email) as email from customers;
create view v_triggered as select id, email from customers;
create function through() returns trigger language plpgsql as $$ begin return new; end $$;
create trigger through instead of update on v_triggered for each row execute function through();
create materialized view m_nested as select mail from v_nested;
create materialized view m_email as select id, email as contact from customers;
create function all_customers() returns setof customers language sql as 'select * from customers';
create function one_email(int) returns text language sql as 'select email from customers where id = $1';
create function email_of(customers) returns text language sql as 'select $1.email';
create procedure tell(inout x text) language plpgsql as $$ begin select email into x from customers where id = 1; end $$;
create function loud() returns trigger language plpgsql as $$ begin raise notice 'was %', old.email using hint = old.ssn, column = old.email; return new; end $$;
create trigger loud before update of region on customers for each row execute function loud();
create function strict_name() returns trigger language plpgsql as $$
  begin raise exception 'no: %', old.ssn using detail = old.email, constraint = old.email, table = old.phone; end $$;
create trigger strict_name before update of name on customers for each row when (new.name = 'forbidden') execute function strict_name();
create role twin superuser;
create function move_in() returns void language plpgsql as $$ begin perform set_config('search_path', 'hr, public', false); end $$;
create function move_out() returns void language plpgsql as $$ begin set search_path = "$user", public; end $$;
create function move_local() returns void language plpgsql as $$ begin perform set_config('search_path', 'hr, public', true); end $$;
create function move_and_back() returns void language plpgsql as $$ begin perform move_in(); perform move_out(); end $$;
create function move_by_text(text) returns void language plpgsql as $$ begin execute 'set schema ' || quote_literal($1); end $$;
create function move_through() returns void language sql begin atomic select move_in(); end;
create procedure move_call() language plpgsql as $$ begin set search_path = hr; end $$;
create procedure become_twin() language plpgsql as $$ begin set role twin; end $$;
create aggregate move_all(text, boolean) (sfunc = set_config, stype = text, initcond = 'search_path');
create view v_moves as select set_config('search_path', 'hr, public', false) as moved;
create function move_trigger() returns trigger language plpgsql as $$ begin perform move_in(); return coalesce(new, old); end $$;
create table moved (id int) partition by range (id);
create table moved_part partition of moved for values from (0) to (100);
insert into moved values (1);
create function move_field(moved) returns void language plpgsql as $$ begin perform move_in(); end $$;
create trigger moves before insert or update on moved_part for each row execute function move_trigger();
create table deferred (id int);
create constraint trigger at_end after insert on deferred deferrable initially deferred for each row execute function move_trigger();
create function stay() returns int language plpgsql as $$ declare n int := 1; begin update moved set id = id where false; return n; end $$;
create function audited() returns trigger language plpgsql as $$ begin return new; end $$;
create trigger audited before insert on log for each row execute function audited();
create table cards (id int, note text, number text unique, doc jsonb, list text[], amount numeric, big bigint, check (id < 1000));
insert into cards values (1, 'card ${DETECTED.card} and ${DETECTED.mail}', '${DETECTED.card}', '{"card": "${DETECTED.card}", "iban": "${DETECTED.iban}"}',
  array['${DETECTED.iban}', 'plain'], ${DETECTED.card}, ${DETECTED.card});
create function shout(t text) returns text language plpgsql as $$ begin raise notice 'shouting %', t; return upper(t); end $$;
analyze;
`;

export const POLICY = `version: 1
rules:
  - name: no-secret
    actions: [read, write, schema, admin]
    resources: [public.secret, public.${LONG}, public.${ALMOST_LONG}, "public.*Odd*"]
    effect: deny
  - { name: everything, who: { groups: [all, masked, compared, watched] }, effect: allow }
  - { name: reader, who: { groups: [reader] }, actions: [read], resources: ["public.*"], effect: allow }
  - { name: only-orders, who: { groups: [only] }, actions: [read], resources: [public.orders], effect: allow }
  - { name: writer, who: { groups: [writer] }, actions: [read, write], resources: ["public.*"], effect: allow }
  - { name: schema, who: { groups: [schema] }, actions: [read, write, schema], resources: ["public.*", "pg_temp.*"], effect: allow }
  - name: mover
    who: { groups: [mover] }
    actions: [read, write, sql:do, sql:call, sql:set, sql:show, sql:transaction, sql:prepare, sql:cursor, sql:explain]
    resources: ["public.*", "pg_catalog.*", "language:*", "function:*", "setting:*", "pg_temp.*"]
    effect: allow
  - { name: unfiltered, who: { groups: [writer] }, actions: [sql:update, sql:delete], when: operation.unfiltered, effect: deny }
masks:
  - name: pii
    who: { groups: [masked] }
    columns:
      - public.customers.email
      - public.customers.ssn
      - public.customers.doc
      - public.customers.tags
      - public.customers.photo
      - public.events.who
      - public.people.email
    with: redact
    predicates: deny
  - name: comparable
    who: { groups: [compared] }
    columns: [public.customers.email, public.customers.phone, public.customers.doc, public.customers.tags, public.people.email, public.kinds.email, public.kinds.label, public.kinds.area, public.kinds.feel]
    with: hash
    predicates: equality
  - { name: not-comparable, who: { groups: [compared] }, columns: [public.customers.ssn, public.customers.phone], with: redact }
  - { name: numbers, who: { groups: [masked] }, columns: [public.customers.phone], with: hash }
  - { name: nothing-left, who: { groups: [masked] }, columns: [public.extra.email], with: "null" }
  - { name: content, who: { groups: [watched] }, detect: [payment_card, iban, email], with: redact }
`;
