import { FIGURES, type Figure, PLOTTED, shown } from "./figures.ts";
import { labelOf } from "./modes-list.ts";
import type { BenchResult, WorkloadResult } from "./suite.ts";

/** Lengths in SVG user units, which are pixels at the plot's own size. */
const WIDTH = 1_240;
const MARGIN = 24;
const LABEL_WIDTH = 166;
const PANEL_GAP = 28;
const PANELS = 3;
const BAR_HEIGHT = 16;
const ROW_HEIGHT = 23;
const TITLE_HEIGHT = 34;
const HEADING_HEIGHT = 20;
const AXIS_HEIGHT = 22;
const WORKLOAD_GAP = 22;
const HEADER_HEIGHT = 86;
/** Room for the median's number to the right of the longest whisker. */
const VALUE_WIDTH = 62;

const PANEL_WIDTH = (WIDTH - 2 * MARGIN - LABEL_WIDTH - (PANELS - 1) * PANEL_GAP) / PANELS;

const BAR = "#8fa3b8";
const GATEWAY_BAR = "#3b7dd8";

/** One self-contained SVG: for each workload its main figures, a bar for each mode's median and a whisker from minimum to maximum. */
export function plotOf(result: BenchResult): string {
  const { machine, options } = result;
  const parts: string[] = [];
  let y = HEADER_HEIGHT;
  for (const workload of result.workloads) {
    const ids = options.modes.map(({ id }) => id).filter((id) => workload.modes[id] !== undefined);
    if (ids.length === 0) continue;
    parts.push(...workloadPlot(workload, ids, y));
    y += TITLE_HEIGHT + HEADING_HEIGHT + ids.length * ROW_HEIGHT + AXIS_HEIGHT + WORKLOAD_GAP;
  }
  const head = [
    text(MARGIN, 32, `Sluice ${machine.commit} beside other proxies`, 'class="head"'),
    text(
      MARGIN,
      52,
      `${machine.date.slice(0, 10)}; ${machine.cpu}, ${machine.cores} cores; ${machine.postgres}; load before ${machine.loadBefore.toFixed(1)}`,
    ),
    text(
      MARGIN,
      69,
      `Bars: median of ${options.rounds} round${options.rounds === 1 ? "" : "s"}; whiskers: minimum to maximum. Every axis starts at 0.` +
        (options.tiny ? " A test of the suite, no measurement." : ""),
    ),
  ];
  return `<svg xmlns="http://www.w3.org/2000/svg" width="${WIDTH}" height="${y}" viewBox="0 0 ${WIDTH} ${y}" role="img">
<title>Benchmark of Sluice, ${escape(machine.date)}</title>
<style>text { font: 12px sans-serif; fill: #222 } .head { font-size: 18px; font-weight: bold } .title { font-size: 14px; font-weight: bold } .faint { fill: #666; font-size: 11px } .end { text-anchor: end }</style>
<rect width="100%" height="100%" fill="#fff"/>
${[...head, ...parts].join("\n")}
</svg>
`;
}

function workloadPlot(workload: WorkloadResult, ids: readonly string[], top: number): string[] {
  const title = workload.rate === undefined ? workload.name : `${workload.name} (${workload.rate}/s)`;
  const first = top + TITLE_HEIGHT + HEADING_HEIGHT;
  const parts = [line(MARGIN, top, WIDTH - MARGIN, top, "#ccc"), text(MARGIN, top + 22, title, 'class="title"')];
  for (const [row, id] of ids.entries())
    parts.push(text(MARGIN + LABEL_WIDTH - 10, first + row * ROW_HEIGHT + 13, labelOf(id), 'class="end"'));
  for (const [column, figure] of PLOTTED[workload.kind].entries()) {
    const left = MARGIN + LABEL_WIDTH + column * (PANEL_WIDTH + PANEL_GAP);
    parts.push(...panel(workload, figure, ids, left, first));
  }
  return parts;
}

function panel(workload: WorkloadResult, figure: Figure, ids: readonly string[], left: number, top: number): string[] {
  const { heading, better, factor } = FIGURES[figure];
  const parts = [text(left, top - 7, `${heading}, ${better} is better`, 'class="faint"')];
  const largest = Math.max(...ids.map((id) => workload.modes[id]?.[figure]?.max ?? 0)) * factor;
  if (!(largest > 0)) return [...parts, text(left, top + 13, "not measured", 'class="faint"')];
  const length = PANEL_WIDTH - VALUE_WIDTH;
  const x = (value: number): number => left + (value / largest) * length;
  const bottom = top + ids.length * ROW_HEIGHT;
  for (const tick of ticks(largest)) {
    parts.push(line(x(tick), top, x(tick), bottom, "#e4e4e4"));
    parts.push(text(x(tick), bottom + 14, String(tick), 'class="faint" text-anchor="middle"'));
  }
  for (const [row, id] of ids.entries()) {
    const y = top + row * ROW_HEIGHT;
    const spread = workload.modes[id]?.[figure];
    if (spread === undefined) {
      parts.push(text(left + 4, y + 13, "–", 'class="faint"'));
      continue;
    }
    const fill = id.startsWith("sluice") ? GATEWAY_BAR : BAR;
    const width = Math.max(1, x(spread.median * factor) - left);
    parts.push(`<rect x="${fixed(left)}" y="${fixed(y + 1)}" width="${fixed(width)}" height="${BAR_HEIGHT}" fill="${fill}"/>`);
    const [low, high, middle] = [x(Math.max(0, spread.min) * factor), x(spread.max * factor), y + 1 + BAR_HEIGHT / 2];
    if (spread.rounds.length > 1) {
      parts.push(line(low, middle, high, middle, "#111"), line(low, middle - 4, low, middle + 4, "#111"));
      parts.push(line(high, middle - 4, high, middle + 4, "#111"));
    }
    parts.push(text(Math.max(high, left + width) + 5, y + 13, shown(figure, spread.median)));
  }
  parts.push(line(left, top, left, bottom, "#555"));
  return parts;
}

/** Round numbers from 0, about four of them. */
function ticks(largest: number): readonly number[] {
  const power = 10 ** Math.floor(Math.log10(largest / 4));
  const step = power * ([1, 2, 5, 10].find((factor) => largest / (power * factor) <= 5) ?? 10);
  const decimals = Math.max(0, -Math.floor(Math.log10(step)));
  return Array.from({ length: Math.floor(largest / step) + 1 }, (_, index) => Number((index * step).toFixed(decimals)));
}

const fixed = (value: number): string => value.toFixed(1);
const line = (x1: number, y1: number, x2: number, y2: number, stroke: string): string =>
  `<line x1="${fixed(x1)}" y1="${fixed(y1)}" x2="${fixed(x2)}" y2="${fixed(y2)}" stroke="${stroke}"/>`;
const text = (x: number, y: number, content: string, attributes = ""): string =>
  `<text x="${fixed(x)}" y="${fixed(y)}"${attributes === "" ? "" : ` ${attributes}`}>${escape(content)}</text>`;
const escape = (content: string): string =>
  content.replaceAll("&", "&amp;").replaceAll("<", "&lt;").replaceAll(">", "&gt;").replaceAll('"', "&quot;");
