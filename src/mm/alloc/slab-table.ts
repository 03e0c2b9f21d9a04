// SPDX-License-Identifier: MIT
// The records of a cache's slabs in typed arrays: where each is, which of its objects are in use,
// and the lists of empty, partial and full ones.

import { assert } from "../../base/index.js";
import { NO_FRAME, type Pfn } from "../frames/constants.js";

export const SLAB_LIST = { NONE: 0, EMPTY: 1, PARTIAL: 2, FULL: 3 } as const;
const LIST_COUNT = 4;
const NOBODY = -1;

/** Grows by doubling and never shrinks: slab numbers are stable. */
export class SlabTable {
  readonly objectsPerSlab: number;
  /** First slab of each SLAB_LIST, -1 for none. */
  readonly heads = new Int32Array(LIST_COUNT).fill(NOBODY);
  readonly counts = new Int32Array(LIST_COUNT);
  private readonly wordsPerSlab: number;
  private capacity = 0;
  private pfns = new Float64Array(0);
  private used = new Uint16Array(0);
  private lists = new Uint8Array(0);
  private next = new Int32Array(0);
  private previous = new Int32Array(0);
  /** A bit per object, set while it is free. */
  private bits = new Int32Array(0);

  constructor(objectsPerSlab: number) {
    this.objectsPerSlab = objectsPerSlab;
    this.wordsPerSlab = Math.ceil(objectsPerSlab / 32);
  }

  /** A record for a slab at `pfn`, all of it free. @returns its number. */
  add(pfn: Pfn): number {
    if (this.heads[SLAB_LIST.NONE] === NOBODY) this.grow();
    const slab = this.heads[SLAB_LIST.NONE] as number;
    this.pfns[slab] = pfn;
    this.used[slab] = 0;
    for (let object = 0; object < this.objectsPerSlab; object++) this.setFree(slab, object, true);
    this.moveTo(slab, SLAB_LIST.EMPTY);
    return slab;
  }

  /** Preconditions: none of its objects is in use. */
  remove(slab: number): void {
    assert(this.used[slab] === 0, "a slab that goes is empty");
    this.pfns[slab] = NO_FRAME;
    this.moveTo(slab, SLAB_LIST.NONE);
  }

  pfnOf(slab: number): Pfn {
    return this.pfns[slab] as number;
  }

  setPfn(slab: number, pfn: Pfn): void {
    this.pfns[slab] = pfn;
  }

  usedOf(slab: number): number {
    return this.used[slab] as number;
  }

  isUsed(slab: number, object: number): boolean {
    const word = this.bits[slab * this.wordsPerSlab + (object >>> 5)] as number;
    return (word & (1 << (object & 31))) === 0;
  }

  /** Takes a free object of a slab. @returns its number. Preconditions: there is one. */
  take(slab: number): number {
    const first = slab * this.wordsPerSlab;
    let word = 0;
    while (this.bits[first + word] === 0) word++;
    assert(word < this.wordsPerSlab, "a slab that is taken from has a free object");
    const bits = this.bits[first + word] as number;
    const object = word * 32 + 31 - Math.clz32(bits & -bits);
    this.setFree(slab, object, false);
    this.used[slab] = (this.used[slab] as number) + 1;
    this.relist(slab);
    return object;
  }

  give(slab: number, object: number): void {
    assert(this.isUsed(slab, object), "an object is freed once");
    this.setFree(slab, object, true);
    this.used[slab] = (this.used[slab] as number) - 1;
    this.relist(slab);
  }

  /** Partial slabs, those with the fewest objects first. */
  sortedPartial(): number[] {
    const slabs: number[] = [];
    for (let slab = this.heads[SLAB_LIST.PARTIAL] as number; slab >= 0; slab = this.after(slab)) {
      slabs.push(slab);
    }
    return slabs.sort((a, b) => (this.used[a] as number) - (this.used[b] as number));
  }

  /** The slab after this one in its list, -1 at the end. */
  after(slab: number): number {
    return this.next[slab] as number;
  }

  listOf(slab: number): number {
    return this.lists[slab] as number;
  }

  private relist(slab: number): void {
    const used = this.used[slab] as number;
    let list: number = SLAB_LIST.PARTIAL;
    if (used === 0) list = SLAB_LIST.EMPTY;
    else if (used === this.objectsPerSlab) list = SLAB_LIST.FULL;
    if (this.lists[slab] !== list) this.moveTo(slab, list);
  }

  private moveTo(slab: number, list: number): void {
    const before = this.lists[slab] as number;
    const next = this.next[slab] as number;
    const previous = this.previous[slab] as number;
    if (previous === NOBODY) this.heads[before] = next;
    else this.next[previous] = next;
    if (next !== NOBODY) this.previous[next] = previous;
    this.counts[before] = (this.counts[before] as number) - 1;
    this.push(slab, list);
  }

  private push(slab: number, list: number): void {
    const head = this.heads[list] as number;
    this.next[slab] = head;
    this.previous[slab] = NOBODY;
    if (head !== NOBODY) this.previous[head] = slab;
    this.heads[list] = slab;
    this.lists[slab] = list;
    this.counts[list] = (this.counts[list] as number) + 1;
  }

  private setFree(slab: number, object: number, isFree: boolean): void {
    const word = slab * this.wordsPerSlab + (object >>> 5);
    const bit = 1 << (object & 31);
    const before = this.bits[word] as number;
    this.bits[word] = isFree ? before | bit : before & ~bit;
  }

  private grow(): void {
    const before = this.capacity;
    const capacity = Math.max(16, before * 2);
    this.pfns = enlarged(this.pfns, new Float64Array(capacity));
    this.used = enlarged(this.used, new Uint16Array(capacity));
    this.lists = enlarged(this.lists, new Uint8Array(capacity));
    this.next = enlarged(this.next, new Int32Array(capacity));
    this.previous = enlarged(this.previous, new Int32Array(capacity));
    this.bits = enlarged(this.bits, new Int32Array(capacity * this.wordsPerSlab));
    this.capacity = capacity;
    for (let slab = capacity - 1; slab >= before; slab--) {
      this.pfns[slab] = NO_FRAME;
      this.push(slab, SLAB_LIST.NONE);
    }
  }
}

function enlarged<T extends { set(from: T): void }>(from: T, to: T): T {
  to.set(from);
  return to;
}
