import type { Random } from "../fuzz/random.ts";
import type { Column, Model, ValueType } from "./model.ts";

/** What stands in FROM under one name. */
export interface Range {
  readonly alias: string;
  readonly columns: readonly Column[];
  /** Its row can be named as a value. */
  readonly isRow: boolean;
  /** Name of its row's type. */
  readonly type?: string;
}

export const quoted = (name: string): string => (/^[a-z_][a-z0-9_]*$/.test(name) ? name : `"${name}"`);

const VALUE_TYPES = ["text", "int", "num", "date", "uuid", "json", "bytes", "list", "place", "bool"] as const;

/** Random expressions of a wanted type over the ranges in scope. Which columns they touch is noted. */
export abstract class Expressions {
  protected readonly random: Random;
  protected readonly model: Model;
  /** Only columns that no mask is about are used. */
  protected readonly clean: boolean;
  /** Ranges of the query being written last, those of the queries around it before. */
  protected scopes: Range[][] = [];
  protected depth = 0;
  /** Window functions may stand here. */
  protected windows = false;
  protected modern: boolean;
  /** How many FROM clauses are around. */
  protected inFrom = 0;
  touched = false;

  constructor(random: Random, model: Model, clean: boolean, modern: boolean) {
    this.random = random;
    this.model = model;
    this.clean = clean;
    this.modern = modern;
  }

  protected abstract scalarQuery(type: ValueType): string;
  protected abstract query(columns: number | undefined): { sql: string; columns: Column[] };

  protected chance(percent: number): boolean {
    return this.random.below(100) < percent;
  }

  protected mark(column: Column): Column {
    if (column.masked) this.touched = true;
    return column;
  }

  /** A reference to some column that fits, or undefined. */
  protected reference(fits: (column: Column) => boolean): string | undefined {
    const found: { range: Range; column: Column; level: number }[] = [];
    const hidden = new Set<string>();
    for (let level = this.scopes.length - 1; level >= 0; level -= 1) {
      const ranges = this.scopes[level] ?? [];
      if (level < this.scopes.length - 1 && !this.chance(25)) break;
      for (const range of ranges) {
        if (hidden.has(range.alias)) continue;
        for (const column of range.columns) if (fits(column) && !(this.clean && column.masked)) found.push({ range, column, level });
      }
      for (const range of ranges) hidden.add(range.alias);
    }
    if (found.length === 0) return undefined;
    const masked = found.filter((each) => each.column.masked);
    const { range, column, level } = masked.length > 0 && this.chance(60) ? this.random.pick(masked) : this.random.pick(found);
    this.mark(column);
    const innermost = this.scopes[this.scopes.length - 1] ?? [];
    const alone = innermost.filter((each) => each.columns.some((other) => other.name === column.name)).length === 1;
    if (level === this.scopes.length - 1 && alone && !this.#isAmbiguous(column) && this.chance(40)) return quoted(column.name);
    return `${quoted(range.alias)}.${quoted(column.name)}`;
  }

  /** Inside FROM a bare name counts for the queries around it too. */
  #isAmbiguous({ name }: Column): boolean {
    const isMasked = (range: Range) => range.columns.some((column) => column.masked && column.name === name);
    return this.clean && this.inFrom > 0 && this.scopes.some((ranges) => ranges.some(isMasked));
  }

  /** `range.function` and `range.type` are the row, or a function of it, in attribute notation. */
  protected attribute(): string | undefined {
    const row = this.row();
    if (row === undefined) return undefined;
    const range = (this.scopes[this.scopes.length - 1] ?? []).find((each) => quoted(each.alias) === row);
    return `${row}.${quoted(this.random.pick(["row_to_json", "to_jsonb", "record_out", "hash_record", range?.type ?? "to_json"]))}`;
  }

  /** A range of which the row may be used. */
  protected row(): string | undefined {
    const ranges = (this.scopes[this.scopes.length - 1] ?? []).filter(
      (range) => range.isRow && !(this.clean && range.columns.some((column) => column.masked)),
    );
    if (ranges.length === 0) return undefined;
    const range = this.random.pick(ranges);
    for (const column of range.columns) this.mark(column);
    return quoted(range.alias);
  }

  protected any(): string {
    return this.expression(this.random.pick(VALUE_TYPES));
  }

  protected literal(type: ValueType): string {
    const number = 1 + this.random.below(6);
    switch (type) {
      case "int":
        return String(number);
      case "num":
        return `${number}.5`;
      case "date":
        return `date '2001-02-0${number}'`;
      case "time":
        return `timestamp '2001-02-0${number} 04:05:06'`;
      case "uuid":
        return `'00000000-0000-4000-8000-00000000000${number}'::uuid`;
      case "json":
        return `'{"k": "alpha", "n": ${number}, "l": ["x"]}'::jsonb`;
      case "bytes":
        return `'\\x0${number}'::bytea`;
      case "list":
        return "array['alpha', 'x']";
      case "place":
        return `row('alpha', ${number})`;
      case "bool":
        return this.random.pick(["true", "false"]);
      default:
        return `'${this.random.pick(["alpha", "beta1", "a", "%a%", ""])}'::text`;
    }
  }

