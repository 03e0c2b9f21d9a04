// SPDX-License-Identifier: MIT
// The tree as a drawing (SVG 1.1, no script, no font of its own): root buses at the left, devices
// at the right, one row a leaf, so that a server with hundreds of functions fits on one long page.
// Everything written in it comes from a dump and is escaped.

import type { Tree, TreeNode } from "./tree.js";
import type { Answer } from "./words.js";

const ROW = 38;
const BOX_HEIGHT = 30;
const GAP = 26;
const MARGIN = 16;
/** Room of a box by its type. */
const WIDTHS: Readonly<Record<TreeNode["type"], number>> = {
  root: 176,
  bridge: 156,
  device: 286,
  others: 286,
};
/** A character of 11 px sans, about; what is too long is cut. */
const CHARACTER = 6.1;

const FILLS: Readonly<Record<string, string>> = {
  root: "#e8eaed",
  bridge: "#ffffff",
  others: "#fafafa",
  gpu: "#d9f0d3",
  accelerator: "#d9f0d3",
  nic: "#d6e6f7",
  nvme: "#fdebc8",
  storage: "#fdf3dd",
  memory: "#ece0f5",
  other: "#f4f4f4",
};
const REFUSING = { fill: "#fbd5d5", stroke: "#c81e1e" };
const ANSWER_COLOURS: Readonly<Record<Answer, string>> = {
  direct: "#18813a",
  "host-bridge": "#1a5fb4",
  allowed: "#1a5fb4",
  refused: "#c81e1e",
  unknown: "#8a6d00",
};

interface Placed {
  readonly node: TreeNode;
  readonly x: number;
  readonly y: number;
  readonly width: number;
  readonly parent: Placed | null;
}

/**
 * @param title a sentence above the drawing; the marked path's answer, for one.
 * @returns the whole file.
 */
export function treeSvg(tree: Tree, title: string): string {
  const placed: Placed[] = [];
  let rows = 0;
  for (const root of tree.roots) rows = place(root, null, rows, placed);
  const top = MARGIN + 52;
  const right = Math.max(640, ...placed.map(({ x, width }) => x + width));
  const bottom = top + rows * ROW;
  const colour = tree.answer === null ? "#333333" : ANSWER_COLOURS[tree.answer];
  const parts = [
    ...headLines(title, right + MARGIN, bottom + MARGIN + (tree.rest === null ? 0 : 20)),
    `<g transform="translate(0,${top})">`,
    ...edges(placed, false, colour),
    ...edges(placed, true, colour),
    ...rootCrossing(placed, colour),
    ...placed.map((one) => box(one, colour)),
    "</g>",
  ];
  if (tree.rest !== null) parts.push(text(MARGIN, bottom + 16, tree.rest, "s"));
  return `${parts.join("\n")}\n</svg>\n`;
}

/** @returns the row after the last one that it needs. */
function place(node: TreeNode, parent: Placed | null, row: number, out: Placed[]): number {
  const x = parent === null ? MARGIN + 14 : parent.x + parent.width + GAP;
  const index = out.length;
  // The place in the list is kept: a parent's row is known after its children's.
  out.push({ node, x, y: row * ROW, width: WIDTHS[node.type], parent });
  if (node.children.length === 0) return row + 1;
  const holder: { -readonly [Key in keyof Placed]: Placed[Key] } = out[index] as Placed;
  let next = row;
  const ys: number[] = [];
  for (const child of node.children) {
    const childIndex = out.length;
    next = place(child, holder, next, out);
    ys.push((out[childIndex] as Placed).y);
  }
  holder.y = ((ys[0] as number) + (ys.at(-1) as number)) / 2;
  return next;
}

