// SPDX-License-Identifier: MIT
// The entries of an on-demand page table. Each 2 MiB of addresses has one entry for all of it, or
// 512 of a page each: one where the memory behind it is an aligned block of that size with the same
// rights throughout, however it became that. What is taken out of a block leaves the rest as pages.
//
// Leaves of 512 pages stand in a directory of two levels, so that the whole address space costs
// nothing before it is used. A leaf without a page that is there has 5 bytes a page (what is
// queued, when it came last), one with pages 20; an entry for all of it needs no more than the 5.

import { assert } from "../../base/index.js";
import { FRAME_BYTES, NO_FRAME, type Pfn } from "../frames/index.js";

/** What an entry allows. */
export const ENTRY = { ABSENT: 0, READABLE: 1, WRITABLE: 2 } as const;
export type EntryState = (typeof ENTRY)[keyof typeof ENTRY];

/** Pages of a leaf: 2 MiB. */
export const LEAF_PAGES = 512;
/** Leaves of one node of the directory: 16 GiB. */
const NODE_LEAVES = 8192;

/** Entries of single pages. */
class Entries {
  readonly states = new Uint8Array(LEAF_PAGES);
  readonly sections = new Uint16Array(LEAF_PAGES);
  readonly frames = new Uint32Array(LEAF_PAGES);
  /** In the section, bytes. */
  readonly offsets = new Float64Array(LEAF_PAGES);
}

class Leaf {
  /** The entry for all of it; ABSENT where there is none. */
  block: number = ENTRY.ABSENT;
  /** Of that: its first page. */
  section = 0;
  frame: Pfn = NO_FRAME;
  offset = 0;
  /** Entries of single pages; null where no such page is there. */
  entries: Entries | null = null;
  /** Pages that are there by entries of their own. */
  present = 0;
  /** Faults that are in the queue, bits of the region's. */
  readonly queued = new Uint8Array(LEAF_PAGES);
  /** What the region has noted when the page came last; 0: never. */
  readonly arrivals = new Uint32Array(LEAF_PAGES);
}

type Node = (Leaf | null)[];

/** Pages are named by their place from the first 2 MiB boundary below the region. */
export class DemandTable {
  /** Pages that are there, by whichever entry. */
  presentCount = 0;
  /** Entries for 2 MiB. */
  blockCount = 0;
  /** Of the page located last: section, place of its first byte there, what lies behind it. */
  section = 0;
  offset = 0;
  /** Bytes from `offset` on that are one range. */
  span: number = FRAME_BYTES;
  private readonly leafCount: number;
  private readonly nodes: (Node | null)[];
  private lastNumber = -1;
  private lastLeaf: Leaf | null = null;
  /** Entries that are no leaf's now, all absent. */
  private spare: Entries | null = null;

  constructor(pageCount: number) {
    this.leafCount = Math.ceil(pageCount / LEAF_PAGES);
    const nodes = Math.ceil(this.leafCount / NODE_LEAVES);
    this.nodes = new Array<Node | null>(nodes).fill(null);
  }

  /** @param wanted ENTRY that the access needs. @returns whether the page is there for it. */
  locate(page: number, wanted: number): boolean {
    const leaf = this.leafOf(page);
    if (leaf === null) return false;
    const slot = page & (LEAF_PAGES - 1);
    if (leaf.block !== ENTRY.ABSENT) {
      if (leaf.block < wanted) return false;
      const inside = slot * FRAME_BYTES;
      this.section = leaf.section;
      this.offset = leaf.offset + inside;
      this.span = LEAF_PAGES * FRAME_BYTES - inside;
      return true;
    }
    const { entries } = leaf;
    if (entries === null || (entries.states[slot] as number) < wanted) return false;
    this.section = entries.sections[slot] as number;
    this.offset = entries.offsets[slot] as number;
    this.span = FRAME_BYTES;
    return true;
  }

