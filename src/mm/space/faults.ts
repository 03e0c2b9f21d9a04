// SPDX-License-Identifier: MIT
// Page faults: what is missing is brought in, what is shared is copied before it is written. Read
// first: Linux `mm/memory.c`, handle_mm_fault. Results are numbers; nothing is thrown.
//
// Whatever allocates may reclaim and move pages before it returns, of this address space too, and
// whom it asks (a file's store, a cache) may have faulted itself: first the memory is got, then the
// entry is looked at, and when it is another than before the fault begins anew.

import { assert } from "../../base/index.js";
import { ALLOCATE, FRAME_FLAG, MIGRATE, NO_FRAME, type Pfn } from "../frames/index.js";
import { type AddressSpace, judgeAccess } from "./address-space.js";
import { AnonGroup } from "./anon-group.js";
import {
  ACCESS,
  type Access,
  FAULT,
  type FaultResult,
  INVALIDATE,
  LEAF_ORDER,
  LEAF_PAGES,
  PAGE,
  PAGE_BYTES,
  PROT,
} from "./constants.js";
import type { DeviceMapping } from "./device-mapping.js";
import type { MappedFile } from "./mapped-file.js";
import type { Vma } from "./vma.js";

/** Times that a device may say that a page is back and it is not. */
const DEVICE_TRIES = 3;
const HUGE_FLAGS = ALLOCATE.ZERO | ALLOCATE.NO_COMPACT | ALLOCATE.NO_RECLAIM;

export function handleFault(
  space: AddressSpace,
  page: number,
  access: Access,
  exclusive: boolean,
): FaultResult {
  const { table, manager } = space;
  const area = space.vmas.find(page);
  const verdict = judgeAccess(area, access);
  if (area === null || verdict !== FAULT.READY) return verdict;
  manager.counters.faults++;
  for (let tries = 0; tries < DEVICE_TRIES; tries++) {
    const flags = table.flagsOf(page);
    if ((flags & PAGE.PRIVATE) === 0) {
      if ((flags & PAGE.MOVING) !== 0) return FAULT.BUSY;
      const isMissing = flags === 0;
      return isMissing
        ? faultMissing(area, page, access, exclusive)
        : faultPresent(area, page, access, exclusive);
    }
    const result = manager.privateFault?.(space, page, access) ?? FAULT.DEVICE;
    if (result !== FAULT.READY) return result;
  }
  return FAULT.BUSY;
}

function faultPresent(area: Vma, page: number, access: Access, exclusive: boolean): FaultResult {
  const { table } = area.space;
  const flags = table.flagsOf(page);
  const isWrite = access === ACCESS.WRITE;
  const isReady = !isWrite || (flags & PAGE.WRITABLE) !== 0;
  if (area.isPrivate) {
    if (isReady && (!exclusive || (flags & PAGE.EXCLUSIVE) !== 0))
      return touched(area, page, isWrite);
    const result = makeOwn(area, page, access);
    return result === FAULT.READY ? touched(area, page, isWrite) : result;
  }
  if (!isReady) {
    const result = area.file?.noteWrite(table.frameOf(page)) ?? FAULT.READY;
    if (result !== FAULT.READY) return result;
    table.change(page, PAGE.WRITABLE, 0);
  }
  return touched(area, page, isWrite);
}

/**
 * Pages from `page` on that a fault would find as ready as it is: in the next frames of its block,
 * in its area, allowing the same. They count as touched.
 * @param page ready for the access.
 * @returns how many, itself counted; at most `countMax`, and none beyond its leaf.
 */
export function touchAlike(
  space: AddressSpace,
  page: number,
  countMax: number,
  access: Access,
): number {
  const { table, manager } = space;
  const area = space.vmas.find(page);
  assert(area !== null && table.isHeld(page), "a page that is ready is mapped and held");
  const pfn = table.frameOf(page);
  const blockEnd = manager.memory.headOf(pfn) + 2 ** manager.memory.orderOf(pfn);
  const most = Math.min(countMax, area.endPage - page, blockEnd - pfn);
  if (most < 2) return 1;
  const touch = PAGE.ACCESSED | PAGE.DIRTY;
  const count = table.alike(page, most, ~touch);
  table.changeAlike(page, count, access === ACCESS.WRITE ? touch : PAGE.ACCESSED);
  return count;
}

