// SPDX-License-Identifier: MIT
// The areas of one address space in order: looked up, placed, split and merged. Knows of no pages.

import { assert } from "../../base/index.js";
import { ADDRESS_END, ADDRESS_MIN, PAGE_BYTES } from "./constants.js";
import { Vma } from "./vma.js";

const PAGE_MIN = ADDRESS_MIN / PAGE_BYTES;
const PAGE_END = ADDRESS_END / PAGE_BYTES;
/** No such gap. */
export const NO_PLACE = -1;

export class VmaList {
  /** By address; they don't overlap. */
  private readonly areas: Vma[] = [];
  /** Pages of all areas. */
  pageCount = 0;
  /** Gaps that searches for a place have looked at. Grows. */
  gapsSeen = 0;
  /** Where the last search ended: gaps that end above this page have at most `gapMax` pages. */
  private searchEnd = PAGE_END;
  private gapMax = 0;

  get count(): number {
    return this.areas.length;
  }

  at(position: number): Vma {
    return this.areas[position] as Vma;
  }

  /** All areas, in order. To be read. */
  get all(): readonly Vma[] {
    return this.areas;
  }

  find(page: number): Vma | null {
    const area = this.areas[this.positionOf(page)] ?? null;
    return area !== null && area.startPage <= page ? area : null;
  }

  /** The first area that ends behind `page`, null when there is none. */
  from(page: number): Vma | null {
    return this.areas[this.positionOf(page)] ?? null;
  }

  /** Position of the first area that ends behind `page`; `count` when there is none. */
  positionOf(page: number): number {
    let low = 0;
    let high = this.areas.length;
    while (low < high) {
      const middle = (low + high) >>> 1;
      const area = this.areas[middle] as Vma;
      if (area.startPage + area.pageCount <= page) low = middle + 1;
      else high = middle;
    }
    return low;
  }

  /** Areas that reach into [startPage, endPage), in order. */
  within(startPage: number, endPage: number): Vma[] {
    const found: Vma[] = [];
    for (let i = this.positionOf(startPage); i < this.areas.length; i++) {
      const area = this.areas[i] as Vma;
      if (area.startPage >= endPage) break;
      found.push(area);
    }
    return found;
  }

  isFree(startPage: number, endPage: number): boolean {
    const area = this.areas[this.positionOf(startPage)] ?? null;
    return area === null || area.startPage >= endPage;
  }

  /**
   * Highest place for `pageCount` pages with `gapPages` free on either side, as Linux' top-down
   * search. @returns its first page, a multiple of `alignPages`; NO_PLACE when there is none.
   */
  findPlace(pageCount: number, gapPages: number, alignPages: number): number {
    const isFromTop = pageCount + 2 * gapPages <= this.gapMax;
    let gap = isFromTop ? this.areas.length : this.positionOf(this.searchEnd);
    let most = isFromTop ? 0 : this.gapMax;
    for (; gap >= 0; gap--) {
      this.gapsSeen++;
      const [below, end] = [this.gapStart(gap), this.gapEnd(gap)];
      const start = Math.floor((end - gapPages - pageCount) / alignPages) * alignPages;
      if (start >= below + gapPages) {
        this.searchEnd = end;
        this.gapMax = most;
        return start;
      }
      most = Math.max(most, end - below);
    }
    this.searchEnd = PAGE_MIN;
    this.gapMax = most;
    return NO_PLACE;
  }

  insert(area: Vma): void {
    const position = this.positionOf(area.startPage);
    const next = this.areas[position] ?? null;
    assert(next === null || next.startPage >= area.endPage, "areas don't overlap");
    this.areas.splice(position, 0, area);
    this.pageCount += area.pageCount;
    attach(area);
  }

  /** Preconditions: the page table has nothing there any more. See `endUnused`. */
  remove(area: Vma): void {
    const position = this.positionOf(area.startPage);
    assert(this.areas[position] === area, "an area that is removed is in the list");
    this.cut(position);
    this.noteGap(position);
  }

