// SPDX-License-Identifier: MIT
// fork(2) of an address space. Private pages are shared until somebody writes. A pinned one is
// copied for the child at once and stays the parent's own: were it shared, the parent's next write
// would move the parent to a copy, away from the page that a device reads or writes. Read first:
// Linux `mm/memory.c`, copy_present_ptes.

import { FarpageError } from "../../base/index.js";
import { ALLOCATE, FRAME_FLAG, MIGRATE, NO_FRAME, type Pfn } from "../frames/index.js";
import type { AddressSpace, AddressSpaceOptions } from "./address-space.js";
import { INVALIDATE, PAGE, PAGE_BYTES } from "./constants.js";
import { ownFlags, ownFrame } from "./faults.js";
import { Vma } from "./vma.js";

export function forkSpace(parent: AddressSpace, options: AddressSpaceOptions): AddressSpace {
  const { manager } = parent;
  const child = manager.createSpace({
    ...options,
    limits: { ...parent.limits, ...options.limits },
    guardPages: options.guardPages ?? parent.guardPages,
    hugePages: options.hugePages ?? parent.hugePages,
  });
  const copies = allocateCopies(parent);
  let isComplete = copies !== null;
  if (copies !== null) {
    manager.beginChange();
    for (const area of parent.vmas.all) {
      const copy = copyArea(child, area);
      if (area.group !== null && !shareArea(area, copy, copies)) isComplete = false;
    }
    manager.endChange();
    for (const pfn of copies) manager.memory.put(pfn);
  }
  if (isComplete) return child;
  child.exit();
  throw new FarpageError("ENOMEM", `no memory for the pinned pages of a child of ${parent.name}`);
}

/** Frames for the child's copies of pinned pages. null: there is not enough memory. */
function allocateCopies(parent: AddressSpace): Pfn[] | null {
  const { memory } = parent.manager;
  const frames: Pfn[] = [];
  for (const area of parent.vmas.all) {
    if (area.group === null) continue;
    const { table } = parent;
    for (let page = table.next(area.startPage, area.endPage); page >= 0; ) {
      if (isPinnedAnonymous(parent, page)) {
        const pfn = memory.allocate(0, MIGRATE.MOVABLE);
        if (pfn === NO_FRAME) {
          for (const got of frames) memory.put(got);
          return null;
        }
        frames.push(pfn);
      }
      page = table.next(page + 1, area.endPage);
    }
  }
  return frames;
}

function isPinnedAnonymous(space: AddressSpace, page: number): boolean {
  const { memory } = space.manager;
  const pfn = space.table.frameOf(page);
  return memory.isPinned(pfn) && memory.hasFlag(pfn, FRAME_FLAG.ANON);
}

function copyArea(child: AddressSpace, area: Vma): Vma {
  const copy = new Vma(child, {
    startPage: area.startPage,
    pageCount: area.pageCount,
    prot: area.prot,
    isShared: area.isShared,
    mayWrite: area.mayWrite,
    index: area.index,
    file: area.file,
    device: area.device,
    group: area.group,
  });
  child.vmas.insert(copy);
  return copy;
}

/** Gives the child the parent's anonymous pages; what a file has it faults in by itself. */
function shareArea(area: Vma, copy: Vma, copies: Pfn[]): boolean {
  const { table, notifiers, manager } = area.space;
  const { memory } = manager;
  const start = area.startPage * PAGE_BYTES;
  const end = area.endPage * PAGE_BYTES;
  let isComplete = true;
  notifiers.invalidateStart(start, end, INVALIDATE.FORK);
  for (let page = table.next(area.startPage, area.endPage); page >= 0; ) {
    const pfn = table.frameOf(page);
    if (isPinnedAnonymous(area.space, page)) {
      isComplete = copyPinned(copy, page, pfn, copies) && isComplete;
    } else if (memory.hasFlag(pfn, FRAME_FLAG.ANON)) {
      table.change(page, 0, PAGE.WRITABLE | PAGE.EXCLUSIVE);
      memory.get(pfn);
      copy.space.table.set(page, pfn, table.flagsOf(page));
    }
    page = table.next(page + 1, area.endPage);
  }
  notifiers.invalidateEnd(start, end);
  return isComplete;
}

/** Invalidations may have pinned nothing more, but a device's may have let go. */
function copyPinned(copy: Vma, page: number, pfn: Pfn, copies: Pfn[]): boolean {
  const { manager, table } = copy.space;
  const { memory } = manager;
  const flags = ALLOCATE.NO_COMPACT | ALLOCATE.NO_RECLAIM;
  const fresh = copies.pop() ?? memory.allocate(0, MIGRATE.MOVABLE, flags);
  if (fresh === NO_FRAME) return false;
  memory.copyBlock(pfn, fresh, 1);
  ownFrame(copy, page, fresh);
  const isHidden = (copy.prot === 0 ? PAGE.HIDDEN : 0) | PAGE.HELD;
  table.set(page, fresh, ownFlags(copy) | isHidden);
  manager.counters.forkCopies++;
  return true;
}
