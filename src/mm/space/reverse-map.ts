// SPDX-License-Identifier: MIT
// From a frame to the page table entries that hold it: the areas of one object (an anonymous group,
// a file, a device), and arithmetic with the frame's index. Read first: Linux `mm/rmap.c`. As
// there, an area says where an entry could be; whether it is one, the frame that it holds says.

import { type Pfn, type PhysicalMemory, ZONE } from "../frames/index.js";
import { INVALIDATE, PAGE, PAGE_BYTES } from "./constants.js";
import type { Vma } from "./vma.js";

/** Told of each entry, which it may clear. */
export type EntryVisitor = (area: Vma, page: number) => void;

export class ReverseMap {
  private readonly areas = new Set<Vma>();

  get count(): number {
    return this.areas.size;
  }

  get all(): ReadonlySet<Vma> {
    return this.areas;
  }

  add(area: Vma): void {
    this.areas.add(area);
  }

  delete(area: Vma): void {
    this.areas.delete(area);
  }

  has(area: Vma): boolean {
    return this.areas.has(area);
  }

  /** Entries that hold frames of [pfn, pfn + count), called `index` and up. */
  countEntries(pfn: Pfn, index: number, count: number): number {
    let entries = 0;
    for (const area of this.areas) {
      const shift = pagesFrom(area, index);
      const end = Math.min(area.pageCount, shift + count);
      for (let i = Math.max(0, shift); i < end; i++) {
        if (holds(area, area.startPage + i, pfn + i - shift)) entries++;
      }
    }
    return entries;
  }

  /** Whether there are any. */
  hasEntries(pfn: Pfn, index: number, count: number): boolean {
    for (const area of this.areas) {
      const shift = pagesFrom(area, index);
      const end = Math.min(area.pageCount, shift + count);
      for (let i = Math.max(0, shift); i < end; i++) {
        if (holds(area, area.startPage + i, pfn + i - shift)) return true;
      }
    }
    return false;
  }

  visitEntries(pfn: Pfn, index: number, count: number, visit: EntryVisitor): void {
    for (const area of this.areas) {
      const shift = pagesFrom(area, index);
      const end = Math.min(area.pageCount, shift + count);
      for (let i = Math.max(0, shift); i < end; i++) {
        if (holds(area, area.startPage + i, pfn + i - shift)) visit(area, area.startPage + i);
      }
    }
  }

  /** Before frames move: nobody gets at them through an entry when this returns. */
  hideEntries(pfn: Pfn, index: number, count: number): void {
    this.visitEntries(pfn, index, count, (area, page) => {
      const address = page * PAGE_BYTES;
      area.space.notifiers.invalidateStart(address, address + PAGE_BYTES, INVALIDATE.MOVE);
      area.space.table.change(page, PAGE.MOVING, 0);
    });
  }

  /** After they have moved (or not): the entries hold [to, to + count). */
  showEntries(memory: PhysicalMemory, from: Pfn, to: Pfn, index: number, count: number): void {
    const barred = memory.zoneOf(to).kind === ZONE.PRIVATE ? PAGE.PRIVATE : 0;
    this.visitEntries(from, index, count, (area, page) => {
      const { table, notifiers } = area.space;
      const flags = table.flagsOf(page) & ~(PAGE.MOVING | PAGE.PRIVATE);
      const address = page * PAGE_BYTES;
      table.set(page, to + (table.frameOf(page) - from), flags | barred);
      notifiers.invalidateEnd(address, address + PAGE_BYTES);
    });
  }
}

/** Pages from the start of the area to the page called `index`; negative before it. */
export function pagesFrom(area: Vma, index: number): number {
  // Frames keep the low 32 bits of their index; areas are shorter than half of that.
  return (index - area.index) | 0;
}

function holds(area: Vma, page: number, pfn: Pfn): boolean {
  const { table } = area.space;
  return table.isHeld(page) && table.frameOf(page) === pfn;
}
