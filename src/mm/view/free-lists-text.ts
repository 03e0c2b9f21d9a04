// SPDX-License-Identifier: MIT
// `/proc/buddyinfo` and `/proc/pagetypeinfo`: how many free blocks there are of each order, by zone
// and by what the page blocks are set apart for. Read first: Linux `mm/vmstat.c`
// (`frag_show_print`, `pagetypeinfo_showfree_print`).

import { linesOf, Notices, numberOf } from "./machine-text.js";

/** Orders that a kernel may have; today's have 11 to 14. */
const ORDER_COUNT_MAX = 32;
const ZONE_COUNT_MAX = 4096;

/** Free blocks of one zone of one node. */
export interface ZoneFree {
  readonly node: number;
  readonly zone: string;
  /** Free blocks by order: `counts[n]` blocks of 2^n pages. */
  readonly counts: readonly number[];
}

/** The same of one migrate type. */
export interface TypeFree extends ZoneFree {
  readonly type: string;
  /** The kernel stops counting at 100,000: some counts are at least so many. */
  readonly isAtLeast: boolean;
}

/** Page blocks of a zone by migrate type. */
export interface ZoneBlocks {
  readonly node: number;
  readonly zone: string;
  readonly blocks: ReadonlyMap<string, number>;
}

export interface PageTypes {
  /** 2^n pages make a page block; null where the file doesn't say. */
  readonly pageBlockOrder: number | null;
  readonly free: readonly TypeFree[];
  readonly blocks: readonly ZoneBlocks[];
}

const ZONE_START = /^Node\s+(\d{1,6}),\s+zone\s+([A-Za-z0-9_]{1,32})(?:\s+|,\s+type\s+)/;

/** Zones in the file's order; lines that are none are left out, with a notice. */
export function parseBuddyinfo(bytes: Uint8Array, notices = new Notices()): ZoneFree[] {
  const file = "proc/buddyinfo";
  const zones: ZoneFree[] = [];
  const seen = new Set<string>();
  for (const { number, text } of linesOf(bytes, file, notices)) {
    const start = ZONE_START.exec(text);
    const counts = start === null ? null : countsOf(text.slice(start[0].length));
    if (start === null || counts === null || text.includes(", type ")) {
      notices.add(file, number, "not a zone and its counts: left out");
      continue;
    }
    const zone = { node: Number(start[1]), zone: start[2] as string, counts };
    if (!isNew(seen, `${zone.node} ${zone.zone}`)) {
      notices.add(file, number, "the same zone again: left out");
    } else if (zones.length < ZONE_COUNT_MAX) {
      zones.push(zone);
    }
  }
  return zones;
}

/** @returns what is left of the file when every odd line is left out. */
export function parsePagetypeinfo(bytes: Uint8Array, notices = new Notices()): PageTypes {
  return new PageTypeReader(notices).read(bytes);
}

class PageTypeReader {
  private pageBlockOrder: number | null = null;
  private readonly free: TypeFree[] = [];
  private readonly blocks: ZoneBlocks[] = [];
  private readonly seen = new Set<string>();
  /** Types in the columns of the table of page blocks; null outside it. */
  private columns: readonly string[] | null = null;
  private readonly notices: Notices;

  constructor(notices: Notices) {
    this.notices = notices;
  }

  read(bytes: Uint8Array): PageTypes {
    const file = "proc/pagetypeinfo";
    for (const { number, text } of linesOf(bytes, file, this.notices)) {
      const why = this.readLine(text.trim());
      if (why !== null) this.notices.add(file, number, why);
    }
    return { pageBlockOrder: this.pageBlockOrder, free: this.free, blocks: this.blocks };
  }

  /** @returns what is odd about the line, null when nothing is. */
  private readLine(text: string): string | null {
    const order = /^Page block order:\s+(\d{1,2})$/.exec(text);
    if (order !== null) {
      const value = Number(order[1]);
      if (value >= ORDER_COUNT_MAX) return "no order of a page block: left out";
      this.pageBlockOrder = value;
      return null;
    }
    if (text.startsWith("Pages per block:")) return null;
    if (text.startsWith("Free pages count per migrate type")) {
      this.columns = null;
      return null;
    }
    if (text.startsWith("Number of mixed blocks")) {
      // Kernels with page_owner: another table of the same shape, of what is in the wrong place.
      this.columns = [];
      return null;
    }
    if (text.startsWith("Number of blocks type")) {
      this.columns = text.split(/\s+/).slice(4, 4 + ORDER_COUNT_MAX);
      return null;
    }
    const start = ZONE_START.exec(`${text} `);
    if (start === null) return "neither a heading nor a zone: left out";
    return text.includes(", type ") ? this.readFree(text, start) : this.readBlocks(text, start);
  }

  private readFree(text: string, start: RegExpExecArray): string | null {
    const [type = "", ...words] = text.slice(start[0].length).trim().split(/\s+/);
    const rest = words.join(" ");
    const counts = countsOf(rest.replaceAll(">", ""));
    if (counts === null || !/^[A-Za-z]{1,32}$/.test(type)) return "no counts of a type: left out";
    const node = Number(start[1]);
    const zone = start[2] as string;
    if (!isNew(this.seen, `${node} ${zone} ${type}`)) return "the same type again: left out";
    this.free.push({ node, zone, type, counts, isAtLeast: rest.includes(">") });
    return null;
  }

  private readBlocks(text: string, start: RegExpExecArray): string | null {
    if (this.columns === null) return "counts of page blocks without a heading: left out";
    if (this.columns.length === 0) return null;
    const words = text.slice(start[0].length).trim().split(/\s+/);
    const numbers = words.map(numberOf);
    if (words.length !== this.columns.length || numbers.includes(null)) {
      return "not a count for each type: left out";
    }
    const node = Number(start[1]);
    const zone = start[2] as string;
    if (!isNew(this.seen, `blocks ${node} ${zone}`)) return "the same zone again: left out";
    const blocks = new Map<string, number>();
    this.columns.forEach((type, i) => {
      blocks.set(type, numbers[i] as number);
    });
    this.blocks.push({ node, zone, blocks });
    return null;
  }
}

/** @returns null when it isn't a row of numbers. */
function countsOf(text: string): number[] | null {
  const words = text.trim().split(/\s+/);
  if (words.length > ORDER_COUNT_MAX) return null;
  const numbers = words.map(numberOf);
  return numbers.includes(null) ? null : (numbers as number[]);
}

function isNew(seen: Set<string>, key: string): boolean {
  if (seen.has(key)) return false;
  seen.add(key);
  return true;
}