  /**
   * A page is there now. Where it makes its leaf one aligned block the leaf gets one entry.
   * @param arrival other than 0.
   */
  enter(
    page: number,
    state: EntryState,
    frame: Pfn,
    section: number,
    offset: number,
    arrival: number,
  ): void {
    const leaf = this.makeLeaf(page);
    const slot = page & (LEAF_PAGES - 1);
    if (leaf.block !== ENTRY.ABSENT) this.takeApart(leaf);
    const entries = this.entriesOf(leaf);
    if (entries.states[slot] === ENTRY.ABSENT) {
      leaf.present++;
      this.presentCount++;
    } else {
      // Else a change of the mapping was never told.
      assert(entries.frames[slot] === frame, "a page that is there stays where it is");
    }
    entries.states[slot] = state;
    entries.frames[slot] = frame;
    entries.sections[slot] = section;
    entries.offsets[slot] = offset;
    leaf.arrivals[slot] = arrival;
    if (leaf.present === LEAF_PAGES) this.join(leaf, entries);
  }

  /** All of a leaf is there now. @param page any of it; the others are of its first page. */
  enterBlock(
    page: number,
    state: EntryState,
    frame: Pfn,
    section: number,
    offset: number,
    arrival: number,
  ): void {
    assert(frame % LEAF_PAGES === 0, "a block is aligned to its size");
    const leaf = this.makeLeaf(page);
    const known = leaf.block === ENTRY.ABSENT ? leaf.present : LEAF_PAGES;
    this.presentCount += LEAF_PAGES - known;
    this.dropEntries(leaf);
    if (leaf.block === ENTRY.ABSENT) this.blockCount++;
    leaf.block = state;
    leaf.frame = frame;
    leaf.section = section;
    leaf.offset = offset;
    leaf.arrivals.fill(arrival);
  }

  /**
   * Takes pages out.
   * @param gone called for each entry before it is forgotten: its frames, and what it allowed.
   * @returns pages that were there.
   */
  takeOut(from: number, end: number, gone: (frame: Pfn, count: number, state: number) => void) {
    const before = this.presentCount;
    const lastLeaf = Math.floor((end - 1) / LEAF_PAGES);
    for (let number = Math.floor(from / LEAF_PAGES); number <= lastLeaf; number++) {
      const node = this.nodes[Math.floor(number / NODE_LEAVES)] ?? null;
      if (node === null) {
        // Nothing of the whole node is there.
        number = (Math.floor(number / NODE_LEAVES) + 1) * NODE_LEAVES - 1;
        continue;
      }
      const leaf = node[number % NODE_LEAVES] ?? null;
      if (leaf === null) continue;
      const first = Math.max(0, from - number * LEAF_PAGES);
      const stop = Math.min(LEAF_PAGES, end - number * LEAF_PAGES);
      this.takeOutOf(leaf, first, stop, gone);
    }
    return before - this.presentCount;
  }

  /** Bits that the region has noted for a page. */
  queuedOf(page: number): number {
    const leaf = this.leafOf(page);
    return leaf === null ? 0 : (leaf.queued[page & (LEAF_PAGES - 1)] as number);
  }

  setQueued(page: number, bits: number): void {
    const leaf = bits === 0 ? this.leafOf(page) : this.makeLeaf(page);
    if (leaf !== null) leaf.queued[page & (LEAF_PAGES - 1)] = bits;
  }

  /** When a page came last, 0 for never. */
  arrivalOf(page: number): number {
    const leaf = this.leafOf(page);
    return leaf === null ? 0 : (leaf.arrivals[page & (LEAF_PAGES - 1)] as number);
  }

  checkInvariants(): void {
    let present = 0;
    let blocks = 0;
    for (const node of this.nodes) {
      for (const leaf of node ?? []) {
        if (leaf === null) continue;
        let own = 0;
        for (const state of leaf.entries?.states ?? []) own += state === ENTRY.ABSENT ? 0 : 1;
        assert(own === leaf.present, "every present page of a leaf is counted");
        assert((leaf.entries === null) === (own === 0), "a leaf has entries where it needs them");
        assert(leaf.block === ENTRY.ABSENT || own === 0, "a page has one entry");
        if (leaf.block !== ENTRY.ABSENT) blocks++;
        present += leaf.block === ENTRY.ABSENT ? own : LEAF_PAGES;
      }
    }
    assert(present === this.presentCount, "every present page is counted");
    assert(blocks === this.blockCount, "every entry for 2 MiB is counted");
  }

