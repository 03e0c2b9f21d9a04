// SPDX-License-Identifier: MIT
// Counts every reference of a host's address spaces and files anew.

import { assert } from "../../base/index.js";
import { FRAME_FLAG, type Pfn } from "../frames/index.js";
import type { AddressSpace } from "./address-space.js";
import { AnonGroup } from "./anon-group.js";
import { PAGE, PROT } from "./constants.js";
import type { MappedFile } from "./mapped-file.js";
import type { MemoryManager } from "./memory-manager.js";
import { PAGES_END } from "./page-tree.js";
import type { Vma } from "./vma.js";

type Counts = Map<Pfn, number>;

/** @param others see `MemoryManager.checkInvariants`. */
export function checkManager(
  manager: MemoryManager,
  others: ReadonlyMap<Pfn, number> | null,
): void {
  const { memory } = manager;
  const counts: Counts = new Map();
  const owners = new Map<Pfn, AddressSpace>();
  const heads = new Set<Pfn>();
  add(counts, manager.zeroFrame, 1);
  for (const space of manager.spaces) checkSpace(space, counts, owners, heads);
  for (const file of manager.files) checkFile(file, counts);
  for (const [pfn, count] of others ?? []) add(counts, pfn, count);
  for (const [pfn, count] of counts) {
    const references = memory.referencesOf(pfn);
    if (others === null) assert(references >= count, "every entry holds a reference");
    else assert(references === count, "references are those of entries, caches and others");
  }
  memory.checkInvariants();
}

function add(counts: Counts, pfn: Pfn, count: number): void {
  counts.set(pfn, (counts.get(pfn) ?? 0) + count);
}

/** @param heads anonymous blocks whose entries are known to be found. */
function checkSpace(
  space: AddressSpace,
  counts: Counts,
  owners: Map<Pfn, AddressSpace>,
  heads: Set<Pfn>,
): void {
  const { table, vmas } = space;
  const { memory } = space.manager;
  vmas.checkInvariants();
  space.notifiers.checkInvariants();
  let held = 0;
  for (const area of vmas.all) {
    for (let page = table.next(area.startPage, area.endPage); page >= 0; ) {
      const pfn = table.frameOf(page);
      const flags = table.flagsOf(page);
      add(counts, memory.headOf(pfn), 1);
      checkEntry(area, page, pfn, flags, heads);
      if ((flags & PAGE.EXCLUSIVE) !== 0) {
        assert(!owners.has(pfn), "an exclusive page is in one page table");
        owners.set(pfn, space);
      }
      held++;
      page = table.next(page + 1, area.endPage);
    }
  }
  assert(held === table.held, "every entry lies in an area");
}

function checkEntry(area: Vma, page: number, pfn: Pfn, flags: number, heads: Set<Pfn>): void {
  const { memory, zeroFrame } = area.space.manager;
  const isWritable = (flags & PAGE.WRITABLE) !== 0;
  const isExclusive = (flags & PAGE.EXCLUSIVE) !== 0;
  assert((flags & PAGE.MOVING) === 0, "between calls nothing is being moved");
  assert(!isWritable || (area.prot & PROT.WRITE) !== 0, "an entry allows what its area allows");
  assert(((flags & PAGE.HIDDEN) !== 0) === (area.prot === PROT.NONE), "hidden as its area is");
  if (area.device !== null) return;
  const isAnon = memory.hasFlag(pfn, FRAME_FLAG.ANON);
  if (area.isShared) {
    assert(!isAnon && !isExclusive, "a shared area has a file's pages");
    const isKnown = area.file?.isDirect === true || memory.hasFlag(pfn, FRAME_FLAG.DIRTY);
    assert(!isWritable || isKnown, "a file's page that can be written is dirty");
  }
  if (isAnon) checkAnonymous(area, page, pfn, isExclusive, heads);
  else assert(!(area.isPrivate && isWritable), "a private page is written when it is one's own");
  if (pfn === zeroFrame || isAnon) return;
  assert(area.file?.cachedFrame(area.indexOf(page)) === pfn, "a file's page is in its cache");
}

function checkAnonymous(
  area: Vma,
  page: number,
  pfn: Pfn,
  isExclusive: boolean,
  heads: Set<Pfn>,
): void {
  const { memory } = area.space.manager;
  const head = memory.headOf(pfn);
  const owner = memory.ownerOf(head);
  assert(owner instanceof AnonGroup, "an anonymous page has a group");
  assert(owner === area.group, "which is its area's");
  const index = (memory.indexOf(head) + (pfn - head)) >>> 0;
  assert(index === area.indexOf(page) >>> 0, "and is called what its area calls it");
  const isPinned = memory.isPinned(pfn);
  assert(isExclusive || !isPinned, "a pinned anonymous page is one process's own");
  if (heads.has(head)) return;
  heads.add(head);
  // The whole block's references, so that a shared page isn't taken for the last user's.
  const size = 2 ** memory.orderOf(head);
  const known = owner.areas.countEntries(head, memory.indexOf(head), size);
  assert(known <= memory.referencesOf(head), "a group finds no more than there is");
}

function checkFile(file: MappedFile, counts: Counts): void {
  const { cache, manager } = file;
  const { memory } = manager;
  for (let index = cache.next(0, PAGES_END); index >= 0; ) {
    const pfn = cache.frameOf(index);
    assert(index < file.pageCount, "a file caches no page behind its end");
    add(counts, memory.headOf(pfn), 1);
    if (!file.isDirect) {
      assert(memory.ownerOf(pfn) === file, "a cached page is its file's");
      assert(memory.indexOf(pfn) === index, "by its number");
      assert(memory.hasFlag(pfn, FRAME_FLAG.FILE), "and marked as one");
    }
    index = cache.next(index + 1, PAGES_END);
  }
}
