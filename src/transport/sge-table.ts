// SPDX-License-Identifier: MIT
// Scatter/gather lists, `SGE_COUNT_MAX` entries a slot in typed arrays: as posted (address, length,
// L_Key) and, once resolved, as places in registered memory. Resolving checks an entry once; every
// copy afterwards asks only whether its region has changed since.

import { highOf, lowOf } from "../base/index.js";
import { PAGES, type PagesResult } from "./region-pages.js";
import type { RegionTable } from "./regions.js";
import { type ScatterGatherEntry, SGE_COUNT_MAX } from "./work-request.js";

/** Longest message (IBTA vol1 §9.7.7; 2^31 bytes), and so the longest entry. */
export const MESSAGE_BYTES_MAX = 0x8000_0000;

const NO_REGION = -1;

export class SgeTable {
  readonly counts: Uint8Array;
  /** Bytes of all entries of a slot. */
  readonly totals: Float64Array;
  private readonly addresses: Float64Array;
  private readonly lengths: Float64Array;
  private readonly keys: Uint32Array;
  private readonly regions: Int32Array;
  private readonly generations: Int32Array;
  /** Positions in the region (`RegionTable.offsetIn`). */
  private readonly offsets: Float64Array;
  /** Per slot: an entry's region stands on pages, so that every copy must ask `ready` first. */
  private readonly paged: Uint8Array;

  constructor(slotCount: number) {
    const entries = slotCount * SGE_COUNT_MAX;
    this.counts = new Uint8Array(slotCount);
    this.totals = new Float64Array(slotCount);
    this.addresses = new Float64Array(entries);
    this.lengths = new Float64Array(entries);
    this.keys = new Uint32Array(entries);
    this.regions = new Int32Array(entries);
    this.generations = new Int32Array(entries);
    this.offsets = new Float64Array(entries);
    this.paged = new Uint8Array(slotCount);
  }

  /** Stores a list. @returns false when a number in it is none that memory could have. */
  store(slot: number, sges: readonly ScatterGatherEntry[], count: number): boolean {
    let total = 0;
    let at = slot * SGE_COUNT_MAX;
    for (let i = 0; i < count; i++, at++) {
      const sge = sges[i] as ScatterGatherEntry;
      if (!(Number.isInteger(sge.length) && sge.length >= 0)) return false;
      if (sge.length > MESSAGE_BYTES_MAX) return false;
      if (!(Number.isSafeInteger(sge.address) && sge.address >= 0)) return false;
      this.addresses[at] = sge.address;
      this.lengths[at] = sge.length;
      this.keys[at] = sge.lkey;
      total += sge.length;
    }
    this.counts[slot] = count;
    this.totals[slot] = total;
    return true;
  }

  /** Takes over a list from another table. */
  copyFrom(slot: number, source: SgeTable, sourceSlot: number): void {
    const count = source.counts[sourceSlot] as number;
    this.counts[slot] = count;
    this.totals[slot] = source.totals[sourceSlot] as number;
    let at = slot * SGE_COUNT_MAX;
    let from = sourceSlot * SGE_COUNT_MAX;
    for (let i = 0; i < count; i++, at++, from++) {
      this.addresses[at] = source.addresses[from] as number;
      this.lengths[at] = source.lengths[from] as number;
      this.keys[at] = source.keys[from] as number;
    }
  }

  /**
   * Checks every entry's key, protection domain, rights and bounds, and finds its memory. Empty
   * entries need no key.
   */
  resolve(slot: number, regions: RegionTable, pdIndex: number, access: number): boolean {
    let at = slot * SGE_COUNT_MAX;
    this.paged[slot] = 0;
    for (const end = at + (this.counts[slot] as number); at < end; at++) {
      const length = this.lengths[at] as number;
      this.regions[at] = NO_REGION;
      if (length === 0) continue;
      const high = highOf(this.addresses[at] as number);
      const low = lowOf(this.addresses[at] as number);
      const region = regions.check(this.keys[at] as number, pdIndex, access, high, low, length);
      if (region < 0) return false;
      this.regions[at] = region;
      if (regions.isPaged(region)) this.paged[slot] = 1;
      this.generations[at] = regions.generationOf(region);
      this.offsets[at] = regions.offsetIn(region, high, low);
    }
    return true;
  }