  private takeOutOf(
    leaf: Leaf,
    first: number,
    end: number,
    gone: (frame: Pfn, count: number, state: number) => void,
  ): void {
    if (leaf.block !== ENTRY.ABSENT) {
      if (first > 0 || end < LEAF_PAGES) {
        this.takeApart(leaf);
      } else {
        gone(leaf.frame, LEAF_PAGES, leaf.block);
        leaf.block = ENTRY.ABSENT;
        this.blockCount--;
        this.presentCount -= LEAF_PAGES;
        return;
      }
    }
    const { entries } = leaf;
    if (entries === null) return;
    for (let slot = first; slot < end; slot++) {
      const state = entries.states[slot] as number;
      if (state === ENTRY.ABSENT) continue;
      gone(entries.frames[slot] as Pfn, 1, state);
      entries.states[slot] = ENTRY.ABSENT;
      leaf.present--;
      this.presentCount--;
    }
    if (leaf.present === 0) this.dropEntries(leaf);
  }

  /** Makes entries of pages of the one for all. */
  private takeApart(leaf: Leaf): void {
    const entries = this.entriesOf(leaf);
    entries.states.fill(leaf.block);
    entries.sections.fill(leaf.section);
    for (let slot = 0; slot < LEAF_PAGES; slot++) {
      entries.frames[slot] = leaf.frame + slot;
      entries.offsets[slot] = leaf.offset + slot * FRAME_BYTES;
    }
    leaf.present = LEAF_PAGES;
    leaf.block = ENTRY.ABSENT;
    this.blockCount--;
  }

  /** All pages of a leaf are there: one entry where they are an aligned block with one right. */
  private join(leaf: Leaf, entries: Entries): void {
    const frame = entries.frames[0] as Pfn;
    const offset = entries.offsets[0] as number;
    const section = entries.sections[0] as number;
    const state = entries.states[0] as number;
    if (frame % LEAF_PAGES !== 0) return;
    for (let slot = 1; slot < LEAF_PAGES; slot++) {
      if (entries.frames[slot] !== frame + slot || entries.states[slot] !== state) return;
      if (entries.sections[slot] !== section) return;
    }
    this.dropEntries(leaf);
    leaf.block = state;
    leaf.frame = frame;
    leaf.section = section;
    leaf.offset = offset;
    this.blockCount++;
  }

  private entriesOf(leaf: Leaf): Entries {
    if (leaf.entries === null) {
      leaf.entries = this.spare ?? new Entries();
      this.spare = null;
    }
    return leaf.entries;
  }

  private dropEntries(leaf: Leaf): void {
    leaf.present = 0;
    if (leaf.entries === null) return;
    leaf.entries.states.fill(ENTRY.ABSENT);
    this.spare = leaf.entries;
    leaf.entries = null;
  }

  private leafOf(page: number): Leaf | null {
    const number = Math.floor(page / LEAF_PAGES);
    if (number === this.lastNumber) return this.lastLeaf;
    const node = this.nodes[Math.floor(number / NODE_LEAVES)] ?? null;
    const leaf = node === null ? null : (node[number % NODE_LEAVES] ?? null);
    if (leaf !== null) {
      this.lastNumber = number;
      this.lastLeaf = leaf;
    }
    return leaf;
  }

  private makeLeaf(page: number): Leaf {
    const known = this.leafOf(page);
    if (known !== null) return known;
    const number = Math.floor(page / LEAF_PAGES);
    assert(number >= 0 && number < this.leafCount, "a page is one of the table's");
    const nodeNumber = Math.floor(number / NODE_LEAVES);
    let node = this.nodes[nodeNumber] ?? null;
    if (node === null) {
      const leaves = this.leafCount - nodeNumber * NODE_LEAVES;
      node = new Array<Leaf | null>(Math.min(NODE_LEAVES, leaves)).fill(null);
      this.nodes[nodeNumber] = node;
    }
    const leaf = new Leaf();
    node[number % NODE_LEAVES] = leaf;
    return leaf;
  }
}
