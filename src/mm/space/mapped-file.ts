// SPDX-License-Identifier: MIT
// A file that can be mapped: its page cache, and who maps it. A page is in memory once, however
// many processes map it; who writes it marks it dirty first (a write fault does), and a page that
// is written back becomes clean by taking that right away again. Read first: Linux
// `Documentation/filesystems/vfs.rst`, address_space_operations; writeback is in writeback.ts.

import { assert, FarpageError } from "../../base/index.js";
import { FRAME_FLAG, type FrameOwner, MIGRATE, NO_FRAME, type Pfn } from "../frames/index.js";
import { FAULT, type FaultResult, INVALIDATE, PAGE, PAGE_BYTES } from "./constants.js";
import type { FileStore } from "./file-store.js";
import type { MemoryManager } from "./memory-manager.js";
import { PAGES_END, PageTree } from "./page-tree.js";
import { ReverseMap } from "./reverse-map.js";
import { Writeback } from "./writeback.js";
import { zapRange } from "./zap.js";

export interface MappedFileOptions {
  /** For people. */
  readonly name: string;
  /** Bytes. */
  readonly size: number;
  /** null: the file is in memory alone (shared anonymous memory, memfd) and never reclaimed. */
  readonly store?: FileStore | null;
  /** A page under writeback must not change (its store checksums it): who writes waits. */
  readonly stablePages?: boolean;
}

const FRAMES_KEPT = FRAME_FLAG.WRITEBACK | FRAME_FLAG.UNEVICTABLE | FRAME_FLAG.LOCKED;

export class MappedFile implements FrameOwner {
  readonly name: string;
  readonly ownerId: number;
  readonly manager: MemoryManager;
  readonly store: FileStore | null;
  readonly stablePages: boolean;
  /** Pages in memory, by their number in the file. */
  readonly cache = new PageTree();
  /** Areas that map it, shared and private. */
  readonly areas = new ReverseMap();
  /** Writebacks that have started and not finished. */
  readonly writebacks = new Set<Writeback>();
  /** Bytes. Pages behind it can't be had. */
  size: number;
  /** Pages that could not be written; they are dirty still. Grows. */
  writeErrors = 0;
  private isOpen = true;
  private isEnded = false;
  /** Of a file that nobody has open or maps: pages whose pins it waits for. */
  private pinsAwaited = 0;

  constructor(manager: MemoryManager, options: MappedFileOptions) {
    this.manager = manager;
    this.name = options.name;
    this.size = options.size;
    this.store = options.store ?? null;
    this.stablePages = options.stablePages ?? false;
    this.ownerId = manager.memory.registerOwner(this);
  }

  /** Whether the handle is gone; mappings may keep the file. */
  get isClosed(): boolean {
    return !this.isOpen;
  }

  /** Whether its medium is memory itself: pages are mapped where they are (DAX). */
  get isDirect(): boolean {
    return this.store?.directFrame !== undefined;
  }

  /** Pages, the last of which may be a part. */
  get pageCount(): number {
    return Math.ceil(this.size / PAGE_BYTES);
  }

  /** The frame of a page if it is in memory, else NO_FRAME. */
  cachedFrame(index: number): Pfn {
    return this.cache.isHeld(index) ? this.cache.frameOf(index) : NO_FRAME;
  }

  /**
   * The frame of a page, read from the store where it isn't in memory. @returns it; or minus a
   * FAULT: PAST_END, IO_ERROR, NO_MEMORY.
   */
  frameOf(index: number): Pfn {
    if (index < 0 || index >= this.pageCount) return -FAULT.PAST_END;
    if (this.cache.isHeld(index)) return this.cache.frameOf(index);
    return this.isDirect ? this.bringDirect(index) : this.bringIn(index);
  }

  /** Before a page is written: it is dirty from now on. READY, or BUSY while it must be stable. */
  noteWrite(pfn: Pfn): FaultResult {
    const { memory } = this.manager;
    if (this.isDirect) return FAULT.READY;
    if (this.stablePages && memory.hasFlag(pfn, FRAME_FLAG.WRITEBACK)) {
      memory.setFlag(pfn, FRAME_FLAG.STABLE_WAIT);
      return FAULT.BUSY;
    }
    memory.setFlag(pfn, FRAME_FLAG.DIRTY);
    return FAULT.READY;
  }

