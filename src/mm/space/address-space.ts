// SPDX-License-Identifier: MIT
// The memory of one process: its areas, its page table, and what mmap(2), munmap(2), mremap(2),
// mprotect(2), fork(2) and exit do to them. Faults are in faults.ts.
//
// Every change that takes a page or a right away is: invalidateStart, the change, invalidateEnd; a
// frame is given back only in between, when nobody outside can reach it any more.

import { assert, FarpageError } from "../../base/index.js";
import { NO_FRAME, type Pfn } from "../frames/index.js";
import {
  ACCESS,
  type Access,
  ADDRESS_END,
  FAULT,
  type FaultResult,
  INVALIDATE,
  MAPPING_COUNT_MAX,
  PAGE,
  PAGE_BARRED,
  PAGE_BYTES,
  PROT,
} from "./constants.js";
import { accessBytes } from "./cpu-access.js";
import { handleFault, touchAlike } from "./faults.js";
import { forkSpace } from "./fork.js";
import { type MapOptions, mapArea } from "./mapping.js";
import type { MemoryManager } from "./memory-manager.js";
import { NotifierList } from "./notifiers.js";
import { PageTree } from "./page-tree.js";
import { remapArea } from "./remap.js";
import type { Vma } from "./vma.js";
import { endUnused, VmaList } from "./vma-list.js";
import { zapEntries } from "./zap.js";

/** What one process may have. */
export interface SpaceLimits {
  /** Bytes that devices may keep pinned (RLIMIT_MEMLOCK); charged where they are pinned. */
  lockedBytesMax: number;
  /** Bytes of addresses (RLIMIT_AS). */
  addressBytesMax: number;
}

export interface AddressSpaceOptions {
  /** For people. Default: `process N`. */
  readonly name?: string;
  /** Default: none. */
  readonly limits?: Partial<SpaceLimits>;
  /** Pages left free on either side of a mapping that the process gave no address for. */
  readonly guardPages?: number;
  /** Whether anonymous memory gets 2 MiB at a time where an area has that much. */
  readonly hugePages?: boolean;
}

export class AddressSpace {
  readonly id: number;
  readonly name: string;
  readonly manager: MemoryManager;
  readonly limits: SpaceLimits;
  readonly guardPages: number;
  readonly hugePages: boolean;
  readonly notifiers = new NotifierList();
  /** Room only: areas by page number. */
  readonly vmas = new VmaList();
  /** Room only: by page number. */
  readonly table = new PageTree();
  private isLive = true;

  /** Manager only: `MemoryManager.createSpace`. */
  constructor(manager: MemoryManager, id: number, options: AddressSpaceOptions) {
    this.manager = manager;
    this.id = id;
    this.name = options.name ?? `process ${id}`;
    this.limits = {
      lockedBytesMax: options.limits?.lockedBytesMax ?? Number.POSITIVE_INFINITY,
      addressBytesMax: options.limits?.addressBytesMax ?? Number.POSITIVE_INFINITY,
    };
    this.guardPages = options.guardPages ?? 1;
    this.hugePages = options.hugePages ?? true;
  }

  /** Pages that the page table has. */
  get residentPages(): number {
    return this.table.held;
  }

  /** Pages that are mapped. */
  get mappedPages(): number {
    return this.vmas.pageCount;
  }

  get hasExited(): boolean {
    return !this.isLive;
  }

  /**
   * Maps memory, as mmap(2).
   * @returns its address.
   * @throws FarpageError EINVAL for what makes no sense, EACCES for a shared and writable mapping
   *   of a file that may only be read, EEXIST where `fixed` is "no-replace" and something is there,
   *   ENOMEM when there is no room for it among the addresses or in the limits.
   */
  map(options: MapOptions): number {
    this.assertChangeable();
    return mapArea(this, options);
  }

  /**
   * Unmaps whole pages, as munmap(2); where nothing is mapped nothing happens.
   * @throws FarpageError EINVAL, ENOMEM when it would take more areas than there can be.
   */
  unmap(address: number, length: number): void {
    this.assertChangeable();
    const startPage = pageOf(address);
    const endPage = startPage + pagesOf(address, length);
    this.splitAround(startPage, endPage);
    this.unmapPages(startPage, endPage);
  }