  /** Makes the area that `page` lies inside of two, the second of which begins there. */
  splitAt(page: number): void {
    const area = this.find(page);
    if (area === null || area.startPage === page) return;
    const kept = page - area.startPage;
    const upper = new Vma(area.space, {
      startPage: page,
      pageCount: area.pageCount - kept,
      prot: area.prot,
      isShared: area.isShared,
      mayWrite: area.mayWrite,
      index: area.index + kept,
      file: area.file,
      device: area.device,
      group: area.group,
    });
    area.pageCount = kept;
    this.pageCount -= upper.pageCount;
    this.insert(upper);
  }

  /** Grows an area at its end. Preconditions: what is added is free. */
  grow(area: Vma, pageCount: number): void {
    assert(pageCount >= area.pageCount, "an area that shrinks is split, and a part removed");
    this.pageCount += pageCount - area.pageCount;
    area.pageCount = pageCount;
  }

  /** Merges areas that touch [startPage, endPage) or lie inside with neighbours alike. */
  mergeIn(startPage: number, endPage: number): void {
    let position = Math.max(0, this.positionOf(startPage) - 1);
    while (position + 1 < this.areas.length) {
      const area = this.areas[position] as Vma;
      const next = this.areas[position + 1] as Vma;
      if (area.startPage >= endPage) break;
      if (!area.continuesIn(next)) {
        position++;
        continue;
      }
      const { pageCount } = next;
      if (area.group === null && next.group !== null) {
        area.group = next.group;
        area.group.areas.add(area);
      }
      this.cut(position + 1);
      this.grow(area, area.pageCount + pageCount);
    }
  }

  checkInvariants(): void {
    let pages = 0;
    let end = PAGE_MIN;
    for (const area of this.areas) {
      assert(area.pageCount > 0, "an area has pages");
      assert(area.startPage >= end, "areas are in order and don't overlap");
      assert(area.file === null || area.file.areas.has(area), "a file knows its areas");
      assert(area.group === null || area.group.areas.has(area), "a group knows its areas");
      end = area.endPage;
      pages += area.pageCount;
    }
    for (let gap = this.areas.length; gap >= 0 && this.gapEnd(gap) > this.searchEnd; gap--) {
      const pageCount = this.gapEnd(gap) - this.gapStart(gap);
      assert(pageCount <= this.gapMax, "no gap that a search passes over is larger than it knows");
    }
    assert(end <= PAGE_END, "areas end where addresses do");
    assert(pages === this.pageCount, "the pages of all areas are counted");
  }

  private cut(position: number): void {
    const [area] = this.areas.splice(position, 1);
    assert(area !== undefined, "what is cut out of the list is in it");
    this.pageCount -= area.pageCount;
    detach(area);
  }

  /** Gap n lies below area n; the last one above all areas. */
  private gapStart(gap: number): number {
    return gap > 0 ? (this.areas[gap - 1] as Vma).endPage : PAGE_MIN;
  }

  private gapEnd(gap: number): number {
    return gap < this.areas.length ? (this.areas[gap] as Vma).startPage : PAGE_END;
  }

  /** A gap has become larger. */
  private noteGap(gap: number): void {
    const end = this.gapEnd(gap);
    if (end > this.searchEnd) this.gapMax = Math.max(this.gapMax, end - this.gapStart(gap));
  }
}

function attach(area: Vma): void {
  area.group?.areas.add(area);
  area.file?.areas.add(area);
  if (area.device !== null) area.space.manager.devices.areasOf(area.device).add(area);
}

function detach(area: Vma): void {
  area.group?.areas.delete(area);
  area.file?.areas.delete(area);
  if (area.device !== null) area.space.manager.devices.areasOf(area.device).delete(area);
}

/** After areas were removed, outside the change: what nobody maps any more ends. */
export function endUnused(areas: readonly Vma[]): void {
  for (const area of areas) {
    area.group?.endIfUnused();
    area.file?.endIfUnused();
    if (area.device !== null) area.space.manager.devices.forgetIfUnused(area.device);
  }
}
