// SPDX-License-Identifier: MIT
// mremap(2): a mapping grows, shrinks, moves.

import { FarpageError } from "../../base/index.js";
import type { AddressSpace } from "./address-space.js";
import { ADDRESS_END, INVALIDATE, LEAF_PAGES, MAPPING_PAGES_MAX, PAGE_BYTES } from "./constants.js";
import { Vma } from "./vma.js";
import { endUnused, NO_PLACE } from "./vma-list.js";

/** @returns the first page of the mapping. */
export function remapArea(
  space: AddressSpace,
  startPage: number,
  oldPages: number,
  newPages: number,
  mayMove: boolean,
): number {
  const { vmas } = space;
  const area = vmas.find(startPage);
  const oldEnd = startPage + oldPages;
  if (area === null || area.endPage < oldEnd) {
    throw new FarpageError("EFAULT", "the range to be remapped must be one mapping");
  }
  if (newPages <= oldPages) {
    if (newPages < oldPages) {
      space.splitAround(startPage + newPages, oldEnd);
      space.unmapPages(startPage + newPages, oldEnd);
    }
    return startPage;
  }
  checkGrowth(space, area, newPages - oldPages);
  const newEnd = startPage + newPages;
  const hasRoom = newEnd <= ADDRESS_END / PAGE_BYTES && vmas.isFree(oldEnd, newEnd);
  if (area.endPage === oldEnd && hasRoom) {
    vmas.grow(area, newEnd - area.startPage);
    vmas.mergeIn(startPage, newEnd);
    return startPage;
  }
  if (!mayMove) throw new FarpageError("ENOMEM", "the mapping can't grow where it is");
  return move(space, startPage, oldPages, newPages);
}

/** @throws FarpageError EFAULT, ENOMEM. */
function checkGrowth(space: AddressSpace, area: Vma, pages: number): void {
  if (area.device !== null) {
    throw new FarpageError("EFAULT", `a mapping of ${area.device.name} can't grow`);
  }
  const bytes = (space.vmas.pageCount + pages) * PAGE_BYTES;
  if (bytes > space.limits.addressBytesMax || area.pageCount + pages > MAPPING_PAGES_MAX) {
    const limit = space.limits.addressBytesMax;
    throw new FarpageError("ENOMEM", `${space.name} may map ${limit} bytes, and wants ${bytes}`);
  }
}

function move(space: AddressSpace, from: number, oldPages: number, newPages: number): number {
  const { vmas } = space;
  const alignPages = newPages >= LEAF_PAGES ? LEAF_PAGES : 1;
  const to = vmas.findPlace(newPages, space.guardPages, alignPages);
  if (to === NO_PLACE) throw new FarpageError("ENOMEM", "no addresses are free for the mapping");
  space.splitAround(from, from + oldPages);
  const old = vmas.find(from) as Vma;
  const moved = new Vma(space, {
    startPage: to,
    pageCount: newPages,
    prot: old.prot,
    isShared: old.isShared,
    mayWrite: old.mayWrite,
    index: old.index,
    file: old.file,
    device: old.device,
    group: old.group,
  });
  vmas.insert(moved);
  moveEntries(space, old, from, to, oldPages);
  endUnused([old]);
  vmas.mergeIn(to, to + newPages);
  return to;
}

function moveEntries(space: AddressSpace, old: Vma, from: number, to: number, count: number): void {
  const { table, notifiers, manager, vmas } = space;
  const start = from * PAGE_BYTES;
  const end = (from + count) * PAGE_BYTES;
  manager.beginChange();
  notifiers.invalidateStart(start, end, INVALIDATE.REMAP);
  for (let page = table.next(from, from + count); page >= 0; ) {
    const frame = table.frameOf(page);
    const flags = table.flagsOf(page);
    table.clear(page);
    table.set(to + page - from, frame, flags);
    page = table.next(page + 1, from + count);
  }
  vmas.remove(old);
  notifiers.invalidateEnd(start, end);
  manager.endChange();
}
