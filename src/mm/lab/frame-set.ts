// SPDX-License-Identifier: MIT

import {
  type FrameOwner,
  type MigrateType,
  NO_FRAME,
  type Pfn,
  type PhysicalMemory,
} from "../frames/index.js";

/** Slot of a block in a `FrameSet`. */
export type Slot = number;
export const NO_SLOT = -1;

/** Bytes asked for and bytes handed out: larger base pages hand out more. In frames. */
export class Ledger {
  asked = 0;
  given = 0;
}

/** Blocks of frames of one user, who knows where each of them is: all of it can be moved. */
export class FrameSet implements FrameOwner {
  readonly name: string;
  private readonly memory: PhysicalMemory;
  private readonly ownerId: number;
  private pfns = new Float64Array(1024).fill(NO_FRAME);
  private used = 0;
  private readonly freeSlots: Slot[] = [];

  constructor(memory: PhysicalMemory, name: string) {
    this.memory = memory;
    this.name = name;
    this.ownerId = memory.registerOwner(this);
  }

  /** Allocates a block. @returns NO_SLOT when there is no memory. */
  take(order: number, migrate: MigrateType, flags = 0): Slot {
    const pfn = this.memory.allocate(order, migrate, flags);
    if (pfn === NO_FRAME) return NO_SLOT;
    const slot = this.freeSlots.pop() ?? this.used++;
    if (slot === this.pfns.length) this.grow();
    this.pfns[slot] = pfn;
    this.memory.setOwner(pfn, this.ownerId, slot);
    return slot;
  }

  /** Frees a block. Preconditions: not pinned. */
  give(slot: Slot): void {
    this.memory.put(this.pfnOf(slot));
    this.pfns[slot] = NO_FRAME;
    this.freeSlots.push(slot);
  }

  pfnOf(slot: Slot): Pfn {
    return this.pfns[slot] as number;
  }

  referencesOf(): number {
    return 1;
  }

  detach(): boolean {
    return true;
  }

  attach(_from: Pfn, to: Pfn, slot: Slot): void {
    this.pfns[slot] = to;
  }

  private grow(): void {
    const larger = new Float64Array(this.pfns.length * 2).fill(NO_FRAME);
    larger.set(this.pfns);
    this.pfns = larger;
  }
}
