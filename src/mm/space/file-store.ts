// SPDX-License-Identifier: MIT

import type { Pfn } from "../frames/index.js";
import { PAGE_BYTES } from "./constants.js";

/** What is behind a file's page cache. Pages are PAGE_BYTES, by their number in the file. */
export interface FileStore {
  /** Fills `target` (one page); zeroes where nothing was written. @returns false: it could not. */
  readPage(index: number, target: Uint8Array): boolean;
  /** Keeps a page; `source` is borrowed for the call. @returns false: it could not. */
  writePage(index: number, source: Uint8Array): boolean;
  /** Forgets what is behind `size` bytes, which reads as zeroes when the file grows again. */
  truncate(size: number): void;
  /**
   * Where the medium is memory itself (a pool in a pmem zone): the frame that is the page. Such a
   * file has no copies in memory, nothing to write back and nothing to reclaim.
   */
  directFrame?(index: number): Pfn;
}

/** A store in memory. */
export class HeapFileStore implements FileStore {
  private readonly pages = new Map<number, Uint8Array>();
  /** Reads and writes of pages since it began. */
  readCount = 0;
  writeCount = 0;
  /** Set: every access fails, as of a broken disk. */
  isBroken = false;

  readPage(index: number, target: Uint8Array): boolean {
    if (this.isBroken) return false;
    this.readCount++;
    const page = this.pages.get(index);
    if (page === undefined) target.fill(0);
    else target.set(page);
    return true;
  }

  writePage(index: number, source: Uint8Array): boolean {
    if (this.isBroken) return false;
    this.writeCount++;
    this.pages.set(index, source.slice());
    return true;
  }

  truncate(size: number): void {
    const last = Math.floor(size / PAGE_BYTES);
    for (const [index, page] of this.pages) {
      if (index > last || size % PAGE_BYTES === 0) {
        if (index >= last) this.pages.delete(index);
      } else if (index === last) {
        page.fill(0, size % PAGE_BYTES);
      }
    }
  }
}
