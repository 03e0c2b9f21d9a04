// SPDX-License-Identifier: MIT
// Ranges of neighbouring frames of any length: chunks of an RTRS server, big registrations. Where
// no range is free, one is emptied whose frames can all move (Linux: `alloc_contig_pages`).

import { assert } from "../../base/index.js";
import {
  ALLOCATE,
  MIGRATE,
  type MigrateType,
  NO_FRAME,
  ORDER_MAX,
  orderFor,
  PAGE_BLOCK_FRAMES,
  PAGE_BLOCK_ORDER,
  type Pfn,
} from "../frames/constants.js";
import type { PhysicalMemory } from "../frames/physical-memory.js";
import type { Zone } from "../frames/zone.js";
import { IMPOSSIBLE } from "./evacuation.js";
import { AnyFinder } from "./targets.js";

/** Ranges that are tried to be emptied for one request. */
const ATTEMPTS_MAX = 8;

export class ContiguousAllocator {
  private readonly memory: PhysicalMemory;
  private readonly finder: AnyFinder;

  constructor(memory: PhysicalMemory) {
    this.memory = memory;
    this.finder = new AnyFinder(memory);
  }

  /**
   * Allocates `frameCount` neighbouring frames of a normal zone: the fewest blocks that cover them,
   * each with one reference and no owner.
   * @param alignFrames a power of two that the first frame is a multiple of.
   * @param flags bits of ALLOCATE: ZERO, NO_COMPACT (nothing is moved), NO_RECLAIM.
   * @returns the first frame, or NO_FRAME.
   */
  allocateRange(
    frameCount: number,
    alignFrames = 1,
    migrate: MigrateType = MIGRATE.UNMOVABLE,
    flags = 0,
  ): Pfn {
    assert(frameCount > 0, "a range has frames");
    assert(2 ** orderFor(alignFrames) === alignFrames, "alignments are powers of two");
    const { counters } = this.memory;
    frameCount = this.rounded(frameCount);
    let pfn = this.takeFree(frameCount, alignFrames, migrate, flags);
    if (pfn === NO_FRAME && (flags & ALLOCATE.NO_RECLAIM) === 0) {
      const missing = this.memory.missingFor(frameCount, orderFor(frameCount));
      if (missing > 0 && this.memory.reclaim(missing) > 0) {
        pfn = this.takeFree(frameCount, alignFrames, migrate, flags);
      }
    }
    if (pfn === NO_FRAME && (flags & ALLOCATE.NO_COMPACT) === 0) {
      pfn = this.takeEmptied(frameCount, alignFrames, migrate, flags);
    }
    if (pfn === NO_FRAME) counters.rangesFailed++;
    else counters.rangesAllocated++;
    return pfn;
  }

  /** Gives a range back: one reference on each of its blocks. @returns whether all are free now. */
  freeRange(pfn: Pfn, frameCount: number): boolean {
    let isFree = true;
    let at = pfn;
    const end = pfn + this.rounded(frameCount);
    while (at < end) {
      assert(this.memory.headOf(at) === at, "a range is freed from its first frame");
      const size = 2 ** this.memory.orderOf(at);
      if (!this.memory.put(at)) isFree = false;
      at += size;
    }
    assert(at === end, "a range is freed to its last frame");
    return isFree;
  }

  /** In whole base pages of the policy. */
  private rounded(frameCount: number): number {
    const base = 2 ** (this.memory.policy.baseShift - 12);
    return Math.ceil(frameCount / base) * base;
  }

  /** Out of one free block; what it has more than `frameCount` stays free. */
  private takeFree(count: number, align: number, migrate: MigrateType, flags: number): Pfn {
    const order = Math.max(orderFor(count), orderFor(align));
    if (order <= ORDER_MAX) {
      for (const zone of this.memory.normalZones) {
        if (zone.buddy.freeFor(order) - count < zone.watermarks.min) continue;
        const record = zone.buddy.allocate(order, migrate);
        if (record >= 0) return this.keep(zone, record, 2 ** order, count, migrate, flags);
      }
    }
    // Two free blocks side by side are no one block, but they may be a range.
    return this.takeRun(count, align, migrate, flags);
  }