function headLines(title: string, width: number, height: number): string[] {
  const legend: readonly (readonly [fill: string, stroke: string, dash: string, what: string])[] = [
    [REFUSING.fill, REFUSING.stroke, "", "ACS redirects: peers' requests are sent up"],
    ["#ffffff", "#777777", "4 3", "ACS unknown"],
    [FILLS["gpu"] as string, "#777777", "", "GPU, accelerator"],
    [FILLS["nic"] as string, "#777777", "", "network"],
    [FILLS["nvme"] as string, "#777777", "", "drive"],
  ];
  const lines = [
    `<svg xmlns="http://www.w3.org/2000/svg" width="${width}" height="${height}" ` +
      `viewBox="0 0 ${width} ${height}" role="img" ` +
      'font-family="DejaVu Sans, Verdana, sans-serif">',
    `<title>${escapeXml(title)}</title>`,
    "<style>text{fill:#1b1b1b}.t{font-size:11px;font-weight:bold}.s{font-size:10px}" +
      ".h{font-size:14px;font-weight:bold}</style>",
    `<rect width="${width}" height="${height}" fill="#ffffff"/>`,
    text(MARGIN, MARGIN + 8, title, "h"),
  ];
  let x = MARGIN;
  for (const [fill, stroke, dash, what] of legend) {
    const style = dash === "" ? "" : ` stroke-dasharray="${dash}"`;
    lines.push(
      `<rect x="${x}" y="${MARGIN + 20}" width="18" height="12" rx="3" fill="${fill}" ` +
        `stroke="${stroke}"${style}/>`,
      text(x + 24, MARGIN + 30, what, "s"),
    );
    x += 24 + what.length * 5.8 + 20;
  }
  return lines;
}

function edges(placed: readonly Placed[], isMarked: boolean, colour: string): string[] {
  const lines: string[] = [];
  for (const { node, x, y, parent } of placed) {
    if (parent === null || (node.isMarked && parent.node.isMarked) !== isMarked) continue;
    const from = parent.x + parent.width;
    const middle = from + GAP / 2;
    const style = isMarked ? `stroke="${colour}" stroke-width="3.5"` : 'stroke="#9a9a9a"';
    const fromY = parent.y + BOX_HEIGHT / 2;
    lines.push(
      `<path d="M${from} ${fromY}H${middle}V${y + BOX_HEIGHT / 2}H${x}" fill="none" ${style}/>`,
    );
  }
  return lines;
}

/** Two marked root buses are joined at the left edge: through the processor. */
function rootCrossing(placed: readonly Placed[], colour: string): string[] {
  const roots = placed.filter(({ node }) => node.type === "root" && node.isMarked);
  const [first, second] = roots;
  if (first === undefined || second === undefined) return [];
  const x = MARGIN + 4;
  const [y1, y2] = [first.y + BOX_HEIGHT / 2, second.y + BOX_HEIGHT / 2];
  return [
    `<path d="M${first.x} ${y1}H${x}V${y2}H${second.x}" fill="none" stroke="${colour}" ` +
      'stroke-width="3.5"/>',
  ];
}

function box({ node, x, y, width }: Placed, colour: string): string {
  const refuses = node.acs === "redirects";
  const fill = refuses ? REFUSING.fill : (FILLS[node.kind ?? node.type] ?? FILLS["other"]);
  const stroke = node.isMarked ? colour : refuses ? REFUSING.stroke : "#777777";
  const weight = node.isMarked ? 2.5 : 1;
  const dash = node.acs === "unknown" && node.type === "bridge" ? ' stroke-dasharray="4 3"' : "";
  const room = Math.floor((width - 14) / CHARACTER);
  const title = cut(node.title, Math.floor(room * 0.92));
  const detail = cut(node.detail, Math.floor(room * 1.08));
  const isCut = title !== node.title || detail !== node.detail;
  const drawing = [
    `<rect x="${x}" y="${y}" width="${width}" height="${BOX_HEIGHT}" rx="4" fill="${fill}" ` +
      `stroke="${stroke}" stroke-width="${weight}"${dash}/>`,
    text(x + 7, y + 13, title, "t"),
    text(x + 7, y + 25, detail, "s"),
  ].join("");
  // A viewer shows the whole text where the pointer rests.
  const whole = escapeXml(`${node.title}: ${node.detail}`);
  return isCut ? `<g><title>${whole}</title>${drawing}</g>` : drawing;
}

function text(x: number, y: number, content: string, style: string): string {
  return `<text x="${x}" y="${y}" class="${style}">${escapeXml(content)}</text>`;
}

function cut(content: string, length: number): string {
  const characters = [...content];
  return characters.length <= length ? content : `${characters.slice(0, length - 1).join("")}…`;
}

const ENTITIES: Readonly<Record<string, string>> = {
  "&": "&amp;",
  "<": "&lt;",
  ">": "&gt;",
  '"': "&quot;",
  "'": "&#39;",
};

/** Text for XML: its special characters as entities, what XML 1.0 can't hold left out. */
export function escapeXml(content: string): string {
  return content
    .replace(/[^\t\n\u0020-\ud7ff\ue000-\ufffd\u{10000}-\u{10ffff}]/gu, "")
    .replace(/[&<>"']/g, (character: string) => ENTITIES[character] as string);
}
