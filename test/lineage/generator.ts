import type { Random } from "../fuzz/random.ts";
import { Expressions, quoted, type Range } from "./expressions.ts";
import type { Column, Model, Relation, ValueType } from "./model.ts";

export interface Statement {
  /** Run one after the other in a transaction that is rolled back. */
  readonly steps: readonly string[];
  /** It uses a column that a mask is about, or may. */
  readonly touched: boolean;
  /** What it answers follows from the rows alone (not so EXPLAIN's estimates). */
  readonly repeats: boolean;
}

interface Query {
  readonly sql: string;
  readonly columns: Column[];
}

const OUTPUT_TYPES = ["text", "text", "int", "num", "date", "time", "uuid", "json", "bytes", "list", "place", "bool", "other"] as const;
/** Names of output columns that some table's masked column has too. */
const TRAPS = ["email", "name", "id", "code", "note", "total"];

/** One WITH cannot stand right behind another. */
const flat = (sql: string): string => (sql.startsWith("with") ? `select * from (${sql}) as flat` : sql);

/** Random statements over a model. */
export class Generator extends Expressions {
  #serial = 0;
  #ctes: { name: string; columns: readonly Column[] }[] = [];
  #levels = 0;

  static statement(random: Random, model: Model, clean: boolean, modern: boolean): Statement {
    const generator = new Generator(random, model, clean, modern);
    const { steps, repeats = true } = generator.#whole();
    return { steps, touched: generator.touched, repeats };
  }

