import type { Schema } from "./model.ts";

// Schemas as applications have them, that were not made for this test.

/** A film rental, in the style of the sample databases that teach SQL. */
const RENTAL: Schema = {
  name: "film rental",
  ddl: `
create type rating as enum ('G', 'PG', 'R');
create domain year as integer check (value between 1 and 2155);
create table country (country_id int primary key, country text not null, last_update timestamp default '2026-01-01');
create table city (city_id int primary key, city text not null, country_id int references country);
create table address (address_id int primary key, address text not null, district text, city_id int references city, postal_code varchar(30), phone varchar(30));
create table store (store_id int primary key, address_id int references address);
create table customer (customer_id int primary key, store_id int references store, first_name varchar(45), last_name varchar(45), email varchar(80),
  address_id int references address, activebool boolean default true, create_date date, active int);
create index on customer (last_name);
create table film (film_id int primary key, title text, description text, length int, rating rating default 'G', special_features text[], fulltext tsvector);
create table inventory (inventory_id int primary key, film_id int references film, store_id int references store);
create table rental (rental_id int primary key, rental_date timestamp, inventory_id int references inventory, customer_id int references customer);
create table payment (payment_id int, customer_id int, rental_id int, amount numeric(15, 2), payment_date timestamp not null) partition by range (payment_id);
create table payment_1 partition of payment for values from (0) to (4);
create table payment_2 partition of payment for values from (4) to (100);
create view customer_list as select cu.customer_id as id, cu.first_name || ' ' || cu.last_name as name, a.address, a.postal_code as "zip code", a.phone, city.city
  from customer cu join address a using (address_id) join city using (city_id);
create view film_list as select film_id as fid, title, description, length, special_features from film;
create view sales_by_store as select c.city, sum(p.amount) as total_sales from payment p join rental r using (rental_id) join inventory i using (inventory_id)
  join store s using (store_id) join address a using (address_id) join city c using (city_id) group by c.city;
create materialized view rental_by_day as select date_trunc('day', rental_date) as day, count(*) as rentals from rental group by 1;
create view contact as select customer_id, email, store_id from customer;
`,
  masked: [
    "public.customer.email",
    "public.customer.last_name",
    "public.address.phone",
    "public.address.address",
    "public.payment.amount",
    "public.customer.create_date",
  ],
  derived: [
    "public.payment_1.amount",
    "public.payment_2.amount",
    "public.customer_list.name",
    "public.customer_list.address",
    "public.customer_list.phone",
    "public.sales_by_store.total_sales",
    "public.contact.email",
  ],
  opaqueViews: ["public.customer_list", "public.sales_by_store"],
};

/** As Rails' migrations leave them: plural names, timestamps, polymorphic references, settings in JSON. */
const RAILS: Schema = {
  name: "Rails application",
  ddl: `
create table schema_migrations (version varchar primary key);
create table ar_internal_metadata (key varchar primary key, value varchar, created_at timestamp, updated_at timestamp);
create table users (id bigint primary key, email varchar not null unique, encrypted_password varchar default '', reset_password_token varchar,
  sign_in_count int default 0, current_sign_in_ip text, preferences jsonb default '{}', name varchar, created_at timestamp, updated_at timestamp);
create table accounts (id bigint primary key, user_id bigint references users, name varchar, balance numeric(20, 2), api_key uuid, created_at timestamp);
create table posts (id bigint primary key, user_id bigint references users, title varchar, body text, published boolean, tag_list text[], created_at timestamp, updated_at timestamp);
create table comments (id bigint primary key, commentable_type varchar, commentable_id bigint, user_id bigint references users, body text, created_at timestamp);
create table active_storage_blobs (id bigint primary key, key varchar, filename varchar, content_type varchar, metadata text, byte_size bigint, checksum varchar, data bytea);
create table versions (id bigint primary key, item_type varchar, item_id bigint, event varchar, object jsonb, object_changes jsonb, created_at timestamp);
create view published_posts as select p.id, p.title, p.body, p.user_id, p.created_at from posts p where p.published;
create view user_directory as select u.id, u.name, u.email from users u;
create view directory_of_directory as select d.id, d.email as reachable_at, d.name from user_directory d;
create view account_summaries as select a.id, a.name, a.user_id from accounts a;
`,
  masked: [
    "public.users.email",
    "public.users.encrypted_password",
    "public.users.reset_password_token",
    "public.users.current_sign_in_ip",
    "public.users.preferences",
    "public.accounts.balance",
    "public.accounts.api_key",
    "public.active_storage_blobs.data",
    "public.versions.object",
    "public.versions.object_changes",
  ],
  derived: ["public.user_directory.email", "public.directory_of_directory.reachable_at"],
  opaqueViews: [],
};

/** As Django's migrations leave them: app_model names, quoted everywhere, many-to-many tables. */
const DJANGO: Schema = {
  name: "Django application",
  ddl: `
create table django_migrations (id bigint primary key, app varchar(255), name varchar(255), applied timestamptz);
create table django_content_type (id int primary key, app_label varchar(100), model varchar(100));
create table auth_user (id int primary key, password varchar(128), last_login timestamptz, is_superuser boolean, username varchar(150) unique, first_name varchar(150),
  last_name varchar(150), email varchar(254), is_staff boolean, is_active boolean, date_joined timestamptz);
create index on auth_user (username varchar_pattern_ops);
create table auth_group (id int primary key, name varchar(150) unique);
create table auth_user_groups (id bigint primary key, user_id int references auth_user, group_id int references auth_group);
create table django_session (session_key varchar(40) primary key, session_data text, expire_date timestamptz);
create table django_admin_log (id int primary key, action_time timestamptz, object_id text, object_repr varchar(200), change_message text, content_type_id int, user_id int references auth_user);
create table shop_customer (id bigint primary key, user_id int references auth_user, phone varchar(40), birth_date date, address jsonb, loyalty_points int, slug varchar(90));
create table shop_order (id uuid primary key, customer_id bigint references shop_customer, total numeric(30, 2), placed_at timestamptz, comment text);
create table shop_businesscustomer (customer_ptr_id bigint primary key references shop_customer, tax_code varchar(40),
  tax_key varchar(60) generated always as (upper(tax_code)) stored);
create view shop_open_orders as select o.id, o.customer_id, o.placed_at from shop_order o;
create view shop_people as select c.id, u.username, u.email, c.loyalty_points from shop_customer c join auth_user u on u.id = c.user_id;
`,
  masked: [
    "public.auth_user.password",
    "public.auth_user.email",
    "public.auth_user.last_name",
    "public.django_session.session_data",
    "public.shop_customer.phone",
    "public.shop_customer.birth_date",
    "public.shop_customer.address",
    "public.shop_order.comment",
    "public.shop_businesscustomer.tax_code",
  ],
  derived: ["public.shop_people.email", "public.shop_businesscustomer.tax_key"],
  opaqueViews: [],
};

export const APPLICATIONS: readonly Schema[] = [RENTAL, RAILS, DJANGO];