  /**
   * Changes the size of a mapping, and its place where it has to and may, as mremap(2). Pages keep
   * their contents, pinned ones their frames.
   * @returns its address.
   * @throws FarpageError EINVAL, EFAULT when [address, address + oldLength) isn't one mapping,
   *   ENOMEM when it can't grow where it is and must not move, or there is no room.
   */
  remap(address: number, oldLength: number, newLength: number, mayMove: boolean): number {
    this.assertChangeable();
    const startPage = pageOf(address);
    const oldPages = pagesOf(address, oldLength);
    // It need not fit where it is.
    const newPages = pagesOf(0, newLength);
    return remapArea(this, startPage, oldPages, newPages, mayMove) * PAGE_BYTES;
  }

  /**
   * Changes what may be done with whole pages, as mprotect(2).
   * @param prot bits of PROT.
   * @throws FarpageError EINVAL; ENOMEM when some of it isn't mapped; EACCES for writing to what
   *   was mapped of a file that may only be read. Nothing has changed then.
   */
  protect(address: number, length: number, prot: number): void {
    this.assertChangeable();
    const startPage = pageOf(address);
    const endPage = startPage + pagesOf(address, length);
    if ((prot & ~(PROT.READ | PROT.WRITE)) !== 0)
      throw new FarpageError("EINVAL", "unknown rights");
    this.checkProtect(startPage, endPage, prot);
    this.splitAround(startPage, endPage);
    const start = startPage * PAGE_BYTES;
    const end = endPage * PAGE_BYTES;
    this.manager.beginChange();
    this.notifiers.invalidateStart(start, end, INVALIDATE.PROTECT);
    for (const area of this.vmas.within(startPage, endPage)) area.prot = prot;
    const set = prot === PROT.NONE ? PAGE.HIDDEN : 0;
    // Rights that come are given by the next fault.
    const clear = (set === 0 ? PAGE.HIDDEN : 0) | ((prot & PROT.WRITE) === 0 ? PAGE.WRITABLE : 0);
    for (let page = this.table.next(startPage, endPage); page >= 0; ) {
      this.table.change(page, set, clear);
      page = this.table.next(page + 1, endPage);
    }
    this.notifiers.invalidateEnd(start, end);
    this.manager.endChange();
    this.vmas.mergeIn(startPage, endPage);
  }

  /**
   * A copy of all of it for a child, as fork(2): private pages become shared until somebody writes,
   * but those that are pinned are copied now.
   * @throws FarpageError ENOMEM. Nothing is left of the child then.
   */
  fork(options: AddressSpaceOptions = {}): AddressSpace {
    this.assertChangeable();
    return forkSpace(this, options);
  }

  /** The process ends: nothing is mapped any more. What is pinned lives until it is unpinned. */
  exit(): void {
    this.assertChangeable();
    const areas = [...this.vmas.all];
    this.manager.beginChange();
    this.notifiers.invalidateStart(0, ADDRESS_END * 2, INVALIDATE.EXIT);
    zapEntries(this, 0, (ADDRESS_END * 2) / PAGE_BYTES);
    // From the end: nothing has to move up.
    for (let i = areas.length - 1; i >= 0; i--) this.vmas.remove(areas[i] as Vma);
    this.notifiers.invalidateEnd(0, ADDRESS_END * 2);
    this.isLive = false;
    this.manager.endChange();
    this.manager.spaces.delete(this);
    this.notifiers.releaseAll();
    endUnused(areas);
  }

  /** The area that an address lies in. */
  vmaAt(address: number): Vma | null {
    return this.vmas.find(Math.floor(address / PAGE_BYTES));
  }

  /** Areas that reach into [start, end), by address. */
  vmasIn(start: number, end: number): Vma[] {
    return this.vmas.within(Math.floor(start / PAGE_BYTES), Math.ceil(end / PAGE_BYTES));
  }

  /** Whether a page is mapped in a way that allows the access; the page need not be there. */
  permits(page: number, access: Access): boolean {
    return judgeAccess(this.vmas.find(page), access) === FAULT.READY;
  }

  /** First page of [page, end) that is mapped, -1 when none is. */
  nextMapped(page: number, end: number): number {
    const area = this.vmas.from(page);
    const first = area === null ? end : Math.max(page, area.startPage);
    return first < end ? first : -1;
  }

  /** First page of [page, end) that the page table has, -1 when there is none. */
  nextPresent(page: number, end: number): number {
    return this.table.next(page, end);
  }

  /** The frame of a page that is there and may be read; no fault. */
  lookup(page: number): Pfn {
    const flags = this.table.flagsOf(page);
    return (flags & (PAGE.HELD | PAGE_BARRED)) === PAGE.HELD ? this.table.frameOf(page) : NO_FRAME;
  }

