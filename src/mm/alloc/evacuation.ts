// SPDX-License-Identifier: MIT
// Emptying a range of frames: what is free in it is taken off the free lists, what is used is moved
// elsewhere; in the end all of it is the caller's, or nothing has changed but where things are.

import { assert } from "../../base/index.js";
import {
  FRAME_FLAG,
  FRAME_STATE,
  type MigrateType,
  MOBILITY_MASK,
  MOBILITY_SHIFT,
  MOVE_RESULT,
  NO_FRAME,
} from "../frames/constants.js";
import type { PhysicalMemory } from "../frames/physical-memory.js";
import type { Zone } from "../frames/zone.js";
import type { TargetFinder } from "./targets.js";

/** A range that can't be emptied. */
export const IMPOSSIBLE = -1;

export class Evacuator {
  private readonly memory: PhysicalMemory;

  constructor(memory: PhysicalMemory) {
    this.memory = memory;
  }

  /**
   * Frames that would have to move for [first, first + count) to be free; IMPOSSIBLE when one of
   * them can't now, or a used block reaches over an end.
   */
  cost(zone: Zone, first: number, count: number): number {
    const { states, orders } = zone.table;
    const end = first + count;
    let cost = 0;
    let record = first;
    if (end > zone.table.recordCount || states[first] === FRAME_STATE.TAIL) return IMPOSSIBLE;
    while (record < end) {
      this.memory.counters.framesScanned++;
      const state = states[record];
      if (state === FRAME_STATE.FREE) {
        record += 2 ** (orders[record] as number);
      } else if (state === FRAME_STATE.FREE_TAIL) {
        const head = zone.buddy.headOfFree(record);
        record = head + 2 ** (orders[head] as number);
      } else if (state === FRAME_STATE.USED) {
        const size = 2 ** (orders[record] as number);
        if (record + size > end) return IMPOSSIBLE;
        if (this.memory.judge(zone.pfnOf(record)) !== MOVE_RESULT.DONE) return IMPOSSIBLE;
        cost += size;
        record += size;
      } else {
        return IMPOSSIBLE;
      }
    }
    return cost;
  }

  /**
   * Empties [first, first + count). @returns whether all of it is the caller's now: off the free
   * lists, isolated; `release` or `BuddyAllocator.markUsed` must follow. Preconditions: its cost is
   * not IMPOSSIBLE.
   */
  empty(zone: Zone, first: number, count: number, finder: TargetFinder): boolean {
    this.hold(zone, first, count);
    const { states, orders } = zone.table;
    const end = first + count;
    let record = first;
    while (record < end) {
      const state = states[record];
      if (state === FRAME_STATE.ISOLATED) {
        record++;
        continue;
      }
      const size = 2 ** (orders[record] as number);
      if (state === FRAME_STATE.USED && !this.moveOut(zone, record, finder)) {
        this.release(zone, first, count);
        return false;
      }
      // Free now, perhaps as a part of a larger block; or somebody freed it meanwhile.
      this.hold(zone, record, Math.min(size, end - record));
    }
    return true;
  }

  /** Puts what is isolated of [first, first + count) back on the free lists. */
  release(zone: Zone, first: number, count: number): void {
    const { states } = zone.table;
    const end = first + count;
    let record = first;
    while (record < end) {
      const start = record;
      while (record < end && states[record] === FRAME_STATE.ISOLATED) record++;
      if (record > start) zone.buddy.insertRange(start, record - start);
      else record++;
    }
  }

  /** Moves one used block to where the finder says. @returns whether it is free now. */
  moveOut(zone: Zone, record: number, finder: TargetFinder): boolean {
    const { table } = zone;
    const pfn = zone.pfnOf(record);
    const flags = table.flags[record] as number;
    const { memory } = this;
    if ((flags & FRAME_FLAG.SLAB) !== 0 && (table.pins[record] as number) === 0) {
      const owner = memory.ownerOf(pfn);
      if (owner?.vacate?.(pfn, table.indexes[record] as number) === true) return true;
    }
    const order = table.orders[record] as number;
    const migrate = ((flags & MOBILITY_MASK) >>> MOBILITY_SHIFT) as MigrateType;
    const target = finder.find(zone, order, migrate);
    if (target === NO_FRAME) return false;
    if (memory.move(pfn, target) === MOVE_RESULT.DONE) return true;
    memory.put(target);
    return false;
  }

  /** Takes what is free of [first, first + count) off the free lists. */
  private hold(zone: Zone, first: number, count: number): void {
    const { states, orders } = zone.table;
    const { buddy } = zone;
    const end = first + count;
    let record = first;
    while (record < end) {
      const head = buddy.headOfFree(record);
      if (head < 0) {
        record += states[record] === FRAME_STATE.USED ? 2 ** (orders[record] as number) : 1;
        continue;
      }
      const stop = Math.min(end, head + 2 ** (orders[head] as number));
      buddy.takeRange(record, stop - record);
      assert(states[record] === FRAME_STATE.ISOLATED, "what is held is isolated");
      record = stop;
    }
  }
}