  expression(type: ValueType): string {
    this.depth += 1;
    const bare = this.depth > 3 || this.chance(45);
    const made = bare ? undefined : this.random.pick(this.ways(type))();
    this.depth -= 1;
    return made ?? this.reference((column) => column.type === type) ?? this.literal(type);
  }

  /** `x` of a type whose literals the server would not know the type of. */
  private x(type: ValueType): string {
    return this.expression(type);
  }

  private window(make: () => string): string | undefined {
    if (!this.windows) return undefined;
    this.windows = false;
    const made = make();
    this.windows = true;
    return made;
  }

  private wrapRow(wrap: (row: string) => string): string | undefined {
    const row = this.row();
    return row === undefined ? undefined : wrap(row);
  }

  private ways(type: ValueType): readonly (() => string | undefined)[] {
    const x = (of: ValueType) => this.x(of);
    const common = [
      () => `coalesce(${x(type)}, ${x(type)})`,
      () => `case when ${x("bool")} then ${x(type)} else ${x(type)} end`,
      () => this.scalarQuery(type),
      () => `(${x(type)})`,
      () => `(array[${x(type)}, ${x(type)}])[1]`,
      () => this.window(() => `first_value(${x(type)}) over (order by ${this.any()})`),
      () => this.window(() => `lag(${x(type)}) over ()`),
    ];
    switch (type) {
      case "text":
        return [
          ...common,
          () => `${this.random.pick(["upper", "lower", "reverse", "initcap", "btrim", "md5", "quote_literal"])}(${x("text")})`,
          () => `${x("text")} || ${x("text")}`,
          () => `left(${x("text")}, ${1 + this.random.below(30)})`,
          () => `substring(${x("text")} from ${1 + this.random.below(3)})`,
          () => `(${this.any()})::text`,
          () => `cast(${x("text")} as varchar(40))`,
          () => `concat(${this.any()}, ${this.any()})`,
          () => `format('%s-%L', ${this.any()}, ${this.any()})`,
          () => `(${x("json")}) ->> 'k'`,
          () => `(${x("json")}) #>> '{l,0}'`,
          () => `(${x("list")})[1]`,
          () => `array_to_string(${x("list")}, ',')`,
          () => `(${x("place")}::place).street`,
          () => `encode(${x("bytes")}, '${this.random.pick(["hex", "base64", "escape"])}')`,
          () => `to_json(${this.any()})::text`,
          () => `row(${this.any()}, ${this.any()})::text`,
          () => this.wrapRow((row) => `${row}::text`),
          () => this.attribute()?.concat("::text"),
          () => this.wrapRow((row) => `row_to_json(${row})::text`),
          () => this.wrapRow((row) => `(${row}.*)::text`),
          () => this.wrapRow((row) => `concat_ws('/', ${row}.*)`),
          () => `nullif(${x("text")}, ${x("text")})`,
          () => `greatest(${x("text")}, ${x("text")})`,
          () => `${x("text")} collate "C"`,
          () => `regexp_replace(${x("text")}, 'a', 'b')`,
          () => `replace(${x("text")}, 'a', ${x("text")})`,
          () => this.window(() => `string_agg(${x("text")}, ',') over ()`),
          () => `xmlserialize(content xmlelement(name e, ${x("text")}) as text)`,
          () => `(select string_agg(u, '') from unnest(${x("list")}) u)`,
          () => `(select value from jsonb_each_text(${x("json")}) limit 1)`,
          () => `convert_from(convert_to(${x("text")}, 'UTF8'), 'UTF8')`,
          () => (this.modern ? `json_value(${x("json")}, '$.k')` : undefined),
          () => (this.modern ? `json_serialize(json_array(${x("text")}))` : undefined),
        ];
      case "int":
        return [
          ...common,
          () => `length(${x("text")})`,
          () => `ascii(${x("text")})`,
          () => `(${x("int")} + ${x("int")})`,
          () => `strpos(${x("text")}, ${x("text")})`,
          () => `extract(day from ${x("date")})::int`,
          () => `((${x("json")}) ->> 'n')::numeric::int8`,
          () => `cardinality(${x("list")})`,
          () => this.window(() => `row_number() over (order by ${this.any()})`),
          () => this.window(() => `rank() over (partition by ${this.any()} order by ${this.any()})`),
          () => `(${x("text")})::int`,
          () => `(${x("place")}::place).number`,
          () => `(case when ${x("bool")} then 1 else 0 end)`,
          () => `(1 / nullif(${x("int")}, 1))`,
          () => `num_nonnulls(${this.any()}, ${this.any()})`,
          () => this.window(() => `count(${this.any()}) over ()`),
          () => `pg_column_size(${this.any()})`,
        ];
      case "num":
        return [
          ...common,
          () => `(${x("num")} * ${x("num")})`,
          () => `round(${x("num")})`,
          () => `(${x("int")})::numeric`,
          () => this.window(() => `sum(${x("num")}) over ()`),
          () => `extract(epoch from ${x("date")})`,
        ];
      case "date":
        return [...common, () => `(${x("date")} + 1)`, () => `(${x("text")})::date`, () => `least(${x("date")}, ${x("date")})`];
      case "uuid":
        return [...common, () => `(${x("text")})::uuid`, () => `md5(${x("text")})::uuid`];
      case "json":
        return [
          ...common,
          () => `to_jsonb(${this.any()})`,
          () => this.wrapRow((row) => `to_jsonb(${row})`),
          () => `jsonb_build_object('a', ${this.any()})`,
          () => `jsonb_build_array(${this.any()}, ${this.any()})`,
          () => `(${x("json")} || ${x("json")})`,
          () => `(${x("json")} -> 'l')`,
          () => `jsonb_set(${x("json")}, '{k}', to_jsonb(${x("text")}))`,
          () => `jsonb_path_query_first(${x("json")}, '$.k')`,
          () => `(${x("text")})::jsonb`,
          () => (this.modern ? `json_query(${x("json")}, '$.l')` : undefined),
          () => (this.modern ? `json_object('a' : ${x("text")} returning jsonb)` : undefined),
        ];
      case "bytes":
        return [
          ...common,
          () => `convert_to(${x("text")}, 'UTF8')`,
          () => `sha256(${x("bytes")})`,
          () => `(${x("bytes")} || ${x("bytes")})`,
        ];
      case "list":
        return [
          ...common.slice(0, 4),
          () => `array[${x("text")}, ${x("text")}]`,
          () => `string_to_array(${x("text")}, 'a')`,
          () => `(${x("list")} || ${x("text")})`,
          () => `regexp_split_to_array(${x("text")}, 'a')`,
          () => `array(${this.query(1).sql})::text[]`,
        ];
      case "place":
        return [() => `row(${x("text")}, ${x("int")})::place`, () => this.reference((column) => column.type === "place")];
      default:
        return this.conditions();
    }
  }

