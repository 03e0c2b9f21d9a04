// SPDX-License-Identifier: MIT
// The weeks as a drawing: four panels over the same hours, a line a policy (SVG 1.1, no script, no
// font of its own).

import type { HourSample, WeekResult } from "./week.js";

const WIDTH = 980;
const LEFT = 76;
const RIGHT = 24;
const PANEL = 168;
const GAP = 58;
/** Colours that people with any colour vision tell apart. */
const COLOURS = ["#d55e00", "#000000", "#0072b2", "#cc79a7", "#56b4e9", "#6b6b6b", "#009e73"];
const DASHES = ["", "3 5", "", "2 3", "7 3", "3 2", ""];
const LEGEND_COLUMNS = 4;
const DAYS = ["Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun"];

interface Panel {
  readonly title: string;
  readonly valueOf: (sample: HourSample, memoryBytes: number) => number;
  /** Marks of the axis, ascending, first to last its range. */
  readonly marks: readonly number[];
  readonly isLogarithmic: boolean;
  readonly label: (mark: number) => string;
}

const SHARES = [0, 0.25, 0.5, 0.75, 1];
const percent = (mark: number) => `${Math.round(mark * 100)} %`;

/** At 4 KiB a page, and at 2 MiB; the same in every language's number format. */
const DESCRIPTOR_LABELS = new Map([
  [2048, "2,048"],
  [16_384, "16,384"],
  [131_072, "131,072"],
  [1_048_576, "1,048,576"],
]);

const PANELS: readonly Panel[] = [
  {
    title: "Memory that 2 MiB requests could get at all: page blocks where everything can move",
    valueOf: ({ reachableShare }) => reachableShare,
    marks: SHARES,
    isLogarithmic: false,
    label: percent,
  },
  {
    title: "Free memory that lies in blocks of 2 MiB and above",
    valueOf: ({ hugeShareOfFree }) => hugeShareOfFree,
    marks: SHARES,
    isLogarithmic: false,
    label: percent,
  },
  {
    title: "What can't move: its share of the bytes (thin) and of the page blocks (bold)",
    valueOf: ({ stuckShareOfBlocks }) => stuckShareOfBlocks,
    marks: SHARES,
    isLogarithmic: false,
    label: percent,
  },
  {
    title: "Descriptors of a 4 GiB transfer (logarithmic)",
    valueOf: ({ descriptors }) => Math.max(1024, descriptors),
    marks: [1024, 2048, 16_384, 131_072, 1_048_576, 2_097_152],
    isLogarithmic: true,
    label: (mark) => DESCRIPTOR_LABELS.get(mark) ?? "",
  },
  {
    title: "Bytes moved by compaction and pins in an hour, as a share of memory",
    valueOf: ({ movedBytes }, memoryBytes) => movedBytes / memoryBytes,
    marks: [0, 0.05, 0.1, 0.15],
    isLogarithmic: false,
    label: percent,
  },
];

/**
 * @param title what was played: memory, seed.
 * @returns the whole file.
 */
export function weeksSvg(weeks: readonly WeekResult[], memoryBytes: number, title: string): string {
  const hours = Math.max(1, ...weeks.map((week) => week.hours.length));
  const legendRows = Math.ceil(weeks.length / LEGEND_COLUMNS);
  const top = 62 + legendRows * 20;
  const height = top + PANELS.length * (PANEL + GAP) + 4;
  const body = [
    `<title>${escaped(title)}</title>`,
    `<rect width="${WIDTH}" height="${height}" fill="#ffffff"/>`,
    `<text x="${LEFT}" y="28" font-size="16" font-weight="bold">${escaped(title)}</text>`,
    ...legend(weeks),
    ...PANELS.flatMap((panel, i) =>
      drawPanel(panel, top + i * (PANEL + GAP) + 22, { weeks, hours, memoryBytes }),
    ),
  ];
  return (
    `<svg xmlns="http://www.w3.org/2000/svg" width="${WIDTH}" height="${height}" ` +
    `viewBox="0 0 ${WIDTH} ${height}" font-family="sans-serif" font-size="12" fill="#222222">\n` +
    `${body.join("\n")}\n</svg>\n`
  );
}

function legend(weeks: readonly WeekResult[]): string[] {
  const column = (WIDTH - LEFT - RIGHT) / LEGEND_COLUMNS;
  return weeks.map(({ policy }, i) => {
    const x = LEFT + (i % LEGEND_COLUMNS) * column;
    const y = 52 + Math.floor(i / LEGEND_COLUMNS) * 20;
    return (
      `<line x1="${x}" y1="${y - 4}" x2="${x + 26}" y2="${y - 4}" ${stroke(i, 2.5)}/>` +
      `<text x="${x + 32}" y="${y}">${escaped(policy)}</text>`
    );
  });
}

interface Content {
  readonly weeks: readonly WeekResult[];
  readonly hours: number;
  readonly memoryBytes: number;
}

function drawPanel(panel: Panel, top: number, content: Content): string[] {
  const { weeks, hours, memoryBytes } = content;
  const right = WIDTH - RIGHT;
  const x = (hour: number) => LEFT + ((right - LEFT) * hour) / hours;
  const y = (value: number) => top + PANEL * (1 - position(panel, value));
  const out = [`<text x="${LEFT}" y="${top - 9}" font-weight="bold">${panel.title}</text>`];
  for (const mark of panel.marks) {
    const line = fixed(y(mark));
    const text = `x="${LEFT - 8}" y="${fixed(y(mark) + 4)}" text-anchor="end"`;
    out.push(
      `<line x1="${LEFT}" y1="${line}" x2="${right}" y2="${line}" stroke="#e2e2e2"/>`,
      `<text ${text}>${panel.label(mark)}</text>`,
    );
  }
  for (let hour = 0; hour <= hours; hour += 24) {
    const line = fixed(x(hour));
    const day = DAYS[(hour / 24) % 7];
    out.push(
      `<line x1="${line}" y1="${top}" x2="${line}" y2="${top + PANEL}" stroke="#c4c4c4"/>`,
      hour < hours ? `<text x="${fixed(x(hour) + 4)}" y="${top + PANEL + 15}">${day}</text>` : "",
    );
  }
  weeks.forEach((week, i) => {
    const line = (value: (sample: HourSample) => number, width: number) => {
      const points = week.hours.map((s) => `${fixed(x(s.hour))},${fixed(y(value(s)))}`).join(" ");
      out.push(`<polyline points="${points}" fill="none" ${stroke(i, width)}/>`);
    };
    if (panel.title.startsWith("What can't move")) line((s) => s.stuckShareOfBytes, 0.8);
    line((s) => panel.valueOf(s, memoryBytes), 2);
  });
  return out;
}

/** 0 .. 1 from the lowest mark to the highest; what is beyond is at the edge. */
function position({ marks, isLogarithmic }: Panel, value: number): number {
  const scale = isLogarithmic ? Math.log : (x: number) => x;
  const low = scale(marks[0] as number);
  const high = scale(marks.at(-1) as number);
  return Math.min(1, Math.max(0, (scale(value) - low) / (high - low)));
}

function stroke(index: number, width: number): string {
  const at = index % COLOURS.length;
  const dash = DASHES[at] === "" ? "" : ` stroke-dasharray="${DASHES[at]}"`;
  return `stroke="${COLOURS[at]}" stroke-width="${width}"${dash}`;
}

function fixed(value: number): string {
  return value.toFixed(1);
}

function escaped(text: string): string {
  return text.replaceAll("&", "&amp;").replaceAll("<", "&lt;").replaceAll('"', "&quot;");
}