  /** Gives what used records have more than `count` back, and begins the others. */
  private keep(
    zone: Zone,
    record: number,
    size: number,
    count: number,
    migrate: MigrateType,
    flags: number,
  ): Pfn {
    const { buddy } = zone;
    if (this.memory.policy.groupByMobility && migrate !== MIGRATE.MOVABLE) {
      // What is left of the last page block is for the like of what is in it.
      const last = (record + count - 1) >>> PAGE_BLOCK_ORDER;
      if (count % PAGE_BLOCK_FRAMES !== 0) buddy.setBlockType(last, migrate);
    }
    if (size > count) buddy.insertRange(record + count, size - count);
    this.memory.beginRange(zone, record, count, migrate, flags);
    return zone.pfnOf(record);
  }

  /** Out of neighbouring page blocks that are free altogether. */
  private takeRun(count: number, align: number, migrate: MigrateType, flags: number): Pfn {
    const size = Math.ceil(count / PAGE_BLOCK_FRAMES);
    for (const zone of this.memory.normalZones) {
      if (zone.buddy.freeCount - count < zone.watermarks.min) continue;
      const found = this.cheapest(zone, size, align, 0, []);
      if (found < 0) continue;
      const first = found * PAGE_BLOCK_FRAMES;
      zone.buddy.takeRange(first, size * PAGE_BLOCK_FRAMES);
      return this.keep(zone, first, size * PAGE_BLOCK_FRAMES, count, migrate, flags);
    }
    return NO_FRAME;
  }

  private takeEmptied(count: number, align: number, migrate: MigrateType, flags: number): Pfn {
    const order = Math.max(orderFor(count), orderFor(align));
    if (order < PAGE_BLOCK_ORDER && order > 0 && this.memory.compactor.makeBlock(order)) {
      const pfn = this.takeFree(count, align, migrate, flags);
      if (pfn !== NO_FRAME) return pfn;
    }
    const size = Math.ceil(count / PAGE_BLOCK_FRAMES);
    for (const zone of this.memory.normalZones) {
      if (zone.buddy.freeCount - count < zone.watermarks.min) continue;
      const first = this.emptyBlocks(zone, size, align);
      if (first >= 0)
        return this.keep(zone, first, size * PAGE_BLOCK_FRAMES, count, migrate, flags);
    }
    return NO_FRAME;
  }

  /** @returns the first record of `size` page blocks that are isolated now, or -1. */
  private emptyBlocks(zone: Zone, size: number, align: number): number {
    const { evacuator } = this.memory.compactor;
    const tried: number[] = [];
    const count = size * PAGE_BLOCK_FRAMES;
    while (tried.length < ATTEMPTS_MAX) {
      const block = this.cheapest(zone, size, align, Number.POSITIVE_INFINITY, tried);
      if (block < 0) return -1;
      tried.push(block);
      const first = block * PAGE_BLOCK_FRAMES;
      if (evacuator.cost(zone, first, count) === IMPOSSIBLE) continue;
      if (evacuator.empty(zone, first, count, this.finder)) return first;
    }
    return -1;
  }

  /**
   * The run of `size` page blocks with the fewest used frames, at most `usedMax`, nothing in it
   * that can't move. @returns its first page block, or -1.
   */
  private cheapest(
    zone: Zone,
    size: number,
    align: number,
    usedMax: number,
    tried: readonly number[],
  ): number {
    const { free, stuck } = zone.buddy.blocks;
    const step = Math.max(1, align / PAGE_BLOCK_FRAMES);
    const count = Math.floor(zone.frameCount / PAGE_BLOCK_FRAMES);
    this.memory.counters.blocksScanned += count;
    let freeInside = 0;
    let stuckInside = 0;
    let best = -1;
    let bestUsed = Math.min(usedMax, size * PAGE_BLOCK_FRAMES) + 1;
    for (let end = 1; end <= count; end++) {
      freeInside += free[end - 1] as number;
      stuckInside += stuck[end - 1] as number;
      const first = end - size;
      if (first < 0) continue;
      const used = size * PAGE_BLOCK_FRAMES - freeInside;
      const fits = stuckInside === 0 && used <= zone.buddy.freeCount - freeInside;
      if (fits && first % step === 0 && used < bestUsed && !tried.includes(first)) {
        best = first;
        bestUsed = used;
      }
      freeInside -= free[first] as number;
      stuckInside -= stuck[first] as number;
    }
    return best;
  }
}
