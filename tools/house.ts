import { type Finding, lineOf } from "./files.ts";

/** A rule of the house: what is not written here, and what is written instead. */
export interface HouseRule {
  readonly name: string;
  /** Where it holds. */
  readonly applies: (file: string) => boolean;
  readonly pattern: RegExp;
  /** Comments count too; otherwise only code. */
  readonly inComments?: boolean;
  readonly instead: string;
}

const isCode = (file: string): boolean => /\.(ts|mjs|js|cc|h)$/.test(file) && !isAboutRules(file);
const isTypeScript = (file: string): boolean => file.endsWith(".ts") && !isAboutRules(file);
const isProse = (file: string): boolean =>
  /\.(ts|mjs|js|cc|h|md|ya?ml|json|gyp)$/.test(file) && !isAboutRules(file) && file !== "package-lock.json";
/** These two name what they forbid. */
const isAboutRules = (file: string): boolean => file === "tools/house.ts" || file === "tools/house.test.ts";
const isProduct = (file: string): boolean =>
  isTypeScript(file) && /^(core|protocols|store|workers|control)\//.test(file) && !file.endsWith(".test.ts");
const isCommand = (file: string): boolean =>
  /\.(test|bench)\.ts$/.test(file) ||
  /^(control\/cli|tools|bench|demo|test)\//.test(file) ||
  !file.includes("/") ||
  file.endsWith("/build.ts");

export const houseRules: readonly HouseRule[] = [
  { name: "any", applies: isTypeScript, pattern: /\bas any\b|:\s*any\b(?!\s*\w)|<any[,>]|\bany\[\]/, instead: "unknown, and a check" },
  {
    name: "suppression",
    applies: isTypeScript,
    pattern: /@ts-(ignore|expect-error|nocheck)|(oxlint|eslint)-disable|biome-ignore/,
    inComments: true,
    instead: "code that passes",
  },
  {
    name: "unfinished",
    applies: isProse,
    pattern: /\b(TODO|FIXME|XXX|HACK)\b/,
    inComments: true,
    instead: "the work itself, or a sentence in docs/LIMITS.md",
  },
  {
    name: "skipped test",
    applies: isTypeScript,
    pattern: /\b(test|it|describe)\.(skip|todo|only)\(|\b(context|t)\.(todo|skip\((?!["'`]))|\b(skip|todo|only):\s*(true|["'`])/,
    instead: "a test that runs",
  },
  { name: "console", applies: (file) => isTypeScript(file) && !isCommand(file), pattern: /\bconsole\.\w+\(/, instead: "core/log.ts" },
  {
    name: "exit",
    applies: (file) => isTypeScript(file) && !isCommand(file),
    pattern: /\bprocess\.(exit|abort)\(/,
    instead: "throw a SluiceError; the entry point turns it into a status",
  },
  { name: "random", applies: isProduct, pattern: /\bMath\.random\(/, instead: "node:crypto" },
  { name: "code from strings", applies: isCode, pattern: /\beval\(|\bnew Function\(|\bvm\.run|\bfrom "node:vm"/, instead: "a closure" },
  {
    name: "machine path",
    applies: isProse,
    pattern: /(^|[\s"'`(=:])\/(home|work|root|Users|mnt|workspace)\/[\w.-]/,
    inComments: true,
    instead: "a path relative to the file or the repository",
  },
  {
    name: "child process",
    applies: (file) => isProduct(file) && !isCommand(file),
    pattern: /\bchild_process\b/,
    instead: "nothing: the gateway starts no programs",
  },
  {
    name: "non-erasable syntax",
    applies: isTypeScript,
    pattern: /^\s*(export\s+)?(const\s+)?(enum|namespace)\s+\w+\s*\{/m,
    instead: "a const object or a module",
  },
];

/** Files with more lines than this are to be divided. */
const linesMax = (file: string): number => (file.endsWith(".test.ts") ? 800 : 500);
const oversizeAllowed = /^(package-lock\.json|CHANGELOG\.md|docs\/.*\.md|.*\.(sql|csv|json))$/;
const binaryAllowed = /\.(png|ico|woff2)$/;
const generated = /(^|\/)(node_modules|build|dist|coverage|\.demo)\/|\.(node|o|so|a|class|jar|pyc|log|tsbuildinfo)$/;

/** What one file does against the rules of the house. */
export function houseFindings(file: string, bytes: Buffer): readonly Finding[] {
  if (generated.test(file)) return [{ file, line: 1, message: "generated file; take it out and add it to .gitignore" }];
  if (bytes.includes(0))
    return binaryAllowed.test(file) ? [] : [{ file, line: 1, message: "binary file; make it in a test or tool instead" }];
  const text = bytes.toString();
  const findings: Finding[] = [];
  const code = withoutComments(text);
  for (const rule of houseRules) {
    if (!rule.applies(file)) continue;
    const searched = rule.inComments === true ? text : code;
    const found = rule.pattern.exec(searched);
    if (found !== null)
      findings.push({
        file,
        line: lineOf(text, found.index + found[0].length),
        message: `${rule.name}: ${found[0].trim()}; instead: ${rule.instead}`,
      });
  }
  const lines = lineOf(text, text.length);
  if (lines > linesMax(file) && !oversizeAllowed.test(file))
    findings.push({
      file,
      line: linesMax(file),
      message: `${lines} lines; divide it by what changes together (at most ${linesMax(file)})`,
    });
  return findings;
}

/** Comments as spaces, so that offsets stay. Good enough for searching: a `//` within a string also counts when a space stands before it. */
function withoutComments(text: string): string {
  const blank = (comment: string) => comment.replace(/[^\n]/g, " ");
  return text.replace(/^\s*\/\*[\s\S]*?\*\//gm, blank).replace(/(^|\s)\/\/[^\n]*/g, blank);
}