  /**
   * As pread(2). @returns bytes read: fewer at the file's end.
   * @throws FarpageError EIO, ENOMEM when nothing could be read.
   */
  read(offset: number, target: Uint8Array): number {
    const { memory } = this.manager;
    const length = Math.max(0, Math.min(target.length, this.size - offset));
    let done = 0;
    while (done < length) {
      const pfn = this.frameOf(Math.floor((offset + done) / PAGE_BYTES));
      if (pfn < 0) return this.partial(done, -pfn);
      const inPage = (offset + done) % PAGE_BYTES;
      const count = Math.min(length - done, PAGE_BYTES - inPage);
      const at = memory.offsetOf(pfn) + inPage;
      target.set(memory.bytesOf(pfn).subarray(at, at + count), done);
      memory.setFlag(pfn, FRAME_FLAG.REFERENCED);
      done += count;
    }
    return done;
  }

  /**
   * As pwrite(2); the file grows as needed. @returns bytes written: fewer when a page behind the
   * first is under writeback and must be stable, or can't be had.
   * @throws FarpageError EAGAIN, EIO, ENOMEM when nothing could be written.
   */
  write(offset: number, source: Uint8Array): number {
    const { memory } = this.manager;
    const sizeBefore = this.size;
    if (offset + source.length > sizeBefore) this.grow(offset + source.length);
    let done = 0;
    let result: FaultResult = FAULT.READY;
    while (done < source.length) {
      const pfn = this.frameOf(Math.floor((offset + done) / PAGE_BYTES));
      result = pfn < 0 ? (-pfn as FaultResult) : this.noteWrite(pfn);
      if (result !== FAULT.READY) break;
      const inPage = (offset + done) % PAGE_BYTES;
      const count = Math.min(source.length - done, PAGE_BYTES - inPage);
      const at = memory.offsetOf(pfn) + inPage;
      memory.bytesOf(pfn).set(source.subarray(done, done + count), at);
      memory.setFlag(pfn, FRAME_FLAG.REFERENCED);
      done += count;
    }
    if (result === FAULT.READY) return done;
    // A write that failed has not made the file longer than what it wrote.
    const end = Math.max(sizeBefore, done === 0 ? 0 : offset + done);
    if (end < this.size) this.truncate(end);
    return this.partial(done, result);
  }

  /**
   * As ftruncate(2): pages behind the end leave every process, copies of private mappings too; who
   * reads there later finds zeroes. A page that somebody has pinned stays alive, but is no longer
   * the file's. Writebacks that are under way are finished first.
   * @throws FarpageError EBUSY when the file is memory itself and a page behind the end is pinned;
   *   EIO, ENOMEM when the page that is cut can't be had. Nothing has changed then.
   */
  truncate(size: number): void {
    assert(Number.isSafeInteger(size) && size >= 0, "a file has a size");
    if (size >= this.size) {
      if (size > this.size) this.grow(size);
      return;
    }
    const { memory } = this.manager;
    const first = Math.ceil(size / PAGE_BYTES);
    if (this.isDirect) this.refusePinned(first);
    this.finishWritebacks();
    const cut = size % PAGE_BYTES;
    if (cut !== 0) this.zeroTail(first - 1, cut);
    this.size = size;
    this.unmapFrom(first);
    for (let index = this.cache.next(first, PAGES_END); index >= 0; ) {
      const pfn = this.cache.frameOf(index);
      if (!this.isDirect) memory.clearFlag(pfn, FRAME_FLAG.DIRTY);
      this.uncache(index, pfn);
      index = this.cache.next(index + 1, PAGES_END);
    }
    this.store?.truncate(size);
  }

  /**
   * Begins to write dirty pages of [first, first + count) back: they are clean, and under
   * writeback, when this returns. A pinned page is written as a copy made now and stays dirty.
   */
  startWriteback(first = 0, count = PAGES_END): Writeback {
    return new Writeback(this, first, count);
  }

  /**
   * Writes dirty pages back, as fsync(2), after what is under way. @returns pages that could not be
   * written.
   */
  writeback(first = 0, count = PAGES_END): number {
    this.finishWritebacks();
    return this.startWriteback(first, count).finish();
  }