  /** What a mask may allow where it allows nothing else in conditions. */
  private compared(): string | undefined {
    const type = this.random.pick(["text", "int", "num", "date", "uuid", "json"] as const);
    const fits = (column: Column) => column.type === type;
    const column = this.reference(fits);
    const literal = this.literal(type);
    if (column === undefined) return undefined;
    return this.random.pick<() => string | undefined>([
      () => `${column} = ${literal}`,
      () => `${literal} = ${column}`,
      () => `${column} in (${literal}, ${this.literal(type)})`,
      () => `${column} = any (array[${literal}])`,
      () => `${column} = ${this.reference(fits)}`,
    ])();
  }

  private conditions(): readonly (() => string | undefined)[] {
    const x = (of: ValueType) => this.x(of);
    const same = (): [string, string] => {
      const type = this.random.pick(["text", "int", "num", "date", "uuid", "json"] as const);
      return [x(type), x(type)];
    };
    return [
      () => this.compared(),
      () => this.compared(),
      () => same().join(` ${this.random.pick(["=", "<>", "<", ">=", "is distinct from"])} `),
      () => `${x("text")} ${this.random.pick(["like", "ilike", "~", "similar to"])} 'a%'`,
      () => `${this.any()} is ${this.random.pick(["null", "not null"])}`,
      () => `${x("text")} in (${x("text")}, 'alpha')`,
      () => `${x("int")} between 1 and ${x("int")}`,
      () => `(${x("int")}, ${x("text")}) > (2, 'a')`,
      () => `(${x("bool")} and ${x("bool")})`,
      () => `(${x("bool")} or ${x("bool")})`,
      () => `not ${x("bool")}`,
      () => `${x("text")} = any (${x("list")})`,
      () => `(${x("json")}) ? 'k'`,
      () => `(${x("json")}) @> '{"k": "alpha"}'`,
      () => `exists (${this.query(undefined).sql})`,
      () => this.wrapRow((row) => `${row} is not null`),
      () => this.wrapRow((row) => `${row} = ${row}`),
      () => `${x("text")} in (select ${x("text")})`,
      () => `(${x("bool")}) is true`,
    ];
  }
}
