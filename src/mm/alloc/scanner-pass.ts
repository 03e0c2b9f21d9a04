// SPDX-License-Identifier: MIT
// One pass of the two scanners over a zone: movable frames of low page blocks go to free frames of
// high ones, until the scanners meet. Each frame moves at most once in a pass.

import { FRAME_STATE, PAGE_BLOCK_FRAMES } from "../frames/constants.js";
import type { PhysicalMemory } from "../frames/physical-memory.js";
import type { Zone } from "../frames/zone.js";
import { type Evacuator, IMPOSSIBLE } from "./evacuation.js";
import { FreeScanner } from "./targets.js";

export class ScannerPass {
  readonly zone: Zone;
  blocksEmptied = 0;
  private readonly memory: PhysicalMemory;
  private readonly evacuator: Evacuator;
  private readonly freeScanner: FreeScanner;
  /** Page block that the migrate scanner comes to next. */
  private block = 0;

  constructor(memory: PhysicalMemory, evacuator: Evacuator, zone: Zone) {
    this.memory = memory;
    this.evacuator = evacuator;
    this.zone = zone;
    this.freeScanner = new FreeScanner(memory, zone);
  }

  /**
   * Goes on until about `frames` frames have moved (a page block is always finished) or `blocks`
   * page blocks have been looked at. @returns whether the pass is over.
   */
  step(frames: number, blocks: number): boolean {
    const { counters } = this.memory;
    const movedEnd = counters.framesMoved + frames;
    for (let looked = 0; looked < blocks && counters.framesMoved < movedEnd; looked++) {
      this.freeScanner.setFloor(this.block);
      if (this.freeScanner.hasMet) return true;
      counters.blocksScanned++;
      if (this.isWorthIt(this.block)) this.emptyBlock(this.block);
      this.block++;
    }
    return false;
  }

  /** Only page blocks that are partly used, by nothing that can't move. */
  private isWorthIt(block: number): boolean {
    const { free, stuck } = this.zone.buddy.blocks;
    if ((free[block] as number) === 0 || (free[block] as number) === PAGE_BLOCK_FRAMES)
      return false;
    if ((stuck[block] as number) > 0) return false;
    const first = block * PAGE_BLOCK_FRAMES;
    return this.evacuator.cost(this.zone, first, PAGE_BLOCK_FRAMES) !== IMPOSSIBLE;
  }

  private emptyBlock(block: number): void {
    const { states, orders } = this.zone.table;
    const end = (block + 1) * PAGE_BLOCK_FRAMES;
    let isEmpty = true;
    for (let record = block * PAGE_BLOCK_FRAMES; record < end; ) {
      const size = 2 ** (orders[record] as number);
      if (states[record] === FRAME_STATE.USED) {
        if (!this.evacuator.moveOut(this.zone, record, this.freeScanner)) isEmpty = false;
      }
      record += sizeAt(states[record] as number, size);
    }
    if (!isEmpty) return;
    this.blocksEmptied++;
    this.memory.counters.blocksEmptied++;
  }
}

/** Records to go on by: what was a used block may be a part of a free one now. */
function sizeAt(state: number, size: number): number {
  return state === FRAME_STATE.FREE_TAIL ? 1 : size;
}