  /** Whether a page is there and may be written as it is. */
  isWritable(page: number): boolean {
    const wanted = PAGE.HELD | PAGE.WRITABLE;
    return (this.table.flagsOf(page) & (wanted | PAGE_BARRED)) === wanted;
  }

  /**
   * Makes a page ready for an access.
   * @param exclusive for those who are going to pin it, readers too: a page that is private to the
   *   process becomes its own, so that no later write by anybody takes it away from under the pin.
   */
  fault(page: number, access: Access, exclusive = false): FaultResult {
    if (this.manager.isChanging) return FAULT.BUSY;
    return handleFault(this, page, access, exclusive);
  }

  /**
   * How many pages from `page` on, which a fault has made ready for the access, are as ready as it
   * is in frames of the same block: what need not be asked for one by one. At least 1.
   */
  readyAlike(page: number, countMax: number, access: Access): number {
    return touchAlike(this, page, countMax, access);
  }

  /**
   * The process reads its memory.
   * @throws FarpageError EFAULT, EACCES, ENOMEM, EIO; EAGAIN where a fault would have to wait.
   */
  read(address: number, target: Uint8Array): void {
    accessBytes(this, address, target, ACCESS.READ);
  }

  /** The process writes its memory. Errors as `read`. */
  write(address: number, source: Uint8Array): void {
    accessBytes(this, address, source, ACCESS.WRITE);
  }

  /** Room only: unmaps pages where areas begin and end. */
  unmapPages(startPage: number, endPage: number): void {
    const areas = this.vmas.within(startPage, endPage);
    if (areas.length === 0) return;
    const start = startPage * PAGE_BYTES;
    const end = endPage * PAGE_BYTES;
    this.manager.beginChange();
    this.notifiers.invalidateStart(start, end, INVALIDATE.UNMAP);
    zapEntries(this, startPage, endPage);
    for (const area of areas) this.vmas.remove(area);
    this.notifiers.invalidateEnd(start, end);
    this.manager.endChange();
    endUnused(areas);
  }

  /** Room only: makes areas begin and end at the ends of a range. */
  splitAround(startPage: number, endPage: number): void {
    if (this.vmas.count + 2 > MAPPING_COUNT_MAX) {
      throw new FarpageError("ENOMEM", `${this.name} has ${this.vmas.count} mappings, no more`);
    }
    this.vmas.splitAt(startPage);
    this.vmas.splitAt(endPage);
  }

  private checkProtect(startPage: number, endPage: number, prot: number): void {
    let page = startPage;
    for (const area of this.vmas.within(startPage, endPage)) {
      if (area.startPage > page) break;
      if ((prot & PROT.WRITE) !== 0 && !area.mayWrite) {
        const what = area.file?.name ?? area.device?.name ?? "memory";
        throw new FarpageError("EACCES", `${what} was not opened for writing`);
      }
      page = area.endPage;
    }
    if (page < endPage) throw new FarpageError("ENOMEM", "not all of the range is mapped");
  }

  private assertChangeable(): void {
    assert(this.isLive, "a process that has exited has no memory");
    assert(!this.manager.isChanging, "mappings aren't changed by those who are told of a change");
  }
}

/** Whether an area allows an access: READY, or what is against it. */
export function judgeAccess(area: Vma | null, access: Access): FaultResult {
  if (area === null) return FAULT.NOT_MAPPED;
  if (area.prot === PROT.NONE) return FAULT.NO_ACCESS;
  if (access === ACCESS.WRITE && (area.prot & PROT.WRITE) === 0) return FAULT.READ_ONLY;
  return FAULT.READY;
}

/** @throws FarpageError EINVAL for an address that isn't a page's. */
function pageOf(address: number): number {
  if (!Number.isSafeInteger(address) || address < 0 || address % PAGE_BYTES !== 0) {
    throw new FarpageError("EINVAL", "an address must be a multiple of 4096");
  }
  return address / PAGE_BYTES;
}

/** Pages of a range. @throws FarpageError EINVAL when it is empty or leaves the address space. */
function pagesOf(address: number, length: number): number {
  if (!Number.isSafeInteger(length) || length <= 0 || address + length > ADDRESS_END) {
    throw new FarpageError("EINVAL", "a range must have bytes and lie in the address space");
  }
  return Math.ceil(length / PAGE_BYTES);
}
