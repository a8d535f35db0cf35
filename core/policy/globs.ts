/**
 * Patterns over resources. `*` stands for any run of characters, dots included; everything else for itself, case
 * included. A pattern without a kind (`public.*`) speaks about relations only; resources of another kind need it in
 * the pattern (`role:*`, `function:audit.*`). A lone `*` (or `**`) matches every resource.
 */
export type ResourceMatcher = (resource: string) => boolean;

const KIND = /^[a-z_]+:/;

export function compileGlobs(patterns: readonly string[]): ResourceMatcher {
  const exact = new Set(patterns.filter((pattern) => !pattern.includes("*")));
  const globs = patterns.filter((pattern) => pattern.includes("*")).map(compileGlob);
  const [first] = globs;
  if (first === undefined) return (resource) => exact.has(resource);
  if (exact.size === 0 && globs.length === 1) return first;
  return (resource) => exact.has(resource) || globs.some((glob) => glob(resource));
}

function compileGlob(pattern: string): ResourceMatcher {
  if (/^\*+$/.test(pattern)) return () => true;
  const parts = pattern.split(/\*+/);
  const head = parts[0] ?? "";
  const tail = parts.at(-1) ?? "";
  const middle = parts.slice(1, -1);
  const hasKind = KIND.test(pattern);
  // `public.*`, the common form: a kind cannot stand before a head that holds a dot or a kind itself.
  if (parts.length === 2 && tail === "" && /[.:]/.test(head)) return (resource) => resource.startsWith(head);
  const kindFits: ResourceMatcher = hasKind || head.includes(".") ? () => true : (resource) => !KIND.test(resource);
  return (resource) => {
    if (resource.length < head.length + tail.length || !resource.startsWith(head) || !resource.endsWith(tail)) return false;
    if (!kindFits(resource)) return false;
    let from = head.length;
    const end = resource.length - tail.length;
    for (const part of middle) {
      const at = resource.indexOf(part, from);
      if (at < 0 || at + part.length > end) return false;
      from = at + part.length;
    }
    return true;
  };
}