function touched(area: Vma, page: number, isWrite: boolean): FaultResult {
  area.space.table.change(page, isWrite ? PAGE.ACCESSED | PAGE.DIRTY : PAGE.ACCESSED, 0);
  return FAULT.READY;
}

function faultMissing(area: Vma, page: number, access: Access, exclusive: boolean): FaultResult {
  const isWrite = access === ACCESS.WRITE;
  if (area.device !== null) return faultDevice(area, area.device, page, isWrite);
  if (area.file !== null) return faultFile(area, area.file, page, access, exclusive);
  if (!isWrite && !exclusive) return mapZeroes(area, page);
  return faultAnonymous(area, page, access);
}

/** Until somebody writes: the one page of zeroes. */
function mapZeroes(area: Vma, page: number): FaultResult {
  const { table, manager } = area.space;
  manager.memory.get(manager.zeroFrame);
  table.set(page, manager.zeroFrame, PAGE.HELD | PAGE.ACCESSED);
  manager.counters.zeroFaults++;
  return FAULT.READY;
}

function faultAnonymous(area: Vma, page: number, access: Access): FaultResult {
  const isWrite = access === ACCESS.WRITE;
  if (area.space.hugePages && faultHuge(area, page)) return touched(area, page, isWrite);
  const pfn = area.space.manager.memory.allocate(0, MIGRATE.MOVABLE, ALLOCATE.ZERO);
  if (pfn === NO_FRAME) return FAULT.NO_MEMORY;
  if (!isStillMissing(area, page)) {
    area.space.manager.memory.put(pfn);
    return handleFault(area.space, page, access, true);
  }
  ownFrame(area, page, pfn);
  area.space.table.set(page, pfn, ownFlags(area));
  return touched(area, page, isWrite);
}

/** Whether an area has pages still, and nothing is there. */
function isStillMissing(area: Vma, page: number, end = page + 1): boolean {
  const { vmas, table } = area.space;
  return vmas.find(page) === area && end <= area.endPage && table.next(page, end) < 0;
}

/** Fills the 2 MiB around a page where the area has all of it, empty, and a block can be got. */
function faultHuge(area: Vma, page: number): boolean {
  const { table, manager } = area.space;
  const first = page - (page % LEAF_PAGES);
  const end = first + LEAF_PAGES;
  if (first < area.startPage || end > area.endPage) return false;
  if (table.next(first, end) >= 0) return false;
  const head = manager.memory.allocate(LEAF_ORDER, MIGRATE.MOVABLE, HUGE_FLAGS);
  if (head === NO_FRAME) return false;
  if (!isStillMissing(area, first, end)) {
    manager.memory.put(head);
    return false;
  }
  manager.memory.get(head, LEAF_PAGES - 1);
  ownFrame(area, first, head);
  const flags = ownFlags(area);
  for (let i = 0; i < LEAF_PAGES; i++) table.set(first + i, head + i, flags);
  manager.counters.hugeFaults++;
  return true;
}

function faultFile(
  area: Vma,
  file: MappedFile,
  page: number,
  access: Access,
  exclusive: boolean,
): FaultResult {
  const { table, manager } = area.space;
  const isWrite = access === ACCESS.WRITE;
  const pfn = file.frameOf(area.indexOf(page));
  if (pfn < 0) return -pfn as FaultResult;
  if (!isStillMissing(area, page)) return handleFault(area.space, page, access, exclusive);
  let flags: number = PAGE.HELD | PAGE.ACCESSED;
  if (area.isShared && isWrite) {
    const result = file.noteWrite(pfn);
    if (result !== FAULT.READY) return result;
    flags |= PAGE.WRITABLE | PAGE.DIRTY;
  }
  manager.memory.get(pfn);
  table.set(page, pfn, flags);
  if (area.isShared || !(isWrite || exclusive)) return FAULT.READY;
  const result = makeOwn(area, page, access);
  return result === FAULT.READY ? touched(area, page, isWrite) : result;
}