  /** Reclaim only: frees a page that nobody has used since it was asked last. */
  reclaimPage(index: number): boolean {
    const { memory } = this.manager;
    if (this.store === null || this.isDirect) return false;
    const pfn = this.cache.frameOf(index);
    if (memory.isPinned(pfn) || memory.hasFlag(pfn, FRAMES_KEPT)) return false;
    if (memory.referencesOf(pfn) !== this.referencesOf(pfn, index)) return false;
    if (this.wasUsed(pfn, index)) return false;
    this.manager.beginChange();
    this.areas.visitEntries(pfn, index, 1, (area, page) => {
      zapRange(area.space, page, page + 1, INVALIDATE.RECLAIM);
    });
    // Only now: whoever could write through another page table has said so by now.
    const isClean = !memory.hasFlag(pfn, FRAME_FLAG.DIRTY) || this.writeNow(index, pfn);
    if (isClean) this.uncache(index, pfn);
    this.manager.endChange();
    return isClean;
  }

  referencesOf(pfn: Pfn, index: number): number {
    return 1 + this.areas.countEntries(pfn, index, 1);
  }

  detach(pfn: Pfn, index: number): boolean {
    const { manager } = this;
    if (manager.isChanging || manager.memory.hasFlag(pfn, FRAMES_KEPT)) return false;
    manager.beginChange();
    this.areas.hideEntries(pfn, index, 1);
    this.cache.change(index, PAGE.MOVING, 0);
    return true;
  }

  attach(from: Pfn, to: Pfn, index: number): void {
    assert(this.cache.frameOf(index) === from, "a page that moves is in the cache");
    this.cache.set(index, to, PAGE.HELD);
    this.areas.showEntries(this.manager.memory, from, to, index, 1);
    this.manager.endChange();
  }

  /**
   * The handle is gone. The file goes with its last mapping, and its last pin: what a device writes
   * until then is the file's. What is dirty is written first.
   */
  close(): void {
    assert(this.isOpen, "a file is closed once");
    this.isOpen = false;
    this.endIfUnused();
  }

  unpinned(): void {
    if (this.pinsAwaited === 0) return;
    this.pinsAwaited--;
    if (this.pinsAwaited === 0) this.manager.endSoon(this);
  }

  endIfUnused(): void {
    if (this.isOpen || this.isEnded || this.areas.count > 0 || this.pinsAwaited > 0) return;
    this.pinsAwaited = this.countPinned();
    if (this.pinsAwaited > 0) return;
    this.isEnded = true;
    this.writeback();
    for (let index = this.cache.next(0, PAGES_END); index >= 0; ) {
      this.uncache(index, this.cache.frameOf(index));
      index = this.cache.next(index + 1, PAGES_END);
    }
    this.manager.memory.unregisterOwner(this.ownerId);
    this.manager.forgetFile(this);
  }

  /** Pages whose pins keep the file: it has bytes to write back when they are over. */
  private countPinned(): number {
    if (this.store === null || this.isDirect) return 0;
    const { memory } = this.manager;
    let count = 0;
    for (let index = this.cache.next(0, PAGES_END); index >= 0; ) {
      if (memory.isPinned(this.cache.frameOf(index))) count++;
      index = this.cache.next(index + 1, PAGES_END);
    }
    return count;
  }

  private finishWritebacks(): void {
    for (const writeback of this.writebacks) writeback.finish();
  }

  /** What a mapping wrote behind the end, in the last page, is not the file's. */
  private grow(size: number): void {
    const cut = this.size % PAGE_BYTES;
    if (cut !== 0) {
      this.finishWritebacks();
      this.zeroTail(this.pageCount - 1, cut);
    }
    this.size = size;
  }

  private bringIn(index: number): Pfn {
    const { memory, counters } = this.manager;
    const pfn = memory.allocate(0, MIGRATE.MOVABLE);
    if (pfn === NO_FRAME) return -FAULT.NO_MEMORY;
    const at = memory.offsetOf(pfn);
    const bytes = memory.bytesOf(pfn).subarray(at, at + PAGE_BYTES);
    if (this.store === null) {
      bytes.fill(0);
    } else if (!this.store.readPage(index, bytes)) {
      memory.put(pfn);
      return -FAULT.IO_ERROR;
    }
    // Whoever the allocation or the store has asked may have read the page, or cut the file.
    if (this.cache.isHeld(index) || index >= this.pageCount) {
      memory.put(pfn);
      return this.frameOf(index);
    }
    const valid = this.size - index * PAGE_BYTES;
    if (valid < PAGE_BYTES) bytes.fill(0, valid);
    memory.setOwner(pfn, this.ownerId, index);
    memory.setFlag(pfn, FRAME_FLAG.FILE | FRAME_FLAG.UP_TO_DATE);
    this.cache.set(index, pfn, PAGE.HELD);
    counters.pagesRead++;
    return pfn;
  }

