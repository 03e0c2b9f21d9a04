// SPDX-License-Identifier: MIT
// Access to memory regions that are page tables (base `RegionPages`) and not one range: copies that
// cross pages, and the question before them whether the pages are there. A position is a byte of
// the table: page p begins at position p * pageBytes.
//
// Nothing here remembers where a page lies. Between two packets a page can be taken away and
// another be put in its place; what is found by `locate` is used at once and forgotten.

import { assert, PAGE_FAULT, type RegionPages } from "../base/index.js";
import type { ViewCache } from "./view-cache.js";

/** What became of the question whether pages are there. */
export const PAGES = {
  /** All of them are. */
  READY: 0,
  /** A fault is queued: `PageWaker.pagesServed` tells when to ask again. */
  WAITING: 1,
  /** It can't be served: an access error. */
  REFUSED: 2,
} as const;
export type PagesResult = (typeof PAGES)[keyof typeof PAGES];

/**
 * A fault asks for this much of what the message will need as well: one fault (and one RNR NAK) per
 * so many bytes of a first touch instead of one per page. mlx5 takes up to 4 MiB.
 */
export const FAULT_AHEAD_BYTES = 1 << 20;

/**
 * Whether an access to `length` bytes at `position` finds its pages; if not, asks for them, and for
 * what follows of the `ahead` bytes that the message has from `position` on.
 * Preconditions: `length` > 0, `ahead` >= `length`, all inside the table.
 */
export function readyPages(
  pages: RegionPages,
  position: number,
  length: number,
  ahead: number,
  isWrite: boolean,
): PagesResult {
  const { pageBytes } = pages;
  const last = Math.floor((position + length - 1) / pageBytes);
  let page = Math.floor(position / pageBytes);
  while (page <= last) {
    if (pages.locate(page, isWrite)) {
      page += pages.span / pageBytes;
      continue;
    }
    const bytes = Math.max(length, Math.min(ahead, FAULT_AHEAD_BYTES));
    const end = Math.floor((position + bytes - 1) / pageBytes) + 1;
    const answer = pages.fault(page, end - page, isWrite);
    return answer === PAGE_FAULT.QUEUED ? PAGES.WAITING : PAGES.REFUSED;
  }
  return PAGES.READY;
}

/** Copies into pages. Preconditions: `readyPages` has just said so for this range. */
export function copyIntoPages(
  pages: RegionPages,
  views: ViewCache,
  position: number,
  source: Uint8Array,
  sourceOffset: number,
  length: number,
): void {
  const { pageBytes } = pages;
  while (length > 0) {
    const page = Math.floor(position / pageBytes);
    const inPage = position - page * pageBytes;
    assert(pages.locate(page, true), "a page that is written is there");
    const chunk = Math.min(length, pages.span - inPage);
    views.copy(pages.bytes, pages.offset + inPage, source, sourceOffset, chunk);
    position += chunk;
    sourceOffset += chunk;
    length -= chunk;
  }
}

/** Copies out of pages. Preconditions: `readyPages` has just said so for this range. */
export function copyFromPages(
  pages: RegionPages,
  views: ViewCache,
  position: number,
  target: Uint8Array,
  targetOffset: number,
  length: number,
): void {
  const { pageBytes } = pages;
  while (length > 0) {
    const page = Math.floor(position / pageBytes);
    const inPage = position - page * pageBytes;
    assert(pages.locate(page, false), "a page that is read is there");
    const chunk = Math.min(length, pages.span - inPage);
    views.copy(target, targetOffset, pages.bytes, pages.offset + inPage, chunk);
    position += chunk;
    targetOffset += chunk;
    length -= chunk;
  }
}

/**
 * Brings in all pages of a range at once, for copies that the process's own CPU makes.
 * @returns whether they are there now.
 */
export function touchPages(
  pages: RegionPages,
  position: number,
  length: number,
  isWrite: boolean,
): boolean {
  const { pageBytes } = pages;
  const last = Math.floor((position + length - 1) / pageBytes);
  for (let page = Math.floor(position / pageBytes); page <= last; page++) {
    if (!pages.locate(page, isWrite) && !pages.touch(page, isWrite)) return false;
  }
  // A region bigger than what memory is left may have lost the first ones to the last.
  return readyAll(pages, position, last, isWrite);
}

function readyAll(pages: RegionPages, position: number, last: number, isWrite: boolean): boolean {
  for (let page = Math.floor(position / pages.pageBytes); page <= last; page++) {
    if (!pages.locate(page, isWrite)) return false;
  }
  return true;
}
