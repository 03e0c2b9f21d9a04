// SPDX-License-Identifier: MIT
// A day of the lab: the same for the same seed, honest about its memory, and as the policies have
// it. Whole weeks over many seeds are in `week.long.test.ts`.

import { describe, expect, it } from "vitest";
import { DEFAULT_POLICY, POLICIES, UNDIVIDED_POLICY } from "../alloc/index.js";
import type { AllocatorPolicy } from "../alloc/policy.js";
import { Week, type WeekResult } from "./week.js";
import { weeksSvg } from "./week-plot.js";
import { hourOfLoss, hourText, refusedHours, summaryText, weeksCsv } from "./week-table.js";

const MEMORY_BYTES = 64 * 2 ** 20;

function play(policy: AllocatorPolicy, seed: number, hours: number): WeekResult {
  const week = new Week({ policy, seed, memoryBytes: MEMORY_BYTES, hours });
  while (!week.isOver) week.playHour();
  week.memory.checkInvariants();
  return week.finish();
}

const undivided = play(UNDIVIDED_POLICY, 1, 8);
const grouped = play(DEFAULT_POLICY, 1, 8);

describe("a server's week", () => {
  it("the same seed: the same week; another seed: another", () => {
    expect(play(DEFAULT_POLICY, 1, 8)).toEqual(grouped);
    expect(play(DEFAULT_POLICY, 2, 8)).not.toEqual(grouped);
  });

  it("one undivided pool: few bytes that can't move take a third of the blocks", () => {
    const lost = hourOfLoss(undivided, 0.34);
    expect(lost?.stuckShareOfBytes).toBeLessThan(0.07);
    expect(undivided.hours.at(-1)?.descriptors).toBe(1_048_576);
    expect(refusedHours(undivided)).toBeGreaterThan(0);
    expect(undivided.end.hugeGot).toBe(0);
  });

  it("grouped by mobility: 2 MiB are served whenever so much is free", () => {
    expect(refusedHours(grouped)).toBe(0);
    expect(grouped.hours.at(-1)?.descriptors).toBe(2048);
    expect(hourOfLoss(grouped, 0.34)).toBeNull();
    expect(grouped.end.hugeGot).toBe(grouped.end.hugePossible);
    expect(grouped.end.movedBytes).toBeGreaterThan(0);
  });

  it("base pages of 64 KiB: a sixteenth of the pieces, and what is unused in them", () => {
    const policy = POLICIES.find(({ name }) => name === "64k-base") as AllocatorPolicy;
    const last = play(policy, 1, 4).hours.at(-1);
    expect(last?.descriptors).toBeLessThanOrEqual(65_536);
    expect(last?.wasteShare).toBeGreaterThan(0.02);
  });
});

describe("what is shown of a week", () => {
  const weeks = [undivided, grouped];

  it("hours have days", () => {
    expect([0, 18 + 24 * 4, 168].map(hourText)).toEqual(["Mon 00:00", "Fri 18:00", "Mon 00:00"]);
  });

  it("the table has a line a policy", () => {
    expect(summaryText(weeks)).toHaveLength(3);
    expect(summaryText(weeks)[2]).toMatch(/^grouped .* 2048 +0 h/);
  });

  it("the spreadsheet has a line an hour, as many fields in each", () => {
    const lines = weeksCsv(weeks).trimEnd().split("\r\n");
    expect(lines).toHaveLength(1 + 2 * 8);
    expect(new Set(lines.map((line) => line.split(",").length)).size).toBe(1);
  });

  it("the drawing has a line a policy in each panel, and no numbers that are none", () => {
    const svg = weeksSvg(weeks, MEMORY_BYTES, 'a "week" <of> 64 MiB & more');
    expect(svg.match(/<polyline /g)).toHaveLength(2 * 6);
    expect(svg).not.toMatch(/NaN|undefined|Infinity|<of>/);
  });
});