  private bringDirect(index: number): Pfn {
    const pfn = this.store?.directFrame?.(index) ?? NO_FRAME;
    if (pfn < 0) return -FAULT.IO_ERROR;
    this.manager.memory.get(pfn);
    this.cache.set(index, pfn, PAGE.HELD);
    return pfn;
  }

  /** Takes a page, which no page table has any more, out of the cache. */
  private uncache(index: number, pfn: Pfn): void {
    const { memory } = this.manager;
    this.cache.clear(index);
    if (!this.isDirect) {
      memory.clearFlag(pfn, FRAME_FLAG.FILE);
      memory.setOwner(pfn, 0, 0);
    }
    memory.put(pfn);
  }

  /** Takes pages from `first` on out of every process. */
  private unmapFrom(first: number): void {
    const { manager } = this;
    manager.beginChange();
    for (const area of this.areas.all) {
      const start = area.startPage + Math.max(0, first - area.index);
      if (start < area.endPage) zapRange(area.space, start, area.endPage, INVALIDATE.TRUNCATE);
    }
    manager.endChange();
  }

  /** @throws FarpageError EBUSY for pinned pages from `first` on. */
  private refusePinned(first: number): void {
    const { memory } = this.manager;
    for (let index = this.cache.next(first, PAGES_END); index >= 0; ) {
      if (memory.isPinned(this.cache.frameOf(index))) {
        const what = `page ${index} of ${this.name} is pinned, and it is the medium itself`;
        throw new FarpageError("EBUSY", `${what}: whoever pinned it has to let go first`);
      }
      index = this.cache.next(index + 1, PAGES_END);
    }
  }

  /** Makes the bytes of a page from `from` on zero. @throws FarpageError EIO, ENOMEM. */
  private zeroTail(index: number, from: number): void {
    const { memory } = this.manager;
    const pfn = this.frameOf(index);
    const result = pfn < 0 ? -pfn : this.noteWrite(pfn);
    if (result !== FAULT.READY) this.partial(0, result);
    const at = memory.offsetOf(pfn);
    memory.bytesOf(pfn).fill(0, at + from, at + PAGE_BYTES);
  }

  private partial(done: number, result: number): number {
    if (done > 0) return done;
    switch (result) {
      case FAULT.NO_MEMORY:
        throw new FarpageError("ENOMEM", `no memory for a page of ${this.name}`);
      case FAULT.BUSY:
        throw new FarpageError("EAGAIN", `a page of ${this.name} is being written back`);
      default:
        throw new FarpageError("EIO", `a page of ${this.name} could not be read`);
    }
  }

  /** Whether a page was used since this was asked last. */
  private wasUsed(pfn: Pfn, index: number): boolean {
    const { memory } = this.manager;
    let isUsed = memory.hasFlag(pfn, FRAME_FLAG.REFERENCED);
    memory.clearFlag(pfn, FRAME_FLAG.REFERENCED);
    this.areas.visitEntries(pfn, index, 1, (area, page) => {
      if ((area.space.table.flagsOf(page) & PAGE.ACCESSED) === 0) return;
      isUsed = true;
      area.space.table.change(page, 0, PAGE.ACCESSED);
    });
    return isUsed;
  }

  /** Writes a page that no page table has. @returns whether it is clean now. */
  private writeNow(index: number, pfn: Pfn): boolean {
    const { memory, counters } = this.manager;
    const at = memory.offsetOf(pfn);
    const bytes = memory.bytesOf(pfn).subarray(at, at + PAGE_BYTES);
    if (this.store?.writePage(index, bytes) !== true) {
      this.writeErrors++;
      return false;
    }
    memory.clearFlag(pfn, FRAME_FLAG.DIRTY);
    counters.pagesWritten++;
    return true;
  }
}
