// SPDX-License-Identifier: MIT
// What pages the system has given to ranges of this process's memory: /proc/self/smaps
// (proc(5), Documentation/filesystems/proc.rst).

import { readFileSync } from "node:fs";
import type { SystemPages } from "./door.js";

/** Addresses [start, end). */
export interface AddressRange {
  readonly start: number;
  readonly end: number;
}

const SMAPS = "/proc/self/smaps";
const HEADER = /^([0-9a-f]+)-([0-9a-f]+) /;
const FIELD = /^(\w+):\s+(\d+) kB$/;

/** @returns null where the system doesn't tell. */
export function readSystemPages(ranges: readonly AddressRange[]): SystemPages | null {
  try {
    return parseSmaps(readFileSync(SMAPS, "latin1"), ranges);
  } catch {
    return null;
  }
}

/**
 * Sums what smaps says of the mappings that lie in one of `ranges`. A mapping that only reaches
 * into one (the system joins neighbours) counts with its share.
 */
export function parseSmaps(text: string, ranges: readonly AddressRange[]): SystemPages {
  const sums = { mappedBytes: 0, residentBytes: 0, transparentHugeBytes: 0, hugetlbBytes: 0 };
  let share = 0;
  for (const line of text.split("\n")) {
    const header = HEADER.exec(line);
    if (header !== null) {
      const start = Number.parseInt(header[1] as string, 16);
      const end = Number.parseInt(header[2] as string, 16);
      const inside = overlap(start, end, ranges);
      share = inside / (end - start);
      sums.mappedBytes += inside;
      continue;
    }
    const field = share > 0 ? FIELD.exec(line) : null;
    if (field === null) continue;
    const bytes = Math.round(Number(field[2]) * 1024 * share);
    if (field[1] === "Rss") sums.residentBytes += bytes;
    else if (field[1] === "AnonHugePages") sums.transparentHugeBytes += bytes;
    else if (field[1] === "Private_Hugetlb" || field[1] === "Shared_Hugetlb") {
      sums.hugetlbBytes += bytes;
    }
  }
  return sums;
}

function overlap(start: number, end: number, ranges: readonly AddressRange[]): number {
  let bytes = 0;
  for (const range of ranges) {
    bytes += Math.max(0, Math.min(end, range.end) - Math.max(start, range.start));
  }
  return bytes;
}
