// SPDX-License-Identifier: MIT

import { FRAME_BYTES, type Pfn } from "../frames/index.js";
import { FrameCounts } from "./frame-counts.js";

/**
 * What one process has pinned for long. Each frame is charged once, however often it is pinned:
 * what the limit is for is memory that the system can't use otherwise.
 */
export class PinAccount {
  /** Long-term pins of each frame. */
  readonly counts = new FrameCounts();

  get chargedBytes(): number {
    return this.counts.frameCount * FRAME_BYTES;
  }

  /** @returns false: it would be more than `bytesMax`, and nothing is charged. */
  charge(pfn: Pfn, bytesMax: number): boolean {
    const isNew = this.counts.countOf(pfn) === 0;
    if (isNew && this.chargedBytes + FRAME_BYTES > bytesMax) return false;
    this.counts.add(pfn);
    return true;
  }

  uncharge(pfn: Pfn): void {
    this.counts.remove(pfn);
  }
}
