// SPDX-License-Identifier: MIT
// What a host does for its memory while nobody waits: caches give back what they hold, up to the
// high watermark, when less than the low one is free; and compaction goes on. Read first: Linux
// `mm/vmscan.c`, kswapd, and `mm/compaction.c`, kcompactd.

import type { Machine } from "../../base/index.js";
import type { PhysicalMemory } from "../frames/physical-memory.js";

/** Time between two looks at how much is free. */
const INTERVAL_NS = 10_000_000;
/** After looks that got nothing out of the caches the next one comes later, up to 128 times. */
const DEFER_SHIFT_MAX = 7;

export class MemoryBackground implements Machine {
  private readonly memory: PhysicalMemory;
  private nextNs = 0;
  private deferShift = 0;

  constructor(memory: PhysicalMemory) {
    this.memory = memory;
  }

  pump(nowNs: number): void {
    if (nowNs >= this.nextNs && this.memory.isLow) {
      const freed = this.memory.balance();
      this.deferShift = freed > 0 ? 0 : Math.min(this.deferShift + 1, DEFER_SHIFT_MAX);
      this.nextNs = nowNs + INTERVAL_NS * 2 ** this.deferShift;
    }
    this.memory.compactor.pump(nowNs);
  }

  deadlineNs(): number {
    const compactionNs = this.memory.compactor.deadlineNs();
    return this.memory.isLow ? Math.min(this.nextNs, compactionNs) : compactionNs;
  }

  checkInvariants(): void {
    this.memory.compactor.checkInvariants();
  }
}
