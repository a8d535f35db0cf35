import { type Frame, fields } from "../clients/raw.ts";

/** What came back for one statement, without what differs from run to run. */
export interface Answer {
  /** SQLSTATE of the first error. */
  readonly code: string | undefined;
  readonly message: string | undefined;
  /** The gateway refused, not the server. */
  readonly byGateway: boolean;
  /** Column names and types. */
  readonly columns: readonly string[];
  readonly rows: readonly string[];
  readonly tags: readonly string[];
}

export function answerOf(frames: readonly Frame[]): Answer {
  const error = frames.find((frame) => frame.type === "E");
  const found = error === undefined ? {} : fields(error);
  const of = (type: string) => frames.filter((frame) => frame.type === type);
  return {
    code: found.C,
    message: found.M,
    byGateway: found.M?.startsWith("Sluice") === true || found.H?.includes("Sluice") === true || found.H?.includes("Mask rule") === true,
    columns: of("T").map(columnsOf),
    rows: [...of("D"), ...of("d")].map((frame) => frame.body.toString("latin1")),
    tags: of("C").map((frame) => frame.body.toString("latin1")),
  };
}

/** Name, type and format of each column; table numbers differ between databases. */
function columnsOf(frame: Frame): string {
  const names: string[] = [];
  let at = 2;
  for (let left = frame.body.readInt16BE(0); left > 0; left -= 1) {
    const zero = frame.body.indexOf(0, at);
    const type = frame.body.readUInt32BE(zero + 7);
    // Types that a schema defines have other numbers in another database.
    names.push(`${frame.body.toString("utf8", at, zero)}:${type < 16_384 ? type : "own"}`);
    at = zero + 19;
  }
  return names.join(",");
}

/** In what two runs of the same steps differ. @param exact also in the order of rows and the text of errors */
export function differs(a: readonly Answer[], b: readonly Answer[], exact: boolean): string | undefined {
  if (a.length !== b.length) return `${a.length} answers and ${b.length}`;
  for (const [index, one] of a.entries()) {
    const two = b[index] as Answer;
    const at = `at step ${index + 1}`;
    if (one.code !== two.code)
      return `${at}: ${one.code ?? "no error"} (${one.message ?? ""}) and ${two.code ?? "no error"} (${two.message ?? ""})`;
    // After an error in the middle of the rows it is chance how many were sent.
    if (one.code !== undefined && !exact) continue;
    if (one.columns.join("\n") !== two.columns.join("\n"))
      return `${at}: columns ${one.columns.join(" | ")} and ${two.columns.join(" | ")}`;
    const order = (rows: readonly string[]) => (exact ? rows : [...rows].sort()).join("\n");
    if (order(one.rows) !== order(two.rows)) return `${at}: rows ${show(one.rows)} and ${show(two.rows)}`;
    if (one.tags.join() !== two.tags.join()) return `${at}: ${one.tags.join()} and ${two.tags.join()}`;
  }
  return undefined;
}

const show = (rows: readonly string[]): string => JSON.stringify(rows.slice(0, 6)).slice(0, 400);
