// SPDX-License-Identifier: MIT
// Writing a file's dirty pages back, in two steps with time between: `start` (the constructor)
// makes them clean and takes the right to write them away, `finish` hands them to the store.
//
// A page that is pinned may change at any time by somebody's DMA, which nobody can stop: it is
// written as a copy made at the start, and stays dirty. (Linux has no such rule everywhere; a page
// that changes under writeback then fails its checksum.)

import { assert } from "../../base/index.js";
import { FRAME_FLAG, type Pfn } from "../frames/index.js";
import { INVALIDATE, PAGE, PAGE_BYTES } from "./constants.js";
import type { MappedFile } from "./mapped-file.js";

export class Writeback {
  private readonly file: MappedFile;
  private readonly indexes: number[] = [];
  /** Each holds a reference. */
  private readonly frames: Pfn[] = [];
  /** Of pinned pages: their bytes at the start. */
  private readonly copies: (Uint8Array | null)[] = [];
  private isFinished = false;

  constructor(file: MappedFile, first: number, count: number) {
    this.file = file;
    if (file.store === null || file.isDirect) return;
    const { memory } = file.manager;
    const end = Math.min(file.pageCount, first + count);
    file.manager.beginChange();
    for (let index = file.cache.next(first, end); index >= 0; ) {
      const pfn = file.cache.frameOf(index);
      // A page has one writeback at a time, so that no older copy is written last.
      if (!memory.hasFlag(pfn, FRAME_FLAG.WRITEBACK)) this.begin(index, pfn);
      index = file.cache.next(index + 1, end);
    }
    file.manager.endChange();
    file.writebacks.add(this);
  }

  /** Frames that are to be written, each with a reference until it was; to be read. */
  get pages(): readonly Pfn[] {
    return this.frames;
  }

  /** Writes what was begun. Does nothing the second time. @returns pages that failed. */
  finish(): number {
    if (this.isFinished) return 0;
    this.isFinished = true;
    const { file } = this;
    file.writebacks.delete(this);
    let failures = 0;
    for (let i = 0; i < this.indexes.length; i++) {
      if (!this.write(this.indexes[i] as number, this.frames[i] as Pfn, this.copies[i] ?? null)) {
        failures++;
      }
    }
    this.frames.length = 0;
    file.writeErrors += failures;
    return failures;
  }

  private begin(index: number, pfn: Pfn): void {
    const { memory, counters } = this.file.manager;
    const isPinned = memory.isPinned(pfn);
    // Page tables of devices have no dirty bits of their own: asking them makes it known.
    if (!isPinned) this.protect(index, pfn);
    if (!memory.hasFlag(pfn, FRAME_FLAG.DIRTY)) return;
    memory.setFlag(pfn, FRAME_FLAG.WRITEBACK);
    if (isPinned) {
      counters.pinnedWrites++;
      const at = memory.offsetOf(pfn);
      this.add(index, pfn, memory.bytesOf(pfn).slice(at, at + PAGE_BYTES));
    } else {
      memory.clearFlag(pfn, FRAME_FLAG.DIRTY);
      this.add(index, pfn, null);
    }
  }

  private add(index: number, pfn: Pfn, copy: Uint8Array | null): void {
    this.file.manager.memory.get(pfn);
    this.indexes.push(index);
    this.frames.push(pfn);
    this.copies.push(copy);
  }

  /** Takes the right to write a page away from all who map it. */
  private protect(index: number, pfn: Pfn): void {
    this.file.areas.visitEntries(pfn, index, 1, (area, page) => {
      const { table, notifiers } = area.space;
      if ((table.flagsOf(page) & PAGE.WRITABLE) === 0) return;
      const start = page * PAGE_BYTES;
      notifiers.invalidateStart(start, start + PAGE_BYTES, INVALIDATE.WRITEBACK);
      table.change(page, 0, PAGE.WRITABLE);
      notifiers.invalidateEnd(start, start + PAGE_BYTES);
    });
  }

  private write(index: number, pfn: Pfn, copy: Uint8Array | null): boolean {
    const { file } = this;
    const { memory, counters } = file.manager;
    assert(file.cachedFrame(index) === pfn, "a page under writeback stays the file's");
    const at = memory.offsetOf(pfn);
    const source = copy ?? memory.bytesOf(pfn).subarray(at, at + PAGE_BYTES);
    const isWritten = file.store?.writePage(index, source) === true;
    if (isWritten) counters.pagesWritten++;
    else memory.setFlag(pfn, FRAME_FLAG.DIRTY);
    memory.clearFlag(pfn, FRAME_FLAG.WRITEBACK | FRAME_FLAG.STABLE_WAIT);
    memory.put(pfn);
    return isWritten;
  }
}