  #fresh(prefix: string): string {
    this.#serial += 1;
    return `${prefix}${this.#serial}`;
  }

  // ---- whole statements

  #whole(): { steps: string[]; repeats?: boolean } {
    const kind = this.random.below(100);
    const query = () => this.query(undefined).sql;
    if (kind < 55) return { steps: [query()] };
    if (kind < 62) return { steps: [this.#change()] };
    if (kind < 66) return { steps: [this.#withChange()] };
    if (kind < 70)
      return {
        steps: [`explain (${this.random.pick(["verbose", "analyze, timing off", "costs off, format json"])}) ${query()}`],
        repeats: false,
      };
    if (kind < 75) return { steps: [`declare k cursor for ${query()}`, "fetch 2 from k", "move 1 in k", "fetch all from k"] };
    if (kind < 80) {
      // A prepared statement outlives the transaction.
      const name = `p${this.random.next()}`;
      return { steps: [`prepare ${name} as ${query()}`, `execute ${name}`, `deallocate ${name}`] };
    }
    if (kind < 85) return { steps: [`copy (${query()}) to stdout${this.random.pick(["", " (format csv, header)", " (format binary)"])}`] };
    if (kind < 87) return { steps: [this.#copyTable()] };
    if (kind < 90) {
      const { sql, columns } = this.query(undefined);
      const table = this.#fresh("made");
      const names = columns.map((_, index) => `c${index}`).join(", ");

      // A change of the schema makes the gateway read the catalogue again, which takes its time.
      const how = this.chance(10) ? this.random.pick(["create table", "create view"]) : "create temp table";
      return { steps: [`${how} ${table}${columns.length > 0 ? ` (${names})` : ""} as ${sql}`, `select * from ${table}`] };
    }
    if (kind < 93) return { steps: [`${query()}; ${query()}`] };
    if (kind < 96) return { steps: ["savepoint s", query(), "rollback to s", query()] };
    const relation = this.#relation((each) => !(this.clean && each.columns.some((column) => column.masked)));
    for (const column of relation.columns) this.mark(column);
    return { steps: [`table ${relation.name}`] };
  }

  #copyTable(): string {
    const table = this.#relation((relation) => relation.kind === "table");
    const columns = table.columns.filter((column) => !column.generated && !(this.clean && column.masked));
    const some = columns.filter(() => this.chance(60));
    for (const column of some) this.mark(column);
    return `copy ${table.name} (${(some.length > 0 ? some : columns.slice(0, 1)).map((column) => quoted(this.mark(column).name)).join(", ")}) to stdout`;
  }

  #relation(fits: (relation: Relation) => boolean): Relation {
    const all = this.model.relations.filter((relation) => fits(relation) && !(this.clean && relation.opaque));
    const relation = this.random.pick(all);
    if (relation.opaque) this.touched = true;
    return relation;
  }

  // ---- changes

  #change(): string {
    const table = this.#relation((relation) => relation.fills);
    const alias = this.chance(50) ? this.#fresh("u") : table.name.replace(/^.*\./, "");
    const target: Range = { alias, columns: table.columns, isRow: true };
    const name = alias === table.name || table.name.endsWith(`.${alias}`) ? table.name : `${table.name} as ${alias}`;
    const open = table.columns.filter((column) => !column.generated && column.name !== "id" && !column.masked);
    const assign = (): string => {
      const column = this.random.pick(open);
      return `${quoted(column.name)} = ${this.expression(column.type)}`;
    };
    const kind = this.random.below(4);
    const source = this.random.pick(this.model.relations.filter((each) => !(this.clean && each.opaque)));
    if (source.opaque) this.touched = true;
    const second: Range = { alias: this.#fresh("o"), columns: source.columns, isRow: true };
    const key = table.columns[0]?.name ?? "id";
    return this.#within([target], () => {
      if (kind === 0 || open.length === 0) {
        const where = this.#within([target], () => this.expression("bool"));
        return `delete from ${name} where ${where} ${this.#returning(target)}`;
      }
      if (kind === 1) {
        const from = this.chance(50);
        return this.#within(from ? [target, second] : [target], () => {
          const set = assign();
          const using = from ? ` from ${source.name} ${second.alias}` : "";
          return `update ${name} set ${set}${using} where ${this.expression("bool")} ${this.#returning(target, from ? second : undefined)}`;
        });
      }
      if (kind === 2) {
        const column = this.random.pick(open);
        // VALUES does not see the row that it becomes.
        const around = this.scopes;
        this.scopes = [];
        const value = this.expression(column.type);
        this.scopes = around;
        const conflict = this.chance(30) ? ` on conflict (${quoted(key)}) do update set ${assign()}` : "";
        return `insert into ${name} (${quoted(key)}, ${quoted(column.name)}) values (${50 + this.random.below(40)}, ${value})${conflict} ${this.#returning(target)}`;
      }
      const matched = this.#within([target, second], () => `update set ${assign()}`);
      const on = this.#within([target, second], () => this.expression("bool"));
      return `merge into ${name} using ${source.name} ${second.alias} on ${on} when matched then ${matched}`;
    });
  }

  #returning(target: Range, second?: Range): string {
    if (this.chance(20)) return "";
    const ranges = second === undefined ? [target] : [target, second];
    return this.#within(ranges, () => `returning ${this.#list(ranges, undefined).items.join(", ")}`);
  }

  #withChange(): string {
    const table = this.#relation((relation) => relation.fills);
    const target: Range = { alias: table.name.replace(/^.*\./, ""), columns: table.columns, isRow: true };
    const key = quoted(table.columns[0]?.name ?? "id");
    const { items, columns } = this.#within([target], () => this.#list([target], undefined));
    const name = this.#fresh("w");
    const change = this.random.pick([`delete from ${table.name}`, `update ${table.name} set ${key} = ${key} + 0`]);
    this.#ctes.push({ name, columns });
    const { sql } = this.query(undefined);
    this.#ctes.pop();
    return `with ${name} as (${change} where ${key} < 3 returning ${items.join(", ")}) ${flat(sql)}`;
  }

  // ---- queries

  #within<R>(ranges: Range[], body: () => R): R {
    const { windows } = this;
    this.windows = false;
    this.scopes.push(ranges);
    const made = body();
    this.scopes.pop();
    this.windows = windows;
    return made;
  }

  protected override scalarQuery(type: ValueType): string {
    if (this.#levels > 2) return this.literal(type);
    this.#levels += 1;
    const { text, ranges } = this.#from();
    const made = this.#within(ranges, () => {
      const value = this.expression(type);
      const order = ranges[0]?.columns[0]?.name;
      const by = order === undefined ? "" : ` order by ${quoted(ranges[0]?.alias ?? "")}.${quoted(order)}`;
      if (type === "text" && this.chance(40))
        return `(select ${this.random.pick(["min", "max", "any"])}(${value}) from ${text})`.replace("any(", "max(");
      return `(select ${value} from ${text}${by} limit 1)`;
    });
    this.#levels -= 1;
    return made;
  }

  /** A query with this many columns, or any number. */
  protected override query(count: number | undefined): Query {
    this.#levels += 1;
    const depth = this.depth;
    this.depth = Math.max(0, depth - 2);
    const made =
      this.#levels < 3 && this.chance(12)
        ? this.#setOperation(count)
        : this.#levels < 3 && this.chance(12)
          ? this.#with(count)
          : this.#select(count);
    this.depth = depth;
    this.#levels -= 1;
    return made;
  }

  #with(count: number | undefined): Query {
    const name = this.chance(30) ? this.random.pick(this.model.relations).name.replace(/^.*\./, "") : this.#fresh("w");
    const inner = this.query(undefined);
    const named = inner.columns.length > 0 && this.chance(40);
    const columns = named
      ? inner.columns.map((column, index) => ({ ...column, name: `${this.random.pick(TRAPS)}${index}` }))
      : inner.columns;
    this.#ctes.push({ name, columns });
    const { sql, columns: output } = this.query(count);
    this.#ctes.pop();
    const how = this.random.pick(["", "", "materialized ", "not materialized "]);
    const list = named ? ` (${columns.map((column) => quoted(column.name)).join(", ")})` : "";
    return { sql: `with ${name}${list} as ${how}(${inner.sql}) ${flat(sql)}`, columns: output };
  }

  #setOperation(count: number | undefined): Query {
    const types = Array.from({ length: count ?? 1 + this.random.below(2) }, () => this.random.pick(["text", "int", "date"] as const));
    const arm = (): Query => {
      const { text, ranges } = this.#from();
      return this.#within(ranges, () => {
        const before = this.touched;
        this.touched = false;
        const items = types.map((type) => this.expression(type));
        const masked = this.touched;
        this.touched ||= before;
        const columns = types.map((type, index): Column => ({ name: `s${index}`, type, masked, generated: false }));
        return { sql: `select ${items.map((item, index) => `${item} as s${index}`).join(", ")} from ${text}`, columns };
      });
    };
    const [left, right] = [arm(), arm()];
    const columns = left.columns.map((column, index) => ({ ...column, masked: column.masked || right.columns[index]?.masked === true }));
    return { sql: `(${left.sql}) ${this.random.pick(["union all", "union", "intersect", "except"])} (${right.sql})`, columns };
  }

  #select(count: number | undefined): Query {
    const { text, ranges } = this.#from();
    return this.#within(ranges, () => {
      if (this.chance(15)) return this.#grouped(text, count);
      this.windows = true;
      const { items, columns } = this.#list(ranges, count);
      this.windows = false;
      const distinct = this.chance(8) ? "distinct " : this.chance(4) ? `distinct on (${this.any()}) ` : "";
      if (distinct === "distinct ") for (const column of columns) this.mark(column);
      const where = this.chance(45) ? ` where ${this.expression("bool")}` : "";
      const order = distinct === "" && this.chance(25) ? ` order by ${this.chance(30) && items.length > 0 ? "1" : this.any()}` : "";
      const limit = order === "" && this.chance(8) ? " limit 3" : "";
      const window = this.chance(3) && distinct === "" ? " limit 4 offset 1" : "";
      return { sql: `select ${distinct}${items.join(", ")} from ${text}${where}${order}${limit === "" ? window : limit}`, columns };
    });
  }

  #grouped(text: string, count: number | undefined): Query {
    const keys = [this.any()].concat(this.chance(30) ? [this.any()] : []);
    const aggregate = (): [string, ValueType] =>
      this.random.pick<() => [string, ValueType]>([
        () => ["count(*)", "int"],
        () => [`count(distinct ${this.expression("text")})`, "int"],
        () => [`max(${this.expression("text")})`, "text"],
        () => [`min(${this.expression("date")})`, "date"],
        () => [`sum(${this.expression("num")})`, "num"],
        () => [`string_agg(${this.expression("text")}, ',' order by ${this.expression("int")})`, "text"],
        () => [`array_agg(${this.expression("text")})`, "list"],
        () => [`jsonb_agg(${this.any()})`, "json"],
        () => [`jsonb_object_agg(coalesce(${this.expression("text")}, 'k'), ${this.any()})`, "json"],
        () => [`percentile_disc(0.5) within group (order by ${this.expression("int")})`, "int"],
        () => [`count(*) filter (where ${this.expression("bool")})`, "int"],
        () => [`mode() within group (order by ${this.expression("text")})`, "text"],
      ])();
    const before = this.touched;
    this.touched = false;
    const made = Array.from({ length: count ?? 1 + this.random.below(3) }, aggregate);
    const masked = this.touched;
    this.touched ||= before;
    const columns = made.map(([, type], index): Column => ({ name: `g${index}`, type, masked, generated: false }));
    const items = made.map(([item], index) => `${item} as g${index}`);
    const by = this.random.pick([
      keys.join(", "),
      `rollup (${keys.join(", ")})`,
      `grouping sets ((${keys.join(", ")}), ())`,
      `cube (${keys.join(", ")})`,
    ]);
    const having = this.chance(20) ? ` having count(${this.any()}) > 0` : "";
    return { sql: `select ${items.join(", ")} from ${text} group by ${by}${having}`, columns };
  }

  /** A select list. Without a number of columns it may hold stars. */
  #list(ranges: Range[], count: number | undefined): { items: string[]; columns: Column[] } {
    const items: string[] = [];
    const columns: Column[] = [];
    const starred = (of: readonly Range[]) => of.flatMap((range) => range.columns);
    const mayStar = (of: readonly Range[]) => count === undefined && !(this.clean && starred(of).some((column) => column.masked));
    if (this.chance(10) && mayStar(ranges)) {
      for (const column of starred(ranges)) columns.push(this.mark(column));
      return { items: ["*"], columns: this.#unique(columns) };
    }
    const wanted = count ?? 1 + this.random.below(4);
    for (let index = 0; index < wanted; index += 1) {
      const range = this.random.pick(ranges);
      if (range !== undefined && this.chance(6) && mayStar([range]) && range.columns.length > 0) {
        items.push(`${quoted(range.alias)}.*`);
        for (const column of range.columns) columns.push(this.mark(column));
        continue;
      }
      const type = this.random.pick(OUTPUT_TYPES);
      const before = this.touched;
      this.touched = false;
      const bare = this.chance(55) ? this.reference((column) => column.type === type) : undefined;
      const item = bare ?? (type === "other" || type === "time" ? this.any() : this.expression(type));
      const masked = this.touched;
      this.touched ||= before;
      const name = this.chance(30) ? this.random.pick(TRAPS) : this.#fresh("c");
      items.push(`${item} as ${name}`);
      // Of what is not a bare reference the type is not always known.
      columns.push({ name, type: bare === undefined && (type === "other" || type === "time") ? "other" : type, masked, generated: false });
    }
    return { items, columns: this.#unique(columns) };
  }

  /** Columns that a query around can name without being ambiguous. */
  #unique(columns: readonly Column[]): Column[] {
    return columns.filter((column) => columns.filter((other) => other.name === column.name).length === 1);
  }

  #from(): { text: string; ranges: Range[] } {
    this.inFrom += 1;
    const made = this.#fromItems();
    this.inFrom -= 1;
    return made;
  }

  #fromItems(): { text: string; ranges: Range[] } {
    const [text, first] = this.#item();
    const ranges = [first];
    let joined = text;
    while (this.chance(28) && ranges.length < 3) {
      const lateral = this.chance(15);
      const [other, range] = lateral ? this.#within([...ranges], () => this.#lateral()) : this.#item();
      if (ranges.some((each) => each.alias === range.alias)) break;
      const common = first.columns.filter((column) => column.name === "id" && range.columns.some((each) => each.name === "id"));
      if (!lateral && common.length > 0 && ranges.length === 1 && this.chance(20)) {
        // The merged column is in both: references name the range.
        joined = `${joined} ${this.random.pick(["join", "left join", "full join"])} ${other} using (id)`;
      } else if (!lateral && this.chance(75)) {
        const on = this.#within([...ranges, range], () => this.#joinCondition(first, range));
        joined = `${joined} ${this.random.pick(["join", "left join", "right join"])} ${other} on ${on}`;
      } else if (!lateral && !this.clean && ranges.length === 1 && this.chance(20)) {
        // Which columns it compares, only the catalogue knows.
        for (const column of [...first.columns, ...range.columns]) this.mark(column);
        joined = `${joined} natural join ${other}`;
      } else joined = `${joined} cross join ${other}`;
      ranges.push(range);
    }
    return { text: joined, ranges };
  }

  #joinCondition(a: Range, b: Range): string {
    if (this.chance(30)) return this.expression("bool");
    const ints = (range: Range) => range.columns.filter((column) => column.type === "int" && !(this.clean && column.masked));
    const [left, right] = [ints(a), ints(b)];
    if (left.length === 0 || right.length === 0) return "true";
    const [one, two] = [this.mark(this.random.pick(left)), this.mark(this.random.pick(right))];
    return `${quoted(a.alias)}.${quoted(one.name)} = ${quoted(b.alias)}.${quoted(two.name)}`;
  }

  #item(): [string, Range] {
    const kind = this.random.below(100);
    const cte = this.#ctes.length > 0 ? this.random.pick(this.#ctes) : undefined;
    if (cte !== undefined && this.chance(50)) {
      const alias = this.#fresh("q");
      return [`${cte.name} ${alias}`, { alias, columns: cte.columns, isRow: true }];
    }
    if (kind < 18 && this.#levels < 3) {
      const { sql, columns } = this.query(undefined);
      const alias = this.chance(40) ? this.random.pick(["a", "b", "t0"]) + (this.#levels > 1 ? "" : "x") : this.#fresh("s");
      // The aliases of a subquery cannot be checked here against those around it: most are fresh.
      const own = this.scopes.some((ranges) => ranges.some((range) => range.alias === alias)) ? this.#fresh("s") : alias;
      return [`(${sql}) ${own}`, { alias: own, columns, isRow: true }];
    }
    if (kind < 23) {
      const alias = this.#fresh("n");
      return [
        `generate_series(1, 3) ${alias} (i)`,
        { alias, columns: [{ name: "i", type: "int", masked: false, generated: false }], isRow: false },
      ];
    }
    if (kind < 27) {
      const alias = this.#fresh("l");
      return [
        `(values (1, 'alpha'), (2, 'beta')) ${alias} (id, name)`,
        {
          alias,
          columns: [
            { name: "id", type: "int", masked: false, generated: false },
            { name: "name", type: "text", masked: false, generated: false },
          ],
          isRow: true,
        },
      ];
    }
    const relation = this.#relation(() => true);
    const shadowed = this.#ctes.some((each) => each.name === relation.name);
    const bare = relation.name.replace(/^.*\./, "");
    const taken = this.scopes.some((ranges) => ranges.some((range) => range.alias === bare));
    const alias = !taken && !shadowed && this.chance(30) ? bare : this.#fresh("r");
    const name = shadowed ? `public.${relation.name}` : relation.name;
    const only = relation.kind === "table" && this.chance(5) ? "only " : "";
    const sample = relation.kind === "table" && only === "" && this.chance(3) ? " tablesample bernoulli (100)" : "";
    if (!this.clean && this.chance(5) && alias !== bare) {
      // What a name of the list stands for, only the catalogue knows.
      for (const column of relation.columns) this.mark(column);
      const columns = relation.columns.map((column, index) => ({ ...column, name: `${this.random.pick(TRAPS)}_${index}` }));
      return [`${only}${name} ${alias} (${columns.map((column) => column.name).join(", ")})${sample}`, { alias, columns, isRow: true }];
    }
    return [`${only}${name}${alias === bare ? "" : ` ${alias}`}${sample}`, { alias, columns: relation.columns, isRow: true, type: bare }];
  }

  /** Something that looks at the ranges before it. */
  #lateral(): [string, Range] {
    const alias = this.#fresh("x");
    const column = (name: string, type: ValueType, masked: boolean): Column => ({ name, type, masked, generated: false });
    const before = this.touched;
    this.touched = false;
    const pick = this.random.below(6);
    const list = pick === 0 || pick === 1 ? this.expression("list") : "";
    const json = pick > 1 && pick < 5 ? this.expression("json") : "";
    const text = pick === 5 ? this.expression("text") : "";
    const masked = this.touched;
    this.touched ||= before;
    const range = (...columns: Column[]): Range => ({ alias, columns, isRow: columns.length > 1 });
    if (pick === 0) return [`lateral unnest(${list}) ${alias} (e)`, range(column("e", "text", masked))];
    if (pick === 1)
      return [`lateral unnest(${list}) with ordinality ${alias} (e, n)`, range(column("e", "text", masked), column("n", "int", masked))];
    if (pick === 2) return [`jsonb_each_text(${json}) ${alias}`, range(column("key", "text", masked), column("value", "text", masked))];
    if (pick === 3)
      return [`jsonb_to_record(${json}) ${alias} (k text, n numeric)`, range(column("k", "text", masked), column("n", "num", masked))];
    if (pick === 4 && this.modern)
      return [`json_table(${json}, '$' columns (k text path '$.k')) ${alias}`, range(column("k", "text", masked))];
    if (pick === 5) return [`lateral (values (${text})) ${alias} (email)`, range(column("email", "text", masked))];
    const { sql, columns } = this.query(undefined);
    return [`lateral (${sql}) ${alias}`, { alias, columns, isRow: true }];
  }
}
