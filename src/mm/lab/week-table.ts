// SPDX-License-Identifier: MIT
// The weeks as tables: for a terminal, for a spreadsheet.

import { bytesText, columnsText, shareText } from "../view/words.js";
import type { HourSample, WeekResult } from "./week.js";

const DAY_NAMES = ["Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun"];

/** "Fri 18:00", of hours since Monday, midnight. */
export function hourText(hour: number): string {
  const day = DAY_NAMES[Math.floor(hour / 24) % 7] as string;
  return `${day} ${String(hour % 24).padStart(2, "0")}:00`;
}

/** Hour by hour, every `step`-th and the last. */
export function hoursText(week: WeekResult, step: number): string[] {
  const rows = week.hours
    .filter(({ hour }, i) => hour % step === 0 || i === week.hours.length - 1)
    .map((sample) => [
      `  ${hourText(sample.hour)}`,
      shareText(sample.freeShare),
      shareText(sample.hugeShareOfFree),
      shareText(sample.reachableShare),
      shareText(sample.stuckShareOfBytes),
      shareText(sample.stuckShareOfBlocks),
      String(sample.descriptors),
      bytesText(sample.movedBytes),
    ]);
  const head = [
    "  hour",
    "free",
    "2M of free",
    "2M of all",
    "stuck",
    "in blocks",
    "pieces",
    "moved",
  ];
  return [week.policy, ...columnsText([head, ...rows])];
}

/** One line a policy: the worst hour, the last, and what could be had in the end. */
export function summaryText(weeks: readonly WeekResult[]): string[] {
  return columnsText([
    [
      "policy",
      "2M of free",
      "2M of all",
      "stuck",
      "in blocks",
      "pieces of 4 GiB",
      "refused",
      "at the end",
      "moved",
      "waste",
    ],
    ...weeks.map(summaryRow),
  ]);
}

/** Hours in which a request for 2 MiB was refused though so much was free. */
export function refusedHours({ hours }: WeekResult): number {
  return hours.filter(({ isServed }) => isServed === false).length;
}

/** The first hour with this share of the blocks lost to what can't move; null: none. */
export function hourOfLoss({ hours }: WeekResult, share: number): HourSample | null {
  return hours.find(({ stuckShareOfBlocks }) => stuckShareOfBlocks >= share) ?? null;
}

function summaryRow(week: WeekResult): string[] {
  const last = week.hours.at(-1);
  if (last === undefined) return [week.policy];
  const { end } = week;
  return [
    week.policy,
    shareText(last.hugeShareOfFree),
    shareText(last.reachableShare),
    shareText(last.stuckShareOfBytes),
    shareText(last.stuckShareOfBlocks),
    String(last.descriptors),
    `${refusedHours(week)} h`,
    `${end.hugeGot} of ${end.hugePossible}`,
    `${bytesText(end.movedBytes)} (${shareText(end.movedBytes / Math.max(1, end.allocatedBytes))})`,
    shareText(last.wasteShare),
  ];
}

/** What the columns of the tables are. */
export const LEGEND: readonly string[] = [
  "2M of free: free memory in blocks of 2 MiB and above, as it lies; 2M of all: memory in page",
  "blocks where all can move, the most that any work could give; stuck, in blocks: bytes that",
  "can't move, and page blocks that they are in; pieces: descriptors of a 4 GiB transfer; refused:",
  "hours in which a 2 MiB request failed though so much was free; at the end: 2 MiB blocks that",
  "could be had one after another, of as many as were free; moved: by compaction and pins, and",
  "its share of what was allocated; waste: handed out beyond what was asked for",
];

const FIELDS = [
  "hour",
  "freeShare",
  "hugeShareOfFree",
  "reachableShare",
  "stuckShareOfBytes",
  "stuckShareOfBlocks",
  "descriptors",
  "isServed",
  "movedBytes",
  "allocatedBytes",
  "wasteShare",
] as const satisfies readonly (keyof HourSample)[];

/** One line an hour and policy, after a line of names (RFC 4180). */
export function weeksCsv(weeks: readonly WeekResult[]): string {
  const lines = [["policy", ...FIELDS].join(",")];
  for (const { policy, hours } of weeks) {
    for (const sample of hours) {
      lines.push([policy, ...FIELDS.map((field) => String(sample[field] ?? ""))].join(","));
    }
  }
  return `${lines.join("\r\n")}\r\n`;
}
