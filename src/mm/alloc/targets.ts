// SPDX-License-Identifier: MIT
// Where the contents of frames go that are moved out of the way.

import {
  ALLOCATE,
  type MigrateType,
  NO_FRAME,
  PAGE_BLOCK_FRAMES,
  type Pfn,
} from "../frames/constants.js";
import type { PhysicalMemory } from "../frames/physical-memory.js";
import type { Zone } from "../frames/zone.js";

/** Finds blocks to move to. What it gives is allocated, with one reference. */
export interface TargetFinder {
  /** @returns NO_FRAME when there is none. */
  find(zone: Zone, order: number, migrate: MigrateType): Pfn;
}

/** Free pieces below 2 MiB, so that no block that is whole is cut: the same zone's first. */
export class FragmentFinder implements TargetFinder {
  private readonly memory: PhysicalMemory;

  constructor(memory: PhysicalMemory) {
    this.memory = memory;
  }

  find(zone: Zone, order: number, migrate: MigrateType): Pfn {
    const pfn = this.memory.allocateFragment(zone, order, migrate);
    if (pfn !== NO_FRAME) return pfn;
    for (const other of this.memory.normalZones) {
      if (other === zone) continue;
      const there = this.memory.allocateFragment(other, order, migrate);
      if (there !== NO_FRAME) return there;
    }
    return NO_FRAME;
  }
}

/** Pieces below 2 MiB while there are some, then whatever is free. */
export class AnyFinder implements TargetFinder {
  private readonly memory: PhysicalMemory;
  private readonly fragments: FragmentFinder;

  constructor(memory: PhysicalMemory) {
    this.memory = memory;
    this.fragments = new FragmentFinder(memory);
  }

  find(zone: Zone, order: number, migrate: MigrateType): Pfn {
    const pfn = this.fragments.find(zone, order, migrate);
    return pfn === NO_FRAME ? this.memory.tryAllocate(order, migrate, ALLOCATE.ATOMIC) : pfn;
  }
}

/** Where movable frames are at home, or may cut a whole block: never among the unmovable. */
export class HomeFinder implements TargetFinder {
  private readonly memory: PhysicalMemory;

  constructor(memory: PhysicalMemory) {
    this.memory = memory;
  }

  find(_zone: Zone, order: number, migrate: MigrateType): Pfn {
    for (const zone of this.memory.normalZones) {
      if (zone.buddy.hasOwn(order, migrate)) return this.memory.allocateIn(zone, order, migrate);
    }
    return NO_FRAME;
  }
}

/**
 * The free scanner: goes from the top of a zone to the bottom, once, over page blocks that are
 * partly free. It doesn't come back to what it has passed.
 */
export class FreeScanner implements TargetFinder {
  /** Page block that is looked through, and the record in it that comes next. */
  block: number;
  private record: number;
  private readonly memory: PhysicalMemory;
  private readonly zone: Zone;
  /** No block at or below this one. */
  private floor = -1;

  constructor(memory: PhysicalMemory, zone: Zone) {
    this.memory = memory;
    this.zone = zone;
    this.block = zone.buddy.blocks.count - 1;
    this.record = this.block * PAGE_BLOCK_FRAMES;
  }

  /** Says how far down it may go: above the block that is being emptied. */
  setFloor(block: number): void {
    this.floor = block;
  }

  get hasMet(): boolean {
    return this.block <= this.floor;
  }

  find(zone: Zone, order: number, migrate: MigrateType): Pfn {
    const { buddy } = this.zone;
    while (zone === this.zone && this.block > this.floor) {
      const free = buddy.blocks.free[this.block] as number;
      if (free > 0 && free < PAGE_BLOCK_FRAMES) {
        const pfn = this.findInBlock(order, migrate);
        if (pfn !== NO_FRAME) return pfn;
      }
      this.block--;
      this.record = this.block * PAGE_BLOCK_FRAMES;
    }
    return NO_FRAME;
  }

  private findInBlock(order: number, migrate: MigrateType): Pfn {
    const { zone, memory } = this;
    const { orders, recordCount } = zone.table;
    const end = Math.min((this.block + 1) * PAGE_BLOCK_FRAMES, recordCount);
    while (this.record < end) {
      const record = this.record;
      memory.counters.freeScanned++;
      const head = zone.buddy.headOfFree(record);
      if (head === record && (orders[record] as number) >= order) {
        this.record = record + 2 ** order;
        const pfn = zone.pfnOf(record);
        if (memory.claim(pfn, order, migrate)) return pfn;
      }
      this.record = record + 1;
    }
    return NO_FRAME;
  }
}
