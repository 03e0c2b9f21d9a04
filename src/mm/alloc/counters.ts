// SPDX-License-Identifier: MIT

import { BLOCK_TYPE_COUNT, ORDER_MAX } from "../frames/constants.js";

/** What the allocators of a host have done since it began. All only grow. */
export class AllocatorCounters {
  /** By order, in frames, and MIGRATE: `[order * BLOCK_TYPE_COUNT + type]`. */
  readonly allocations = new Float64Array((ORDER_MAX + 1) * BLOCK_TYPE_COUNT);
  readonly failures = new Float64Array((ORDER_MAX + 1) * BLOCK_TYPE_COUNT);
  readonly frees = new Float64Array(ORDER_MAX + 1);
  /** Blocks freed, of all orders. */
  freeCount = 0;
  /** By MIGRATE: served from page blocks of another type. */
  readonly fallbacks = new Float64Array(BLOCK_TYPE_COUNT);
  /** Page blocks that unmovable or reclaimable requests took from others. */
  blocksClaimed = 0;
  framesWiped = 0;
  /** Frames whose contents were moved, for whatever reason. */
  framesMoved = 0;
  get bytesMoved(): number {
    return this.framesMoved * 4096;
  }
  /** Moves that came to nothing, by MOVE_RESULT. */
  readonly movesFailed = new Float64Array(5);
  /** Times that an allocation could go on only by reclaiming or compacting. */
  slowPaths = 0;
  framesReclaimed = 0;
  /** Direct compactions, and those after which the request succeeded. */
  compactions = 0;
  compactionSuccesses = 0;
  /** Frames, and page blocks skipped by their counts, that the migrate scanner looked at. */
  framesScanned = 0;
  blocksScanned = 0;
  /** Frames that the free scanner looked at. */
  freeScanned = 0;
  /** Page blocks emptied. */
  blocksEmptied = 0;
  /** Movable frames moved out of blocks with unmovable ones, to make room for more of those. */
  framesEvicted = 0;
  /** Turns of background compaction that moved something. */
  backgroundTurns = 0;
  slabObjectsMoved = 0;
  slabsFreed = 0;
  rangesAllocated = 0;
  rangesFailed = 0;

  countAllocation(order: number, type: number): void {
    const at = order * BLOCK_TYPE_COUNT + type;
    this.allocations[at] = (this.allocations[at] as number) + 1;
  }

  countFailure(order: number, type: number): void {
    const at = order * BLOCK_TYPE_COUNT + type;
    this.failures[at] = (this.failures[at] as number) + 1;
  }
}
