// SPDX-License-Identifier: MIT
// Every device against every other: the legend that people know, and beside it the verdict.

import { UNKNOWN } from "../fact.js";
import type { Address } from "../topology.js";
import type { P2pVerdict } from "../verdict.js";
import type { Inventory } from "./inventory.js";
import {
  ANSWER_SIGNS,
  ANSWER_TEXTS,
  ANSWERS,
  type Answer,
  answerOf,
  count,
  PROXIMITY_TEXTS,
  tableText,
} from "./words.js";

export interface Matrix {
  /** Release by whose rules it was judged. */
  readonly kernel: string;
  /** Clients: the devices that read or write. */
  readonly rows: readonly Address[];
  /** Providers: the devices whose memory is read or written. */
  readonly columns: readonly Address[];
  /** By row, then by column. */
  readonly paths: readonly (readonly P2pVerdict[])[];
}

/** Judges one pair. */
export type Judge = (client: Address, provider: Address) => P2pVerdict;

export function makeMatrix(
  rows: readonly Address[],
  columns: readonly Address[],
  kernel: string,
  judge: Judge,
): Matrix {
  const paths = rows.map((client) => columns.map((provider) => judge(client, provider)));
  return { kernel, rows, columns, paths };
}

/** How often each answer is there; a device with itself isn't counted. */
export function countAnswers(matrix: Matrix): Readonly<Record<Answer, number>> {
  const counts: Record<Answer, number> = {
    direct: 0,
    "host-bridge": 0,
    allowed: 0,
    refused: 0,
    unknown: 0,
  };
  for (const path of matrix.paths.flat()) {
    if (path.client !== path.provider) counts[answerOf(path)]++;
  }
  return counts;
}

/** Proximity and verdict in one cell: `PIX+`, `SYS-`, `?~`. */
function cellText(path: P2pVerdict): string {
  if (path.client === path.provider) return "X";
  const proximity = path.proximity === UNKNOWN ? "?" : path.proximity;
  return `${proximity}${ANSWER_SIGNS[answerOf(path)]}`;
}

/** The matrix as lines: the table, what the devices are, the legend of what occurs, the sums. */
export function matrixText(inventory: Inventory, matrix: Matrix): string[] {
  const short = (address: Address) => inventory.get(address).label ?? address;
  const table = [
    ["", ...matrix.columns.map(short)],
    ...matrix.rows.map((client, row) => [
      short(client),
      ...(matrix.paths[row] ?? []).map(cellText),
    ]),
  ];
  return [
    ...tableText(table),
    "",
    ...deviceLines(inventory, [...new Set([...matrix.rows, ...matrix.columns])]),
    "",
    ...legendLines(matrix),
    "",
    sumLine(matrix),
  ];
}

function deviceLines(inventory: Inventory, addresses: readonly Address[]): string[] {
  return tableText(
    addresses.map((address) => {
      const { label, pci, shortName } = inventory.get(address);
      const node = pci.numaNode === UNKNOWN || pci.numaNode === null ? "" : `node ${pci.numaNode}`;
      return [label ?? "", address, pci.names.kernel.join(" "), node, shortName];
    }),
  );
}

function legendLines(matrix: Matrix): string[] {
  const paths = matrix.paths.flat().filter(({ client, provider }) => client !== provider);
  const proximities = new Set(paths.map(({ proximity }) => proximity));
  const answers = new Set(paths.map(answerOf));
  const lines = ["Rows are clients (they read and write), columns providers (it is their memory)."];
  for (const [word, text] of Object.entries(PROXIMITY_TEXTS)) {
    if (word !== "X" && proximities.has(word as never)) lines.push(`  ${word.padEnd(5)}${text}`);
  }
  for (const answer of ANSWERS) {
    if (answers.has(answer))
      lines.push(`  ${ANSWER_SIGNS[answer].padEnd(5)}${ANSWER_TEXTS[answer]}`);
  }
  if (proximities.has(UNKNOWN)) lines.push("  ?+   before the sign: the distance is unknown");
  return lines;
}

function sumLine(matrix: Matrix): string {
  const counts = countAnswers(matrix);
  const pairs = Object.values(counts).reduce((sum, number) => sum + number, 0);
  const parts = ANSWERS.filter((answer) => counts[answer] > 0).map(
    (answer) => `${counts[answer]} ${answer === "host-bridge" ? "by the host bridge" : answer}`,
  );
  const what = parts.length === 0 ? "" : `: ${parts.join(", ")}`;
  return `${count(pairs, "pair")} by the rules of kernel ${matrix.kernel}${what}.`;
}
