// SPDX-License-Identifier: MIT
// Taking entries out of a page table.

import { assert } from "../../base/index.js";
import { FRAME_FLAG } from "../frames/index.js";
import type { AddressSpace } from "./address-space.js";
import { type InvalidateReason, PAGE, PAGE_BYTES } from "./constants.js";

/** Empties the entries of [startPage, endPage), with its invalidation. Inside a change. */
export function zapRange(
  space: AddressSpace,
  startPage: number,
  endPage: number,
  why: InvalidateReason,
): void {
  const start = startPage * PAGE_BYTES;
  const end = endPage * PAGE_BYTES;
  space.notifiers.invalidateStart(start, end, why);
  zapEntries(space, startPage, endPage);
  space.notifiers.invalidateEnd(start, end);
}

/** The same where the caller has invalidated. */
export function zapEntries(space: AddressSpace, startPage: number, endPage: number): void {
  const { table, manager } = space;
  const { memory } = manager;
  assert(manager.isChanging, "entries are taken out by a change");
  let page = table.next(startPage, endPage);
  while (page >= 0) {
    const pfn = table.frameOf(page);
    const blockEnd = memory.headOf(pfn) + 2 ** memory.orderOf(pfn);
    let isAccessed = false;
    let count = 0;
    while (pfn + count < blockEnd && page + count < endPage) {
      const flags = table.flagsOf(page + count);
      if (flags === 0 || table.frameOf(page + count) !== pfn + count) break;
      if ((flags & PAGE.ACCESSED) !== 0) isAccessed = true;
      table.clear(page + count);
      count++;
    }
    if (isAccessed && memory.hasFlag(pfn, FRAME_FLAG.FILE)) {
      memory.setFlag(pfn, FRAME_FLAG.REFERENCED);
    }
    manager.dropEntries(pfn, count);
    page = table.next(page + count, endPage);
  }
}
