// SPDX-License-Identifier: MIT
// A page table: a radix tree from page numbers to frames, four levels of 512 as on x86-64.
// Leaves are typed arrays of 5 bytes a page. The page cache of a file is one too, by the page's
// number in the file.

import { assert } from "../../base/index.js";
import type { Pfn } from "../frames/index.js";
import { LEAF_PAGES, PAGE } from "./constants.js";

/** Children of a node. A leaf's number has 27 bits, 9 for each level above. */
const NODE_SIZE = 512;
/** Page numbers end here: 48 bits of address. */
export const PAGES_END = 2 ** 36;
const NONE = -1;

class Leaf {
  readonly frames = new Uint32Array(LEAF_PAGES);
  readonly flags = new Uint8Array(LEAF_PAGES);
  /** Entries that are held. */
  held = 0;
}

type Middle = (Leaf | null)[];
type Upper = (Middle | null)[];

function emptyNode<Child>(): (Child | null)[] {
  return new Array<Child | null>(NODE_SIZE).fill(null);
}

/** Page numbers are 0 .. 2^36 - 1. */
export class PageTree {
  /** Entries that are held. */
  held = 0;
  private readonly root: (Upper | null)[] = emptyNode<Upper>();
  /** The leaf looked at last. */
  private lastNumber = NONE;
  private lastLeaf: Leaf | null = null;

  /** Bits of PAGE; 0 when the entry holds nothing. */
  flagsOf(page: number): number {
    const leaf = this.leafOf(Math.floor(page / LEAF_PAGES));
    return leaf === null ? 0 : (leaf.flags[page & (LEAF_PAGES - 1)] as number);
  }

  /** Preconditions: the entry is held. */
  frameOf(page: number): Pfn {
    const leaf = this.leafOf(Math.floor(page / LEAF_PAGES));
    assert(leaf !== null, "an entry that is asked for its frame is held");
    return leaf.frames[page & (LEAF_PAGES - 1)] as number;
  }

  isHeld(page: number): boolean {
    return this.flagsOf(page) !== 0;
  }

  /** @param flags with HELD. */
  set(page: number, frame: Pfn, flags: number): void {
    assert((flags & PAGE.HELD) !== 0, "an entry that is set holds a frame");
    const leaf = this.makeLeaf(Math.floor(page / LEAF_PAGES));
    const slot = page & (LEAF_PAGES - 1);
    if (leaf.flags[slot] === 0) {
      leaf.held++;
      this.held++;
    }
    leaf.frames[slot] = frame;
    leaf.flags[slot] = flags;
  }

  /** Changes the bits of a held entry. */
  change(page: number, set: number, clear: number): void {
    const leaf = this.leafOf(Math.floor(page / LEAF_PAGES));
    const slot = page & (LEAF_PAGES - 1);
    assert(leaf !== null && leaf.flags[slot] !== 0, "an entry that changes is held");
    leaf.flags[slot] = ((leaf.flags[slot] as number) & ~clear) | set;
    assert((leaf.flags[slot] & PAGE.HELD) !== 0, "an entry that changes stays held");
  }

  /**
   * Entries from a held one on, of its leaf, that hold the next frames with the same `mask` bits.
   * @returns how many, itself counted; at most `countMax`.
   */
  alike(page: number, countMax: number, mask: number): number {
    const leaf = this.leafOf(Math.floor(page / LEAF_PAGES));
    const slot = page & (LEAF_PAGES - 1);
    assert(leaf !== null && leaf.flags[slot] !== 0, "an entry that others are like is held");
    const { flags, frames } = leaf;
    const bits = (flags[slot] as number) & mask;
    const delta = (frames[slot] as number) - slot;
    const end = Math.min(LEAF_PAGES, slot + countMax);
    let next = slot + 1;
    while (next < end && frames[next] === next + delta && ((flags[next] as number) & mask) === bits)
      next++;
    return next - slot;
  }

