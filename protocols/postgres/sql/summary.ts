import type { Classified, SessionEffect } from "./types.ts";

/** A classification as one line, for tests and for people: `select hr.t, s; insert u [ddl] unfiltered`. */
export function summary(classified: Classified, text?: Uint8Array): string {
  const accesses = classified.accesses.map((access) => {
    const relations = access.relations.map((relation) =>
      relation.schema === undefined ? relation.name : `${relation.schema}.${relation.name}`,
    );
    return [access.action.replace("sql:", ""), [...relations, ...access.others].join(", ")].filter((part) => part !== "").join(" ");
  });
  const parts = [accesses.join("; ")];
  if (classified.effects.length > 0) parts.push(`[${classified.effects.map(effectText).join(", ")}]`);
  if (classified.unfiltered) parts.push("unfiltered");
  if (classified.copy !== "none") parts.push(`copy-${classified.copy}`);
  if (classified.explains) parts.push("explains");
  if (classified.empty) parts.push("empty");
  if (classified.secrets.length > 0) parts.push(`secrets ${classified.secrets.map(([start, end]) => slice(text, start, end)).join(" ")}`);
  if (classified.refusal !== undefined) parts.push(`REFUSED ${classified.refusal}`);
  return parts.filter((part) => part !== "").join(" ");
}

const slice = (text: Uint8Array | undefined, start: number, end: number): string =>
  text === undefined ? `${start}-${end}` : Buffer.from(text.subarray(start, end)).toString("utf8");

function effectText(effect: SessionEffect): string {
  const local = "local" in effect && effect.local ? " local" : "";
  switch (effect.kind) {
    case "search_path":
      return `search_path${local} ${effect.schemas === undefined ? "?" : JSON.stringify(effect.schemas)}`;
    case "role":
      return `role${local}`;
    case "setting":
      return `${effect.name}${local}=${effect.value ?? "?"}`;
    case "discard":
      return `discard ${effect.what}`;
    case "prepare":
    case "declare":
      return `${effect.kind} ${effect.name}: ${summary(effect.inner)}`;
    case "fetch":
      return `${effect.returnsRows ? "fetch" : "move"} ${effect.name}`;
    case "execute":
    case "create_temp":
      return `${effect.kind} ${effect.name}`;
    case "deallocate":
    case "close_cursor":
      return `${effect.kind} ${effect.name ?? "all"}`;
    case "transaction":
      return effect.verb;
    default:
      return effect.kind;
  }
}