  /** Whether some of a resolved list is on pages: `ready` then comes before every copy. */
  isPaged(slot: number): boolean {
    return this.paged[slot] === 1;
  }

  /**
   * Whether all pages of bytes `position .. position + length - 1` of the list are there; asks for
   * those that are not. A region that has changed counts as there: the copy finds it out.
   * Preconditions: the slot is resolved; the range is inside the list.
   */
  ready(
    slot: number,
    regions: RegionTable,
    position: number,
    length: number,
    isWrite: boolean,
  ): PagesResult {
    let result: PagesResult = PAGES.READY;
    for (let at = slot * SGE_COUNT_MAX; length > 0; at++) {
      const entryBytes = this.lengths[at] as number;
      if (position >= entryBytes) {
        position -= entryBytes;
        continue;
      }
      const chunk = Math.min(length, entryBytes - position);
      const region = this.regions[at] as number;
      if (regions.isCurrent(region, this.generations[at] as number) && regions.isPaged(region)) {
        const from = (this.offsets[at] as number) + position;
        const one = regions.ready(region, from, chunk, entryBytes - position, isWrite);
        if (one === PAGES.REFUSED) return one;
        if (one === PAGES.WAITING) result = one;
      }
      length -= chunk;
      position = 0;
    }
    return result;
  }

  /** Brings in all pages of a resolved list at once, for the process's own CPU. */
  touch(slot: number, regions: RegionTable): boolean {
    let at = slot * SGE_COUNT_MAX;
    for (const end = at + (this.counts[slot] as number); at < end; at++) {
      const region = this.regions[at] as number;
      if (region < 0 || !regions.isPaged(region)) continue;
      const from = this.offsets[at] as number;
      if (!regions.touch(region, from, this.lengths[at] as number, false)) return false;
    }
    return true;
  }

  /**
   * Copies bytes `position .. position + length - 1` of the list to `target`.
   * Preconditions: the slot is resolved and, if it is paged, ready; the range is inside the list.
   * @returns false when a region has changed since; nothing of that region was copied.
   */
  gather(
    slot: number,
    regions: RegionTable,
    position: number,
    length: number,
    target: Uint8Array,
    targetOffset: number,
  ): boolean {
    let at = slot * SGE_COUNT_MAX;
    while (length > 0) {
      const entryBytes = this.lengths[at] as number;
      if (position < entryBytes) {
        const region = this.regions[at] as number;
        if (!regions.isCurrent(region, this.generations[at] as number)) return false;
        const chunk = Math.min(length, entryBytes - position);
        const source = (this.offsets[at] as number) + position;
        if (regions.isPaged(region)) {
          regions.read(region, source, target, targetOffset, chunk);
        } else {
          regions.viewCache.copy(target, targetOffset, regions.bytesOf(region), source, chunk);
        }
        targetOffset += chunk;
        length -= chunk;
        position = 0;
      } else {
        position -= entryBytes;
      }
      at++;
    }
    return true;
  }

  /** The reverse: copies `source` bytes to position `position` of the list. */
  scatter(
    slot: number,
    regions: RegionTable,
    position: number,
    length: number,
    source: Uint8Array,
    sourceOffset: number,
  ): boolean {
    let at = slot * SGE_COUNT_MAX;
    while (length > 0) {
      const entryBytes = this.lengths[at] as number;
      if (position < entryBytes) {
        const region = this.regions[at] as number;
        if (!regions.isCurrent(region, this.generations[at] as number)) return false;
        const chunk = Math.min(length, entryBytes - position);
        const target = (this.offsets[at] as number) + position;
        if (regions.isPaged(region)) {
          regions.write(region, target, source, sourceOffset, chunk);
        } else {
          regions.viewCache.copy(regions.bytesOf(region), target, source, sourceOffset, chunk);
        }
        sourceOffset += chunk;
        length -= chunk;
        position = 0;
      } else {
        position -= entryBytes;
      }
      at++;
    }
    return true;
  }
}
