// SPDX-License-Identifier: MIT
// Huge pages set aside beforehand, as `nr_hugepages` of Linux does: what is in the pool is there
// for whoever needs a huge page later, whatever has become of the rest of memory.

import { assert } from "../../base/index.js";
import { MIGRATE, NO_FRAME, PAGE_BLOCK_ORDER, type Pfn, USER_FLAGS } from "../frames/constants.js";
import type { PhysicalMemory } from "../frames/physical-memory.js";

export interface HugePoolOptions {
  /** Order of a page: 9 for 2 MiB (default), 18 for 1 GiB. */
  readonly order?: number;
  /** Pages that may be taken from the allocator while the pool is empty; default none. */
  readonly surplusMax?: number;
}

export class HugePool {
  readonly order: number;
  readonly surplusMax: number;
  private readonly memory: PhysicalMemory;
  /** Pages nobody uses, each with the pool's reference. */
  private readonly idle: Pfn[] = [];
  /** Pages that belong to the pool, idle or not. */
  private size = 0;
  /** Pages beyond the pool that are in use. */
  private surplus = 0;

  constructor(memory: PhysicalMemory, options: HugePoolOptions = {}) {
    this.memory = memory;
    this.order = options.order ?? PAGE_BLOCK_ORDER;
    this.surplusMax = options.surplusMax ?? 0;
  }

  /** Pages of the pool. */
  get pageCount(): number {
    return this.size;
  }

  get idleCount(): number {
    return this.idle.length;
  }

  get surplusCount(): number {
    return this.surplus;
  }

  /**
   * Grows or shrinks the pool. It grows as far as memory allows and never takes a page from a user.
   * @returns pages that it has now.
   */
  resize(pageCount: number): number {
    while (this.size < pageCount) {
      const pfn = this.memory.allocate(this.order, MIGRATE.UNMOVABLE);
      if (pfn === NO_FRAME) break;
      this.idle.push(pfn);
      this.size++;
    }
    while (this.size > pageCount && this.idle.length > 0) {
      this.memory.put(this.idle.pop() as Pfn);
      this.size--;
    }
    return this.size;
  }

  /** A page with one reference, for the caller; its bytes are anybody's. NO_FRAME: none left. */
  take(): Pfn {
    const pfn = this.idle.pop();
    if (pfn !== undefined) return pfn;
    if (this.surplus >= this.surplusMax) return NO_FRAME;
    const extra = this.memory.allocate(this.order, MIGRATE.UNMOVABLE);
    if (extra !== NO_FRAME) this.surplus++;
    return extra;
  }

  /** Gives a page of `take` back. Preconditions: nobody else references or pins it. */
  give(pfn: Pfn): void {
    assert(this.memory.orderOf(pfn) === this.order, "a page of the pool's size");
    assert(this.memory.referencesOf(pfn) === 1, "a page is given back by its last user");
    assert(!this.memory.isPinned(pfn), "a page that is given back is not pinned");
    if (this.surplus > 0) {
      this.surplus--;
      this.memory.put(pfn);
      return;
    }
    this.memory.setOwner(pfn, 0, 0);
    this.memory.clearFlag(pfn, USER_FLAGS);
    this.idle.push(pfn);
  }
}