  /** Sets bits of `count` held entries of one leaf. */
  changeAlike(page: number, count: number, set: number): void {
    const leaf = this.leafOf(Math.floor(page / LEAF_PAGES));
    const slot = page & (LEAF_PAGES - 1);
    assert(leaf !== null && slot + count <= LEAF_PAGES, "entries that change are in one leaf");
    for (let i = slot; i < slot + count; i++) leaf.flags[i] = (leaf.flags[i] as number) | set;
  }

  /** Empties a held entry; an empty leaf goes. */
  clear(page: number): void {
    const number = Math.floor(page / LEAF_PAGES);
    const leaf = this.leafOf(number);
    const slot = page & (LEAF_PAGES - 1);
    assert(leaf !== null && leaf.flags[slot] !== 0, "an entry that is cleared is held");
    leaf.flags[slot] = 0;
    leaf.held--;
    this.held--;
    if (leaf.held === 0) this.dropLeaf(number);
  }

  /** First held entry of [from, end), -1 when there is none. */
  next(from: number, end: number): number {
    let page = from;
    while (page < end) {
      const number = Math.floor(page / LEAF_PAGES);
      const upper = this.root[Math.floor(number / (NODE_SIZE * NODE_SIZE))] ?? null;
      if (upper === null) {
        page = nextMultiple(page, LEAF_PAGES * NODE_SIZE * NODE_SIZE);
        continue;
      }
      const middle = upper[Math.floor(number / NODE_SIZE) % NODE_SIZE] ?? null;
      if (middle === null) {
        page = nextMultiple(page, LEAF_PAGES * NODE_SIZE);
        continue;
      }
      const leaf = middle[number % NODE_SIZE] ?? null;
      const leafEnd = nextMultiple(page, LEAF_PAGES);
      if (leaf !== null) {
        const stop = Math.min(end, leafEnd) - number * LEAF_PAGES;
        for (let slot = page & (LEAF_PAGES - 1); slot < stop; slot++) {
          if (leaf.flags[slot] !== 0) return number * LEAF_PAGES + slot;
        }
      }
      page = leafEnd;
    }
    return NONE;
  }

  private leafOf(number: number): Leaf | null {
    if (number === this.lastNumber) return this.lastLeaf;
    const upper = this.root[Math.floor(number / (NODE_SIZE * NODE_SIZE))] ?? null;
    if (upper === null) return null;
    const middle = upper[Math.floor(number / NODE_SIZE) % NODE_SIZE] ?? null;
    const leaf = middle === null ? null : (middle[number % NODE_SIZE] ?? null);
    if (leaf !== null) {
      this.lastNumber = number;
      this.lastLeaf = leaf;
    }
    return leaf;
  }

  private makeLeaf(number: number): Leaf {
    const known = this.leafOf(number);
    if (known !== null) return known;
    assert(number >= 0 && number < PAGES_END / LEAF_PAGES, "page numbers have 36 bits");
    const top = Math.floor(number / (NODE_SIZE * NODE_SIZE));
    const upper = this.root[top] ?? emptyNode<Middle>();
    this.root[top] = upper;
    const second = Math.floor(number / NODE_SIZE) % NODE_SIZE;
    const middle = upper[second] ?? emptyNode<Leaf>();
    upper[second] = middle;
    const leaf = new Leaf();
    middle[number % NODE_SIZE] = leaf;
    this.lastNumber = number;
    this.lastLeaf = leaf;
    return leaf;
  }

  /** Nodes above stay: they are few, and what was mapped once often is again. */
  private dropLeaf(number: number): void {
    const upper = this.root[Math.floor(number / (NODE_SIZE * NODE_SIZE))] as Upper;
    const middle = upper[Math.floor(number / NODE_SIZE) % NODE_SIZE] as Middle;
    middle[number % NODE_SIZE] = null;
    this.lastNumber = NONE;
    this.lastLeaf = null;
  }
}

function nextMultiple(value: number, step: number): number {
  return (Math.floor(value / step) + 1) * step;
}