function faultDevice(
  area: Vma,
  device: DeviceMapping,
  page: number,
  isWrite: boolean,
): FaultResult {
  const { table, manager } = area.space;
  const pfn = device.frameAt(area.indexOf(page));
  if (pfn < 0) return FAULT.PAST_END;
  manager.memory.get(pfn);
  const writable = (area.prot & PROT.WRITE) !== 0 ? PAGE.WRITABLE : 0;
  table.set(page, pfn, PAGE.HELD | writable);
  return touched(area, page, isWrite);
}

/** Makes a private page that is there the process's own, and writable where the area is. */
function makeOwn(area: Vma, page: number, access: Access): FaultResult {
  const { table, manager } = area.space;
  const isOwn = (table.flagsOf(page) & PAGE.EXCLUSIVE) !== 0;
  if (!isOwn) {
    if (!isLastUser(area, table.frameOf(page))) return copyPage(area, page, access);
    manager.counters.cowReuses++;
  }
  table.change(page, ownFlags(area), 0);
  return FAULT.READY;
}

/** Whether a frame is anonymous and this page table's entry is all that holds it. */
function isLastUser(area: Vma, pfn: Pfn): boolean {
  const { memory } = area.space.manager;
  if (!memory.hasFlag(pfn, FRAME_FLAG.ANON)) return false;
  if (memory.orderOf(pfn) === LEAF_ORDER) area.group?.breakUp(memory.headOf(pfn));
  return memory.referencesOf(pfn) === 1;
}

/** Breaks copy-on-write: the process gets a copy of its own. */
function copyPage(area: Vma, page: number, access: Access): FaultResult {
  const { table, manager, notifiers } = area.space;
  const { memory } = manager;
  const old = table.frameOf(page);
  const isZero = old === manager.zeroFrame;
  // Held, so that the allocation neither frees nor moves it.
  memory.get(old);
  const pfn = memory.allocate(0, MIGRATE.MOVABLE, isZero ? ALLOCATE.ZERO : 0);
  memory.put(old);
  if (pfn === NO_FRAME) return FAULT.NO_MEMORY;
  const isSame = table.frameOf(page) === old && (table.flagsOf(page) & PAGE.EXCLUSIVE) === 0;
  if (!isSame || area.space.vmas.find(page) !== area) {
    memory.put(pfn);
    return handleFault(area.space, page, access, true);
  }
  const start = page * PAGE_BYTES;
  manager.beginChange();
  notifiers.invalidateStart(start, start + PAGE_BYTES, INVALIDATE.COW);
  if (!isZero) memory.copyBlock(old, pfn, 1);
  ownFrame(area, page, pfn);
  table.set(page, pfn, ownFlags(area));
  manager.dropEntries(old, 1);
  notifiers.invalidateEnd(start, start + PAGE_BYTES);
  manager.endChange();
  manager.counters.cowCopies++;
  return FAULT.READY;
}

/** Bits of an entry whose page is the process's own. */
export function ownFlags(area: Vma): number {
  const flags = PAGE.HELD | PAGE.EXCLUSIVE;
  return (area.prot & PROT.WRITE) !== 0 ? flags | PAGE.WRITABLE : flags;
}

/** Makes a fresh block the area's anonymous memory, from `page` on. */
export function ownFrame(area: Vma, page: number, pfn: Pfn): void {
  const { memory } = area.space.manager;
  memory.setOwner(pfn, groupOf(area).ownerId, area.indexOf(page) >>> 0);
  memory.setFlag(pfn, FRAME_FLAG.ANON | FRAME_FLAG.UP_TO_DATE);
}

/** The area's group; a neighbour's, with which it can be one area later, rather than a new one. */
function groupOf(area: Vma): AnonGroup {
  if (area.group !== null) return area.group;
  const { vmas, manager, name } = area.space;
  const position = vmas.positionOf(area.startPage);
  const before = position > 0 ? vmas.at(position - 1) : null;
  const after = position + 1 < vmas.count ? vmas.at(position + 1) : null;
  let group: AnonGroup | null = null;
  if (before?.continuesIn(area)) group = before.group;
  if (group === null && after !== null && area.continuesIn(after)) group = after.group;
  area.group = group ?? new AnonGroup(manager, name);
  area.group.areas.add(area);
  return area.group;
}
